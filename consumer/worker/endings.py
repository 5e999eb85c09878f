"""How a job ends: its outcome is made durable, it is left to another worker, or it fails for an error of ours."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import Any

from consumer.jobs.claims import LOOK_AGAIN_S
from consumer.jobs.job import Job
from consumer.jobs.outcomes import Ending, Result, negative_outcome
from consumer.jobs.places import Place
from consumer.jobs.registrar import GROUP_LIMIT, GroupStored, Item, Stored, Unstored, request_id_of
from consumer.partitions.announcements import Announcement
from consumer.threads.batching import Batching, Pace
from consumer.threads.containment import PASSED_ON, UncontainedError, contain, contained
from consumer.trainers.protocol import End
from consumer.worker.handover import Handover
from consumer.worker.shared import Shared
from pipeline.jobs import ErrorKind, Failure, OutcomeKind, milliseconds

STORE_PACE_S = 0.1
FAILED_AGAIN_S = 60.0
"""Pause before what could not be stored, for an error of ours, is tried again."""


class Endings:
    """Owned by the worker's thread."""

    def __init__(self, shared: Shared, handover: Handover) -> None:
        self._shared = shared
        self._jobs = shared.jobs
        self._job_events = shared.job_events
        self._lanes = shared.neighbours.lanes
        self._handover = handover
        self._storing: Batching[Item] = Batching(Pace(STORE_PACE_S), GROUP_LIMIT)
        self._again: deque[tuple[float, Item]] = deque()
        """What could not be stored for an error of ours, and when it is tried again."""

    # For an error of ours -----------------------------------------------------------------------------------------

    def step(self, stage: str, request_id: str, step: Callable[..., None], *arguments: Any) -> None:
        """Have one request take a step: an error that is raised meanwhile ends it, and nothing else."""
        try:
            step(*arguments)
        except PASSED_ON:
            raise
        except Exception as error:  # noqa: BLE001 - about this request
            failure = contain(self._shared.metrics, stage, error, request_id=request_id)
            if (job := self._jobs.get(request_id)) is not None:
                self.fail(job, failure)

    def fail(self, job: Job, failure: Failure) -> None:
        """End a job FAILED for an error of ours; if a trainer has it, kill that first; it ends when that is gone."""
        try:
            if job.place is Place.STORING:
                return  # what it came to is on its way
            first, job.failure = job.failure is None, failure
            if not (first and self.kill_trainer(job, failure.message)):
                self.end(job, OutcomeKind.FAILED, failure)
        except Exception as worse:
            raise UncontainedError({job.request_id}) from worse

    def kill_trainer(self, job: Job, message: str) -> bool:
        """Kill the trainer that has it; the lanes tell when it is gone.  False if none has it."""
        if job.place is Place.FED and not self._lanes.take_back(job.request_id):
            self._lanes.kill(job.request_id, End.CANCELLED, message)  # or as soon as it is taken
            return True
        return job.place is Place.TRAINING and self._lanes.kill(job.request_id, End.CANCELLED, message)

    # With an outcome ----------------------------------------------------------------------------------------------

    def refuse(self, job: Job, failure: Failure) -> None:
        """End a request that is not trained: for what is wrong with it, or for an error of ours about it."""
        internal = failure.kind == ErrorKind.INTERNAL_ERROR
        self.end(job, OutcomeKind.FAILED if internal else OutcomeKind.REJECTED, failure)

    def end(self, job: Job, kind: OutcomeKind, failure: Failure) -> None:
        """Decide on a negative outcome; it counts once the ledger has taken it."""
        self.store(job, negative_outcome(job.request, self.ending(job), kind, failure))

    def store(self, job: Job, item: Item) -> None:
        """Make durable what it came to."""
        self._jobs.move(job, Place.STORING, keeps_spool=isinstance(item, Result))
        self._storing.add(item)

    def ending(self, job: Job) -> Ending:
        return Ending(milliseconds(self._shared.clock()), self._shared.me.worker_id, job.attempt, job.next_event())

    def send(self, now: float) -> None:
        """Results to the registrar: at once while a lane is free, else in groups."""
        if results := self._storing.next_group(now, self._lanes.saturated):
            self._shared.neighbours.registrar.submit(results)

    def wait_s(self, now: float) -> float:
        """How long until there is something to send; infinite if there is nothing."""
        return self._storing.wait_s(now, self._lanes.saturated)

    def group_stored(self, group: GroupStored) -> None:
        """The registrar's answer."""
        self._storing.answered()
        for answer in group.answers:
            if isinstance(answer, Stored):
                with contained(self._shared.metrics, "store", request_id=answer.outcome.request_id):
                    self._stored(answer)
            else:
                self.step("store", answer.request_id, self._unstored, answer)

    def store_again(self, now: float) -> None:
        """What could not be stored for an error of ours."""
        while self._again and self._again[0][0] <= now:
            self._storing.add(self._again.popleft()[1])

    def _stored(self, stored: Stored) -> None:
        outcome = stored.outcome
        job = self._jobs.get(outcome.request_id)
        if job is None:
            return
        record = job.record
        self._jobs.move(job, Place.STORED)
        if record is not None:
            self._shared.assignment.announce(Announcement(record, outcome, stored.registered))
        if job.keeps_checkpoints:
            self._shared.neighbours.checkpoints.drop(job.request_id)
        self._job_events.stored(job, stored)

    def _unstored(self, unstored: Unstored) -> None:
        job = self._jobs.get(unstored.request_id)
        if job is None:
            return
        if unstored.again is None:
            self._job_events.taken_over(job)
            self.park(job)
        elif self._handover.draining:
            self.release(job)
        else:
            self._again.append((time.monotonic() + FAILED_AGAIN_S, unstored.again))

    # Elsewhere ----------------------------------------------------------------------------------------------------

    def ended_instead(self, job: Job) -> bool:
        """End or release a job that comes back untrained and is not to be trained here; False if it is to be."""
        if job.record is None or self._handover.draining:
            self.release(job)
        elif job.cancelled:
            self.end(job, OutcomeKind.CANCELLED, Failure(ErrorKind.CANCELLED, job.cancelled))
        else:
            return False
        return True

    def park(self, job: Job) -> None:
        """What we know of it is out of date: ask the ledger again, if its partition is still ours."""
        if job.record is None or self._handover.draining:
            self.release(job)
            return
        self._jobs.move(job, Place.PARKED)
        job.look_at = time.monotonic() + LOOK_AGAIN_S

    def release(self, job: Job) -> None:
        """Give it up, for the partition's owner to ask the ledger."""
        self._jobs.move(job, Place.RELEASED)
        self._shared.neighbours.claims.release((job.request_id,))

    def release_unstored(self) -> None:
        """The worker drains: what could not be stored is left to the partitions' next owners."""
        while self._again:
            job = self._jobs.get(request_id_of(self._again.popleft()[1]))
            if job is not None and job.place is Place.STORING:
                self.release(job)

    def send_all(self) -> None:
        """The drain has taken too long: whatever is left goes to the registrar now."""
        for results in self._storing.rest():
            self._shared.neighbours.registrar.submit(results)
