"""What the intake reads and tells: records, what was passed over, and which partitions are ours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, NamedTuple

from confluent_kafka import TopicPartition

from consumer.partitions.offsets import Commit, CommittedProgress


class Partition(NamedTuple):
    topic: str
    number: int


@dataclass(frozen=True, slots=True, eq=False)
class Record:
    """A record of the requests topic, as delivered in one assignment of its partition.

    `epoch` counts our assignments: a partition that is lost and regained has another one, and nothing that belongs to
    the former epoch may be committed any more.
    """

    partition: Partition
    epoch: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes | None]]
    timestamp_ms: int

    @property
    def project(self) -> bytes:
        return project_of(self.key)


@dataclass(frozen=True, slots=True)
class PassedOver:
    """Records of a project that the worker is sated with: they are there, and are read again later."""

    partition: Partition
    epoch: int
    offsets: list[int]


@dataclass(frozen=True, slots=True)
class Membership:
    """What we own, and the proof of it, taken together right after a poll.

    Attributes:
        epochs: of every partition that we own.
        positions: the next offset to be delivered, of the partitions that have delivered anything.
        ends: the end of the log of those, as last heard from the broker.
        proof: the consumer group metadata, opaque; None until we have joined.
    """

    epochs: Mapping[Partition, int] = field(default_factory=lambda: MappingProxyType({}))
    positions: Mapping[Partition, int] = field(default_factory=lambda: MappingProxyType({}))
    ends: Mapping[Partition, int] = field(default_factory=lambda: MappingProxyType({}))
    proof: Any = None


@dataclass(frozen=True, slots=True)
class Polled:
    """One turn of the poll loop.

    Attributes:
        records: what was read, in the order of each partition.
        opened: what was committed before, of partitions at their first record.
        rewound: partitions that are read again, each with the offset it is read from: nothing is left before it.
    """

    records: Sequence[Record | PassedOver]
    opened: Mapping[Partition, CommittedProgress]
    membership: Membership
    rewound: Mapping[Partition, int] = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True, slots=True)
class Reading:
    """What the worker wants to be read.

    Attributes:
        records: how many may be delivered since the start, without those that are passed over.
        closed: partitions from which nothing is wanted now.
        in_order: partitions in which nothing is to be read beyond what was passed over.
        sated: projects, as keys name them, whose records are to be passed over.
    """

    records: int = 0
    closed: frozenset[Partition] = frozenset()
    in_order: frozenset[Partition] = frozenset()
    sated: frozenset[bytes] = frozenset()


def project_of(key: bytes | None) -> bytes:
    """The project that a key names, `project/model_name`; records without one count as a project of their own."""
    return (key or b"").partition(b"/")[0]


def kafka_offsets(commits: Mapping[Partition, Commit]) -> list[TopicPartition]:
    """As confluent-kafka takes them."""
    return [
        TopicPartition(partition.topic, partition.number, commit.offset, commit.metadata)
        for partition, commit in commits.items()
    ]
