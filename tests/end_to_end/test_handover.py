"""Requests change hands: workers come and go, are stopped and go on, and nothing is trained or announced twice."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from pymongo.database import Database

from pipeline.jobs import TrainingRequest
from tests.end_to_end.fleet import Fleet, WorkerProcess
from tests.end_to_end.test_fleet import request
from tests.end_to_end.troubles import gauge, outcome, states, trouble
from tests.end_to_end.verdict import Verdict
from tests.services.kafka import Kafka
from tests.services.mongodb import MongoDB
from tests.services.server import free_ports

LONG_S = float(os.environ.get("TENSORFLEET_TEST_LONG_S", "25"))
LONG_COUNT = int(os.environ.get("TENSORFLEET_TEST_LONG_COUNT", "1"))
"""How long the long trainings take, and how many there are at once; the poll interval is 10 s."""

WAYS = {
    "static": {
        "KAFKA_STATIC_MEMBERSHIP": "true",
        "KAFKA_SESSION_TIMEOUT_MS": "45000",
        "KAFKA_MAX_POLL_INTERVAL_MS": "60000",
    },
    "dynamic": {},
    "kip-848": {"KAFKA_GROUP_PROTOCOL": "consumer"},
}


def mixed(number: int) -> TrainingRequest:
    """Of ten requests nine take a tenth of a second, and one so long that a drain waits for it."""
    mode, seconds = ("hang", 4) if number % 10 == 5 else ("sleep", 0.1)
    hyperparameters = {"mode": mode, "seconds": seconds}
    return request(f"r-{number}", f"m{number % 48}", "troublesome", "iris", hyperparameters=hyperparameters)


def blamed(database: Database[dict[str, Any]]) -> list[str]:
    """Requests under which a worker is said to have died."""
    return [claim["_id"] for claim in database["training_requests"].find({"worker_losses": {"$gt": 0}})]


@pytest.mark.timeout(LONG_S + 240)
def test_long_trainings_are_neither_evicted_nor_repeated_when_a_worker_joins_and_leaves(
    fleet: Fleet, verdict: Callable[..., Verdict], mongo_database: Database[dict[str, Any]]
) -> None:
    fleet.create_topics(partitions=4)
    fleet.start("w0", WORKER_CONCURRENCY=str(LONG_COUNT + 1), MAX_TRAINING_MEMORY="1GiB")
    long = [f"long-{n}" for n in range(LONG_COUNT)]
    fleet.submit(*(trouble(request_id, "hang", LONG_S, max_training_time_s=LONG_S + 60) for request_id in long))
    for request_id in long:
        fleet.await_log(["training started", f'"{request_id}"'])
    fleet.start("w1")
    fleet.submit(*(request(f"short-{n}", f"m{n}", "decision_tree", "iris") for n in range(12)))
    fleet.until(lambda: mongo_database["model_registry"].count_documents({}) == 12, 120)
    fleet.until(fleet.workers[1].partitions)
    assert fleet.workers[1].drain() == 0
    fleet.start("w2")
    fleet.await_lag(0, within_s=LONG_S + 120)
    found = verdict()
    assert found.violations == [], str(found)
    assert (found.models, found.trainings_repeated) == (LONG_COUNT + 12, 0)
    assert {(outcome(mongo_database, request_id) or {})["worker_id"] for request_id in long} == {"w0"}
    assert not any("evicted" in line for worker in fleet.workers for line in worker.lines())


@pytest.mark.timeout(240)
def test_a_drained_workers_running_training_is_finished_by_it_and_announced_by_the_others(
    fleet: Fleet, verdict: Callable[..., Verdict], mongo_database: Database[dict[str, Any]], tmp_path: Path
) -> None:
    fleet.create_topics(partitions=2)
    first = fleet.start("w0", WORKER_CONCURRENCY="1")
    fleet.submit(trouble("runs", "until", path=str(tmp_path / "flag")))
    fleet.await_log(["training started", '"runs"'])
    fleet.submit(*(request(f"waits-{n}", f"m{n}", "decision_tree", "iris") for n in range(10)))
    fleet.until(lambda: "ACCEPTED" in states(fleet, "waits-9"), 60)
    fleet.until(fleet.start("w1").partitions)
    first.process.terminate()
    fleet.until(lambda: fleet.members() == 1)
    fleet.until(lambda: outcome(mongo_database, "waits-9"), 60)
    assert first.process.poll() is None
    (tmp_path / "flag.go").touch()
    assert first.process.wait(30) == 0
    fleet.await_lag(0)
    found = verdict()
    assert found.violations == [], str(found)
    assert (found.models, found.trainings_repeated) == (11, 0)
    assert outcome(mongo_database, "runs")["worker_id"] == "w0"  # type: ignore[index]
    assert outcome(mongo_database, "waits-9")["worker_id"] == "w1"  # type: ignore[index]
    assert all(claim.get("worker_losses", 0) == 0 for claim in mongo_database["training_requests"].find())


@pytest.mark.timeout(240)
def test_what_a_drained_worker_was_about_to_claim_is_handed_back_and_blames_nobody(
    fleet: Fleet, verdict: Callable[..., Verdict], mongo_database: Database[dict[str, Any]], mongodb: MongoDB
) -> None:
    fleet.create_topics()
    (port,) = free_ports(1)
    first = fleet.start("w0", PORT=str(port))
    fleet.until(first.partitions)
    mongodb.pause()
    try:
        fleet.submit(*(request(f"r-{n}", f"m{n}", "decision_tree", "iris") for n in range(5)))
        fleet.until(lambda: gauge(port, "ml_worker_unfinished_requests") == 5)
        first.process.terminate()
        fleet.await_log(["draining"])
    finally:
        mongodb.resume()
    assert first.process.wait(60) == 0
    fleet.start("w1")
    fleet.await_lag(0)
    found = verdict()
    assert (found.violations, found.models) == ([], 5), str(found)
    assert blamed(mongo_database) == []


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.timeout(300)
def test_a_rolling_restart_under_load_repeats_nothing_and_blames_nobody(
    fleet: Fleet, verdict: Callable[..., Verdict], mongo_database: Database[dict[str, Any]], way: str
) -> None:
    fleet.create_topics(partitions=12)
    workers = {f"w{number}": fleet.start(f"w{number}", **WAYS[way]) for number in range(3)}
    fleet.until(lambda: all(len(worker.partitions()) == 4 for worker in workers.values()))
    with fleet.load(mixed, every_s=0.2):
        for worker_id, worker in workers.items():
            others = [other for other in workers.values() if other is not worker]
            noticed = sum(len(other.rebalances()) for other in others)
            assert worker.drain() == 0
            workers[worker_id] = fleet.start(worker_id, **WAYS[way])
            fleet.until(workers[worker_id].partitions)
            assert way != "static" or sum(len(other.rebalances()) for other in others) == noticed
    fleet.await_lag(0)
    found = verdict()
    assert (found.violations, found.trainings_repeated) == ([], 0), str(found)
    assert found.models == found.requests
    assert blamed(mongo_database) == []


@pytest.mark.timeout(240)
def test_a_static_member_that_was_killed_goes_on_when_it_is_back_and_the_others_do_not_notice(
    fleet: Fleet, verdict: Callable[..., Verdict], mongo_database: Database[dict[str, Any]], tmp_path: Path
) -> None:
    fleet.create_topics(partitions=4)
    settings = {**WAYS["static"], "WORKER_CONCURRENCY": "8"}
    first, second = (fleet.start(worker_id, **settings) for worker_id in ("w0", "w1"))
    fleet.until(lambda: len(first.partitions()) == len(second.partitions()) == 2)
    gate = tmp_path / "gate"
    held = [f"held-{n}" for n in range(8)]
    fleet.submit(*(trouble(request_id, "until", path=str(gate)) for request_id in held))
    for request_id in held:
        fleet.await_log(["training started", f'"{request_id}"'])
    mine = [request_id for request_id in held if started(first, request_id)]
    assert mine
    fleet.until(lambda: all("STARTED" in states(fleet, request_id) for request_id in mine))  # counted by their events
    noticed = len(second.rebalances())
    first.kill()
    again = fleet.start("w0", **settings)
    fleet.until(lambda: all(started(again, request_id) for request_id in mine))
    (tmp_path / "gate.go").touch()
    fleet.await_lag(0)
    found = verdict()
    assert (found.violations, found.models, found.trainings_repeated) == ([], 8, len(mine)), str(found)
    assert len(second.rebalances()) == noticed
    assert again.partitions() == first.partitions()


def started(worker: WorkerProcess, request_id: str) -> bool:
    return any("training started" in line and f'"{request_id}"' in line for line in worker.lines())


@pytest.mark.parametrize("way", ["dynamic", "kip-848"])
@pytest.mark.timeout(300)
def test_a_group_that_grows_from_one_worker_to_eight_and_shrinks_to_one_repeats_nothing(
    fleet: Fleet, verdict: Callable[..., Verdict], mongo_database: Database[dict[str, Any]], tmp_path: Path, way: str
) -> None:
    fleet.create_topics(partitions=24)
    fleet.start("w0", **WAYS[way])
    fleet.submit(trouble("long", "until", path=str(tmp_path / "gate"), max_training_time_s=300))
    fleet.await_log(["training started", '"long"'])
    with fleet.load(mixed, every_s=0.2):
        more = [fleet.start(f"w{number}", WORKER_CONCURRENCY="1", **WAYS[way]) for number in range(1, 8)]
        fleet.until(lambda: len(mongo_database["training_outcomes"].distinct("worker_id")) == 8, 120)
        for worker in more:
            worker.process.terminate()
        fleet.until(lambda: fleet.members() == 1)
        assert [worker.process.wait(60) for worker in more] == [0] * 7
    (tmp_path / "gate.go").touch()
    fleet.await_lag(0)
    found = verdict()
    assert (found.violations, found.trainings_repeated) == ([], 0), str(found)
    assert found.models == found.requests
    assert (outcome(mongo_database, "long") or {})["worker_id"] == "w0"
    assert blamed(mongo_database) == []


@pytest.mark.parametrize(
    ("way", "others", "beyond_its_lease"),
    [("dynamic", 0, False), ("dynamic", 1, True), ("kip-848", 1, False), ("kip-848", 0, True)],
    ids=["alone", "beside-another-and-beyond-its-lease", "kip-848-beside-another", "kip-848-beyond-its-lease"],
)
@pytest.mark.timeout(240)
def test_partitions_lost_and_regained_with_announcements_pending_announce_them_once(
    fleet: Fleet,
    verdict: Callable[..., Verdict],
    mongo_database: Database[dict[str, Any]],
    kafka: Kafka,
    tmp_path: Path,
    way: str,
    others: int,
    beyond_its_lease: bool,
) -> None:
    """The broker stands still while trainings end, and the worker then stands still until the group is rid of it."""
    fleet.create_topics(partitions=6)
    first = fleet.start("w0", WORKER_CONCURRENCY="5", **WAYS[way])
    pending = [f"pending-{n}" for n in range(4)]
    fleet.submit(
        *(trouble(request_id, "until", path=str(tmp_path / "pending")) for request_id in pending),
        trouble("runs", "until", path=str(tmp_path / "runs")),
    )
    for request_id in (*pending, "runs"):
        fleet.await_log(["training started", f'"{request_id}"'])
    if others:
        second = fleet.start("w1", **WAYS[way])
        fleet.until(lambda: len(second.partitions()) == 3)

    def alive_until() -> datetime:
        row = mongo_database["workers"].find_one({"_id": "w0"})
        assert row is not None
        until: datetime = row["alive_until"]
        return until.replace(tzinfo=UTC)

    extended = alive_until()
    fleet.until(lambda: alive_until() > extended)
    kafka.pause()
    try:
        (tmp_path / "pending.go").touch()
        fleet.until(lambda: all(outcome(mongo_database, request_id) for request_id in pending))
        first.process.send_signal(signal.SIGSTOP)
    finally:
        kafka.resume()
    fleet.until(lambda: fleet.members() == others)
    if beyond_its_lease:
        fleet.until(lambda: alive_until() < datetime.now(UTC))
        if others:
            fleet.until(lambda: started(fleet.workers[1], "runs"))
    first.process.send_signal(signal.SIGCONT)
    fleet.until(lambda: fleet.members() == others + 1)
    (tmp_path / "runs.go").touch()
    fleet.await_lag(0)
    found = verdict()
    repeated = 1 if others and beyond_its_lease else 0
    assert (found.violations, found.models, found.trainings_repeated) == ([], 5, repeated), str(found)
