"""Jobs a second of one worker, as shares of what bare processes reach beside it, and the CPU that a job costs."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path

from benchmarks.fleet import CONCURRENCY, BenchmarkError, Cpu, Fleet, Servers
from benchmarks.limit import BareProcesses, Order
from benchmarks.processes import machine_cpu_s
from benchmarks.workloads import Workload


@dataclass(frozen=True, slots=True)
class Rate:
    """A round of one contestant: jobs a second, CPU milliseconds a job, and what it shared the machine with.

    `others_cores`: cores that processes which are none of ours took meanwhile.
    """

    jobs_per_s: float
    cpu_ms: Cpu | None
    bare_cpu_ms: float
    others_cores: float


@dataclass(frozen=True, slots=True)
class Round:
    synced: Rate
    worker: Rate
    unsynced: Rate

    @property
    def of_synced(self) -> float:
        return self.worker.jobs_per_s / self.synced.jobs_per_s

    @property
    def of_unsynced(self) -> float:
        return self.worker.jobs_per_s / self.unsynced.jobs_per_s


@dataclass(frozen=True, slots=True)
class Throughput:
    """`idle_cores` is what the idle worker and its servers took while bare processes were measured."""

    workload: str
    jobs: int
    target: float
    rounds: Sequence[Round]
    idle_cores: float

    @property
    def of_synced(self) -> float:
        return statistics.median(one.of_synced for one in self.rounds)

    @property
    def of_unsynced(self) -> float:
        return statistics.median(one.of_unsynced for one in self.rounds)

    def cpu_ms(self) -> Cpu:
        """Medians over the rounds."""
        spent = [one.worker.cpu_ms for one in self.rounds if one.worker.cpu_ms is not None]
        return Cpu(*(statistics.median(getattr(cpu, f.name) for cpu in spent) for f in fields(Cpu)))

    def bare_cpu_ms(self) -> float:
        return statistics.median(one.synced.bare_cpu_ms for one in self.rounds)


def measure(servers: Servers, folder: Path, workload: Workload, rounds: int) -> Throughput:
    """Rounds of limit, worker and limit again, the two limits changing places from round to round."""
    with Fleet(servers, folder) as fleet, BareProcesses(folder, CONCURRENCY) as bare:
        contest = _Contest(fleet, bare, workload)
        contest.worker("warm")
        contest.bare("warm", synced=False)
        contest.idle.clear()
        found = [contest.round(number) for number in range(rounds)]
        return Throughput(workload.name, workload.jobs, workload.target, found, statistics.median(contest.idle))


class _Contest:
    def __init__(self, fleet: Fleet, bare: BareProcesses, workload: Workload) -> None:
        self._fleet = fleet
        self._bare = bare
        self._workload = workload
        self.idle: list[float] = []

    def round(self, number: int) -> Round:
        series = f"{self._workload.name}-{number}"
        first = number % 2 == 0
        before = self.bare(series, synced=first)
        worker = self.worker(series)
        after = self.bare(series, synced=not first)
        return Round(before, worker, after) if first else Round(after, worker, before)

    def worker(self, series: str) -> Rate:
        """All requests are on the topic before the first one counts."""
        workload = self._workload
        messages = [self._fleet.message(workload, series, number) for number in range(workload.jobs)]
        with self._spent() as spent:
            self._fleet.send(messages)
            seen = self._fleet.registered.take(workload.jobs)
        missing = {f"{series}-{n}" for n in range(workload.jobs)} - self._fleet.registered.request_ids(seen)
        if missing:
            raise self._fleet.fail(f"{len(missing)} of {workload.jobs} requests were not registered")
        rate = jobs_per_s([one.at for one in seen], workload.warm_up)
        cpu = spent.fleet
        a_job = Cpu(*(getattr(cpu, f.name) / workload.jobs * 1e3 for f in fields(Cpu)))
        return Rate(rate, a_job, 0.0, spent.others_cores)

    def bare(self, series: str, *, synced: bool) -> Rate:
        jobs = self._workload.jobs
        order = Order(self._workload, f"{series}-{'synced' if synced else 'unsynced'}", jobs, synced)
        with self._spent() as spent:
            done = self._bare.run(order)
        self.idle.append(spent.fleet.total / spent.wall_s)
        rate = jobs_per_s([one.ended for one in done], self._workload.warm_up)
        return Rate(rate, None, spent.bare / jobs * 1e3, spent.others_cores)

    @contextmanager
    def _spent(self) -> Iterator[_Spent]:
        spent = _Spent()
        fleet, bare, machine, begun = self._fleet.cpu(), self._bare.cpu_s(), machine_cpu_s(), time.monotonic()
        yield spent
        spent.wall_s = time.monotonic() - begun
        spent.fleet, spent.bare = self._fleet.cpu() - fleet, self._bare.cpu_s() - bare
        ours = spent.fleet.total + spent.bare
        spent.others_cores = max(0.0, (machine_cpu_s() - machine - ours) / spent.wall_s)


class _Spent:
    """Filled at the end of a round."""

    fleet: Cpu
    bare: float
    wall_s: float
    others_cores: float


def jobs_per_s(times: Sequence[float], warm_up: int) -> float:
    """From the moment at which the first `warm_up` jobs were finished to the last; a group counts as a whole."""
    ordered = sorted(times)
    begun = ordered[warm_up - 1]
    counted = sum(at > begun for at in ordered)
    if not counted:
        raise BenchmarkError("all jobs ended at once: there are too few of them")
    return counted / (ordered[-1] - begun)
