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
from consumer.jobs.readiness import SAME_LIMIT, SLOW_LIMIT, THREADS, Prepared, Readiness
from consumer.threads.neighbour import Surroundings
from pipeline.datasets import Abandoned, Dataset, LoadAbandoned
from pipeline.errors import TransientError
from pipeline.ledger import Claim, Owner
from pipeline.registry import Usage
from pipeline.registry.quotas import Quotas
from tests.jobs import preparing


class Datasets:
    """Those of these names are at hand, `small` ones are read at once, all others when they are let go."""

    hits = misses = begun = 0

    def __init__(self, *at_hand: str) -> None:
        self.go = threading.Event()
        self.asked: list[str] = []
        self._at_hand = at_hand

    def at_hand(self, name: str) -> Dataset | None:
        if name == "away" and not self.go.is_set():
            raise TransientError("dataset cache", "the disk is read-only")
        return Dataset(name, name, None, "y") if name in self._at_hand else None

    def ensure(self, name: str, abandoned: Abandoned, came: int) -> Dataset:
        self.asked.append(name)
        if name == "away" and not self.go.is_set():
            raise TransientError("dataset cache", "the disk is read-only")
        while not name.startswith("small") and not self.go.wait(0.01):
            if abandoned.is_set():
                raise LoadAbandoned
        return Dataset(name, name, None, "y")

    def release(self, dataset: Dataset) -> None:
        pass


class Waiting:
    """A readiness, and for whom it has answered."""

    def __init__(self, datasets: Any, folder: Path) -> None:
        self.ready: list[str] = []
        self.refused: list[str] = []
        self.started: list[str] = []
        self.models = 0
        ledger = SimpleNamespace(start=self._start)
        registry = SimpleNamespace(usage=lambda _: Usage(self.models, 0))
        self.readiness = Readiness(
            Owner("w", 1), ledger, datasets, lambda _: None,
            quotas=Quotas.of({"few": {"models": 10}}), registry=registry, machine={}, training_memory_bytes=2**30,
            spool=folder, is_alone=lambda: True, steady=Steady(), around=Surroundings(self._hear)
        )  # fmt: skip
        self.readiness.start()

    def prepare(self, dataset_name: str, count: int = 1, **more: Any) -> list[Job]:
        jobs = [preparing(f"{dataset_name}-{number}", dataset_name, **more) for number in range(count)]
        for job in jobs:
            self.readiness.prepare(job)
        return jobs

    def _start(self, _: Owner, request_id: str) -> bool:
        self.started.append(request_id)
        return True

    def _hear(self, answer: Prepared) -> None:
        (self.refused if answer.failure else self.ready).append(answer.job.request_id)
        self.models += 1


@pytest.fixture
def datasets() -> Datasets:
    return Datasets("at-hand")


@pytest.fixture
def waiting(datasets: Datasets, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Waiting]:
    monkeypatch.setattr("consumer.jobs.readiness.check_fits", lambda *_: None)
    made = Waiting(datasets, tmp_path)
    yield made
    datasets.go.set()
    made.readiness.give_up()
    made.readiness.join(30)


def _await(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def _put_off(waiting: Waiting, count: int) -> None:
    """Until so many wait for those before them."""
    pieces = waiting.readiness._slow._waiting
    _await(lambda: sum(len(one) for causes in dict(pieces).values() for one in dict(causes).values()) == count)


def test_what_is_at_hand_waits_for_no_slow_dataset_however_many_there_are(waiting: Waiting, datasets: Datasets) -> None:
    for number in range(2 * THREADS):
        waiting.prepare(f"slow{number}")
    _put_off(waiting, 2 * THREADS - SLOW_LIMIT)
    waiting.prepare("at-hand", 50)
    _await(lambda: len(waiting.ready) == 50)
    assert waiting.readiness.has_room
    datasets.go.set()
    _await(lambda: len(waiting.ready) == 50 + 2 * THREADS)


def test_requests_for_one_slow_dataset_hold_up_no_other_dataset_that_must_be_read(waiting: Waiting) -> None:
    waiting.prepare("slow", 100)
    _put_off(waiting, 100 - SAME_LIMIT)
    waiting.prepare("small", 50)
    _await(lambda: len(waiting.ready) == 50)
    assert set(waiting.ready) == {f"small-{number}" for number in range(50)}


def test_a_project_with_many_slow_datasets_is_one_of_those_that_take_turns(
    waiting: Waiting, datasets: Datasets
) -> None:
    for number in range(100):
        waiting.prepare(f"slow{number}", project="many")
    _put_off(waiting, 100 - SLOW_LIMIT)
    waiting.prepare("other", project="one")
    _put_off(waiting, 101 - SLOW_LIMIT)
    datasets.go.set()
    _await(lambda: len(waiting.ready) == 101)
    assert datasets.asked.index("other") <= SLOW_LIMIT + 1


def test_what_nobody_waits_for_any_more_makes_room_and_asks_for_nothing(waiting: Waiting, datasets: Datasets) -> None:
    jobs = waiting.prepare("slow", 100)
    _put_off(waiting, 100 - SAME_LIMIT)
    for job in jobs:
        assert job.abandoned is not None
        job.abandoned.set()
    _put_off(waiting, 0)
    assert len(datasets.asked) == SAME_LIMIT
    assert waiting.ready == []


def test_what_waits_when_the_worker_gives_up_is_dropped(waiting: Waiting, datasets: Datasets) -> None:
    waiting.prepare("slow", 100)
    _put_off(waiting, 100 - SAME_LIMIT)
    waiting.readiness.give_up()
    waiting.readiness.join(30)
    assert not waiting.readiness.is_alive()
    assert len(datasets.asked) == SAME_LIMIT


def test_a_service_that_only_some_datasets_need_keeps_no_other_waiting(waiting: Waiting, datasets: Datasets) -> None:
    waiting.prepare("away", 2 * THREADS)
    _put_off(waiting, 2 * THREADS - SAME_LIMIT)
    waiting.prepare("at-hand", 50)
    _await(lambda: len(waiting.ready) == 50)
    datasets.go.set()
    _await(lambda: len(waiting.ready) == 50 + 2 * THREADS)


def test_a_quota_that_is_used_up_while_jobs_wait_for_their_dataset_holds(waiting: Waiting, datasets: Datasets) -> None:
    waiting.prepare("slow", 100, project="few")
    _put_off(waiting, 100 - SAME_LIMIT)
    datasets.go.set()
    _await(lambda: len(waiting.ready) + len(waiting.refused) == 100)
    assert len(waiting.ready) <= 10 + SAME_LIMIT


def test_only_what_is_ready_is_written_down_as_started(waiting: Waiting, datasets: Datasets) -> None:
    claim = Claim("r", "hash", None, Owner("w", 1), worker_losses=1)
    waiting.prepare("slow", 20, claim=claim)
    waiting.prepare("at-hand", claim=claim)
    _await(lambda: waiting.ready == ["at-hand-0"])
    assert waiting.started == ["at-hand-0"]
    datasets.go.set()
    _await(lambda: len(waiting.started) == 21)
