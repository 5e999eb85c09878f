"""Jobs a second of one worker, as shares of what bare processes reach beside it, and the CPU that a job costs."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from uuid import uuid4

from benchmarks.fleet import BenchmarkError, Cpu, Fleet
from benchmarks.limit import BareProcesses, Order
from benchmarks.processes import machine_cpu_s
from benchmarks.workloads import Workload

LATE = 6.0
"""A round takes about three times round_s when the worker is near the limit; twice that is a slow machine."""
CALM_CORES = 0.3


@dataclass(frozen=True, slots=True)
class Effort:
    """How much is measured. In a round of fewer than `least_jobs` the last job, which ends alone, weighs too much."""

    rounds: int
    round_s: float
    least_jobs: int


FULL, QUICK = Effort(4, 5.0, 40), Effort(1, 2.5, 16)


@dataclass(frozen=True, slots=True)
class Rate:
    """A round of one contestant: jobs a second, CPU milliseconds a job, and what it shared the machine with.

    Attributes:
        cpu_ms: of the worker's round.
        bare_cpu_ms: of a round of bare processes.
        jobs_a_transaction: how many finished jobs shared a transaction.
        commands_a_job: sent to MongoDB.
        others_cores: cores that processes which are none of ours took meanwhile.
    """

    jobs_per_s: float
    cpu_ms: Cpu | None
    bare_cpu_ms: float
    others_cores: float
    jobs_a_transaction: float = 0.0
    commands_a_job: float = 0.0


@dataclass(frozen=True, slots=True)
class Round:
    synced: Rate
    worker: Rate
    unsynced: Rate

    @property
    def calm(self) -> bool:
        """Whether nobody else took much of the machine: else the share says as much about the scheduler as about us."""
        return max(one.others_cores for one in (self.synced, self.worker, self.unsynced)) <= CALM_CORES

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
    def calm(self) -> Sequence[Round]:
        return [one for one in self.rounds if one.calm]

    @property
    def of_synced(self) -> float:
        """The median over the calm rounds; over all where none was calm."""
        return statistics.median(one.of_synced for one in self.calm or self.rounds)

    @property
    def of_unsynced(self) -> float:
        return statistics.median(one.of_unsynced for one in self.calm or self.rounds)

    @property
    def by_cpu(self) -> float:
        """The share that CPU time alone allows on a machine that is busy with nothing else: what others do to the
        rates hardly touches it. The subscriber's and submitter's own time is not counted."""
        cpu = self.cpu_ms()
        return self.bare_cpu_ms() / (cpu.total - cpu.bench)

    def cpu_ms(self) -> Cpu:
        """Medians over the rounds."""
        spent = [one.worker.cpu_ms for one in self.rounds if one.worker.cpu_ms is not None]
        return Cpu(*(statistics.median(getattr(cpu, f.name) for cpu in spent) for f in fields(Cpu)))

    def median(self, name: str) -> float:
        """Over the rounds, of one of the worker's figures."""
        values: list[float] = [getattr(one.worker, name) for one in self.rounds]
        return statistics.median(values)

    def bare_cpu_ms(self) -> float:
        return statistics.median(one.synced.bare_cpu_ms for one in self.rounds)


def measure(fleet: Fleet, bare: BareProcesses, workload: Workload, effort: Effort) -> Throughput:
    """Rounds of limit, worker and limit again, the two limits changing places from round to round.

    A round has as many jobs as bare processes do in `round_s`, and no new one begins when the time for all is over.
    """
    until = time.monotonic() + effort.rounds * effort.round_s * LATE
    warming = _Contest(fleet, bare, workload.of(workload.jobs // 10))
    warming.worker("warm")
    speed = warming.bare("warm", synced=False).jobs_per_s
    contest = _Contest(fleet, bare, workload.of(max(effort.least_jobs, round(speed * effort.round_s))))
    found: list[Round] = []
    while len(found) < effort.rounds and (not found or time.monotonic() < until):
        found.append(contest.round(len(found)))
    return Throughput(workload.name, contest.jobs, workload.target, found, statistics.median(contest.idle))


class _Contest:
    def __init__(self, fleet: Fleet, bare: BareProcesses, workload: Workload) -> None:
        self._fleet = fleet
        self._bare = bare
        self._workload = workload
        self._series = f"{workload.name}-{uuid4().hex[:6]}"
        self.jobs = workload.jobs
        self.idle: list[float] = []

    def round(self, number: int) -> Round:
        first = number % 2 == 0
        before = self.bare(str(number), synced=first)
        worker = self.worker(str(number))
        after = self.bare(str(number), synced=not first)
        return Round(before, worker, after) if first else Round(after, worker, before)

    def worker(self, name: str) -> Rate:
        """All requests are on the topic before the first one counts."""
        workload, series = self._workload, f"{self._series}-{name}"
        messages = [self._fleet.message(workload, series, number) for number in range(workload.jobs)]
        before = self._fleet.metrics()
        with self._spent() as spent:
            self._fleet.send(messages)
            seen = self._fleet.registered.take(workload.jobs)
        after = self._fleet.metrics()
        missing = {f"{series}-{n}" for n in range(workload.jobs)} - self._fleet.registered.request_ids(seen)
        if missing:
            raise self._fleet.fail(f"{len(missing)} of {workload.jobs} requests were not registered")
        rate = jobs_per_s([one.at for one in seen], workload.warm_up)
        cpu = spent.fleet
        a_job = Cpu(*(getattr(cpu, f.name) / workload.jobs * 1e3 for f in fields(Cpu)))
        transactions, commands = (
            after[name] - before.get(name, 0.0) for name in ("transactions_total", "mongodb_operations_total")
        )
        return Rate(rate, a_job, 0.0, spent.others_cores, workload.jobs / transactions, commands / workload.jobs)

    def bare(self, name: str, *, synced: bool) -> Rate:
        jobs = self._workload.jobs
        series = f"{self._series}-{name}-{'synced' if synced else 'unsynced'}"
        order = Order(self._workload, series, jobs, synced)
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
