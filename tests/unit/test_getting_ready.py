"""What jobs wait for before they are trained, and what they do not wait for."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from consumer.jobs.job import Job
from consumer.jobs.lease import Steady
from consumer.jobs.readiness import PREPARING_LIMIT, Preparation, Prepared
from consumer.threads.neighbour import Surroundings
from pipeline.datasets import Dataset, LoadAbandoned
from pipeline.ledger import Owner
from pipeline.quotas import Quotas
from tests.jobs import preparing


class Datasets:
    """Those of these names are at hand, `small` ones are read at once, all others when they are let go."""

    hits = misses = 0

    def __init__(self, *at_hand: str) -> None:
        self.go = threading.Event()
        self._at_hand = at_hand

    def at_hand(self, name: str) -> Dataset | None:
        return Dataset(name, name, None, None) if name in self._at_hand else None

    def ensure(self, name: str, abandoned: threading.Event) -> Dataset:
        while not name.startswith("small") and not self.go.wait(0.01):
            if abandoned.is_set():
                raise LoadAbandoned
        return Dataset(name, name, None, None)

    def release(self, dataset: Dataset) -> None:
        pass


class Waiting:
    """A preparation, and for whom it has answered."""

    def __init__(self, datasets: Any, folder: Path) -> None:
        self.ready: list[str] = []
        self.preparation = Preparation(
            Owner("w", 1), SimpleNamespace(), datasets, lambda _: None,  # type: ignore[arg-type]
            quotas=Quotas.of({}), registry=SimpleNamespace(), machine={}, training_memory_bytes=2**30,  # type: ignore[arg-type]
            spool=folder, is_alone=lambda: True, steady=Steady(), around=Surroundings(self._hear), load_time_s=60.0,
        )  # fmt: skip
        self.preparation.start()

    def prepare(self, dataset_name: str, count: int = 1) -> list[Job]:
        jobs = [preparing(f"{dataset_name}-{number}", dataset_name) for number in range(count)]
        for job in jobs:
            self.preparation.prepare(job)
        return jobs

    def _hear(self, answer: Prepared) -> None:
        assert answer.failure is None, answer.failure
        self.ready.append(answer.job.request_id)


@pytest.fixture
def datasets() -> Datasets:
    return Datasets("at-hand")


@pytest.fixture
def waiting(datasets: Datasets, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Waiting]:
    monkeypatch.setattr("consumer.jobs.readiness.check_fits", lambda *_: None)
    made = Waiting(datasets, tmp_path)
    yield made
    datasets.go.set()
    made.preparation.give_up()
    made.preparation.join(30)


def _await(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def test_what_is_at_hand_waits_for_no_slow_dataset_however_many_there_are(waiting: Waiting, datasets: Datasets) -> None:
    for number in range(2 * PREPARING_LIMIT):
        waiting.prepare(f"slow{number}")
    _await(lambda: waiting.preparation.put_off > 0)
    waiting.prepare("at-hand", 50)
    _await(lambda: len(waiting.ready) == 50)
    datasets.go.set()
    _await(lambda: len(waiting.ready) == 50 + 2 * PREPARING_LIMIT)


def test_requests_for_one_slow_dataset_hold_up_no_other_dataset_that_must_be_read(waiting: Waiting) -> None:
    waiting.prepare("slow", 100)
    _await(lambda: waiting.preparation.put_off > 0)
    waiting.prepare("small", 50)
    _await(lambda: len(waiting.ready) == 50)
    assert set(waiting.ready) == {f"small-{number}" for number in range(50)}


def test_what_nobody_waits_for_any_more_makes_room(waiting: Waiting) -> None:
    jobs = waiting.prepare("slow", 100)
    _await(lambda: waiting.preparation.put_off > 0)
    for job in jobs:
        assert job.abandoned is not None
        job.abandoned.set()
    _await(lambda: waiting.preparation.put_off == 0)
    assert waiting.ready == []
