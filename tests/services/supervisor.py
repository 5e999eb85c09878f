"""Runs one server for as long as its owner lives: `supervisor.py OWNER_PID DIRECTORY COMMAND...`

Writes the server's process id, then waits for either of the two to end. When the owner is gone, however it went, the
server is killed and its directory removed; when the server ends, so does this. Only the standard library is needed.
"""

import contextlib
import ctypes
import os
import shutil
import signal
import subprocess
import sys

PR_SET_PDEATHSIG = 1  # prctl(2)
_prctl = ctypes.CDLL(None, use_errno=True).prctl
# Not SIGTERM: the owner's going must be told apart from somebody's wish to stop us.
OWNER_GONE = signal.SIGUSR1


def supervise(owner_pid: int, directory: str, command: list[str]) -> int:
    watched = {signal.SIGCHLD, signal.SIGTERM, OWNER_GONE}
    signal.pthread_sigmask(signal.SIG_BLOCK, watched)
    _prctl(PR_SET_PDEATHSIG, OWNER_GONE)
    if os.getppid() != owner_pid:  # it went before the line above
        shutil.rmtree(directory, ignore_errors=True)
        return 1
    server = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=sys.stderr,
        start_new_session=True,
        preexec_fn=_as_server,  # noqa: PLW1509 - there is one thread
    )
    sys.stdout.write(f"{server.pid}\n")
    sys.stdout.flush()
    while server.poll() is None:
        received = signal.sigwait(watched)
        # The signal comes also when only the owner's thread that started us ends.
        owner_is_gone = os.getppid() != owner_pid
        if owner_is_gone or received == signal.SIGTERM:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(server.pid, signal.SIGKILL)
            server.wait()
        if owner_is_gone:
            shutil.rmtree(directory, ignore_errors=True)
    return server.returncode


def _as_server() -> None:
    """In the child before exec: not even the supervisor's own sudden death leaves it behind."""
    _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])


if __name__ == "__main__":
    sys.exit(supervise(int(sys.argv[1]), sys.argv[2], sys.argv[3:]))
