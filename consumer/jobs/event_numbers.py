"""Numbers a job's progress events from 1 without a gap; the terminal event gets the last number."""

from __future__ import annotations

import threading


class EventNumbers:
    """The worker's thread numbers events while a result is stored, and the registrar's thread takes the last number."""

    def __init__(self, given: int = 0) -> None:
        self._given = given
        self._closed = False
        self._lock = threading.Lock()

    def following(self) -> int | None:
        """The number of one more event; None once the last number is given, as no event may follow the terminal one."""
        with self._lock:
            if self._closed:
                return None
            self._given += 1
            return self._given

    def last(self) -> int:
        """The number of the terminal event, the same at each call."""
        with self._lock:
            self._closed = True
            return self._given + 1

    def reopen(self) -> None:
        """Go on: the outcome that had the last number is void."""
        with self._lock:
            self._closed = False
