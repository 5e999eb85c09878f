"""Acts on the answer to a claim: the record becomes a dead letter, a duplicate, or a job in its model's line."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

from consumer.events.errors import CONFLICT, UNREADABLE
from consumer.jobs.claims import LOOK_AGAIN_S, Asked, Ruled, Ruling, Standing
from consumer.jobs.job import Job
from consumer.jobs.places import Place
from consumer.jobs.registrar import Recorded
from consumer.jobs.waiting_duplicates import WaitingDuplicates
from consumer.partitions.announcements import Announcement
from consumer.partitions.records import Partition, Record
from consumer.threads.containment import PASSED_ON, UncontainedError, contain
from consumer.worker.handover import Handover
from consumer.worker.job_endings import FAILED_AGAIN_S, JobEndings
from consumer.worker.shared import Shared
from pipeline.jobs import ErrorKind, Failure, OutcomeKind
from pipeline.ledger import Cancel

CLAIM_BATCH = 100
LOOK_EVERY_S = 0.1
SUSPECT_FROM = 2
"""Worker losses before a request is a suspect; a first loss is charged to everything that worker held."""


class Rulings:
    """Owned by the worker's thread."""

    def __init__(self, shared: Shared, handover: Handover, endings: JobEndings) -> None:
        self._shared = shared
        self._jobs = shared.jobs
        self._assignment = shared.assignment
        self._claims = shared.neighbours.claims
        self._job_events = shared.job_events
        self._handover = handover
        self._endings = endings
        self._duplicates = WaitingDuplicates()
        self._look_at = 0.0
        self.unclaimed = 0
        """Records whose ruling is outstanding."""

    def claim(self, records: Sequence[Record]) -> None:
        self.unclaimed += len(records)
        for first in range(0, len(records), CLAIM_BATCH):
            self._claims.claim(records[first : first + CLAIM_BATCH])

    def look_again(self, now: float) -> None:
        """Ask the ledger again about parked jobs, and about duplicates whose request has no outcome yet."""
        if now < self._look_at or self._handover.draining:
            return
        self._look_at = now + LOOK_EVERY_S
        again = self._duplicates.due(now)
        for job in self._jobs.at(Place.PARKED):
            if job.look_at <= now:
                job.look_at = float("inf")
                again.append(job.asked)
        if again:
            self.unclaimed += len(again)
            self._claims.look_again(again)

    def let_go(self, gone: set[tuple[Partition, int]]) -> None:
        """Forget the duplicates of these lost (partition, epoch) pairs."""
        self._duplicates.let_go(gone)

    def ruled(self, ruled: Ruled) -> None:
        """Act on the answer of `Claims`, one ruling per record."""
        for ruling in ruled.rulings:
            self.unclaimed -= 1
            try:
                self._follow(ruling)
            except PASSED_ON:
                raise
            except Exception as error:  # noqa: BLE001 - about this record
                self._contain(ruling, error)

    def whereabouts(self, partition: Partition, offset: int) -> tuple[str, Mapping[str, str]]:
        """The state of an unfinished record's request, and its ids if known."""
        place = (partition, offset)
        for job in self._jobs:
            if job.record is not None and (job.record.partition, job.record.offset) == place:
                return job.place.name, job.ids
        if request_id := self._duplicates.request_id(*place):
            return "DUPLICATE", {"request_id": request_id}
        return "PASSED_OVER" if self._assignment.passes(*place) else "TO_BE_ANNOUNCED", {}

    def _follow(self, ruling: Ruling) -> None:
        asked = ruling.asked
        if not self._assignment.owns(ruling.record) or self._handover.draining:
            self._decline(ruling)
        elif asked is None:
            self._refuse(ruling)
        elif ruling.standing in _DEAD_LETTERS:
            self._forget_parked(ruling, asked)
            self._refuse(ruling)
        elif ruling.standing is Standing.DONE:
            self._forget_parked(ruling, asked)
            self._duplicates.over(ruling.record)
            self._assignment.announce(Announcement(ruling.record))
        elif ruling.standing is Standing.DUPLICATE:
            self._forget_parked(ruling, asked)
            self._duplicates.wait(asked, time.monotonic() + LOOK_AGAIN_S)
        else:
            self._place(ruling, asked)

    def _refuse(self, ruling: Ruling) -> None:
        """Make a dead letter of a record that gets no outcome of its own."""
        record, reason = ruling.record, _DEAD_LETTERS[ruling.standing]
        ids = {"request_id": ruling.asked.request.request_id} if ruling.asked else {}
        self._job_events.dead_letter(
            reason, ruling.message, partition=record.partition.number, offset=record.offset, **ids
        )
        self._duplicates.over(record)
        self._assignment.announce(Announcement(record, dead_letter=(reason, ruling.message)))

    def _forget_parked(self, ruling: Ruling, asked: Asked) -> None:
        """Drop the job that was parked with this record as its home: the ledger names another home."""
        job = self._jobs.get(asked.request.request_id)
        if job is not None and job.record is ruling.record and job.place is Place.PARKED:
            self._jobs.move(job, Place.RELEASED)

    def _decline(self, ruling: Ruling) -> None:
        """Release a claim that came too late (record lost, worker draining), unless a job here has the request."""
        if ruling.asked is None or ruling.standing not in (Standing.MINE, Standing.FOUND):
            return
        request_id = ruling.asked.request.request_id
        if self._jobs.get(request_id) is None:
            self._claims.release((request_id,))

    def _place(self, ruling: Ruling, asked: Asked) -> None:
        """Create or update the job of a request whose home is this record."""
        job = self._jobs.get(asked.request.request_id)
        if job is None:
            job = self._jobs.add(asked)
        elif job.record is None:
            self._jobs.attach(job, asked)
        if job.place is not Place.PARKED:
            return
        held_before = job.claim is not None
        job.claim = ruling.claim
        if ruling.standing is Standing.SETTLED and ruling.outcome is not None:
            self._endings.store(job, Recorded(ruling.outcome))
        elif ruling.standing is Standing.MINE or (ruling.standing is Standing.FOUND and held_before):
            self._adopt(job, asked.problem)
        else:
            # FOUND although no job had it: it may have ended here a moment ago, so ask the ledger once more.
            pause_s = 0.0 if ruling.standing is Standing.FOUND else ruling.look_again_s
            job.look_at = time.monotonic() + pause_s

    def _adopt(self, job: Job, problem: Failure | None) -> None:
        """End the request as its claim, or a fault in it, demands; else put it in its model's line."""
        claim, limits = job.claim, self._shared.limits
        assert claim is not None
        if claim.closing is not None:
            self._endings.store(job, claim.closing)
        elif problem is not None:
            self._endings.refuse(job, problem)
        elif claim.cancel is not None:
            self._endings.end(job, OutcomeKind.CANCELLED, cancelled(claim.cancel))
        elif claim.worker_losses >= limits.worker_losses:
            message = (
                f"{claim.worker_losses} workers died with this request in hand, the most allowed (MAX_WORKER_LOSSES)"
            )
            self._endings.end(job, OutcomeKind.FAILED, Failure(ErrorKind.WORKER_LOST, message))
        else:
            job.suspect = claim.worker_losses >= min(SUSPECT_FROM, limits.worker_losses - 1) > 0
            self._job_events.accepted(job)
            self._jobs.move(job, Place.WAITING)

    def _contain(self, ruling: Ruling, error: Exception) -> None:
        """End the request if this record is its home; else make the record a dead letter."""
        asked, record = ruling.asked, ruling.record
        request_id = "" if asked is None else asked.request.request_id
        failure = contain(self._shared.metrics, "claim", error, request_id=request_id)
        if not self._assignment.owns(record):
            return
        if asked is None or ruling.standing not in _AT_HOME:
            self._assignment.announce(Announcement(record, dead_letter=(failure.kind, failure.message)))
            return
        try:
            job = self._jobs.get(request_id) or self._jobs.add(asked)
        except Exception as worse:
            raise UncontainedError({request_id}) from worse
        if job.record is not record or job.place is not Place.PARKED:
            return  # a job has it already, with this record as its home or another
        if ruling.standing is Standing.MINE or (ruling.standing is Standing.FOUND and job.claim is not None):
            self._endings.fail(job, failure)
        else:
            job.look_at = time.monotonic() + FAILED_AGAIN_S


_AT_HOME = (Standing.MINE, Standing.FOUND, Standing.PARKED, Standing.SETTLED)
"""The record is its request's home, as far as the ledger has answered."""
_DEAD_LETTERS = {
    Standing.UNREADABLE: UNREADABLE,
    Standing.CONFLICT: CONFLICT,
    Standing.BROKEN: ErrorKind.INTERNAL_ERROR,
}
"""Standings of records that get no outcome of their own, with the reason in their dead letter."""


def cancelled(cancel: Cancel) -> Failure:
    """The failure of a cancelled request: who cancelled it, and why."""
    by = f" by {cancel.user}" if cancel.user else ""
    return Failure(ErrorKind.CANCELLED, f"cancelled{by}{': ' + cancel.reason if cancel.reason else ''}")
