"""One contract for every ledger: SQLite, MongoDB, and the dict that both are compared with."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

import pytest

from pipeline.errors import SupersededError
from pipeline.jobs import Outcome
from pipeline.ledger import Cancel, Claim, Home, Ledger, NewClaim, Owner
from tests.contract.dict_ledger import DictLedger
from tests.contract.stores import ADAPTERS, AT, Place, failed, place_for, registered

CANCEL = Cancel("too slow", "ann", AT)
T = TypeVar("T")
SUMMARY = {"project": "default", "model_name": "churn", "user": "ann", "requested_at": AT}


def new(request_id: str, offset: int = 0, **summary: Any) -> NewClaim:
    return NewClaim(request_id, "ef" * 32, Home("training-requests", 3, offset), {**SUMMARY, **summary})


def ended(request_id: str) -> Outcome:
    return registered(request_id)


@pytest.fixture(params=ADAPTERS)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    place = place_for(request.param, request, tmp_path)
    with place.ledger() as ledger:
        ledger.prepare()
    return place


@pytest.fixture(params=["dict", *ADAPTERS])
def ledger(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Ledger]:
    if request.param == "dict":
        yield DictLedger()
    else:
        with place_for(request.param, request, tmp_path).ledger() as ledger:
            ledger.prepare()
            yield ledger


@pytest.fixture
def me(ledger: Ledger) -> Owner:
    """A living worker."""
    return living(ledger, "w-1")


def living(ledger: Ledger, worker_id: str) -> Owner:
    owner = ledger.boot(worker_id)
    ledger.heartbeat(owner, 60, ())
    return owner


def claim_of(ledger: Ledger, request_id: str) -> Claim:
    claim = ledger.read([request_id])[request_id].claim
    assert claim is not None
    return claim


class TestLives:
    def test_each_start_raises_the_boot_counter_of_its_worker_by_one(self, ledger: Ledger) -> None:
        assert [ledger.boot("w-1"), ledger.boot("w-2"), ledger.boot("w-1")] == [
            Owner("w-1", 1),
            Owner("w-2", 1),
            Owner("w-1", 2),
        ]

    def test_starts_at_the_same_moment_are_different_lives(self, place: Place) -> None:
        with place.ledger() as ledger:
            assert sorted(owner.boot for owner in at_once(8, lambda _: ledger.boot("w-1"))) == list(range(1, 9))

    def test_a_worker_lives_from_its_first_heartbeat(self, ledger: Ledger) -> None:
        me = ledger.boot("w-1")
        ledger.claim(me, [new("r-1")])
        assert not ledger.read(["r-1"])["r-1"].owner_lives
        ledger.heartbeat(me, 60, ())
        assert ledger.read(["r-1"])["r-1"].owner_lives

    def test_an_older_life_does_not_pass_for_a_newer(self, ledger: Ledger, me: Owner) -> None:
        ledger.claim(me, [new("r-1")])
        newer = living(ledger, "w-1")
        ledger.claim(newer, [new("r-2")])
        entries = ledger.read(["r-1", "r-2"])
        assert (entries["r-1"].owner_lives, entries["r-2"].owner_lives) == (False, True)

    def test_a_new_life_does_not_inherit_the_lease(self, ledger: Ledger, me: Owner) -> None:
        newer = ledger.boot("w-1")
        ledger.claim(newer, [new("r-1")])
        assert not ledger.read(["r-1"])["r-1"].owner_lives

    def test_a_heartbeat_never_overwrites_a_newer_boot(self, ledger: Ledger, me: Owner) -> None:
        newer = ledger.boot("w-1")
        ledger.claim(newer, [new("r-1")])
        with pytest.raises(SupersededError):
            ledger.heartbeat(me, 60, ())
        assert not ledger.read(["r-1"])["r-1"].owner_lives, "the refused heartbeat wrote something"
        ledger.heartbeat(newer, 60, ())
        assert ledger.read(["r-1"])["r-1"].owner_lives

    def test_an_expired_lease_is_dead(self, ledger: Ledger, me: Owner) -> None:
        ledger.claim(me, [new("r-1")])
        ledger.heartbeat(me, 0.05, ())
        time.sleep(0.1)
        assert not ledger.read(["r-1"])["r-1"].owner_lives
        ledger.heartbeat(me, 60, ())
        assert ledger.read(["r-1"])["r-1"].owner_lives

    def test_leaving_ends_the_lease_at_once(self, ledger: Ledger, me: Owner) -> None:
        ledger.claim(me, [new("r-1")])
        ledger.leave(me)
        assert not ledger.read(["r-1"])["r-1"].owner_lives

    def test_an_older_life_cannot_end_the_lease_of_a_newer(self, ledger: Ledger, me: Owner) -> None:
        newer = living(ledger, "w-1")
        ledger.claim(newer, [new("r-1")])
        ledger.leave(me)
        assert ledger.read(["r-1"])["r-1"].owner_lives

    def test_a_heartbeat_tells_which_of_the_watched_are_to_be_cancelled(self, ledger: Ledger, me: Owner) -> None:
        ledger.claim(me, [new("r-1"), new("r-2"), new("r-3")])
        for request_id in ("r-1", "r-2"):
            ledger.cancel(request_id, replace(CANCEL, reason=request_id))
        assert ledger.heartbeat(me, 60, ["r-2", "r-3", "r-4"]) == {"r-2": replace(CANCEL, reason="r-2")}


class TestClaims:
    def test_only_claims_that_did_not_exist_are_mine(self, ledger: Ledger, me: Owner) -> None:
        other = living(ledger, "w-2")
        assert ledger.claim(other, [new("r-2", 2)]) == {"r-2"}
        assert ledger.claim(me, [new("r-1", 1), new("r-2", 9), new("r-3", 3)]) == {"r-1", "r-3"}
        assert claim_of(ledger, "r-2") == Claim("r-2", "ef" * 32, Home("training-requests", 3, 2), other)

    def test_a_claim_of_my_own_is_not_made_again(self, ledger: Ledger, me: Owner) -> None:
        ledger.claim(me, [new("r-1", 1)])
        assert ledger.claim(me, [new("r-1", 5)]) == frozenset()
        assert claim_of(ledger, "r-1").home == Home("training-requests", 3, 1)

    def test_the_first_of_eight_claims_wins(self, place: Place) -> None:
        batch = [new(f"r-{n}") for n in range(20)]
        with place.ledger() as ledger:
            mine = at_once(8, lambda n: ledger.claim(Owner(f"w-{n}", 1), batch))
            assert sorted(i for ids in mine for i in ids) == sorted(claim.request_id for claim in batch)
            for n, ids in enumerate(mine):
                for request_id in ids:
                    assert claim_of(ledger, request_id).owner == Owner(f"w-{n}", 1)

    def test_nothing_to_do_is_done(self, ledger: Ledger, me: Owner) -> None:
        assert ledger.claim(me, []) == frozenset()
        assert ledger.close(me, []) == frozenset()
        assert ledger.insert_outcomes([]) == {}
        assert ledger.read([]) == {}
        ledger.release(me, [])

    def test_an_unknown_request_has_neither_claim_nor_outcome(self, ledger: Ledger) -> None:
        entry = ledger.read(["r-1"])["r-1"]
        assert (entry.claim, entry.outcome, entry.owner_lives) == (None, None, False)

    def test_ten_thousand_requests_are_read_at_once(self, place: Place) -> None:
        with place.ledger() as ledger:
            me = living(ledger, "w-1")
            ledger.claim(me, [new(f"r-{n}") for n in range(0, 10_000, 2)])
            entries = ledger.read([f"r-{n}" for n in range(10_000)])
            assert sum(entry.owner_lives for entry in entries.values()) == 5_000
            assert len(entries) == 10_000

    @pytest.mark.parametrize("request_id", ["$r", "a.b", "é\n", "'; --", "x" * 120, "*", '"', "a\x00b"])
    def test_a_request_id_is_any_text(self, ledger: Ledger, request_id: str) -> None:
        me, other = living(ledger, f"${request_id}"), living(ledger, "$$NOW")
        assert ledger.claim(me, [new(request_id)]) == {request_id}
        taken = ledger.take_over(other, claim_of(ledger, request_id), lost_worker=True, blame=False)
        assert taken is not None
        assert (taken.owner, taken.request_id) == (other, request_id)
        assert ledger.read([request_id])[request_id].owner_lives
        assert ledger.insert_outcomes([ended(request_id)]) == {request_id: ended(request_id)}


class TestTakingOver:
    @pytest.fixture
    def other(self, ledger: Ledger) -> Owner:
        return living(ledger, "w-2")

    def test_whoever_takes_over_is_the_owner_and_sees_the_claim_after_that(
        self, ledger: Ledger, me: Owner, other: Owner
    ) -> None:
        ledger.claim(other, [new("r-1")])
        seen = claim_of(ledger, "r-1")
        taken = ledger.take_over(me, seen, lost_worker=False, blame=False)
        assert taken == replace(seen, owner=me) == claim_of(ledger, "r-1")

    def test_of_two_that_saw_the_same_owner_one_takes_over(self, ledger: Ledger, me: Owner, other: Owner) -> None:
        ledger.claim(ledger.boot("w-3"), [new("r-1")])
        seen = claim_of(ledger, "r-1")
        assert ledger.take_over(me, seen, lost_worker=True, blame=False) is not None
        assert ledger.take_over(other, seen, lost_worker=True, blame=False) is None
        assert claim_of(ledger, "r-1").owner == me

    def test_a_take_over_is_refused_once_the_claim_is_closing(self, ledger: Ledger, me: Owner, other: Owner) -> None:
        ledger.claim(other, [new("r-1")])
        seen = claim_of(ledger, "r-1")
        ledger.close(other, [failed("r-1")])
        assert ledger.take_over(me, seen, lost_worker=True, blame=False) is None
        closing = claim_of(ledger, "r-1")
        taken = ledger.take_over(me, closing, lost_worker=True, blame=False)
        assert taken == replace(closing, owner=me, worker_losses=1)
        assert taken.closing == failed("r-1")

    def test_a_released_claim_is_taken_over_by_one(self, ledger: Ledger, me: Owner, other: Owner) -> None:
        ledger.claim(other, [new("r-1")])
        ledger.release(other, ["r-1"])
        seen = claim_of(ledger, "r-1")
        assert seen.owner is None
        assert ledger.take_over(me, seen, lost_worker=False, blame=False) is not None
        assert ledger.take_over(other, seen, lost_worker=False, blame=False) is None

    def test_other_changes_do_not_refuse_a_take_over(self, ledger: Ledger, me: Owner, other: Owner) -> None:
        ledger.claim(other, [new("r-1")])
        seen = claim_of(ledger, "r-1")
        ledger.crashed(other, "r-1")
        ledger.cancel("r-1", CANCEL)
        assert ledger.take_over(me, seen, lost_worker=False, blame=False) == replace(
            seen, owner=me, trainer_crashes=1, cancel=CANCEL
        )

    def test_a_first_loss_counts_always_and_later_ones_only_with_blame(
        self, ledger: Ledger, me: Owner, other: Owner
    ) -> None:
        ledger.claim(other, [new("r-1")])
        losses = []
        for lost_worker, blame in [(False, True), (True, False), (True, False), (True, True), (False, True)]:
            taken = ledger.take_over(me, claim_of(ledger, "r-1"), lost_worker=lost_worker, blame=blame)
            assert taken is not None
            losses.append(taken.worker_losses)
        assert losses == [0, 1, 1, 2, 2]

    def test_what_does_not_exist_or_is_a_stub_cannot_be_taken_over(self, ledger: Ledger, me: Owner) -> None:
        assert ledger.take_over(me, Claim("r-1", None, None, None), lost_worker=False, blame=False) is None
        ledger.cancel("r-1", CANCEL)
        assert ledger.take_over(me, claim_of(ledger, "r-1"), lost_worker=False, blame=False) is None
        assert claim_of(ledger, "r-1").owner is None

    def test_of_eight_at_once_one_takes_over(self, place: Place) -> None:
        with place.ledger() as ledger:
            ledger.claim(Owner("w-0", 1), [new("r-1")])
            seen = claim_of(ledger, "r-1")
            taken = at_once(8, lambda n: ledger.take_over(Owner(f"w-{n + 1}", 1), seen, lost_worker=True, blame=True))
            (won,) = [claim for claim in taken if claim is not None]
            assert won == claim_of(ledger, "r-1")
            assert won.worker_losses == 1


class TestTraining:
    def test_only_the_owner_starts(self, ledger: Ledger, me: Owner) -> None:
        ledger.claim(me, [new("r-1")])
        assert ledger.start(me, "r-1")
        assert ledger.start(me, "r-1")
        assert claim_of(ledger, "r-1").started == me
        assert not ledger.start(replace(me, boot=me.boot + 1), "r-1")
        assert not ledger.start(me, "r-2")
        assert claim_of(ledger, "r-1").started == me

    def test_a_start_stays_known_when_the_owner_changes(self, ledger: Ledger, me: Owner) -> None:
        ledger.claim(me, [new("r-1")])
        ledger.start(me, "r-1")
        taken = ledger.take_over(living(ledger, "w-2"), claim_of(ledger, "r-1"), lost_worker=True, blame=True)
        assert taken is not None
        assert taken.started == me

    def test_only_the_owner_counts_crashes(self, ledger: Ledger, me: Owner) -> None:
        ledger.claim(me, [new("r-1")])
        assert [ledger.crashed(me, "r-1") for _ in range(3)] == [1, 2, 3]
        assert ledger.crashed(replace(me, boot=me.boot + 1), "r-1") is None
        assert ledger.crashed(me, "r-2") is None
        assert claim_of(ledger, "r-1").trainer_crashes == 3


class TestClosing:
    def test_only_claims_of_mine_are_closed(self, ledger: Ledger, me: Owner) -> None:
        ledger.claim(me, [new("r-1")])
        ledger.claim(living(ledger, "w-2"), [new("r-2")])
        assert ledger.close(me, [failed("r-1"), failed("r-2"), failed("r-3")]) == {"r-1"}
        assert claim_of(ledger, "r-1").closing == failed("r-1")
        assert claim_of(ledger, "r-2").closing is None

    def test_the_first_closing_stands_and_an_equal_one_counts_as_accepted(self, ledger: Ledger, me: Owner) -> None:
        ledger.claim(me, [new("r-1"), new("r-2")])
        assert ledger.close(me, [failed("r-1")]) == {"r-1"}
        assert ledger.close(me, [failed("r-1"), failed("r-2")]) == {"r-1", "r-2"}
        assert ledger.close(me, [failed("r-1", "another"), failed("r-2")]) == {"r-2"}
        assert claim_of(ledger, "r-1").closing == failed("r-1")

    def test_a_closing_is_not_mine_once_another_owns_the_claim(self, ledger: Ledger, me: Owner) -> None:
        ledger.claim(me, [new("r-1")])
        ledger.close(me, [failed("r-1")])
        other = living(ledger, "w-2")
        ledger.take_over(other, claim_of(ledger, "r-1"), lost_worker=False, blame=False)
        assert ledger.close(me, [failed("r-1")]) == frozenset()
        assert ledger.close(other, [failed("r-1", "another")]) == frozenset()
        assert ledger.close(other, [failed("r-1")]) == {"r-1"}

    def test_a_closing_is_never_cleared(self, ledger: Ledger, me: Owner) -> None:
        ledger.claim(me, [new("r-1")])
        ledger.close(me, [failed("r-1")])
        ledger.start(me, "r-1")
        ledger.crashed(me, "r-1")
        ledger.cancel("r-1", CANCEL)
        ledger.release(me, ["r-1"])
        ledger.claim(me, [new("r-1")])
        ledger.fill_stub(me, new("r-1"))
        ledger.take_over(me, claim_of(ledger, "r-1"), lost_worker=True, blame=True)
        ledger.insert_outcomes([ended("r-1")])
        assert claim_of(ledger, "r-1").closing == failed("r-1")


class TestReleasing:
    def test_a_release_unsets_the_owner_and_keeps_the_rest(self, ledger: Ledger, me: Owner) -> None:
        ledger.claim(me, [new("r-1", 17)])
        ledger.take_over(me, claim_of(ledger, "r-1"), lost_worker=True, blame=False)
        ledger.start(me, "r-1")
        ledger.crashed(me, "r-1")
        ledger.cancel("r-1", CANCEL)
        ledger.close(me, [failed("r-1")])
        before = claim_of(ledger, "r-1")
        ledger.release(me, ["r-1"])
        assert claim_of(ledger, "r-1") == replace(before, owner=None)
        home, counters = before.home, (before.worker_losses, before.trainer_crashes)
        assert (home, before.cancel, counters) == (Home("training-requests", 3, 17), CANCEL, (1, 1))
        assert (before.started, before.closing) == (me, failed("r-1"))

    def test_only_what_is_mine_is_released(self, ledger: Ledger, me: Owner) -> None:
        other = living(ledger, "w-2")
        ledger.claim(me, [new("r-1"), new("r-2"), new("r-3")])
        ledger.claim(other, [new("r-4")])
        ledger.release(replace(me, boot=me.boot + 1), ["r-1"])
        ledger.release(me, ["r-2", "r-3", "r-4", "r-5"])
        owners = {i: e.claim.owner for i, e in ledger.read(["r-1", "r-2", "r-3", "r-4"]).items() if e.claim}
        assert owners == {"r-1": me, "r-2": None, "r-3": None, "r-4": other}
        assert not ledger.read(["r-2"])["r-2"].owner_lives


class TestCancelling:
    def test_a_cancel_before_its_request_makes_a_stub(self, ledger: Ledger) -> None:
        assert ledger.cancel("r-1", CANCEL)
        assert claim_of(ledger, "r-1") == Claim("r-1", None, None, None, CANCEL)
        assert ledger.requests(project="default") == []

    def test_a_stub_refuses_claims_and_is_filled_once_keeping_its_cancel(self, ledger: Ledger, me: Owner) -> None:
        ledger.cancel("r-1", CANCEL)
        assert ledger.claim(me, [new("r-1"), new("r-2")]) == {"r-2"}
        filled = ledger.fill_stub(me, new("r-1", 5))
        assert filled == Claim("r-1", "ef" * 32, Home("training-requests", 3, 5), me, CANCEL)
        assert filled == claim_of(ledger, "r-1")
        assert ledger.fill_stub(living(ledger, "w-2"), new("r-1", 6)) is None
        assert claim_of(ledger, "r-1") == filled
        assert {row.request_id for row in ledger.requests(project="default")} == {"r-1", "r-2"}

    def test_what_is_no_stub_is_not_filled(self, ledger: Ledger, me: Owner) -> None:
        assert ledger.fill_stub(me, new("r-1")) is None
        ledger.claim(me, [new("r-1")])
        ledger.release(me, ["r-1"])
        assert ledger.fill_stub(me, new("r-1")) is None
        assert claim_of(ledger, "r-1").owner is None

    def test_the_first_cancel_stands(self, ledger: Ledger, me: Owner) -> None:
        ledger.claim(me, [new("r-1")])
        for request_id in ("r-1", "r-2"):
            assert ledger.cancel(request_id, CANCEL)
            assert ledger.cancel(request_id, replace(CANCEL, reason="another"))
            assert claim_of(ledger, request_id).cancel == CANCEL
        assert claim_of(ledger, "r-1").owner == me

    def test_what_has_an_outcome_is_not_cancelled(self, ledger: Ledger, me: Owner) -> None:
        ledger.claim(me, [new("r-1")])
        ledger.insert_outcomes([ended("r-1"), ended("r-2")])
        assert not ledger.cancel("r-1", CANCEL)
        assert not ledger.cancel("r-2", CANCEL)
        assert claim_of(ledger, "r-1").cancel is None
        assert ledger.read(["r-2"])["r-2"].claim is None

    def test_a_cancel_and_a_claim_at_once_both_count(self, place: Place) -> None:
        ids = [f"r-{n}" for n in range(40)]
        with place.ledger() as ledger:
            me = living(ledger, "w-1")

            def act(worker: int) -> None:
                for request_id in ids:
                    if worker % 2:
                        assert ledger.cancel(request_id, CANCEL)
                    elif not ledger.claim(me, [new(request_id)]):
                        ledger.fill_stub(me, new(request_id))

            at_once(4, act)
            for entry in ledger.read(ids).values():
                assert entry.claim is not None
                assert (entry.claim.owner, entry.claim.cancel) == (me, CANCEL)


class TestOutcomes:
    def test_the_first_outcome_stands(self, ledger: Ledger) -> None:
        assert ledger.insert_outcomes([ended("r-1")]) == {"r-1": ended("r-1")}
        stands = ledger.insert_outcomes([failed("r-1"), failed("r-2")])
        assert stands == {"r-1": ended("r-1"), "r-2": failed("r-2")}
        assert {i: e.outcome for i, e in ledger.read(["r-1", "r-2"]).items()} == stands

    def test_the_first_of_eight_outcomes_stands_for_all(self, place: Place) -> None:
        ids = [f"r-{n}" for n in range(20)]
        with place.ledger() as ledger:
            answers = at_once(8, lambda n: ledger.insert_outcomes([failed(i, f"by {n}") for i in ids]))
            assert all(answer == answers[0] for answer in answers)
            assert {i: e.outcome for i, e in ledger.read(ids).items()} == answers[0]

    def test_an_outcome_is_read_back_as_it_was_written(self, ledger: Ledger) -> None:
        trap = {"$ref": "models", "$id": "7"}  # what MongoDB's drivers take for a reference
        outcomes = [
            ended("r-1"),
            registered("r-2", tags=trap, metrics={"$id": 1.0, "$ref": -0.5}, hyperparameters={"a": [1, 2.0, None]}),
            registered("r-3", hyperparameters={}, features=(), tags={}, warnings=("one", "two"), file_id=None),
            failed("r-4", "a\x00b \U0001f600 " + "x" * 10_000, attempt=3),
        ]
        ledger.insert_outcomes(outcomes)
        for outcome in outcomes:
            stored = ledger.read([outcome.request_id])[outcome.request_id].outcome
            assert stored == outcome
            assert stored.at.utcoffset() == timedelta(0)
            if stored.model is not None and outcome.model is not None:
                kinds = [type(value) for value in outcome.model.hyperparameters.values()]
                assert [type(value) for value in stored.model.hyperparameters.values()] == kinds


class TestListing:
    def test_the_newest_requests_come_first(self, ledger: Ledger, me: Owner) -> None:
        for request_id in ("r-1", "r-3", "r-2"):
            ledger.claim(me, [new(request_id)])
            time.sleep(0.002)
        assert [row.request_id for row in ledger.requests()] == ["r-2", "r-3", "r-1"]
        assert [row.request_id for row in ledger.requests(limit=2)] == ["r-2", "r-3"]

    def test_a_line_shows_summary_owner_and_outcome(self, ledger: Ledger, me: Owner) -> None:
        begin = datetime.now(UTC) - timedelta(milliseconds=1)
        ledger.claim(me, [new("r-1", job_name="Churn.weekly")])
        ledger.insert_outcomes([ended("r-1")])
        (row,) = ledger.requests()
        assert row.summary == {**SUMMARY, "job_name": "Churn.weekly"}
        assert (row.owner, row.outcome) == (me, ended("r-1"))
        assert row.claimed_at is not None
        assert begin <= row.claimed_at <= datetime.now(UTC)

    def test_a_stub_is_listed_last_without_a_summary(self, ledger: Ledger, me: Owner) -> None:
        ledger.cancel("r-1", CANCEL)
        ledger.claim(me, [new("r-2")])
        first, last = ledger.requests()
        assert (first.request_id, last.request_id) == ("r-2", "r-1")
        assert (last.summary, last.claimed_at, last.owner, last.outcome) == ({}, None, None, None)

    def test_requests_are_chosen_by_project_model_and_being_unfinished(self, ledger: Ledger, me: Owner) -> None:
        named = [("r-1", "p", "a"), ("r-2", "p", "b"), ("r-3", "q", "a"), ("r-4", "p", "a")]
        ledger.claim(me, [new(i, project=project, model_name=model) for i, project, model in named])
        ledger.insert_outcomes([ended("r-1"), ended("r-2")])

        def listed(**choice: Any) -> set[str]:
            return {row.request_id for row in ledger.requests(**choice)}

        assert listed(project="p") == {"r-1", "r-2", "r-4"}
        assert listed(project="p", model_name="a") == {"r-1", "r-4"}
        assert listed(model_name="a") == {"r-1", "r-3", "r-4"}
        assert listed(unfinished=True) == {"r-3", "r-4"}
        assert listed(project="p", unfinished=True) == {"r-4"}


class TestDurability:
    def test_prepare_may_be_called_again_and_at_once(self, request: pytest.FixtureRequest, tmp_path: Path) -> None:
        place = place_for("sqlite", request, tmp_path)
        at_once(8, lambda _: prepared(place))

    @pytest.mark.services
    def test_prepare_may_be_called_at_once_in_mongodb(self, request: pytest.FixtureRequest, tmp_path: Path) -> None:
        place = place_for("mongodb", request, tmp_path)
        at_once(8, lambda _: prepared(place))

    def test_what_was_written_is_there_for_the_next_process(self, place: Place) -> None:
        with place.ledger() as ledger:
            me = living(ledger, "w-1")
            ledger.claim(me, [new("r-1")])
            ledger.insert_outcomes([ended("r-1")])
            before = ledger.read(["r-1"])
        with place.ledger() as ledger:
            assert ledger.read(["r-1"]) == before
            assert ledger.boot("w-1").boot == me.boot + 1


def prepared(place: Place) -> None:
    with place.ledger() as ledger:
        ledger.prepare()
        ledger.prepare()


def at_once(threads: int, act: Callable[[int], T]) -> list[T]:
    """What each of the threads returned; all begin together."""
    start = threading.Barrier(threads)

    def one(n: int) -> T:
        start.wait(60)
        return act(n)

    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(one, range(threads)))
