"""Real servers, one worker as a process, and its two sides: requests go in, model-registered events come out."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Self
from uuid import uuid4

from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition
from confluent_kafka import Message as Delivered
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic
from prometheus_client.parser import text_string_to_metric_families

from benchmarks import processes
from benchmarks.workloads import Workload
from consumer.events.codec import Codec
from consumer.events.messages import Message, message
from consumer.events.requests import to_avro
from consumer.events.topics import Topics
from consumer.kafka import config as kafka_config
from consumer.settings import Settings, load_settings
from schemas import RecordType
from tests.services import kafka, mongodb, s3
from tests.services.server import Service, free_ports

CONCURRENCY = 2
READY_WITHIN_S = 90.0
SILENT_FOR_S = 90.0
"""A worker that registers nothing for so long has a problem that is no matter of speed."""


class BenchmarkError(Exception):
    """Something did not work that has to work before its speed means anything."""


@dataclass(frozen=True, slots=True)
class Servers:
    kafka: Service
    mongodb: Service
    s3: Service


@contextmanager
def servers() -> Iterator[Servers]:
    """All three on free ports, or those that the environment names (see tests.services)."""
    with ExitStack() as stack, ThreadPoolExecutor() as threads:
        started = []
        for starting in [threads.submit(start) for start in (kafka.start, mongodb.start, s3.start)]:
            service: Service = starting.result()
            stack.callback(service.close)
            started.append(service)
        yield Servers(*started)


@dataclass(frozen=True, slots=True)
class Cpu:
    """CPU seconds so far, or of a while; a server that is not ours has none."""

    parent: float
    trainers: float
    broker: float
    mongodb: float
    s3: float
    bench: float

    def __sub__(self, before: Cpu) -> Cpu:
        return Cpu(*(getattr(self, f.name) - getattr(before, f.name) for f in fields(self)))

    @property
    def total(self) -> float:
        return self.parent + self.trainers + self.broker + self.mongodb + self.s3 + self.bench


class Fleet:
    """One worker under topics, a group and a database of its own. Use it as a context manager; of one thread."""

    def __init__(self, servers: Servers, folder: Path, environment: Mapping[str, str] | None = None) -> None:
        name = f"bench{uuid4().hex[:8]}"
        (self.port,) = free_ports(1)
        self._servers = servers
        self._log = folder / f"{name}.log"
        self._environment = {
            **servers.kafka.exports,
            **servers.mongodb.exports,
            **servers.s3.exports,
            "TOPIC_PREFIX": f"{name}.",
            "KAFKA_GROUP_ID": name,
            "WORKER_ID": name,
            "WORKER_CONCURRENCY": str(CONCURRENCY),
            "MONGODB_DB": name,
            "MINIO_BUCKET": name,
            "SPOOL_DIR": str(folder / name / "spool"),
            "DATASET_CACHE_DIR": str(folder / name / "datasets"),
            "PORT": str(self.port),
            **(environment or {}),
        }
        self.settings: Settings = load_settings(self._environment, env_file=None)
        self.topics = Topics(self.settings.topic_prefix)
        self.codec = Codec()
        self._producer = Producer({**kafka_config.producer_config(self.settings), "linger.ms": 0, "log_level": 0})
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self._create_topics()
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "consumer.cli", "worker"],
                env={**os.environ, **self._environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        try:
            self._wait_ready()
        except BaseException:
            self.__exit__()
            raise
        self.registered = Subscriber(self, RecordType.MODEL_REGISTERED)
        return self

    def __exit__(self, *_: object) -> None:
        """What still waits need not be finished: the worker is killed, and its trainers go with it."""
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def message(self, workload: Workload, series: str, number: int) -> Message:
        return self.encoded(RecordType.TRAINING_REQUEST, to_avro(workload.request(series, number)))

    def encoded(self, record: RecordType, avro: Any) -> Message:
        return message(self.codec, self.topics, record, avro)

    def send(self, messages: Sequence[Message]) -> None:
        """Put requests on the topic; returns when the broker has all of them."""
        for one in messages:
            while True:
                try:
                    self._producer.produce(one.topic, key=one.key, value=one.value, headers=list(one.headers))
                    break
                except BufferError:
                    self._producer.poll(0.1)
        if left := self._producer.flush(60):
            raise BenchmarkError(f"{left} requests were not taken by Kafka")

    def metrics(self) -> Mapping[str, float]:
        """The worker's metrics by name, summed over their labels but for `stage`."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=10) as answer:
            text = answer.read().decode()
        found: dict[str, float] = {}
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                if not sample.name.endswith("_bucket"):
                    name = ".".join(
                        [sample.name.removeprefix("ml_worker_"), *filter(None, [sample.labels.get("stage")])]
                    )
                    found[name] = found.get(name, 0.0) + sample.value
        return found

    def cpu(self) -> Cpu:
        forkservers = processes.children(self.pid)
        return Cpu(
            parent=processes.cpu_s(self.pid),
            trainers=sum(processes.cpu_s(pid, reaped=True) for pid in forkservers)
            + sum(processes.cpu_s(pid) for pid in self.trainers()),
            broker=_server_cpu_s(self._servers.kafka),
            mongodb=_server_cpu_s(self._servers.mongodb),
            s3=_server_cpu_s(self._servers.s3),
            bench=time.process_time(),
        )

    def trainers(self) -> Sequence[int]:
        return [trainer for forkserver in processes.children(self.pid) for trainer in processes.children(forkserver)]

    def check_alive(self) -> None:
        if self._process is None or self._process.poll() is not None:
            raise BenchmarkError(f"the worker has ended: {self._last_words()}")

    def fail(self, what: str) -> BenchmarkError:
        """What a worker that does not answer as it should has said last."""
        return BenchmarkError(f"{what}; the worker's last words: {self._last_words()}")

    def decode(self, record: RecordType, value: bytes) -> dict[str, Any]:
        return self.codec.decode(value, record)

    def _create_topics(self) -> None:
        admin = AdminClient({**kafka_config.kafka_client_config(self.settings), "log_level": 0})
        topics = [NewTopic(topic.name, topic.partitions, 1, config=dict(topic.config)) for topic in self.topics.all()]
        for created in admin.create_topics(topics).values():
            created.result(30)

    def _wait_ready(self) -> None:
        deadline = time.monotonic() + READY_WITHIN_S
        while True:
            self.check_alive()
            try:
                if self.metrics().get("assigned_partitions", 0) and len(self.trainers()) == CONCURRENCY:
                    return
            except OSError:
                pass
            if time.monotonic() > deadline:
                raise self.fail("the worker was not ready in time")
            time.sleep(0.1)

    def _last_words(self) -> str:
        lines = self._log.read_text(errors="replace").splitlines() or ["nothing"]
        return "\n".join(lines[-5:])


