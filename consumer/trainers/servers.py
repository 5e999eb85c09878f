"""Starts and commands a worker's forkservers, one per framework, and reads their messages."""

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
"""The longest that imports may take; Keras takes half a minute on a busy machine."""
ENDING_S = 10.0
"""The longest that a forkserver told to end may take; it may still be importing."""


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
        """Start a framework's forkserver; returns before it is ready.

        Does nothing if it runs, or while another one imports: two at once would leave trainings no CPU.
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
        """Kill forkservers that have not imported their framework within IMPORT_LIMIT_S."""
        for server in self._running.values():
            if not server.ready and time.monotonic() - server.started_at > IMPORT_LIMIT_S:
                server.process.kill()

    def alive(self, framework: str) -> bool:
        server = self._running.get(framework)
        return server is not None and server.process.poll() is None

    def ready(self, framework: str) -> bool:
        """Whether the framework's forkserver has imported it, and can fork at once."""
        server = self._running.get(framework)
        return server is not None and server.ready

    def descriptors(self) -> Iterator[socket.socket]:
        return (server.control for server in self._running.values())

    def tell(self, framework: str, command: dict[str, object], *descriptors: int) -> None:
        """Send a command. A forkserver that has ended does not get it; `heard` reports that it has ended."""
        with suppress(BrokenPipeError, ConnectionResetError):
            socket.send_fds(self._running[framework].control, [orjson.dumps(command)], descriptors)

    def heard(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """The forkservers' messages about trainers since the last call, each with the framework.

        The last message of a forkserver that has ended is `{"ended": code, "ready": whether it was ready}`.
        """
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
        """End all forkservers; each kills its trainers first."""
        for server in self._running.values():
            server.control.close()
        for server in self._running.values():
            _ended(server.process)
        self._running.clear()


def _ended(process: subprocess.Popen[bytes]) -> int:
    """Wait for the exit code of a forkserver that was told to end or has closed its socket; kill it after ENDING_S."""
    try:
        return process.wait(ENDING_S)
    except subprocess.TimeoutExpired:
        log.warning("a forkserver did not end, and was killed", pid=process.pid)
        process.kill()
        return process.wait()
