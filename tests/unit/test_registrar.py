"""What the registrar makes durable, on the embedded stores."""

import queue
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from consumer.events.codec import Codec
from consumer.events.topics import Topics
from consumer.jobs.event_numbers import EventNumbers
from consumer.jobs.lease import Steady
from consumer.jobs.outcomes import Ending, Result
from consumer.jobs.registrar import EVENT_LIMIT_BYTES, GroupStored, Recorded, Registrar, Stored, Unstored
from consumer.jobs.spools import Spools
from consumer.settings import load_settings
from consumer.stores import Stores, open_stores
from consumer.threads.neighbour import Surroundings, ThreadFailed
from pipeline.errors import SupersededError
from pipeline.jobs import ErrorKind, Failure, Outcome, OutcomeKind, RegisteredModel
from pipeline.ledger import Home, NewClaim, Owner
from pipeline.training.trained import Trained
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
        self.spools = Spools(folder / "spool")
        self.registrar = Registrar(
            self.me,
            self.stores.ledger,
            self.stores.registry,
            self.stores.artifacts,
            Codec(),
            Topics(),
            spools=self.spools,
            steady=Steady(),
            around=Surroundings(self.answers.put),
        )
        self.registrar.start()

    def claim(self, request_id: str) -> None:
        home = Home("training-requests", 0, len(request_id))
        assert self.stores.ledger.claim(self.me, [NewClaim(request_id, "sha", home, {})])

    def result(self, request_id: str, trained: Trained | None = None) -> Result:
        self.claim(request_id)
        spool = self.spools.take(watched=False)
        spool.mkdir(parents=True, exist_ok=True)
        (spool / "result.json").write_bytes((trained or self.trained).to_json())
        return Result(request(request_id=request_id), Ending(NOW, "w", 1, EventNumbers(6)), spool)

    def store(self, *items: Any) -> dict[str, Stored | Unstored]:
        """The answers, by request."""
        self.registrar.submit(items)
        answer = self.answers.get(timeout=60)
        assert isinstance(answer, GroupStored), answer
        return {one.outcome.request_id if isinstance(one, Stored) else one.request_id: one for one in answer.answers}


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    desk = Desk(tmp_path)
    yield desk
    desk.registrar.finish()
    desk.registrar.join(10)


def test_a_worker_whose_spool_was_cleared_is_superseded(desk: Desk) -> None:
    """Only a newer life of its name does that."""
    cleared = desk.result("r1")
    desk.stores.ledger.boot("w")
    shutil.rmtree(cleared.spool)
    desk.registrar.submit([cleared])
    failed = desk.answers.get(timeout=60)
    assert isinstance(failed, ThreadFailed)
    assert isinstance(failed.error, SupersededError)


def test_a_group_becomes_models_with_their_versions_and_leaves_no_spool(desk: Desk) -> None:
    results = [desk.result("a"), desk.result("bb")]
    answers = desk.store(*results)
    assert sorted(registered(one).version for one in answers.values()) == ["v1", "v2"]
    desk.registrar.finish()
    desk.registrar.join(10)
    assert {desk.spools.take(watched=False) for _ in results} == {result.spool for result in results}
    assert not [*desk.spools.root.rglob("*.json")]


def test_a_result_that_no_event_can_hold_is_failed_with_its_size_and_gets_no_version(desk: Desk) -> None:
    features = [f"{number}-{'x' * 500}" for number in range(EVENT_LIMIT_BYTES // 500)]
    stored = desk.store(desk.result("a", replace(desk.trained, features=features)))["a"]
    assert isinstance(stored, Stored)
    assert stored.registered is None
    assert stored.outcome.kind is OutcomeKind.FAILED
    assert stored.outcome.error is not None
    assert stored.outcome.error.kind == "RESULT_TOO_LARGE"
    assert "at most 900,000" in stored.outcome.error.message


def test_a_result_just_below_the_limit_is_registered(desk: Desk) -> None:
    features = [f"{number}-{'x' * 500}" for number in range(EVENT_LIMIT_BYTES // 500 * 2 // 3)]
    stored = desk.store(desk.result("a", replace(desk.trained, features=features)))["a"]
    assert registered(stored).version == "v1"


def test_a_negative_outcome_without_the_claim_is_void(desk: Desk) -> None:
    desk.claim("a")
    desk.stores.ledger.release(desk.me, {"a"})
    assert desk.store(cancelled("a")) == {"a": Unstored("a")}


def test_of_a_group_only_the_result_that_cannot_be_stored_fails(desk: Desk) -> None:
    group = [desk.result(name) for name in ("a", "b", "c", "d")]
    (group[2].spool / "result.json").write_bytes(b"{")
    answers = desk.store(*group)
    failed = answers.pop("c")
    assert isinstance(failed, Stored)
    assert failed.outcome.kind is OutcomeKind.FAILED
    assert failed.outcome.error is not None
    assert failed.outcome.error.kind == ErrorKind.INTERNAL_ERROR
    assert failed.outcome.dead_lettered
    assert "JSON" not in failed.outcome.error.message
    assert sorted(registered(one).version for one in answers.values()) == ["v1", "v2", "v3"]


def test_an_outcome_that_no_event_can_be_made_of_is_replaced_before_it_counts(desk: Desk) -> None:
    desk.claim("a")
    stored = desk.store(replace(cancelled("a"), error=Failure("CANCELLED", "\ud800")))["a"]
    assert isinstance(stored, Stored)
    assert stored.outcome.error is not None
    assert stored.outcome.error.kind == ErrorKind.INTERNAL_ERROR
    assert desk.stores.ledger.read({"a"})["a"].outcome == stored.outcome


def test_an_outcome_that_stands_and_cannot_be_registered_is_tried_again_and_holds_up_no_other(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    register = desk.stores.registry.register

    def stumble(outcomes: Sequence[Outcome]) -> Any:
        if any(outcome.request_id == "b" for outcome in outcomes):
            raise ValueError("b")
        return register(outcomes)

    monkeypatch.setattr(desk.stores.registry, "register", stumble)
    answers = desk.store(desk.result("a"), desk.result("b"), desk.result("c"))
    unstored = answers.pop("b")
    assert sorted(registered(one).version for one in answers.values()) == ["v1", "v2"]
    outcome = desk.stores.ledger.read({"b"})["b"].outcome
    assert outcome is not None
    assert outcome.kind is OutcomeKind.REGISTERED
    assert unstored == Unstored("b", Recorded(outcome))
    claim = desk.stores.ledger.read({"b"})["b"].claim
    assert claim is not None
    assert claim.closing is None, "a request with an outcome is closed with no other"
    monkeypatch.undo()
    assert registered(desk.store(Recorded(outcome))["b"]).version == "v3"


def cancelled(request_id: str) -> Outcome:
    return Outcome(
        request_id, OutcomeKind.CANCELLED, NOW, "a", "default", "model", "w", 1, 1, Failure("CANCELLED", "by hand")
    )


def registered(answer: Stored | Unstored) -> RegisteredModel:
    assert isinstance(answer, Stored)
    assert answer.registered is not None
    return answer.registered
