"""Defines what the intake delivers: records, offsets that were passed over, and which partitions are ours."""

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

    `epoch` counts our assignments: a partition that is lost and regained has a new epoch, and nothing of an earlier
    epoch may be committed.
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
    """Records that were read but not delivered, as the worker holds enough of their project; they are read again."""

    partition: Partition
    epoch: int
    offsets: list[int]


@dataclass(frozen=True, slots=True)
class Membership:
    """The partitions that we own, and the proof of it, taken together right after a poll.

    Attributes:
        epochs: the assignment epoch of each partition that we own.
        positions: the next offset to be delivered, of each partition that has delivered anything.
        ends: the end of the log of those partitions, as last received from the broker.
        proof: the consumer group metadata, opaque; None until we have joined the group.
    """

    epochs: Mapping[Partition, int] = field(default_factory=lambda: MappingProxyType({}))
    positions: Mapping[Partition, int] = field(default_factory=lambda: MappingProxyType({}))
    ends: Mapping[Partition, int] = field(default_factory=lambda: MappingProxyType({}))
    proof: Any = None


@dataclass(frozen=True, slots=True)
class Polled:
    """One turn of the poll loop.

    Attributes:
        records: the records read, in the order of each partition.
        opened: partitions that deliver their first record, each with its committed progress.
        rewound: partitions that are read again, each with the first offset; earlier ones have expired.
    """

    records: Sequence[Record | PassedOver]
    opened: Mapping[Partition, CommittedProgress]
    membership: Membership
    rewound: Mapping[Partition, int] = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True, slots=True)
class Reading:
    """What the intake is to read.

    Attributes:
        records: how many records may be delivered, counted from the start, without those passed over.
        closed: partitions to pause.
        in_order: partitions in which, once a record is passed over, all later ones are passed over too.
        sated: projects of which the worker holds enough: their records are passed over. As in the record keys.
        idle: whether the worker holds nothing: until the next record it orders nothing.
    """

    records: int = 0
    closed: frozenset[Partition] = frozenset()
    in_order: frozenset[Partition] = frozenset()
    sated: frozenset[bytes] = frozenset()
    idle: bool = False


def project_of(key: bytes | None) -> bytes:
    """The project in a key `project/model_name`; all records without a key count as one project, the empty one."""
    return (key or b"").partition(b"/")[0]


def kafka_offsets(commits: Mapping[Partition, Commit]) -> list[TopicPartition]:
    """The offsets as confluent-kafka takes them."""
    return [
        TopicPartition(partition.topic, partition.number, commit.offset, commit.metadata)
        for partition, commit in commits.items()
    ]
