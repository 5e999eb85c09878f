"""The main thread: takes requests from step to step, owns all state, and never blocks.

    polled ─▶ claimed ─▶ its model's line ─▶ made ready ─▶ trained ─▶ stored ─▶ announced
    (intake)  (claims)   (jobs)              (readiness)   (lanes)    (registrar) (committer)
              `rulings`                      `trainings`              `job_endings`

Each neighbour in brackets is a thread or process that owns one client; it takes orders and answers with a message in
our inbox. `jobs` knows each request's place and allows only the moves in `places`. A request that cannot or need not be
trained skips steps: unreadable bytes and conflicts become dead letters, a request that has an outcome is announced, a
negative outcome goes straight to the registrar.

Partitions can be revoked at any moment. A job that no trainer has is then released, and the new owner trains it. A job
that is being trained goes on, and is stored in the ledger and the registry; the new owner announces it.

An exception in one request's step ends that request, whichever step it is (`JobEndings.step`).
"""

from __future__ import annotations

import selectors
import time
from collections.abc import Callable, Collection
from contextlib import ExitStack
from datetime import UTC, datetime
from typing import Any

import structlog

from consumer.jobs.cancellation import CancelSeen
from consumer.jobs.claims import Ruled
from consumer.jobs.jobs import Jobs
from consumer.jobs.lease import Beat
from consumer.jobs.places import Place
from consumer.jobs.readiness import Crashed, Prepared
from consumer.jobs.registrar import GroupStored
from consumer.jobs.spools import Spools
from consumer.partitions.assignment import Assignment, Verdict
from consumer.partitions.read_ahead import ReadAhead
from consumer.partitions.records import Membership, PassedOver, Polled, Record
from consumer.publishing.committer import GroupAnswered
from consumer.telemetry.metrics import Metrics
from consumer.threads.batching import Pace
from consumer.threads.inbox import Inbox
from consumer.threads.neighbour import ThreadFailed
from consumer.threads.retrying import Breakers
from consumer.threads.watch import Watch
from consumer.worker.feeding import Limits
from consumer.worker.gauges import Gauges
from consumer.worker.handover import Handover
from consumer.worker.job_endings import JobEndings
from consumer.worker.job_events import JobEvents
from consumer.worker.rulings import Rulings, cancelled
from consumer.worker.shared import Neighbours, Shared
from consumer.worker.trainings import Trainings
from pipeline.jobs import OutcomeKind
from pipeline.ledger import Cancel, Owner
from pipeline.registry.quotas import Quotas

log = structlog.get_logger(__name__)

TICK_S = 0.1
IDLE_TICK_S = 0.5
"""The longest pause while nothing is in hand: whatever comes then wakes the thread, and only gauges wait."""
TURNS_WITHIN_S = 30.0
"""The loop never blocks: a turn that takes longer is reported as stuck."""
TURN_S = 0.05
"""After this long, messages wait for the next turn, so that the lanes are polled in between."""
GATHER_S = 0.003
"""While no lane is free, what arrives in this time is handled in one turn; each lane has its next job already."""
ANNOUNCE_PACE_S = 0.25
SWEEP_S = 3.0
POLLS_WITHIN_S = 60.0
"""A poll loop without a turn for this long is stuck, although the broker still counts us as a member."""


