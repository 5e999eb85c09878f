"""Workers as an operator runs them: processes with an environment, on real services, and nothing but topics between."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from confluent_kafka import Consumer, IsolationLevel, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic, OffsetSpec

from consumer.events.codec import Codec
from consumer.events.control import cancel_command
from consumer.events.messages import message
from consumer.events.requests import to_avro
from consumer.events.topics import Topics
from consumer.processes import die_with_parent
from pipeline.jobs import TrainingRequest
from schemas import Record

ROOT = Path(__file__).parents[2]
PLUGINS = ROOT / "tests" / "plugins"
GROUP = "ml-worker"


@dataclass
class WorkerProcess:
    worker_id: str
    process: subprocess.Popen[bytes]
    log: Path

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def drain(self, within_s: float = 60) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(within_s)

    def lines(self) -> list[str]:
        return self.log.read_text().splitlines()


@dataclass
class Fleet:
    """Everything of one test: its topics, its database, its bucket, and the workers that it started."""

    environment: Mapping[str, str]
    folder: Path
    prefix: str
    workers: list[WorkerProcess] = field(default_factory=list)
    requests: dict[bytes, TrainingRequest] = field(default_factory=dict)
    """By the bytes that were sent."""

    def __post_init__(self) -> None:
        self.topics = Topics(self.prefix)
        self.codec = Codec()
        brokers = {"bootstrap.servers": self.environment["KAFKA_BOOTSTRAP_SERVERS"]}
        self.admin = AdminClient(brokers)
        self.reader = Consumer(
            {
                **brokers,
                "group.id": self.prefix + GROUP,
                "isolation.level": "read_committed",
                "enable.auto.commit": False,
            }
        )
        self.producer = Producer(
            {**brokers, "partitioner": "murmur2_random", "enable.idempotence": True, "message.max.bytes": 64 * 2**20}
        )

    def create_topics(self, partitions: int = 12, **config: str) -> None:
        new = [
            NewTopic(
                topic.name,
                partitions if topic.record is Record.TRAINING_REQUEST else topic.partitions,
                1,
                config={**topic.config, **config},
            )
            for topic in self.topics.all()
        ]
        for future in self.admin.create_topics(new).values():
            future.result(30)

    def start(self, worker_id: str, **environment: str) -> WorkerProcess:
        """A worker of two lanes; more settings as keyword arguments."""
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
        with log.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "consumer.cli", "worker"],
                env={**os.environ, **self.environment, **settings, **environment, "PYTHONPATH": path},
                cwd=ROOT,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=die_with_parent,
            )
        worker = WorkerProcess(worker_id, process, log)
        self.workers.append(worker)
        return worker

    def stop(self) -> None:
        for worker in self.workers:
            if worker.process.poll() is None:
                worker.process.terminate()
        for worker in self.workers:
            try:
                worker.process.wait(30)
            except subprocess.TimeoutExpired:
                worker.kill()
        self.reader.close()

    def submit(self, *requests: TrainingRequest) -> None:
        for request in requests:
            sent = message(self.codec, self.topics, Record.TRAINING_REQUEST, to_avro(request))
            self.put(sent.key, sent.value, request, headers=list(sent.headers))
        self.flush()

    def put(
        self,
        key: bytes | None,
        value: bytes | None,
        request: TrainingRequest | None = None,
        *,
        headers: list[tuple[str, bytes | None]] | None = None,
    ) -> None:
        """Any record on the requests topic."""
        if value is not None and request is not None:
            self.requests[value] = request
        self.producer.produce(self.topics.training_requests, value, key, headers=headers or [])
        self.producer.poll(0)

    def flush(self) -> None:
        assert self.producer.flush(30) == 0

    def cancel(self, request_id: str) -> None:
        command = cancel_command(request_id, reason="not needed", user="ann", requested_at=datetime.now(UTC))
        sent = message(self.codec, self.topics, Record.TRAINING_CONTROL, command)
        self.producer.produce(sent.topic, sent.value, sent.key, headers=list(sent.headers))
        self.flush()

    def lag(self) -> int:
        """Requests beyond the committed offsets, by the broker's own account."""
        topic = self.topics.training_requests
        partitions = [TopicPartition(topic, number) for number in self._partitions(topic)]
        committed = self.reader.committed(partitions, timeout=10)
        ends = self.admin.list_offsets(
            {partition: OffsetSpec.latest() for partition in partitions},
            isolation_level=IsolationLevel.READ_COMMITTED,
        )
        done = {p.partition: max(p.offset, 0) for p in committed}
        return sum(future.result().offset - done.get(p.partition, 0) for p, future in ends.items())

    def await_lag(self, lag: int = 0, within_s: float = 240) -> None:

        def reached() -> bool:
            try:
                return self.lag() <= lag
            except KafkaException:
                return False  # topics that were made a moment ago may have no leader yet

        self.until(reached, within_s, lambda: f"lag is {self.lag()}")

    def until(self, condition: Callable[[], object], within_s: float = 60, why: Callable[[], str] = lambda: "") -> None:
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

    def await_log(self, words: Sequence[str], within_s: float = 60) -> None:
        """Wait for a log line of some worker that has all these words."""

        def seen() -> bool:
            return any(all(word in line for word in words) for worker in self.workers for line in worker.lines())

        self.until(seen, within_s, lambda: f"no log line with {words}")

    def _partitions(self, topic: str) -> list[int]:
        return list(self.admin.list_topics(topic, timeout=10).topics[topic].partitions)


def _tail(log: Path) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-15:])
