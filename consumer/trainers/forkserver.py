"""Runs as a small process that has imported the libraries and forks a trainer in milliseconds.

It speaks JSON datagrams over one socket. In: `{"spawn": lane, "gpu": …}` with three descriptors (inbox, outbox,
output), and `{"kill": lane}`. Out: `{"ready": true}` once it has imported all, `{"spawned": lane, "pid": …}`, and
`{"exited": lane, "signal": …, "code": …}`.
It alone reaps the trainers, and kills a group before it reaps its leader, so it never kills a stranger that got the
same number. A process that left its trainer's group, as daemons do, becomes the forkserver's child when the trainer
ends, and is killed too.

We do not use multiprocessing's forkserver: there is only one per process, it runs the caller's main module again in
each child, and it cannot kill a group.
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

    argv[1] is the socket's descriptor, argv[2] the framework of its trainings, empty for none.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # If the worker dies during the imports, the kernel kills us. Later we see its socket close instead, which leaves
    # time to kill the trainers with all that they have started.
    die_with_parent()
    from consumer.trainers import child

    control = socket.socket(fileno=int(sys.argv[1]))
    child.warm_up(sys.argv[2])
    die_with_parent(None)
    adopt_orphans()
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # the worker has died meanwhile
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
        """Run the trainer. It sends its pid itself, so that the worker has the pid before any other message of it."""
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
        """Kill what ended trainers have left behind; it is reaped now, or with the next SIGCHLD."""
        for pid in children(os.getpid()):
            if pid not in self._lanes:
                _kill_group(pid)
                os.waitpid(pid, os.WNOHANG)

    def _send(self, message: dict[str, object]) -> None:
        self._control.send(orjson.dumps(message))


def _kill_descendants() -> None:
    """Kill all children until none is left; what a killed one leaves behind becomes our child."""
    while pids := children(os.getpid()):
        for pid in pids:
            _kill_group(pid)
        os.waitpid(-1, 0)


def _kill_group(pid: int) -> None:
    """Kill a child with its group, which has the child's pid; the child alone if it does not lead a session yet."""
    for kill in (os.killpg, os.kill):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            kill(pid, signal.SIGKILL)


if __name__ == "__main__":
    main()
