"""Ends one request for an error about it, and leaves the others alone.

Any exception raised while a request is handled ends that request, except those in `PASSED_ON`, which concern a service
or the whole worker. The request ends as FAILED with the kind INTERNAL_ERROR and a dead letter; the log has the stack.
If a group raises, its halves are tried until the request that raises is alone.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import structlog

from consumer.telemetry.metrics import Metrics
from consumer.threads.retrying import Stopped
from pipeline.errors import AccessDeniedError, ProducerLostError, SupersededError, TransientError
from pipeline.jobs import ErrorKind, Failure

log = structlog.get_logger(__name__)

T = TypeVar("T")
R = TypeVar("R")

PASSED_ON = (TransientError, AccessDeniedError, ProducerLostError, SupersededError, Stopped)
"""A service is away or denies access, the producer is lost, a newer life of us has begun, the worker is told to end."""
EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN, errno.EIO)
"""No descriptors, memory or threads left, or a broken disk: this concerns the worker, not the request that met it."""


class UncontainedError(Exception):
    """An error about these requests could not be contained: the worker blames them in the ledger, and ends."""

    def __init__(self, request_ids: Collection[str]) -> None:
        super().__init__(f"an error about {', '.join(sorted(request_ids))} could not be contained")
        self.request_ids = frozenset(request_ids)


def contain(metrics: Metrics, stage: str, error: Exception, **ids: Any) -> Failure:
    """Log and count an error about one request; returns the failure for its sender, which shows no internals.

    `stage` is a fixed word for what was done with the request; `ids` name the request.  Raises the error again if it
    concerns the worker, such as a lack of memory.
    """
    if _is_the_workers(error):
        raise error
    metrics.contained_errors.labels(stage).inc()
    log.error("an error about one request was contained", stage=stage, exc_info=error, **ids)
    return Failure(
        ErrorKind.INTERNAL_ERROR,
        f"the worker met an error of its own at this request ({stage}); its log has the details under the request_id. "
        "Tell those who run the workers; until they have mended it, the same request would end the same way",
    )


def _is_the_workers(error: Exception) -> bool:
    exhausted = isinstance(error, OSError) and error.errno in EXHAUSTED
    return exhausted or isinstance(error, MemoryError) or str(error) == "can't start new thread"


@contextmanager
def contained(metrics: Metrics, stage: str, **ids: Any) -> Iterator[None]:
    """An exception in this block ends the block and nothing else, except those of PASSED_ON and the worker's own."""
    try:
        yield
    except PASSED_ON:
        raise
    except Exception as error:  # noqa: BLE001 - it concerns what the ids name
        contain(metrics, stage, error, **ids)


def halved(
    items: Sequence[T], work: Callable[[Sequence[T]], Sequence[R]], alone: Callable[[T, Exception], Sequence[R]]
) -> list[R]:
    """The results of `work` for the items. If it raises, each half is tried, down to the single item that raises.

    `work` must be repeatable. `alone` gets that item and the error, and returns its results.
    """
    if not items:
        return []
    try:
        return list(work(items))
    except PASSED_ON:
        raise
    except Exception as error:  # noqa: BLE001 - it concerns one of them
        if len(items) == 1:
            return list(alone(items[0], error))
    middle = len(items) // 2
    return [*halved(items[:middle], work, alone), *halved(items[middle:], work, alone)]
