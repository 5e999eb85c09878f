"""Ends jobs: stores their outcome, releases them to another worker, or fails them for an internal error."""

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
"""Pause after an internal error before the same request is tried again."""


class JobEndings:
    """Owned by the worker's thread."""

    def __init__(self, shared: Shared, handover: Handover) -> None:
        self._shared = shared
        self._jobs = shared.jobs
        self._job_events = shared.job_events
        self._lanes = shared.neighbours.lanes
        self._handover = handover
        self._storing: Batching[Item] = Batching(Pace(STORE_PACE_S), GROUP_LIMIT)
        self._again: deque[tuple[float, Item]] = deque()
        """When to try again (monotonic seconds), and what an internal error kept from being stored."""

    # Internal errors ----------------------------------------------------------------------------------------------

    def step(self, stage: str, request_id: str, step: Callable[..., None], *arguments: Any) -> None:
        """Run one step of a request. An exception in it ends this request and nothing else."""
        try:
            step(*arguments)
        except PASSED_ON:
            raise
        except Exception as error:  # noqa: BLE001 - about this request
            failure = contain(self._shared.metrics, stage, error, request_id=request_id)
            if (job := self._jobs.get(request_id)) is not None:
                self.fail(job, failure)

    def fail(self, job: Job, failure: Failure) -> None:
        """End a job as FAILED. If a trainer has it, kill the trainer; the job ends once the trainer is gone."""
        try:
            if job.place is Place.STORING:
                return  # its outcome is being stored already
            first, job.failure = job.failure is None, failure
            if not (first and self.kill_trainer(job, failure.message)):
                self.end(job, OutcomeKind.FAILED, failure)
        except Exception as worse:
            raise UncontainedError({job.request_id}) from worse

    def kill_trainer(self, job: Job, message: str) -> bool:
        """Kill the job's trainer; the lanes report when it is gone. False if no trainer has the job."""
        if job.place is Place.FED and not self._lanes.take_back(job.request_id):
            self._lanes.kill(job.request_id, End.CANCELLED, message)  # or `Trainings` does, when it is taken
            return True
        return job.place is Place.TRAINING and self._lanes.kill(job.request_id, End.CANCELLED, message)

    # With an outcome ----------------------------------------------------------------------------------------------

    def refuse(self, job: Job, failure: Failure) -> None:
        """End a request untrained: REJECTED for a fault in the request, FAILED for an internal error."""
        internal = failure.kind == ErrorKind.INTERNAL_ERROR
        self.end(job, OutcomeKind.FAILED if internal else OutcomeKind.REJECTED, failure)

    def end(self, job: Job, kind: OutcomeKind, failure: Failure) -> None:
        """Store a negative outcome; it counts once the ledger has accepted it."""
        self.store(job, negative_outcome(job.request, self.ending(job), kind, failure))

    def store(self, job: Job, item: Item) -> None:
        """Queue a result or outcome for the registrar."""
        self._job_events.ending(job)
        self._jobs.move(job, Place.STORING, hands_spool_over=isinstance(item, Result))
        self._storing.add(item)

    def ending(self, job: Job) -> Ending:
        return Ending(milliseconds(self._shared.clock()), self._shared.me.worker_id, job.attempt, job.numbers)

    def send(self, now: float) -> None:
        """Submit results to the registrar: at once while a lane is free, else batched."""
        if results := self._storing.next_group(now, self._lanes.saturated):
            for result in results:
                if isinstance(result, Result) and (job := self._jobs.get(request_id_of(result))) is not None:
                    self._job_events.registering(job)
            self._shared.neighbours.registrar.submit(results)

    def wait_s(self, now: float) -> float:
        """Seconds until there is something to send; infinite if there is nothing."""
        return self._storing.wait_s(now, self._lanes.saturated)

    def group_stored(self, group: GroupStored) -> None:
        """Handle the registrar's answer."""
        self._storing.answered()
        for answer in group.answers:
            if isinstance(answer, Stored):
                with contained(self._shared.metrics, "store", request_id=answer.outcome.request_id):
                    self._stored(answer)
            else:
                self.step("store", answer.request_id, self._unstored, answer)

    def store_again(self, now: float) -> None:
        """Retry, when due, the items that an internal error kept from being stored."""
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
            job.numbers.reopen()
            self.park(job)
        elif self._handover.draining:
            self.release(job)
        else:
            self._again.append((time.monotonic() + FAILED_AGAIN_S, unstored.again))

    # Without an outcome -------------------------------------------------------------------------------------------

    def ended_instead(self, job: Job) -> bool:
        """Release or cancel a job that came back untrained; False if it is still to be trained here."""
        if job.record is None or self._handover.draining:
            self.release(job)
        elif job.cancelled:
            self.end(job, OutcomeKind.CANCELLED, Failure(ErrorKind.CANCELLED, job.cancelled))
        else:
            return False
        return True

    def park(self, job: Job) -> None:
        """Ask the ledger again, as what we know of the job is out of date; release it if its partition is lost."""
        if job.record is None or self._handover.draining:
            self.release(job)
            return
        self._jobs.move(job, Place.PARKED)
        job.look_at = time.monotonic() + LOOK_AGAIN_S

    def release(self, job: Job) -> None:
        """Release the job's claim, so that the partition's owner can take it."""
        self._jobs.move(job, Place.RELEASED)
        self._shared.neighbours.claims.release((job.request_id,))

    def release_unstored(self) -> None:
        """While draining, release jobs whose storing failed; the partitions' next owners take them."""
        while self._again:
            _, item = self._again.popleft()
            if isinstance(item, Result):
                self._shared.spools.give_back(item.spool)
            job = self._jobs.get(request_id_of(item))
            if job is not None and job.place is Place.STORING:
                self.release(job)

    def send_all(self) -> None:
        """Submit all that is left to the registrar now, as the drain has timed out."""
        for results in self._storing.rest():
            self._shared.neighbours.registrar.submit(results)
