"""What kill -9 of a worker costs under load: how long its trainings wait, and how much of them is done again."""

from __future__ import annotations

import random
import statistics
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any
from uuid import uuid4

from pymongo import MongoClient

from benchmarks.fleet import BenchmarkError, Servers
from pipeline.jobs import TrainingRequest, milliseconds
from schemas import RecordType
from tests.end_to_end.evidence import collect, decode, read_topic
from tests.end_to_end.fleet import Fleet
from tests.end_to_end.verdict import judge

TARGET_P99_S = 15.0
WORKERS = 4
LANES = 4
PARTITIONS = 12
EVERY_S = 0.25
"""A job of 1 to 2 s: six run at once, in sixteen lanes, so that a job that starts again need not wait for a lane."""
DYING_S = 0.1
"""A worker may start a job after the time of its kill was noted."""
SETTINGS = {
    "WORKER_CONCURRENCY": str(LANES),
    "KAFKA_SESSION_TIMEOUT_MS": "10000",
    "KAFKA_MAX_POLL_INTERVAL_MS": "300000",
}
"""The defaults of session and poll interval, which the tests' fleet shortens."""


@dataclass(frozen=True, slots=True)
class Kill:
    """`at` by the wall clock."""

    worker_id: str
    at: float


@dataclass(frozen=True, slots=True)
class Recovery:
    """Seconds.

    Attributes:
        jobs: all that were trained; each has one outcome, else the benchmark fails.
        waits_s: of each job that ran in a killed worker, from the kill to its start elsewhere.
        repeated_s: of each of these, how long it had been trained.
    """

    target_p99_s: float
    kills: int
    jobs: int
    waits_s: Sequence[float]
    repeated_s: Sequence[float]

    @property
    def p50_s(self) -> float:
        return statistics.median(self.waits_s)

    @property
    def p99_s(self) -> float:
        return statistics.quantiles(self.waits_s, n=100, method="inclusive")[98]

    @property
    def repeated_s_per_kill(self) -> float:
        return sum(self.repeated_s) / self.kills

    @property
    def repeated_per_kill(self) -> float:
        return len(self.repeated_s) / self.kills


def measure(servers: Servers, folder: Path, kills: int) -> Recovery:
    """One worker after the other is killed, when the group has settled, and started again at once.

    Never the same one twice in a row: it would be killed again with what it has just taken over.
    """
    name = f"bench{uuid4().hex[:8]}"
    environment = {
        **servers.kafka.exports,
        **servers.mongodb.exports,
        **servers.s3.exports,
        "MONGODB_DB": name,
        "MINIO_BUCKET": name,
    }
    logs = folder / name
    logs.mkdir()
    fleet = Fleet(environment, logs, f"{name}.")
    fleet.create_topics(PARTITIONS)
    try:
        killed = _kill(fleet, kills)
        fleet.await_lag(0)
    except AssertionError as error:
        raise BenchmarkError(str(error)) from error
    finally:
        fleet.end()
    brokers = environment["KAFKA_BOOTSTRAP_SERVERS"]
    with closing(MongoClient[dict[str, Any]](environment["MONGODB_URL"])) as client:
        verdict = judge(collect(brokers, fleet.prefix, client[name], None))
    if verdict.violations:
        raise BenchmarkError(str(verdict))
    return _recovery(killed, verdict.requests, _starts(brokers, fleet.topics.training_progress))


def _kill(fleet: Fleet, kills: int) -> Sequence[Kill]:
    killed: list[Kill] = []
    workers = {f"w{number}": fleet.start(f"w{number}", **SETTINGS) for number in range(WORKERS)}
    with fleet.load(_job, EVERY_S):
        for _ in range(kills):
            fleet.until(lambda: all(len(worker.partitions()) == PARTITIONS / WORKERS for worker in workers.values()))
            time.sleep(random.uniform(1.0, 3.0))
            worker_id = random.choice(sorted(workers.keys() - {one.worker_id for one in killed[-1:]}))
            killed.append(Kill(worker_id, time.time()))
            workers[worker_id].kill()
            workers[worker_id] = fleet.start(worker_id, **SETTINGS)
    return killed


def _job(number: int) -> TrainingRequest:
    return TrainingRequest(
        request_id=f"recovery-{number}",
        job_name=f"m{number}",
        algorithm="troublesome",
        dataset_name="iris",
        hyperparameters={"mode": "sleep", "seconds": random.uniform(1.0, 2.0)},
        requested_at=milliseconds(datetime.now(UTC)),
    )


def _starts(brokers: str, topic: str) -> Mapping[str, Sequence[tuple[float, str]]]:
    """When and in which worker each request was started, in order."""
    starts: dict[str, list[tuple[float, str]]] = defaultdict(list)
    for record in read_topic(brokers, topic):
        event = decode(record.value(), RecordType.TRAINING_PROGRESS)
        if event["state"] == "STARTED":
            starts[event["request_id"]].append((event["occurred_at"].timestamp(), event["worker_id"]))
    return {request_id: sorted(found) for request_id, found in starts.items()}


def _recovery(kills: Sequence[Kill], jobs: int, starts: Mapping[str, Sequence[tuple[float, str]]]) -> Recovery:
    waits, repeated = [], []
    for found in starts.values():
        for (began, worker_id), (again, _) in pairwise(found):
            kill = next((kill for kill in kills if kill.worker_id == worker_id and kill.at >= began - DYING_S), None)
            if kill is None or kill.at > again:
                raise BenchmarkError(f"a training was repeated although its worker {worker_id} lived")
            waits.append(again - kill.at)
            repeated.append(max(0.0, kill.at - began))
    if not waits:
        raise BenchmarkError("no worker was killed that trained anything")
    return Recovery(TARGET_P99_S, len(kills), jobs, waits, repeated)
