"""Updates the gauges once a second, and logs requests that hold a partition's offset back."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime

from consumer.jobs.job import Job
from consumer.partitions.assignment import Assignment
from consumer.partitions.records import Partition
from consumer.partitions.standstills import Standstills
from consumer.telemetry.metrics import Metrics
from consumer.trainers.lanes import Lanes
from consumer.worker.job_events import JobEvents

EVERY_S = 1.0


class Gauges:
    """Owned by the worker's thread; only reads what it observes."""

    def __init__(
        self,
        assignment: Assignment,
        lanes: Lanes,
        metrics: Metrics,
        job_events: JobEvents,
        clock: Callable[[], datetime],
        whereabouts: Callable[[Partition, int], tuple[str, Mapping[str, str]]],
    ) -> None:
        """`whereabouts` returns the state of an unfinished record's request, and its ids if known."""
        self._assignment = assignment
        self._lanes = lanes
        self._metrics = metrics
        self._job_events = job_events
        self._clock = clock
        self._whereabouts = whereabouts
        self._standstills = Standstills()
        self._shown: set[Partition] = set()
        """Partitions whose gauges are on /metrics."""
        self._next_at = 0.0

    def observe(self, now: float, jobs: Iterable[Job]) -> None:
        if now < self._next_at:
            return
        self._next_at = now + EVERY_S
        metrics, assignment = self._metrics, self._assignment
        metrics.active_training_jobs.set(self._lanes.busy)
        metrics.lanes_busy.set(self._lanes.busy)
        metrics.unfinished.set(assignment.unfinished)
        metrics.passed_over.set(assignment.passed)
        metrics.refused.set(assignment.refused)
        metrics.assigned_partitions.set(len(assignment.membership.epochs))
        metrics.trainer_memory_bytes.set(self._lanes.rss_bytes())
        oldest_ms = min((job.record.timestamp_ms for job in jobs if job.record), default=None)
        age_s = 0.0 if oldest_ms is None else self._clock().timestamp() - oldest_ms / 1000
        metrics.oldest_unfinished_s.set(max(0.0, age_s))
        self._observe_partitions(now)

    def _observe_partitions(self, now: float) -> None:
        metrics, lags = self._metrics, self._assignment.lags()
        standing = {one.partition: one for one in self._standstills.observe(self._assignment.heads(), now)}
        for partition in self._shown - lags.keys():
            for gauge in (metrics.lag, metrics.standstill_s, metrics.finished_ahead):
                gauge.remove(str(partition.number))
        self._shown = set(lags)
        for partition, lag in lags.items():
            label, one = str(partition.number), standing.get(partition)
            metrics.lag.labels(label).set(lag)
            metrics.standstill_s.labels(label).set(one.for_s if one else 0.0)
            metrics.finished_ahead.labels(label).set(one.finished_ahead if one else 0)
        for one in standing.values():
            if one.due:
                self._job_events.held_up(one, *self._whereabouts(one.partition, one.offset))
