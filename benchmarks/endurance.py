"""Memory and descriptors of a worker, its forkservers and its trainers over twenty thousand jobs."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks import processes
from benchmarks.fleet import Fleet, Servers
from benchmarks.memory import FLAT_MIB_PER_1000_JOBS, Sample, sample, slope
from benchmarks.workloads import TINY

STEP_JOBS = 250
WAITING_STEPS = 2
"""So many steps' jobs wait on the topic or are under way, however many are still to come."""


@dataclass(frozen=True, slots=True)
class Endurance:
    """One sample each STEP_JOBS tiny jobs; slopes by least squares, over the second half: the first fills caches.

    Attributes:
        descriptors: open at each sample, of all processes together.
        took_s: from the first job to the last.
    """

    target_mib_per_1000_jobs: float
    jobs: int
    took_s: float
    samples: Sequence[Sample]
    descriptors: Sequence[int]

    @property
    def pss_mib_per_1000_jobs(self) -> float:
        return _slope([one.all_pss for one in self.samples])

    @property
    def rss_mib_per_1000_jobs(self) -> float:
        return _slope([one.all_rss for one in self.samples])

    @property
    def parent_rss_mib_per_1000_jobs(self) -> float:
        return _slope([one.parent_rss for one in self.samples])

    @property
    def descriptors_per_1000_jobs(self) -> float:
        return _slope(self.descriptors)


def measure(servers: Servers, folder: Path, jobs: int, within_s: float) -> Endurance:
    """As many jobs as there is time for, at most `jobs`."""
    with Fleet(servers, folder) as fleet:
        begun = time.monotonic()
        samples, descriptors = [sample(fleet)], [_descriptors(fleet)]
        steps = jobs // STEP_JOBS
        for step in range(steps + WAITING_STEPS):
            if step < steps:
                fleet.send([fleet.message(TINY, f"endurance-{step}", number) for number in range(STEP_JOBS)])
            if step >= WAITING_STEPS:
                fleet.registered.take(STEP_JOBS)
                samples.append(sample(fleet))
                descriptors.append(_descriptors(fleet))
            if time.monotonic() - begun > within_s:
                break
        done = (len(samples) - 1) * STEP_JOBS
        return Endurance(FLAT_MIB_PER_1000_JOBS, done, time.monotonic() - begun, samples, descriptors)


def _descriptors(fleet: Fleet) -> int:
    return processes.descriptors([fleet.pid, *processes.children(fleet.pid), *fleet.trainers()])


def _slope(values: Sequence[float]) -> float:
    half = values[len(values) // 2 :]
    return slope([STEP_JOBS / 1000 * number for number in range(len(half))], half)
