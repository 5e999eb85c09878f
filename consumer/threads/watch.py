"""Reports threads that have not answered for their limit.

Every thread stamps when it took its order. A thread of this process looks at the stamps each second and logs who
stands still, with its stack. That needs the interpreter, so a second process (`watcher`) sees whether the looks come.
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
"""How long no thread of the process may get at the interpreter."""
AGAIN_S = 60.0
"""A watcher that has ended is started again, at most this often."""
_ROOT = Path(__file__).parents[2]
_START = "import sys; sys.path.append(sys.argv[1]); from consumer.threads.watcher import main; main(*sys.argv[2:])"


class Watch:
    """Safe to use from any thread.  One that was not started tells who is stuck when it is asked, and logs nothing.

    Args:
        worker_id: named in each line that is logged.
        held_limit_s: how long the interpreter may be held.
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
        """Called in the thread that is to be watched, which may take `limit_s` for an order; the same name replaces."""
        with self._adding:
            return self._stamps.add(thread, limit_s, threading.get_ident(), self._clock)

    def stuck(self) -> Mapping[str, float]:
        """By name the threads that are beyond their limit, with their seconds."""
        return self._stamps.stuck(self._clock())

    def busy_s(self) -> Mapping[str, float]:
        """By name the seconds since each thread took its order, 0 while it rests; `interpreter` is there too."""
        return self._stamps.busy_s(self._clock())

    def limits_s(self) -> Mapping[str, float]:
        """By name what each of them may take."""
        return self._stamps.limits_s()

    def start(self, listening: socket.socket) -> None:
        """Looks each second from now on.

        Args:
            listening: the port's socket, on which the watcher answers while this process cannot.  The port stays
                open until `stop`, or the end of this process, even if it is closed here.
        """
        self._stamps.looked(self._clock())
        self._listening = listening
        self._start_watcher()
        self._thread.start()

    def stop(self) -> None:
        """May be called twice, and if never started."""
        if self._thread.is_alive():
            self._stopping.set()
            self._thread.join()
            self._stamps.unwatched()
        if self._watcher is not None:
            self._watcher.end()
            self._watcher = None

    def look(self) -> None:
        """One look: logs what has begun to stand still since the last, and what goes on again."""
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
    """The watcher as the worker has it.

    It ends when the pipe's end here is closed, as it is when this process dies in whatever way. The same pipe takes it
    the stacks: faulthandler writes them in the signal's handler, which needs no interpreter and must never wait.
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
        """In this order: its signal would end the worker once nobody handles it."""
        self._process.kill()
        self._process.wait()
        faulthandler.unregister(signal.SIGUSR2)
        os.close(self._pipe)
