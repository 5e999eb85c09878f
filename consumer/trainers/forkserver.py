"""A small process that has imported the libraries and forks a trainer in milliseconds.

It speaks JSON datagrams over one socket. In: `{"spawn": lane, "gpu": …}` with three descriptors (inbox, outbox,
output), and `{"kill": lane}`. Out: `{"ready": true}` once it has imported all, `{"spawned": lane, "pid": …}`, and
`{"exited": lane, "signal": …, "code": …}`.
It is the only one to reap children, so a process group that it kills is never a stranger that got the same number.
A process that has left its trainer's group, as daemons do, becomes its child when the trainer ends, and is killed too.

It is a process of our own and not multiprocessing's, because that one is a single one per process, runs the caller's
main module again in each child, and cannot kill a group.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import socket
import sys

import orjson

from consumer.system.processes import adopt_orphans, children, die_with_parent

CONTROL_LIMIT_BYTES = 4_096


def main() -> None:
    """Serve until the worker's end of the control socket closes.

    argv[1] is its descriptor, argv[2] the framework that its trainings use, if any: there is one to a process.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # A worker that dies during the imports takes us along; later the end of its socket tells, which leaves time to kill
    # the trainers with all that they have started.
    die_with_parent()
    from consumer.trainers import child

    control = socket.socket(fileno=int(sys.argv[1]))
    child.warm_up(sys.argv[2])
    die_with_parent(None)
    adopt_orphans()
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # the worker has gone meanwhile
        ForkServer(control).serve()


class ForkServer:
    """Single-threaded: forking is safe."""

    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._lanes: dict[int, int] = {}
        """pid → lane"""
        wake_read, wake_write = socket.socketpair()
        wake_read.setblocking(False)
        wake_write.setblocking(False)
        self._wake = wake_read
        self._wake_write = wake_write
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(wake_write.fileno(), warn_on_full_buffer=False)

    def serve(self) -> None:
        selector = selectors.DefaultSelector()
        selector.register(self._control, selectors.EVENT_READ)
        selector.register(self._wake, selectors.EVENT_READ)
        self._send({"ready": True})
        try:
            while True:
                for key, _ in selector.select():
                    if key.fileobj is self._wake:
                        self._reap()
                    elif not self._obey():
                        return
        finally:
            signal.set_wakeup_fd(-1)
            _kill_descendants()

    def _obey(self) -> bool:
        message, descriptors, _, _ = socket.recv_fds(self._control, CONTROL_LIMIT_BYTES, 3)
        if not message:
            return False
        command = orjson.loads(message)
        if "spawn" in command:
            self._spawn(command["spawn"], command["gpu"], *descriptors)
        else:
            for pid, lane in self._lanes.items():
                if lane == command["kill"]:
                    _kill_group(pid)
        return True

    def _spawn(self, lane: int, gpu: str, *ends: int) -> None:
        pid = os.fork()
        if pid == 0:
            self._become_child(lane, gpu, *ends)
        for end in ends:
            os.close(end)
        self._lanes[pid] = lane

    def _become_child(self, lane: int, gpu: str, inbox: int, outbox: int, output: int) -> None:
        """It tells its number by itself, so that the worker has that before it hears anything else of it."""
        from consumer.trainers import child

        code = 70
        try:
            self._send({"spawned": lane, "pid": os.getpid()})
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            for own in (self._control, self._wake, self._wake_write):
                own.close()
            for standard in (1, 2):
                os.dup2(output, standard)
            os.close(output)
            code = child.run(socket.socket(fileno=inbox), socket.socket(fileno=outbox), gpu)
        finally:
            os._exit(code)

    def _reap(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while self._wake.recv(4_096):
                pass
        for pid, lane in list(self._lanes.items()):
            state = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            if state is None:
                continue
            _kill_group(pid)
            _, status = os.waitpid(pid, 0)
            del self._lanes[pid]
            code = os.waitstatus_to_exitcode(status)
            self._kill_strays()
            self._send({"exited": lane, "signal": -code if code < 0 else None, "code": code if code >= 0 else None})
        self._kill_strays()

    def _kill_strays(self) -> None:
        """What trainers that are gone have left behind; it is reaped when its end is told."""
        for pid in children(os.getpid()):
            if pid not in self._lanes:
                _kill_group(pid)
                os.waitpid(pid, os.WNOHANG)

    def _send(self, message: dict[str, object]) -> None:
        self._control.send(orjson.dumps(message))


def _kill_descendants() -> None:
    """Whatever a process that we kill leaves behind becomes our child."""
    while pids := children(os.getpid()):
        for pid in pids:
            _kill_group(pid)
        os.waitpid(-1, 0)


def _kill_group(pid: int) -> None:
    """The child leads a session, so its number is its group's; or it has not got that far, or is gone."""
    for kill in (os.killpg, os.kill):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            kill(pid, signal.SIGKILL)


if __name__ == "__main__":
    main()
