"""Which request is trained next: in order within a model, fair among projects.

Requests of one model in one partition stand in a *line*; only its head may be trained, and the next one moves up when
the head has left, that is when its document or negative outcome is confirmed. Heads that are free to start wait in
one queue per project, and the projects take turns, so that ten thousand requests of one hold no other's back.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable
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


Q = TypeVar("Q", bound=Queued)


@dataclass(slots=True)
class _Line(Generic[Q]):
    entries: deque[Q] = field(default_factory=deque)
    waiting: set[int] = field(default_factory=set)


class Dispatch(Generic[Q]):
    """Owned by the worker's thread."""

    def __init__(self) -> None:
        self._lines: dict[Hashable, _Line[Q]] = {}
        self._free: dict[str, deque[Q]] = {}
        self._in_free: set[int] = set()

    def join(self, entry: Q, *, waiting: bool) -> None:
        """Stand at the end of the line; an entry that is not waiting (it trains elsewhere, or is stored) holds it."""
        line = self._lines.setdefault(entry.line, _Line())
        line.entries.append(entry)
        if waiting:
            line.waiting.add(id(entry))
            self._free_head(line)

    def wait(self, entry: Q) -> None:
        """An entry that held its line is to be trained here after all."""
        line = self._lines[entry.line]
        line.waiting.add(id(entry))
        self._free_head(line)

    def hold(self, entry: Q) -> None:
        """A waiting entry is not to be started now, but keeps its place."""
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
        if not self._free:
            return None
        project = next(iter(self._free))
        queue = self._free.pop(project)
        entry = queue.popleft()
        self._in_free.discard(id(entry))
        if queue:
            self._free[project] = queue
        return entry

    def __bool__(self) -> bool:
        return bool(self._free)

    def _free_head(self, line: _Line[Q]) -> None:
        head = line.entries[0]
        if id(head) in line.waiting:
            line.waiting.discard(id(head))
            self._in_free.add(id(head))
            self._free.setdefault(head.project, deque()).append(head)

    def _unfree(self, entry: Q) -> None:
        if id(entry) not in self._in_free:
            return
        self._in_free.discard(id(entry))
        queue = self._free[entry.project]
        queue.remove(entry)
        if not queue:
            del self._free[entry.project]
