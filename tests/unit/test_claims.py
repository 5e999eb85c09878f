"""How the records of one batch stand, on the embedded ledger."""

import queue
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from consumer.events.codec import Codec
from consumer.events.requests import read_request, to_avro
from consumer.jobs import claims
from consumer.jobs.claims import Claims, Ruled, Ruling, Standing
from consumer.jobs.lease import Steady
from consumer.partitions.records import Partition, Record
from consumer.settings import load_settings
from consumer.stores import Stores, open_stores
from consumer.threads.neighbour import Surroundings
from pipeline.errors import TransientError
from pipeline.jobs import ErrorKind, TrainingRequest
from pipeline.ledger import Cancel, Claim, Ledger, NewClaim, Owner
from schemas import RecordType
from tests.training_data import request


class Desk:
    def __init__(self, folder: Path, ledger: Any = None) -> None:
        self.ledger = ledger or open_stores(load_settings({}, None, needs=(), data_dir=folder)).ledger
        self.ledger.prepare()
        self.answers: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.claims = Claims(
            self.ledger.boot("w"),
            self.ledger,
            Codec(),
            steady=Steady(),
            around=Surroundings(self.answers.put),
        )
        self.claims.start()

    def claim(self, *requests: TrainingRequest) -> list[Ruling]:
        """Of records at the offsets 0, 1, …"""
        codec = Codec()
        self.claims.claim(
            [
                Record(
                    Partition("t", 0), 1, offset, b"k", codec.encode(RecordType.TRAINING_REQUEST, to_avro(one)), (), 0
                )
                for offset, one in enumerate(requests)
            ]
        )
        ruled = self.answers.get(timeout=60)
        assert isinstance(ruled, Ruled), ruled
        return list(ruled.rulings)

    def settle(self) -> None:
        """Until all orders so far are answered."""
        self.claims.look_again(())
        assert self.answers.get(timeout=60) == Ruled([])

    def stop(self) -> None:
        self.claims.finish()
        self.claims.join(10)


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    desk = Desk(tmp_path)
    yield desk
    desk.stop()


def _owner(stores: Stores) -> Owner | None:
    """Whose r1 is."""
    claim = stores.ledger.read({"r1"})["r1"].claim
    assert claim is not None
    return claim.owner


def test_a_request_twice_in_a_batch_has_its_home_at_the_first(desk: Desk) -> None:
    found = desk.claim(request(), request(request_id="r2"), request())
    assert [one.standing for one in found] == [Standing.MINE, Standing.MINE, Standing.DUPLICATE]


def test_a_request_twice_in_a_batch_after_its_cancel_has_its_home_at_the_first(desk: Desk) -> None:
    """Else two records would each take themselves for the one to announce."""
    desk.ledger.cancel("r1", Cancel("", "", datetime.now(UTC)))
    found = desk.claim(request(), request())
    assert [one.standing for one in found] == [Standing.MINE, Standing.DUPLICATE]
    assert found[0].claim is not None
    assert found[0].claim.cancel is not None
    assert found[0].claim.home is not None
    assert found[0].claim.home.offset == 0


def test_other_content_under_the_same_id_in_a_batch_is_a_conflict(desk: Desk) -> None:
    found = desk.claim(request(), request(seed=7))
    assert [one.standing for one in found] == [Standing.MINE, Standing.CONFLICT]


