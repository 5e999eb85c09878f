"""Takes a job through training: prepares it, feeds it to a lane, and handles how its trainer ended."""

from __future__ import annotations

from dataclasses import replace

from consumer import failpoints
from consumer.jobs.job import Job
from consumer.jobs.outcomes import Result, Reused
from consumer.jobs.places import Place
from consumer.jobs.readiness import Crashed, Prepared
from consumer.system import disk
from consumer.threads.containment import contained
from consumer.trainers.protocol import Done, End, Killed, LaneEvent, Logged, Reported, Returned, Taken
from consumer.worker.feeding import spec_of
from consumer.worker.job_endings import JobEndings
from consumer.worker.shared import Shared
from pipeline.errors import RejectedError
from pipeline.jobs import ErrorKind, Failure, OutcomeKind


class Trainings:
    """Owned by the worker's thread."""

    def __init__(self, shared: Shared, endings: JobEndings, dask_scheduler: str | None) -> None:
        self._shared = shared
        self._jobs = shared.jobs
        self._lanes = shared.neighbours.lanes
        self._readiness = shared.neighbours.readiness
        self._checkpoints = shared.neighbours.checkpoints
        self._job_events = shared.job_events
        self._endings = endings
        self._dask_scheduler = dask_scheduler

    # Before -------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start as many jobs as the lanes have room for, in their turn; none while the disk is full."""
        if self._shared.breakers.is_open(disk.SERVICE):
            return
        jobs = self._jobs
        while (
            jobs.count(Place.READY) < self._lanes.room()
            and self._readiness.has_room
            and (job := jobs.take()) is not None
        ):
            self._endings.step("prepare", job.request_id, self._prepare, job)
        while self._lanes.room() and (ready := jobs.first(Place.READY)) is not None:
            self._endings.step("feed", ready.request_id, self._feed, ready)

    def _prepare(self, job: Job) -> None:
        job.dataset = self._readiness.at_once(job)
        if job.dataset is not None:
            self._jobs.move(job, Place.READY)
        else:
            self._readiness.prepare(job)

    def prepared(self, answer: Prepared) -> None:
        """Handle the answer of readiness; it is out of date if the job has moved since."""
        if answer.job.moves == answer.moves:
            self._endings.step("prepare", answer.job.request_id, self._go_on_prepared, answer.job, answer)
            return
        with contained(self._shared.metrics, "prepare", **answer.job.ids):
            if answer.dataset is not None:
                self._readiness.put_down(answer.dataset)
            disk.remove(answer.checkpoint)

    def _go_on_prepared(self, job: Job, answer: Prepared) -> None:
        job.dataset, job.checkpoint = answer.dataset or job.dataset, answer.checkpoint or job.checkpoint
        if answer.lost:
            self._endings.park(job)
        elif answer.failure is not None:
            self._endings.refuse(job, answer.failure)
        elif answer.reused is not None:  # the result of an equal training
            self._endings.store(job, Reused(job.request, self._endings.ending(job), answer.reused))
        else:
            self._jobs.move(job, Place.READY)

    def _feed(self, job: Job) -> None:
        spool = self._shared.spools.take(watched=job.keeps_checkpoints)
        try:
            spec = spec_of(job, spool, self._shared.limits, self._dask_scheduler)
        except RejectedError as error:
            self._endings.refuse(job, Failure(ErrorKind.INVALID_REQUEST, str(error)))
            return
        assert job.dataset is not None
        job.reuse_key = self._readiness.reuse_key(job.request, job.dataset)
        self._jobs.move(job, Place.FED)
        self._lanes.feed(spec)

    # With a trainer -----------------------------------------------------------------------------------------------

    def poll(self) -> None:
        """Handle the lanes' events."""
        for event in self._lanes.poll():
            self._endings.step("train", event.job_id, self._lane_event, event)

    def _lane_event(self, event: LaneEvent) -> None:
        job = self._jobs.get(event.job_id)
        if job is None or job.place not in (Place.FED, Place.TRAINING):  # it ended in another way
            return
        if job.failure is not None and isinstance(event, Done | Killed | Returned):
            self._endings.end(job, OutcomeKind.FAILED, job.failure)
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
                self._done(job, event)
            case Killed():
                self._killed(job, event)

    def _taken(self, job: Job) -> None:
        self._jobs.move(job, Place.TRAINING)
        self._job_events.started(job)
        if job.keeps_checkpoints and job.spool is not None:
            self._checkpoints.keep(job.request_id, job.spool)
        if job.cancelled or job.failure:
            self._lanes.kill(job.request_id, End.CANCELLED, job.cancelled)

    # After --------------------------------------------------------------------------------------------------------

    def _done(self, job: Job, event: Done) -> None:
        if event.how == "trained":
            self._job_events.finished(job, "", event.stages)
            assert job.spool is not None
            ending = self._endings.ending(job)
            self._endings.store(job, Result(job.request, ending, job.spool, job.reuse_key, event.result))
        elif event.how == "full":
            self._lacks_space(job, event.message)
        else:
            rejected = event.how == "rejected"
            error = ErrorKind.INVALID_REQUEST if rejected else ErrorKind(event.kind)
            self._job_events.finished(job, error, event.stages)
            kind = OutcomeKind.REJECTED if rejected else OutcomeKind.FAILED
            self._endings.end(job, kind, Failure(error, event.message))

    def _lacks_space(self, job: Job, message: str) -> None:
        """Prepare the job again once twice the space that it used is free: a full disk is not the request's fault.

        If deleting the job's own files frees that space, the job filled the disk itself, which counts as a crash.
        """
        assert job.spool is not None
        self._job_events.lacks_space(job, message)
        wanted_bytes = 2 * disk.size_bytes(job.spool)
        job.remove_files()
        if self._endings.ended_instead(job):
            return
        self._jobs.move(job, Place.PREPARING)
        if disk.has_room(self._shared.spools.root, wanted_bytes):
            self._readiness.count_crash(job, message)
        else:
            self._jobs.put_down(job)
            self._readiness.prepare(job, wanted_bytes)

    def _killed(self, job: Job, event: Killed) -> None:
        self._job_events.killed(job, event.end)
        if event.end is End.CRASHED:
            self._jobs.move(job, Place.PREPARING)
            self._readiness.count_crash(job, event.message)
            return
        kind, error = _ENDS[event.end]
        self._endings.end(job, kind, Failure(error, event.message))

    def counted_crash(self, crashed: Crashed) -> None:
        """Handle the answer of readiness: how often the request's trainers have crashed."""
        if crashed.job.moves == crashed.moves:
            self._endings.step("train", crashed.job.request_id, self._try_again, crashed.job, crashed)

    def _try_again(self, job: Job, crashed: Crashed) -> None:
        """Train again after a crash, up to `limits.attempts` times."""
        if job.claim is None or crashed.count is None:
            self._endings.park(job)
            return
        self._job_events.crashed(job, crashed.count, crashed.message)
        attempts = self._shared.limits.attempts
        if crashed.count >= attempts:
            message = f"{crashed.message}; that was attempt {crashed.count} of {attempts} (MAX_ATTEMPTS)"
            self._endings.end(job, OutcomeKind.FAILED, Failure(ErrorKind.TRAINER_CRASHED, message))
            return
        self._job_events.retrying(job, crashed.message)
        job.claim = replace(job.claim, trainer_crashes=crashed.count)
        self._start_over(job)

    def _start_over(self, job: Job) -> None:
        """A fed job came back untrained: feed it again, unless it ends or is released."""
        if not self._endings.ended_instead(job):
            self._jobs.move(job, Place.READY)


_ENDS = {
    End.TIMED_OUT: (OutcomeKind.TIMED_OUT, ErrorKind.TIME_LIMIT),
    End.OUT_OF_MEMORY: (OutcomeKind.FAILED, ErrorKind.OUT_OF_MEMORY),
    End.CANCELLED: (OutcomeKind.CANCELLED, ErrorKind.CANCELLED),
}
