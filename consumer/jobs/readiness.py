"""Gets a job ready for a trainer: quota, dataset, checkpoint, an equal training to reuse.

If workers have died under the job, the last step writes into its claim that it starts here (`Ledger.start`), so that
the next death is blamed on it. Of the THREADS threads at most SLOW_LIMIT do slow work: datasets that take minutes must
not delay those that are in the cache.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
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
from pipeline.registry import Registry
from pipeline.registry.quotas import Quotas
from pipeline.training.memory_estimate import check_fits
from pipeline.training.reuse_key import reuse_key

log = structlog.get_logger(__name__)

T = TypeVar("T")

THREADS = 16
SLOW_LIMIT = 12
"""At most this many threads do slow work, such as fetching a dataset."""
SAME_LIMIT = 3
"""At most this many threads do slow work for the same dataset."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """The answer to `prepare`: a dataset, or why there is none.

    Attributes:
        moves: the job's count of moves when this was ordered; the answer is out of date if it has moved since.
        checkpoint: a folder with the newest checkpoint of an earlier attempt.
        reused: the version whose result the request gets instead of a training.
        failure: a fault in the request, or an internal error.
        lost: the claim is not ours any more.
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
    """The answer to `count_crash`; `count` is None if the claim is not ours any more."""

    job: Job
    moves: int
    count: int | None
    message: str


