"""Starts Python programs by forking a process that has their imports done.

The imports of a worker and those of its forkserver take two seconds of CPU each, and the tests start hundreds of
workers.  Environment, folder, output and session of a forked program are its own, as if it had been executed.
"""

from __future__ import annotations

import gc
import importlib
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from math import inf
from pathlib import Path
from types import SimpleNamespace
from typing import Any, BinaryIO, Protocol

import orjson

from consumer.system.processes import THREAD_VARIABLES, die_with_parent

ROOT = Path(__file__).parents[1]
IMPORTED = (
    "consumer.app",
    "consumer.async_client",
    "consumer.cli",
    "consumer.cli.demo",
    "consumer.client",
    "consumer.launch",
    "consumer.telemetry.logs",
)
ONE_THREAD = {**dict.fromkeys(THREAD_VARIABLES, "1"), "OMP_WAIT_POLICY": "PASSIVE"}
"""As a forkserver has it of a worker that gives each training one CPU; libraries read it when they are imported."""
PROCESSES_TOO = "COVERAGE_PROCESS_CONFIG"
"""With this variable every Python process measures itself, which makes its start take 40 % more CPU time."""
PRELOADED = ("LD_PRELOAD", "CHAOS_CLOCK")
"""The loader of programs and a library that it preloads read these: each value has a launcher of its own."""
ORDER_BYTES = 128 * 1024
"""The most that fits into one datagram by default is more; an environment takes 10 KiB."""
READY_S = 120
"""The imports take 3 s alone, and many times that on a busy machine."""
_starting = threading.Lock()


class Process(Protocol):
    """What is used of a Popen."""

    pid: int
    returncode: int | None

    def poll(self) -> int | None: ...
    def wait(self, timeout: float | None = None) -> int: ...
    def send_signal(self, sig: int) -> None: ...
    def terminate(self) -> None: ...
    def kill(self) -> None: ...


class Launched:
    """A program that was forked."""

    def __init__(self, pid: int, status: socket.socket) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._status = status
        self._reading = threading.Lock()

    def poll(self) -> int | None:
        with self._reading:
            if self.returncode is None and _readable(self._status, 0):
                said = self._status.recv(16)
                self.returncode = int(said) if said else -signal.SIGKILL  # it has died with the launcher
                self._status.close()
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        if self.poll() is None:
            _readable(self._status, timeout)
        code = self.poll()
        if code is None:
            raise subprocess.TimeoutExpired(f"process {self.pid}", timeout or 0)
        return code

    def send_signal(self, sig: int) -> None:
        if self.poll() is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, sig)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


@dataclass(frozen=True)
class Launcher:
    """Handle on a process with all imports done, which forks programs."""

    process: subprocess.Popen[bytes]
    control: socket.socket
    using: threading.Lock

    def start(
        self, module: str, arguments: Sequence[str], environment: Mapping[str, str], output: BinaryIO, errors: BinaryIO
    ) -> Launched:
        """`python -m module`, in a session of its own that ends with this process.  The module path is PYTHONPATH's."""
        ours, theirs = socket.socketpair()
        order = orjson.dumps([module, arguments, environment])
        assert len(order) < ORDER_BYTES
        with self.using:
            socket.send_fds(self.control, [order], [theirs.fileno(), output.fileno(), errors.fileno()])
        theirs.close()
        assert _readable(ours, READY_S), "the launcher does not answer"
        pid = ours.recv(4)
        assert pid, "the launcher has ended"
        return Launched(int.from_bytes(pid), ours)


def launcher_for(environment: Mapping[str, str]) -> Launcher | None:
    """The launcher to fork a program with this environment from; None if it must be executed.

    A program whose coverage is measured must be executed, as its imports are to be measured, too.
    """
    if environment.get(PROCESSES_TOO):
        return None
    with _starting:
        return _launcher(*(environment.get(name, "") for name in PRELOADED))


@cache
def _launcher(*preloaded: str) -> Launcher:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    command = [sys.executable, "-m", "tests.launcher", str(theirs.fileno())]
    shown = {name: value for name, value in os.environ.items() if name != PROCESSES_TOO}
    shown |= ONE_THREAD | dict(zip(PRELOADED, preloaded, strict=True))
    process = subprocess.Popen(command, cwd=ROOT, env=shown, pass_fds=[theirs.fileno()], start_new_session=True)
    theirs.close()
    return Launcher(process, ours, threading.Lock())


def _readable(end: socket.socket, timeout: float | None) -> bool:
    poll = select.poll()
    poll.register(end, select.POLLIN)
    return bool(poll.poll(None if timeout is None else timeout * 1000))


