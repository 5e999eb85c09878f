"""The main thread: takes each step of a request's way, owns all state, and waits for nothing.

    polled ─▶ claimed ─▶ its model's line ─▶ dataset ready ─▶ lane ─▶ trained ─▶ stored ─▶ announced
    (intake)  (claims)   (jobs)              (readiness)    (lanes)  (child)    (registrar) (committer)

Each neighbour in brackets is a thread or process with one client of its own; it gets orders and answers with a
message in our inbox. `jobs` knows where each request is and lets it go only where it can go. A request that cannot or
need not be trained leaves the way early: unreadable bytes and conflicts become dead letters, what already has an
outcome is announced, negative outcomes go straight to the registrar.

What we own can go at any moment. A job that is not in a trainer's hands is then released, for the new owner to train;
one that is goes on without its record, ends in the ledger and the registry, and is announced by the new owner.

What is raised while one request takes a step ends that request (`_step`), whichever step it is.
"""

from __future__ import annotations

import selectors
import time
from collections import deque
from collections.abc import Callable, Collection, Mapping
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import structlog

from consumer import failpoints
from consumer.events.errors import CONFLICT, UNREADABLE
from consumer.jobs.cancellation import CancelSeen
from consumer.jobs.checkpoints import Checkpoints
from consumer.jobs.claims import LOOK_AGAIN_S, Asked, Claims, Ruled, Ruling, Standing
from consumer.jobs.duplicates import Duplicates
from consumer.jobs.job import Job
from consumer.jobs.jobs import Jobs
from consumer.jobs.lease import Beat
from consumer.jobs.outcomes import Ending, Result, Reused, negative_outcome
from consumer.jobs.places import Place
from consumer.jobs.readiness import Crashed, Prepared, Readiness
from consumer.jobs.registrar import GROUP_LIMIT, Decided, GroupStored, Item, Registrar, Stored, Unstored, request_id_of
from consumer.partitions.announcements import Announcement
from consumer.partitions.assignment import Assignment, Verdict
from consumer.partitions.intake import Intake
from consumer.partitions.read_ahead import ReadAhead
from consumer.partitions.records import Membership, Partition, PassedOver, Polled, Record
from consumer.publishing.committer import Committer, GroupSettled
from consumer.system import disk
from consumer.telemetry.metrics import Metrics
from consumer.threads.batching import Batching, Pace
from consumer.threads.containment import PASSED_ON, UncontainedError, contain, contained
from consumer.threads.inbox import Inbox
from consumer.threads.neighbour import ThreadFailed
from consumer.threads.retrying import Breakers
from consumer.threads.watch import Watch
from consumer.trainers.lanes import Lanes
from consumer.trainers.protocol import Done, End, Killed, LaneEvent, Logged, Reported, Returned, Taken
from consumer.worker.feeding import Limits, spec_of
from consumer.worker.gauges import Gauges
from consumer.worker.handover import Handover
from consumer.worker.job_events import JobEvents
from pipeline.errors import RejectedError
from pipeline.jobs import ErrorKind, Failure, OutcomeKind, RegisteredModel, milliseconds
from pipeline.ledger import Cancel, Owner
from pipeline.registry.quotas import Quotas

log = structlog.get_logger(__name__)

TICK_S = 0.1
TURNS_WITHIN_S = 30.0
"""The loop does not wait for anything: a turn that lasts longer stands still."""
TURN_S = 0.05
"""Messages are left for the next turn after this long, so that the lanes are looked at in between."""
CLAIM_BATCH = 100
STORE_PACE_S = 0.1
ANNOUNCE_PACE_S = 0.25
FAILED_AGAIN_S = 60.0
"""When what met an error of ours, and cannot be ended for it, is tried again."""
SWEEP_S = 3.0
POLLS_WITHIN_S = 60.0
"""A poll loop that has not gone round for this long is stuck: the broker would go on taking us for a living member."""
SUSPECT_FROM = 2
"""Losses of workers before a request is a suspect; the first is charged to everything that the worker held."""


