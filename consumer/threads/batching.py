"""Batches results, and decides how long a batch waits."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(slots=True)
class Pace:
    """While every lane is busy, sends a group at most every `every_s`, so that groups grow; else at once."""

    every_s: float
    next_at: float = 0.0

    def wait_s(self, now: float, busy: bool) -> float:
        """Seconds that the next group has to wait."""
        return max(0.0, self.next_at - now) if busy else 0.0

    def went(self, now: float) -> None:
        self.next_at = now + self.every_s


class Batching(Generic[T]):
    """Sends items on in groups of at most `limit`, at this pace; each waits for the answer to the one before."""

    def __init__(self, pace: Pace, limit: int) -> None:
        self._pace = pace
        self._limit = limit
        self._items: list[T] = []
        self._on_its_way = False

    def add(self, item: T) -> None:
        self._items.append(item)

    def answered(self) -> None:
        """The group on its way was answered."""
        self._on_its_way = False

    def wait_s(self, now: float, busy: bool) -> float:
        """Seconds until a group may go; infinite if there are no items or a group is on its way."""
        return self._pace.wait_s(now, busy) if self._items and not self._on_its_way else float("inf")

    def next_group(self, now: float, busy: bool) -> list[T]:
        """The group that goes now; empty if none may."""
        if self.wait_s(now, busy):
            return []
        self._on_its_way = True
        self._pace.went(now)
        return self._cut()

    def rest(self) -> Iterator[list[T]]:
        """All items left, in groups, even while one is on its way."""
        while self._items:
            yield self._cut()

    def _cut(self) -> list[T]:
        group = self._items[: self._limit]
        del self._items[: self._limit]
        return group
