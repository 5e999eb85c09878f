"""The lanes: one trainer each, fed one job ahead, watched, and replaced when it is gone.

A plain object without a thread: the worker's thread selects on `descriptors()`, calls `poll()` when one is readable
or a tenth of a second has passed, and gets back what happened. Nothing here blocks.

A job that was fed but not taken can be had back: it lies as one datagram in the lane's inbox, whose reading end is
open here too, so that either the trainer gets it or we do. That is how a drain hands back what has not started, how
an idle lane takes over what waits behind a long training, and how we know what a dead trainer had in its hands.
"""

from __future__ import annotations

import os
import resource
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from consumer.trainers.forkserver import CONTROL_LIMIT_BYTES
from consumer.trainers.protocol import (
    JOB_LIMIT_BYTES,
    End,
    Finished,
    Killed,
    LaneEvent,
    Logged,
    Reported,
    Returned,
    Spec,
    Taken,
)
from pipeline.jobs import ErrorKind

RECYCLE_RSS_BYTES = 400 * 2**20
"""A trainer that has grown beyond this is replaced once it is idle; a fresh one takes about 130 MiB, mostly shared."""
WATCH_S = 0.1
"""Time and memory are looked at this often; a fast allocator gains about 100 MB a look."""
THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")
PAGE_BYTES = resource.getpagesize()


@dataclass(slots=True)
class _Lane:
    number: int
    feed: socket.socket
    reading_end: socket.socket
    outbox: socket.socket
    pid: int | None = None
    running: Spec | None = None
    ahead: Spec | None = None
    deadline: float = 0.0
    ending: Killed | None = None
    """What we are killing it for; it is not fed any more."""
    rss_bytes: int = 0
    retiring: bool = False
    """It ends by itself, and is not fed any more."""
    mute: bool = False
    """Its outbox is at its end."""

    @property
    def load(self) -> int:
        return (self.running is not None) + (self.ahead is not None)

    @property
    def open(self) -> bool:
        return self.ending is None and not self.retiring and not self.mute

    @property
    def fed(self) -> Sequence[Spec]:
        return [spec for spec in (self.running, self.ahead) if spec is not None]


