"""The world that the nemesis acts on: servers of its own, proxies before them, and workers that are looked after."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from confluent_kafka import Consumer, KafkaException, TopicPartition
from pymongo import MongoClient

from benchmarks import processes
from consumer.app import EXIT_SUPERSEDED
from tests.chaos import clock
from tests.chaos.journal import ENDED_UNASKED, Journal
from tests.end_to_end.fleet import GROUP, Fleet, WorkerProcess
from tests.services import kafka, mongodb, s3
from tests.services.kafka import Kafka, KafkaCluster
from tests.services.proxy import Proxy
from tests.services.s3 import S3
from tests.services.server import Service, UnavailableError, free_ports

PREFIX = "chaos."
BUCKET = "chaos"
WORKERS = ("w0", "w1", "w2")
EXTRA = "w3"
SMALL_DISK = "16m"
SETTINGS = {
    "WORKER_CONCURRENCY": "3",
    # Each trainer that the nemesis kills counts as a crash of its request, and one request was hit six times; poison
    # crashes this often too.
    "MAX_ATTEMPTS": "12",
    "DRAIN_TIMEOUT": "60",
    # About half of the models go to S3, the others into MongoDB.
    "ARTIFACT_GRIDFS_LIMIT": "14500",
}


@dataclass(frozen=True)
class Leaving:
    """A worker that is to end by itself, with this exit code, within this time."""

    worker: WorkerProcess
    code: int
    by: float


@dataclass
class World:
    """Owned by the thread that runs the chaos; workers are started in it, since they end with it."""

    folder: Path
    kafka: Kafka
    s3: S3
    servers: Mapping[str, Sequence[Service]]
    """Of kafka, mongodb and s3 each node, and below the proxy before it."""
    proxies: Mapping[str, Sequence[Proxy]]
    fleet: Fleet
    journal: Journal
    client: MongoClient[dict[str, Any]]
    clocks: Mapping[str, clock.Clock]
    disk: bool
    settings: Mapping[str, str]
    """Of every worker, beside those of all runs."""
    running: dict[str, WorkerProcess] = field(default_factory=dict)
    leaving: list[Leaving] = field(default_factory=list)
    ended_unasked: list[str] = field(default_factory=list)

    @property
    def database(self) -> Any:
        return self.client[self.fleet.environment["MONGODB_DB"]]

    def start(self, worker_id: str) -> WorkerProcess:
        environment = {**SETTINGS, **self.settings}
        if worker_id in self.clocks:
            environment |= self.clocks[worker_id].environment
        wrapped: tuple[str, ...] = ()
        if self.disk and worker_id == SMALL_DISK_WORKER:
            place = str(self.small_disk)
            environment |= {"SPOOL_DIR": f"{place}/spool", "DATASET_CACHE_DIR": f"{place}/datasets"}
            mounted = f'mount -t tmpfs -o size={SMALL_DISK} tmpfs {place} && exec "$@"'
            wrapped = ("unshare", "--mount", "sh", "-c", mounted, "sh")
        worker = self.fleet.start(worker_id, wrapped_by=wrapped, **environment)
        self.running[worker_id] = worker
        return worker

    @property
    def small_disk(self) -> Path:
        return self.folder / "small"

    def seen_disk(self) -> Path | None:
        """The small disk as its worker sees it: the mount is the worker's own, and ends with it."""
        worker = self.running.get(SMALL_DISK_WORKER)
        return None if worker is None else Path(f"/proc/{worker.process.pid}/root{self.small_disk}")

    def kill(self, worker_id: str) -> None:
        self.running.pop(worker_id).kill()

    def drain(self, worker_id: str) -> None:
        worker = self.running.pop(worker_id)
        worker.process.send_signal(signal.SIGTERM)
        self.expect_end(worker, 0)

    def expect_end(self, worker: WorkerProcess, code: int, within_s: float = 120.0) -> None:
        self.leaving.append(Leaving(worker, code, time.monotonic() + within_s))

    def ready(self, worker_id: str) -> bool:
        """Whether it has come so far that it can be told anything."""
        worker = self.running.get(worker_id)
        return worker is not None and "worker started" in worker.log.read_text(errors="replace")

    def trainers(self, worker_id: str) -> list[int]:
        worker = self.running.get(worker_id)
        if worker is None:
            return []
        with suppress(OSError):
            return [
                pid for forkserver in processes.children(worker.process.pid) for pid in processes.children(forkserver)
            ]
        return []

    def look_after(self) -> None:
        """A worker that ended unasked is noted, and started again; one that drains for too long is killed."""
        for worker_id, worker in list(self.running.items()):
            if (code := worker.process.poll()) is not None:
                self._unasked(worker, f"ended with {code}")
                self.start(worker_id)
        for leaving in tuple(self.leaving):
            code = leaving.worker.process.poll()
            if code is None and time.monotonic() < leaving.by:
                continue
            self.leaving.remove(leaving)
            if code is None:
                self._unasked(leaving.worker, "did not end when it should")
                leaving.worker.kill()
            elif code != leaving.code and not (code == EXIT_SUPERSEDED and self._has_newer(leaving.worker)):
                self._unasked(leaving.worker, f"ended with {code}, not {leaving.code}")

    def _has_newer(self, worker: WorkerProcess) -> bool:
        """Whether one of its name was started since: a worker that drains is superseded by that one."""
        return [one for one in self.fleet.workers if one.worker_id == worker.worker_id][-1] is not worker

    def _unasked(self, worker: WorkerProcess, how: str) -> None:
        last = [line for line in worker.lines() if line.strip()][-1:] or ["it said nothing"]
        self.ended_unasked.append(f"{worker.log.name} {how}: {last[0][:600]}")
        self.journal.note(ENDED_UNASKED, worker.worker_id, detail=how)


