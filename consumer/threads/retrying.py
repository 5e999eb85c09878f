"""Retries calls to services that do not answer, and remembers which those are."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import TypeVar

import structlog
from purgatory import SyncCircuitBreakerFactory
from purgatory.domain.messages.events import CircuitBreakerCreated, ContextChanged
from purgatory.domain.model import CLOSED, OPENED, HalfOpenedState, OpenedState
from tenacity import RetryCallState, Retrying, retry_if_exception_type

from consumer.telemetry.metrics import Metrics
from pipeline.errors import TransientError

T = TypeVar("T")

FOR_SOME = frozenset({"dataset cache", "dataset directory", "dataset loader"})
"""What only requests with certain datasets wait for: the others go on."""
FIRST_WAIT_S = 0.05
LONGEST_WAIT_S = 5.0

_log = structlog.get_logger(__name__)


class Stopped(Exception):  # noqa: N818 - an order, not a malfunction
    """The wait was ended by its stop event; whether the operation took effect is not known."""


class ServiceAwayError(TransientError):
    """The service was left alone: it did not answer just now, and it is not time to try it again."""

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
    """Calls `operation` until it does not raise TransientError, and returns its result.

    Waits between the calls from 0.05 to 5 s, doubling, each cut by up to a half at random.  Everything else that
    `operation` raises is passed on.  Never call this in a thread that must not block, such as the poll loop's.

    Args:
        breakers: learn which services answer, and hold calls back from one that does not.
        stop: ends the wait.  `operation` is tried once however early it is set.
        service: the one that `operation` speaks to; left out, it is learnt from its first TransientError.
        on_retry: told the error before each wait.
        sleep: in place of waiting for `stop`; `uniform`: in place of `random.uniform`.

    Raises:
        Stopped: `stop` was set before the service answered.
    """
    unanswered = service

    def attempt() -> T:
        nonlocal unanswered
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


class Breakers:
    """Which services answer, as all threads of the worker found out.  Safe to use from any thread.

    A few failures in a row open a service's breaker: that is logged once, and the service is left alone but for a try
    every `pause_s`.  The first answer closes it, which is logged once too.  Any error but TransientError is an answer.
    `services` are shown from the start, others from when they are first heard of.
    """

    # Whoever waits tries far more often: a breaker this old was opened by someone who gave up, and says nothing now.
    STALE_S = 60.0

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
        self._pause_s = pause_s
        self._clock = clock
        self._lock = threading.Lock()
        self._services: set[str] = set()
        self._away_since: dict[str, float] = {}
        self._opened_at: dict[str, float] = {}
        # purgatory's own pause goes by the wall clock, which may be set back: it never ends, and `_enter` decides.
        self._factory = SyncCircuitBreakerFactory(default_threshold=threshold, default_ttl=float("inf"))
        self._factory.add_listener(self._changed)
        for service in services:
            self._factory.get_breaker(service)

    def any_open(self) -> bool:
        """Whether a service that every request needs is known not to answer, and has not answered since."""
        return any(state == "open" and service not in FOR_SOME for service, state in self.states().items())

    def is_open(self, service: str) -> bool:
        """Whether this service is known not to answer."""
        with self._lock:
            return self._is_open(service)

    def states(self) -> dict[str, str]:
        """`open` or `closed`, for each service that was named at the start or in a call, or failed."""
        with self._lock:
            return {service: "open" if self._is_open(service) else "closed" for service in self._services}

    def call(self, operation: Callable[[], T], service: str | None = None) -> T:
        """Calls `operation` once, and notes whether its service answered.

        Raises:
            ServiceAwayError: the breaker of `service` is open; `operation` was not called.
        """
        if service is not None:
            self._enter(service)
        try:
            result = operation()
        except TransientError as error:
            self._failed(error)
            raise
        except Exception:
            self._answered(service)
            raise
        self._answered(service)
        return result

    def _enter(self, service: str) -> None:
        with self._lock:
            breaker = self._factory.get_breaker(service)
            opened_at = self._opened_at.get(service)
            if opened_at is not None and self._clock() - opened_at >= self._pause_s:
                breaker.context.set_state(HalfOpenedState())
            try:
                breaker.__enter__()
            except OpenedState:
                raise ServiceAwayError(service) from None

    def _failed(self, error: TransientError) -> None:
        if isinstance(error, ServiceAwayError):
            return
        _log.debug("service did not answer", service=error.service, error=str(error))
        with self._lock:
            if self._metrics is not None:
                self._metrics.retries.labels(error.service).inc()
            self._factory.get_breaker(error.service).__exit__(type(error), error, None)

    def _answered(self, service: str | None) -> None:
        if service is not None:
            with self._lock:
                self._factory.get_breaker(service).__exit__(None, None, None)

    def _changed(self, service: str, _: str, event: object) -> None:
        """Called by purgatory, with the lock held."""
        now = self._clock()
        if isinstance(event, CircuitBreakerCreated):
            self._services.add(service)
            if self._metrics is not None:
                self._metrics.breaker_open.labels(service).set_function(partial(self._is_open, service))
                for change in ("opened", "closed"):
                    self._metrics.breaker_changes.labels(service, change)
        elif isinstance(event, ContextChanged) and event.state == OPENED:
            self._opened_at[service] = now
            if service not in self._away_since:
                self._count(service, "opened")
                self._away_since[service] = now
                _log.warning("service away", service=service)
        elif isinstance(event, ContextChanged) and event.state == CLOSED:
            self._opened_at.pop(service, None)
            self._count(service, "closed")
            away_s = now - self._away_since.pop(service, now)
            _log.warning("service back", service=service, away_s=round(away_s, 3))

    def _count(self, service: str, event: str) -> None:
        if self._metrics is not None:
            self._metrics.breaker_changes.labels(service, event).inc()

    def _is_open(self, service: str) -> bool:
        opened_at = self._opened_at.get(service)
        return opened_at is not None and self._clock() - opened_at < self.STALE_S
