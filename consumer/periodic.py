"""A thread that does one thing every few seconds, for as long as the worker lives."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import suppress

import structlog

from consumer.failures import ThreadFailed
from consumer.waiting import Breakers
from pipeline.errors import TransientError

log = structlog.get_logger(__name__)


class Periodic(threading.Thread, ABC):
    """Takes a turn every `every_s`; one that met a service which is away is made up for by the next."""

    def __init__(
        self, name: str, every_s: float, *, breakers: Breakers, deliver: Callable[[ThreadFailed], None]
    ) -> None:
        super().__init__(name=name, daemon=True)
        self._every_s = every_s
        self._breakers = breakers
        self._deliver = deliver
        self._stopping = threading.Event()

    @abstractmethod
    def turn(self) -> None:
        """May raise TransientError."""

    def last_turn(self) -> None:
        """Once, when the worker stops; may raise TransientError."""

    def stop(self) -> None:
        self._stopping.set()

    def run(self) -> None:
        try:
            while not self._stopping.wait(self._every_s):
                try:
                    self._breakers.call(self.turn)
                except TransientError as error:
                    log.info(f"{self.name} wait", why=str(error))
            with suppress(TransientError):
                self.last_turn()
        except Exception as error:  # noqa: BLE001 - handed to the worker, which ends
            self._deliver(ThreadFailed(self.name, error))
