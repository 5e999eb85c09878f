"""The client of a fleet: sends requests, follows them, stops them.

    with Client(load_settings(needs=("KAFKA_BOOTSTRAP_SERVERS",))) as fleet:
        request_id = fleet.submit(job_name="churn", algorithm="random_forest", dataset_name="iris")
        finished = fleet.wait(request_id)

It speaks to Kafka alone (and to the schema registry where there is one), as any producer and subscriber could.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import UTC, datetime, timedelta
from difflib import get_close_matches
from types import TracebackType
from typing import Any, NotRequired, Required, Self, TypedDict, Unpack
from uuid import UUID

import orjson
from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka import Message as Delivered

from consumer import kafka_config
from consumer.events.codec import Codec
from consumer.events.control import cancel_command
from consumer.events.errors import UndecodableError
from consumer.events.messages import Message, message
from consumer.events.requests import check_request_id, to_avro
from consumer.events.schema_registry import SchemaRegistry
from consumer.events.topics import Topics
from consumer.settings import Settings
from pipeline.errors import RejectedError, TransientError
from pipeline.jobs import Evaluation, HyperparameterValue, OutcomeKind, TrainingRequest, milliseconds
from schemas import Record

Event = Mapping[str, Any]
"""A record of one of the topics in its Avro form: the fields that its schema lists."""

TERMINAL = frozenset(OutcomeKind)
POLL_S = 0.2
REGISTERED_WITHIN_S = 15.0
"""The two events of a model are one transaction, but a reader may see the one partition before the other."""
SKEW = timedelta(minutes=5)
"""How far the clocks of the machines may be apart."""
FEW = 10_000
"""Records that are rather read than missed, where a broker does not know which offset belongs to a time."""


class MissingTopicError(Exception):
    """A topic that is needed does not exist; the message names it and the remedy."""


class RequestFields(TypedDict, total=False):
    """What a request may say, as `schemas/training-requests.avsc` documents it; all but two fields have a default."""

    algorithm: Required[str]
    dataset_name: Required[str]
    request_id: NotRequired[str]
    job_name: NotRequired[str]
    project: NotRequired[str]
    user: NotRequired[str]
    model_name: NotRequired[str]
    target_column: NotRequired[str | None]
    features: NotRequired[Sequence[str] | None]
    hyperparameters: NotRequired[Mapping[str, HyperparameterValue]]
    evaluation: NotRequired[Evaluation | Mapping[str, Any] | None]
    seed: NotRequired[int]
    max_training_time_s: NotRequired[float | None]
    max_memory_bytes: NotRequired[int | None]
    correlation_id: NotRequired[str]
    tags: NotRequired[Mapping[str, str]]


@dataclass(frozen=True, slots=True)
class Finished:
    """How a request ended: its terminal TrainingProgress, and the ModelRegistered of a model."""

    event: Event
    registered: Event | None = None

    @property
    def state(self) -> OutcomeKind:
        return OutcomeKind(self.event["state"])


class Client:
    """One producer, and a consumer for each watch; no consumer group is joined and nothing is committed.

    `timeout_s` bounds each wait for a service that does not answer, which ends in TransientError.  `submit` and
    `cancel` may be called from several threads.
    """

    def __init__(self, settings: Settings, *, timeout_s: float = 10.0) -> None:
        registry_url = settings.schema_registry_url
        self.topics = Topics(settings.topic_prefix)
        self.codec = Codec(SchemaRegistry(registry_url) if registry_url else None, settings.topic_prefix)
        self._settings = settings
        self._timeout_s = timeout_s
        self._prepared = False
        self._producer = Producer(
            {
                **kafka_config.producer_config(settings),
                **_quiet(),
                "message.timeout.ms": round(timeout_s * 1000),
                "request.timeout.ms": round(timeout_s * 1000),
            }
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._producer.purge()
        self._producer.flush(1.0)

    def submit(self, **request: Unpack[RequestFields]) -> str:
        """Send one request and wait until the brokers have it; returns its request_id, a new one if none is given.

        Raises RejectedError for what no request can say, MissingTopicError, and TransientError if Kafka does not
        take it in time: sending it again with the same request_id never trains it twice.
        """
        return self.submit_all([training_request(request)])[0]

    def submit_all(self, requests: Sequence[TrainingRequest]) -> list[str]:
        """Send requests, in their order, and wait for all of them; returns their request_ids."""
        self.prepare()
        messages = [self._request_message(request) for request in requests]
        try:
            self.send(messages)
        except TransientError as error:
            which = f"request {requests[0].request_id}" + (
                f" or one of {len(requests) - 1} more" if requests[1:] else ""
            )
            why = str(error).removeprefix(f"{error.service}: ")
            hint = "with the same request_id it may be sent again, and never trains twice"
            raise TransientError(error.service, f"{which} was not taken ({why}); {hint}") from error
        return [request.request_id for request in requests]

    def cancel(self, request_id: str, reason: str = "", user: str = "") -> None:
        """Ask for a request to be stopped; it may be unknown yet.  Its terminal event tells who won."""
        _check(request_id)
        self.prepare()
        command = cancel_command(request_id, reason=reason, user=user, requested_at=milliseconds(datetime.now(UTC)))
        self.send([message(self.codec, self.topics, Record.TRAINING_CONTROL, command)])

    def watch(
        self, request_id: str, *more: str, since: datetime | None = None, timeout_s: float | None = None
    ) -> Iterator[Event]:
        """The TrainingProgress events of the requests, past and coming, each once, to the terminal one of each.

        `since` is a time before they were submitted; by default it is told by request_ids of ours, else everything
        that the topic keeps (7 days) is looked through.  Raises TimeoutError if there is no end within `timeout_s`.
        """
        waiting = {request_id, *more}
        begin = since or _earliest(waiting)
        seen: set[str] = set()
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        for event in self._events(Record.TRAINING_PROGRESS, frozenset(waiting), begin):
            if event is not None and event["request_id"] in waiting and event["event_id"] not in seen:
                seen.add(event["event_id"])
                if event["state"] in TERMINAL:
                    waiting.remove(event["request_id"])
                yield event
            if not waiting:
                return
            if deadline is not None and time.monotonic() > deadline:
                raise TimeoutError(f"{', '.join(sorted(waiting))}: no outcome within {timeout_s:g} s; it goes on")

    def wait(self, request_id: str, *, since: datetime | None = None, timeout_s: float | None = None) -> Finished:
        """Wait for the end of a request; see `watch`."""
        *_, event = self.watch(request_id, since=since, timeout_s=timeout_s)
        return Finished(event, self.registered(event) if event["state"] == OutcomeKind.REGISTERED else None)

    def registered(self, event: Event, timeout_s: float = REGISTERED_WITHIN_S) -> Event | None:
        """The ModelRegistered that belongs to a REGISTERED event; None if it does not turn up in time."""
        deadline = time.monotonic() + timeout_s
        key = f"{event['project']}/{event['model_name']}"
        for found in self._events(Record.MODEL_REGISTERED, frozenset({key}), event["occurred_at"]):
            if found is not None and found["request_id"] == event["request_id"]:
                return found
            if time.monotonic() > deadline:
                return None
        return None

    def send(self, messages: Sequence[Message]) -> None:
        """Produce these and wait for their acknowledgement; see `submit` for what it raises."""
        present = self._present()
        for topic in sorted({one.topic for one in messages}):
            _require(topic, present)
        refused: list[KafkaError] = []

        def delivered(error: KafkaError | None, _: Delivered) -> None:
            if error is not None:
                refused.append(error)

        for one in messages:
            _produce(self._producer, one, delivered)
        left = self._producer.flush(self._timeout_s + 1)
        if left or refused:
            why = refused[0].str() if refused else f"no answer within {self._timeout_s:g} s"
            if refused and refused[0].code() == KafkaError.MSG_SIZE_TOO_LARGE:
                raise RejectedError(f"the request is larger than the topic takes: {why}")
            raise TransientError("kafka", f"{left + len(refused)} of {len(messages)} records were not taken: {why}")

    def _present(self) -> Mapping[str, Any]:
        return _present(self._producer, self._settings.kafka_bootstrap_servers, self._timeout_s)

    def prepare(self) -> None:
        """Learn the ids of the schema registry, where there is one; the other methods do it by themselves."""
        if not self._prepared:
            self.codec.prepare()
            self._prepared = True

    def _request_message(self, request: TrainingRequest) -> Message:
        _check(request.request_id)
        try:
            return message(self.codec, self.topics, Record.TRAINING_REQUEST, to_avro(request), request.traceparent)
        except (TypeError, ValueError, AttributeError) as error:
            raise RejectedError(f"request {request.request_id} cannot be written: {error}") from error

    def _events(self, record: Record, keys: frozenset[str], since: datetime | None) -> Iterator[Event | None]:
        """Events with these keys, without end, oldest first in a partition; None now and then, to look at the clock."""
        topic = self.topics.of(record)
        wanted = {key.encode() for key in keys}
        with Reader(self._settings, topic, self._timeout_s) as reader:
            reader.start({partition_of(key, reader.partitions) for key in wanted}, since)
            for delivered in reader:
                if delivered is None:
                    yield None
                elif delivered.key() in wanted:
                    yield self._decoded(delivered.value(), record)

    def _decoded(self, value: bytes | None, record: Record) -> Event | None:
        try:
            return self.codec.decode(value, record)
        except UndecodableError:
            return None  # some other producer's: none of ours would be


class Reader:
    """Reads partitions of a topic without a group, as a read_committed consumer sees them; of one thread.

    Iterating gives None wherever no record came for a while.  Raises TransientError when no broker has answered for
    `timeout_s`.
    """

    def __init__(self, settings: Settings, topic: str, timeout_s: float) -> None:
        self._topic = topic
        self._servers = settings.kafka_bootstrap_servers
        self._timeout_s = timeout_s
        self._down = False
        self._ended: set[int] = set()
        self._begun: set[int] = set()
        self._consumer = Consumer(
            {
                **kafka_config.tail_config(settings),
                **_quiet(),
                "auto.offset.reset": "earliest",
                "enable.partition.eof": True,
                "error_cb": self._trouble,
            }
        )
        try:
            self.partitions = _require(topic, _present(self._consumer, self._servers, timeout_s))
        except BaseException:
            self._consumer.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._consumer.close()

    @property
    def at_end(self) -> bool:
        """Whether every partition has been read to where it ended at that moment."""
        return self._ended >= self._begun

    def start(self, numbers: Iterable[int], since: datetime | None = None) -> None:
        """Read these partitions from their first record of that time on, or from their beginning."""
        self._begun, self._ended = set(numbers), set()
        try:
            self._consumer.assign([TopicPartition(self._topic, n, self._first(n, since)) for n in sorted(self._begun)])
        except KafkaException as error:
            raise _transient(error) from error

    def __iter__(self) -> Iterator[Delivered | None]:
        while True:
            delivered = self._consumer.poll(POLL_S)
            if delivered is None:
                self._check_answers()
                yield None
            elif (error := delivered.error()) is None:
                self._down = False
                yield delivered
            elif error.code() == KafkaError._PARTITION_EOF:
                self._ended.add(int(delivered.partition() or 0))
                yield None
            elif not error.retriable():
                raise TransientError("kafka", error.str())

    def _first(self, number: int, since: datetime | None) -> int:
        low, high = self._consumer.get_watermark_offsets(TopicPartition(self._topic, number), self._timeout_s)
        if since is None:
            return int(low)
        asked = TopicPartition(self._topic, number, max(0, round((since - SKEW).timestamp() * 1000)))
        (found,) = self._consumer.offsets_for_times([asked], self._timeout_s)
        # Nothing that young, or a broker (the embedded one) that does not know.
        return int(found.offset if found.offset >= 0 else max(low, high - FEW))

    def _trouble(self, error: KafkaError) -> None:
        self._down = self._down or error.code() == KafkaError._ALL_BROKERS_DOWN

    def _check_answers(self) -> None:
        if self._down:
            _present(self._consumer, self._servers, self._timeout_s)
            self._down = False


def training_request(given: Mapping[str, object]) -> TrainingRequest:
    """The request that says this, with a new request_id if it has none.  Raises RejectedError for unknown fields."""
    values: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    _known(values, _REQUEST_FIELDS, "a request")
    for name in ("algorithm", "dataset_name"):
        if not values.get(name):
            raise RejectedError(f"a request needs {name}")
    text = values.pop("hyperparameters_json", None)
    if text is not None:
        values["hyperparameters"] = {**values.get("hyperparameters", {}), **_json_object(text)}
    evaluation = values.get("evaluation", {})
    if isinstance(evaluation, Mapping):
        _known(evaluation, [field.name for field in fields(Evaluation)], "evaluation")
        values["evaluation"] = Evaluation(**evaluation)
    values.setdefault("request_id", new_request_id())
    values.setdefault("job_name", values.get("model_name") or f"{values['dataset_name']}-{values['algorithm']}")
    values.setdefault("model_name", values["job_name"])
    values.setdefault("requested_at", milliseconds(datetime.now(UTC)))
    if "features" in values:
        values["features"] = tuple(values["features"])
    return TrainingRequest(**values)


_REQUEST_FIELDS = (*(field.name for field in fields(TrainingRequest)), "hyperparameters_json")


def new_request_id() -> str:
    """A UUID of version 7: it tells when it was made, so that a watch knows where to begin."""
    value = round(time.time() * 1000) << 80 | int.from_bytes(os.urandom(10))
    value = value & ~(0xF << 76 | 0x3 << 62) | 0x7 << 76 | 0x2 << 62
    return str(UUID(int=value))


def time_of(request_id: str) -> datetime | None:
    """When a request_id of ours was made; None for those of others."""
    try:
        value = UUID(request_id)
    except ValueError:
        return None
    if value.version != 7 or str(value) != request_id:
        return None
    return min(datetime.fromtimestamp((value.int >> 80) / 1000, UTC), datetime.now(UTC))


def _earliest(request_ids: Iterable[str]) -> datetime | None:
    times = [time_of(request_id) for request_id in request_ids]
    return min((one for one in times if one is not None), default=None) if all(times) else None


def partition_of(key: bytes, partitions: int) -> int:
    """Where `murmur2_random`, and Java's default, put a record with this key."""
    return (murmur2(key) & 0x7FFFFFFF) % partitions


