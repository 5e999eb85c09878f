"""Two real workers in one thread: each neighbour of the worker's thread does its next piece of work when it is told to.

Real are Worker, Assignment, Dispatch, Claims, Heartbeat, Readiness, Registrar, Committer and ExactlyOnce. In memory
are the ledger, the broker, the artifact store and the trainers; the registry is SQLite. Time stands still but for
`Fleet.pass_time`.
"""

from __future__ import annotations

import hashlib
import queue
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import cycle
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import orjson

from consumer.events.codec import Codec
from consumer.events.outgoing import outcome_messages
from consumer.events.requests import to_avro
from consumer.events.topics import Topics
from consumer.jobs.claims import Claims
from consumer.jobs.lease import INTERVAL_S, LEASE_S, Heartbeat, Steady, begin_life
from consumer.jobs.readiness import Readiness
from consumer.jobs.registrar import Registrar
from consumer.jobs.spools import Spools
from consumer.partitions.records import Membership, Partition, Polled, Record
from consumer.publishing.committer import Committer
from consumer.publishing.transactions import ExactlyOnce
from consumer.telemetry.metrics import Metrics
from consumer.threads.neighbour import Surroundings, ThreadFailed
from consumer.threads.retrying import Breakers, Stopped
from consumer.threads.watch import Watch
from consumer.trainers.protocol import Done, End, LaneEvent, Spec, Taken
from consumer.trainers.protocol import Killed as KilledTraining
from consumer.worker.feeding import Limits
from consumer.worker.job_events import JobEvents
from consumer.worker.shared import Neighbours
from consumer.worker.worker import Worker
from pipeline.artifacts import NewArtifact
from pipeline.datasets import Dataset
from pipeline.errors import SupersededError, TransientError
from pipeline.jobs import ErrorKind, SplitSummary, StoredArtifact, TrainingRequest
from pipeline.ledger import Entry
from pipeline.registry.quotas import Quotas
from pipeline.registry.sqlite import SqliteRegistry
from pipeline.training.trained import Trained
from schemas import RecordType
from tests.contract.dict_ledger import DictLedger
from tests.protocol.broker import Broker, Killed, Proof

TOPIC = "training-requests"
LIMITS = Limits(300.0, 2**30, attempts=3, worker_losses=1000, look_ahead=100, drain_timeout_s=600.0)
WRITES = ("claim", "fill_stub", "take_over", "start", "close", "insert_outcomes", "release", "register")
A_MODEL = Trained(
    Path("model.skops"), "", 1, "skops", "classifier", {}, {"test_accuracy": 1.0}, "f", ["x"], "y", ["a", "b"], 0.1,
    [{"name": "x", "type": "double"}], {}, [], "split", True, SplitSummary("random", 8, 2),
)  # fmt: skip


class Flaky:
    """A store whose next write goes wrong as Process.fates says."""

    def __init__(self, process: Process, store: Any) -> None:
        self._process = process
        self._store = store

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._store, name)
        return (lambda *args, **kwargs: self._process.write(method, *args, **kwargs)) if name in WRITES else method


class Lanes:
    """Trainers that do what they are told."""

    busy, saturated, alive = 0, False, True

    def __init__(self) -> None:
        self.fed: dict[str, Spec] = {}
        self.running: dict[str, Spec] = {}
        self.events: list[LaneEvent] = []

    def room(self) -> int:
        return 2 - len(self.fed) - len(self.running)

    def feed(self, spec: Spec) -> None:
        self.fed[spec.job_id] = spec

    def take_back(self, job_id: str) -> Sequence[str]:
        return [job_id] if self.fed.pop(job_id, None) else []

    def kill(self, job_id: str, end: End, message: str) -> bool:
        if self.running.pop(job_id, None) is None:
            return False
        self.events.append(KilledTraining(job_id, end, message))
        return True

    def poll(self) -> Sequence[LaneEvent]:
        events, self.events = self.events, []
        return events

    def rss_bytes(self) -> int:
        return 0

    def go_on(self, well: bool) -> None:
        """The first training ends; if there is none, what is fed is taken."""
        for job_id, spec in self.fed.items():
            self.running[job_id] = spec
            self.events.append(Taken(job_id))
            del self.fed[job_id]
            return
        for job_id, spec in self.running.items():
            self.events.append(_trained(spec) if well else Done(job_id, "failed", ErrorKind.TRAINING_ERROR, "no"))
            del self.running[job_id]
            return


