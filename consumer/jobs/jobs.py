"""The one owner of every job: its place, its line, and what it holds there.

A job is asked to move on with `move`; what the table in `places` does not have raises, and changes nothing. Lists of
jobs at a place, lines of models, turns of projects, files and datasets follow from the moves: nobody else keeps any.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterator

import structlog

from consumer.jobs.claims import Asked
from consumer.jobs.dispatch import Dispatch
from consumer.jobs.job import SUSPECTS, Job
from consumer.jobs.places import ENDS, MOVES, RUNNING, Place
from pipeline.datasets import Dataset

log = structlog.get_logger(__name__)


class IllegalMoveError(Exception):
    """A job was asked to go where it cannot go from where it is."""

    def __init__(self, job: Job, place: Place) -> None:
        super().__init__(f"request {job.request_id} cannot go from {job.place.name} to {place.name}")


class Jobs:
    """Owned by the worker's thread; `ids` may be called by any.

    `trainings` says how many of a project may run at once (None: any number); `put_down` gives a dataset back.
    """

    def __init__(self, trainings: Callable[[str], int | None], put_down: Callable[[Dataset], None]) -> None:
        self._put_down = put_down
        self._by_id: dict[str, Job] = {}
        self._at: dict[Place, dict[str, Job]] = {place: {} for place in Place if place not in ENDS}
        """Those at a place, first come first."""
        self._dispatch: Dispatch[Job] = Dispatch(lambda project: 1 if project == SUSPECTS else trainings(project))

    def __len__(self) -> int:
        return len(self._by_id)

    def __iter__(self) -> Iterator[Job]:
        """A job may move, or end, meanwhile."""
        return iter(tuple(self._by_id.values()))

    def get(self, request_id: str) -> Job | None:
        return self._by_id.get(request_id)

    def ids(self) -> Collection[str]:
        return tuple(self._by_id)

    def at(self, *places: Place) -> list[Job]:
        return [job for place in places for job in self._at[place].values()]

    def count(self, place: Place) -> int:
        return len(self._at[place])

    def first(self, place: Place) -> Job | None:
        """Who has been there longest."""
        return next(iter(self._at[place].values()), None)

    def add(self, asked: Asked) -> Job:
        """A request whose home is this record; it holds its model's line, and is parked."""
        if asked.request.request_id in self._by_id:
            raise ValueError(f"request {asked.request.request_id} is in hand already")
        job = Job(asked, record=None)
        self._by_id[job.request_id] = self._at[Place.PARKED][job.request_id] = job
        self.attach(job, asked)
        return job

    def attach(self, job: Job, asked: Asked) -> None:
        """Its record belongs to us (again): stand in the line of its partition."""
        job.asked, job.record = asked, asked.record
        job.line = (job.record.partition, job.record.epoch, job.request.model_key)
        self._dispatch.join(job)

    def detach(self, job: Job) -> None:
        """The record belongs to us no more; only what a trainer or the registrar has goes on without one."""
        if job.place not in (Place.FED, Place.TRAINING, Place.STORING):
            raise IllegalMoveError(job, job.place)
        if job.record is not None:
            self._dispatch.leave(job)
            job.record = None

    def take(self) -> Job | None:
        """The job whose turn it is; from now on it is being prepared."""
        job = self._dispatch.take()
        if job is not None:
            self.move(job, Place.PREPARING)
        return job

    def move(self, job: Job, place: Place, *, keeps_spool: bool = False) -> None:
        """Go on to another place; with `keeps_spool` the registrar still reads what the trainer has written.

        Raises IllegalMoveError if there is no such move, or the job is over.
        """
        if place not in MOVES[job.place] or self._by_id.get(job.request_id) is not job:
            raise IllegalMoveError(job, place)
        self._leave_place(job)
        job.place = place
        job.moves += 1
        self._arrive(job, keeps_spool)

    def put_down(self, job: Job) -> None:
        """Give its dataset back."""
        dataset, job.dataset = job.dataset, None
        if dataset is not None:
            self._put_down(dataset)

    def give_up(self) -> None:
        """Forget all jobs; their files stay, for what is being stored is still read."""
        self._by_id.clear()
        for jobs in self._at.values():
            jobs.clear()

    def _leave_place(self, job: Job) -> None:
        del self._at[job.place][job.request_id]
        if job.place is Place.WAITING:
            self._dispatch.hold(job)
        elif job.abandoned is not None:
            job.abandoned.set()
            job.abandoned = None

    def _arrive(self, job: Job, keeps_spool: bool) -> None:
        place = job.place
        if place is Place.PREPARING:
            job.abandoned = threading.Event()
        elif place is Place.PARKED:
            job.claim = None
        if place in ENDS:
            del self._by_id[job.request_id]
            if job.record is not None:
                self._dispatch.leave(job)
        else:
            self._at[place][job.request_id] = job
            if place is Place.WAITING:
                self._dispatch.wait(job)
        try:
            self._let_go_of(job, keeps_spool)
        except Exception:  # what is left behind is no reason to be in two places
            log.exception("what a request held could not be given back", **job.ids)

    def _let_go_of(self, job: Job, keeps_spool: bool) -> None:
        """What it has no use for where it is now."""
        if job.place is Place.READY:
            job.keep_checkpoint()
        elif job.place not in RUNNING:
            self.put_down(job)
            if not keeps_spool:
                job.remove_files()
