"""What is the ledgers' own: what SQLite and MongoDB do about locks, clocks, expiry, durability and failure."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pymongo.database import Database
from pymongo.monitoring import CommandListener, CommandStartedEvent

from pipeline.databases.mongodb import connect
from pipeline.errors import TransientError
from pipeline.ledger import Claim, Owner
from pipeline.ledger.mongodb import UNFINISHED_S, MongoLedger
from pipeline.ledger.sqlite import SqliteLedger
from tests.contract.stores import AT, Place, failed, patiently, place_for, refused_when
from tests.contract.test_ledger import CANCEL, claim_of, ended, living, new
from tests.services.mongodb import MongoDB


class TestSqlite:
    def test_a_file_locked_for_too_long_is_transient(self, tmp_path: Path) -> None:
        path = tmp_path / "ledger.sqlite"
        one, two = SqliteLedger(path), SqliteLedger(path, timeout_s=0.05)
        one.prepare()
        with one._file.writing(), pytest.raises(TransientError, match=r"sqlite: ledger\.sqlite: database is locked"):
            two.boot("w-1")
        assert two.boot("w-1") == Owner("w-1", 1)

    def test_sqlite_forgets_requests_after_their_retention_and_stubs_after_a_week(self, tmp_path: Path) -> None:
        today = [AT]
        ledger = SqliteLedger(tmp_path / "ledger.sqlite", lambda: today[0], retention_s=90 * 86_400)
        ledger.prepare()
        me = ledger.boot("w-1")
        ledger.claim(me, [new("finished"), new("unfinished")])
        ledger.insert_outcomes([ended("finished")])
        ledger.cancel("stub", CANCEL)
        for days, known in [
            (6, {"finished", "unfinished", "stub"}),
            (89, {"finished", "unfinished"}),
            (91, {"unfinished"}),
        ]:
            today[0] = AT + timedelta(days=days)
            ledger.prepare()
            assert {row.request_id for row in ledger.requests()} == known
        assert ledger.read(["finished"])["finished"].outcome is None


class TestMongoDB:
    """What is MongoDB's alone."""

    @pytest.fixture
    def mongo_ledger(self, mongo_database: Database[dict[str, Any]]) -> MongoLedger:
        ledger = MongoLedger(mongo_database, retention_s=1_000)
        ledger.prepare()
        return ledger

    @pytest.mark.parametrize("days", [-400, 400])
    def test_the_clock_of_a_worker_does_not_decide_who_lives(
        self, mongo_database: Database[dict[str, Any]], days: int
    ) -> None:
        ledger = MongoLedger(mongo_database, clock=lambda: datetime.now(UTC) + timedelta(days=days))
        me = living(ledger, "w-1")
        ledger.claim(me, [new("r-1")])
        assert ledger.read(["r-1"])["r-1"].owner_lives
        ledger.leave(me)
        assert not ledger.read(["r-1"])["r-1"].owner_lives

    def test_a_claim_expires_long_after_an_outcome_and_every_change_puts_it_off(
        self, mongo_database: Database[dict[str, Any]]
    ) -> None:
        today = [AT]
        ledger = MongoLedger(mongo_database, retention_s=1_000, clock=lambda: today[0])
        me = ledger.boot("w-1")

        def expires(collection: str, request_id: str = "r-1") -> float:
            row = mongo_database[collection].find_one({"_id": request_id})
            assert row is not None
            end: datetime = row["expires_at"].replace(tzinfo=UTC)
            return (end - today[0]).total_seconds()

        ledger.claim(me, [new("r-1")])
        ledger.insert_outcomes([ended("r-1")])
        assert (expires("training_outcomes"), expires("training_requests")) == (1_000, 1_000 + UNFINISHED_S)
        ledger.cancel("r-2", CANCEL)
        assert expires("training_requests", "r-2") == 7 * 86_400
        changes: list[Callable[[str], object]] = [
            lambda i: ledger.start(me, i),
            lambda i: ledger.crashed(me, i),
            lambda i: ledger.close(me, [failed(i)]),
            lambda i: ledger.release(me, [i]),
            lambda i: ledger.take_over(me, claim_of(ledger, i), lost_worker=False, blame=False),
        ]
        assert ledger.fill_stub(me, new("r-2")) is not None
        for change in changes:
            assert expires("training_requests", "r-2") == 1_000 + UNFINISHED_S
            today[0] += timedelta(days=1)
            change("r-2")
        assert expires("training_requests", "r-2") == 1_000 + UNFINISHED_S

    def test_expiry_is_the_servers_work(
        self, mongo_ledger: MongoLedger, mongo_database: Database[dict[str, Any]]
    ) -> None:
        for collection in ("training_requests", "training_outcomes", "workers"):
            index = mongo_database[collection].index_information()["expires_at_1"]
            assert index["expireAfterSeconds"] == 0

    def test_an_index_may_take_longer_than_any_other_call(
        self, mongodb: MongoDB, mongo_database: Database[dict[str, Any]]
    ) -> None:
        mongo_database["training_requests"].insert_many([{"_id": str(n), "claimed_at": AT} for n in range(100_000)])
        with connect(mongodb.url, timeout_s=0.1) as client:
            patiently(MongoLedger(client[mongo_database.name]).prepare, within_s=10)

    def test_the_way_of_a_request_is_one_command_a_batch(
        self, mongo_ledger: MongoLedger, mongodb: MongoDB, mongo_database: Database[dict[str, Any]]
    ) -> None:
        seen = Commands()
        with connect(mongodb.url, listeners=[seen]) as client:
            ledger = MongoLedger(client[mongo_database.name])
            ids = [f"r-{n}" for n in range(300)]
            me = ledger.boot("w-1")
            counts = {}
            calls: dict[str, Callable[[], object]] = {
                "heartbeat": lambda: ledger.heartbeat(me, 10, ()),
                "heartbeat, watching": lambda: ledger.heartbeat(me, 10, ids),
                "claim": lambda: ledger.claim(me, [new(i) for i in ids]),
                "read": lambda: ledger.read(ids),
                "close": lambda: ledger.close(me, [failed(i) for i in ids]),
                "insert_outcomes": lambda: ledger.insert_outcomes([failed(i) for i in ids]),
                "release": lambda: ledger.release(me, ids),
            }
            for name, call in calls.items():
                seen.names.clear()
                call()
                counts[name] = list(seen.names)
        assert counts == {
            "heartbeat": ["findAndModify"],
            "heartbeat, watching": ["findAndModify", "find"],
            "claim": ["insert"],
            "read": ["find", "find", "find"],
            "close": ["update"],
            "insert_outcomes": ["insert"],
            "release": ["update"],
        }

    def test_writes_wait_for_a_majority_and_its_journal_whatever_the_client_says(
        self, mongo_ledger: MongoLedger
    ) -> None:
        for collection in (mongo_ledger._claims, mongo_ledger._outcomes, mongo_ledger._workers):
            assert collection.write_concern.document == {"w": "majority", "j": True}
            assert collection.read_concern.level == "majority"

    def test_a_server_that_dies_in_the_middle_of_a_call_is_transient(
        self, place_on_mongodb: Place, mongodb: MongoDB
    ) -> None:
        with place_on_mongodb.ledger() as ledger:
            me = living(ledger, "w-1")
            _, refused = refused_when(mongodb.kill, lambda n: ledger.claim(me, [new(f"r-{n}.{m}") for m in range(50)]))
            assert str(refused).startswith("mongodb: claiming: ")
            with pytest.raises(TransientError):
                ledger.read(["r-0.0"])
            mongodb.restart()
            assert patiently(lambda: claim_of(ledger, "r-0.0")).owner == me

    def test_a_server_that_stops_answering_is_transient_within_the_time_limit(
        self, mongodb: MongoDB, mongo_database: Database[dict[str, Any]]
    ) -> None:
        with connect(mongodb.url, timeout_s=0.5, selection_timeout_s=0.5) as client:
            ledger = MongoLedger(client[mongo_database.name])
            me = living(ledger, "w-1")
            mongodb.pause()
            begin = time.monotonic()
            for call in (
                lambda: ledger.heartbeat(me, 10, ["r-1"]),
                lambda: ledger.claim(me, [new("r-1")]),
                lambda: ledger.insert_outcomes([failed("r-1")]),
                lambda: ledger.take_over(me, Claim("r-1", None, None, me), lost_worker=False, blame=False),
            ):
                with pytest.raises(TransientError):
                    call()
            assert time.monotonic() - begin < 4 * 1.5
            mongodb.resume()
            patiently(lambda: ledger.heartbeat(me, 10, ()))

    @pytest.fixture
    def place_on_mongodb(self, request: pytest.FixtureRequest, tmp_path: Path) -> Place:
        return place_for("mongodb", request, tmp_path)


class Commands(CommandListener):
    def __init__(self) -> None:
        self.names: list[str] = []

    def started(self, event: CommandStartedEvent) -> None:
        self.names.append(event.command_name)

    def succeeded(self, event: object) -> None:
        pass

    def failed(self, event: object) -> None:
        pass
