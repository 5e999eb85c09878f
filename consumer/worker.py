"""The way of a request through the worker, top to bottom, in one thread that owns all state and waits for nothing.

    polled ─▶ claimed ─▶ its model's line ─▶ dataset ready ─▶ lane ─▶ trained ─▶ stored ─▶ announced
    (intake)  (claims)   (dispatch)          (preparation)    (lanes)  (child)    (registrar) (committer)

Each neighbour in brackets is a thread or process with one client of its own; it gets orders and answers with a
message in our inbox. A request that cannot or need not be trained leaves the way early: unreadable bytes and
conflicts become dead letters, what already has an outcome is announced, negative outcomes go straight to the
registrar.

What we own can go at any moment. A job that is not in a trainer's hands is then released, for the new owner to train;
one that is goes on without its record, ends in the ledger and the registry, and is announced by the new owner.
"""

from __future__ import annotations

import selectors
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import structlog

from consumer import disk, failpoints
from consumer.announcements import Announcement
from consumer.assignment import Assignment
from consumer.cancellation import CancelSeen
from consumer.checkpoints import Checkpoints
from consumer.chronicle import Chronicle
from consumer.claims import Asked, Claims, Ruled, Ruling, Standing
from consumer.committer import Committer, GroupSettled
from consumer.dead_letters import CONFLICT, UNREADABLE
from consumer.dispatch import Dispatch
from consumer.failures import ThreadFailed
from consumer.flow import Flow
from consumer.heartbeat import Beat
from consumer.inbox import Inbox
from consumer.intake import Intake, Membership, Partition, PassedOver, Polled, Record
from consumer.job import SUSPECTS, Job, State
from consumer.metrics import Metrics
from consumer.observer import Observer
from consumer.pace import Gathering, Pace
from consumer.preparation import Crashed, Preparation, Prepared
from consumer.registrar import GROUP_LIMIT, Found, GroupStored, Item, Registrar, Result, Reused, Stored
from consumer.trainers.lanes import Lanes
from consumer.trainers.protocol import (
    JOB_LIMIT_BYTES,
    End,
    Finished,
    Killed,
    LaneEvent,
    Logged,
    Reported,
    Returned,
    Spec,
    Taken,
    Work,
)
from consumer.transactions import Verdict
from consumer.waiting import Breakers
from pipeline.algorithms import framework_of
from pipeline.jobs import ErrorKind, Failure, Outcome, OutcomeKind, RegisteredModel, milliseconds
from pipeline.ledger import Owner
from pipeline.quotas import Quotas

log = structlog.get_logger(__name__)

TICK_S = 0.1
TURN_S = 0.05
"""Messages are left for the next turn after this long, so that the lanes are looked at in between."""
CLAIM_BATCH = 100
STORE_PACE_S = 0.1
ANNOUNCE_PACE_S = 0.25
LOOK_AGAIN_S = 1.0
SWEEP_S = 3.0
PREPARING_LIMIT = 16
"""Requests whose datasets are fetched at once; those at hand do not wait behind them."""
SUSPECT_FROM = 2
"""Workers that have died under a request that is a suspect: the first says little, since it counts for all it had."""
STUCK_S = 60.0
"""A thread that has not gone round for this long is stuck."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What bounds a request or the worker, from the settings. Times in seconds, sizes in bytes."""

    training_time_s: float
    training_memory_bytes: int
    attempts: int
    worker_losses: int
    look_ahead: int
    drain_timeout_s: float


