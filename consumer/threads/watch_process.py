"""Runs as a process that notices when a thread holds the worker's interpreter, and then answers its port.

The watch in the worker stamps each second. If no stamp comes for the limit although the worker is not stopped, this
process logs the stacks of the worker's threads, and answers the port on the same listening socket: /livez, /health and
/metrics. It also answers while the worker's own HTTP thread is stuck. It never ends the worker; it ends with it.

It imports the standard library alone and has an empty environment: it takes few megabytes, and knows no credential.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime

from consumer.threads import stacks
from consumer.threads.stamps import HTTP, INTERPRETER, LOOK_S, PAUSE_S, Stamps

SERVICE = "ml-worker"
CLIENT_S = 2.0
"""Time for a client to send its request, and again to take the answer; the next client waits meanwhile."""
REQUEST_BYTES = 8_192
DUMP_S = 0.5
"""A dump is complete once nothing has come for this long."""


def main(worker: str, worker_id: str, stamps: str, pipe: str, listening: str) -> None:
    """Run until the worker's end of the pipe closes.

    Args:
        worker: the worker's process id.
        worker_id: on each log line.
        stamps: descriptor of the page that the worker's threads write to.
        pipe: descriptor of the pipe on which the worker's stacks come after SIGUSR2.
        listening: descriptor of the port's socket.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    WatchProcess(int(worker), worker_id, Stamps(int(stamps)), int(pipe), socket.socket(fileno=int(listening))).run()


class WatchProcess:
    """Single-threaded."""

    def __init__(self, worker: int, worker_id: str, stamps: Stamps, pipe: int, listening: socket.socket) -> None:
        self._worker = worker
        self._worker_id = worker_id
        self._stamps = stamps
        self._pipe = pipe
        self._listening = listening
        self._seen = 0.0
        self._looked_at = time.monotonic()
        self._held_s = 0.0
        self._answering = False
        self._told = False

    def run(self) -> None:
        due = time.monotonic()
        while True:
            now = time.monotonic()
            if now >= due:
                self._look(now)
                due = now + LOOK_S
            ready = self._ready(due - now)
            if self._pipe in ready and not os.read(self._pipe, 65_536):
                return
            if self._listening.fileno() in ready:
                self._look(time.monotonic())
                if self._answering:
                    self._answer()

    def _ready(self, within_s: float) -> set[int]:
        poll = select.poll()
        poll.register(self._pipe, select.POLLIN)
        if self._answering:
            poll.register(self._listening, select.POLLIN)
        return {fd for fd, _ in poll.poll(max(0.0, within_s) * 1_000)}

    def _look(self, now: float) -> None:
        self._measure(now)
        stuck = self._stamps.stuck(now)
        self._answering = INTERPRETER in stuck or HTTP in stuck
        if INTERPRETER in stuck and not self._told:
            self._told = True
            self._log("error", "interpreter stands still", seconds=round(self._held_s, 1), stacks=self._stacks())
        elif self._told and INTERPRETER not in stuck:
            self._told = False
            self._log("warning", "interpreter goes on again")

    def _measure(self, now: float) -> None:
        """Measure how long no stamp has come, without time in which the worker was stopped or the machine asleep."""
        since_s, self._looked_at = now - self._looked_at, now
        stamp = self._stamps.looked_at
        if stamp != self._seen:
            self._held_s = 0.0
        elif since_s <= PAUSE_S and not _stopped(self._worker):
            self._held_s += since_s
        self._seen = stamp
        self._stamps.held(self._held_s if self._held_s >= PAUSE_S else 0.0)

    def _stacks(self) -> Mapping[str, list[str]]:
        dump = b""
        if os.getppid() == self._worker:  # else it has just ended, and another process may have its pid
            os.kill(self._worker, signal.SIGUSR2)
        poll = select.poll()
        poll.register(self._pipe, select.POLLIN)
        while poll.poll(DUMP_S * 1_000) and (some := os.read(self._pipe, 65_536)):
            dump += some
        return stacks.of_dump(dump.decode(errors="replace"), {one.ident: one.name for one in self._stamps.threads()})

    def _log(self, level: str, event: str, **more: object) -> None:
        """Write a line in the format of consumer/telemetry/logs.py."""
        timestamp = datetime.now(UTC).isoformat().replace("+00:00", "Z")
        line = {"timestamp": timestamp, "level": level, "logger": __name__, "event": event}
        written = (json.dumps(line | more | {"worker_id": self._worker_id}) + "\n").encode()
        with suppress(RuntimeError):  # no thread can be started: go on and answer the port
            threading.Thread(target=_write, args=(written,), daemon=True).start()

    def _answer(self) -> None:
        try:
            client, _ = self._listening.accept()
            with client:
                response = self._response(_request_line(client))
                client.settimeout(CLIENT_S)
                client.sendall(response)
        except OSError:
            return  # the worker accepted the client, or the client has gone or is slow

    def _response(self, request: str) -> bytes:
        now = time.monotonic()
        stuck = {name: round(busy_s, 1) for name, busy_s in self._stamps.stuck(now).items()}
        match request.split(" ")[:2]:
            case ["GET", "/livez"]:
                return _json({"status": "stuck", "threads": stuck})
            case ["GET", "/health"]:
                timestamp = datetime.now(UTC).isoformat(timespec="milliseconds")
                return _json({"status": "unhealthy", "service": SERVICE, "timestamp": timestamp, "threads": stuck})
            case ["GET", "/metrics"]:
                text = _metric("busy", self._stamps.busy_s(now)) + _metric("limit", self._stamps.limits_s())
                return _http("200 OK", "text/plain; version=0.0.4; charset=utf-8", text)
        return _http("404 Not Found", "text/plain; charset=utf-8", "404: Not Found")


def _write(line: bytes) -> None:
    """Runs in a thread of its own: it blocks if nobody reads the logs, and must not keep the port waiting."""
    with suppress(OSError):
        os.write(sys.stderr.fileno(), line)


def _stopped(pid: int) -> bool:
    """Whether a signal or a debugger has stopped the process, or it has ended."""
    try:
        with open(f"/proc/{pid}/stat") as stat:  # noqa: PTH123 - pathlib is a megabyte
            return stat.read().rpartition(")")[2].split()[0] in "TtZX"
    except OSError:
        return True


def _request_line(client: socket.socket) -> str:
    """The request line. Reads the headers too: closing a socket with unread bytes may lose the answer."""
    deadline = time.monotonic() + CLIENT_S
    request = b""
    while b"\r\n\r\n" not in request and len(request) < REQUEST_BYTES:
        client.settimeout(max(0.001, deadline - time.monotonic()))
        some = client.recv(REQUEST_BYTES)
        if not some:
            break
        request += some
    return request.partition(b"\r\n")[0].decode("latin-1")


def _metric(what: str, by_thread: Mapping[str, float]) -> str:
    name = f"ml_worker_thread_{what}_seconds"
    samples = (f'{name}{{thread="{thread}"}} {value}\n' for thread, value in by_thread.items())
    return f"# TYPE {name} gauge\n" + "".join(samples)


def _json(body: Mapping[str, object]) -> bytes:
    return _http("503 Service Unavailable", "application/json", json.dumps(body))


def _http(status: str, content_type: str, body: str) -> bytes:
    content = body.encode()
    head = (
        f"HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\nContent-Length: {len(content)}\r\nConnection: close\r\n"
    )
    return head.encode() + b"\r\n" + content