class Worker:
    """Owned by the thread that calls run(). Other threads may call only what stands under "From any thread"."""

    def __init__(
        self,
        me: Owner,
        inbox: Inbox,
        neighbours: Neighbours,
        *,
        job_events: JobEvents,
        breakers: Breakers,
        metrics: Metrics,
        limits: Limits,
        quotas: Quotas,
        watch: Watch,
        spools: Spools,
        dask_scheduler: str | None = None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._inbox = inbox
        self._neighbours = neighbours
        self._lanes = neighbours.lanes
        self._job_events = job_events
        self._breakers = breakers
        self._metrics = metrics
        self._watch = watch
        self._assignment = Assignment(me.boot)
        self._jobs = Jobs(quotas.trainings, neighbours.readiness.put_down)
        shared = Shared(
            me=me,
            jobs=self._jobs,
            assignment=self._assignment,
            neighbours=neighbours,
            job_events=job_events,
            breakers=breakers,
            metrics=metrics,
            limits=limits,
            spools=spools,
            clock=clock,
        )
        self._handover = Handover(self._jobs, self._assignment, neighbours, limits.drain_timeout_s)
        self._endings = JobEndings(shared, self._handover)
        self._rulings = Rulings(shared, self._handover, self._endings)
        self._trainings = Trainings(shared, self._endings, dask_scheduler)
        self._read_ahead = ReadAhead(limits.look_ahead)
        self._gauges = Gauges(self._assignment, self._lanes, metrics, job_events, clock, self._rulings.whereabouts)
        self._announcing = Pace(ANNOUNCE_PACE_S)
        self._sweep_at = 0.0
        self._idle = False
        """Whether nothing is in hand, and nothing is waited for."""
        self._handlers: dict[type, Callable[[Any], None]] = {
            Polled: self._polled,
            Ruled: self._rulings.ruled,
            Prepared: self._trainings.prepared,
            Crashed: self._trainings.counted_crash,
            GroupStored: self._endings.group_stored,
            GroupAnswered: self._group_answered,
            Beat: self._beat,
            CancelSeen: lambda seen: self._cancel(seen.request_id, seen.cancel),
            ThreadFailed: _raise,
        }

    # From any thread ----------------------------------------------------------------------------------------------

    def drain(self) -> None:
        """Start nothing new, finish running trainings, leave the group. A second call changes nothing."""
        self._handover.ask()
        self._inbox.wake()

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
        """Work until drained. Raises the error that ended a neighbour."""
        turn = self._watch.turn("worker", TURNS_WITHIN_S)
        with selectors.DefaultSelector() as selector, ExitStack() as stack:
            stack.callback(turn.rest)
            selector.register(self._inbox, selectors.EVENT_READ)
            watching: set[Any] = set()
            while not self._handover.done(time.monotonic(), self._rulings.unclaimed):
                turn.rest()
                watching = _select_on(selector, watching, set(self._lanes.descriptors()))
                selector.select(self._pause_s())
                if self._lanes.saturated:
                    time.sleep(GATHER_S)
                turn.begin()
                self._turn()

    def _turn(self) -> None:
        now = time.monotonic()
        for message in self._inbox.take(TURN_S):
            self._handlers[type(message)](message)
        self._trainings.poll()
        self._drain(now)
        self._rulings.look_again(now)
        self._endings.store_again(now)
        self._trainings.start()
        self._throttle()
        self._endings.send(now)
        self._job_events.say_held(now)
        self._announce(now)
        self._gauges.observe(now, self._jobs)
        self._check_intake(now)

    def _pause_s(self) -> float:
        now = time.monotonic()
        announcing_s = self._announcing.wait_s(now, self._lanes.saturated) if self._assignment.pending else IDLE_TICK_S
        tick_s = IDLE_TICK_S if self._idle else TICK_S
        return min(tick_s, self._endings.wait_s(now), self._job_events.wait_s(now), announcing_s)

    # Records come in ----------------------------------------------------------------------------------------------

    def _polled(self, polled: Polled) -> None:
        gone = self._assignment.update(polled)
        if gone:
            self._rulings.let_go(gone)
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
            self._rulings.claim(work)

    def _throttle(self) -> None:
        """Read only as fast as requests are claimed and finished, and nothing while a service is away."""
        intake, read_ahead = self._neighbours.intake, self._read_ahead
        halted = self._handover.draining or self._breakers.any_open()
        reading = read_ahead.reading(self._assignment, self._rulings.unclaimed, halted=halted)
        intake.read(reading)
        self._idle = reading.idle and not len(self._jobs)
        if not read_ahead.full:
            for partition in self._assignment.rewind():
                intake.rewind(*partition)
        self._metrics.intake_paused.set(halted or read_ahead.full)

    def _check_intake(self, now: float) -> None:
        turned_at = self._neighbours.intake.turned_at
        if not self._handover.left and now - turned_at > POLLS_WITHIN_S:
            raise RuntimeError(f"the poll loop has stood still for {now - turned_at:.0f} s")

    # Outcomes go out ----------------------------------------------------------------------------------------------

    def _announce(self, now: float) -> None:
        """Submit stored outcomes to the committer, one group at a time."""
        if not self._announcing.wait_s(now, self._lanes.saturated):
            group = self._assignment.next_group(now)
            if group is not None:
                self._neighbours.committer.submit(group)
                self._announcing.went(now)

    def _group_answered(self, answer: GroupAnswered) -> None:
        now = time.monotonic()
        if answer.verdict is Verdict.REFUSED and len(answer.group.announcements) == 1:
            self._job_events.refused(answer.group.announcements[0])
        for announcement in self._assignment.apply(answer.group, answer.verdict, now):
            if announcement.outcome is not None:
                log.debug("announced", kind=announcement.outcome.kind.value, request_id=announcement.outcome.request_id)

    # Cancel -------------------------------------------------------------------------------------------------------

    def _beat(self, beat: Beat) -> None:
        for request_id, cancel in beat.cancels.items():
            self._cancel(request_id, cancel)
        now = time.monotonic()
        if now >= self._sweep_at:
            self._sweep_at = now + SWEEP_S
            self._neighbours.claims.sweep(self._jobs.ids())

    def _cancel(self, request_id: str, cancel: Cancel) -> None:
        self._endings.step("cancel", request_id, self._stop, request_id, cancel)

    def _stop(self, request_id: str, cancel: Cancel) -> None:
        """Stop the request at whatever place it is; from STORING on its result counts."""
        job = self._jobs.get(request_id)
        if job is None or job.place is Place.PARKED or job.cancelled:
            return
        if job.place is Place.STORING:
            self._job_events.cancelled(job, "late")
            return
        failure = cancelled(cancel)
        job.cancelled = failure.message
        if self._endings.kill_trainer(job, failure.message):
            self._job_events.cancelled(job, "stopped")
        elif job.place is Place.TRAINING:  # its training has ended, and the event is on its way
            self._job_events.cancelled(job, "late")
        else:
            self._job_events.cancelled(job, "waiting")
            self._endings.end(job, OutcomeKind.CANCELLED, failure)

    # The worker goes ----------------------------------------------------------------------------------------------

    def _drain(self, now: float) -> None:
        self._handover.drain(now)
        if self._handover.draining:
            self._endings.release_unstored()
        if self._handover.times_out(now):
            self._endings.send_all()
            self._handover.give_up()


def _raise(failure: ThreadFailed) -> None:
    raise failure.error


def _select_on(selector: selectors.BaseSelector, watching: set[Any], wanted: set[Any]) -> set[Any]:
    """Select on these lane sockets and no others."""
    for gone in watching - wanted:
        selector.unregister(gone)
    for new in wanted - watching:
        selector.register(new, selectors.EVENT_READ)
    return wanted
