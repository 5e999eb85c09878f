"""Which request is trained next: in order within a model, fair among projects.

Requests of one model in one partition stand in a *line*; only its head may be trained, and the next one moves up when
the head has left, that is when its document or negative outcome is confirmed. Heads that are free to start wait in
one queue per project, and the projects take turns, so that ten thousand requests of one hold no other's back. A
project that trains as many as it may is passed over until one of them has ended. What a worker had in hand that has
died goes first in its project, in its order: it came before what has arrived meanwhile.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar


class Queued(Protocol):
    """What can stand in a line."""

    @property
    def line(self) -> Hashable:
        """(partition, assignment epoch, model key)."""
        ...

    @property
    def project(self) -> str: ...

    @property
    def running(self) -> bool:
        """Whether it was taken, and its training has not ended."""
        ...

    @property
    def orphaned(self) -> bool:
        """Whether a worker has died that had it in hand."""
        ...


Q = TypeVar("Q", bound=Queued)


@dataclass(slots=True)
class _Line(Generic[Q]):
    entries: deque[Q] = field(default_factory=deque)
    waiting: set[int] = field(default_factory=set)


@dataclass(slots=True)
class _Queue(Generic[Q]):
    """The heads of one project that are free to start."""

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
    """Owned by the worker's thread.  `limit` says how many of a project may run at once; None is any number."""

    def __init__(self, limit: Callable[[str], int | None] = lambda _: None) -> None:
        self._limit = limit
        self._taken: dict[str, list[Q]] = {}
        """Of projects with a limit, what may still be running: at most as many as the limit."""
        self._lines: dict[Hashable, _Line[Q]] = {}
        self._free: dict[str, _Queue[Q]] = {}
        self._in_free: set[int] = set()

    def join(self, entry: Q) -> None:
        """Join the line at its end; entries behind this one wait until it leaves."""
        self._lines.setdefault(entry.line, _Line()).entries.append(entry)

    def wait(self, entry: Q) -> None:
        """An entry of a line is to be trained here."""
        line = self._lines[entry.line]
        line.waiting.add(id(entry))
        self._free_head(line)

    def hold(self, entry: Q) -> None:
        """A waiting entry waits no more (it was taken, or is not to be started), but keeps its place in the line."""
        self._lines[entry.line].waiting.discard(id(entry))
        self._unfree(entry)

    def leave(self, entry: Q) -> None:
        """Take an entry out, wherever it stands; whoever is then at the head may start."""
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
        """The next one to train; it stays at the head of its line until it leaves."""
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
