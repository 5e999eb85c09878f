"""Keeps in shared memory when each thread began its work; readable without a lock or the interpreter.

One page: 64 bytes about the process, then 64 bytes per thread. Times are those of CLOCK_MONOTONIC, which all processes
of a machine share; a double is written in one piece. Imports the standard library alone, see `watch_process`.
"""

from __future__ import annotations

import math
import mmap
import os
import weakref
from collections.abc import Callable
from typing import NamedTuple

INTERPRETER = "interpreter"
"""Not a thread: stands for whether any thread of the process gets the interpreter."""
HTTP = "http"
"""The thread that answers the port."""
LOOK_S = 1.0
PAUSE_S = 3.0
"""Without a look for this long, the process was stopped or a thread holds its interpreter."""

SLOTS = 63
_SLOT_BYTES = 64
_SIZE_BYTES = _SLOT_BYTES * (1 + SLOTS)
_LOOKED_AT, _HELD_S, _HELD_LIMIT_S = range(3)
_BEGUN, _LIMIT_S, _IDENT, _EXCUSED, _EXCUSED_S = range(5)
_NAME = slice(40, _SLOT_BYTES)


class Turn:
    """A thread's slot.  Owned by that thread, which alone writes the slot's time."""

    __slots__ = ("_at", "_clock", "_doubles")

    def __init__(self, doubles: memoryview[float], at: int, clock: Callable[[], float]) -> None:
        self._doubles = doubles
        self._at = at
        self._clock = clock

    def begin(self) -> None:
        """Start the clock: the thread begins a piece of work, or shows that it is alive during one."""
        self._doubles[self._at] = self._clock()

    def rest(self) -> None:
        """Stop the clock: the thread waits for work."""
        self._doubles[self._at] = math.inf


class Thread(NamedTuple):
    """The content of a slot.

    Attributes:
        begun: when it began its work; infinity while it rests.
        ident: its threading.get_ident().
        excused_s: seconds since `begun` in which the process was stopped, or its interpreter held.
    """

    name: str
    begun: float
    limit_s: float
    ident: int
    excused_s: float


class Stamps:
    """The page of slots.

    Args:
        fd: the descriptor of an existing page; None makes a new one, which lives as long as a process has it open.
    """

    def __init__(self, fd: int | None = None) -> None:
        if fd is None:
            fd = os.memfd_create("stamps")
            os.ftruncate(fd, _SIZE_BYTES)
        self.fd = fd
        weakref.finalize(self, os.close, fd)
        self._bytes = memoryview(mmap.mmap(fd, _SIZE_BYTES))
        self._doubles: memoryview[float] = self._bytes.cast("d")
        self._integers = self._bytes.cast("Q")

    def begin(self, limit_s: float) -> None:
        """Called by the process that makes the page; `limit_s` is how long the interpreter may be held."""
        self._doubles[_HELD_LIMIT_S] = limit_s
        self.unwatched()

    def add(self, thread: str, limit_s: float, ident: int, clock: Callable[[], float]) -> Turn:
        """Add a thread; the same name gets the same slot.  One caller at a time.

        Raises ValueError if all slots are taken or the name is too long.
        """
        slot = next((slot for slot in range(SLOTS) if self._name(slot) in ("", thread)), None)
        name = thread.encode()
        if slot is None or len(name) > _NAME.stop - _NAME.start:
            raise ValueError(f"no room to watch a thread called {thread}")
        at = _first(slot)
        self._doubles[at + _BEGUN] = math.inf
        self._doubles[at + _LIMIT_S] = limit_s
        self._integers[at + _IDENT] = ident
        self._slot(slot)[_NAME] = name.ljust(_NAME.stop - _NAME.start, b"\0")
        return Turn(self._doubles, at + _BEGUN, clock)

    @property
    def looked_at(self) -> float:
        return float(self._doubles[_LOOKED_AT])

    def looked(self, now: float) -> None:
        """Called each second by the watch in the worker, which shows that it gets the interpreter.

        A gap of more than PAUSE_S counts against no thread, since none could work meanwhile.
        """
        looked_at = self.looked_at
        if now - looked_at > PAUSE_S:
            for slot in range(len(self.threads())):
                self._excuse(_first(slot), looked_at, now)
        self._doubles[_LOOKED_AT] = now

    def _excuse(self, at: int, since: float, now: float) -> None:
        begun = self._doubles[at + _BEGUN]
        if begun < now:
            earlier_s = self._doubles[at + _EXCUSED_S] if self._doubles[at + _EXCUSED] == begun else 0.0
            self._doubles[at + _EXCUSED_S] = earlier_s + now - max(begun, since)
            self._doubles[at + _EXCUSED] = begun

    def unwatched(self) -> None:
        """Called when nobody looks (yet, or any more): a missing look means nothing then."""
        self._doubles[_LOOKED_AT] = math.inf
        self._doubles[_HELD_S] = 0.0

    def held(self, held_s: float) -> None:
        """Called by the watcher: for how long no thread got the interpreter although the process was not stopped."""
        self._doubles[_HELD_S] = held_s

    def threads(self) -> list[Thread]:
        found = []
        for slot in range(SLOTS):
            name, at = self._name(slot), _first(slot)
            if not name:
                break
            begun, limit_s, excused, excused_s = (
                self._doubles[at + of] for of in (_BEGUN, _LIMIT_S, _EXCUSED, _EXCUSED_S)
            )
            ident = self._integers[at + _IDENT]
            found.append(Thread(name, begun, limit_s, ident, excused_s if excused == begun else 0.0))
        return found

    def limits_s(self) -> dict[str, float]:
        return {INTERPRETER: self._doubles[_HELD_LIMIT_S]} | {one.name: one.limit_s for one in self.threads()}

    def busy_s(self, now: float) -> dict[str, float]:
        """By thread, the seconds since it began its work in which it could run; 0 at rest."""
        held_s = self._doubles[_HELD_S]
        until = min(now, self.looked_at + PAUSE_S + held_s)
        return {INTERPRETER: held_s} | {one.name: max(0.0, until - one.begun - one.excused_s) for one in self.threads()}

    def stuck(self, now: float) -> dict[str, float]:
        """The entries of `busy_s` beyond their limit."""
        all_s = self.busy_s(now)
        limits_s = self.limits_s()  # second, so that a thread added meanwhile is in here
        return {name: busy_s for name, busy_s in all_s.items() if busy_s > limits_s[name]}

    def _slot(self, slot: int) -> memoryview:
        return self._bytes[_SLOT_BYTES * (1 + slot) : _SLOT_BYTES * (2 + slot)]

    def _name(self, slot: int) -> str:
        return bytes(self._slot(slot)[_NAME]).rstrip(b"\0").decode()


def _first(slot: int) -> int:
    """The index of a slot's first eight bytes, in units of eight bytes."""
    return _SLOT_BYTES * (1 + slot) // 8
