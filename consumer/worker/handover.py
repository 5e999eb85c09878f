"""Hands jobs over to other workers: those of revoked partitions, and all of them when the worker drains.

A job that no trainer has is released, and the partition's next owner trains it. A job that a trainer has goes on here,
and the next owner announces it.
"""

from __future__ import annotations

import threading
from collections.abc import Collection

import structlog

from consumer import failpoints
from consumer.jobs.job import Job
from consumer.jobs.jobs import Jobs
from consumer.jobs.places import Place
from consumer.partitions.assignment import Assignment
from consumer.partitions.records import Partition
from consumer.worker.shared import Neighbours

log = structlog.get_logger(__name__)


class Handover:
    """Owned by the worker's thread; any thread may call `ask`."""

    def __init__(self, jobs: Jobs, assignment: Assignment, neighbours: Neighbours, timeout_s: float) -> None:
        self._jobs = jobs
        self._assignment = assignment
        self._intake = neighbours.intake
        self._claims = neighbours.claims
        self._readiness = neighbours.readiness
        self._lanes = neighbours.lanes
        self._timeout_s = timeout_s
        self._asked = threading.Event()
        self._drain_by: float | None = None
        self._left = threading.Event()

    def let_go(self, gone: set[tuple[Partition, int]]) -> None:
        """Release or detach the jobs of these lost (partition, epoch) pairs."""
        lost = [job for job in self._jobs if job.record and (job.record.partition, job.record.epoch) in gone]
        self._hand_back(lost)
        for job in lost:
            if self._jobs.get(job.request_id) is job:
                self._jobs.detach(job)

    def ask(self) -> None:
        """Request a drain: start nothing new, finish running trainings, leave the group. May be called twice."""
        self._asked.set()

    @property
    def draining(self) -> bool:
        """Whether the drain has begun: nothing is started or claimed any more."""
        return self._drain_by is not None

    def drain(self, now: float) -> None:
        """Begin the drain if it was requested and has not begun."""
        if not self._asked.is_set() or self.draining:
            return
        self._drain_by = now + self._timeout_s
        failpoints.reach("while_draining")
        log.info("draining", running=self._lanes.busy, waiting=len(self._jobs) - self._lanes.busy)
        self._hand_back([*self._jobs])
        self._readiness.ask_if_alone(self._leave_unless_alone)

    @property
    def left(self) -> bool:
        """Whether the worker has left the group and polls no more."""
        return self._left.is_set()

    def times_out(self, now: float) -> bool:
        """Whether the drain's time is over while jobs are left."""
        return self._drain_by is not None and now >= self._drain_by and len(self._jobs) > 0

    def give_up(self) -> None:
        """Release all jobs that are left, running or not; other workers train them again."""
        log.warning("drain timeout: trainings are given up", requests=sorted(self._jobs.ids())[:20])
        self._claims.release(self._jobs.ids())
        self._jobs.give_up()

    def done(self, now: float, unclaimed: int) -> bool:
        """Whether the worker may end. The partitions' next owner announces what is left to announce."""
        if self._drain_by is None or len(self._jobs):
            return False
        if now >= self._drain_by:
            return True
        # Wait for claims in progress, to release them: one left behind would count as a worker loss.
        return not unclaimed and (self.left or self._assignment.idle)

    def _hand_back(self, jobs: Collection[Job]) -> None:
        """Release those that no trainer has and that are not being stored."""
        released = []
        for job in jobs:
            if job.place in (Place.TRAINING, Place.STORING):
                continue
            if job.place is Place.FED and not self._lanes.take_back(job.request_id):
                continue
            released.append(job.request_id)
            self._jobs.move(job, Place.RELEASED)
        if released:
            self._claims.release(released)

    def _leave_unless_alone(self, alone: bool) -> None:
        """Leave the group at once if another member can take our partitions; called by a readiness thread."""
        if not alone:
            self._left.set()
            self._intake.leave()