class Artifacts:
    def __init__(self) -> None:
        self.stored: dict[str, StoredArtifact] = {}

    def put(self, artifacts: Sequence[NewArtifact]) -> Mapping[str, StoredArtifact]:
        for one in artifacts:
            self.stored[one.key] = StoredArtifact(f"file:///{one.key}", one.sha256, one.size_bytes)
        return {one.key: self.stored[one.key] for one in artifacts}


class Inbox:
    """Gives the worker's thread as many messages in its next turn as `allowed`."""

    def __init__(self) -> None:
        self.messages: deque[Any] = deque()
        self.allowed = 0

    def put(self, message: Any) -> None:
        self.messages.append(message)

    def wake(self) -> None: ...

    def take(self, _: float) -> Iterator[Any]:
        for _ in range(min(self.allowed, len(self.messages))):
            yield self.messages.popleft()


class Process:
    """One life of one worker.

    `fates` is what becomes of its next write of a name, or under "" of any: "refused" or "applied", and not answered;
    "late", so too; or the process is "killed before" or "killed after" it.
    """

    def __init__(self, fleet: Fleet, name: str, folder: Path) -> None:
        self.fleet, self.name, self.fates, self.stopped = fleet, name, dict[str, str](), False
        self.inbox, self.lanes = Inbox(), Lanes()
        self.intake = SimpleNamespace(read=lambda _: None, leave=lambda: None, turned_at=0.0)
        self.me = begin_life(name, fleet.ledger)
        self._epoch, self._epochs, self._opened = 0, dict[Partition, int](), set[Partition]()
        self._positions: dict[Partition, int] = {}
        ledger, registry = Flaky(self, fleet.ledger), Flaky(self, fleet.registry)
        metrics, steady, codec, topics = Metrics(), Steady(fleet.clock), fleet.codec, fleet.topics
        breakers = Breakers(metrics, threshold=10**9)
        around = Surroundings(self.inbox.put, breakers, metrics)
        progress: Any = SimpleNamespace(publish=lambda *_: None, flush=lambda: None)
        kafka = {"broker": fleet.broker, "transactional.id": name}
        announcer = ExactlyOnce(kafka, kafka, lambda: ledger.heartbeat(self.me, LEASE_S, ()))
        announcer.prepare()
        spools = Spools(folder)
        self.claims = Claims(self.me, ledger, codec, steady=steady, around=around)
        self.registrar = Registrar(
            self.me, ledger, registry, fleet.artifacts, codec, topics, spools=spools, steady=steady, around=around  # type: ignore[arg-type]
        )  # fmt: skip
        self.committer = Committer(announcer, progress, codec, topics, around=around)
        self.committer._given_up.set()  # what is in doubt is tried again when it is told to
        dataset = Dataset("iris", "f", None, "species")
        at_hand = cycle((dataset, None, None))  # every second one has to be waited for
        datasets: Any = SimpleNamespace(
            at_hand=lambda _: next(at_hand),
            ensure=lambda *_: dataset,
            release=lambda _: None,
            hits=0,
            misses=0,
            begun=0,
        )
        self.readiness = Readiness(
            self.me, ledger, datasets, lambda _: None, quotas=Quotas(), registry=registry, machine={},
            training_memory_bytes=2**30, spool=folder, is_alone=lambda: True, steady=steady, around=around,
        )  # fmt: skip
        neighbours = Neighbours(
            intake=self.intake, claims=self.claims, readiness=self.readiness, lanes=self.lanes,  # type: ignore[arg-type]
            registrar=self.registrar, committer=self.committer, checkpoints=None,  # type: ignore[arg-type]
        )  # fmt: skip
        self.worker = Worker(
            self.me, self.inbox, neighbours,  # type: ignore[arg-type]
            job_events=JobEvents(name, progress, metrics), breakers=breakers, metrics=metrics, limits=LIMITS,
            quotas=Quotas(), watch=Watch(), spools=spools, clock=fleet.now,
        )  # fmt: skip
        self.heart = Heartbeat(self.me, ledger, watched=self.worker.watched, steady=steady, around=around)
        self._announcing: Callable[[], None] | None = None

    # What it does, a piece at a time -------------------------------------------------------------------------------

    def poll(self) -> None:
        """Also joins the group again, if the session has run out."""
        if self not in self.fleet.broker.members:
            self._epochs, self._opened = {}, set()
            self.fleet.join(self)
        opened, records = {}, list[Record]()
        for partition, epoch in self._epochs.items():
            if partition not in self._opened:
                before = self.fleet.broker.read(partition)
                if before is None:
                    continue
                opened[partition], self._positions[partition] = before, before.offset
                self._opened.add(partition)
            values = self.fleet.broker.log[partition]
            for offset in range(self._positions[partition], len(values)):
                records.append(Record(partition, epoch, offset, b"k", values[offset], (), 0))
            self._positions[partition] = len(values)
        positions = {p: self._positions[p] for p in self._opened}
        proof = Proof(self, self.fleet.broker.generation)
        self.inbox.put(Polled(records, opened, Membership(dict(self._epochs), positions, {}, proof)))

    def assigned(self, partition: Partition) -> None:
        self._epoch += 1
        self._epochs[partition] = self._epoch
        self._opened.discard(partition)

    def revoked(self, partition: Partition) -> None:
        self._epochs.pop(partition, None)
        self._opened.discard(partition)

    def turn(self, messages: int) -> None:
        self.inbox.allowed, self.intake.turned_at = messages, self.fleet.clock()
        self.worker._turn()

    def claim(self) -> None:
        self.claims.step()

    def prepare(self) -> None:
        self.readiness.step()

    def train(self, well: bool) -> None:
        self.lanes.go_on(well)

    def store(self) -> None:
        self.registrar.step()

    def announce(self) -> None:
        """What is in doubt stays in hand: the next piece of work asks how it ended."""
        with suppress(queue.Empty, Stopped):
            self._announcing = self._announcing or self.committer._orders.get_nowait()
            assert self._announcing is not None
            self._announcing()
            self._announcing = None

    def beat(self) -> None:
        self.heart.step()

    def write(self, method: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        fate = self.fates.pop(method.__name__, "") or self.fates.pop("", "")
        if fate == "killed before":
            raise Killed
        if fate == "late":
            self.fleet.late = lambda: method(*args, **kwargs)
        answer = None if fate in ("late", "refused") else method(*args, **kwargs)
        if fate == "killed after":
            raise Killed
        if fate:
            raise TransientError("mongodb", "no answer")
        return answer


class Fleet:
    """Two workers, and what they share."""

    def __init__(self, folder: Path, log: Mapping[int, Sequence[TrainingRequest]]) -> None:
        self._folder, self._lives = folder, 0
        self._time = datetime(2026, 1, 31, tzinfo=UTC)
        self.codec, self.topics = Codec(), Topics()
        self.requests = {one.request_id for requests in log.values() for one in requests}
        values: dict[Partition, Sequence[bytes]] = {
            Partition(TOPIC, number): [self.codec.encode(RecordType.TRAINING_REQUEST, to_avro(one)) for one in requests]
            for number, requests in log.items()
        }
        self.broker = Broker(values)
        self.owners: dict[Partition, Process | None] = dict.fromkeys(values)
        self.ledger, self.artifacts = DictLedger(self.now), Artifacts()
        self.registry = SqliteRegistry(folder / "registry.sqlite")
        self.registry.prepare()
        self.late: Callable[[], object] | None = None
        self.processes: dict[str, Process | None] = {"w0": None, "w1": None}
        for name in self.processes:
            self.start(name)

    def now(self) -> datetime:
        return self._time

    def clock(self) -> float:
        return self._time.timestamp()

    def living(self) -> Sequence[Process]:
        return [one for one in self.processes.values() if one is not None and not one.stopped]

    def start(self, name: str) -> None:
        self._lives += 1
        folder = self._folder / str(self._lives)
        folder.mkdir()
        self.processes[name] = Process(self, name, folder)

    def do(self, process: Process, what: Callable[..., None], *args: Any) -> None:
        """One piece of a process's work, which may be its last."""
        try:
            what(*args)
        except (Killed, SupersededError):
            self.kill(process)
        for message in list(process.inbox.messages):
            if isinstance(message, ThreadFailed):
                raise message.error

    def kill(self, process: Process) -> None:
        self.processes[process.name] = None

    def pass_time(self, seconds: float) -> None:
        """Whoever lives beats meanwhile."""
        until = self._time + timedelta(seconds=seconds)
        while self._time < until:
            self._time += timedelta(seconds=min(INTERVAL_S, (until - self._time).total_seconds()))
            for process in self.living():
                self.do(process, process.beat)
        for name in list(self.broker.open):
            owner = self.processes[name]
            if seconds > LEASE_S and (owner is None or owner.stopped):
                self._time_out(name)

    def _time_out(self, name: str) -> None:
        """A transaction that takes too long is aborted, and its producer fenced."""
        del self.broker.open[name]
        self.broker.epochs[name] += 1

    # The group ----------------------------------------------------------------------------------------------------

    def join(self, process: Process) -> None:
        self.expel()
        self.broker.members.add(process)
        self.broker.generation += 1

    def expel(self) -> None:
        """Members that do not poll are out when their session has ended."""
        for member in set(self.broker.members) - set(self.living()):
            self.broker.members.discard(member)
            self.owners = {p: None if owner is member else owner for p, owner in self.owners.items()}
            self.broker.generation += 1

    def revoke(self, partition: Partition) -> None:
        if (owner := self.owners[partition]) is not None and owner in self.living():
            self.expel()
            owner.revoked(partition)
            self.owners[partition] = None
            self.broker.generation += 1

    def assign(self, partition: Partition, process: Process) -> None:
        self.expel()
        if self.owners[partition] is None and process in self.broker.members:
            self.owners[partition] = process
            process.assigned(partition)
            self.broker.generation += 1

    # What must hold -----------------------------------------------------------------------------------------------

    def entries(self) -> Mapping[str, Entry]:
        return self.ledger.read(self.requests)

    def said(self) -> dict[str, int]:
        """Terminal events by request; each says what ledger and registry say."""
        entries, documents = self.entries(), self.registry.find(self.requests)
        right, early = {}, set()
        for request_id, entry in entries.items():
            if entry.outcome is not None and (entry.outcome.model is None) == (request_id not in documents):
                messages = outcome_messages(self.codec, self.topics, entry.outcome, documents.get(request_id))
                *started, terminal = (one for one in messages if one.topic == self.topics.training_progress)
                early |= {(one.key, one.value) for one in started}
                right[terminal.key, terminal.value] = request_id
        said = dict.fromkeys(self.requests, 0)
        for message in self.broker.visible:
            if message.topic == self.topics.training_progress and (message.key, message.value) not in early:
                said[right[message.key, message.value]] += 1
        return said


def _trained(spec: Spec) -> Done:
    spool = Path(orjson.loads(spec.payload)["spool"])
    spool.mkdir(exist_ok=True)
    sha256 = hashlib.sha256(str(spool).encode()).hexdigest()
    (spool / "result.json").write_bytes(replace(A_MODEL, sha256=sha256).to_json())
    return Done(spec.job_id, "trained")
