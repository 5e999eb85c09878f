"""Runs the lanes: each has one trainer, fed one job ahead, watched, and replaced when it is gone.

A plain object without a thread: the worker's thread selects on `descriptors()`, calls `poll()` when one is readable
or a tenth of a second has passed, and gets back what happened. Nothing here blocks.

A job that was fed but not taken can be taken back: it is one datagram in the lane's inbox, whose reading end is open
here too, so that either the trainer reads it or we do. We take jobs back to release them in a drain, to move a job that
waits behind a long training to an idle lane, and to know what a dead trainer had taken.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from consumer.system.child_output import Output
from consumer.system.processes import cpu_s, keep_to, resident_bytes
from consumer.trainers.protocol import (
    JOB_LIMIT_BYTES,
    Done,
    End,
    Killed,
    LaneEvent,
    Logged,
    Reported,
    Returned,
    Spec,
    Taken,
)
from consumer.trainers.servers import Servers

GROWTH_BYTES = 270 * 2**20
"""A trainer that has grown by this since its first job is replaced once it is idle."""
MOST_WAITING = 100
"""So many held jobs, which wait for a GPU or for their framework's imports, do not count against `room`."""
PROGRESS, LOG = b'{"progress"', b'{"log"'
SAYS = frozenset({"taken", "progress", "log", "trained", "rejected", "failed", "full"})
"""The messages of a trainer about a job, each with the job's id."""
WATCH_S = 0.1
"""How often time and memory are checked; a fast allocator gains about 100 MB between two checks."""
CPU_WATCH_S = 1.0
CPU_SLACK = 1.2
"""A training that uses this many times its CPU time over CPU_WATCH_S is restricted to its number of CPUs."""


@dataclass(slots=True)
class _Lane:
    number: int
    framework: str
    gpu: str
    feed: socket.socket
    reading_end: socket.socket
    outbox: socket.socket
    output: Output
    pid: int | None = None
    running: Spec | None = None
    ahead: Spec | None = None
    deadline: float = 0.0
    ending: Killed | None = None
    """Why its trainer is being killed; the lane is not fed any more."""
    cpu_s: float = 0.0
    cpu_at: float = float("-inf")
    """When its CPU time was last checked; minus infinity before a training's first check."""
    rss_bytes: int = 0
    fresh_bytes: int = 0
    """Its resident bytes as it first told them."""
    retiring: bool = False
    """Its trainer ends by itself; the lane is not fed any more."""
    yields: bool = False
    """Its GPU is wanted by another framework, so its successor has none."""
    replaced: bool = False
    """Another lane has its place already."""
    mute: bool = False
    """Its outbox is closed, or holds something that a trainer does not send; it is not read any more."""

    @property
    def load(self) -> int:
        return (self.running is not None) + (self.ahead is not None)

    @property
    def open(self) -> bool:
        return self.ending is None and not self.retiring and not self.mute

    @property
    def fed(self) -> Sequence[Spec]:
        return [spec for spec in (self.running, self.ahead) if spec is not None]

    def close(self) -> None:
        for end in (self.feed, self.reading_end, self.outbox, self.output):
            end.close()


