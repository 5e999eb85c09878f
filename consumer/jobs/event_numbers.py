"""Numbers a job's progress events from 1 without a gap; the terminal event gets the last number.

The STARTED event is *held* for a while.  It is published by itself, or announced with the terminal event, whichever is
decided first.
"""

from __future__ import annotations

import threading
from datetime import datetime
from typing import NamedTuple


class Last(NamedTuple):
    """The number of the terminal event; `started_at` is present if STARTED is announced just before it."""

    sequence: int
    started_at: datetime | None = None


class EventNumbers:
    """The worker's thread numbers events while a result is stored, and the registrar's thread takes the last number."""

    def __init__(self, given: int = 0) -> None:
        self._given = given
        self._started_at: datetime | None = None
        self._last: Last | None = None
        self._lock = threading.Lock()

    def hold_start(self, at: datetime) -> None:
        """A training has started; its STARTED event is held."""
        with self._lock:
            self._started_at = at

    def start(self) -> tuple[int, datetime] | None:
        """The number and time of the STARTED event that is held; None if none is, and once the last number is given."""
        with self._lock:
            if self._last is not None or self._started_at is None:
                return None
            at, self._started_at = self._started_at, None
            self._given += 1
            return self._given, at

    def following(self) -> int | None:
        """The number of one more event; None once the last number is given, as no event may follow the terminal one."""
        with self._lock:
            if self._last is not None:
                return None
            self._given += 1
            return self._given

    def last(self) -> Last:
        """The same at each call."""
        with self._lock:
            if self._last is None:
                started_at, self._started_at = self._started_at, None
                self._given += started_at is not None
                self._last = Last(self._given + 1, started_at)
            return self._last

    def reopen(self) -> None:
        """Go on: the outcome that had the last number is void."""
        with self._lock:
            self._last = None
