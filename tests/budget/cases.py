"""Counts what a job costs in each case, and prints it as JSON; `figures.count` runs it in a process of its own.

The worker has trained as many jobs before. The queue's models have one version, the models of the other cases none.
"""

from __future__ import annotations

import io
import sys
import tempfile
import uuid
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pymongo.monitoring

import tests.services.mongodb
import tests.services.s3
from benchmarks.workloads import MODELS, TINY, Kind, Workload
from consumer.settings import load_settings
from consumer.telemetry import logs
from pipeline.jobs import TrainingRequest
from tests.budget.counting import FIGURES, WRITTEN, RoundTrips, bytes_written, calls, s3_requests
from tests.budget.kafka import Broker
from tests.budget.worker import Clock, SteppedWorker, substitutes
from tests.services.mongodb import MongoDB
from tests.services.s3 import S3

LANES = 2
ALONE = replace(TINY, name="alone")
LARGE = replace(TINY, name="large", kinds=(Kind("decision_tree", "digits", {}),))
"""Its model has 107 kB, TINY's has 25."""
GRIDFS_LIMIT = "50kB"


def main() -> None:
    log = io.StringIO()  # its bytes are not the same each time, and are not to count
    logs.configure(fmt="json", stream=log)
    try:
        sys.stdout.buffer.write(orjson.dumps(_costs(tests.services.mongodb.start(), tests.services.s3.start())))
    except BaseException:
        sys.stderr.write(log.getvalue())
        raise


def _costs(mongodb: MongoDB, s3: S3) -> Mapping[str, Any]:
    counts: Counter[str] = Counter()
    pymongo.monitoring.register(RoundTrips(counts))
    with s3_requests(counts), _worker(counts, mongodb, s3) as worker:
        worker.train(_requests(TINY, range(MODELS)))
        worker.train(_requests(LARGE, [0]))
        return {
            "one job alone": _cost(worker, counts, _requests(ALONE, [0])),
            f"a queue of {MODELS} jobs": _cost(worker, counts, _requests(TINY, range(MODELS, 2 * MODELS))),
            "one job whose model goes to S3": _cost(worker, counts, _requests(LARGE, [1])),
        }


@contextmanager
def _worker(counts: Counter[str], mongodb: MongoDB, s3: S3) -> Iterator[SteppedWorker]:
    """A worker with a database, a bucket and folders of its own."""
    name = f"budget-{uuid.uuid4().hex[:12]}"
    broker, clock = Broker(counts), Clock()
    with tempfile.TemporaryDirectory() as folder, mongodb.client() as client:
        environment = {
            "MONGODB_URL": mongodb.url,
            "MONGODB_DB": name,
            "KAFKA_BOOTSTRAP_SERVERS": "in.memory:9092",
            **s3.exports,
            "MINIO_BUCKET": name,
            "ARTIFACT_GRIDFS_LIMIT": GRIDFS_LIMIT,
            "WORKER_ID": "worker",
            "WORKER_CONCURRENCY": str(LANES),
            "MAX_TRAINING_MEMORY": "8GiB",
            "SPOOL_DIR": str(Path(folder, "spool")),
            "DATASET_CACHE_DIR": str(Path(folder, "datasets")),
        }
        try:
            with substitutes(broker, clock):
                yield SteppedWorker(load_settings(environment, None), broker, clock)
        finally:
            client.drop_database(name)
            s3.remove_bucket(name)


def _requests(workload: Workload, numbers: Sequence[int]) -> Sequence[TrainingRequest]:
    return [workload.request(workload.name, number) for number in numbers]


def _cost(worker: SteppedWorker, counts: Counter[str], requests: Sequence[TrainingRequest]) -> Mapping[str, Any]:
    """Train these; returns a job's figures, and all function calls by part and file."""
    files: dict[str, Counter[str]] = {"worker": Counter(), "trainer": Counter()}
    before, written = counts.copy(), bytes_written()
    worker.train(requests, lambda part: calls(counts, part, files[part]))
    spent = counts - before
    spent[WRITTEN] = bytes_written() - written
    if (registered := worker.registered(requests)) < len(requests):
        raise RuntimeError(f"only {registered} of {len(requests)} jobs have a model: this is no budget")
    return {
        "figures": {figure: round(spent[figure] / len(requests), 3) for figure in FIGURES},
        "files": {part: dict(of.most_common()) for part, of in files.items()},
    }


if __name__ == "__main__":
    main()
