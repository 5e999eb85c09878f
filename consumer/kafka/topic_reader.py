"""Reads a topic without joining a group or committing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime, timedelta
from types import TracebackType
from typing import Any, Self

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition

from consumer.events.errors import MissingTopicsError
from consumer.kafka import config as kafka_config
from consumer.settings import Settings
from pipeline.errors import TransientError

POLL_S = 0.2
SKEW = timedelta(minutes=5)
"""How far the machines' clocks may differ."""
FEW = 10_000
"""How many of the last records to read if a broker cannot map a time to an offset."""


class Reader:
    """Reads partitions of a topic without a group, as a read_committed consumer.  Owned by one thread.

    Iterating yields None if no record comes for POLL_S.  Raises TransientError if no broker answers for `timeout_s`.
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
                **quiet(),
                "auto.offset.reset": "earliest",
                "enable.partition.eof": True,
                # The end of a partition is told by the answer to a fetch beyond it: by default after half a second.
                "fetch.wait.max.ms": 50,
                "error_cb": self._trouble,
            }
        )
        try:
            self.partitions = partition_count(topic, topics_present(self._consumer, self._servers, timeout_s))
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
        """Whether every partition has been read to its end."""
        return self._ended >= self._begun

    def start(self, numbers: Iterable[int], since: datetime | None = None) -> None:
        """Read these partitions from `since` (minus SKEW) on, or from their beginning."""
        self._begun, self._ended = set(numbers), set()
        try:
            self._consumer.assign([TopicPartition(self._topic, n, self._first(n, since)) for n in sorted(self._begun)])
        except KafkaException as error:
            raise transient(error) from error

    def __iter__(self) -> Iterator[Message | None]:
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
        # No record is that new, or the broker cannot tell (the embedded one).
        return int(found.offset if found.offset >= 0 else max(low, high - FEW))

    def _trouble(self, error: KafkaError) -> None:
        self._down = self._down or error.code() == KafkaError._ALL_BROKERS_DOWN

    def _check_answers(self) -> None:
        if self._down:
            topics_present(self._consumer, self._servers, self._timeout_s)
            self._down = False


def partition_of(key: bytes, partitions: int) -> int:
    """The partition that `murmur2_random`, and Java's default, choose for this key."""
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


def quiet() -> dict[str, Any]:
    """Turns off librdkafka's lines on standard error: errors are raised anyway."""
    return {"log_level": 0, "error_cb": lambda _: None}


def topics_present(client: Producer | Consumer, servers: str, timeout_s: float) -> Mapping[str, Any]:
    """The existing topics with their metadata; raises TransientError if no broker answers."""
    try:
        return dict(client.list_topics(timeout=timeout_s).topics)
    except KafkaException as error:
        why = error.args[0].str().removeprefix("Failed to get metadata: ")
        raise TransientError("kafka", f"no broker answers at {servers}: {why}") from error


def partition_count(topic: str, present: Mapping[str, Any]) -> int:
    """How many partitions the topic has; raises MissingTopicsError."""
    if topic not in present or not present[topic].partitions:
        raise MissingTopicsError(f"topic {topic} is missing; run `tensorfleet topics create`")
    return len(present[topic].partitions)


def transient(error: KafkaException) -> TransientError:
    """A librdkafka error as a TransientError."""
    cause = error.args[0]
    return TransientError("kafka", cause.str() if isinstance(cause, KafkaError) else str(cause))