def murmur2(data: bytes) -> int:
    """The 32-bit MurmurHash2 with Kafka's seed (org.apache.kafka.common.utils.Utils.murmur2), unsigned."""
    m, mask = 0x5BD1E995, 0xFFFFFFFF
    whole = len(data) // 4 * 4
    h = 0x9747B28C ^ len(data)
    for at in range(0, whole, 4):
        k = int.from_bytes(data[at : at + 4], "little") * m & mask
        h = h * m & mask ^ (k ^ k >> 24) * m & mask
    if rest := data[whole:]:
        h = (h ^ int.from_bytes(rest, "little")) * m & mask
    h = (h ^ h >> 13) * m & mask
    return h ^ h >> 15


def _check(request_id: str) -> None:
    try:
        check_request_id(request_id)
    except UndecodableError as error:
        raise RejectedError(str(error)) from None


def _known(given: Iterable[str], known: Iterable[str], what: str) -> None:
    for name in given:
        if name not in known:
            near = get_close_matches(name, known, n=1)
            raise RejectedError(f"{what} has no {name!r}" + (f"; did you mean {near[0]}?" if near else ""))


def _json_object(text: str) -> dict[str, Any]:
    try:
        found = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise RejectedError(f"hyperparameters_json is no JSON: {error}") from error
    if not isinstance(found, dict):
        raise RejectedError("hyperparameters_json takes a JSON object")
    return found


