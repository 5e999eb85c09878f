"""Partitions whose offset stands still behind one request, and for how long."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from consumer.partitions.records import Partition

TELL_S = 300.0
"""A standstill is told once it has lasted this long, and again each time it has lasted as long once more."""


@dataclass(frozen=True, slots=True)
class Standstill:
    """A request that is its partition's first unfinished one while some behind it are finished.

    Attributes:
        finished_ahead: how many behind it are finished.
        for_s: how long it has been so.
        due: whether it is time to tell.
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


class HeadOfLine:
    """Owned by the worker's thread."""

    def __init__(self) -> None:
        self._heads: dict[Partition, _Head] = {}

    def observe(self, heads: Mapping[Partition, tuple[int, int]], now: float) -> Sequence[Standstill]:
        """`heads` has the first unfinished offset, and how many beyond it are finished, where there are any."""
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
