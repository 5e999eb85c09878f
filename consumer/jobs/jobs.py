"""Owns every job: its place, its line, and the dataset and files that it holds.

`move` takes a job to another place; a move that the table in `places` does not have raises, and changes nothing. The
lists of jobs by place, the lines of models, the turns of projects, the files and the datasets all follow from the
moves; no other module keeps such lists.
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
    """A job cannot go from its place to the one asked for."""

    def __init__(self, job: Job, place: Place) -> None:
        super().__init__(f"request {job.request_id} cannot go from {job.place.name} to {place.name}")


class Jobs:
    """Owned by the worker's thread; any thread may call `ids`.

    `trainings` gives how many of a project may run at once (None: any number); `put_down` returns a dataset.
    """

    def __init__(self, trainings: Callable[[str], int | None], put_down: Callable[[Dataset], None]) -> None:
        self._put_down = put_down
        self._by_id: dict[str, Job] = {}
        self._at: dict[Place, dict[str, Job]] = {place: {} for place in Place if place not in ENDS}
        """The jobs at each place, in order of arrival."""
        self._dispatch: Dispatch[Job] = Dispatch(lambda project: 1 if project == SUSPECTS else trainings(project))

    def __len__(self) -> int:
        return len(self._by_id)

    def __iter__(self) -> Iterator[Job]:
        """Over a copy: jobs may move or end meanwhile."""
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
        """The job that has been there longest."""
        return next(iter(self._at[place].values()), None)

    def add(self, asked: Asked) -> Job:
        """Create the parked job of a request whose home is this record, and add it to its model's line."""
        if asked.request.request_id in self._by_id:
            raise ValueError(f"request {asked.request.request_id} is in hand already")
        job = Job(asked, record=None)
        self._by_id[job.request_id] = self._at[Place.PARKED][job.request_id] = job
        self.attach(job, asked)
        return job

    def attach(self, job: Job, asked: Asked) -> None:
        """Give a job its record, which is ours (again), and add it to its model's line in that partition."""
        job.asked, job.record = asked, asked.record
        job.line = (job.record.partition, job.record.epoch, job.request.model_key)
        self._dispatch.join(job)

    def detach(self, job: Job) -> None:
        """Take a job's record away, as its partition is lost; raises unless a trainer or the registrar has the job."""
        if job.place not in (Place.FED, Place.TRAINING, Place.STORING):
            raise IllegalMoveError(job, job.place)
        if job.record is not None:
            self._dispatch.leave(job)
            job.record = None

    def take(self) -> Job | None:
        """Move the job whose turn it is to PREPARING; None if there is none."""
        job = self._dispatch.take()
        if job is not None:
            self.move(job, Place.PREPARING)
        return job

    def move(self, job: Job, place: Place, *, hands_spool_over: bool = False) -> None:
        """Move a job to another place. With `hands_spool_over` its files are the registrar's, which removes them.

        Raises IllegalMoveError if there is no such move, or the job is over.
        """
        if place not in MOVES[job.place] or self._by_id.get(job.request_id) is not job:
            raise IllegalMoveError(job, place)
        self._leave_place(job)
        job.place = place
        job.moves += 1
        self._arrive(job, hands_spool_over)

    def put_down(self, job: Job) -> None:
        """Return the job's dataset to the cache."""
        dataset, job.dataset = job.dataset, None
        if dataset is not None:
            self._put_down(dataset)

    def give_up(self) -> None:
        """Forget all jobs; their files stay, since the registrar may still read them."""
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

    def _arrive(self, job: Job, hands_spool_over: bool) -> None:
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
            self._let_go_of(job, hands_spool_over)
        except Exception:  # the move counts, even if something was not given back
            log.exception("what a request held could not be given back", **job.ids)

    def _let_go_of(self, job: Job, hands_spool_over: bool) -> None:
        """Give back what the job does not need at its new place."""
        if job.place is Place.READY:
            job.keep_checkpoint()
        elif job.place not in RUNNING:
            self.put_down(job)
            if hands_spool_over:
                job.spool = None
            else:
                job.remove_files()