class Worker:
    """Owned by the thread that calls run(); only what is named below may be called from others."""

    def __init__(
        self,
        me: Owner,
        inbox: Inbox,
        *,
        intake: Intake,
        claims: Claims,
        readiness: Readiness,
        lanes: Lanes,
        registrar: Registrar,
        committer: Committer,
        checkpoints: Checkpoints,
        job_events: JobEvents,
        breakers: Breakers,
        metrics: Metrics,
        limits: Limits,
        quotas: Quotas,
        watch: Watch,
        spool: Path,
        dask_scheduler: str | None = None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._me = me
        self._inbox = inbox
        self._intake = intake
        self._claims = claims
        self._readiness = readiness
        self._lanes = lanes
        self._registrar = registrar
        self._committer = committer
        self._checkpoints = checkpoints
        self._job_events = job_events
        self._breakers = breakers
        self._metrics = metrics
        self._limits = limits
        self._watch = watch
        self._spool = spool
        self._dask_scheduler = dask_scheduler
        self._clock = clock
        self._assignment = Assignment(me.boot)
        self._jobs = Jobs(quotas.trainings, readiness.put_down)
        self._fed = 0
        self._duplicates = Duplicates()
        self._unclaimed = 0
        self._read_ahead = ReadAhead(limits.look_ahead)
        self._gauges = Gauges(self._assignment, lanes, metrics, job_events, clock, self._whereabouts)
        self._storing: Batching[Item] = Batching(Pace(STORE_PACE_S), GROUP_LIMIT)
        self._again: deque[tuple[float, Item]] = deque()
        """What could not be stored for an error of ours, and when it is tried again."""
        self._announcing = Pace(ANNOUNCE_PACE_S)
        self._look_at = self._sweep_at = 0.0
        self._handover = Handover(
            self._jobs,
            self._assignment,
            intake=intake,
            claims=claims,
            readiness=readiness,
            lanes=lanes,
            timeout_s=limits.drain_timeout_s,
        )
        self._handlers: dict[type, Callable[[Any], None]] = {
            Polled: self._polled,
            Ruled: self._ruled,
            Prepared: self._prepared,
            Crashed: self._counted_crash,
            GroupStored: self._group_stored,
            GroupSettled: self._settled,
            Beat: self._beat,
            CancelSeen: lambda seen: self._step("cancel", seen.request_id, self._cancel, seen.request_id, seen.cancel),
            ThreadFailed: _raise,
        }

    # From any thread ----------------------------------------------------------------------------------------------

    def drain(self) -> None:
        """Start no more, finish what runs, leave. A second call changes nothing."""
        self._handover.ask()

    def watched(self) -> Collection[str]:
        """The requests whose cancel flags the heartbeat reads."""
        return self._jobs.ids()

    @property
    def active(self) -> int:
        return self._lanes.busy

    @property
    def membership(self) -> Membership:
        return self._assignment.membership

    # The loop -----------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Work until drained. Raises whatever a neighbour could not go on from."""
        turn = self._watch.turn("worker", TURNS_WITHIN_S)
        with selectors.DefaultSelector() as selector, ExitStack() as stack:
            stack.callback(turn.rest)
            selector.register(self._inbox, selectors.EVENT_READ)
            watching: set[Any] = set()
            while not self._handover.done(time.monotonic(), self._unclaimed):
                turn.rest()
                watching = _select_on(selector, watching, set(self._lanes.descriptors()))
                selector.select(self._pause_s())
                turn.begin()
                self._turn()

    def _turn(self) -> None:
        now = time.monotonic()
        for message in self._inbox.take(TURN_S):
            self._handlers[type(message)](message)
        for event in self._lanes.poll():
            self._step("train", event.job_id, self._lane_event, event)
        self._drain(now)
        self._look_again(now)
        self._store_again(now)
        self._start_jobs()
        self._throttle()
        self._send_groups(now)
        self._gauges.observe(now, self._jobs)
        self._check_intake(now)

    def _pause_s(self) -> float:
        now, busy = time.monotonic(), self._lanes.saturated
        announcing_s = self._announcing.wait_s(now, busy) if self._assignment.pending else TICK_S
        return min(TICK_S, self._storing.wait_s(now, busy), announcing_s)

    def _send_groups(self, now: float) -> None:
        """Results to the registrar, and what is stored to the committer."""
        busy = self._lanes.saturated
        if results := self._storing.next_group(now, busy):
            self._registrar.submit(results)
        if not self._announcing.wait_s(now, busy):
            group = self._assignment.next_group(now)
            if group is not None:
                self._committer.submit(group)
                self._announcing.went(now)

    def _step(self, stage: str, request_id: str, step: Callable[..., None], *arguments: Any) -> None:
        """Have one request take a step: an error that is raised meanwhile ends it, and nothing else."""
        try:
            step(*arguments)
        except PASSED_ON:
            raise
        except Exception as error:  # noqa: BLE001 - about this request
            failure = contain(self._metrics, stage, error, request_id=request_id)
            if (job := self._jobs.get(request_id)) is not None:
                self._fail(job, failure)

    def _fail(self, job: Job, failure: Failure) -> None:
        """End a job for an error of ours; one that a trainer has, as soon as the trainer is gone."""
        try:
            if job.place is Place.STORING:
                return  # what it came to is on its way
            first, job.failure = job.failure is None, failure
            if not (first and self._stopped(job, failure.message)):
                self._end(job, OutcomeKind.FAILED, failure)
        except Exception as worse:
            raise UncontainedError({job.request_id}) from worse

    def _stopped(self, job: Job, message: str) -> bool:
        """Whether a trainer has it and is being killed for it: the lanes tell when it is gone."""
        if job.place is Place.FED and not self._lanes.take_back(job.request_id):
            self._lanes.kill(job.request_id, End.CANCELLED, message)  # or as soon as it is taken
            return True
        return job.place is Place.TRAINING and self._lanes.kill(job.request_id, End.CANCELLED, message)

    # 1. A batch comes in ------------------------------------------------------------------------------------------

    def _polled(self, polled: Polled) -> None:
        gone = self._assignment.update(polled)
        if gone:
            self._duplicates.let_go(gone)
            self._handover.let_go(gone)
        work: list[Record] = []
        for record in polled.records:
            if isinstance(record, PassedOver):
                self._assignment.pass_over(record)
                continue
            self._read_ahead.received += 1
            if self._assignment.deliver(record):
                work.append(record)
        if not self._handover.draining:
            self._unclaimed += len(work)
            for first in range(0, len(work), CLAIM_BATCH):
                self._claims.claim(work[first : first + CLAIM_BATCH])

    # 2. It is claimed ---------------------------------------------------------------------------------------------

    def _ruled(self, ruled: Ruled) -> None:
        for ruling in ruled.rulings:
            self._unclaimed -= 1
            try:
                self._follow(ruling)
            except PASSED_ON:
                raise
            except Exception as error:  # noqa: BLE001 - about this record
                self._contain_ruling(ruling, error)

    def _contain_ruling(self, ruling: Ruling, error: Exception) -> None:
        """The request ends, if this record is its home; else the record becomes a dead letter."""
        asked, record = ruling.asked, ruling.record
        request_id = "" if asked is None else asked.request.request_id
        failure = contain(self._metrics, "claim", error, request_id=request_id)
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
            return  # it is in hand already, by this record or another
        if ruling.standing is Standing.MINE or (ruling.standing is Standing.FOUND and job.claim is not None):
            self._fail(job, failure)
        else:
            job.look_at = time.monotonic() + FAILED_AGAIN_S

    def _follow(self, ruling: Ruling) -> None:
        asked = ruling.asked
        if not self._assignment.owns(ruling.record) or self._handover.draining:
            self._decline(ruling)
        elif asked is None:
            self._bury(ruling)
        elif ruling.standing in _DEAD_LETTERS:
            self._forget_parked(ruling, asked)
            self._bury(ruling)
        elif ruling.standing is Standing.DONE:
            self._forget_parked(ruling, asked)
            self._duplicates.over(ruling.record)
            self._assignment.announce(Announcement(ruling.record))
        elif ruling.standing is Standing.DUPLICATE:
            self._forget_parked(ruling, asked)
            self._duplicates.wait(asked, time.monotonic() + LOOK_AGAIN_S)
        else:
            self._place(ruling, asked)

    def _bury(self, ruling: Ruling) -> None:
        """A record that gets no outcome of its own becomes a dead letter."""
        record, reason = ruling.record, _DEAD_LETTERS[ruling.standing]
        ids = {"request_id": ruling.asked.request.request_id} if ruling.asked else {}
        self._job_events.buried(reason, ruling.message, partition=record.partition.number, offset=record.offset, **ids)
        self._duplicates.over(record)
        self._assignment.announce(Announcement(record, dead_letter=(reason, ruling.message)))

    def _forget_parked(self, ruling: Ruling, asked: Asked) -> None:
        """Another record is the request's home. For a moment this one may have been thought to be it."""
        job = self._jobs.get(asked.request.request_id)
        if job is not None and job.record is ruling.record and job.place is Place.PARKED:
            self._jobs.move(job, Place.RELEASED)

    def _decline(self, ruling: Ruling) -> None:
        """The record went while it was being claimed: its new owner trains it, unless a trainer here has it."""
        if ruling.asked is None or ruling.standing not in (Standing.MINE, Standing.FOUND):
            return
        request_id = ruling.asked.request.request_id
        if self._jobs.get(request_id) is None:
            self._claims.release((request_id,))

    def _place(self, ruling: Ruling, asked: Asked) -> None:
        """A request whose home this record is takes its place in its model's line."""
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
            self._store(job, Decided(ruling.outcome))
        elif ruling.standing is Standing.MINE or (ruling.standing is Standing.FOUND and held_before):
            self._adopt(job, asked.problem)
        else:
            # FOUND without a job of ours: it may have ended here a moment ago, so the ledger is asked once more.
            pause_s = 0.0 if ruling.standing is Standing.FOUND else ruling.look_again_s
            job.look_at = time.monotonic() + pause_s

    def _adopt(self, job: Job, problem: Failure | None) -> None:
        """It is ours: what does its claim say?"""
        claim = job.claim
        assert claim is not None
        if claim.closing is not None:
            self._store(job, claim.closing)
        elif problem is not None:
            self._refuse(job, problem)
        elif claim.cancel is not None:
            self._end(job, OutcomeKind.CANCELLED, _cancelled(claim.cancel))
        elif claim.worker_losses >= self._limits.worker_losses:
            message = f"{claim.worker_losses} workers died while this request was in their hands"
            self._end(job, OutcomeKind.FAILED, Failure(ErrorKind.WORKER_LOST, message))
        else:
            job.suspect = claim.worker_losses >= min(SUSPECT_FROM, self._limits.worker_losses - 1) > 0
            self._job_events.accepted(job)
            self._jobs.move(job, Place.WAITING)

    def _look_again(self, now: float) -> None:
        """At what others have in hand, and at duplicates whose first is not finished."""
        if now < self._look_at or self._handover.draining:
            return
        self._look_at = now + TICK_S
        again = self._duplicates.due(now)
        for job in self._jobs.at(Place.PARKED):
            if job.look_at <= now:
                job.look_at = float("inf")
                again.append(job.asked)
        if again:
            self._unclaimed += len(again)
            self._claims.look_again(again)

    # 3. Its turn comes --------------------------------------------------------------------------------------------

    def _start_jobs(self) -> None:
        if self._breakers.is_open(disk.SERVICE):
            return
        jobs = self._jobs
        while (
            jobs.count(Place.READY) < self._lanes.room()
            and self._readiness.has_room
            and (job := jobs.take()) is not None
        ):
            self._step("prepare", job.request_id, self._prepare, job)
        while self._lanes.room() and (ready := jobs.first(Place.READY)) is not None:
            self._step("feed", ready.request_id, self._feed, ready)

    def _prepare(self, job: Job) -> None:
        job.dataset = self._readiness.at_once(job)
        if job.dataset is not None:
            self._jobs.move(job, Place.READY)
        else:
            self._readiness.prepare(job)

    def _prepared(self, answer: Prepared) -> None:
        if answer.job.moves == answer.moves:
            self._step("prepare", answer.job.request_id, self._go_on_prepared, answer.job, answer)
            return
        with contained(self._metrics, "prepare", **answer.job.ids):
            if answer.dataset is not None:
                self._readiness.put_down(answer.dataset)
            disk.remove(answer.checkpoint)

    def _go_on_prepared(self, job: Job, answer: Prepared) -> None:
        job.dataset, job.checkpoint = answer.dataset or job.dataset, answer.checkpoint or job.checkpoint
        if answer.lost:
            self._park(job)
        elif answer.failure is not None:
            self._refuse(job, answer.failure)
        elif answer.reused is not None:
            self._reuse(job, answer.reused)
        else:
            self._jobs.move(job, Place.READY)

    def _reuse(self, job: Job, source: RegisteredModel) -> None:
        """An equal training's result stands for this one's."""
        self._store(job, Reused(job.request, self._ending(job), source))

    def _feed(self, job: Job) -> None:
        self._fed += 1
        try:
            spec = spec_of(job, self._spool / str(self._fed), self._limits, self._dask_scheduler)
        except RejectedError as error:
            self._refuse(job, Failure(ErrorKind.INVALID_REQUEST, str(error)))
            return
        assert job.dataset is not None
        job.reuse_key = self._readiness.reuse_key(job.request, job.dataset)
        self._jobs.move(job, Place.FED)
        self._lanes.feed(spec)

    # 4. It is trained ---------------------------------------------------------------------------------------------

    def _lane_event(self, event: LaneEvent) -> None:
        job = self._jobs.get(event.job_id)
        if job is None or job.place not in (Place.FED, Place.TRAINING):  # it was ended otherwise
            return
        if job.failure is not None and isinstance(event, Done | Killed | Returned):
            self._end(job, OutcomeKind.FAILED, job.failure)
            return
        match event:
            case Taken():
                self._taken(job)
            case Reported():
                self._job_events.reported(job, event)
                failpoints.reach("while_training")
            case Logged():
                self._job_events.logged(job, event)
            case Returned():
                self._start_over(job)
            case Done():
                self._finished(job, event)
            case Killed():
                self._killed(job, event)

    def _taken(self, job: Job) -> None:
        self._jobs.move(job, Place.TRAINING)
        self._job_events.started(job)
        if job.keeps_checkpoints and job.spool is not None:
            self._checkpoints.keep(job.request_id, job.spool)
        if job.cancelled or job.failure:
            self._lanes.kill(job.request_id, End.CANCELLED, job.cancelled)

    def _finished(self, job: Job, event: Done) -> None:
        if event.verdict == "trained":
            self._job_events.finished(job, "")
            assert job.spool is not None
            self._store(job, Result(job.request, self._ending(job), job.spool, job.reuse_key))
        elif event.verdict == "full":
            self._lacks_space(job, event.message)
        else:
            rejected = event.verdict == "rejected"
            error = ErrorKind.INVALID_REQUEST if rejected else ErrorKind(event.kind)
            self._job_events.finished(job, error)
            self._end(job, OutcomeKind.REJECTED if rejected else OutcomeKind.FAILED, Failure(error, event.message))

    def _lacks_space(self, job: Job, message: str) -> None:
        """A full disk is not the request's fault: it is prepared again once there is more room than it has taken.

        If there is as much as soon as its files are gone, it has filled the disk itself, and its attempts are counted.
        """
        assert job.spool is not None
        self._job_events.lacks_space(job, message)
        wanted_bytes = 2 * disk.size_bytes(job.spool)
        job.remove_files()
        if self._given_up(job):
            return
        self._jobs.move(job, Place.PREPARING)
        if disk.has_room(self._spool, wanted_bytes):
            self._readiness.count_crash(job, message)
        else:
            self._jobs.put_down(job)
            self._readiness.prepare(job, wanted_bytes)

    def _killed(self, job: Job, event: Killed) -> None:
        self._job_events.killed(event.end)
        if event.end is End.CRASHED:
            self._jobs.move(job, Place.PREPARING)
            self._readiness.count_crash(job, event.message)
            return
        kind, error = _ENDS[event.end]
        self._end(job, kind, Failure(error, event.message))

    def _counted_crash(self, crashed: Crashed) -> None:
        if crashed.job.moves == crashed.moves:
            self._step("train", crashed.job.request_id, self._try_again, crashed.job, crashed)

    def _try_again(self, job: Job, crashed: Crashed) -> None:
        """A trainer that dies is tried again, but not for ever."""
        if job.claim is None or crashed.count is None:
            self._park(job)
            return
        self._job_events.crashed(job, crashed.count, crashed.message)
        if crashed.count >= self._limits.attempts:
            message = f"{crashed.message}; that was attempt {crashed.count} of {self._limits.attempts} (MAX_ATTEMPTS)"
            self._end(job, OutcomeKind.FAILED, Failure(ErrorKind.TRAINER_CRASHED, message))
            return
        self._job_events.retrying(job, crashed.message)
        job.claim = replace(job.claim, trainer_crashes=crashed.count)
        self._start_over(job)

    def _start_over(self, job: Job) -> None:
        """It was fed, and comes back untrained."""
        if not self._given_up(job):
            self._jobs.move(job, Place.READY)

    def _given_up(self, job: Job) -> bool:
        """Whether a job that comes back untrained is not to be trained here."""
        if job.record is None or self._handover.draining:
            self._release(job)
        elif job.cancelled:
            self._end(job, OutcomeKind.CANCELLED, Failure(ErrorKind.CANCELLED, job.cancelled))
        else:
            return False
        return True

    # 5. It is stored ----------------------------------------------------------------------------------------------

    def _refuse(self, job: Job, failure: Failure) -> None:
        """End a request that is not trained: for what is wrong with it, or for an error of ours about it."""
        internal = failure.kind == ErrorKind.INTERNAL_ERROR
        self._end(job, OutcomeKind.FAILED if internal else OutcomeKind.REJECTED, failure)

    def _end(self, job: Job, kind: OutcomeKind, failure: Failure) -> None:
        """Decide on a negative outcome; it counts once the ledger has taken it."""
        self._store(job, negative_outcome(job.request, self._ending(job), kind, failure))

    def _store(self, job: Job, item: Item) -> None:
        self._jobs.move(job, Place.STORING, keeps_spool=isinstance(item, Result))
        self._storing.add(item)

    def _ending(self, job: Job) -> Ending:
        return Ending(milliseconds(self._clock()), self._me.worker_id, job.attempt, job.next_event())

    def _group_stored(self, group: GroupStored) -> None:
        self._storing.answered()
        for answer in group.answers:
            if isinstance(answer, Stored):
                with contained(self._metrics, "store", request_id=answer.outcome.request_id):
                    self._stored(answer)
            else:
                self._step("store", answer.request_id, self._unstored, answer)

    def _stored(self, stored: Stored) -> None:
        outcome = stored.outcome
        job = self._jobs.get(outcome.request_id)
        if job is None:
            return
        record = job.record
        self._jobs.move(job, Place.STORED)
        if record is not None:
            self._assignment.announce(Announcement(record, outcome, stored.registered))
        if job.keeps_checkpoints:
            self._checkpoints.drop(job.request_id)
        self._job_events.stored(job, stored)

    def _unstored(self, unstored: Unstored) -> None:
        job = self._jobs.get(unstored.request_id)
        if job is None:
            return
        if unstored.again is None:
            self._job_events.taken_over(job)
            self._park(job)
        elif self._handover.draining:
            self._release(job)
        else:
            self._again.append((time.monotonic() + FAILED_AGAIN_S, unstored.again))

    def _store_again(self, now: float) -> None:
        """What could not be stored for an error of ours."""
        while self._again and self._again[0][0] <= now:
            self._storing.add(self._again.popleft()[1])

    def _park(self, job: Job) -> None:
        """Whatever we know of it is out of date: the ledger is asked, by whoever owns its partition."""
        if job.record is None or self._handover.draining:
            self._release(job)
            return
        self._jobs.move(job, Place.PARKED)
        job.look_at = time.monotonic() + LOOK_AGAIN_S

    def _release(self, job: Job) -> None:
        """Give it up, for the partition's owner to ask the ledger."""
        self._jobs.move(job, Place.RELEASED)
        self._claims.release((job.request_id,))

    # 6. It is announced -------------------------------------------------------------------------------------------

    def _settled(self, settled: GroupSettled) -> None:
        now = time.monotonic()
        if settled.verdict is Verdict.REFUSED and len(settled.group.announcements) == 1:
            self._job_events.refused(settled.group.announcements[0])
        for announcement in self._assignment.settle(settled.group, settled.verdict, now):
            if announcement.outcome is not None:
                log.debug("announced", kind=announcement.outcome.kind.value, request_id=announcement.outcome.request_id)

    # Cancel -------------------------------------------------------------------------------------------------------

    def _beat(self, beat: Beat) -> None:
        for request_id, cancel in beat.cancels.items():
            self._step("cancel", request_id, self._cancel, request_id, cancel)
        now = time.monotonic()
        if now >= self._sweep_at:
            self._sweep_at = now + SWEEP_S
            self._claims.sweep(self._jobs.ids())

    def _cancel(self, request_id: str, cancel: Cancel) -> None:
        """Stop it wherever it is; from STORING on the result counts."""
        job = self._jobs.get(request_id)
        if job is None or job.place is Place.PARKED or job.cancelled:
            return
        if job.place is Place.STORING:
            self._job_events.cancelled(job, "late")
            return
        failure = _cancelled(cancel)
        job.cancelled = failure.message
        if self._stopped(job, failure.message):
            self._job_events.cancelled(job, "stopped")
        elif job.place is Place.TRAINING:  # it has ended by itself, and its event is on its way
            self._job_events.cancelled(job, "late")
        else:
            self._job_events.cancelled(job, "waiting")
            self._end(job, OutcomeKind.CANCELLED, failure)

    # The worker goes ----------------------------------------------------------------------------------------------

    def _drain(self, now: float) -> None:
        self._handover.drain(now)
        if self._handover.draining:
            while self._again:
                job = self._jobs.get(request_id_of(self._again.popleft()[1]))
                if job is not None and job.place is Place.STORING:
                    self._release(job)
        if self._handover.times_out(now):
            for results in self._storing.rest():
                self._registrar.submit(results)
            self._handover.give_up()

    # Flow ---------------------------------------------------------------------------------------------------------

    def _throttle(self) -> None:
        """Read on only as fast as requests can be claimed and finished, and not while a service is away."""
        halted = self._handover.draining or self._breakers.any_open()
        self._intake.read(self._read_ahead.reading(self._assignment, self._unclaimed, halted=halted))
        if not self._read_ahead.full:
            for partition in self._assignment.rewind():
                self._intake.rewind(*partition)
        self._metrics.intake_paused.set(halted or self._read_ahead.full)

    def _check_intake(self, now: float) -> None:
        if not self._handover.left and now - self._intake.turned_at > POLLS_WITHIN_S:
            raise RuntimeError(f"the poll loop has stood still for {now - self._intake.turned_at:.0f} s")

    def _whereabouts(self, partition: Partition, offset: int) -> tuple[str, Mapping[str, str]]:
        """How far the request of an unfinished record has come, and its ids where it has any."""
        place = (partition, offset)
        for job in self._jobs:
            if job.record is not None and (job.record.partition, job.record.offset) == place:
                return job.place.name, job.ids
        if request_id := self._duplicates.request_id(*place):
            return "DUPLICATE", {"request_id": request_id}
        return "PASSED_OVER" if self._assignment.passes(*place) else "TO_BE_ANNOUNCED", {}


_AT_HOME = (Standing.MINE, Standing.FOUND, Standing.PARKED, Standing.SETTLED)
"""The record is the request's home, as far as is known."""
_DEAD_LETTERS = {
    Standing.UNREADABLE: UNREADABLE,
    Standing.CONFLICT: CONFLICT,
    Standing.BROKEN: ErrorKind.INTERNAL_ERROR,
}
"""Records that get no outcome of their own, and the reason that their dead letter gives."""

_ENDS = {
    End.TIMED_OUT: (OutcomeKind.TIMED_OUT, ErrorKind.TIME_LIMIT),
    End.OUT_OF_MEMORY: (OutcomeKind.FAILED, ErrorKind.OUT_OF_MEMORY),
    End.CANCELLED: (OutcomeKind.CANCELLED, ErrorKind.CANCELLED),
}


def _cancelled(cancel: Cancel) -> Failure:
    by = f" by {cancel.user}" if cancel.user else ""
    return Failure(ErrorKind.CANCELLED, f"cancelled{by}{': ' + cancel.reason if cancel.reason else ''}")


def _raise(failure: ThreadFailed) -> None:
    raise failure.error


def _select_on(selector: selectors.BaseSelector, watching: set[Any], wanted: set[Any]) -> set[Any]:
    """Select on these lane sockets and no others."""
    for gone in watching - wanted:
        selector.unregister(gone)
    for new in wanted - watching:
        selector.register(new, selectors.EVENT_READ)
    return wanted
