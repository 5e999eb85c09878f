"""Keeps the worker's lease alive, and hears of cancels while it is at it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

import structlog

from consumer.claims import LEASE_S, Steady
from consumer.failures import ThreadFailed
from consumer.waiting import Breakers
from pipeline.errors import TransientError
from pipeline.ledger import Cancel, Ledger, Owner

log = structlog.get_logger(__name__)

INTERVAL_S = 3.0
RETRY_S = 0.5


@dataclass(frozen=True, slots=True)
class Beat:
    """The lease was extended; these requests are to be cancelled."""

    cancels: Mapping[str, Cancel]


def begin_life(worker_id: str, ledger: Ledger) -> Owner:
    """A new life of the worker. Its lease runs: what it claims before a first beat would pass for a dead worker's."""
    me = ledger.boot(worker_id)
    ledger.heartbeat(me, LEASE_S, ())
    return me


class Heartbeat(threading.Thread):
    """One write every INTERVAL_S, whatever the worker holds."""

    def __init__(
        self,
        me: Owner,
        ledger: Ledger,
        *,
        watched: Callable[[], Collection[str]],
        steady: Steady,
        breakers: Breakers,
        deliver: Callable[[Beat | ThreadFailed], None],
    ) -> None:
        super().__init__(name="heartbeat", daemon=True)
        self._me = me
        self._ledger = ledger
        self._watched = watched
        self._steady = steady
        self._breakers = breakers
        self._deliver = deliver
        self._stopping = threading.Event()
        self.beat_at = time.monotonic()

    def stop(self) -> None:
        self._stopping.set()

    def run(self) -> None:
        """A SupersededError ends the worker: a newer process runs under our name."""
        try:
            while not self._stopping.wait(INTERVAL_S if self._beat() else RETRY_S):
                pass
        except Exception as error:  # noqa: BLE001 - handed to the worker, which ends
            self._deliver(ThreadFailed(self.name, error))

    def _beat(self) -> bool:
        watched = self._watched()
        try:
            cancels = self._breakers.call(lambda: self._ledger.heartbeat(self._me, LEASE_S, watched))
        except TransientError as error:
            self._steady.broke(error)
            return False
        self.beat_at = time.monotonic()
        self._deliver(Beat(cancels))
        return True
