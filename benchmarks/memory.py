"""Memory of the worker and its trainers: at the start, over thousands of jobs, and with a hundred thousand waiting."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks import processes
from benchmarks.fleet import CONCURRENCY, Fleet, Servers
from benchmarks.processes import MIB
from benchmarks.workloads import LONG, TINY

TARGET_MIB = 600.0
FLAT_MIB_PER_1000_JOBS = 2.0
FLAT_MIB_PER_MINUTE = 6.0
STEP_JOBS = 250
SETTLED_WITHIN_S = 60.0
STILL_TIMES = 6


@dataclass(frozen=True, slots=True)
class Sample:
    """MiB of the worker's process, and of it, the forkserver and the trainers together, resident and shared out."""

    at: float
    parent_rss: float
    trainers_rss: float
    all_rss: float
    all_pss: float


@dataclass(frozen=True, slots=True)
class Memory:
    """Slopes are those of the PSS of all, by least squares.

    Attributes:
        busy: one sample each STEP_JOBS tiny jobs; waiting: one a second, once the worker reads no further.
        delivered: how many of the waiting requests the worker had read by then; LOOK_AHEAD is the limit.
    """

    target_mib: float
    jobs: int
    waiting_requests: int
    delivered: int
    look_ahead: int
    start: Sample
    busy: Sequence[Sample]
    waiting: Sequence[Sample]

    @property
    def mib_per_1000_jobs(self) -> float:
        """Over the second half: the first fills caches."""
        half = self.busy[len(self.busy) // 2 :]
        return slope([STEP_JOBS / 1000 * n for n in range(len(half))], [one.all_pss for one in half])

    @property
    def mib_per_minute_waiting(self) -> float:
        half = self.waiting[len(self.waiting) // 2 :]
        return slope([one.at / 60 for one in half], [one.all_pss for one in half])

    @property
    def most_rss(self) -> float:
        return max(one.all_rss for one in (self.start, *self.busy, *self.waiting))

    @property
    def most_pss(self) -> float:
        return max(one.all_pss for one in (self.start, *self.busy, *self.waiting))


def measure(servers: Servers, folder: Path, jobs: int, waiting_requests: int, watch_s: float) -> Memory:
    with Fleet(servers, folder) as fleet:
        start = sample(fleet)
        busy = []
        for step in range(jobs // STEP_JOBS):
            fleet.send([fleet.message(TINY, f"memory-{step}", number) for number in range(STEP_JOBS)])
            fleet.registered.take(STEP_JOBS)
            busy.append(sample(fleet))
        fleet.send([fleet.message(LONG, "waiting", number) for number in range(waiting_requests)])
        delivered = _settle(fleet)
        waiting = []
        until = time.monotonic() + watch_s
        while time.monotonic() < until:
            waiting.append(sample(fleet))
            fleet.check_alive()
            time.sleep(1.0)
        done = jobs // STEP_JOBS * STEP_JOBS
        look_ahead = fleet.settings.look_ahead
        return Memory(TARGET_MIB, done, waiting_requests, delivered, look_ahead, start, busy, waiting)


def slope(x: Sequence[float], y: Sequence[float]) -> float:
    """Of the line through these points, by least squares; 0 for fewer than two."""
    return statistics.linear_regression(x, y).slope if len(x) > 1 else 0.0


def _settle(fleet: Fleet) -> int:
    """Wait until the worker claims no more; returns how many requests it holds."""
    deadline = time.monotonic() + SETTLED_WITHIN_S
    held, claimed, still = 0.0, -1.0, 0
    while still < STILL_TIMES and time.monotonic() < deadline:
        metrics = fleet.metrics()
        held, before, claimed = metrics.get("unfinished_requests", 0.0), claimed, metrics.get("requests_total", 0.0)
        still = still + 1 if claimed == before and held > CONCURRENCY else 0
        time.sleep(0.5)
    return round(held)


def sample(fleet: Fleet) -> Sample:
    trainers = fleet.trainers()
    parent, children = processes.memory([fleet.pid]), processes.memory(trainers)
    total = parent + children + processes.memory(processes.children(fleet.pid))
    return Sample(
        time.monotonic(),
        parent.rss_bytes / MIB,
        children.rss_bytes / MIB,
        total.rss_bytes / MIB,
        total.pss_bytes / MIB,
    )
