"""One case: made by its seed, run within limits, and judged."""

from __future__ import annotations

import os
import resource
import signal
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from random import Random
from types import FrameType

ROOT = Path(__file__).parents[2]
CPU_LIMIT_S = 1.0
"""Of a record, a file or whatever else a case is about."""
SLOW = "time at"
QUIET_ROUNDS = 36
"""So often a quiet machine of 2026 makes 100,000 small objects in a second of CPU time."""
MEMORY_LIMIT_BYTES = 256 * 2**20


class End(StrEnum):
    ACCEPTED = "accepted"
    REFUSED = "refused"
    CONTAINED = "contained"
    """The parser crashed in a process that is there to be lost."""
    FIND = "find"


class TooSlowError(BaseException):
    """The case's CPU time is over; no `except Exception` takes it for something else."""


@dataclass(frozen=True)
class Kind:
    """What is tried.

    Attributes:
        share: its part of a run of all kinds.
        run: makes a case and hands it to the real code; what it returns was accepted.
        refusals: the named errors by which a case may end instead.
        memory_bytes: how far the process may grow in a case.
        records: how many a case may hold, each with the CPU limit for itself.
        contained: in production the target runs in a process that is there to be lost; only a crash is no find then.
    """

    name: str
    share: int
    run: Callable[[Random], object]
    refusals: tuple[type[Exception], ...]
    memory_bytes: int = MEMORY_LIMIT_BYTES
    records: int = 1
    contained: bool = False


@dataclass(frozen=True)
class Result:
    """How a case ended; `what` tells finds of one cause from those of another, `why` is for the reader."""

    end: End
    ms: float = 0.0
    grown_bytes: int = 0
    what: str = ""
    why: str = ""


def random_of(kind: str, seed: str) -> Random:
    """`seed` is that of the run and the case's number, as in 1/4711."""
    run, _, number = seed.partition("/")
    return Random(f"{run}/{kind}/{number}")


def run_case(kind: Kind, seed: str, cpu_limit_s: float = CPU_LIMIT_S) -> Result:
    before = _peak_from_now()
    begun = time.perf_counter()
    end, what, why = _judged(kind, random_of(kind.name, seed), cpu_limit_s)
    if what.startswith(SLOW):  # on a busy machine CPU time stretches, too: what is slow is so twice
        end, what, why = _judged(kind, random_of(kind.name, seed), cpu_limit_s * _slowness())
    ms = (time.perf_counter() - begun) * 1000
    grown = max(_peak() - before, 0)
    if end is not End.FIND and grown > kind.memory_bytes:
        end, what, why = End.FIND, "memory", f"grew by {grown / 2**20:,.0f} MiB"
    return Result(end, ms, grown, what, why)


def _slowness() -> float:
    """How much more CPU time than on a quiet machine the same work takes now; at least 1."""
    begun = time.process_time()
    for _ in range(QUIET_ROUNDS):
        [{"number": str(number)} for number in range(100_000)]
    return max(1.0, time.process_time() - begun)


def _judged(kind: Kind, random: Random, cpu_limit_s: float) -> tuple[End, str, str]:
    try:
        with _cpu_limit(cpu_limit_s * kind.records):
            kind.run(random)
    except kind.refusals:
        return End.REFUSED, "", ""
    except TooSlowError as error:
        return (
            End.FIND,
            f"{SLOW} {_place(error)}",
            f"more than {cpu_limit_s * kind.records:g} s of CPU time\n{_stack(error)}",
        )
    except Exception as error:  # noqa: BLE001 - an unnamed error is what is looked for
        return End.FIND, f"{type(error).__name__} at {_place(error)}", f"{str(error)[:500]}\n{_stack(error)}"
    return End.ACCEPTED, "", ""


@contextmanager
def _cpu_limit(seconds: float) -> Iterator[None]:
    """A repeated signal: the first may fall into a callback whose errors are passed over."""

    def over_its_time(_: int, __: FrameType | None) -> None:
        raise TooSlowError

    before = signal.signal(signal.SIGPROF, over_its_time)
    signal.setitimer(signal.ITIMER_PROF, seconds, 0.2)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def _place(error: BaseException) -> str:
    """The innermost line of ours that it came through, the fuzzer's own last."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.name != "over_its_time"]
    ours = [frame for frame in frames if Path(frame.filename).is_relative_to(ROOT) and ".venv" not in frame.filename]
    code = [frame for frame in ours if "/tests/fuzz/" not in frame.filename]
    frame = (code or ours or frames)[-1]
    return f"{frame.filename.removeprefix(f'{ROOT}/')}:{frame.lineno}"


def _stack(error: BaseException) -> str:
    return "".join(traceback.format_exception(error)[-12:])[-4000:]


def _peak() -> int:
    """The most memory that this process has had, in bytes, since it was last asked to begin anew."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _peak_from_now() -> int:
    """Linux forgets the former peak when asked to (proc(5), clear_refs)."""
    if _CLEAR_REFS is not None:
        os.write(_CLEAR_REFS, b"5")
    return _peak()


def _opened() -> int | None:
    try:
        return os.open("/proc/self/clear_refs", os.O_WRONLY)
    except OSError:
        return None


_CLEAR_REFS = _opened()
