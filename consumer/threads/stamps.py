"""When each thread began its piece of work, in shared memory: read without a lock and without the interpreter.

One page: 64 bytes about the process, then 64 bytes a thread. Times are those of CLOCK_MONOTONIC, which is one clock for
all processes of a machine; a double is written in one piece. Standard library alone, see `watcher`.
"""

from __future__ import annotations

import math
import mmap
import os
import weakref
from collections.abc import Callable
from typing import NamedTuple

INTERPRETER = "interpreter"
"""Not a thread: whether any thread of the process gets at the interpreter."""
HTTP = "http"
"""The thread that answers the port."""
LOOK_S = 1.0
PAUSE_S = 3.0
"""Looks come each second; when none has come for so long, the process was stopped or its interpreter is held."""

SLOTS = 63
_SLOT_BYTES = 64
_SIZE_BYTES = _SLOT_BYTES * (1 + SLOTS)
_LOOKED_AT, _HELD_S, _HELD_LIMIT_S = range(3)
_BEGUN, _LIMIT_S, _IDENT, _EXCUSED, _EXCUSED_S = range(5)
_NAME = slice(40, _SLOT_BYTES)


class Turn:
    """A thread's slot.  Owned by that thread; the only writer of its time."""

    __slots__ = ("_at", "_clock", "_doubles")

    def __init__(self, doubles: memoryview[float], at: int, clock: Callable[[], float]) -> None:
        self._doubles = doubles
        self._at = at
        self._clock = clock

    def begin(self) -> None:
        """It took an order, or is still alive while it works on one: the clock starts anew."""
        self._doubles[self._at] = self._clock()

    def rest(self) -> None:
        """It has answered, and waits for the next."""
        self._doubles[self._at] = math.inf


class Thread(NamedTuple):
    """A slot as it is read.

    Attributes:
        begun: when it took its order; infinity while it rests.
        ident: of threading.get_ident().
        excused_s: of the time since then the seconds in which the process was stopped.
    """

    name: str
    begun: float
    limit_s: float
    ident: int
    excused_s: float


class Stamps:
    """The page.

    Args:
        fd: of the process that made it; None makes a new one, which ends with the last process that has it.
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
        """For the process that makes the page: nobody has looked yet, and the interpreter may be held so long."""
        self._doubles[_HELD_LIMIT_S] = limit_s
        self.unwatched()

    def add(self, thread: str, limit_s: float, ident: int, clock: Callable[[], float]) -> Turn:
        """One caller at a time.  The same name again gets the same slot.  Raises ValueError where all are taken."""
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
        """By the watch in the worker, each second: it got at the interpreter.

        If it had not for a while nobody could work meanwhile, and that time is no thread's.
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
        """Nobody looks (yet, or any more): time passes without it."""
        self._doubles[_LOOKED_AT] = math.inf
        self._doubles[_HELD_S] = 0.0

    def held(self, held_s: float) -> None:
        """By the watcher: for how long no thread got at the interpreter although the process was not stopped."""
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
        """By thread the seconds since it took its order, of those in which the process was not stopped; 0 at rest."""
        held_s = self._doubles[_HELD_S]
        until = min(now, self.looked_at + PAUSE_S + held_s)
        return {INTERPRETER: held_s} | {one.name: max(0.0, until - one.begun - one.excused_s) for one in self.threads()}

    def stuck(self, now: float) -> dict[str, float]:
        """Those of `busy_s` that are beyond their limit."""
        all_s = self.busy_s(now)
        limits_s = self.limits_s()  # second, so that a thread added meanwhile is in here
        return {name: busy_s for name, busy_s in all_s.items() if busy_s > limits_s[name]}

    def _slot(self, slot: int) -> memoryview:
        return self._bytes[_SLOT_BYTES * (1 + slot) : _SLOT_BYTES * (2 + slot)]

    def _name(self, slot: int) -> str:
        return bytes(self._slot(slot)[_NAME]).rstrip(b"\0").decode()


def _first(slot: int) -> int:
    """The index of a slot's first eight bytes."""
    return _SLOT_BYTES * (1 + slot) // 8