class Worker:
    """Owned by the thread that calls run(); only what is named below may be called from others."""

    def __init__(
        self,
        me: Owner,
        inbox: Inbox,
        *,
        intake: Intake,
        claims: Claims,
        preparation: Preparation,
        lanes: Lanes,
        registrar: Registrar,
        committer: Committer,
        checkpoints: Checkpoints,
        chronicle: Chronicle,
        breakers: Breakers,
        metrics: Metrics,
        limits: Limits,
        quotas: Quotas,
        spool: Path,
        dask_scheduler: str | None = None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._me = me
        self._inbox = inbox
        self._intake = intake
        self._claims = claims
        self._preparation = preparation
        self._lanes = lanes
        self._registrar = registrar
        self._committer = committer
        self._checkpoints = checkpoints
        self._chronicle = chronicle
        self._breakers = breakers
        self._metrics = metrics
        self._limits = limits
        self._quotas = quotas
        self._spool = spool
        self._dask_scheduler = dask_scheduler
        self._clock = clock
        self._assignment = Assignment(me.boot)
        self._dispatch: Dispatch[Job] = Dispatch(self._at_once)
        self._jobs: dict[str, Job] = {}
        self._ready: deque[Job] = deque()
        self._preparing = 0
        self._fed = 0
        self._duplicates: dict[Record, tuple[float, Asked]] = {}
        self._unclaimed = 0
        self._flow = Flow(limits.look_ahead)
        self._observer = Observer(self._assignment, lanes, metrics, chronicle, clock, self._whereabouts)
        self._storing: Gathering[Item] = Gathering(Pace(STORE_PACE_S), GROUP_LIMIT)
        self._announcing = Pace(ANNOUNCE_PACE_S)
        self._look_at = self._sweep_at = 0.0
        self._drain_by: float | None = None
        self._drain_asked = threading.Event()
        self._left = False
        self.turned_at = time.monotonic()
        self._handlers: dict[type, Callable[[Any], None]] = {
            Polled: self._polled,
            Ruled: self._ruled,
            Prepared: self._prepared,
            Crashed: self._counted_crash,
            GroupStored: self._group_stored,
            GroupSettled: self._settled,
            Beat: self._beat,
            CancelSeen: self._cancel_seen,
            ThreadFailed: _raise,
        }

    # From any thread ----------------------------------------------------------------------------------------------

    def drain(self) -> None:
        """Start no more, finish what runs, leave. A second call changes nothing."""
        self._drain_asked.set()

    def watched(self) -> Collection[str]:
        """The requests whose cancel flags the heartbeat reads."""
        return tuple(self._jobs)

    @property
    def active(self) -> int:
        return self._lanes.busy

    @property
    def membership(self) -> Membership:
        return self._assignment.membership

    @property
    def draining(self) -> bool:
        return self._drain_asked.is_set()

    # The loop -----------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Work until drained. Raises whatever a neighbour could not go on from."""
        with selectors.DefaultSelector() as selector:
            selector.register(self._inbox, selectors.EVENT_READ)
            watching: set[Any] = set()
            while not self._done():
                watching = _watch(selector, watching, set(self._lanes.descriptors()))
                selector.select(self._pause_s())
                self._turn()

    def _turn(self) -> None:
        now = time.monotonic()
        for message in self._inbox.take(TURN_S):
            self._handlers[type(message)](message)
        for event in self._lanes.poll():
            self._lane_event(event)
        if self._drain_asked.is_set():
            self._drain_further(now)
        self._look_again(now)
        self._start_jobs()
        self._throttle()
        self._send_groups(now)
        self._observer.observe(now, self._jobs.values())
        self._check_intake(now)
        self.turned_at = now

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

    # 1. A batch comes in ------------------------------------------------------------------------------------------

    def _polled(self, polled: Polled) -> None:
        gone = self._assignment.update(polled)
        if gone:
            self._let_go(gone)
        work: list[Record] = []
        for record in polled.records:
            if isinstance(record, PassedOver):
                self._assignment.pass_over(record)
                continue
            self._flow.received += 1
            if self._assignment.deliver(record):
                work.append(record)
        if self._drain_by is None:
            self._unclaimed += len(work)
            for first in range(0, len(work), CLAIM_BATCH):
                self._claims.claim(work[first : first + CLAIM_BATCH])

    # 2. It is claimed ---------------------------------------------------------------------------------------------

    def _ruled(self, ruled: Ruled) -> None:
        for ruling in ruled.rulings:
            self._follow(ruling)

    def _follow(self, ruling: Ruling) -> None:
        record, asked = ruling.record, ruling.asked
        self._unclaimed -= 1
        if not self._assignment.owns(record) or self._drain_by is not None:
            self._decline(ruling)
        elif asked is None:
            self._chronicle.buried(UNREADABLE, ruling.message, partition=record.partition.number, offset=record.offset)
            self._bury(record, UNREADABLE, ruling.message)
        elif ruling.standing in (Standing.CONFLICT, Standing.DONE, Standing.DUPLICATE):
            self._not_its_home(ruling, asked)
        else:
            self._place(ruling, asked)

    def _not_its_home(self, ruling: Ruling, asked: Asked) -> None:
        """Another record is the request's home. For a moment this one may have been thought to be it."""
        record = ruling.record
        job = self._jobs.get(asked.request.request_id)
        if job is not None and job.record is record and job.state is State.PARKED:
            self._forget(job)
        if ruling.standing is Standing.CONFLICT:
            self._chronicle.buried(CONFLICT, ruling.message, request_id=asked.request.request_id)
            self._bury(record, CONFLICT, ruling.message)
        elif ruling.standing is Standing.DONE:
            self._duplicates.pop(record, None)
            self._assignment.announce(Announcement(record))
        else:
            self._duplicates[record] = (time.monotonic() + LOOK_AGAIN_S, asked)

    def _bury(self, record: Record, reason: str, message: str) -> None:
        self._duplicates.pop(record, None)
        self._assignment.announce(Announcement(record, dead_letter=(reason, message)))

    def _decline(self, ruling: Ruling) -> None:
        """The record went while it was being claimed: its new owner trains it, unless a trainer here has it."""
        job = ruling.asked and self._jobs.get(ruling.asked.request.request_id)
        if ruling.asked is not None and ruling.standing in (Standing.MINE, Standing.FOUND) and not job:
            self._claims.release((ruling.asked.request.request_id,))

    def _place(self, ruling: Ruling, asked: Asked) -> None:
        """A request whose home this record is takes its place in its model's line."""
        job = self._jobs.get(asked.request.request_id)
        if job is None:
            job = Job(asked.request, asked, ruling.record, State.PARKED)
            self._jobs[job.request_id] = job
            self._dispatch.join(job, waiting=False)
        elif job.record is None:
            job.stand_in_line(ruling.record)
            self._dispatch.join(job, waiting=False)
        if job.state is not State.PARKED:
            return
        if ruling.standing is Standing.SETTLED and ruling.outcome is not None:
            job.state = State.STORING
            self._storing.add(Found(ruling.outcome))
        elif ruling.standing is Standing.MINE or (ruling.standing is Standing.FOUND and job.claim is not None):
            assert ruling.claim is not None
            job.claim = ruling.claim
            self._adopt(job)
        else:
            # FOUND without a job of ours: it may have ended here a moment ago, so the ledger is asked once more.
            job.claim = ruling.claim
            job.look_at = 0.0 if ruling.standing is Standing.FOUND else time.monotonic() + LOOK_AGAIN_S

    def _adopt(self, job: Job) -> None:
        """It is ours: what does its claim say?"""
        claim = job.claim
        assert claim is not None
        if claim.closing is not None:
            job.state = State.STORING
            self._storing.add(claim.closing)
        elif job.asked.problem is not None:
            self._end(job, OutcomeKind.REJECTED, ErrorKind.INVALID_REQUEST, job.asked.problem)
        elif claim.cancel is not None:
            self._end(
                job, OutcomeKind.CANCELLED, ErrorKind.CANCELLED, _cancel_text(claim.cancel.user, claim.cancel.reason)
            )
        elif claim.worker_losses >= self._limits.worker_losses:
            message = f"{claim.worker_losses} workers died while this request was in their hands"
            self._end(job, OutcomeKind.FAILED, ErrorKind.WORKER_LOST, message)
        else:
            job.suspect = claim.worker_losses >= min(SUSPECT_FROM, self._limits.worker_losses - 1) > 0
            job.state = State.WAITING
            self._chronicle.accepted(job)
            self._dispatch.wait(job)

    def _look_again(self, now: float) -> None:
        """At what others have in hand, and at duplicates whose first is not finished."""
        if now < self._look_at or self._drain_by is not None:
            return
        self._look_at = now + TICK_S
        due = [job for job in self._jobs.values() if job.state is State.PARKED and job.look_at <= now]
        for job in due:
            job.look_at = float("inf")
        again = [job.asked for job in due]
        for record, (at, asked) in list(self._duplicates.items()):
            if at <= now:
                self._duplicates[record] = (float("inf"), asked)
                again.append(asked)
        if again:
            self._unclaimed += len(again)
            self._claims.look_again(again)

    # 3. Its turn comes --------------------------------------------------------------------------------------------

    def _at_once(self, project: str) -> int | None:
        return 1 if project == SUSPECTS else self._quotas.trainings(project)

    def _start_jobs(self) -> None:
        if self._breakers.is_open(disk.SERVICE):
            return
        while (
            len(self._ready) < self._lanes.room()
            and self._preparing < PREPARING_LIMIT
            and (job := self._dispatch.take()) is not None
        ):
            job.state = State.PREPARING
            job.dataset = self._preparation.at_once(job)
            if job.dataset is not None:
                self._make_ready(job)
            else:
                self._preparing += 1
                self._preparation.submit(job)
        while self._ready and self._lanes.room():
            self._feed(self._ready.popleft())

    def _prepared(self, prepared: Prepared) -> None:
        self._preparing -= 1
        job = prepared.job
        if job.state is not State.PREPARING or self._jobs.get(job.request_id) is not job:
            if prepared.dataset is not None:
                self._preparation.done_with(prepared.dataset)
            disk.remove(prepared.checkpoint)
            return
        if prepared.lost:
            self._park(job)
        elif prepared.problem is not None:
            self._end(job, OutcomeKind.REJECTED, prepared.error, prepared.problem)
        else:
            job.dataset, job.checkpoint = prepared.dataset, prepared.checkpoint
            if prepared.reused is not None:
                self._reuse(job, prepared.reused)
            else:
                self._make_ready(job)

    def _reuse(self, job: Job, source: RegisteredModel) -> None:
        """An equal training's result stands for this one's."""
        disk.remove(job.checkpoint)
        self._put_down_dataset(job)
        job.state = State.STORING
        job.sequence += 1
        now = milliseconds(self._clock())
        self._storing.add(Reused(job.request, source, now, self._me.worker_id, job.attempt, job.sequence))

    def _make_ready(self, job: Job) -> None:
        job.state = State.READY
        self._ready.append(job)

    def _feed(self, job: Job) -> None:
        spec = self._spec(job)
        if len(spec.payload) > JOB_LIMIT_BYTES:
            message = f"the request has {len(spec.payload):,} bytes as JSON; at most {JOB_LIMIT_BYTES:,} can be trained"
            self._end(job, OutcomeKind.REJECTED, ErrorKind.INVALID_REQUEST, message)
            return
        job.state = State.FED
        self._lanes.feed(spec)

    def _spec(self, job: Job) -> Spec:
        request, dataset = job.request, job.dataset
        assert dataset is not None
        self._fed += 1
        job.recipe = self._preparation.recipe(request, dataset)
        job.spool = self._spool / str(self._fed)
        if job.checkpoint is not None:
            job.checkpoint.replace(job.spool)
            job.checkpoint = None
        limits = self._limits
        memory = min(request.max_memory_bytes or limits.training_memory_bytes, limits.training_memory_bytes)
        payload = Work(request, dataset, job.spool, memory, self._dask_scheduler).to_datagram()
        time_s = request.max_training_time_s or limits.training_time_s
        return Spec(job.request_id, payload, time_s, memory, framework_of(request.algorithm))

    # 4. It is trained ---------------------------------------------------------------------------------------------

    def _lane_event(self, event: LaneEvent) -> None:
        job = self._jobs.get(event.job_id)
        if job is None:
            return
        match event:
            case Taken():
                self._taken(job)
            case Reported():
                self._chronicle.reported(job, event)
                failpoints.reach("while_training")
            case Logged():
                self._chronicle.logged(job, event)
            case Returned():
                self._start_over(job)
            case Finished():
                self._finished(job, event)
            case Killed():
                self._killed(job, event)

    def _taken(self, job: Job) -> None:
        job.state = State.TRAINING
        self._chronicle.started(job)
        if job.keeps_checkpoints and job.spool is not None:
            self._checkpoints.keep(job.request_id, job.spool)
        if job.cancelled:
            self._lanes.kill(job.request_id, End.CANCELLED, job.cancelled)

    def _finished(self, job: Job, event: Finished) -> None:
        if event.verdict == "trained":
            self._chronicle.finished(job, "")
            self._put_down_dataset(job)
            job.state = State.STORING
            job.sequence += 1
            now = milliseconds(self._clock())
            assert job.spool is not None
            by = (self._me.worker_id, job.attempt, job.sequence)
            self._storing.add(Result(job.request, job.spool, now, *by, job.recipe))
            return
        if event.verdict == "full":
            self._lacks_space(job, event.message)
            return
        rejected = event.verdict == "rejected"
        error = ErrorKind.INVALID_REQUEST if rejected else ErrorKind(event.kind)
        self._chronicle.finished(job, error)
        self._end(job, OutcomeKind.REJECTED if rejected else OutcomeKind.FAILED, error, event.message)

    def _lacks_space(self, job: Job, message: str) -> None:
        """A full disk is not the request's fault: it is prepared again once there is more room than it has taken.

        If there is as much as soon as its files are gone, it has filled the disk itself, and its attempts are counted.
        """
        assert job.spool is not None
        self._chronicle.lacks_space(job, message)
        wanted_bytes = 2 * disk.size_bytes(job.spool)
        job.remove_files()
        if self._given_up(job):
            return
        job.state = State.PREPARING
        if disk.has_room(self._spool, wanted_bytes):
            self._preparation.count_crash(job, message)
            return
        self._put_down_dataset(job)
        self._preparing += 1
        self._preparation.submit(job, wanted_bytes)

    def _put_down_dataset(self, job: Job) -> None:
        if job.dataset is not None:
            self._preparation.done_with(job.dataset)
            job.dataset = None

    def _killed(self, job: Job, event: Killed) -> None:
        self._chronicle.killed(event.end)
        if event.end is End.CRASHED:
            job.state = State.PREPARING
            self._preparation.count_crash(job, event.message)
            return
        kind, error = _ENDS[event.end]
        self._end(job, kind, error, event.message)

    def _counted_crash(self, crashed: Crashed) -> None:
        """A trainer that dies is tried again, but not for ever."""
        job = crashed.job
        if job.state is not State.PREPARING or self._jobs.get(job.request_id) is not job:
            return
        if job.claim is None or crashed.count is None:
            self._park(job)
            return
        self._chronicle.crashed(job, crashed.count, crashed.message)
        if crashed.count >= self._limits.attempts:
            message = f"{crashed.message}; that was attempt {crashed.count} of {self._limits.attempts} (MAX_ATTEMPTS)"
            self._end(job, OutcomeKind.FAILED, ErrorKind.TRAINER_CRASHED, message)
            return
        self._chronicle.retrying(job, crashed.message)
        job.claim = replace(job.claim, trainer_crashes=crashed.count)
        self._start_over(job)

    def _start_over(self, job: Job) -> None:
        """It was fed, and comes back untrained."""
        job.keep_checkpoint()
        if not self._given_up(job):
            self._make_ready(job)

    def _given_up(self, job: Job) -> bool:
        """Whether a job that comes back untrained is not to be trained here."""
        if job.record is None or self._drain_by is not None:
            self._forget(job)
            self._claims.release((job.request_id,))
        elif job.cancelled:
            self._end(job, OutcomeKind.CANCELLED, ErrorKind.CANCELLED, job.cancelled)
        else:
            return False
        return True

    def _end(self, job: Job, kind: OutcomeKind, error: ErrorKind, message: str) -> None:
        """Decide on a negative outcome; it counts once the ledger has taken it."""
        if job.state is State.READY:
            self._ready.remove(job)
        job.remove_files()
        self._put_down_dataset(job)
        job.state = State.STORING
        job.sequence += 1
        self._storing.add(
            Outcome(
                request_id=job.request_id,
                kind=kind,
                at=milliseconds(self._clock()),
                correlation_id=job.request.correlation_id,
                project=job.request.project,
                model_name=job.request.model_name,
                worker_id=self._me.worker_id,
                attempt=job.attempt,
                sequence=job.sequence,
                error=Failure(error, message),
                traceparent=job.request.traceparent,
            )
        )

    # 5. It is stored ----------------------------------------------------------------------------------------------

    def _group_stored(self, group: GroupStored) -> None:
        self._storing.answered()
        for stored in group.stored:
            self._stored(stored)
        for request_id in group.refused:
            self._refused(request_id)

    def _stored(self, stored: Stored) -> None:
        outcome = stored.outcome
        job = self._jobs.pop(outcome.request_id, None)
        if job is None:
            return
        job.state = State.STORED
        if job.keeps_checkpoints:
            self._checkpoints.drop(job.request_id)
        if job.record is not None:
            self._dispatch.leave(job)
            self._assignment.announce(Announcement(job.record, outcome, stored.registered))
        self._chronicle.stored(job, stored)

    def _refused(self, request_id: str) -> None:
        job = self._jobs.get(request_id)
        if job is not None:
            self._chronicle.taken_over(job)
            self._park(job)

    def _park(self, job: Job) -> None:
        """Whatever we know of it is out of date: the ledger is asked."""
        job.state = State.PARKED
        job.claim = None
        self._put_down_dataset(job)
        job.remove_files()
        job.look_at = time.monotonic() + LOOK_AGAIN_S
        if job.record is None:
            self._forget(job)

    # 6. It is announced -------------------------------------------------------------------------------------------

    def _settled(self, settled: GroupSettled) -> None:
        now = time.monotonic()
        if settled.verdict is Verdict.REFUSED and len(settled.group.announcements) == 1:
            self._chronicle.refused(settled.group.announcements[0])
        for announcement in self._assignment.settle(settled.group, settled.verdict, now):
            if announcement.outcome is not None:
                log.debug("announced", kind=announcement.outcome.kind.value, request_id=announcement.outcome.request_id)

    # Cancel -------------------------------------------------------------------------------------------------------

    def _beat(self, beat: Beat) -> None:
        for request_id, cancel in beat.cancels.items():
            self._cancel(request_id, _cancel_text(cancel.user, cancel.reason))
        now = time.monotonic()
        if now >= self._sweep_at:
            self._sweep_at = now + SWEEP_S
            self._claims.sweep(tuple(self._jobs))

    def _cancel_seen(self, seen: CancelSeen) -> None:
        self._cancel(seen.request_id, _cancel_text(seen.cancel.user, seen.cancel.reason))

    def _cancel(self, request_id: str, message: str) -> None:
        """Stop it wherever it is; from STORING on the result counts."""
        job = self._jobs.get(request_id)
        if job is None or job.state is State.PARKED or job.cancelled:
            return
        if job.state in (State.STORING, State.STORED):
            self._chronicle.cancelled(job, "late")
            return
        if job.state is State.FED and not self._lanes.take_back(request_id):
            job.state = State.TRAINING
        job.cancelled = message
        self._chronicle.cancelled(job, "stopped" if job.state is State.TRAINING else "waiting")
        if job.state is State.TRAINING:
            self._lanes.kill(request_id, End.CANCELLED, message)
            return
        if job.state is State.WAITING:
            self._dispatch.hold(job)
        self._end(job, OutcomeKind.CANCELLED, ErrorKind.CANCELLED, message)

    # Partitions go ------------------------------------------------------------------------------------------------

    def _let_go(self, gone: set[tuple[Partition, int]]) -> None:
        """Release what no trainer has; the rest goes on without its record."""
        self._duplicates = {r: due for r, due in self._duplicates.items() if (r.partition, r.epoch) not in gone}
        released = []
        for job in list(self._jobs.values()):
            if job.record is None or (job.record.partition, job.record.epoch) not in gone:
                continue
            self._dispatch.leave(job)
            job.record = None
            if self._hand_back(job):
                released.append(job.request_id)
        if released:
            self._claims.release(released)

    def _hand_back(self, job: Job) -> bool:
        """Give a job up if no trainer has it; True if its claim is to be released."""
        if job.state is State.FED and not self._lanes.take_back(job.request_id):
            job.state = State.TRAINING
        if job.state in (State.TRAINING, State.STORING, State.STORED):
            return False
        if job.state is State.READY:
            self._ready.remove(job)
        self._put_down_dataset(job)
        job.remove_files()
        del self._jobs[job.request_id]
        job.state = State.PARKED
        return job.claim is not None

    def _forget(self, job: Job) -> None:
        job.state = State.PARKED
        self._jobs.pop(job.request_id, None)
        self._put_down_dataset(job)
        disk.remove(job.checkpoint)
        if job.record is not None:
            self._dispatch.leave(job)

    # Draining -----------------------------------------------------------------------------------------------------

    def _drain_further(self, now: float) -> None:
        if self._drain_by is None:
            self._drain_by = now + self._limits.drain_timeout_s
            failpoints.reach("while_draining")
            log.info("draining", running=self._lanes.busy, waiting=len(self._jobs) - self._lanes.busy)
            released = []
            for job in list(self._jobs.values()):
                if job.state in (State.TRAINING, State.STORING, State.STORED):
                    continue
                record = job.record
                if self._hand_back(job):
                    released.append(job.request_id)
                if record is not None and job.request_id not in self._jobs:
                    self._dispatch.leave(job)
            if released:
                self._claims.release(released)
            self._preparation.ask_if_alone(self._alone)
        if now >= self._drain_by and self._jobs:
            for results in self._storing.rest():
                self._registrar.submit(results)
            log.warning("drain timeout: trainings are given up", requests=sorted(self._jobs)[:20])
            self._claims.release(tuple(self._jobs))
            self._jobs.clear()

    def _alone(self, alone: bool) -> None:
        """Called by the preparation's thread: somebody else can have our partitions now, so leave at once."""
        if not alone:
            self._left = True
            self._intake.leave()

    def _done(self) -> bool:
        """What is not announced by the end of the drain is announced by the partitions' next owner."""
        if self._drain_by is None or self._jobs:
            return False
        if time.monotonic() >= self._drain_by:
            return True
        # What is still being claimed is to be released, else it counts as lost with us.
        return not self._unclaimed and (self._left or self._assignment.idle)

    # Flow ---------------------------------------------------------------------------------------------------------

    def _throttle(self) -> None:
        """Read on only as fast as requests can be claimed and finished, and not while a service is away."""
        halted = self._drain_by is not None or self._breakers.any_open()
        self._intake.read(self._flow.reading(self._assignment, self._unclaimed, halted=halted))
        if not self._flow.full:
            for partition in self._assignment.rewind():
                self._intake.rewind(*partition)
        self._metrics.intake_paused.set(halted or self._flow.full)

    def _check_intake(self, now: float) -> None:
        if now - self._intake.turned_at > STUCK_S:
            raise RuntimeError(f"the poll loop has stood still for {now - self._intake.turned_at:.0f} s")

    def _whereabouts(self, partition: Partition, offset: int) -> tuple[str, Mapping[str, str]]:
        """How far the request of an unfinished record has come, and its ids where it has any."""
        place = (partition, offset)
        for job in self._jobs.values():
            if job.record is not None and (job.record.partition, job.record.offset) == place:
                return job.state.name, job.ids
        for record, (_, asked) in self._duplicates.items():
            if (record.partition, record.offset) == place:
                return "DUPLICATE", {"request_id": asked.request.request_id}
        return "PASSED_OVER" if self._assignment.passes(*place) else "TO_BE_ANNOUNCED", {}


_ENDS = {
    End.TIMED_OUT: (OutcomeKind.TIMED_OUT, ErrorKind.TIME_LIMIT),
    End.OUT_OF_MEMORY: (OutcomeKind.FAILED, ErrorKind.OUT_OF_MEMORY),
    End.CANCELLED: (OutcomeKind.CANCELLED, ErrorKind.CANCELLED),
}


def _cancel_text(user: str, reason: str) -> str:
    return f"cancelled{' by ' + user if user else ''}{': ' + reason if reason else ''}"


def _raise(failure: ThreadFailed) -> None:
    raise failure.error


def _watch(selector: selectors.BaseSelector, watching: set[Any], wanted: set[Any]) -> set[Any]:
    """Select on these lane sockets and no others."""
    for gone in watching - wanted:
        selector.unregister(gone)
    for new in wanted - watching:
        selector.register(new, selectors.EVENT_READ)
    return wanted
