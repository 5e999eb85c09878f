"""Provides the client of a fleet: it sends requests, follows them, and cancels them.

    with Client() as fleet:
        request_id = fleet.submit(algorithm="random_forest", dataset_name="iris", model_name="flowers")
        finished = fleet.wait(request_id)

It talks only to Kafka, and to the schema registry if there is one, as any other producer and consumer could.
`import_dataset` alone writes to the stores.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, Unpack

from confluent_kafka import KafkaError, KafkaException, Producer
from confluent_kafka import Message as Delivered

from consumer.embedded import named_settings, resolve, with_stores
from consumer.events.codec import Codec
from consumer.events.control import cancel_command
from consumer.events.errors import UndecodableError
from consumer.events.messages import Message, message
from consumer.events.requests import check_request_id, to_avro
from consumer.events.schema_registry import SchemaRegistry
from consumer.events.topics import Topics
from consumer.kafka import config as kafka_config
from consumer.kafka.topic_reader import POLL_S, Reader, partition_count, partition_of, quiet, topics_present, transient
from consumer.new_requests import RequestFields, earliest, training_request
from consumer.settings import Settings
from pipeline.errors import NotFoundError, RejectedError, TransientError
from pipeline.jobs import OutcomeKind, TrainingRequest, milliseconds
from schemas import RecordType

if TYPE_CHECKING:
    import pandas as pd

    from consumer.stores import Stores
    from pipeline.datasets import DatasetVersion
    from pipeline.reading.options import Told

Event = Mapping[str, Any]
"""A record of one of the topics in its Avro form: the fields that its schema lists."""

TERMINAL = frozenset(OutcomeKind)
ANSWERS_S = 0.02
REGISTERED_WITHIN_S = 15.0
"""A model's two events are in one transaction, but a reader may get one partition's event before the other's."""


@dataclass(frozen=True, slots=True)
class Finished:
    """How a request ended: its terminal TrainingProgress event, and its ModelRegistered event.

    `registered` is None if the request did not end as REGISTERED, or if the event was not read within 15 s.
    """

    event: Event
    registered: Event | None = None

    @property
    def state(self) -> OutcomeKind:
        return OutcomeKind(self.event["state"])

    @property
    def version(self) -> str | None:
        """The registered version, such as `v3`, or None."""
        return None if self.registered is None else str(self.registered["version"])

    @property
    def metrics(self) -> Mapping[str, float]:
        """The metrics of the registered model; empty if there is none."""
        return {} if self.registered is None else self.registered["metrics"]

    @property
    def warnings(self) -> Sequence[str]:
        """What was decided in reading the data and what looks suspicious; empty if there is no model."""
        return () if self.registered is None else self.registered["warnings"] or ()

    @property
    def error(self) -> str:
        """Why there is no model; empty if there is one."""
        return str(self.event["error"]["message"]) if self.event["error"] else ""


