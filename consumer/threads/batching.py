"""How long results are batched."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(slots=True)
class Pace:
    """Lets groups grow while every lane is busy, when only readers wait for them; else each goes at once."""

    every_s: float
    next_at: float = 0.0

    def wait_s(self, now: float, busy: bool) -> float:
        """How long the next group has to wait."""
        return max(0.0, self.next_at - now) if busy else 0.0

    def went(self, now: float) -> None:
        self.next_at = now + self.every_s


class Batching(Generic[T]):
    """Items that go on in groups of at most `limit`, each after the one before was answered, at this pace."""

    def __init__(self, pace: Pace, limit: int) -> None:
        self._pace = pace
        self._limit = limit
        self._items: list[T] = []
        self._on_its_way = False

    def add(self, item: T) -> None:
        self._items.append(item)

    def answered(self) -> None:
        """The group on its way has arrived."""
        self._on_its_way = False

    def wait_s(self, now: float, busy: bool) -> float:
        """How long until a group may go; infinite if there is none to go, or one on its way."""
        return self._pace.wait_s(now, busy) if self._items and not self._on_its_way else float("inf")

    def next_group(self, now: float, busy: bool) -> list[T]:
        """The group that goes now; empty if none may."""
        if self.wait_s(now, busy):
            return []
        self._on_its_way = True
        self._pace.went(now)
        return self._cut()

    def rest(self) -> Iterator[list[T]]:
        """All that is left, in groups, whatever is on its way."""
        while self._items:
            yield self._cut()

    def _cut(self) -> list[T]:
        group = self._items[: self._limit]
        del self._items[: self._limit]
        return group