class Readiness(Ordered):
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
    ) -> None:
        super().__init__("readiness", around, threads=THREADS, busy_limit_s=TRANSFER_LIMIT_S)
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
        self._lock = threading.Lock()
        self._quick = 0
        """Orders that have not been tried quickly yet."""
        self._counted = (0, 0)

    @property
    def has_room(self) -> bool:
        """Whether a thread is free to take another job at once."""
        return self._quick < THREADS

    def at_once(self, job: Job) -> Dataset | None:
        """The dataset, if it takes nothing slow to prepare this job; else None: call `prepare`."""
        request = job.request
        slow = job.orphaned or job.keeps_checkpoints or _reuses(request) or self._quotas.limits_storage(request.project)
        return None if slow or request.dataset_name not in BUILTINS else self._datasets.at_hand(request.dataset_name)

    def prepare(self, job: Job, room_bytes: int | None = None) -> None:
        """Prepare a job, once `room_bytes` are free in the spool folder; answered with a Prepared."""
        request, moves, wanted = job.request, job.moves, _Wanted(job.abandoned, self)
        name, came = request.dataset_name, self._datasets.begun
        is_slow = room_bytes is not None or job.keeps_checkpoints

        def quickly() -> Prepared | None:
            return None if is_slow else self._prepared(job, moves, wanted, lambda: self._at_hand(name))

        def slowly() -> Prepared | None:
            wanted.check()
            if room_bytes is not None:
                self._answered(lambda: disk.check_room(self._spool, room_bytes), wanted, service=disk.SERVICE)
            return self._prepared(job, moves, wanted, lambda: self._datasets.ensure(name, wanted, came))

        def told(work: Callable[[], Prepared | None]) -> bool:
            """Deliver the answer; False if there is none yet."""
            with suppress(LoadAbandoned):  # the job has moved on, or the worker ends
                if (answer := self._contained(job, moves, work)) is None:
                    return False
                self._deliver(answer)
            self._count_reads()
            return True

        def prepared() -> None:
            try:
                done = told(quickly)
            finally:
                self._count_quick(-1)
            if not done:
                self._slow.do(request.project, name, lambda: told(slowly))

        self._count_quick(1)
        self.order(prepared)

    def count_crash(self, job: Job, message: str) -> None:
        """Count a crash of the job's trainer in the ledger; answered with a Crashed."""
        moves = job.moves

        def counted() -> Crashed:
            count = self._answered(lambda: self._ledger.crashed(self._me, job.request_id), None)
            return Crashed(job, moves, count, message)

        self.order(lambda: self._deliver(self._contained(job, moves, counted)))

    def ask_if_alone(self, answer: Callable[[bool], None]) -> None:
        """Ask whether we are the group's only member; a readiness thread calls `answer`."""
        self.order(lambda: answer(self._is_alone()))

    def put_down(self, dataset: Dataset) -> None:
        """Return a dataset that its job needs no longer."""
        self._datasets.release(dataset)

    def reuse_key(self, request: TrainingRequest, dataset: Dataset) -> str:
        """The reuse key of a training here; it includes `machine`, what the trainers compute with."""
        return reuse_key(request, dataset, self._machine)

    def _contained(self, job: Job, moves: int, work: Callable[[], T]) -> T | Prepared:
        try:
            return work()
        except (*PASSED_ON, LoadAbandoned):
            raise
        except Exception as error:  # noqa: BLE001 - about this request
            return Prepared(job, moves, failure=contain(self._metrics, "prepare", error, **job.ids))

    def _prepared(self, job: Job, moves: int, wanted: _Wanted, find: Callable[[], Dataset | None]) -> Prepared | None:
        """None if `find` finds no dataset."""
        request = job.request
        if excess := self._excess(request.project, wanted):
            return Prepared(job, moves, failure=Failure(ErrorKind.QUOTA_EXCEEDED, excess))
        try:
            dataset = self._answered(find, wanted)
            if dataset is None:
                return None
            self._check_fits(request, dataset)
        except RejectedError as error:
            return Prepared(job, moves, failure=Failure(ErrorKind.INVALID_REQUEST, str(error)))
        with ExitStack() as undo:
            undo.callback(self._datasets.release, dataset)
            checkpoint = None
            if job.keeps_checkpoints:
                checkpoint = self._answered(lambda: self._restore(job.request_id), wanted)
                undo.callback(disk.remove, checkpoint)
            same = self._answered(lambda: self._same(request, dataset), wanted) if _reuses(request) else None
            if job.orphaned and not self._answered(lambda: self._ledger.start(self._me, request.request_id), wanted):
                return Prepared(job, moves, lost=True)
            undo.pop_all()
        return Prepared(job, moves, dataset, checkpoint, same)

    def _at_hand(self, name: str) -> Dataset | None:
        """The dataset if it is at hand; None if it is not, or if a service that only some requests need is away."""
        try:
            return self._datasets.at_hand(name)
        except TransientError as error:
            if error.service in FOR_SOME:
                return None
            raise

    def _same(self, request: TrainingRequest, dataset: Dataset) -> RegisteredModel | None:
        return self._registry.same(request.project, self.reuse_key(request, dataset))

    def _excess(self, project: str, wanted: _Wanted) -> str:
        """Why the project may register no more, or empty. It can be exceeded, as running trainings are not counted."""
        if not self._quotas.limits_storage(project):
            return ""
        usage = self._answered(lambda: self._registry.usage(project), wanted)
        return self._quotas.quota(project).excess(project, usage)

    def _check_fits(self, request: TrainingRequest, dataset: Dataset) -> None:
        """Raises RejectedError, and returns the dataset, if training on it needs more memory than there is."""
        try:
            check_fits(request, dataset, self._training_memory_bytes)
        except BaseException:
            self._datasets.release(dataset)
            raise

    def _count_quick(self, change: int) -> None:
        with self._lock:
            self._quick += change

    def _count_reads(self) -> None:
        with self._lock:
            hits, misses = self._datasets.hits, self._datasets.misses
            self._metrics.cache_reads.labels("hit").inc(hits - self._counted[0])
            self._metrics.cache_reads.labels("miss").inc(misses - self._counted[1])
            self._counted = (hits, misses)

    def _answered(self, operation: Callable[[], T], wanted: _Wanted | None, service: str | None = None) -> T:
        """Raises LoadAbandoned if the service is away and nobody waits for the answer any more."""

        def told(error: TransientError) -> None:
            if error.service != disk.SERVICE and error.service not in FOR_SOME:
                self._steady.broke(error)
            if wanted is not None:
                wanted.check()

        return self.answered(operation, service=service, on_retry=told)

    def is_over(self) -> bool:
        """Whether this neighbour has given up: orders that wait are dropped."""
        return self._given_up.is_set()


class _Wanted:
    """Tells slow work whether to go on. Each call also tells the watch that the thread is not stuck."""

    def __init__(self, abandoned: threading.Event | None, readiness: Readiness) -> None:
        self._abandoned = abandoned
        self._readiness = readiness

    def is_set(self) -> bool:
        """Whether the work is abandoned."""
        self._readiness.turn.begin()
        return self._readiness.is_over() or (self._abandoned is not None and self._abandoned.is_set())

    def check(self) -> None:
        """Raises LoadAbandoned if it is."""
        if self.is_set():
            raise LoadAbandoned


def _reuses(request: TrainingRequest) -> bool:
    """Whether it may reuse a result. Not with a report: the report in a model file names the other request."""
    return request.reuse and not request.evaluation.report
