"""What the registrar makes durable, on the embedded stores."""

import queue
import shutil
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from consumer.claims import Steady
from consumer.events.codec import Codec
from consumer.events.topics import Topics
from consumer.failures import ThreadFailed
from consumer.metrics import Metrics
from consumer.registrar import EVENT_LIMIT_BYTES, GroupStored, Registrar, Result
from consumer.settings import load_settings
from consumer.stores import Stores, open_stores
from consumer.waiting import Breakers
from pipeline.errors import SupersededError
from pipeline.jobs import Outcome, OutcomeKind
from pipeline.ledger import Home, NewClaim, Owner
from pipeline.trained import Trained
from tests.training_data import Bench, request

NOW = datetime(2026, 1, 31, 14, 15, tzinfo=UTC)


class Desk:
    """A registrar with its stores, and a trained model."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.stores: Stores = open_stores(load_settings({}, None, needs=(), data_dir=folder / "data"))
        self.stores.prepare()
        self.me: Owner = self.stores.ledger.boot("w")
        self.answers: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.trained: Trained = Bench(folder).train(request())
        metrics = Metrics()
        self.registrar = Registrar(
            self.me,
            self.stores.ledger,
            self.stores.registry,
            self.stores.artifacts,
            Codec(),
            Topics(),
            steady=Steady(),
            breakers=Breakers(metrics),
            metrics=metrics,
            deliver=self.answers.put,
        )
        self.registrar.start()

    def claim(self, request_id: str) -> None:
        home = Home("training-requests", 0, len(request_id))
        assert self.stores.ledger.claim(self.me, [NewClaim(request_id, "sha", home, {})])

    def result(self, request_id: str, trained: Trained | None = None) -> Result:
        self.claim(request_id)
        spool = self.folder / request_id
        spool.mkdir()
        (spool / "result.json").write_bytes((trained or self.trained).to_json())
        return Result(request(request_id=request_id), spool, NOW, "w", 1, 7)

    def store(self, *items: Any) -> GroupStored:
        self.registrar.submit(items)
        answer = self.answers.get(timeout=60)
        assert isinstance(answer, GroupStored), answer
        return answer


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    desk = Desk(tmp_path)
    yield desk
    desk.registrar.stop()
    desk.registrar.join(10)


def test_a_worker_whose_spool_was_cleared_is_superseded(desk: Desk) -> None:
    """Only a newer life of its name does that."""
    cleared = desk.result("r1")
    shutil.rmtree(cleared.spool)
    desk.registrar.submit([cleared])
    failed = desk.answers.get(timeout=60)
    assert isinstance(failed, ThreadFailed)
    assert isinstance(failed.error, SupersededError)


def test_a_group_becomes_models_with_their_versions_and_leaves_no_spool(desk: Desk) -> None:
    answer = desk.store(desk.result("a"), desk.result("bb"))
    assert sorted(one.registered.version for one in answer.stored if one.registered) == ["v1", "v2"]
    assert answer.refused == []
    assert not (desk.folder / "a").exists()


def test_a_result_that_no_event_can_hold_is_failed_with_its_size_and_gets_no_version(desk: Desk) -> None:
    features = [f"{number}-{'x' * 500}" for number in range(EVENT_LIMIT_BYTES // 500)]
    answer = desk.store(desk.result("a", replace(desk.trained, features=features)))
    (stored,) = answer.stored
    assert stored.registered is None
    assert stored.outcome.kind is OutcomeKind.FAILED
    assert stored.outcome.error is not None
    assert stored.outcome.error.kind == "RESULT_TOO_LARGE"
    assert "at most 900,000" in stored.outcome.error.message


def test_a_result_just_below_the_limit_is_registered(desk: Desk) -> None:
    features = [f"{number}-{'x' * 500}" for number in range(EVENT_LIMIT_BYTES // 500 * 2 // 3)]
    (stored,) = desk.store(desk.result("a", replace(desk.trained, features=features))).stored
    assert stored.outcome.kind is OutcomeKind.REGISTERED


def test_a_negative_outcome_without_the_claim_is_refused(desk: Desk) -> None:
    desk.claim("a")
    desk.stores.ledger.release(desk.me, {"a"})
    outcome = Outcome("a", OutcomeKind.CANCELLED, NOW, "a", "default", "model", "w", 1, 1)
    answer = desk.store(outcome)
    assert (answer.stored, answer.refused) == ([], ["a"])
