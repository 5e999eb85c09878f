"""Cases in processes: one that crashes or stands still is itself a find, and its process is replaced.

Each process is sent a handful of cases and answers after each, so that the first without an answer is the one in hand.
"""

from __future__ import annotations

import faulthandler
import multiprocessing
import os
import resource
import signal
import tempfile
import time
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from multiprocessing import forkserver
from multiprocessing.connection import Connection, wait
from typing import Any

from tests.fuzz.case import End, Kind, Result, run_case
from tests.fuzz.kinds import KINDS

BATCH = 50
STANDS_STILL_CPU_S, STANDS_STILL_S = 10.0, 60.0
"""Of a case that its own limit cannot end, since C code holds the interpreter, or that waits for ever."""
DATA_LIMIT_BYTES = 2 * 2**30
"""Beyond what the process has at its start; allocations fail then."""

Case = tuple[str, str]
"""The kind and the seed."""


def run_all(
    cases: Iterator[Case], processes: int | None = None, kinds: Mapping[str, Kind] = KINDS
) -> Iterator[tuple[Case, Result]]:
    """The cases with their results, in the order in which they end."""
    context = _forkserver()
    workers = [_Worker(context, kinds) for _ in range(processes or os.cpu_count() or 1)]
    waiting: deque[Case] = deque()
    try:
        while True:
            for worker in workers:
                if not worker.left:
                    worker.give(_next(waiting, cases))
            busy = [worker for worker in workers if worker.left]
            if not busy:
                return
            ready = wait([worker.connection for worker in busy], timeout=1.0)
            for worker in busy:
                if worker.connection in ready:
                    yield from worker.answers()
                elif worker.stands_still():
                    worker.interrupt()
                if not worker.process.is_alive():
                    yield from worker.answers()
                    yield worker.ended()
                    waiting.extend(worker.left)
                    workers[workers.index(worker)] = _Worker(context, kinds)
    finally:
        for worker in workers:
            worker.stop()


def _forkserver() -> Any:
    """Forks processes that have everything imported.

    A process has one forkserver: what started another before this would have each case import everything.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.fuzz.kinds"])
    before = dict(os.environ)
    os.environ.update(OPENBLAS_NUM_THREADS="1", OMP_NUM_THREADS="1")
    try:
        forkserver.ensure_running()
    finally:
        os.environ.clear()
        os.environ.update(before)
    return context


def _next(waiting: deque[Case], cases: Iterator[Case]) -> list[Case]:
    batch = [waiting.popleft() for _ in range(min(BATCH, len(waiting)))]
    return batch or [case for _, case in zip(range(BATCH), cases, strict=False)]


@dataclass
class _Worker:
    """One process; `left` are the cases that it has not answered, the first of them in hand."""

    context: Any
    kinds: Mapping[str, Kind]
    left: deque[Case] = field(default_factory=deque)
    last: Case = ("", "")
    hung: bool = False

    def __post_init__(self) -> None:
        self.connection, theirs = self.context.Pipe()
        self.stacks = tempfile.NamedTemporaryFile("w+", prefix="fuzz-")  # noqa: SIM115 - as long as the process
        self.process = self.context.Process(target=_work, args=(theirs, self.stacks.name, self.kinds), daemon=True)
        self.process.start()
        theirs.close()
        self._heard()

    def give(self, batch: list[Case]) -> None:
        if batch:
            self.left.extend(batch)
            self.connection.send(batch)
            self._heard()

    def answers(self) -> Iterator[tuple[Case, Result]]:
        try:
            while self.left and self.connection.poll():
                result: Result = self.connection.recv()
                self._heard()
                self.last = self.left.popleft()
                yield self.last, result
        except (EOFError, ConnectionError):
            self.process.join(10)

    def stands_still(self) -> bool:
        cpu_s = _cpu_s(self.process.pid) - self._cpu_s
        return cpu_s > STANDS_STILL_CPU_S or time.monotonic() - self._since > STANDS_STILL_S

    def _heard(self) -> None:
        self._since, self._cpu_s = time.monotonic(), _cpu_s(self.process.pid)

    def interrupt(self) -> None:
        """Its stack is written without the interpreter's help."""
        self.hung = True
        os.kill(self.process.pid, signal.SIGUSR1)
        time.sleep(0.2)
        self.process.kill()
        self.process.join()

    def ended(self) -> tuple[Case, Result]:
        """How the case in hand took its process with it; the last one, if it was answered already."""
        case = self.left.popleft() if self.left else self.last
        stack = self.stacks.read().partition("\nExtension modules")[0][:4000]
        self.connection.close()
        if self.hung:
            return case, Result(End.FIND, STANDS_STILL_CPU_S * 1000, what=f"hang {_line(stack)}", why=stack)
        end = End.CONTAINED if self.kinds[case[0]].contained else End.FIND
        return case, Result(end, what=f"crash {-(self.process.exitcode or 0)} {_line(stack)}", why=stack)

    def stop(self) -> None:
        self.process.kill()
        self.process.join()


def _cpu_s(pid: int) -> float:
    """What a process has used, of which only this machine's clock ticks are known; 0 once it has ended."""
    try:
        with open(f"/proc/{pid}/stat") as file:  # noqa: PTH123
            fields = file.read().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _line(stack: str) -> str:
    lines = [line.strip() for line in stack.splitlines() if line.startswith("  File")]
    return next((line for line in lines if "/tests/fuzz/" not in line), "")


def _work(connection: Connection, stacks: str, kinds: Mapping[str, Kind]) -> None:
    file = open(stacks, "w")  # noqa: PTH123, SIM115 - for as long as the process lives
    faulthandler.enable(file)
    faulthandler.register(signal.SIGUSR1, file, all_threads=False)
    limit_data()
    while True:
        try:
            batch: list[Case] = connection.recv()
        except EOFError:
            return
        for name, seed in batch:
            connection.send(run_case(kinds[name], seed))


def limit_data() -> None:
    """Allocations fail beyond the limit, and the machine stays well."""
    with open("/proc/self/statm") as file:  # noqa: PTH123
        pages = int(file.read().split()[5])
    limit = pages * resource.getpagesize() + DATA_LIMIT_BYTES
    resource.setrlimit(resource.RLIMIT_DATA, (limit, resource.getrlimit(resource.RLIMIT_DATA)[1]))
