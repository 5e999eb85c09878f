"""What a job needs from slow places before it can be trained: room in its project, its dataset, a note in the ledger.

A few threads, since one dataset that takes minutes must not hold up another that is at hand.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import structlog

from consumer import disk
from consumer.claims import Steady
from consumer.failures import ThreadFailed
from consumer.job import Job
from consumer.metrics import Metrics
from consumer.waiting import Breakers, Stopped, until_answered
from pipeline.datasets import Dataset
from pipeline.datasets.builtin import BUILTINS
from pipeline.datasets.cache import DatasetCache
from pipeline.errors import RejectedError
from pipeline.jobs import ErrorKind, RegisteredModel, TrainingRequest
from pipeline.ledger import Ledger, Owner
from pipeline.memory import check_fits
from pipeline.quotas import Quotas
from pipeline.recipe import recipe
from pipeline.registry import Registry

log = structlog.get_logger(__name__)

T = TypeVar("T")

THREADS = 4


@dataclass(frozen=True, slots=True)
class Prepared:
    """A dataset, or what is wrong with the request; `lost` means that its claim is not ours any more.

    `checkpoint` is what an earlier attempt, elsewhere, has come to; `reused` is the version whose result the request
    may have instead of a training; `error` is the kind of the problem.
    """

    job: Job
    dataset: Dataset | None = None
    checkpoint: Path | None = None
    reused: RegisteredModel | None = None
    problem: str | None = None
    error: ErrorKind = ErrorKind.INVALID_REQUEST
    lost: bool = False


@dataclass(frozen=True, slots=True)
class Crashed:
    """A crash of a trainer is counted; None means that the claim is not ours any more."""

    job: Job
    count: int | None
    message: str


class Preparation:
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
        metrics: Metrics,
        breakers: Breakers,
        deliver: Callable[[Prepared | Crashed | ThreadFailed], None],
    ) -> None:
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
        self._metrics = metrics
        self._breakers = breakers
        self._deliver = deliver
        self._stop_waiting = threading.Event()
        self._counting = threading.Lock()
        self._counted = (0, 0)
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="preparation")

    def at_once(self, job: Job) -> Dataset | None:
        """The dataset, if nothing slow is needed for it."""
        request = job.request
        slow = (
            _accused(job) or job.keeps_checkpoints or _reuses(request) or self._quotas.limits_storage(request.project)
        )
        return None if slow or request.dataset_name not in BUILTINS else self._datasets.ensure(request.dataset_name)

    def submit(self, job: Job, room_bytes: int | None = None) -> None:
        """Answered with a Prepared, when so much is free where trainings write."""
        self._threads.submit(self._guarded, lambda: self._prepare(job, room_bytes))

    def count_crash(self, job: Job, message: str) -> None:
        """Answered with a Crashed."""
        self._threads.submit(
            self._guarded,
            lambda: self._deliver(
                Crashed(job, self._answered(lambda: self._ledger.crashed(self._me, job.request_id)), message)
            ),
        )

    def ask_if_alone(self, answer: Callable[[bool], None]) -> None:
        """Whether we are the group's only member; `answer` is called by a thread of ours."""
        self._threads.submit(self._guarded, lambda: answer(self._is_alone()))

    def done_with(self, dataset: Dataset) -> None:
        """The job that this dataset was made ready for needs it no longer."""
        self._datasets.release(dataset)

    def stop(self) -> None:
        """What has begun is not waited for: it may be a call that is not answered."""
        self._stop_waiting.set()
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _prepare(self, job: Job, room_bytes: int | None) -> None:
        request = job.request
        if room_bytes is not None:
            self._wait_for_room(room_bytes)
        if _accused(job) and not self._answered(lambda: self._ledger.start(self._me, request.request_id)):
            self._deliver(Prepared(job, lost=True))
            return
        if excess := self._excess(request.project):
            self._deliver(Prepared(job, problem=excess, error=ErrorKind.QUOTA_EXCEEDED))
            return
        try:
            dataset = self._fitting(request)
        except RejectedError as error:
            self._deliver(Prepared(job, problem=str(error)))
        else:
            checkpoint = self._answered(lambda: self._restore(job.request_id)) if job.keeps_checkpoints else None
            same = self._answered(lambda: self._same(request, dataset)) if _reuses(request) else None
            self._deliver(Prepared(job, dataset, checkpoint, same))
        self._count_reads()

    def recipe(self, request: TrainingRequest, dataset: Dataset) -> str:
        """What a training here would have in common with its equals; `machine` is what its trainers compute with."""
        return recipe(request, dataset, self._machine)

    def _same(self, request: TrainingRequest, dataset: Dataset) -> RegisteredModel | None:
        return self._registry.same(request.project, self.recipe(request, dataset))

    def _excess(self, project: str) -> str:
        """Why the project may register no more; what is being trained is not counted, so it may come to more."""
        if not self._quotas.limits_storage(project):
            return ""
        return self._quotas.quota(project).excess(project, self._answered(lambda: self._registry.usage(project)))

    def _fitting(self, request: TrainingRequest) -> Dataset:
        """Raises RejectedError if there is no such dataset, or it cannot be trained on in the memory there is."""
        dataset = self._answered(lambda: self._datasets.ensure(request.dataset_name))
        try:
            check_fits(request, dataset, self._training_memory_bytes)
        except RejectedError:
            self._datasets.release(dataset)
            raise
        return dataset

    def _count_reads(self) -> None:
        with self._counting:
            hits, misses = self._datasets.hits, self._datasets.misses
            self._metrics.cache_reads.labels("hit").inc(hits - self._counted[0])
            self._metrics.cache_reads.labels("miss").inc(misses - self._counted[1])
            self._counted = (hits, misses)

    def _answered(self, operation: Callable[[], T]) -> T:
        return until_answered(operation, breakers=self._breakers, stop=self._stop_waiting, on_retry=self._steady.broke)

    def _wait_for_room(self, wanted_bytes: int) -> None:
        until_answered(
            lambda: disk.check_room(self._spool, wanted_bytes),
            breakers=self._breakers,
            stop=self._stop_waiting,
            service=disk.SERVICE,
        )

    def _guarded(self, task: Callable[[], None]) -> None:
        try:
            task()
        except Stopped:
            pass
        except Exception as error:  # noqa: BLE001 - handed to the worker, which ends
            self._deliver(ThreadFailed("preparation", error))


def _accused(job: Job) -> bool:
    """Whether a worker has died under this request: then it is written down before it is fed again."""
    return job.claim is not None and job.claim.worker_losses > 0


def _reuses(request: TrainingRequest) -> bool:
    """A page in the model file would be about the other request."""
    return request.reuse and not request.evaluation.report
