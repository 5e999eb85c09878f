"""Extends the worker's lease every few seconds; the answers carry cancels."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field

from consumer.threads.neighbour import Periodic, Surroundings
from pipeline.errors import TransientError
from pipeline.ledger import Cancel, Ledger, Owner

LEASE_S = 10.0
INTERVAL_S = 3.0
RETRY_S = 0.5


@dataclass(slots=True)
class Steady:
    """Since when the ledger has answered without an error. Any thread may call `broke`."""

    clock: Callable[[], float] = time.monotonic
    since: float = field(init=False)

    def __post_init__(self) -> None:
        self.since = self.clock()

    def broke(self, _: TransientError | None = None) -> None:
        self.since = self.clock()

    def for_a_lease(self) -> bool:
        """Whether the ledger has answered for a whole lease: only then does an expired lease mean a dead worker."""
        return self.clock() - self.since >= LEASE_S


@dataclass(frozen=True, slots=True)
class Beat:
    """The lease was extended; `cancels` are by request_id."""

    cancels: Mapping[str, Cancel]


def begin_life(worker_id: str, ledger: Ledger) -> Owner:
    """Begin a new life of the worker with a running lease; without one its claims would look like a dead worker's."""
    me = ledger.boot(worker_id)
    ledger.heartbeat(me, LEASE_S, ())
    return me


class Heartbeat(Periodic):
    """Extends the lease with one write every INTERVAL_S. A SupersededError ends the worker."""

    def __init__(
        self,
        me: Owner,
        ledger: Ledger,
        *,
        watched: Callable[[], Collection[str]],
        steady: Steady,
        around: Surroundings,
    ) -> None:
        super().__init__("heartbeat", around, INTERVAL_S)
        self._me = me
        self._ledger = ledger
        self._watched = watched
        self._steady = steady
        self._answered = True
        self.beat_at = time.monotonic()

    def open(self) -> None:
        self.step()

    def work(self) -> None:
        watched = self._watched()
        self._answered = False
        try:
            cancels = self._ledger.heartbeat(self._me, LEASE_S, watched)
        except TransientError as error:
            self._steady.broke(error)
            raise
        self._answered = True
        self.beat_at = time.monotonic()
        self._deliver(Beat(cancels))

    def pause_s(self) -> float:
        return INTERVAL_S if self._answered else RETRY_S
