"""Workers as an operator runs them: processes with an environment, on real services, and nothing but topics between."""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import orjson
from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from consumer.events.codec import Codec
from consumer.events.control import cancel_command
from consumer.events.messages import Message, message
from consumer.events.requests import to_avro
from consumer.events.topics import Topics
from pipeline.jobs import TrainingRequest
from schemas import RecordType
from tests.command import Answer
from tests.launcher import Launcher, Process, launcher_for

ROOT = Path(__file__).parents[2]
PLUGINS = ROOT / "tests" / "plugins"
GROUP = "ml-worker"
WORKER = ("consumer.cli", "worker")
DIES_WITH_US = ("setpriv", "--pdeathsig", "KILL")
"""No preexec_fn: that makes Popen fork, for which OpenBLAS waits for ever, GIL in hand, while a thread multiplies."""


@dataclass
class WorkerProcess:
    worker_id: str
    process: Process
    log: Path

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def drain(self, within_s: float = 120) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(within_s)

    def lines(self) -> list[str]:
        return self.log.read_text().splitlines()

    def has_said(self, words: str) -> bool:
        return any(words in line for line in self.lines())

    def rebalances(self) -> list[dict[str, Any]]:
        """What it has logged about its partitions: `event` is partitions assigned, revoked or lost."""
        lines = [line for line in self.lines() if line.endswith("}") and '"partitions ' in line]
        return [orjson.loads(line) for line in lines]

    def partitions(self) -> set[int]:
        """What it owns now."""
        owned: set[int] = set()
        for entry in self.rebalances():
            change = owned.update if entry["event"] == "partitions assigned" else owned.difference_update
            change(entry["partitions"])
        return owned


