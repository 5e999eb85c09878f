"""Handles one loader process: starts it, sends it loads, reads its answers, measures it, and kills it."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from typing import Any, Self

from consumer.loaders.child import DATAGRAM_BYTES
from consumer.system.child_output import Output
from consumer.system.processes import (
    THREAD_VARIABLES,
    cpu_s,
    kill_with_descendants,
    private_bytes,
    wants_cpu,
    without_credentials,
)

ENDING_S = 5.0
LOOK_S = 0.01
LONGEST_LOOK_S = 1.0
"""The most time that counts between two calls of `spent_s`; a longer gap means that this process stood still."""


class Ended(Exception):  # noqa: N818 - an event, not a malfunction of ours
    """The loader has ended, or sent something invalid.  `signal` is the signal that ended it, if known."""

    def __init__(self, code: int | None) -> None:
        super().__init__("no sense" if code is None else f"signal {-code}" if code < 0 else f"exit code {code}")
        self.signal = None if code is None or code >= 0 else -code


class Loader:
    """Owned by one thread at a time."""

    def __init__(self, process: subprocess.Popen[bytes], control: socket.socket, output: Output) -> None:
        self.fresh_bytes: int | None = None
        """Its private bytes before its first load; None until it is ready."""
        self._before_bytes = 0
        self._spent_s = 0.0
        self._looked_at = 0.0
        self._cpu_s = 0.0
        self._process = process
        self._control = control
        self._output = output

    @classmethod
    def start(cls) -> Self:
        """Start a loader; returns before it is ready.  The kernel kills it when the calling thread ends.

        Raises OSError if the machine has no process, memory or descriptor left.
        """
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        output = Output()
        try:
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", "consumer.loaders.child", str(theirs.fileno()), str(os.getpid())],
                pass_fds=[theirs.fileno()],
                start_new_session=True,
                stdin=subprocess.DEVNULL,
                stdout=output.writing,
                stderr=output.writing,
                env=without_credentials(os.environ) | dict.fromkeys(THREAD_VARIABLES, "1"),
            )
        except BaseException:
            ours.close()
            output.close()
            raise
        finally:
            theirs.close()
            output.given_away()
        return cls(process, ours, output)

    @property
    def alive(self) -> bool:
        return self._state() is None

    def ask(self, job: dict[str, Any]) -> None:
        """Send it a load.  Raises Ended."""
        self._output.begin()
        self._before_bytes = private_bytes(self._process.pid)
        self._spent_s, self._looked_at, self._cpu_s = 0.0, time.monotonic(), cpu_s(self._process.pid)
        try:
            self._control.send(json.dumps(job).encode())
        except (BrokenPipeError, ConnectionResetError):
            raise self._ended() from None

    def hear(self, timeout_s: float) -> dict[str, Any] | None:
        """Its next message; None if there is none within `timeout_s`.  Raises Ended."""
        self._control.settimeout(timeout_s)
        try:
            message = json.loads(self._control.recv(DATAGRAM_BYTES))
        except TimeoutError:
            return None
        except (ConnectionResetError, ValueError):  # the end is an empty datagram, which is not valid JSON
            raise self._ended() from None
        if not isinstance(message, dict):
            raise self._ended()
        return message

    def written(self) -> list[str]:
        """The lines that it, or a library in it, wrote to standard output and error since the last call."""
        return self._output.lines()

    def grown_bytes(self) -> int:
        """Its private bytes, with those of its descendants, beyond what it took before this load."""
        return private_bytes(self._process.pid) - self._before_bytes

    def spent_s(self) -> float:
        """The seconds it has spent on this load; call this often, as longer gaps are not counted in full.

        Counts its CPU time while it is ready to run, and all elapsed time otherwise. So a good file does not count as
        slow because the machine is busy with trainings, or was stopped.
        """
        now, cpu = time.monotonic(), cpu_s(self._process.pid)
        if wants_cpu(self._process.pid):
            self._spent_s += max(0.0, cpu - self._cpu_s)  # less after a child has ended, with its CPU time
        else:
            self._spent_s += min(now - self._looked_at, LONGEST_LOOK_S)
        self._looked_at, self._cpu_s = now, cpu
        return self._spent_s

    def kill(self) -> None:
        """Kill it with its descendants; returns when it is gone."""
        if self._process.returncode is None:
            kill_with_descendants(self._process.pid)
            self._process.wait()
            self._control.close()
            self._output.close()

    def _ended(self) -> Ended:
        """How it ended. Does not reap it: its pid is still needed to find the descendants it has left."""
        deadline = time.monotonic() + ENDING_S
        while time.monotonic() < deadline:
            if (state := self._state()) is not None:
                return Ended(state.si_status if state.si_code == os.CLD_EXITED else -state.si_status)
            time.sleep(LOOK_S)
        return Ended(None)

    def _state(self) -> os.waitid_result | None:
        return os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