def _server_cpu_s(service: Service) -> float:
    return 0.0 if service.server is None else processes.cpu_s(service.server.pid)


@dataclass(frozen=True, slots=True)
class Seen:
    """An event as it reached its subscriber, by the monotonic clock."""

    at: float
    value: bytes


class Subscriber:
    """A read_committed subscriber of one of the event topics, from the first event on."""

    def __init__(self, fleet: Fleet, record: RecordType) -> None:
        self._fleet = fleet
        self._record = record
        self._waiting: list[Seen] = []
        config = kafka_config.tail_config(fleet.settings)
        self._consumer = Consumer({**config, "auto.offset.reset": "earliest", "fetch.queue.backoff.ms": 1})
        topic = fleet.topics.of(record)
        partitions = self._consumer.list_topics(topic, timeout=10).topics[topic].partitions
        self._consumer.assign([TopicPartition(topic, number, 0) for number in partitions])

    def take(self, count: int) -> Sequence[Seen]:
        """The next so many events; raises BenchmarkError when none comes for long."""
        heard_at = time.monotonic()
        while len(self._waiting) < count:
            arrived = self.poll(0.5)
            now = time.monotonic()
            self._waiting += arrived
            if arrived:
                heard_at = now
            elif now - heard_at > SILENT_FOR_S:
                raise self._fleet.fail(f"{len(self._waiting)} of {count} events came")
            else:
                self._fleet.check_alive()
        taken, self._waiting = self._waiting[:count], self._waiting[count:]
        return taken

    def poll(self, timeout_s: float) -> list[Seen]:
        """What has arrived, waiting for the first."""
        first = self._consumer.poll(timeout_s)
        if first is None:
            return []
        now = time.monotonic()
        return [Seen(now, _value(one)) for one in (first, *self._consumer.consume(10_000, 0))]

    def request_ids(self, seen: Sequence[Seen]) -> set[str]:
        return {self._fleet.decode(self._record, one.value)["request_id"] for one in seen}

    def close(self) -> None:
        self._consumer.close()


def _value(delivered: Delivered) -> bytes:
    if (error := delivered.error()) is not None:
        raise KafkaException(error)
    value = delivered.value()
    assert isinstance(value, bytes)
    return value
