"""From submit to model-registered with an idle worker, one tiny job at a time, and where the time goes."""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from uuid import uuid4

from benchmarks.fleet import Fleet, Subscriber
from benchmarks.limit import BareProcesses, Order
from benchmarks.workloads import TINY
from schemas import RecordType

TARGET_P50_MS = 20.0
WARM_UP = 20


@dataclass(frozen=True, slots=True)
class Latency:
    """Milliseconds. `stages` are means and add up to the mean: see `_stages`. `bare_*` is one bare process alone."""

    jobs: int
    target_p50_ms: float
    p50_ms: float
    p99_ms: float
    bare_p50_ms: float
    bare_p99_ms: float
    stages_ms: Mapping[str, float]


def measure(fleet: Fleet, bare: BareProcesses, jobs: int) -> Latency:
    series = f"latency-{uuid4().hex[:6]}"
    done = bare.run(Order(TINY, f"{series}-bare", jobs + WARM_UP, synced=True), processes=1)
    alone = [(one.ended - one.begun) * 1e3 for one in done[WARM_UP:]]
    _one_at_a_time(fleet, f"{series}-warm", WARM_UP)
    before = fleet.metrics()
    times = _one_at_a_time(fleet, series, jobs)
    stages = _stages(_progress(fleet, times.keys()), times, before, fleet.metrics())
    took = [(ended - begun) * 1e3 for begun, ended, _ in times.values()]
    return Latency(jobs, TARGET_P50_MS, *p50_p99(took), *p50_p99(alone), stages)


def _one_at_a_time(fleet: Fleet, series: str, jobs: int) -> Mapping[str, tuple[float, float, float]]:
    """(submitted, seen) by the monotonic clock and submitted by the wall clock, of each request."""
    times = {}
    for number in range(jobs):
        # The pause is uneven, so that no timer of the worker is always met at the same moment.
        time.sleep(random.uniform(0.05, 0.15))
        message = fleet.message(TINY, series, number)
        wall, begun = time.time(), time.monotonic()
        fleet.send([message])
        (seen,) = fleet.registered.take(1)
        times[f"{series}-{number}"] = (begun, seen.at, wall)
    return times


def _progress(fleet: Fleet, request_ids: Collection[str]) -> Mapping[str, Mapping[str, float]]:
    """When each state of these requests began, by the wall clock."""
    found: dict[str, dict[str, float]] = {request_id: {} for request_id in request_ids}
    with closing(Subscriber(fleet, RecordType.TRAINING_PROGRESS)) as reader:
        while not all("REGISTERED" in states for states in found.values()):
            for seen in reader.take(1):
                event = fleet.decode(RecordType.TRAINING_PROGRESS, seen.value)
                if event["request_id"] in found:
                    found[event["request_id"]][event["state"]] = event["occurred_at"].timestamp()
    return found


def _stages(
    progress: Mapping[str, Mapping[str, float]],
    times: Mapping[str, tuple[float, float, float]],
    before: Mapping[str, float],
    after: Mapping[str, float],
) -> Mapping[str, float]:
    """The first from the events' timestamps, the next three from /metrics; the rest is on the way between them."""
    started, total = [], []
    for request_id, (begun, seen_at, wall) in times.items():
        started.append(progress[request_id]["STARTED"] - wall)
        total.append(seen_at - begun)

    def mean_of(name: str) -> float:
        count, total_s = (after.get(f"{name}_{part}", 0) - before.get(f"{name}_{part}", 0) for part in ("count", "sum"))
        return total_s / count if count else 0.0

    def stage(name: str) -> float:
        counts, sums = (f"stage_duration_seconds_{part}.{name}" for part in ("count", "sum"))
        count = after.get(counts, 0) - before.get(counts, 0)
        return (after.get(sums, 0) - before.get(sums, 0)) / count if count else 0.0

    parts = {
        "produced, polled, claimed, to a trainer": statistics.mean(started),
        "trained": mean_of("training_duration_seconds"),
        "stored": stage("REGISTERING"),
        "transaction": mean_of("transaction_duration_seconds"),
    }
    parts["between, and to the subscriber"] = statistics.mean(total) - sum(parts.values())
    return {name: seconds * 1e3 for name, seconds in parts.items()}


def p50_p99(values: Sequence[float]) -> tuple[float, float]:
    cuts = statistics.quantiles(values, n=100, method="inclusive")
    return cuts[49], cuts[98]
