"""Where a ledger or a registry lies, as a value that other processes can open too; and records to put there."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import pytest

from pipeline.aliases import AliasStore
from pipeline.aliases.mongodb import MongoAliases
from pipeline.aliases.sqlite import SqliteAliases
from pipeline.databases.mongodb import connect
from pipeline.errors import TransientError
from pipeline.jobs import ErrorKind, Failure, Model, Outcome, OutcomeKind
from pipeline.ledger import Ledger
from pipeline.ledger.mongodb import MongoLedger
from pipeline.ledger.sqlite import SqliteLedger
from pipeline.registry import Registry
from pipeline.registry.mongodb import MongoRegistry
from pipeline.registry.sqlite import SqliteRegistry

ADAPTERS = ["sqlite", pytest.param("mongodb", marks=pytest.mark.services)]
T = TypeVar("T")
AT = datetime(2026, 1, 31, 14, 15, 0, 123_000, tzinfo=UTC)


@dataclass(frozen=True)
class Place:
    """A SQLite file, or a database of a MongoDB server."""

    address: str
    database: str | None = None

    @contextmanager
    def ledger(self, **options: Any) -> Iterator[Ledger]:
        if self.database is None:
            ledger = SqliteLedger(Path(self.address), **options)
            yield ledger
            ledger.disconnect()
        else:
            with connect(self.address) as client:
                yield MongoLedger(client[self.database], **options)

    @contextmanager
    def registry(self) -> Iterator[Registry]:
        if self.database is None:
            registry = SqliteRegistry(Path(self.address), timeout_s=30)
            yield registry
            registry.disconnect()
        else:
            with connect(self.address) as client:
                yield MongoRegistry(client[self.database])

    @contextmanager
    def aliases(self) -> Iterator[AliasStore]:
        if self.database is None:
            aliases = SqliteAliases(Path(self.address), timeout_s=30)
            yield aliases
            aliases.disconnect()
        else:
            with connect(self.address) as client:
                yield MongoAliases(client[self.database])


def place_for(adapter: str, request: pytest.FixtureRequest, directory: Path) -> Place:
    if adapter == "sqlite":
        return Place(str(directory / "store.sqlite"))
    return Place(request.getfixturevalue("mongodb").url, request.getfixturevalue("mongo_database").name)


MODEL = Model(
    model_id="m-1",
    name="Churn_random-forest_iris_20260131T141500Z",
    project="default",
    user="ann",
    model_name="churn",
    algorithm="random_forest",
    model_type="classifier",
    hyperparameters={"n_estimators": 100, "max_depth": None, "ccp_alpha": 0.0, "bootstrap": True, "layers": [8, 4]},
    metrics={"accuracy": 0.97, "precision.versi.color": 1.0, "$recall": 0.5, "": 0.0},
    dataset_name="iris",
    dataset_fingerprint="ab" * 32,
    features=["sepal length", "petal.width", "$petal"],
    target_column="species",
    classes=["setosa", "versicolor", "virginica"],
    artifact_uri="gridfs://fs/65f000000000000000000000",
    artifact_format="skops",
    artifact_sha256="cd" * 32,
    artifact_bytes=20_000,
    file_id="65f000000000000000000000",
    training_time=1.25,
    created_at=AT,
    tags={"team.name": "churn", "$where": "here", "$set": "", "a\nb": "é"},
    seed=2**63 - 1,
    signature=[{"name": "sepal length", "type": "double"}],
    environment={"scikit-learn": "1.9.1", "threads": "1"},
    warnings=[],
)


def registered(request_id: str, model_name: str = "churn", project: str = "default", **model: Any) -> Outcome:
    """An outcome that a version is still to be given to."""
    return Outcome(
        request_id=request_id,
        kind=OutcomeKind.REGISTERED,
        at=AT,
        correlation_id=f"c-{request_id}",
        project=project,
        model_name=model_name,
        worker_id="w-1",
        sequence=7,
        started_at=AT,
        model=replace(MODEL, project=project, model_name=model_name, **model),
        traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    )


def failed(request_id: str, message: str = "y has NaN", attempt: int = 1) -> Outcome:
    return Outcome(
        request_id=request_id,
        kind=OutcomeKind.FAILED,
        at=AT,
        correlation_id=f"c-{request_id}",
        project="default",
        model_name="churn",
        worker_id="w-1",
        attempt=attempt,
        error=Failure(ErrorKind.TRAINING_ERROR, message),
    )


def refused_when(interrupt: Callable[[], None], call: Callable[[int], object]) -> tuple[int, TransientError]:
    """Make call(0), call(1), … without a pause, interrupt in the middle: which call was refused, and how."""
    busy, stop = threading.Event(), threading.Event()

    def until_refused() -> tuple[int, TransientError]:
        for n in itertools.takewhile(lambda _: not stop.is_set(), itertools.count()):
            try:
                call(n)
            except TransientError as error:
                return n, error
            busy.set()
        raise AssertionError("no call was refused")

    with ThreadPoolExecutor(1) as pool:
        refused = pool.submit(until_refused)
        try:
            assert busy.wait(60)
            interrupt()
            return refused.result(60)
        finally:
            stop.set()


def patiently(call: Callable[[], T], within_s: float = 60) -> T:
    """As the worker does it: TransientError means to try again."""
    deadline = time.monotonic() + within_s
    while True:
        try:
            return call()
        except TransientError:
            if time.monotonic() > deadline:
                raise
