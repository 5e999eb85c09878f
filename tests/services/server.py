"""A real server as a process: started, probed, stopped, killed, paused, and gone when its owner is."""

import contextlib
import fcntl
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Self

import pytest

SUPERVISOR = Path(__file__).with_name("supervisor.py")
PROBE_INTERVAL_S = 0.05
STOP_WITHIN_S = 10.0


class UnavailableError(Exception):
    """A server cannot be had here; the message is one line that says why."""


class Server:
    """One server on fixed ports and a directory of its own, so that it can die and come back as itself.

    `answers` is the probe: whether the server does its real work by now. A detached server outlives this process;
    any other one is killed, and its directory removed, as soon as this process is gone, even by kill -9. Not for
    use by several threads at once.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str | Path],
        directory: Path,
        answers: Callable[[], bool],
        *,
        environment: Mapping[str, str] | None = None,
        working_directory: Path | None = None,
        detached: bool = False,
        ready_within_s: float = 120.0,
    ) -> None:
        self.name = name
        self.directory = directory
        self.pid = 0
        self.command = [str(part) for part in command]
        self._answers = answers
        self._environment = {**os.environ, **(environment or {})}
        self._working_directory = working_directory or directory
        self._detached = detached
        self._ready_within_s = ready_within_s
        self._process: subprocess.Popen[str] | None = None
        self._paused = False

    @property
    def log(self) -> Path:
        return self.directory / "server.log"

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def launch(self) -> Self:
        """The first start: where it fails, nothing is left behind."""
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def start(self) -> None:
        """Start it on its ports and data, and return when it answers."""
        with self.log.open("a") as log:
            if self._detached:
                self._process = self._spawn(self.command, log, stdout=log)
                self.pid = self._process.pid
            else:
                self._process, self.pid = self._spawn_supervised(log)
        self._wait_ready(self._process)

    def stop(self) -> None:
        """End it as an operator would: SIGTERM, and SIGKILL if that takes too long."""
        if self._process is None:
            return
        self.resume()
        self._signal(signal.SIGTERM)
        try:
            self._process.wait(STOP_WITHIN_S)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """kill -9, and return when it is gone."""
        if self._process is not None:
            self._signal(signal.SIGKILL)
            self._process.wait()
        self._paused = False

    def restart(self) -> None:
        """Stop it if it runs, then start it on the same ports and data."""
        self.stop()
        self.start()

    def pause(self) -> None:
        """SIGSTOP: connections stay open and nothing answers, until `resume`."""
        self._signal(signal.SIGSTOP)
        self._paused = True

    def resume(self) -> None:
        if self._paused:
            self._signal(signal.SIGCONT)
        self._paused = False

    def revive(self) -> None:
        """Whatever was done to it, have it running again; costs nothing where it runs."""
        self.resume()
        if not self.running:
            self.start()

    def close(self) -> None:
        """End it for good and remove its data."""
        self.kill()
        shutil.rmtree(self.directory, ignore_errors=True)

    def _spawn(self, command: Sequence[str], log: IO[str], stdout: IO[str] | int) -> subprocess.Popen[str]:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=log,
            cwd=self._working_directory,
            env=self._environment,
            start_new_session=True,
            text=True,
        )

    def _spawn_supervised(self, log: IO[str]) -> tuple[subprocess.Popen[str], int]:
        supervisor = [sys.executable, "-I", "-S", str(SUPERVISOR), str(os.getpid()), str(self.directory)]
        process = self._spawn([*supervisor, *self.command], log, stdout=subprocess.PIPE)
        assert process.stdout is not None
        with process.stdout as answer:
            pid = answer.readline()
        if not pid:
            process.wait()
            raise UnavailableError(f"{self.name} could not be started: {self._last_words()}")
        return process, int(pid)

    def _signal(self, number: signal.Signals) -> None:
        if self.running:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def _wait_ready(self, process: subprocess.Popen[str]) -> None:
        deadline = time.monotonic() + self._ready_within_s
        while not self._answers():
            with contextlib.suppress(subprocess.TimeoutExpired):
                code = process.wait(PROBE_INTERVAL_S)
                raise UnavailableError(f"{self.name} ended at once with code {code}: {self._last_words()}")
            if time.monotonic() > deadline:
                self.kill()
                within = f"within {self._ready_within_s:.0f} s"
                raise UnavailableError(f"{self.name} did not answer {within}: {self._last_words()}")

    def _last_words(self) -> str:
        lines = self.log.read_text(errors="replace").split("\n")
        return next((line.strip() for line in reversed(lines) if line.strip()), "it wrote nothing")


@dataclass(frozen=True)
class Service(ABC):
    """A server that answers. One whose address came from the environment (`server` None) is not ours to stop."""

    server: Server | None

    @property
    @abstractmethod
    def exports(self) -> dict[str, str]:
        """The worker's settings that make it use this server."""

    def kill(self) -> None:
        """kill -9, and return when it is gone."""
        self._ours().kill()

    def stop(self) -> None:
        self._ours().stop()

    def restart(self) -> None:
        """Start it again on the same address and data, after `kill` or without, and return when it answers."""
        self._ours().restart()

    def pause(self) -> None:
        """SIGSTOP: connections stay open and nothing answers, until `resume`."""
        self._ours().pause()

    def resume(self) -> None:
        self._ours().resume()

    def revive(self) -> None:
        """Have it running again, whatever a test did to it."""
        if self.server is not None:
            self.server.revive()

    def close(self) -> None:
        """End it for good and remove its data."""
        if self.server is not None:
            self.server.close()

    def _ours(self) -> Server:
        if self.server is None:
            pytest.skip("a server whose address was given by the environment is not ours to stop")
        return self.server


def data_directory(name: str) -> Path:
    """A new directory; its path is short, because Unix sockets are put there (107 bytes at most)."""
    return Path(tempfile.mkdtemp(prefix=f"tensorfleet-{name}-"))


def accepts(port: int) -> bool:
    """Whether something listens on this loopback port."""
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


_reservations: list[IO[str]] = []


def free_ports(count: int) -> list[int]:
    """Free loopback ports, reserved among all processes of this user that ask here until this process ends.

    They lie below the range that Linux hands out to outgoing connections (32768 on), so that a server which was
    killed finds its port free when it comes back.
    """
    locks = Path(tempfile.gettempdir()) / f"tensorfleet-ports-{os.getuid()}"
    locks.mkdir(exist_ok=True)
    ports: list[int] = []
    for port in random.sample(range(20_000, 32_000), k=12_000):
        if len(ports) == count:
            break
        if _reserve(locks / str(port)) and _is_free(port):
            ports.append(port)
    return ports


def _reserve(path: Path) -> bool:
    lock = path.open("a")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.close()
        return False
    _reservations.append(lock)
    return True


def _is_free(port: int) -> bool:
    with socket.socket() as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            server.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True
