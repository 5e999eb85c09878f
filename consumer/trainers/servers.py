"""The forkservers of a worker, one per framework: started, told what to do, and heard."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import orjson
import structlog

from consumer.system.processes import THREAD_VARIABLES, without_credentials
from consumer.trainers.forkserver import CONTROL_LIMIT_BYTES

log = structlog.get_logger(__name__)

IMPORT_LIMIT_S = 300.0
"""On a busy machine Keras takes half a minute."""
ENDING_S = 10.0
"""For a forkserver that was told to end, and may still be importing."""


@dataclass(slots=True)
class _Server:
    process: subprocess.Popen[bytes]
    control: socket.socket
    started_at: float
    ready: bool = False


@dataclass(slots=True)
class Servers:
    """Owned by the worker's thread; the empty name is the forkserver without a framework."""

    threads_per_training: int
    _running: dict[str, _Server] = field(default_factory=dict)

    def start(self, framework: str) -> None:
        """Unless it runs, or another still imports: two at once would leave trainings no CPU.

        Returns before it is ready.
        """
        if framework in self._running or not all(server.ready for server in self._running.values()):
            return
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        threads = dict.fromkeys(THREAD_VARIABLES, str(self.threads_per_training))
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "consumer.trainers.forkserver", str(theirs.fileno()), framework],
            pass_fds=[theirs.fileno()],
            start_new_session=True,
            stdin=subprocess.DEVNULL,
            env=without_credentials(os.environ) | threads | {"OMP_WAIT_POLICY": "PASSIVE"},
        )
        theirs.close()
        ours.setblocking(False)
        self._running[framework] = _Server(process, ours, time.monotonic())

    def end_late(self) -> None:
        """Kill what has not imported its framework within IMPORT_LIMIT_S, which then counts as ended."""
        for server in self._running.values():
            if not server.ready and time.monotonic() - server.started_at > IMPORT_LIMIT_S:
                server.process.kill()

    def alive(self, framework: str) -> bool:
        server = self._running.get(framework)
        return server is not None and server.process.poll() is None

    def ready(self, framework: str) -> bool:
        """Whether it has imported its framework, and forks at once."""
        server = self._running.get(framework)
        return server is not None and server.ready

    def descriptors(self) -> Iterator[socket.socket]:
        return (server.control for server in self._running.values())

    def tell(self, framework: str, command: dict[str, object], *descriptors: int) -> None:
        """What one that has ended does not hear is noticed when it is listened to."""
        with suppress(BrokenPipeError, ConnectionResetError):
            socket.send_fds(self._running[framework].control, [orjson.dumps(command)], descriptors)

    def heard(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """By framework what the forkservers said of trainers since the last call; of one that has ended last
        `{"ended": code, "ready": whether it had been}`."""
        for framework, server in tuple(self._running.items()):
            while True:
                try:
                    datagram = server.control.recv(CONTROL_LIMIT_BYTES)
                except BlockingIOError:
                    break
                except ConnectionResetError:
                    datagram = b""
                if not datagram:
                    del self._running[framework]
                    server.control.close()
                    yield framework, {"ended": _ended(server.process), "ready": server.ready}
                    break
                message = orjson.loads(datagram)
                if "ready" in message:
                    server.ready = True
                else:
                    yield framework, message

    def stop(self) -> None:
        """Each kills its trainers, and ends."""
        for server in self._running.values():
            server.control.close()
        for server in self._running.values():
            _ended(server.process)
        self._running.clear()


def _ended(process: subprocess.Popen[bytes]) -> int:
    """The exit code of one that was told to end, or that has closed its socket; its trainers end with it."""
    try:
        return process.wait(ENDING_S)
    except subprocess.TimeoutExpired:
        log.warning("a forkserver did not end, and was killed", pid=process.pid)
        process.kill()
        return process.wait()