SMALL_DISK_WORKER = "w1"


@contextmanager
def world(folder: Path, brokers: int, settings: Mapping[str, str], *, forks: bool) -> Iterator[World]:
    """Servers, proxies and topics; no worker yet. Everything ends with the context, and with this process.

    `forks` says whether workers may be forked, see tests.launcher.
    """
    with ExitStack() as stack:
        with ThreadPoolExecutor() as threads:
            brokers_start: Future[Kafka] = (
                threads.submit(kafka.start) if brokers == 1 else threads.submit(kafka.start_cluster, brokers)
            )
            store_start, objects_start = threads.submit(mongodb.start), threads.submit(s3.start)
            broker = stack.enter_context(closing(brokers_start.result()))
            store = stack.enter_context(closing(store_start.result()))
            objects = stack.enter_context(closing(objects_start.result()))
        nodes = broker.nodes if isinstance(broker, KafkaCluster) else [broker]
        if None in (*(node.server for node in nodes), store.server, objects.server):
            raise UnavailableError("chaos kills its servers: unset TENSORFLEET_TEST_KAFKA, …_MONGODB and …_S3")
        targets = {"mongodb": _port(store.url), "s3": _port(objects.endpoint)}
        ports = zip(targets.items(), free_ports(2), strict=True)
        proxies = {"kafka": [node.proxy() for node in nodes]}
        proxies |= {name: [Proxy(port, target)] for (name, target), port in ports}
        for proxy in (one for several in proxies.values() for one in several):
            stack.callback(proxy.close)
        objects.client().make_bucket(BUCKET)
        environment = {
            "KAFKA_BOOTSTRAP_SERVERS": ",".join(proxy.address for proxy in proxies["kafka"]),
            "MONGODB_URL": f"mongodb://{proxies['mongodb'][0].address}/?directConnection=true",
            "MONGODB_DB": "chaos",
            **objects.exports,
            "MINIO_ENDPOINT": proxies["s3"][0].address,
            "MINIO_BUCKET": BUCKET,
        }
        client: MongoClient[dict[str, Any]] = stack.enter_context(store.client())
        # Our own clients go to the broker directly: what is sent and what is read is not to be disturbed.
        fleet = Fleet(environment, folder, PREFIX, bootstrap_servers=broker.bootstrap_servers, forks=forks)
        stack.callback(fleet.end)
        # Stamped by the broker, since workers' clocks are moved.
        fleet.create_topics(partitions=12)
        library = clock.build(folder)
        clocks = {name: clock.Clock(folder, name, library) for name in (*WORKERS, EXTRA)} if library else {}
        yield World(
            folder=folder,
            kafka=broker,
            s3=objects,
            servers={"kafka": nodes, "mongodb": [store], "s3": [objects]},
            proxies=proxies,
            fleet=fleet,
            journal=Journal(),
            client=client,
            clocks=clocks,
            disk=_may_mount(folder / "small"),
            settings=settings,
        )


def _port(address: str) -> int:
    return int(address.removeprefix("mongodb://").partition("/")[0].rpartition(":")[2])


def _may_mount(place: Path) -> bool:
    place.mkdir()
    if shutil.which("unshare") is None:
        return False
    trial = ["unshare", "--mount", "mount", "-t", "tmpfs", "tmpfs", str(place)]
    return subprocess.run(trial, capture_output=True, check=False).returncode == 0


class OffsetSampler(threading.Thread):
    """Reads the group's committed offsets twice a second: none may ever go back."""

    def __init__(self, bootstrap_servers: str, topic: str, partitions: int) -> None:
        super().__init__(name="offset-sampler", daemon=True)
        self._settings = {
            "bootstrap.servers": bootstrap_servers,
            "group.id": PREFIX + GROUP,
            "isolation.level": "read_committed",
            "enable.auto.commit": False,
            "log_level": 0,
        }
        self._wanted = [TopicPartition(topic, number) for number in range(partitions)]
        self._stopping = threading.Event()
        self._highest: dict[int, int] = {}
        self.samples = 0
        self.regressions: list[str] = []

    def stop(self) -> None:
        self._stopping.set()
        self.join(20)

    def run(self) -> None:
        reader = Consumer(self._settings)
        while not self._stopping.wait(0.5):
            with suppress(KafkaException):
                for found in reader.committed(self._wanted, timeout=2):
                    self._look_at(found.partition, found.offset)
                self.samples += 1
        reader.close()

    def _look_at(self, partition: int, offset: int) -> None:
        highest = self._highest.get(partition, -1)
        if 0 <= offset < highest:
            self.regressions.append(f"partition {partition}: from {highest} to {offset}")
        self._highest[partition] = max(highest, offset)


def reset_offsets(bootstrap_servers: str, topic: str, partitions: int) -> None:
    """As an operator does while the group is empty: everything is read again from the beginning."""
    reader = Consumer({"bootstrap.servers": bootstrap_servers, "group.id": PREFIX + GROUP, "enable.auto.commit": False})
    try:
        reader.commit(offsets=[TopicPartition(topic, number, 0) for number in range(partitions)], asynchronous=False)
    finally:
        reader.close()


def signal_process(pid: int, number: signal.Signals) -> bool:
    """False if it is gone."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return False
    return True
