"""Limits how many threads of a pool do slow work, and how many do it for the same cause."""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Callable, Sized
from typing import TypeVar

Work = Callable[[], object]
V = TypeVar("V", bound=Sized)


class SlowWork:
    """Runs at most `at_once` pieces of work at a time, at most `of_one_cause` for the same cause; the others wait.

    A thread that has done its piece takes the next waiting one: parties take turns, and so do the causes of one party.
    Thread-safe.  If a piece raises, its thread takes no further one; waiting pieces stay until another thread is done.
    """

    def __init__(self, at_once: int, of_one_cause: int) -> None:
        self._at_once = at_once
        self._of_one_cause = of_one_cause
        self._lock = threading.Lock()
        self._doing: Counter[str] = Counter()
        self._waiting: dict[str, dict[str, deque[Work]]] = {}
        """party → cause → pieces"""

    def do(self, party: str, cause: str, work: Work) -> None:
        """Do this work now, in this thread, if the limits allow; else another thread does it later."""
        with self._lock:
            self._waiting.setdefault(party, {}).setdefault(cause, deque()).append(work)
            taken = self._take()
        while taken is not None:
            cause, work = taken
            try:
                work()
            finally:
                self._done(cause)
            with self._lock:
                taken = self._take()

    def _done(self, cause: str) -> None:
        with self._lock:
            self._doing[cause] -= 1
            if not self._doing[cause]:
                del self._doing[cause]

    def _take(self) -> tuple[str, Work] | None:
        if self._doing.total() >= self._at_once:
            return None
        for party, causes in self._waiting.items():
            for cause, pieces in causes.items():
                if self._doing[cause] < self._of_one_cause:
                    self._doing[cause] += 1
                    work = pieces.popleft()
                    _to_the_end(causes, cause, pieces)
                    _to_the_end(self._waiting, party, causes)
                    return cause, work
        return None


def _to_the_end(queue: dict[str, V], key: str, value: V) -> None:
    """Give the next turn to another key; drop an empty value."""
    del queue[key]
    if value:
        queue[key] = value
