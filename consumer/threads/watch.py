"""Reports threads that are stuck: busy with one piece of work for longer than their limit.

Every thread stamps when it began its work. A thread of this process reads the stamps each second, and logs a stuck
thread with its stack. That needs the interpreter, so a second process (`watch_process`) checks that the reads happen.
"""

from __future__ import annotations

import faulthandler
import math
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

import structlog

from consumer.threads import stacks
from consumer.threads.stamps import LOOK_S, Stamps, Thread, Turn

log = structlog.get_logger(__name__)

HELD_LIMIT_S = 30.0
"""The longest time for which no thread of the process may get the interpreter."""
AGAIN_S = 60.0
"""The least time between two starts of the watcher."""
_ROOT = Path(__file__).parents[2]
_START = (
    "import sys; sys.path.append(sys.argv[1]); from consumer.threads.watch_process import main; main(*sys.argv[2:])"
)


class Watch:
    """Safe to use from any thread.  Without `start` it reports stuck threads when asked, and logs nothing.

    Args:
        worker_id: on each log line.
        held_limit_s: how long one thread may hold the interpreter.
        clock: seconds, monotonic.
    """

    def __init__(
        self, worker_id: str = "", *, held_limit_s: float = HELD_LIMIT_S, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._worker_id = worker_id
        self._clock = clock
        self._stamps = Stamps()
        self._stamps.begin(held_limit_s)
        self._adding = threading.Lock()
        self._told: set[str] = set()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)
        self._watcher: _Process | None = None
        self._watcher_since = -math.inf

    def turn(self, thread: str, limit_s: float) -> Turn:
        """Watch the calling thread, which may take `limit_s` for a piece of work; replaces one of the same name."""
        with self._adding:
            return self._stamps.add(thread, limit_s, threading.get_ident(), self._clock)

    def stuck(self) -> Mapping[str, float]:
        """The threads beyond their limit: their seconds, by name."""
        return self._stamps.stuck(self._clock())

    def busy_s(self) -> Mapping[str, float]:
        """By name, the seconds since each thread began its work, 0 while it rests; includes `interpreter`."""
        return self._stamps.busy_s(self._clock())

    def limits_s(self) -> Mapping[str, float]:
        """By name, the seconds that each of them may take."""
        return self._stamps.limits_s()

    def start(self, listening: socket.socket) -> None:
        """Begin to look each second.

        Args:
            listening: the port's socket, on which the watcher answers while this process cannot.  The watcher keeps the
                port open until `stop` or the end of this process, even if the socket is closed here.
        """
        self._stamps.looked(self._clock())
        self._listening = listening
        self._start_watcher()
        self._thread.start()

    def stop(self) -> None:
        """Stop looking. May be called twice, and without `start`."""
        if self._thread.is_alive():
            self._stopping.set()
            self._thread.join()
            self._stamps.unwatched()
        if self._watcher is not None:
            self._watcher.end()
            self._watcher = None

    def look(self) -> None:
        """Log the threads that got stuck since the last look, and those that go on again."""
        self._stamps.looked(self._clock())
        stuck = self._stamps.stuck(self._clock())
        for thread in self._stamps.threads():
            if thread.name in stuck and thread.name not in self._told:
                self._stands_still(thread, stuck[thread.name])
            elif thread.name in self._told and thread.name not in stuck:
                log.warning("thread goes on again", thread=thread.name, worker_id=self._worker_id)
        self._told = set(stuck)

    def _stands_still(self, thread: Thread, busy_s: float) -> None:
        log.error(
            "thread stands still",
            thread=thread.name,
            seconds=round(busy_s, 1),
            limit_s=thread.limit_s,
            stacks={thread.name: stacks.of_thread(thread.ident)},
            worker_id=self._worker_id,
        )

    def _run(self) -> None:
        while not self._stopping.wait(LOOK_S):
            self.look()
            if self._watcher is None or self._watcher.ended:
                with suppress(OSError):  # no memory, no descriptors: again in a while
                    self._start_watcher()

    def _start_watcher(self) -> None:
        if self._clock() - self._watcher_since < AGAIN_S:
            return
        self._watcher_since = self._clock()
        if self._watcher is not None:
            log.warning("the watcher has ended, and is started again", worker_id=self._worker_id)
            self._watcher.end()
            self._watcher = None
            self._stamps.held(0.0)
        self._watcher = _Process(self._stamps, self._listening, self._worker_id)


class _Process:
    """The worker's handle on the watcher process.

    The watcher ends when our end of the pipe closes, which also happens when this process dies. The same pipe carries
    the stacks: faulthandler writes them in a signal handler, which needs no interpreter and must never block.
    """

    def __init__(self, stamps: Stamps, listening: socket.socket, worker_id: str) -> None:
        theirs, self._pipe = os.pipe()
        os.set_blocking(self._pipe, False)
        fds = (stamps.fd, theirs, listening.fileno())
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", _START, str(_ROOT), str(os.getpid()), worker_id, *map(str, fds)],
                pass_fds=fds,
                start_new_session=True,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                env={name: os.environ[name] for name in ("LD_LIBRARY_PATH",) if name in os.environ},
            )
        except BaseException:
            os.close(self._pipe)
            raise
        finally:
            os.close(theirs)
        faulthandler.register(signal.SIGUSR2, file=self._pipe, all_threads=True, chain=False)

    @property
    def ended(self) -> bool:
        return self._process.poll() is not None

    def end(self) -> None:
        """Kill the watcher before unregistering the handler: an unhandled SIGUSR2 from it would end the worker."""
        self._process.kill()
        self._process.wait()
        faulthandler.unregister(signal.SIGUSR2)
        os.close(self._pipe)
