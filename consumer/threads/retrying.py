"""Retries calls to services that do not answer, and remembers which those are."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import structlog
from tenacity import RetryCallState, Retrying, retry_if_exception_type

from consumer.telemetry.metrics import Metrics
from pipeline.errors import TransientError

T = TypeVar("T")

FOR_SOME = frozenset({"dataset bucket", "dataset cache", "dataset directory", "dataset loader"})
"""Services that only requests with certain datasets need: the other requests do not wait for them."""
FIRST_WAIT_S = 0.05
LONGEST_WAIT_S = 5.0

_log = structlog.get_logger(__name__)


class Stopped(Exception):  # noqa: N818 - an order, not a malfunction
    """The wait was ended by its stop event; whether the operation took effect is not known."""


class ServiceAwayError(TransientError):
    """The service was not called: it did not answer recently, and its pause is not over."""

    def __init__(self, service: str) -> None:
        super().__init__(service, "does not answer; it is tried again shortly")


def until_answered(
    operation: Callable[[], T],
    *,
    breakers: Breakers,
    stop: threading.Event | None = None,
    service: str | None = None,
    on_retry: Callable[[TransientError], None] | None = None,
    sleep: Callable[[float], object] | None = None,
    uniform: Callable[[float, float], float] = random.uniform,
) -> T:
    """Call `operation` until it does not raise TransientError, and return its result.

    The waits between calls double from 0.05 to 5 s, each cut by up to a half at random.  All other exceptions of
    `operation` are raised.  Never call this in a thread that must not block, such as the poll loop's.

    Args:
        breakers: are told whether the service answered, and block calls to one that does not.
        stop: ends the wait.  `operation` is tried once even if it is set from the start.
        service: the service that `operation` calls; if None, it is taken from the first TransientError.
        on_retry: called with the error before each wait.
        sleep: replaces waiting for `stop`; `uniform` replaces `random.uniform`.

    Raises:
        Stopped: `stop` was set before the service answered.
    """
    try:
        return breakers.call(operation, service)
    except TransientError as error:
        first: TransientError | None = error
        unanswered = error.service

    def attempt() -> T:
        nonlocal first, unanswered
        if first is not None:  # the call above
            error, first = first, None
            raise error
        try:
            return breakers.call(operation, unanswered)
        except TransientError as error:
            unanswered = error.service
            raise

    def wait_s(state: RetryCallState) -> float:
        longest_s = min(LONGEST_WAIT_S, FIRST_WAIT_S * 2 ** min(state.attempt_number - 1, 10))
        return uniform(longest_s / 2, longest_s)

    def told(state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        if on_retry is not None and isinstance(error, TransientError):
            on_retry(error)

    def wait(seconds: float) -> None:
        if sleep is not None:
            sleep(seconds)
        elif stop is None:
            time.sleep(seconds)
        else:
            stop.wait(seconds)
        if stop is not None and stop.is_set():
            raise Stopped

    retrying = Retrying(wait=wait_s, sleep=wait, before_sleep=told, retry=retry_if_exception_type(TransientError))
    return retrying(attempt)


@dataclass(slots=True)
class _Breaker:
    """The state of one service; times are those of the clock."""

    failures: int = 0
    """Failures in a row."""
    opened_at: float | None = None
    """When it last failed; None while the breaker is closed."""
    away_since: float = 0.0


class Breakers:
    """Remembers for all threads which services answer.  Safe to use from any thread.

    `threshold` failures in a row open a service's breaker: this is logged once, and the service is called only every
    `pause_s`.  The first answer closes it, which is logged once too.  Any error but TransientError is an answer.
    `services` are in `states` and the metrics from the start, others from their first call or failure.
    """

    STALE_S = 60.0
    """An open breaker whose last failure is this old has no callers, which try far more often; it counts as closed."""

    def __init__(
        self,
        metrics: Metrics | None = None,
        *,
        services: Iterable[str] = (),
        threshold: int = 3,
        pause_s: float = 2.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._metrics = metrics
        self._threshold = threshold
        self._pause_s = pause_s
        self._clock = clock
        self._lock = threading.RLock()
        self._breakers: dict[str, _Breaker] = {}
        for service in services:
            self._breaker(service)

    def any_open(self) -> bool:
        """Whether the breaker of a service that every request needs is open."""
        return any(state == "open" and service not in FOR_SOME for service, state in self.states().items())

    def is_open(self, service: str) -> bool:
        """Whether this service's breaker is open."""
        with self._lock:
            breaker = self._breakers.get(service)
            return (
                breaker is not None
                and breaker.opened_at is not None
                and self._clock() - breaker.opened_at < self.STALE_S
            )

    def states(self) -> dict[str, str]:
        """`open` or `closed`, by service."""
        with self._lock:
            return {service: "open" if self.is_open(service) else "closed" for service in self._breakers}

    def call(self, operation: Callable[[], T], service: str | None = None) -> T:
        """Call `operation` once, and note whether its service answered.

        Raises:
            ServiceAwayError: the breaker of `service` is open; `operation` was not called.
        """
        if service is not None:
            self._enter(service)
        try:
            result = operation()
        except ServiceAwayError:
            raise
        except TransientError as error:
            self._failed(error)
            raise
        except Exception:
            self._answered(service)
            raise
        self._answered(service)
        return result

    def _breaker(self, service: str) -> _Breaker:
        if service not in self._breakers:
            self._breakers[service] = _Breaker()
            if self._metrics is not None:
                self._metrics.breaker_open.labels(service).set_function(partial(self.is_open, service))
                for change in ("opened", "closed"):
                    self._metrics.breaker_changes.labels(service, change)
        return self._breakers[service]

    def _enter(self, service: str) -> None:
        with self._lock:
            opened_at = self._breaker(service).opened_at
            if opened_at is not None and self._clock() - opened_at < self._pause_s:
                raise ServiceAwayError(service)

    def _failed(self, error: TransientError) -> None:
        _log.debug("service did not answer", service=error.service, error=str(error))
        with self._lock:
            if self._metrics is not None:
                self._metrics.retries.labels(error.service).inc()
            breaker, now = self._breaker(error.service), self._clock()
            breaker.failures += 1
            if breaker.failures < self._threshold:
                return
            if breaker.opened_at is None:
                breaker.away_since = now
                self._count(error.service, "opened")
                _log.warning("service away", service=error.service)
            elif now - breaker.opened_at < self._pause_s:
                return  # a call begun before the breaker opened tells nothing new
            breaker.opened_at = now

    def _answered(self, service: str | None) -> None:
        if service is None:
            return
        with self._lock:
            breaker = self._breaker(service)
            breaker.failures = 0
            if breaker.opened_at is not None:
                breaker.opened_at = None
                self._count(service, "closed")
                _log.warning("service back", service=service, away_s=round(self._clock() - breaker.away_since, 3))

    def _count(self, service: str, event: str) -> None:
        if self._metrics is not None:
            self._metrics.breaker_changes.labels(service, event).inc()