def _quiet() -> dict[str, Any]:
    """What goes wrong is raised; librdkafka's lines on standard error would only say it in other words."""
    return {"log_level": 0, "error_cb": lambda _: None}


def _present(client: Producer | Consumer, servers: str, timeout_s: float) -> Mapping[str, Any]:
    """The topics that there are, with their metadata; raises TransientError if no broker answers."""
    try:
        return dict(client.list_topics(timeout=timeout_s).topics)
    except KafkaException as error:
        why = error.args[0].str().removeprefix("Failed to get metadata: ")
        raise TransientError("kafka", f"no broker answers at {servers}: {why}") from error


def _require(topic: str, present: Mapping[str, Any]) -> int:
    """How many partitions the topic has."""
    if topic not in present or not present[topic].partitions:
        raise MissingTopicError(f"topic {topic} is missing; run `tensorfleet topics create`")
    return len(present[topic].partitions)


def _transient(error: KafkaException) -> TransientError:
    cause = error.args[0]
    return TransientError("kafka", cause.str() if isinstance(cause, KafkaError) else str(cause))


def _produce(producer: Producer, one: Message, delivered: Callable[[KafkaError | None, Delivered], None]) -> None:
    while True:
        try:
            producer.produce(one.topic, key=one.key, value=one.value, headers=list(one.headers), on_delivery=delivered)
            return
        except BufferError:
            producer.poll(POLL_S)
        except KafkaException as error:
            if error.args[0].code() == KafkaError.MSG_SIZE_TOO_LARGE:
                raise RejectedError("the request is larger than Kafka takes: about 1 MB") from error
            raise _transient(error) from error
