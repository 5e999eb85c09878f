"""Hands out places in the order of asking; a caller may ask for all of them."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

LOOK_S = 0.1


class Turns:
    """A fixed number of places.  Safe to use from any thread."""

    def __init__(self, places: int) -> None:
        self._free = places
        self._queue: deque[object] = deque()
        self._changed = threading.Condition()

    @contextmanager
    def take(self, places: int, check: Callable[[], None]) -> Iterator[None]:
        """Hold this many places, after waiting for them in turn; an exception of `check` ends the wait."""
        ticket = object()
        with self._changed:
            self._queue.append(ticket)
            try:
                while self._queue[0] is not ticket or self._free < places:
                    check()
                    self._changed.wait(LOOK_S)
                self._free -= places
            finally:
                self._queue.remove(ticket)
                self._changed.notify_all()
        try:
            yield
        finally:
            with self._changed:
                self._free += places
                self._changed.notify_all()