def test_a_request_that_the_check_stumbles_over_is_claimed_and_ends_of_an_internal_error(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the record would end one worker after the other."""

    def stumble(_: object) -> None:
        raise ZeroDivisionError("secret")

    monkeypatch.setattr("pipeline.validation.check", stumble)
    (ruling,) = desk.claim(request())
    assert ruling.standing is Standing.MINE
    assert ruling.asked is not None
    assert ruling.asked.problem is not None
    assert ruling.asked.problem.kind == ErrorKind.INTERNAL_ERROR
    assert "secret" not in ruling.asked.problem.message
    assert "ZeroDivision" not in ruling.asked.problem.message


def test_a_record_that_decoding_stumbles_over_is_a_dead_letter_and_its_batch_is_claimed(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:

    def stumble(*args: Any, **kwargs: Any) -> Any:
        found = read_request(*args, **kwargs)
        if found.request.request_id == "r2":
            raise RecursionError
        return found

    monkeypatch.setattr(claims, "read_request", stumble)
    found = desk.claim(request(), request(request_id="r2"), request(request_id="r3"))
    assert [one.standing for one in found] == [Standing.MINE, Standing.BROKEN, Standing.MINE]


class Stumbling:
    """A ledger that cannot hold some claims: those with this in their summary, or with this id whatever it says."""

    def __init__(self, ledger: Ledger, summary: str = "", request_id: str = "") -> None:
        self._ledger = ledger
        self._summary = summary
        self._request_id = request_id

    def __getattr__(self, name: str) -> Any:
        return getattr(self._ledger, name)

    def claim(self, me: Owner, new: Sequence[NewClaim]) -> frozenset[str]:
        for one in new:
            if one.request_id == self._request_id or (self._summary and self._summary in one.summary.values()):
                raise ValueError("not to be written")
        return self._ledger.claim(me, new)


def test_a_request_whose_summary_the_ledger_cannot_hold_is_claimed_without_and_the_others_as_ever(
    tmp_path: Path,
) -> None:
    desk = Desk(tmp_path, Stumbling(embedded(tmp_path), summary="odd"))
    batch = [request(request_id=f"r{number}", user="odd" if number == 3 else "") for number in range(8)]
    found = desk.claim(*batch)
    assert {one.standing for one in found} == {Standing.MINE}
    problems = [one.asked.problem for one in found if one.asked is not None]
    assert [problem is not None for problem in problems] == [number == 3 for number in range(8)]
    desk.stop()


def test_a_request_that_the_ledger_cannot_hold_at_all_is_a_dead_letter_alone(tmp_path: Path) -> None:
    desk = Desk(tmp_path, Stumbling(embedded(tmp_path), request_id="r3"))
    found = desk.claim(*(request(request_id=f"r{number}") for number in range(8)))
    standings = [one.standing for one in found]
    assert standings == [Standing.BROKEN if number == 3 else Standing.MINE for number in range(8)]
    desk.stop()


def embedded(folder: Path) -> Ledger:
    return open_stores(load_settings({}, None, needs=(), data_dir=folder)).ledger


class LateLedger:
    """Leaves the first take-over unanswered, and applies it when told to."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self.late: list[Callable[[], object]] = []
        self.failed = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._ledger, name)

    def take_over(self, *args: Any, **kwargs: Any) -> Claim | None:
        if not self.failed:
            self.failed = True
            self.late.append(lambda: self._ledger.take_over(*args, **kwargs))
            raise TransientError("mongodb", "no answer")
        return self._ledger.take_over(*args, **kwargs)


def test_a_take_over_that_is_applied_after_the_request_was_released_is_given_back(tmp_path: Path) -> None:
    """Else the request stays in the name of a worker that lives and does not have it."""
    stores = open_stores(load_settings({}, None, needs=(), data_dir=tmp_path))
    stores.ledger.prepare()
    late = LateLedger(stores.ledger)
    desk = Desk(tmp_path, late)
    desk.claim(request())
    desk.claims.release({"r1"})
    assert [one.standing for one in desk.claim(request())] == [Standing.MINE]
    desk.claims.release({"r1"})
    desk.settle()
    late.late.pop()()
    assert _owner(stores) is not None
    desk.claims.sweep(())
    desk.settle()
    assert _owner(stores) is None
    desk.stop()


def test_a_request_that_was_taken_over_late_and_is_held_is_not_given_back(tmp_path: Path) -> None:
    """Its ruling may be on its way to the worker, which then does not hold it yet."""
    stores = open_stores(load_settings({}, None, needs=(), data_dir=tmp_path))
    stores.ledger.prepare()
    desk = Desk(tmp_path, LateLedger(stores.ledger))
    desk.claim(request())
    desk.claims.release({"r1"})
    assert [one.standing for one in desk.claim(request())] == [Standing.MINE]
    desk.claims.sweep(())
    desk.settle()
    assert _owner(stores) is not None
    desk.stop()