class Client:
    """Has one producer, and a consumer for each watch; joins no consumer group and commits nothing.

    Without `settings` it finds its services as the commands do.  In order of precedence: `named` settings, as in
    Client(kafka_bootstrap_servers="kafka:9092"), the environment, `.env`, a `tensorfleet dev` that runs in this folder.
    docs/settings.md lists the names.

    `timeout_s` limits each wait for a service that does not answer; then TransientError is raised.  `submit` and
    `cancel` may be called from several threads.  With a `project` the client is limited to it: requests belong to it,
    one that names another project is refused, and requests of other projects are neither followed nor cancelled.
    Without `settings` and `project` it is that of TENSORFLEET_PROJECT.

    Raises SettingsError if no Kafka is named, or `named` has a name that is not a setting.
    """

    def __init__(
        self, settings: Settings | None = None, *, timeout_s: float = 10.0, project: str | None = None, **named: Any
    ) -> None:
        if settings is None:
            settings = resolve(named_settings(**named))
            project = project or settings.tensorfleet_project
        registry_url = settings.schema_registry_url
        self.topics = Topics(settings.topic_prefix)
        self.codec = Codec(SchemaRegistry(registry_url) if registry_url else None, settings.topic_prefix)
        self._settings = settings
        self._stores: Stores | None = None
        self._timeout_s = timeout_s
        self._project = project
        self._prepared = False
        self._producer = self._new_producer()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the client; records that another thread is still sending are dropped."""
        if self._stores is not None:
            self._stores.close()
        self._producer.purge()
        self._producer.flush(1.0)

    def _new_producer(self) -> Producer:
        return Producer(
            {
                **kafka_config.producer_config(self._settings),
                **quiet(),
                "message.timeout.ms": round(self._timeout_s * 1000),
                "request.timeout.ms": round(self._timeout_s * 1000),
            }
        )

    def submit(self, **request: Unpack[RequestFields]) -> str:
        """Send one request and wait until the brokers have it; returns its request_id, a new one if none is given.

        Raises RejectedError for an invalid request, MissingTopicsError, and TransientError if Kafka does not
        acknowledge it in time: sending it again with the same request_id never trains it twice.
        """
        return self.submit_all([request])[0]

    def submit_all(self, requests: Sequence[TrainingRequest | RequestFields]) -> list[str]:
        """Send requests in their order, and wait until the brokers have all; returns their request_ids.

        A request may be a mapping of the arguments of `submit`.
        """
        meant = [self._meant(request) for request in requests]
        self.prepare()
        messages = [self._request_message(request) for request in meant]
        try:
            self.send(messages)
        except TransientError as error:
            which = f"request {meant[0].request_id}" + (f" or one of {len(meant) - 1} more" if meant[1:] else "")
            why = str(error).removeprefix(f"{error.service}: ")
            hint = "with the same request_id it may be sent again, and never trains twice"
            raise TransientError(error.service, f"{which} was not taken ({why}); {hint}") from error
        return [request.request_id for request in meant]

    def _meant(self, request: TrainingRequest | RequestFields) -> TrainingRequest:
        """The request in full, of this client's project."""
        if not isinstance(request, TrainingRequest):
            request = training_request(request if self._project is None else {"project": self._project, **request})
        if self._project not in (None, request.project):
            raise RejectedError(
                f"the client is limited to project {self._project}, but the request names project {request.project}"
            )
        return request

    def cancel(self, request_id: str, reason: str = "", user: str = "") -> None:
        """Ask for a request to be stopped, even one that is unknown yet.  Its terminal event tells how it ended.

        With a `project`, raises NotFoundError unless a worker has accepted the request: only then do its events show
        that it belongs to the project.
        """
        _check(request_id)
        self.prepare()
        if self._project is not None and not self.latest([request_id]):
            raise self._not_here(request_id)
        command = cancel_command(request_id, reason=reason, user=user, requested_at=milliseconds(datetime.now(UTC)))
        self.send([message(self.codec, self.topics, RecordType.TRAINING_CONTROL, command)])

    def watch(
        self, request_id: str, *more: str, since: datetime | None = None, timeout_s: float | None = None
    ) -> Iterator[Event]:
        """The TrainingProgress events of the requests, past and future, each once, up to each terminal one.

        `since` is a time before they were submitted.  By default it is read from request_ids that this package made;
        with others the whole topic (7 days) is read.  Raises TimeoutError if they do not all end within `timeout_s`.
        """
        for event in self.watched((request_id, *more), since, timeout_s):
            if event is not None:
                yield event

    def watched(
        self, request_ids: Collection[str], since: datetime | None, timeout_s: float | None
    ) -> Iterator[Event | None]:
        """As `watch`, but also yields None now and then, so that the caller can stop."""
        waiting = set(request_ids)
        begin = since or earliest(waiting)
        seen: set[str] = set()
        unheard = set(waiting)
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        for event in self._events(RecordType.TRAINING_PROGRESS, frozenset(waiting), begin):
            if event is not None and event["request_id"] in waiting and event["event_id"] not in seen:
                self._check_project(event)
                seen.add(event["event_id"])
                unheard.discard(event["request_id"])
                if event["state"] in TERMINAL:
                    waiting.remove(event["request_id"])
                yield event
            else:
                yield None
            if not waiting:
                return
            if deadline is not None and time.monotonic() > deadline:
                silent = f"; of {', '.join(sorted(unheard))} nothing was heard" if unheard else ""
                raise TimeoutError(f"{', '.join(sorted(waiting))}: no outcome within {timeout_s:g} s{silent}")

    def latest(self, request_ids: Collection[str]) -> dict[str, Event]:
        """The last TrainingProgress event so far of each request that has any; reads as far back as `watch`."""
        self.prepare()
        found = {}
        begin = earliest(request_ids)
        for event in self._events(RecordType.TRAINING_PROGRESS, frozenset(request_ids), begin, to_end=True):
            if event is not None and event["request_id"] in request_ids:
                self._check_project(event)
                found[event["request_id"]] = event
        return found

    def wait(self, request_id: str, *, since: datetime | None = None, timeout_s: float | None = None) -> Finished:
        """Wait for the end of a request; see `watch`."""
        return self.wait_all([request_id], since=since, timeout_s=timeout_s)[request_id]

    def wait_all(
        self, request_ids: Collection[str], *, since: datetime | None = None, timeout_s: float | None = None
    ) -> dict[str, Finished]:
        """Wait for the ends of all these requests with one consumer; see `watch`."""
        events = self.watch(*request_ids, since=since, timeout_s=timeout_s) if request_ids else ()
        return self.finished([event for event in events if event["state"] in TERMINAL])

    def finished(self, ends: Collection[Event]) -> dict[str, Finished]:
        """These terminal events with their ModelRegistered events, by request_id."""
        registered = self._registered([end for end in ends if end["state"] == OutcomeKind.REGISTERED])
        return {end["request_id"]: Finished(end, registered.get(end["request_id"])) for end in ends}

    def _registered(self, ends: Collection[Event]) -> dict[str, Event]:
        """The ModelRegistered events that are read within REGISTERED_WITHIN_S, by request_id."""
        missing, found = {end["request_id"] for end in ends}, dict[str, Event]()
        if not missing:
            return found
        deadline = time.monotonic() + REGISTERED_WITHIN_S
        keys = frozenset(f"{end['project']}/{end['model_name']}" for end in ends)
        for event in self._events(RecordType.MODEL_REGISTERED, keys, min(end["occurred_at"] for end in ends)):
            if event is not None and event["request_id"] in missing:
                missing.remove(event["request_id"])
                found[event["request_id"]] = event
            if not missing or time.monotonic() > deadline:
                break
        return found

    def import_dataset(
        self,
        name: str,
        rows: pd.DataFrame | Path | str,
        target_column: str | None = None,
        *,
        user: str = "",
        forget: bool = False,
        **told: Unpack[Told],
    ) -> DatasetVersion:
        """Store a frame, or the file with this path, as the next version of a dataset; requests may name it at once.

        `s3://BUCKET/KEY.parquet` and `s3://BUCKET/PREFIX/` are not copied: every training reads what is there then.

        The default target is that of the version before, else the last column.  An index with a name becomes columns,
        another is not stored.  What is `told` about the rows (docs/data-rules.md) is kept for the next import of the
        name, unless that says `forget`; what reading has decided is in the version's `notes`.
        If a version with the same rows and target exists, it becomes current again instead.  Writes to the settings'
        MONGODB_URL, else to the stores of a `tensorfleet dev`.  Raises RejectedError, naming the column, for values
        other than numbers, text, booleans, dates and lists of numbers; SettingsError if no stores are named;
        TransientError if they do not answer.
        """
        from consumer.stores import loader, open_stores
        from pipeline.datasets import Fetched, Origin, reading
        from pipeline.datasets.s3 import SCHEME
        from pipeline.datasets.versions import target_of, told_before
        from pipeline.features.frames import table_of
        from pipeline.reading.options import NOTHING_SAID, ReadOptions
        from pipeline.reading.tables import about
        from pipeline.reading.typed import notes_of

        settings = with_stores(self._settings)
        if self._stores is None:
            self._stores = open_stores(settings)
        source = self._stores.datasets
        before, its_target = (NOTHING_SAID, None) if forget else told_before(source, name)
        options = before.but(ReadOptions.from_document(told))
        asked = None if target_column is None else str(target_column)
        if isinstance(rows, str) and rows.startswith(SCHEME):
            added, table = source.point(name, rows, asked or its_target, Origin(user, rows), options)
            return replace(added.version, notes=tuple(map(str, notes_of(table))))
        if isinstance(rows, str | Path):
            file = Path(rows)
            if not file.is_file():
                raise RejectedError(f"dataset {name!r}: there is no file {file}")
            fetched = Fetched(name, file.absolute(), file.name, target_column=None, revision="", options=options)
            loaded = reading.loaded(fetched, loader(settings), max_bytes=None)
            table, fingerprint = loaded.table, loaded.fingerprint
        else:
            with about(name):
                file, table, fingerprint = Path(), table_of(rows, options), None
        target = target_of(asked, its_target, table)
        version = source.add(name, table, target, Origin(user, file.name), options, fingerprint).version
        return replace(version, notes=tuple(map(str, notes_of(table))))

    def send(self, messages: Sequence[Message]) -> None:
        """Produce these and wait for their acknowledgement; raises as `submit`."""
        present = self._topics_present()
        for topic in sorted({one.topic for one in messages}):
            partition_count(topic, present)
        refused: list[KafkaError] = []
        taken = 0

        def delivered(error: KafkaError | None, _: Delivered) -> None:
            nonlocal taken
            if error is None:
                taken += 1
            else:
                refused.append(error)

        producer, deadline = self._producer, time.monotonic() + self._timeout_s + 1
        try:
            for one in messages:
                _produce(producer, one, delivered)
        except KafkaException as error:
            if error.args[0].fatal() and self._producer is producer:  # it sends nothing any more
                self._producer = self._new_producer()
            if error.args[0].code() == KafkaError.MSG_SIZE_TOO_LARGE:
                raise RejectedError("the request is larger than Kafka takes: about 1 MB") from error
            raise transient(error) from error
        while taken + len(refused) < len(messages) and time.monotonic() < deadline:
            producer.poll(ANSWERS_S)  # briefly, as another thread's poll may get the answers
        if taken == len(messages):
            return
        why = refused[0].str() if refused else f"no answer within {self._timeout_s:g} s"
        if refused and refused[0].code() == KafkaError.MSG_SIZE_TOO_LARGE:
            raise RejectedError(f"the request is larger than the topic takes: {why}")
        raise TransientError("kafka", f"{len(messages) - taken} of {len(messages)} records were not taken: {why}")

    def _topics_present(self) -> Mapping[str, Any]:
        return topics_present(self._producer, self._settings.kafka_bootstrap_servers, self._timeout_s)

    def prepare(self) -> None:
        """Register our schemas in the schema registry, if there is one, and learn their ids; the other methods call
        this."""
        if not self._prepared:
            self.codec.prepare()
            self._prepared = True

    def _request_message(self, request: TrainingRequest) -> Message:
        _check(request.request_id)
        try:
            return message(self.codec, self.topics, RecordType.TRAINING_REQUEST, to_avro(request), request.traceparent)
        except (TypeError, ValueError, AttributeError, OverflowError) as error:
            raise RejectedError(f"request {request.request_id} cannot be written: {error}") from error

    def _check_project(self, event: Event) -> None:
        if self._project not in (None, event["project"]):
            raise self._not_here(event["request_id"])

    def _not_here(self, request_id: str) -> NotFoundError:
        return NotFoundError(f"project {self._project} has no request {request_id} that a worker has accepted")

    def _events(
        self, record: RecordType, keys: frozenset[str], since: datetime | None, *, to_end: bool = False
    ) -> Iterator[Event | None]:
        """Events with these keys, oldest first in each partition, and None now and then, so that callers can time out.

        Endless, or with `to_end` only the events so far.
        """
        topic = self.topics.of(record)
        wanted = {key.encode() for key in keys}
        with Reader(self._settings, topic, self._timeout_s) as reader:
            reader.start({partition_of(key, reader.partitions) for key in wanted}, since)
            for delivered in reader:
                if delivered is None:
                    if to_end and reader.at_end:
                        return
                    yield None
                else:
                    yield self._decoded(delivered.value(), record) if delivered.key() in wanted else None

    def _decoded(self, value: bytes | None, record: RecordType) -> Event:
        """Raises UndecodableError: an event must not be skipped, as it may be the terminal one."""
        try:
            return self.codec.decode(value, record)
        except UndecodableError as error:
            what = f"an event of the topic {self.topics.of(record)} cannot be read"
            raise UndecodableError(f"{what}: {error}; SCHEMA_REGISTRY_URL must be that of the workers") from error


def _check(request_id: str) -> None:
    try:
        check_request_id(request_id)
    except UndecodableError as error:
        raise RejectedError(str(error)) from None


def _produce(producer: Producer, one: Message, delivered: Callable[[KafkaError | None, Delivered], None]) -> None:
    while True:
        try:
            producer.produce(one.topic, key=one.key, value=one.value, headers=list(one.headers), on_delivery=delivered)
            return
        except BufferError:
            producer.poll(POLL_S)
