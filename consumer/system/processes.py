"""Asks the kernel about processes: how they end, their descendants, what they use."""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
"""prctl(2)"""
THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")
"""The variables that tell numerical libraries how many threads to start."""
TICKS = os.sysconf("SC_CLK_TCK")
"""Ticks per second of CPU time in /proc."""
PAGE_BYTES = resource.getpagesize()
ENDING_S = 2.0
"""The longest wait for killed processes, which may be in a system call."""


def die_with_parent(how: signal.Signals | None = signal.SIGKILL) -> None:
    """Have the kernel send this signal when the thread that started this process ends; None turns it off."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, 0 if how is None else how)


def adopt_orphans() -> None:
    """Become the parent of orphaned descendants, also of those in a session of their own."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)


def without_credentials(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment without the services' addresses and passwords, for trainers and loaders."""
    hidden = ("MONGODB_", "KAFKA_", "MINIO_", "SCHEMA_REGISTRY_", "AWS_")
    return {name: value for name, value in environment.items() if not name.upper().startswith(hidden)}


@contextmanager
def memory_limit(limit_bytes: int | None) -> Iterator[None]:
    """Limit RLIMIT_DATA of this process: an allocation beyond it raises MemoryError at once, without a kill."""
    if limit_bytes is None:
        yield
        return
    before, most = resource.getrlimit(resource.RLIMIT_DATA)
    allowed = limit_bytes if most == resource.RLIM_INFINITY else min(limit_bytes, most)
    resource.setrlimit(resource.RLIMIT_DATA, (allowed, most))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (before, most))


def kill_with_descendants(pid: int) -> None:
    """Kill a process that leads its group and adopts orphans, with all its descendants.

    Call this before the process is reaped: until then no other process has its pid.
    """
    _signal(os.kill, pid, signal.SIGSTOP)  # stopped, it starts nothing more and still adopts
    deadline = time.monotonic() + ENDING_S
    while (others := [one for one in _descendants(pid) if not _has_ended(one)]) and time.monotonic() < deadline:
        for one in others:
            _signal(os.kill, one, signal.SIGKILL)
        time.sleep(0.001)
    _signal(os.killpg, pid, signal.SIGKILL)


def children(pid: int) -> list[int]:
    """The existing processes that this one has started or adopted, zombies included."""
    return [int(child) for thread in _threads(pid) for child in _read(thread / "children").split()]


def has_children() -> bool:
    """Whether this process has any, zombies included; it looks into no file, and reaps nothing."""
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


def resident_bytes(pid: int) -> int:
    """Resident memory of a process and all its descendants, shared pages counted once; 0 if it has just ended."""
    own = _resident(pid)
    others = _descendants(pid)
    return max(own, sum(map(_shared_out, [pid, *others]))) if others else own


def private_bytes(pid: int) -> int:
    """Resident memory of a process and all its descendants without file-backed pages; 0 if it has just ended."""
    return sum(map(_private, [pid, *_descendants(pid)]))


def cpu_s(pid: int) -> float:
    """CPU seconds of a process and all its descendants so far; 0 if it has just ended."""
    return sum(map(_cpu_s, [pid, *_descendants(pid)]))


def wants_cpu(pid: int) -> bool:
    """Whether a thread of a process or its descendants runs, or waits for a CPU."""
    threads = [thread for one in (pid, *_descendants(pid)) for thread in _threads(one)]
    return any(_read(thread / "stat").rpartition(")")[2].split()[:1] == ["R"] for thread in threads)


def keep_to(pid: int, cpus: Collection[int]) -> None:
    """Restrict all threads of a process and its descendants to these CPUs."""
    for one in (pid, *_descendants(pid)):
        for thread in _threads(one):
            with suppress(ProcessLookupError, PermissionError):
                os.sched_setaffinity(int(thread.name), cpus)


def _cpu_s(pid: int) -> float:
    fields = _read(Path(f"/proc/{pid}/stat")).rpartition(")")[2].split()
    return sum(map(int, fields[11:13])) / TICKS


def _descendants(pid: int) -> list[int]:
    found = children(pid)
    for one in found:  # grows meanwhile
        found += children(one)
    return found


def _threads(pid: int) -> list[Path]:
    try:
        return [*Path(f"/proc/{pid}/task").iterdir()]
    except (FileNotFoundError, ProcessLookupError):
        return []


def _resident(pid: int) -> int:
    pages = _read(Path(f"/proc/{pid}/statm")).split()
    return int(pages[1]) * PAGE_BYTES if pages else 0


def _private(pid: int) -> int:
    found = dict(line.split(":", 1) for line in _read(Path(f"/proc/{pid}/status")).splitlines())
    return sum(int(found[kind].split()[0]) * 1024 for kind in ("RssAnon", "RssShmem") if kind in found)


def _has_ended(pid: int) -> bool:
    """Whether the process is gone, or a zombie."""
    state = _read(Path(f"/proc/{pid}/stat")).rpartition(")")[2].split()
    return not state or state[0] in "ZX"


def _signal(send: Callable[[int, int], None], pid: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError, PermissionError):
        send(pid, number)


def _shared_out(pid: int) -> int:
    """Its proportional set size: each of n processes that share a page counts one nth of it."""
    for line in _read(Path(f"/proc/{pid}/smaps_rollup")).splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    return 0


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return ""
