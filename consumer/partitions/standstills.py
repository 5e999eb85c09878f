"""Finds partitions whose offset is held back by one request, and measures for how long."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from consumer.partitions.records import Partition

TELL_S = 300.0
"""A standstill is reported after this long, and again each time this long has passed."""


@dataclass(frozen=True, slots=True)
class Standstill:
    """The first unfinished request of a partition, with finished ones behind it.

    Attributes:
        finished_ahead: how many requests at higher offsets are finished.
        for_s: how long this has lasted.
        due: whether to report it now.
    """

    partition: Partition
    offset: int
    finished_ahead: int
    for_s: float
    due: bool


@dataclass(slots=True)
class _Head:
    offset: int
    since: float
    tell_at: float


class Standstills:
    """Owned by the worker's thread."""

    def __init__(self) -> None:
        self._heads: dict[Partition, _Head] = {}

    def observe(self, heads: Mapping[Partition, tuple[int, int]], now: float) -> Sequence[Standstill]:
        """`heads` has (first unfinished offset, finished records beyond it) of partitions that have both."""
        self._heads = {
            partition: before
            if (before := self._heads.get(partition)) is not None and before.offset == offset
            else _Head(offset, now, now + TELL_S)
            for partition, (offset, _) in heads.items()
        }
        found = []
        for partition, head in self._heads.items():
            due = now >= head.tell_at
            if due:
                head.tell_at = now + TELL_S
            found.append(Standstill(partition, head.offset, heads[partition][1], now - head.since, due))
        return found