@dataclass
class Fleet:
    """Everything of one test: its topics, its database, its bucket, and the workers that it started."""

    environment: Mapping[str, str]
    folder: Path
    prefix: str
    bootstrap_servers: str = ""
    """For our own clients, where those are not the workers'."""
    forks: bool = False
    """Whether workers and commands may be forked, see tests.launcher."""
    workers: list[WorkerProcess] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.topics = Topics(self.prefix)
        self.codec = Codec()
        servers = self.bootstrap_servers or self.environment["KAFKA_BOOTSTRAP_SERVERS"]
        self.brokers: dict[str, str | int | float | bool] = {"bootstrap.servers": servers, "log_level": 2}
        self.admin = AdminClient(self.brokers)
        self.producer = Producer(
            {
                **self.brokers,
                "partitioner": "murmur2_random",
                "enable.idempotence": True,
                "max.in.flight.requests.per.connection": 1,  # topics may have been made a moment ago (KAFKA-15591)
                "message.max.bytes": 64 * 2**20,
            }
        )

    def create_topics(self, partitions: int = 12, config: Mapping[str, str] | None = None) -> None:
        """With as many replicas as the broker gives by default: one, or one on each node of a cluster."""
        new = [
            NewTopic(
                topic.name,
                partitions if topic.record is RecordType.TRAINING_REQUEST else topic.partitions,
                config={**topic.config, **(config or {})},
            )
            for topic in self.topics.all()
        ]
        for future in self.admin.create_topics(new).values():
            future.result(30)
        wanted = {topic.name for topic in self.topics.all()}
        self.until(
            lambda: wanted <= self.admin.list_topics(timeout=10).topics.keys()
        )  # it lists new topics a moment late

    def start(
        self, worker_id: str, command: Sequence[str] = WORKER, *, wrapped_by: Sequence[str] = (), **environment: str
    ) -> WorkerProcess:
        """A worker of two lanes; more settings as keyword arguments. `wrapped_by` is a command that becomes it."""
        log = self.folder / f"{worker_id}-{len(self.workers)}.log"
        settings = {
            "TOPIC_PREFIX": self.prefix,
            "KAFKA_GROUP_ID": self.prefix + GROUP,
            "WORKER_ID": worker_id,
            "WORKER_CONCURRENCY": "2",
            "PORT": "0",
            "LOG_FORMAT": "json",
            "SPOOL_DIR": str(self.folder / f"spool-{worker_id}"),
            "DATASET_CACHE_DIR": str(self.folder / "datasets"),
            "KAFKA_SESSION_TIMEOUT_MS": "6000",
            "KAFKA_MAX_POLL_INTERVAL_MS": "10000",
        }
        path = os.pathsep.join(filter(None, (str(PLUGINS), os.environ.get("PYTHONPATH"))))
        environ = {**os.environ, **self.environment, **settings, **environment, "PYTHONPATH": path}
        process: Process
        with log.open("wb") as output:
            if command == WORKER and not wrapped_by and (forking := self._launcher(environ)) is not None:
                process = forking.start(command[0], command[1:], environ, output, output)
            else:
                process = subprocess.Popen(
                    [*DIES_WITH_US, *wrapped_by, sys.executable, "-m", *command],
                    env=environ,
                    cwd=ROOT,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
        worker = WorkerProcess(worker_id, process, log)
        self.workers.append(worker)
        return worker

    def lose_machine(self, worker: WorkerProcess) -> None:
        """kill -9, and nothing of what it had on disk is left: who goes on does so on another machine."""
        worker.kill()
        for folder in (f"spool-{worker.worker_id}", "datasets"):
            shutil.rmtree(self.folder / folder, ignore_errors=True)

    def end(self) -> None:
        """Drain all workers; who takes too long is killed."""
        for worker in self.workers:
            if worker.process.poll() is None:
                worker.process.terminate()
        for worker in self.workers:
            try:
                worker.process.wait(30)
            except subprocess.TimeoutExpired:
                worker.kill()

    def submit(self, *requests: TrainingRequest) -> None:
        for request in requests:
            sent = self.encode(request)
            self.put(sent.key, sent.value, headers=sent.headers)
        self.flush()

    def encode(self, request: TrainingRequest) -> Message:
        return message(self.codec, self.topics, RecordType.TRAINING_REQUEST, to_avro(request))

    def put(
        self,
        key: bytes | None,
        value: bytes | None,
        *,
        headers: Sequence[tuple[str, bytes | None]] = (),
        partition: int = -1,
    ) -> None:
        """Any record on the requests topic, by its key or where `partition` says."""
        self.producer.produce(
            self.topics.training_requests, value, key, partition, headers=list(headers), on_delivery=_delivered
        )
        self.producer.poll(0)

    @contextmanager
    def load(self, make: Callable[[int], TrainingRequest], every_s: float) -> Iterator[None]:
        """Submit make(0), make(1), … at this pace while the block runs."""
        over = threading.Event()

        def submit() -> None:
            for number in itertools.count():
                self.submit(make(number))
                if over.wait(every_s):
                    return

        with ThreadPoolExecutor(1) as thread:
            submitting = thread.submit(submit)
            try:
                yield
            finally:
                over.set()
            submitting.result(60)

    def flush(self) -> None:
        assert self.producer.flush(30) == 0

    def cancel(self, request_id: str, reason: str = "not needed", *, flush: bool = True) -> None:
        command = cancel_command(request_id, reason=reason, user="ann", requested_at=datetime.now(UTC))
        sent = message(self.codec, self.topics, RecordType.TRAINING_CONTROL, command)
        self.producer.produce(sent.topic, sent.value, sent.key, headers=list(sent.headers), on_delivery=_delivered)
        if flush:
            self.flush()

    def command(self, *arguments: str) -> Answer:
        """`tensorfleet`, as somebody who uses this fleet runs it."""
        environ = {**os.environ, **self.environment, "TOPIC_PREFIX": self.prefix}
        with TemporaryFile() as output, TemporaryFile() as errors:
            if (forking := self._launcher(environ)) is not None:
                code = forking.start("consumer.cli", arguments, environ, output, errors).wait()
            else:
                command = [sys.executable, "-m", "consumer.cli", *arguments]
                code = subprocess.call(command, env=environ, cwd=ROOT, stdout=output, stderr=errors)
            said = []
            for file in (output, errors):
                file.seek(0)
                said.append(file.read().decode())
        return Answer(code, *said)

    def members(self) -> int:
        """Of the consumer group, by the broker's own account."""
        group = self.prefix + GROUP
        return len(self.admin.describe_consumer_groups([group], request_timeout=10)[group].result().members)

    def offsets(self) -> dict[int, tuple[int, int]]:
        """Of each partition of the requests the committed offset, 0 where there is none, and the end of the log.

        By a client of its own, no member of the group: of a partition that was without a leader once, librdkafka asks
        nothing for minutes, and its admin client tells ends that are none.
        """
        topic = self.topics.training_requests
        partitions = [TopicPartition(topic, number) for number in self._partitions(topic)]
        config = {"group.id": self.prefix + GROUP, "isolation.level": "read_committed", "enable.auto.commit": False}
        reader = Consumer({**self.brokers, **config})
        try:
            committed = reader.committed(partitions, timeout=10)
            ends = [reader.get_watermark_offsets(partition, timeout=10)[1] for partition in partitions]
        finally:
            reader.close()
        return {one.partition: (max(one.offset, 0), end) for one, end in zip(committed, ends, strict=True)}

    def lag(self) -> int:
        """Requests beyond the committed offsets, by the broker's own account."""
        return sum(end - committed for committed, end in self.offsets().values())

    def await_lag(self, lag: int = 0, within_s: float = 240) -> None:
        seen: int | None = None

        def reached() -> bool:
            nonlocal seen
            try:
                seen = self.lag()
            except KafkaException:
                return False  # topics that were made a moment ago may have no leader yet
            return seen <= lag

        self.until(reached, within_s, lambda: f"lag was {seen}")

    def until(
        self, condition: Callable[[], object], within_s: float = 120, why: Callable[[], str] = lambda: ""
    ) -> None:
        """Wait for a condition; a worker that has ended unasked fails at once."""
        deadline = time.monotonic() + within_s
        while not condition():
            for worker in self.workers:
                code = worker.process.poll()
                assert code in (None, 0, -signal.SIGKILL), f"{worker.worker_id} ended with {code}: {_tail(worker.log)}"
            if time.monotonic() > deadline:
                logs = "\n".join(f"--- {worker.worker_id}: {_tail(worker.log)}" for worker in self.workers)
                raise AssertionError(f"did not happen within {within_s} s; {why()}\n{logs}")
            time.sleep(0.1)

    def await_log(self, words: Sequence[str], within_s: float = 120) -> None:
        """Wait for a log line of some worker that has all these words."""

        def seen() -> bool:
            return any(all(word in line for word in words) for worker in self.workers for line in worker.lines())

        self.until(seen, within_s, lambda: f"no log line with {words}")

    def _launcher(self, environment: Mapping[str, str]) -> Launcher | None:
        return launcher_for(environment) if self.forks else None

    def _partitions(self, topic: str) -> list[int]:
        return list(self.admin.list_topics(topic, timeout=10).topics[topic].partitions)


def metric(port: int, name: str) -> float:
    """The value of a worker's metric that has no labels, or with its labels as they are shown."""
    return metrics(port)[name]


def metrics(port: int) -> dict[str, float]:
    """All that a worker shows, by name and labels as they are shown."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
        lines = answer.read().decode().splitlines()
    pairs = (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    return {name: float(value) for name, value in pairs}


def _delivered(error: KafkaError | None, _: Any) -> None:
    """An exception here comes out of the poll or flush that reports."""
    if error is not None:
        raise KafkaException(error)


def _tail(log: Path) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-15:])
