"""An error about one request ends that request, and no other.

Whatever is raised while a request is handled belongs to it, unless it is one of `PASSED_ON`: those belong to a service
or to the whole worker. The request ends FAILED with the kind INTERNAL_ERROR and a dead letter; the log has the stack.
Of a group that raises, halves are tried until the guilty one is alone.
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
"""A service is away or refuses us, a producer is lost, a newer life of us has begun, the worker is told to end."""
EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN, errno.EIO)
"""No descriptors, memory or threads left, a broken disk: whoever asks meets it, so it is the worker's."""


class UncontainedError(Exception):
    """An error about these requests could not be contained: the worker ends, and writes down who was to blame."""

    def __init__(self, request_ids: Collection[str]) -> None:
        super().__init__(f"an error about {', '.join(sorted(request_ids))} could not be contained")
        self.request_ids = frozenset(request_ids)


def contain(metrics: Metrics, stage: str, error: Exception, **ids: Any) -> Failure:
    """Tell operators of an error about one request; returns what its sender is told, which holds nothing of ours.

    `stage` is what was done with the request, a fixed word; `ids` tell which it is.  Raises the error again if it is
    the worker's own, such as a lack of memory.
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
    """What is raised in here ends nothing but what is done in here."""
    try:
        yield
    except PASSED_ON:
        raise
    except Exception as error:  # noqa: BLE001 - it belongs to what the ids name
        contain(metrics, stage, error, **ids)


def halved(
    items: Sequence[T], work: Callable[[Sequence[T]], Sequence[R]], alone: Callable[[T, Exception], Sequence[R]]
) -> list[R]:
    """What `work` answers for the items; where it raises, for each half of them, down to the one that it raises for.

    `work` must bear being repeated. `alone` answers for that one item, given the error.
    """
    if not items:
        return []
    try:
        return list(work(items))
    except PASSED_ON:
        raise
    except Exception as error:  # noqa: BLE001 - it belongs to one of them
        if len(items) == 1:
            return list(alone(items[0], error))
    middle = len(items) // 2
    return [*halved(items[:middle], work, alone), *halved(items[middle:], work, alone)]
