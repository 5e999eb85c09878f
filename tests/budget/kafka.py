"""Kafka in memory for one worker: the requests that it reads, and a count of what it sends. Nothing goes wrong in it.

`Producer`, `Consumer` and `Admin` stand in for confluent-kafka's.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any, NamedTuple

from confluent_kafka import TopicPartition

from consumer.events.messages import Message
from consumer.events.topics import Topics
from tests.budget.counting import KAFKA_BYTES, KAFKA_RECORDS, KAFKA_TRANSACTIONS

PARTITIONS = 12


class Read(NamedTuple):
    """A request as confluent-kafka hands it over."""

    sent: Message
    number: int
    at: int

    def error(self) -> None:
        return None

    def topic(self) -> str:
        return self.sent.topic

    def partition(self) -> int:
        return self.number

    def offset(self) -> int:
        return self.at

    def key(self) -> bytes | None:
        return self.sent.key

    def value(self) -> bytes | None:
        return self.sent.value

    def headers(self) -> Sequence[tuple[str, bytes | None]]:
        return self.sent.headers

    def timestamp(self) -> tuple[int, int]:
        return 1, 0


class Broker:
    def __init__(self, counts: Counter[str]) -> None:
        self.counts = counts
        self.unread: list[Read] = []
        self.ends, self.positions, self.committed = [0] * PARTITIONS, [0] * PARTITIONS, [0] * PARTITIONS

    def send(self, requests: Sequence[Message]) -> None:
        """Put requests on the partitions in turns."""
        for number, request in enumerate(requests):
            partition = number % PARTITIONS
            self.unread.append(Read(request, partition, self.ends[partition]))
            self.ends[partition] += 1

    @property
    def settled(self) -> bool:
        """Whether the offsets of all requests are committed."""
        return self.committed == self.ends


class Producer:
    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._offsets: Sequence[TopicPartition] = ()

    def init_transactions(self, _: float) -> None:
        pass

    def begin_transaction(self) -> None:
        pass

    def produce(
        self, _: str, key: bytes, value: bytes, headers: Sequence[tuple[str, bytes]], on_delivery: Callable[..., None]
    ) -> None:
        self._broker.counts[KAFKA_RECORDS] += 1
        self._broker.counts[KAFKA_BYTES] += len(key) + len(value) + sum(len(n) + len(text) for n, text in headers)
        on_delivery(None, None)

    def send_offsets_to_transaction(self, offsets: Sequence[TopicPartition], *_: object) -> None:
        self._offsets = offsets

    def commit_transaction(self, _: float) -> None:
        self._broker.counts[KAFKA_TRANSACTIONS] += 1
        for one in self._offsets:
            self._broker.committed[one.partition] = one.offset

    def poll(self, _: float) -> int:
        return 0

    def flush(self, _: float) -> int:
        return 0


class Consumer:
    """The only member of its group: it has all partitions from its first poll on."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._assigned: Callable[[], None] = lambda: None

    def subscribe(self, topics: Sequence[str], on_assign: Callable[..., None], **_: object) -> None:
        partitions = [TopicPartition(topic, number) for topic in topics for number in range(PARTITIONS)]
        self._assigned = lambda: on_assign(self, partitions)

    def poll(self, _: float) -> Read | None:
        self._assigned()
        self._assigned = lambda: None
        return next(iter(self.consume(1, 0.0)), None)

    def consume(self, count: int, _: float) -> Sequence[Read]:
        unread = self._broker.unread
        read, unread[:] = unread[:count], unread[count:]
        for one in read:
            self._broker.positions[one.number] = one.at + 1
        return read

    def committed(self, wanted: Sequence[TopicPartition], **_: object) -> Sequence[TopicPartition]:
        return self._at(wanted, [offset or -1001 for offset in self._broker.committed])

    def position(self, wanted: Sequence[TopicPartition]) -> Sequence[TopicPartition]:
        return self._at(wanted, self._broker.positions)

    def _at(self, wanted: Sequence[TopicPartition], offsets: Sequence[int]) -> Sequence[TopicPartition]:
        return [TopicPartition(one.topic, one.partition, offsets[one.partition]) for one in wanted]

    def get_watermark_offsets(self, one: TopicPartition, **_: object) -> tuple[int, int]:
        return 0, self._broker.ends[one.partition]

    def memberid(self) -> str:
        return "the only one"

    def consumer_group_metadata(self) -> object:
        return self

    def incremental_assign(self, _: Sequence[TopicPartition]) -> None:
        pass

    def resume(self, _: Sequence[TopicPartition]) -> None:
        pass


class Admin:
    def list_topics(self, **_: object) -> Any:
        return SimpleNamespace(topics=[topic.name for topic in Topics().all()])
