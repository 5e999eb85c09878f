"""Chooses the request that is trained next: in order within a model, in turns among projects.

The requests of one model in one partition form a *line*. Only the head of a line may be trained; it leaves when its
document or negative outcome is confirmed, and the next one becomes the head. Heads that may start are *free*: they wait
in one queue per project, and the projects take turns, so that ten thousand requests of one project do not delay the
others. A project that trains as many as its limit allows is skipped until one training has ended. Requests that a dead
worker had in hand go first in their project, in their order, as they are older than what has arrived since.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar


class Queued(Protocol):
    """An entry of a line."""

    @property
    def line(self) -> Hashable:
        """(partition, assignment epoch, model key)."""
        ...

    @property
    def project(self) -> str: ...

    @property
    def running(self) -> bool:
        """Whether the entry was taken and its training has not ended."""
        ...

    @property
    def orphaned(self) -> bool:
        """Whether a worker that had it in hand has died."""
        ...


Q = TypeVar("Q", bound=Queued)


@dataclass(slots=True)
class _Line(Generic[Q]):
    entries: deque[Q] = field(default_factory=deque)
    waiting: set[int] = field(default_factory=set)
    """id() of the entries that may start as soon as they are the head."""


@dataclass(slots=True)
class _Queue(Generic[Q]):
    """The free heads of one project."""

    orphaned: deque[Q] = field(default_factory=deque)
    others: deque[Q] = field(default_factory=deque)

    def __bool__(self) -> bool:
        return bool(self.orphaned or self.others)

    def add(self, entry: Q) -> None:
        (self.orphaned if entry.orphaned else self.others).append(entry)

    def take(self) -> Q:
        return (self.orphaned or self.others).popleft()

    def remove(self, entry: Q) -> None:
        (self.orphaned if entry in self.orphaned else self.others).remove(entry)


class Dispatch(Generic[Q]):
    """Owned by the worker's thread.  `limit` gives how many of a project may run at once; None for any number."""

    def __init__(self, limit: Callable[[str], int | None] = lambda _: None) -> None:
        self._limit = limit
        self._taken: dict[str, list[Q]] = {}
        """Entries that were taken and may still run, of projects with a limit; at most as many as the limit."""
        self._lines: dict[Hashable, _Line[Q]] = {}
        self._free: dict[str, _Queue[Q]] = {}
        """The free heads by project; the first project with room has the next turn."""
        self._in_free: set[int] = set()

    def join(self, entry: Q) -> None:
        """Add an entry at the end of its line; entries behind it wait until it leaves."""
        self._lines.setdefault(entry.line, _Line()).entries.append(entry)

    def wait(self, entry: Q) -> None:
        """Let an entry of a line start once it is the head."""
        line = self._lines[entry.line]
        line.waiting.add(id(entry))
        self._free_head(line)

    def hold(self, entry: Q) -> None:
        """Keep an entry in its line without letting it start: it was taken, or is not to be trained now."""
        self._lines[entry.line].waiting.discard(id(entry))
        self._unfree(entry)

    def leave(self, entry: Q) -> None:
        """Remove an entry from its line and its queue; the line's new head may start."""
        line = self._lines.get(entry.line)
        if line is None:
            return
        line.waiting.discard(id(entry))
        self._unfree(entry)
        if line.entries and line.entries[0] is entry:
            line.entries.popleft()
        elif entry in line.entries:
            line.entries.remove(entry)
        if not line.entries:
            del self._lines[entry.line]
        else:
            self._free_head(line)

    def take(self) -> Q | None:
        """The next entry to train, or None; it stays the head of its line until it leaves."""
        project = next((project for project in self._free if self._has_room(project)), None)
        if project is None:
            return None
        queue = self._free.pop(project)
        entry = queue.take()
        self._in_free.discard(id(entry))
        if queue:
            self._free[project] = queue
        if self._limit(project) is not None:
            self._taken.setdefault(project, []).append(entry)
        return entry

    def __bool__(self) -> bool:
        return bool(self._free)

    def _has_room(self, project: str) -> bool:
        limit = self._limit(project)
        if limit is None:
            return True
        running = [entry for entry in self._taken.pop(project, ()) if entry.running]
        if running:
            self._taken[project] = running
        return len(running) < limit

    def _free_head(self, line: _Line[Q]) -> None:
        head = line.entries[0]
        if id(head) in line.waiting:
            line.waiting.discard(id(head))
            self._in_free.add(id(head))
            self._free.setdefault(head.project, _Queue()).add(head)

    def _unfree(self, entry: Q) -> None:
        if id(entry) not in self._in_free:
            return
        self._in_free.discard(id(entry))
        queue = self._free[entry.project]
        queue.remove(entry)
        if not queue:
            del self._free[entry.project]
