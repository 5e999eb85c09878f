"""Base classes of the threads beside the main one: orders in, answers out, one piece of work at a time.

    worker ──order──▶ neighbour ──message──▶ the worker's inbox

There are three kinds, by what they wait for: `Ordered` for the next order, `Periodic` for the time, `Polling` for a
Kafka record. `step()` does one piece of work; tests call it without a thread. There are two ways to end:

- `finish()`: carry out the orders given so far, then end;
- `give_up()`: try the current piece of work at most once more, drop all waiting orders, and end.

An error about one request is contained where it occurs (`containment`). Any other exception of `step()` is delivered as
`ThreadFailed`, and the worker ends.
"""

from __future__ import annotations

import queue
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, TypeVar

import structlog

from consumer.telemetry.metrics import Metrics
from consumer.threads.retrying import Breakers, Stopped, until_answered
from consumer.threads.stamps import Turn
from consumer.threads.watch import Watch
from pipeline.errors import TransientError

log = structlog.get_logger(__name__)

T = TypeVar("T")

BUSY_LIMIT_S = 60.0
"""A thread is stuck if a piece of work takes longer, not counting waits for a service that is away."""
TRANSFER_LIMIT_S = 900.0
"""The same for work that moves files, which may have gigabytes."""


@dataclass(frozen=True, slots=True)
class ThreadFailed:
    """A thread ended with an error: the worker must end, and report it."""

    thread: str
    error: BaseException


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What all neighbours of one worker share."""

    deliver: Callable[[Any], None]
    breakers: Breakers = field(default_factory=Breakers)
    metrics: Metrics = field(default_factory=Metrics)
    watch: Watch = field(default_factory=Watch)


class Neighbour(ABC):
    """One or more threads that share their orders. Any thread may call `start`, `finish`, `give_up` and `join`."""

    def __init__(
        self, name: str, around: Surroundings, *, threads: int = 1, busy_limit_s: float = BUSY_LIMIT_S
    ) -> None:
        self.name = name
        self._deliver = around.deliver
        self._breakers = around.breakers
        self._metrics = around.metrics
        self._watch = around.watch
        self._busy_limit_s = busy_limit_s
        self._finishing = threading.Event()
        self._given_up = threading.Event()
        self._local = threading.local()
        names = [name] if threads == 1 else [f"{name}-{number}" for number in range(threads)]
        self._threads = [threading.Thread(target=self._run, name=one, daemon=True) for one in names]

    @abstractmethod
    def step(self) -> bool:
        """Do one piece of work; False if there was none."""

    @abstractmethod
    def _go_round(self) -> None:
        """Take steps until told to end."""

    def open(self) -> None:  # noqa: B027 - most have nothing to do
        """Called in the thread before the first step; may wait for a service."""

    def close(self) -> None:  # noqa: B027
        """Called in the thread after the last step, however it ended."""

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def join(self, timeout_s: float | None = None) -> None:
        for thread in self._threads:
            thread.join(timeout_s)

    def is_alive(self) -> bool:
        return any(thread.is_alive() for thread in self._threads)

    def finish(self) -> None:
        self._finishing.set()

    def give_up(self) -> None:
        self._given_up.set()
        self.finish()

    def answered(
        self,
        operation: Callable[[], T],
        *,
        service: str | None = None,
        on_retry: Callable[[TransientError], None] | None = None,
    ) -> T:
        """Retry `operation` until its service answers.  Raises Stopped if this neighbour gives up first.

        A thread that waits for a service is not stuck: each attempt restarts the watch's clock.
        """

        def told(error: TransientError) -> None:
            self.turn.begin()
            if on_retry is not None:
                on_retry(error)

        return until_answered(operation, breakers=self._breakers, stop=self._given_up, service=service, on_retry=told)

    @property
    def turn(self) -> Turn:
        """The calling thread's entry in the watch."""
        turn: Turn | None = getattr(self._local, "turn", None)
        if turn is None:
            turn = self._local.turn = self._watch.turn(threading.current_thread().name, self._busy_limit_s)
        return turn

    def _run(self) -> None:
        try:
            self.turn.begin()
            self.open()
            self._go_round()
        except Stopped:
            log.info("thread gave up waiting for a service", thread=self.name)
        except Exception as error:  # noqa: BLE001 - handed to the worker, which ends
            self._deliver(ThreadFailed(self.name, error))
        finally:
            self.close()
            self.turn.rest()


class Ordered(Neighbour):
    """Carries out orders in the order given; with several threads, several at once."""

    def __init__(
        self, name: str, around: Surroundings, *, threads: int = 1, busy_limit_s: float = BUSY_LIMIT_S
    ) -> None:
        super().__init__(name, around, threads=threads, busy_limit_s=busy_limit_s)
        self._orders: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()

    def order(self, work: Callable[[], None]) -> None:
        self._orders.put(work)

    def finish(self) -> None:
        super().finish()
        for _ in self._threads:
            self._orders.put(None)

    def step(self) -> bool:
        with suppress(queue.Empty):
            if (work := self._orders.get_nowait()) is not None:
                work()
                return True
        return False

    def _go_round(self) -> None:
        self.turn.rest()
        while (work := self._orders.get()) is not None and not self._given_up.is_set():
            self.turn.begin()
            work()
            self.turn.rest()


class Periodic(Neighbour):
    """Takes a step every `every_s`; a step that fails because a service is away is left to the next one."""

    def __init__(self, name: str, around: Surroundings, every_s: float, *, busy_limit_s: float = BUSY_LIMIT_S) -> None:
        super().__init__(name, around, busy_limit_s=busy_limit_s)
        self._every_s = every_s

    @abstractmethod
    def work(self) -> None:
        """The work of one step; may raise TransientError."""

    def last_work(self) -> None:
        """Called once at the end; may raise TransientError."""

    def pause_s(self) -> float:
        """Seconds until the next step."""
        return self._every_s

    def step(self) -> bool:
        try:
            self._breakers.call(self.work)
        except TransientError as error:
            log.debug("thread skips a turn: a service is away", thread=self.name, why=str(error))
            return False
        return True

    def _go_round(self) -> None:
        self.turn.rest()
        while not self._finishing.wait(self.pause_s()):
            self.turn.begin()
            self.step()
            self.turn.rest()
        self.turn.begin()
        with suppress(TransientError):
            self.last_work()


class Polling(Neighbour):
    """Owns a Kafka consumer: `step` polls with a short timeout."""

    def _go_round(self) -> None:
        while not self._finishing.is_set():
            self.turn.begin()
            self.step()
