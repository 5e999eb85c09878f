"""Gets a job ready for a trainer: quota, dataset, checkpoint, an equal training to reuse.

That is room in its project, its dataset, a note in the ledger if workers have died under it, the checkpoint of an
earlier attempt, and an equal training whose result it may have. Several threads do it, and some of them are kept for
what is at hand: datasets that take minutes must not hold up those that take none.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import structlog

from consumer.jobs.job import Job
from consumer.jobs.lease import Steady
from consumer.system import disk
from consumer.threads.containment import PASSED_ON, contain
from consumer.threads.neighbour import TRANSFER_LIMIT_S, Ordered, Surroundings
from consumer.threads.retrying import FOR_SOME
from consumer.threads.slow_work import SlowWork
from pipeline.datasets import Dataset, LoadAbandoned
from pipeline.datasets.builtin import BUILTINS
from pipeline.datasets.cache import DatasetCache
from pipeline.errors import RejectedError, TransientError
from pipeline.jobs import ErrorKind, Failure, RegisteredModel, TrainingRequest
from pipeline.ledger import Ledger, Owner
from pipeline.memory import check_fits
from pipeline.quotas import Quotas
from pipeline.recipe import recipe
from pipeline.registry import Registry

log = structlog.get_logger(__name__)

T = TypeVar("T")

PREPARING_LIMIT = 16
"""Jobs that are prepared at once; each has a thread."""
SLOW_LIMIT = 12
"""Of these, jobs that wait for what is not at hand."""
SAME_LIMIT = 3
"""Of these, jobs that wait for the same dataset."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """The answer to `prepare`: a dataset, or why there is none.

    Attributes:
        moves: the job's, when this was ordered; if it has moved since, the answer is out of date.
        checkpoint: what an earlier attempt, elsewhere, has come to.
        reused: the version whose result the request may have instead of a training.
        failure: what is wrong with the request, or with us.
        lost: its claim is not ours any more.
    """

    job: Job
    moves: int
    dataset: Dataset | None = None
    checkpoint: Path | None = None
    reused: RegisteredModel | None = None
    failure: Failure | None = None
    lost: bool = False


@dataclass(frozen=True, slots=True)
class Crashed:
    """The answer to `count_crash`; no count means that the claim is not ours any more."""

    job: Job
    moves: int
    count: int | None
    message: str


class Preparation(Ordered):
    """Orders come from the worker's thread."""

    def __init__(
        self,
        me: Owner,
        ledger: Ledger,
        datasets: DatasetCache,
        restore: Callable[[str], Path | None],
        *,
        quotas: Quotas,
        registry: Registry,
        machine: Mapping[str, str],
        training_memory_bytes: int,
        spool: Path,
        is_alone: Callable[[], bool],
        steady: Steady,
        around: Surroundings,
        load_time_s: float,
    ) -> None:
        """`load_time_s` is what one dataset may take to be read; all others may have to be read before."""
        limit_s = TRANSFER_LIMIT_S + PREPARING_LIMIT * load_time_s
        super().__init__("preparation", around, threads=PREPARING_LIMIT, busy_limit_s=limit_s)
        self._me = me
        self._ledger = ledger
        self._datasets = datasets
        self._restore = restore
        self._quotas = quotas
        self._registry = registry
        self._machine = machine
        self._training_memory_bytes = training_memory_bytes
        self._spool = spool
        self._is_alone = is_alone
        self._steady = steady
        self._slow = SlowWork(SLOW_LIMIT, SAME_LIMIT)
        self._counting = threading.Lock()
        self._counted = (0, 0)

    @property
    def put_off(self) -> int:
        """Jobs in preparation that wait for those before them; they take nobody's place."""
        return self._slow.put_off

    def at_once(self, job: Job) -> Dataset | None:
        """The dataset, if nothing slow is needed for it."""
        request = job.request
        slow = (
            _accused(job) or job.keeps_checkpoints or _reuses(request) or self._quotas.limits_storage(request.project)
        )
        return None if slow or request.dataset_name not in BUILTINS else self._datasets.at_hand(request.dataset_name)

    def prepare(self, job: Job, room_bytes: int | None = None) -> None:
        """Answered with a Prepared, when so much is free where trainings write."""
        moves, abandoned, name = job.moves, job.abandoned, job.request.dataset_name
        is_slow = room_bytes is not None or job.keeps_checkpoints

        def quickly() -> Prepared | None:
            if refused := self._refused(job, moves, abandoned):
                return refused
            return None if is_slow else self._prepared(job, moves, abandoned, lambda: self._datasets.at_hand(name))

        def slowly() -> Prepared | None:
            self.turn.begin()
            if room_bytes is not None:
                self._answered(lambda: disk.check_room(self._spool, room_bytes), abandoned, service=disk.SERVICE)
            return self._prepared(job, moves, abandoned, lambda: self._datasets.ensure(name, abandoned))

        def told(work: Callable[[], Prepared | None]) -> bool:
            """Deliver the answer; False if there is none yet."""
            with suppress(LoadAbandoned):  # the job has moved on, or the worker ends
                if (answer := self._contained(job, moves, work)) is None:
                    return False
                self._deliver(answer)
            self._count_reads()
            return True

        def prepared() -> None:
            if not told(quickly):
                self._slow.do(name, lambda: told(slowly))

        self.order(prepared)

    def count_crash(self, job: Job, message: str) -> None:
        """Answered with a Crashed."""
        moves = job.moves

        def counted() -> Crashed:
            count = self._answered(lambda: self._ledger.crashed(self._me, job.request_id), None)
            return Crashed(job, moves, count, message)

        self.order(lambda: self._deliver(self._contained(job, moves, counted)))

    def ask_if_alone(self, answer: Callable[[bool], None]) -> None:
        """Whether we are the group's only member; `answer` is called by a thread of ours."""
        self.order(lambda: answer(self._is_alone()))

    def put_down(self, dataset: Dataset) -> None:
        """The job that this dataset was made ready for needs it no longer."""
        self._datasets.release(dataset)

    def recipe(self, request: TrainingRequest, dataset: Dataset) -> str:
        """What a training here would have in common with its equals; `machine` is what its trainers compute with."""
        return recipe(request, dataset, self._machine)

    def _contained(self, job: Job, moves: int, work: Callable[[], T]) -> T | Prepared:
        try:
            return work()
        except (*PASSED_ON, LoadAbandoned):
            raise
        except Exception as error:  # noqa: BLE001 - about this request
            return Prepared(job, moves, failure=contain(self._metrics, "prepare", error, **job.ids))

    def _refused(self, job: Job, moves: int, abandoned: threading.Event | None) -> Prepared | None:
        """Why it is not to be trained, whatever its dataset is."""
        request = job.request
        if _accused(job) and not self._answered(lambda: self._ledger.start(self._me, request.request_id), abandoned):
            return Prepared(job, moves, lost=True)
        if excess := self._excess(request.project, abandoned):
            return Prepared(job, moves, failure=Failure(ErrorKind.QUOTA_EXCEEDED, excess))
        return None

    def _prepared(
        self, job: Job, moves: int, abandoned: threading.Event | None, find: Callable[[], Dataset | None]
    ) -> Prepared | None:
        """None if `find` finds no dataset."""
        request = job.request
        try:
            dataset = self._answered(find, abandoned)
            if dataset is None:
                return None
            self._check_fits(request, dataset)
        except RejectedError as error:
            return Prepared(job, moves, failure=Failure(ErrorKind.INVALID_REQUEST, str(error)))
        checkpoint = None
        try:
            if job.keeps_checkpoints:
                checkpoint = self._answered(lambda: self._restore(job.request_id), abandoned)
            same = self._answered(lambda: self._same(request, dataset), abandoned) if _reuses(request) else None
        except BaseException:
            self._datasets.release(dataset)
            disk.remove(checkpoint)
            raise
        return Prepared(job, moves, dataset, checkpoint, same)

    def _same(self, request: TrainingRequest, dataset: Dataset) -> RegisteredModel | None:
        return self._registry.same(request.project, self.recipe(request, dataset))

    def _excess(self, project: str, abandoned: threading.Event | None) -> str:
        """Why the project may register no more; what is being trained is not counted, so it may come to more."""
        if not self._quotas.limits_storage(project):
            return ""
        usage = self._answered(lambda: self._registry.usage(project), abandoned)
        return self._quotas.quota(project).excess(project, usage)

    def _check_fits(self, request: TrainingRequest, dataset: Dataset) -> None:
        """Raises RejectedError, and gives the dataset back, if it cannot be trained on in the memory there is."""
        try:
            check_fits(request, dataset, self._training_memory_bytes)
        except BaseException:
            self._datasets.release(dataset)
            raise

    def _count_reads(self) -> None:
        with self._counting:
            hits, misses = self._datasets.hits, self._datasets.misses
            self._metrics.cache_reads.labels("hit").inc(hits - self._counted[0])
            self._metrics.cache_reads.labels("miss").inc(misses - self._counted[1])
            self._counted = (hits, misses)

    def _answered(self, operation: Callable[[], T], abandoned: threading.Event | None, service: str | None = None) -> T:
        """Raises LoadAbandoned where the service is away and nobody waits for it any more."""

        def told(error: TransientError) -> None:
            if error.service != disk.SERVICE and error.service not in FOR_SOME:
                self._steady.broke(error)
            if abandoned is not None and abandoned.is_set():
                raise LoadAbandoned

        return self.answered(operation, service=service, on_retry=told)


def _accused(job: Job) -> bool:
    """Whether a worker has died under this request: then it is written down before it is fed again."""
    return job.claim is not None and job.claim.worker_losses > 0


def _reuses(request: TrainingRequest) -> bool:
    """A page in the model file would be about the other request."""
    return request.reuse and not request.evaluation.report
