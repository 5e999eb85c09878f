"""How a worker comes to its end: it starts no more, leaves the group, finishes what runs, and gives up in the end."""

from __future__ import annotations

import threading

from consumer.intake import Intake


class Draining:
    """`ask` may be called by any thread; the rest is the worker's thread's."""

    def __init__(self, intake: Intake, timeout_s: float) -> None:
        self._intake = intake
        self._timeout_s = timeout_s
        self._asked = threading.Event()
        self._by: float | None = None
        self._left = threading.Event()

    def ask(self) -> None:
        """A second call changes nothing."""
        self._asked.set()

    @property
    def asked(self) -> bool:
        return self._asked.is_set()

    @property
    def begun(self) -> bool:
        return self._by is not None

    def begin(self, now: float) -> None:
        self._by = now + self._timeout_s

    def over(self, now: float) -> bool:
        """Whether its time is up."""
        return self._by is not None and now >= self._by

    def leave_unless(self, alone: bool) -> None:
        """Leave the group at once if somebody else can have our partitions; called by a thread of the preparation."""
        if not alone:
            self._left.set()
            self._intake.leave()

    @property
    def left(self) -> bool:
        """Whether the group was left: what is not announced then, the partitions' next owner announces."""
        return self._left.is_set()