@dataclass(slots=True)
class Lanes:
    """Owned by the worker's thread.

    Each deep-learning framework has a forkserver of its own, started when first needed, since one process cannot hold
    two frameworks. An idle lane changes to the framework of a waiting job as soon as that is imported. Each GPU belongs
    to at most one lane at a time.
    """

    count: int
    threads_per_training: int = 1
    gpus: Sequence[str] = ()
    clock: Callable[[], float] = time.monotonic
    _servers: Servers = field(init=False)
    _lanes: dict[int, _Lane] = field(default_factory=dict)
    _held: list[Spec] = field(default_factory=list)
    """Jobs fed that no lane can take yet."""
    _datagram: bytearray = field(default_factory=lambda: bytearray(JOB_LIMIT_BYTES))
    _next_number: int = 0
    _watch_at: float = 0.0

    def __post_init__(self) -> None:
        self._servers = Servers(self.threads_per_training)

    def start(self) -> None:
        """Start the forkserver and the trainers; returns before they are ready. Call it before any client starts."""
        self._servers.start("")
        for _ in range(self.count):
            self._spawn()

    def stop(self) -> None:
        """Let idle trainers end, and kill the others with their groups; returns when all are gone."""
        for lane in self._lanes.values():
            lane.feed.close()
            lane.reading_end.close()
        deadline = self.clock() + 2.0
        while any(lane.running is None for lane in self._lanes.values()) and self.clock() < deadline:
            for _, message in self._servers.heard():
                if "exited" in message:
                    self._lanes.pop(message["exited"]).close()
            time.sleep(0.01)
        self._servers.stop()
        for lane in self._lanes.values():
            lane.close()
        self._lanes.clear()

    def descriptors(self) -> Iterator[socket.socket]:
        """The sockets to select on for reading; they change when a trainer is replaced."""
        yield from self._servers.descriptors()
        for lane in self._lanes.values():
            if not lane.mute:
                yield lane.outbox

    @property
    def busy(self) -> int:
        """How many lanes have a job; any thread may ask."""
        return sum(lane.running is not None for lane in tuple(self._lanes.values()))

    @property
    def saturated(self) -> bool:
        """Whether no lane is free."""
        return all(lane.running is not None for lane in self._lanes.values() if not lane.replaced)

    @property
    def alive(self) -> bool:
        """Whether trainers can be started; a framework's forkserver is started again when it is needed."""
        return self._servers.alive("")

    def rss_bytes(self) -> int:
        """The resident bytes of all trainers, as last measured."""
        return sum(lane.rss_bytes for lane in self._lanes.values())

    def room(self) -> int:
        """How many jobs can be fed now: one running and one ahead in each lane."""
        startable = sum(self._can_start(spec.framework) for spec in self._held)
        waiting = len(self._held) - startable
        taken = 2 * startable + max(0, waiting - MOST_WAITING)  # each startable one needs an idle lane
        return max(0, sum(2 - lane.load for lane in self._lanes.values() if lane.open) - taken)

    def feed(self, spec: Spec) -> None:
        """Give a job to the least loaded lane of its framework, or to an idle lane. Call only if there is room().

        While no lane can take it the job is held, and tried again with each poll.
        """
        self._servers.start(spec.framework)
        lane = self._lane_for(spec.framework)
        if lane is None:
            self._held.append(spec)
        else:
            self._push(lane, spec)

    def _lane_for(self, framework: str) -> _Lane | None:
        lanes = sorted(
            (lane for lane in self._lanes.values() if lane.open and lane.load < 2), key=lambda lane: lane.load
        )
        own = next((lane for lane in lanes if lane.framework == framework), None)
        if own is not None and own.load == 0:
            return own
        idle = [lane for lane in lanes if lane.load == 0]
        if idle and self._can_start(framework):
            return self._changed(idle[0], framework)
        for lane in idle if self._servers.ready(framework) else ():
            if lane.gpu:  # free again when its trainer has ended
                lane.yields = True
                _retire(lane)
                break
        return own

    def _changed(self, lane: _Lane, framework: str) -> _Lane:
        """Replace an idle lane by a new one for this framework; the old trainer ends by itself."""
        lane.replaced = True
        _retire(lane)
        return self._spawn(framework)

    def _can_start(self, framework: str) -> bool:
        """Whether a trainer for this framework can be forked at once."""
        if not framework:
            return True
        return self._servers.ready(framework) and (not self.gpus or bool(self._free_gpus()))

    def _free_gpus(self) -> list[str]:
        taken = {lane.gpu for lane in self._lanes.values()}
        return [gpu for gpu in self.gpus if gpu not in taken]

    def take_back(self, job_id: str | None = None) -> Sequence[str]:
        """Take back this job, or all jobs, if no trainer has taken them. Returns the ids taken back."""
        back = [spec.job_id for spec in self._held if job_id in (None, spec.job_id)]
        self._held = [spec for spec in self._held if spec.job_id not in back]
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
        """Handle all messages since the last call, check the limits, and return what happened."""
        events: list[LaneEvent] = []
        for lane in list(self._lanes.values()):
            self._listen(lane, events)
        for framework, message in self._servers.heard():
            self._obey(framework, message, events)
        self._watch(events)
        held, self._held = self._held, []
        for spec in held:
            self.feed(spec)
        self._share()
        return events

    def _listen(self, lane: _Lane, events: list[LaneEvent]) -> None:
        """Handle what has come from a trainer; of its progress only the last report, if nothing has followed it."""
        progress = b""
        while not lane.mute:
            try:
                size = lane.outbox.recv_into(self._datagram)
            except (BlockingIOError, ConnectionResetError):
                break
            datagram = bytes(self._datagram[:size])
            if datagram.startswith(PROGRESS):
                progress = datagram
                continue
            if progress and datagram.startswith(LOG):
                self._hear(lane, progress, events)
            progress = b""
            _pass_on_output(lane, events)
            self._hear(lane, datagram, events)
        if progress:
            self._hear(lane, progress, events)

    def _hear(self, lane: _Lane, datagram: bytes, events: list[LaneEvent]) -> None:
        said, _, result = datagram.partition(b"\n")
        try:
            events.append(self._understand(lane, orjson.loads(said), result))
        except (ValueError, KeyError, TypeError, AttributeError):
            # The outbox has ended, or a training has closed or written to it: stop reading, replace the trainer.
            lane.mute = True
            self._servers.tell(lane.framework, {"kill": lane.number})

    def _understand(self, lane: _Lane, message: dict[str, Any], result: bytes) -> LaneEvent:
        """Apply a message. Raises various errors if no trainer can have sent it: trainings can use the socket too."""
        if not all(isinstance(message[key], str) for key in SAYS & message.keys()):
            raise ValueError("a trainer names its job by no text")
        if (job_id := message.get("taken")) is not None:
            if lane.running is None or lane.running.job_id != job_id:
                lane.running, lane.ahead = lane.ahead, None
            if lane.running is None:
                raise ValueError(f"a trainer took {job_id!r} without having been fed")
            lane.deadline = self.clock() + lane.running.max_time_s
            lane.cpu_at = float("-inf")
            lane.output.begin()
            return Taken(job_id)
        if "progress" in message:
            lane.rss_bytes = message["rss_bytes"]
            lane.fresh_bytes = lane.fresh_bytes or lane.rss_bytes
            return Reported(message.pop("progress"), **message)
        if "log" in message:
            return Logged(message["log"], message["level"], message["message"])
        for how in ("trained", "rejected", "failed", "full"):
            if (job_id := message.pop(how, None)) is not None:
                lane.rss_bytes = message.get("rss_bytes", lane.rss_bytes)
                lane.fresh_bytes = lane.fresh_bytes or lane.rss_bytes
                lane.running, lane.ahead, lane.deadline = lane.ahead, None, float("inf")
                lane.retiring = message.pop("last") or lane.retiring
                return Done(job_id, how, result=result, **message)
        raise ValueError(f"a trainer sent {sorted(message)}")

    def _obey(self, framework: str, message: dict[str, Any], events: list[LaneEvent]) -> None:
        if "spawned" in message:
            self._lanes[message["spawned"]].pid = message["pid"]
        elif "exited" in message:
            how = f"signal {message['signal']}" if message["signal"] else f"exit code {message['code']}"
            self._end_lane(self._lanes.pop(message["exited"]), how, events)
        else:
            self._lost(framework, message, events)

    def _lost(self, framework: str, ended: dict[str, Any], events: list[LaneEvent]) -> None:
        """A forkserver has ended with its trainers. Raises RuntimeError for the one without a framework.

        A job whose trainer was never forked counts as crashed: else a framework that cannot be imported would be
        started for it again and again.
        """
        if not framework:
            raise RuntimeError("the forkserver is gone; its log on stderr says why")
        how = f"exit code {ended['ended']} of the forkserver of {framework}"
        unborn = [] if ended["ready"] else [spec for spec in self._held if spec.framework == framework][:1]
        self._held = [spec for spec in self._held if spec not in unborn]
        for lane in [lane for lane in self._lanes.values() if lane.framework == framework]:
            del self._lanes[lane.number]
            lane.framework = ""
            first = lane.running
            untaken = self._pull(lane)
            if lane.pid is None and first is not None and first in untaken:
                unborn.append(first)
            events.extend(Returned(spec.job_id) for spec in untaken if spec not in unborn)
            self._end_lane(lane, how, events)
        events.extend(Killed(spec.job_id, End.CRASHED, f"the trainer was not started ({how})") for spec in unborn)

    def _end_lane(self, lane: _Lane, how: str, events: list[LaneEvent]) -> None:
        if not lane.mute:
            self._listen(lane, events)
        _pass_on_output(lane, events)
        untaken = self._pull(lane)
        if lane.running is not None:
            crash = Killed(lane.running.job_id, End.CRASHED, f"the trainer process died ({how})")
            if lane.ending is not None and lane.ending.job_id != lane.running.job_id:
                events.append(Returned(lane.running.job_id))
            else:
                events.append(lane.ending or crash)
        events.extend(Returned(spec.job_id) for spec in untaken)
        lane.close()
        if not lane.replaced:
            self._spawn("" if lane.yields else lane.framework)

    def _push(self, lane: _Lane, spec: Spec) -> None:
        lane.feed.send(spec.payload)
        if lane.running is None:
            lane.running, lane.deadline = spec, float("inf")
        else:
            lane.ahead = spec

    def _pull(self, lane: _Lane) -> Sequence[Spec]:
        """Read the lane's inbox until it is empty; the jobs in it are no longer the lane's."""
        pulled = []
        fed = {spec.payload: spec for spec in lane.fed}
        while True:
            try:
                payload = lane.reading_end.recv(JOB_LIMIT_BYTES, socket.MSG_DONTWAIT)
            except BlockingIOError:
                break
            if not payload:  # it was told to end
                break
            pulled.append(fed[payload])
        if lane.ahead in pulled:
            lane.ahead = None
        if lane.running in pulled:
            # The job ahead, if it was not in the inbox, has just been taken.
            lane.running, lane.ahead = lane.ahead, None
        return pulled

    def _watch(self, events: list[LaneEvent]) -> None:
        now = self.clock()
        if now < self._watch_at:
            return
        self._watch_at = now + WATCH_S
        self._servers.end_late()
        for lane in self._lanes.values():
            _pass_on_output(lane, events)
            if not lane.open or lane.pid is None:
                continue
            if lane.running is not None:
                self._enforce(lane, lane.pid, lane.running, now)
                if now >= lane.cpu_at + CPU_WATCH_S:
                    self._keep_to_its_cpus(lane, lane.pid, lane.running, now, events)
            elif lane.rss_bytes > lane.fresh_bytes + GROWTH_BYTES:
                _retire(lane)

    def _enforce(self, lane: _Lane, pid: int, spec: Spec, now: float) -> None:
        if now >= lane.deadline:
            message = f"the training exceeded its time limit of {spec.max_time_s:g} s (max_training_time_s)"
            self._kill(lane, Killed(spec.job_id, End.TIMED_OUT, message))
            return
        lane.rss_bytes = resident_bytes(pid) or lane.rss_bytes
        if lane.rss_bytes > spec.max_memory_bytes:
            used, limit = lane.rss_bytes / 2**20, spec.max_memory_bytes / 2**20
            message = f"the training used {used:,.0f} MiB of its limit of {limit:,.0f} MiB (max_memory_bytes)"
            self._kill(lane, Killed(spec.job_id, End.OUT_OF_MEMORY, message))

    def _keep_to_its_cpus(self, lane: _Lane, pid: int, spec: Spec, now: float, events: list[LaneEvent]) -> None:
        """Restrict a training that uses more CPU time than allowed to its CPUs; its trainer is replaced after it."""
        used, most = cpu_s(pid), self.threads_per_training
        if used - lane.cpu_s > CPU_SLACK * most * (now - lane.cpu_at):
            cpus = sorted(os.sched_getaffinity(0))
            keep_to(pid, {cpus[(lane.number * most + n) % len(cpus)] for n in range(most)})
            message = f"the training computes in more threads than it may; it is kept to {most} (CPUS_PER_TRAINING)"
            events.append(Logged(spec.job_id, "warning", message))
        lane.cpu_s, lane.cpu_at = used, now

    def _share(self) -> None:
        """Move jobs that wait behind a training to idle lanes."""
        for idle in tuple(self._lanes.values()):
            if idle.load or not idle.open or idle.pid is None:
                continue
            for other in self._lanes.values():
                if other.ahead is not None and self._suits(idle, other.framework):
                    for spec in self._pull(other):
                        self.feed(spec)
                    break

    def _suits(self, idle: _Lane, framework: str) -> bool:
        return idle.framework == framework or self._can_start(framework)

    def _kill(self, lane: _Lane, ending: Killed) -> None:
        lane.ending = ending
        self._servers.tell(lane.framework, {"kill": lane.number})

    def _spawn(self, framework: str = "") -> _Lane:
        feed, reading_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        outbox, their_outbox = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        feed.setblocking(False)
        outbox.setblocking(False)
        number = self._next_number
        self._next_number += 1
        gpu = next(iter(self._free_gpus()), "") if framework else ""
        output = Output()
        theirs = (reading_end.fileno(), their_outbox.fileno(), output.writing)
        self._servers.tell(framework, {"spawn": number, "gpu": gpu}, *theirs)
        their_outbox.close()
        output.given_away()
        lane = self._lanes[number] = _Lane(number, framework, gpu, feed, reading_end, outbox, output)
        return lane


def _pass_on_output(lane: _Lane, events: list[LaneEvent]) -> None:
    lines = lane.output.lines()
    if lane.running is not None:
        events.extend(Logged(lane.running.job_id, "info", line) for line in lines)


def _retire(lane: _Lane) -> None:
    """Let an idle trainer end by itself."""
    lane.retiring = True
    lane.feed.shutdown(socket.SHUT_WR)