@dataclass(slots=True)
class Lanes:
    """Owned by the worker's thread."""

    count: int
    threads_per_training: int = 1
    clock: Callable[[], float] = time.monotonic
    _server: subprocess.Popen[bytes] | None = None
    _control: socket.socket | None = None
    _lanes: dict[int, _Lane] = field(default_factory=dict)
    _next_number: int = 0
    _watch_at: float = 0.0

    def start(self) -> None:
        """Start the forkserver and the trainers; returns before they are ready. Call it before any client starts."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        threads = dict.fromkeys(THREAD_VARIABLES, str(self.threads_per_training))
        self._server = subprocess.Popen(
            [sys.executable, "-m", "consumer.trainers.forkserver", str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            start_new_session=True,
            stdin=subprocess.DEVNULL,
            env=_without_credentials(os.environ) | threads | {"OMP_WAIT_POLICY": "PASSIVE"},
        )
        theirs.close()
        ours.setblocking(False)
        self._control = ours
        for _ in range(self.count):
            self._spawn()

    def stop(self) -> None:
        """Let idle trainers end, and kill the others with their groups; returns when they are gone."""
        for lane in self._lanes.values():
            lane.feed.close()
            lane.reading_end.close()
        if self._server is not None and self._control is not None:
            deadline = self.clock() + 2.0
            while any(lane.running is None for lane in self._lanes.values()) and self.clock() < deadline:
                if not self._gone():
                    time.sleep(0.01)
            self._control.close()
            self._server.wait(timeout=30)
        for lane in self._lanes.values():
            lane.outbox.close()
        self._lanes.clear()

    def descriptors(self) -> Iterator[socket.socket]:
        """What to select on for reading; changes when a trainer is replaced."""
        if self._control is not None:
            yield self._control
        for lane in self._lanes.values():
            if not lane.mute:
                yield lane.outbox

    @property
    def busy(self) -> int:
        """How many lanes train; any thread may ask."""
        return sum(lane.running is not None for lane in tuple(self._lanes.values()))

    @property
    def saturated(self) -> bool:
        """Whether no lane is free."""
        return all(lane.running is not None for lane in self._lanes.values())

    @property
    def alive(self) -> bool:
        return self._server is not None and self._server.poll() is None

    def rss_bytes(self) -> int:
        """Of all trainers, as last seen."""
        return sum(lane.rss_bytes for lane in self._lanes.values())

    def room(self) -> int:
        """How many jobs can be fed now: one running and one ahead in each lane."""
        return sum(2 - lane.load for lane in self._lanes.values() if lane.open)

    def feed(self, spec: Spec) -> None:
        """Give a job to the lane that has least to do. Call only if there is room()."""
        open_lanes = (lane for lane in self._lanes.values() if lane.open and lane.load < 2)
        self._push(min(open_lanes, key=lambda lane: lane.load), spec)

    def take_back(self, job_id: str | None = None) -> Sequence[str]:
        """Take back jobs that no trainer has taken: this one, or all of them. Returns the ids that came back."""
        back = []
        for lane in self._lanes.values():
            if not any(job_id in (None, spec.job_id) for spec in lane.fed):
                continue
            for spec in self._pull(lane):
                if job_id in (None, spec.job_id):
                    back.append(spec.job_id)
                else:
                    self._push(lane, spec)
        return back

    def kill(self, job_id: str, end: End, message: str) -> bool:
        """Kill the trainer of a job that was taken; False if no trainer has it."""
        for lane in self._lanes.values():
            if lane.running is not None and lane.running.job_id == job_id and lane.ending is None:
                self._kill(lane, Killed(job_id, end, message))
                return True
        return False

    def poll(self) -> Sequence[LaneEvent]:
        """Everything that happened since the last call."""
        events: list[LaneEvent] = []
        for lane in list(self._lanes.values()):
            self._listen(lane, events)
        self._hear_control(events)
        self._enforce()
        self._share()
        return events

    def _listen(self, lane: _Lane, events: list[LaneEvent]) -> None:
        while True:
            try:
                datagram = lane.outbox.recv(JOB_LIMIT_BYTES)
            except (BlockingIOError, ConnectionResetError):
                return
            if not datagram:
                lane.mute = True
                self._command({"kill": lane.number})
                return
            event = self._understand(lane, orjson.loads(datagram))
            if event is not None:
                events.append(event)

    def _understand(self, lane: _Lane, message: dict[str, Any]) -> LaneEvent | None:
        if (job_id := message.get("taken")) is not None:
            if lane.running is None or lane.running.job_id != job_id:
                lane.running, lane.ahead = lane.ahead, None
            assert lane.running is not None
            lane.deadline = self.clock() + lane.running.max_time_s
            return Taken(job_id)
        if "progress" in message:
            lane.rss_bytes = message["rss_bytes"]
            return Reported(message.pop("progress"), **message)
        if "log" in message:
            return Logged(message["log"], message["level"], message["message"])
        for verdict in ("trained", "rejected", "failed"):
            if (job_id := message.pop(verdict, None)) is not None:
                lane.rss_bytes = message.get("rss_bytes", lane.rss_bytes)
                lane.running, lane.ahead, lane.deadline = lane.ahead, None, float("inf")
                lane.retiring = lane.retiring or message.get("kind") == ErrorKind.OUT_OF_MEMORY
                return Finished(job_id, verdict, **message)
        raise ValueError(f"a trainer sent {sorted(message)}")

    def _hear_control(self, events: list[LaneEvent]) -> None:
        assert self._control is not None
        while True:
            try:
                datagram = self._control.recv(CONTROL_LIMIT_BYTES)
            except BlockingIOError:
                return
            if not datagram:
                raise RuntimeError("the forkserver is gone; its log on stderr says why")
            message = orjson.loads(datagram)
            if "spawned" in message:
                self._lanes[message["spawned"]].pid = message["pid"]
            elif "exited" in message:
                self._bury(self._lanes.pop(message["exited"]), message, events)

    def _bury(self, lane: _Lane, exit_: dict[str, Any], events: list[LaneEvent]) -> None:
        if not lane.mute:
            self._listen(lane, events)
        untaken = self._pull(lane)
        if lane.running is not None:
            how = f"signal {exit_['signal']}" if exit_["signal"] else f"exit code {exit_['code']}"
            crash = Killed(lane.running.job_id, End.CRASHED, f"the trainer process died ({how})")
            if lane.ending is not None and lane.ending.job_id != lane.running.job_id:
                events.append(Returned(lane.running.job_id))
            else:
                events.append(lane.ending or crash)
        events.extend(Returned(spec.job_id) for spec in untaken)
        for end in (lane.feed, lane.reading_end, lane.outbox):
            end.close()
        self._spawn()

    def _push(self, lane: _Lane, spec: Spec) -> None:
        lane.feed.send(spec.payload)
        if lane.running is None:
            lane.running, lane.deadline = spec, float("inf")
        else:
            lane.ahead = spec

    def _pull(self, lane: _Lane) -> Sequence[Spec]:
        """Read the lane's inbox empty; what comes out is no longer the lane's."""
        pulled = []
        fed = {spec.payload: spec for spec in lane.fed}
        while True:
            try:
                pulled.append(fed[lane.reading_end.recv(JOB_LIMIT_BYTES, socket.MSG_DONTWAIT)])
            except BlockingIOError:
                break
        if lane.ahead in pulled:
            lane.ahead = None
        if lane.running in pulled:
            # What was ahead and is not here has been taken just now.
            lane.running, lane.ahead = lane.ahead, None
        return pulled

    def _enforce(self) -> None:
        now = self.clock()
        if now < self._watch_at:
            return
        self._watch_at = now + WATCH_S
        for lane in self._lanes.values():
            spec = lane.running
            if not lane.open or lane.pid is None:
                continue
            if spec is None:
                if lane.rss_bytes > RECYCLE_RSS_BYTES:
                    lane.retiring = True
                    lane.feed.shutdown(socket.SHUT_WR)
                continue
            if now >= lane.deadline:
                message = f"the training exceeded its time limit of {spec.max_time_s:g} s (max_training_time_s)"
                self._kill(lane, Killed(spec.job_id, End.TIMED_OUT, message))
                continue
            lane.rss_bytes = _rss_bytes(lane.pid) or lane.rss_bytes
            if lane.rss_bytes > spec.max_memory_bytes:
                used, limit = lane.rss_bytes / 2**20, spec.max_memory_bytes / 2**20
                message = f"the training used {used:,.0f} MiB of its limit of {limit:,.0f} MiB (max_memory_bytes)"
                self._kill(lane, Killed(spec.job_id, End.OUT_OF_MEMORY, message))

    def _share(self) -> None:
        """An idle lane takes over what waits behind another's training."""
        for idle in self._lanes.values():
            if idle.load or not idle.open or idle.pid is None:
                continue
            for other in self._lanes.values():
                if other.ahead is not None:
                    for spec in self._pull(other):
                        self.feed(spec)
                    break

    def _kill(self, lane: _Lane, ending: Killed) -> None:
        lane.ending = ending
        self._command({"kill": lane.number})

    def _spawn(self) -> None:
        feed, reading_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        outbox, their_outbox = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        feed.setblocking(False)
        outbox.setblocking(False)
        number = self._next_number
        self._next_number += 1
        self._command({"spawn": number}, reading_end.fileno(), their_outbox.fileno())
        their_outbox.close()
        self._lanes[number] = _Lane(number, feed, reading_end, outbox)

    def _command(self, command: dict[str, object], *descriptors: int) -> None:
        assert self._control is not None
        socket.send_fds(self._control, [orjson.dumps(command)], descriptors)

    def _gone(self) -> bool:
        """Whether a trainer has ended since the last look."""
        assert self._control is not None
        try:
            message = orjson.loads(self._control.recv(CONTROL_LIMIT_BYTES) or b"{}")
        except BlockingIOError:
            return False
        if "exited" in message:
            self._lanes.pop(message["exited"]).outbox.close()
        return True


def _rss_bytes(pid: int) -> int:
    """Resident bytes of the trainer; 0 if it has just ended."""
    try:
        with Path(f"/proc/{pid}/statm").open("rb") as statm:
            return int(statm.read().split()[1]) * PAGE_BYTES
    except (FileNotFoundError, ProcessLookupError):
        return 0


def _without_credentials(environment: os._Environ[str]) -> dict[str, str]:
    """Only what a Python process needs to run: trainers never see a service's address or password."""
    hidden = ("MONGODB_", "KAFKA_", "MINIO_", "SCHEMA_REGISTRY_", "AWS_")
    return {name: value for name, value in environment.items() if not name.startswith(hidden)}
