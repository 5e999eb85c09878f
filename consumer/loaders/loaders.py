"""Runs the loaders of a worker or a command: one load each at a time, watched by the thread that waits for it."""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from consumer.loaders.process import Ended, Loader
from consumer.loaders.turns import Turns
from pipeline.datasets import Abandoned, Content, Fetched, LoadAbandoned, reading
from pipeline.errors import RejectedError, TransientError

log = logging.getLogger(__name__)

SERVICE = "dataset loader"
WATCH_S = 0.1
"""How often to check time, memory and whether the load is abandoned."""
START_S = 60.0
"""The longest that a loader's imports may take; half a second on an idle machine."""
CRASHES = frozenset({signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT, signal.SIGFPE, signal.SIGILL, signal.SIGTRAP})
"""Signals that end a process whose parser fails on the bytes; any other signal was sent from outside."""
NO_MEMORY = "std::bad_alloc"
"""What C++ writes before it aborts for lack of memory, in libraries that do not catch it."""
LONGEST_NAME = 255
"""The most characters of a file's name: GridFS takes any number, a datagram does not."""
GROWTH_BYTES = 256 * 2**20
"""A loader is replaced if it keeps more than this beyond its memory before the first load."""


class Loaders:
    """Runs at most `count` loads at once, the others wait; starts a loader if one is needed and none is idle.

    `load` keeps the contract of `pipeline.datasets.Read`; any thread may call it.  A file that crashes its loader, or
    takes more than `max_time_s` or `max_memory_bytes` (beyond what a loader takes itself), is rejected, and the loader
    is replaced.
    """

    def __init__(
        self, count: int, max_time_s: float, max_memory_bytes: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._count = count
        self._max_time_s = max_time_s
        self._max_memory_bytes = max_memory_bytes
        self._clock = clock
        self._turns = Turns(count)
        self._idle: list[Loader] = []
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        # The kernel kills a loader when the thread that started it ends. Callers' threads may end, this one does not.
        self._starter = ThreadPoolExecutor(1, thread_name_prefix="loaders")

    def load(self, fetched: Fetched, into: Path, max_bytes: int | None, abandoned: Abandoned | None = None) -> Content:
        """See `pipeline.datasets.Read`.  Raises TransientError if no loader can be started."""

        def check() -> None:
            if self._stopped.is_set() or (abandoned is not None and abandoned.is_set()):
                raise LoadAbandoned

        job = {
            "name": fetched.name,
            "path": str(fetched.path),
            "file_name": None if fetched.file_name is None else fetched.file_name[-LONGEST_NAME:],
            "is_typed": fetched.is_typed,
            "is_archive": fetched.is_archive,
            "options": {"keep_texts": fetched.options.keep_texts, **fetched.options.to_document()},
            "into": str(into),
            "max_bytes": max_bytes,
            "max_memory_bytes": self._max_memory_bytes,
        }
        try:
            with self._turns.take(1, check):
                return self._attempt(fetched, job, check)
        except _KilledFromOutside:  # mostly by the kernel, for lack of memory on the machine
            log.warning("a loader was killed from outside; it tries again alone", extra={"dataset": fetched.name})
        try:
            with self._turns.take(self._count, check):
                return self._attempt(fetched, job, check)
        except _KilledFromOutside:
            why = "had its reader killed by the machine twice, the second time while it ran alone"
            raise self._rejected(fetched, why) from None

    def stop(self) -> None:
        """End all loaders; running loads, and all later ones, raise LoadAbandoned."""
        self._stopped.set()
        with self._turns.take(self._count, lambda: None), self._lock:
            for loader in self._idle:
                loader.kill()
            self._idle.clear()
        self._starter.shutdown()

    def _attempt(self, fetched: Fetched, job: dict[str, Any], check: Callable[[], None]) -> Content:
        loader, keep = self._idle_one() or self._start(), False
        try:
            if loader.fresh_bytes is None:
                self._await_ready(loader, check)
            answer = self._answer(loader, fetched, job, check)
            keep = not answer["last"] and answer["private_bytes"] <= (loader.fresh_bytes or 0) + GROWTH_BYTES
        finally:
            if keep:
                with self._lock:
                    self._idle.append(loader)
            else:
                loader.kill()
        return self._content(fetched, answer)

    def _idle_one(self) -> Loader | None:
        """An idle loader that is still alive, or None."""
        with self._lock:
            while self._idle:
                loader = self._idle.pop()
                if loader.alive:
                    return loader
                loader.kill()
        return None

    def _start(self) -> Loader:
        try:
            return self._starter.submit(Loader.start).result()
        except RuntimeError as error:
            if self._stopped.is_set():
                raise LoadAbandoned from error
            raise TransientError(SERVICE, f"cannot be started: {error}") from error
        except OSError as error:
            raise TransientError(SERVICE, f"cannot be started: {error.strerror}") from error

    def _await_ready(self, loader: Loader, check: Callable[[], None]) -> None:
        deadline = self._clock() + START_S
        try:
            while (message := loader.hear(WATCH_S)) is None:
                check()
                if self._clock() > deadline:
                    raise TransientError(SERVICE, f"was not ready within {START_S:g} s")
        except Ended as ended:
            _log_lines(loader.written(), "")
            raise TransientError(SERVICE, f"ended as soon as it was started ({ended})") from ended
        loader.fresh_bytes = message["ready"]

    def _answer(
        self, loader: Loader, fetched: Fetched, job: dict[str, Any], check: Callable[[], None]
    ) -> dict[str, Any]:
        try:
            loader.ask(job)
            while True:
                message = loader.hear(WATCH_S)
                _log_lines(loader.written(), fetched.name)
                if message is not None and "log" not in message:
                    return message
                if message is not None:
                    _log_lines([message["log"]], fetched.name)
                check()
                self._enforce(loader, fetched)
        except Ended as ended:
            written = loader.written()
            _log_lines(written, fetched.name)
            if any(NO_MEMORY in line for line in written):
                raise self._too_large(fetched) from ended
            if ended.signal in CRASHES:
                raise self._rejected(fetched, f"crashes the reader ({ended})") from ended
            if ended.signal is not None:
                raise _KilledFromOutside from ended
            raise LoaderError(f"the loader of dataset {fetched.name!r} ended by itself ({ended})") from ended

    def _enforce(self, loader: Loader, fetched: Fetched) -> None:
        if loader.spent_s() > self._max_time_s:
            limit = f"{self._max_time_s:g} s (DATASET_LOAD_TIME)"
            raise self._rejected(fetched, f"takes more than {limit} to be read")
        if loader.grown_bytes() > self._max_memory_bytes:
            raise self._too_large(fetched)

    def _content(self, fetched: Fetched, answer: dict[str, Any]) -> Content:
        if "rejected" in answer:
            raise RejectedError(answer["rejected"])
        if "full" in answer:
            raise OSError(answer["full"], os.strerror(answer["full"]))
        if "memory" in answer:
            raise self._too_large(fetched)
        return Content(**answer["read"])

    def _too_large(self, fetched: Fetched) -> RejectedError:
        limit = f"{self._max_memory_bytes / 2**20:,.0f} MiB (MAX_TRAINING_MEMORY)"
        return self._rejected(fetched, f"takes more than {limit} to be read")

    def _rejected(self, fetched: Fetched, why: str) -> RejectedError:
        return RejectedError(f"dataset {fetched.name!r}: {reading.shown(fetched)} {why}")


class LoaderError(Exception):
    """A loader has ended by itself, without a known fault of the file: a bug, or a broken installation."""


class _KilledFromOutside(Exception):  # noqa: N818 - an event, not a malfunction of ours
    """A signal that we did not send has ended the loader."""


def _log_lines(lines: list[str], dataset: str) -> None:
    for line in lines:
        log.warning(line, extra={"dataset": dataset})