def _serve(control: socket.socket) -> tuple[str, list[str]]:
    """Fork until the control socket closes; in a forked process, returns what it is to run."""
    running: dict[int, socket.socket] = {}
    wake, wakes = socket.socketpair()
    for end in (wake, wakes):
        end.setblocking(False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wakes.fileno(), warn_on_full_buffer=False)
    while True:
        ready, _, _ = select.select([control, wake], [], [])
        if wake in ready:
            with suppress(BlockingIOError):
                wake.recv(4_096)
            _tell_ends(running)
        if control not in ready:
            continue
        order, descriptors, _, _ = socket.recv_fds(control, ORDER_BYTES, 3)
        if not order:
            os._exit(0)  # and the kernel kills what we have forked
        launcher = os.getpid()
        pid = os.fork()
        if pid == 0:
            signal.set_wakeup_fd(-1)
            for end in (control, wake, wakes, *running.values()):
                end.close()
            return _become(launcher, order, *descriptors)
        status = socket.socket(fileno=descriptors[0])
        for one in descriptors[1:]:
            os.close(one)
        running[pid] = status
        status.send(pid.to_bytes(4))


def _tell_ends(running: dict[int, socket.socket]) -> None:
    with suppress(ChildProcessError):
        while (ended := os.waitpid(-1, os.WNOHANG)) != (0, 0):
            with running.pop(ended[0]) as status, suppress(BrokenPipeError):
                status.send(b"%d" % os.waitstatus_to_exitcode(ended[1]))


def _become(launcher: int, order: bytes, status: int, output: int, errors: int) -> tuple[str, list[str]]:
    module, arguments, environment = orjson.loads(order)
    os.setsid()
    die_with_parent()
    if os.getppid() != launcher:  # it has ended before we asked to end with it
        os._exit(1)
    for number in (signal.SIGCHLD, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL if number == signal.SIGCHLD else signal.default_int_handler)
    with Path(os.devnull).open("rb") as nothing:
        for standard, end in enumerate((nothing.fileno(), output, errors)):
            os.dup2(end, standard)
    for end in (status, output, errors):
        os.close(end)
    os.environ.clear()
    os.environ.update(environment)
    sys.path[1:1] = [one for one in environment.get("PYTHONPATH", "").split(os.pathsep) if one not in ("", *sys.path)]
    return module, arguments


class _Child:
    """A forkserver that its worker has forked."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._reaping = threading.Lock()

    def poll(self) -> int | None:
        with self._reaping:
            if self.returncode is None:
                ended, status = os.waitpid(self.pid, os.WNOHANG)
                self.returncode = os.waitstatus_to_exitcode(status) if ended else None
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        deadline = inf if timeout is None else time.monotonic() + timeout
        while (code := self.poll()) is None:
            if time.monotonic() > deadline:
                raise subprocess.TimeoutExpired(f"process {self.pid}", timeout or 0)
            time.sleep(0.01)
        return code

    def kill(self) -> None:
        if self.poll() is None:
            os.kill(self.pid, signal.SIGKILL)


def _popen(command: Sequence[str], **options: Any) -> Any:
    """For a worker, in place of Popen: fork a forkserver if this process has one thread and the right imports."""
    wanted = {name: value for name, value in options["env"].items() if name in ONE_THREAD}
    if command[-1] or wanted != ONE_THREAD or len([*Path("/proc/self/task").iterdir()]) > 1:
        return subprocess.Popen(command, **options)
    pid = os.fork()
    if pid == 0:
        try:
            _become_forkserver(command[-2:], options["pass_fds"], options["env"])
        except BaseException:  # noqa: BLE001 - as the interpreter says it at the end of a program
            traceback.print_exc()
        finally:
            os._exit(1)
    return _Child(pid)


def _become_forkserver(arguments: Sequence[str], kept: Sequence[int], environment: Mapping[str, str]) -> None:
    os.setsid()
    for end in [int(one.name) for one in Path("/proc/self/fd").iterdir()]:
        if end > 2 and end not in kept:
            with suppress(OSError):
                os.close(end)
    os.environ.clear()
    os.environ.update(environment)
    from consumer.trainers import forkserver

    sys.argv = [forkserver.__file__, *arguments]
    forkserver.main()
    os._exit(0)


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for name in IMPORTED:
        importlib.import_module(name)
    from consumer.trainers import child, servers

    child.warm_up("")
    gc.freeze()
    module, arguments = _serve(socket.socket(fileno=int(sys.argv[1])))
    servers.subprocess = SimpleNamespace(**vars(subprocess) | {"Popen": _popen})  # type: ignore[assignment,attr-defined]
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
