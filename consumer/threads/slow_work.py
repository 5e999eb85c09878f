"""Keeps slow work from taking all threads of a pool, and one cause from taking all slow ones."""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Callable


class SlowWork:
    """What is too much at a time is put off; whoever has done a piece goes on with one of those, causes in turn.

    Thread-safe.  An error of a piece of work passes, and ends the thread that did it with all that was put off.
    """

    def __init__(self, at_once: int, of_one_cause: int) -> None:
        self._at_once = at_once
        self._of_one_cause = of_one_cause
        self._lock = threading.Lock()
        self._doing: Counter[str] = Counter()
        self._put_off: dict[str, deque[Callable[[], object]]] = {}
        self.put_off = 0
        """How many pieces of work are; any thread may ask."""

    def do(self, cause: str, work: Callable[[], object]) -> None:
        """In this thread and before this returns, unless there is enough of it: then another thread does it later."""
        with self._lock:
            self._put_off.setdefault(cause, deque()).append(work)
            self.put_off += 1
            taken = self._take()
        while taken is not None:
            cause, work = taken
            work()
            with self._lock:
                self._doing[cause] -= 1
                taken = self._take()

    def _take(self) -> tuple[str, Callable[[], object]] | None:
        if self._doing.total() >= self._at_once:
            return None
        for cause, waiting in self._put_off.items():
            if self._doing[cause] < self._of_one_cause:
                del self._put_off[cause]
                work = waiting.popleft()
                if waiting:
                    self._put_off[cause] = waiting
                self._doing[cause] += 1
                self.put_off -= 1
                return cause, work
        return None
