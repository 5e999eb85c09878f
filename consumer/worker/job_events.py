"""Publishes each job's progress events, log lines and metrics; decides nothing.

RETRYING is published at once.  Another state is *held*, and published once it has lasted WORTH_SAYING_S: a job of 10 ms
is not worth six events.  STARTED is never left out: if the training is over before that, it is announced with the
terminal event.  Such a job has one line in the log, a longer one has two.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import structlog

from consumer.events.outgoing import ProgressState, progress_event
from consumer.jobs.job import Job
from consumer.jobs.places import ENDS, Place
from consumer.jobs.registrar import Stored
from consumer.partitions.announcements import Announcement
from consumer.partitions.standstills import Standstill
from consumer.publishing.progress import Progress
from consumer.telemetry.metrics import Metrics
from consumer.trainers.protocol import End, Logged, Reported
from pipeline.jobs import ErrorKind, Failure, Outcome, milliseconds

log = structlog.get_logger(__name__)

WORTH_SAYING_S = 0.05
"""A state that lasts less is not published."""

_CAUSES = {
    End.TIMED_OUT: "timed_out",
    End.OUT_OF_MEMORY: "memory",
    End.CANCELLED: "cancelled",
    End.CRASHED: "crashed",
}


@dataclass(frozen=True, slots=True)
class _Said:
    """A state of a job, since when it is, and when it is to be published (monotonic seconds)."""

    job: Job
    state: ProgressState
    due: float
    at: datetime
    more: Mapping[str, Any]


class JobEvents:
    """Owned by the worker's thread; any thread may read `trained`."""

    def __init__(
        self,
        worker_id: str,
        progress: Progress,
        metrics: Metrics,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._worker_id = worker_id
        self._progress = progress
        self._metrics = metrics
        self._clock = clock
        self._held: dict[str, _Said] = {}
        """By request, in the order in which they are due."""
        self._starts: dict[str, _Said] = {}
        """The same for STARTED, which later states do not replace."""
        self.trained = 0
        """How many models were trained here and are stored."""

    def accepted(self, job: Job) -> None:
        self._hold(job, ProgressState.ACCEPTED, message="taken over from a worker that died" if job.orphaned else "")
        log.debug("request accepted", model=job.request.model_key, algorithm=job.request.algorithm, **job.ids)

    def started(self, job: Job) -> None:
        job.taken_at = time.monotonic()
        waited_s = (self._clock() - job.request.requested_at).total_seconds()
        self._metrics.queue_wait_s.observe(max(0.0, waited_s))
        self._held.pop(job.request_id, None)
        self._starts[job.request_id] = start = self._said(job, ProgressState.STARTED)
        job.numbers.hold_start(milliseconds(start.at))

    def reported(self, job: Job, event: Reported) -> None:
        usage = {"cpu_s": event.cpu_s, "rss_bytes": event.rss_bytes}
        self._hold(job, ProgressState(event.stage), fraction=event.fraction, message=event.message, **usage)

    def logged(self, job: Job, event: Logged) -> None:
        """Log a line of the trainer with the job's ids."""
        getattr(log, event.level, log.warning)(event.message, source="trainer", **job.ids)

    def finished(self, job: Job, kind: str, stages: Mapping[str, float]) -> None:
        """The trainer has reported its result, and its stages in seconds; `kind` is an ErrorKind, empty for a model."""
        job.finished_at = time.monotonic()
        self._metrics.training_duration_s.observe(job.finished_at - job.taken_at)
        for stage, seconds in stages.items():
            self._metrics.stage_duration_s.labels(ProgressState(stage).value).observe(seconds)
        self._held.pop(job.request_id, None)
        if kind == ErrorKind.OUT_OF_MEMORY:
            self._metrics.trainers_replaced.labels(_CAUSES[End.OUT_OF_MEMORY]).inc()

    def registering(self, job: Job) -> None:
        """The registrar stores the result now."""
        self._hold(job, ProgressState.REGISTERING)

    def ending(self, job: Job) -> None:
        """The job's outcome will be stored. STARTED, if it is held, goes out before its next event."""
        self._starts.pop(job.request_id, None)

    def killed(self, job: Job, end: End) -> None:
        self._say_start(job)
        self._metrics.trainers_replaced.labels(_CAUSES[end]).inc()

    def crashed(self, job: Job, crashes: int, why: str) -> None:
        log.warning("trainer crashed", crashes=crashes, why=why, **job.ids)

    def lacks_space(self, job: Job, why: str) -> None:
        self._say_start(job)
        log.info("a training lacked space on the disk", why=why, **job.ids)

    def retrying(self, job: Job, why: str) -> None:
        self._publish(self._said(job, ProgressState.RETRYING, error=Failure(ErrorKind.TRAINER_CRASHED, why)))

    def cancelled(self, job: Job, how: str) -> None:
        """`how` is waiting, stopped or late; late means that the training's result counts."""
        self._metrics.cancels.labels(how).inc()
        log.info("cancel", how=how, place=job.place.name, **job.ids)

    def dead_letter(self, reason: str, why: str, **ids: Any) -> None:
        """A record without an outcome of its own becomes a dead letter."""
        self._metrics.dead_letters.labels(reason).inc()
        log.warning("dead letter", reason=reason, why=why, **ids)

    def refused(self, announcement: Announcement) -> None:
        """The broker refuses a record of this announcement: an event or the dead letter."""
        record = announcement.record
        log.error(
            "announcement refused: the partition's offset waits for it",
            partition=record.partition.number,
            offset=record.offset,
            request_id=announcement.request_id,
            dead_letter=announcement.has_dead_letter,
            remedy="see that the topics are there, may be written, and take records of this size: tensorfleet doctor",
        )

    def held_up(self, standstill: Standstill, state: str, ids: Mapping[str, str]) -> None:
        """One request holds a partition's offset back."""
        log.warning(
            "partition held up by one request",
            partition=standstill.partition.number,
            offset=standstill.offset,
            for_s=round(standstill.for_s),
            finished_ahead=standstill.finished_ahead,
            state=state,
            **ids,
        )

    def taken_over(self, job: Job) -> None:
        log.warning("another worker has taken this request over; its result counts", **job.ids)

    def stored(self, job: Job, stored: Stored) -> None:
        self._held.pop(job.request_id, None)
        outcome, registered = stored.outcome, stored.registered
        self._count(job, outcome)
        if registered is not None:
            log.info("model registered", model=job.request.model_key, version=registered.version, **job.ids)
        elif outcome.error is not None:
            log.warning("request ended", kind=outcome.kind.value, why=outcome.error.message, **job.ids)

    def _count(self, job: Job, outcome: Outcome) -> None:
        metrics, model = self._metrics, outcome.model
        metrics.outcomes.labels(outcome.kind.value).inc()
        if outcome.dead_lettered and outcome.error is not None:
            metrics.dead_letters.labels(outcome.error.kind).inc()
        if model is not None and job.finished_at:
            self.trained += 1
            stored_s = time.monotonic() - job.finished_at
            metrics.stage_duration_s.labels(ProgressState.REGISTERING.value).observe(stored_s)
            metrics.models_trained.labels(model.algorithm).inc()
            if (accuracy := model.metrics.get("test_accuracy")) is not None:
                metrics.model_accuracy.labels(model.model_type).set(accuracy)
                metrics.model_accuracy_distribution.labels(model.model_type).observe(accuracy)

    # Progress -----------------------------------------------------------------------------------------------------

    def wait_s(self, now: float) -> float:
        """Seconds until a held state is to be published; infinite if none is held."""
        return max(0.0, min(_due(self._starts), _due(self._held)) - now)

    def say_held(self, now: float) -> None:
        """Publish the states that have lasted long enough."""
        while _due(self._starts) <= now:
            self._say_start(next(iter(self._starts.values())).job)
        while _due(self._held) <= now:
            self._publish(next(iter(self._held.values())))

    def _hold(self, job: Job, state: ProgressState, **more: Any) -> None:
        held = self._held.get(job.request_id)
        said = self._said(job, state, **more)
        if held is not None and held.state == state:
            self._held[job.request_id] = replace(said, due=held.due)
        elif job.told == state:
            self._publish(said)
        else:
            self._held.pop(job.request_id, None)  # it goes to the end: the first is always the next that is due
            self._held[job.request_id] = said

    def _said(self, job: Job, state: ProgressState, **more: Any) -> _Said:
        return _Said(job, state, time.monotonic() + WORTH_SAYING_S, self._clock(), more)

    def _publish(self, said: _Said) -> None:
        """Publish a state, and before it STARTED if that is held; nothing about a job that is over or not ours."""
        job = said.job
        self._held.pop(job.request_id, None)
        if job.place in ENDS or job.place is Place.PARKED:
            self._starts.pop(job.request_id, None)
            return
        self._say_start(job)
        if (sequence := job.numbers.following()) is not None:
            self._send(job, said.state, sequence, said.at, **said.more)

    def _say_start(self, job: Job) -> None:
        """Publish STARTED if that is held, and not announced with the terminal event."""
        self._starts.pop(job.request_id, None)
        if (start := job.numbers.start()) is not None:
            if job.place is Place.TRAINING:
                log.info("training started", attempt=job.attempt, **job.ids)
            self._send(job, ProgressState.STARTED, *start)

    def _send(self, job: Job, state: ProgressState, sequence: int, at: datetime, **more: Any) -> None:
        job.told = state
        event = progress_event(
            job.request,
            state,
            attempt=job.attempt,
            sequence=sequence,
            worker_id=self._worker_id,
            occurred_at=at,
            **more,
        )
        self._progress.publish(event, job.request.traceparent)


def _due(held: Mapping[str, _Said]) -> float:
    """When the first of these is to be published; infinite if there is none."""
    return next((said.due for said in held.values()), float("inf"))
