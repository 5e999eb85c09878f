"""Limits that hold, whatever a training does; and services that hang."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pytest
from pymongo.database import Database

from pipeline.datasets.mongodb import MongoSource
from tests.disks import fill, small_disk
from tests.end_to_end.fleet import Fleet, WorkerProcess
from tests.end_to_end.test_fleet import request
from tests.end_to_end.troubles import gauge, lives, outcome, progress, states, trouble
from tests.end_to_end.verdict import Verdict
from tests.services.kafka import Kafka
from tests.services.mongodb import MongoDB
from tests.services.s3 import S3
from tests.services.server import Service, free_ports

HANG_S = 8.0
DRAIN_S = 5.0
ENDS_WITHIN_S = DRAIN_S + 30.0
"""After SIGTERM, whatever hangs."""


def _is_gone(pid: str) -> bool:
    return not Path(f"/proc/{pid}").exists()


@pytest.mark.timeout(300)
def test_trainings_that_exceed_a_limit_or_crash_end_and_the_worker_goes_on(
    fleet: Fleet, verdict: Callable[..., Verdict], mongo_database: Database[dict[str, Any]], tmp_path: Path
) -> None:
    fleet.create_topics()
    worker = fleet.start("w", MAX_TRAINING_MEMORY="600MiB")
    fleet.submit(
        trouble("slow", "hang", 60, max_training_time_s=2),
        trouble("deaf", "deaf", 60, max_training_time_s=2),
        trouble("chatter", "chatter", 60, max_training_time_s=2),
        trouble("daemon", "daemon", 60, path=str(tmp_path / "daemon"), max_training_time_s=3),
        trouble("fat", "swell"),
        trouble("fat-outside", "swell_outside"),
        trouble("fat-grandchild", "swell_in_a_grandchild"),
        trouble("crash", "segfault"),
        trouble("closes", "close_all", 60),
        trouble("babbles", "babble", 60),
        trouble("error", "raise"),
        trouble("leaks", "leak", path=str(tmp_path / "leaks")),
        trouble("leaves", "leave_running", path=str(tmp_path / "leaves")),
        trouble("threads", "spin", 2),
        request("after", "after", "decision_tree", "iris"),
    )
    fleet.await_lag(0, within_s=200)
    found = verdict()
    assert found.violations == [], str(found)
    kinds = {
        d["request_id"]: (d["kind"], (d["error"] or {}).get("kind")) for d in mongo_database["training_outcomes"].find()
    }
    timed_out, out_of_memory = ("TIMED_OUT", "TIME_LIMIT"), ("FAILED", "OUT_OF_MEMORY")
    crashed, registered = ("FAILED", "TRAINER_CRASHED"), ("REGISTERED", None)
    assert kinds == {
        **dict.fromkeys(("slow", "deaf", "chatter", "daemon"), timed_out),
        **dict.fromkeys(("fat", "fat-outside", "fat-grandchild"), out_of_memory),
        **dict.fromkeys(("crash", "closes", "babbles"), crashed),
        "error": ("FAILED", "TRAINING_ERROR"),
        **dict.fromkeys(("leaks", "leaves", "threads", "after"), registered),
    }
    events = {event["state"]: event["occurred_at"] for event in progress(fleet, "slow")}
    overshoot_s = (events["TIMED_OUT"] - events["STARTED"]).total_seconds() - 2
    assert 0 <= overshoot_s < 2, overshoot_s
    assert outcome(mongo_database, "crash")["attempt"] == 3  # type: ignore[index]
    assert states(fleet, "crash").count("RETRYING") == 2
    for left in ("daemon", "leaves"):
        fleet.until(partial(_is_gone, (tmp_path / left).read_text()), 60)
    assert not [path for path in (tmp_path / "spool-w" / "w" / "1").rglob("*") if path.is_file()]
    said = [orjson.loads(line) for line in worker.lines()]
    chatter = [line for line in said if line.get("source") == "trainer" and line["request_id"] == "chatter"]
    assert 10 < len(chatter) < 200


@pytest.mark.timeout(240)
def test_a_dataset_that_no_training_can_hold_is_rejected_before_a_trainer_is_fed(
    fleet: Fleet, verdict: Callable[..., Verdict], mongo_database: Database[dict[str, Any]]
) -> None:
    rows = 20_000
    columns = {f"x{n}": pa.array(np.random.default_rng(n).random(rows)) for n in range(50)}
    MongoSource(mongo_database).add("wide", pa.table({**columns, "y": pa.array(np.arange(rows) % 2)}), "y")
    fleet.create_topics()
    fleet.start("w")
    fleet.submit(
        request("small-limit", "a", "naive_bayes", "wide", max_memory_bytes=2**24),
        request("enough", "b", "naive_bayes", "wide"),
    )
    fleet.await_lag(0, within_s=120)
    found = verdict()
    assert found.violations == [], str(found)
    rejected = outcome(mongo_database, "small-limit") or {}
    assert (rejected["kind"], rejected["error"]["kind"]) == ("REJECTED", "INVALID_REQUEST")
    assert "20,000 rows and 7.8 MiB in memory" in rejected["error"]["message"]
    assert "it may use 16.0 MiB (max_memory_bytes)" in rejected["error"]["message"]
    assert (outcome(mongo_database, "enough") or {})["kind"] == "REGISTERED"
    assert "STARTED" not in {event["state"] for event in progress(fleet, "small-limit")}


def _has_ended_or_is_known(worker: WorkerProcess, database: Database[dict[str, Any]]) -> bool:
    return bool(worker.process.poll()) or outcome(database, "killer") is not None


@pytest.mark.timeout(300)
def test_a_request_that_kills_its_workers_is_a_dead_letter_and_those_beside_it_are_not_blamed(
    fleet: Fleet, verdict: Callable[..., Verdict], mongo_database: Database[dict[str, Any]]
) -> None:
    fleet.create_topics(partitions=1)
    fleet.submit(
        trouble("killer", "kill_worker"),
        *(trouble(f"beside-{n}", "sleep", 0.3) for n in range(8)),
    )
    lives_spent = 0
    while outcome(mongo_database, "killer") is None:
        worker = fleet.start("w", MAX_WORKER_LOSSES="3")
        fleet.until(partial(_has_ended_or_is_known, worker, mongo_database), 120)
        lives_spent += worker.process.poll() is not None
        assert lives_spent <= 3
    fleet.await_lag(0)
    found = verdict()
    assert found.violations == [], str(found)
    assert (lives_spent, found.models, found.dead_letters) == (3, 8, 1)
    killer = outcome(mongo_database, "killer") or {}
    assert (killer["kind"], killer["error"]["kind"]) == ("FAILED", "WORKER_LOST")
    assert (
        killer["error"]["message"] == "3 workers died with this request in hand, the most allowed (MAX_WORKER_LOSSES)"
    )
    losses = {c["request_id"]: c.get("worker_losses", 0) for c in mongo_database["training_requests"].find()}
    assert losses.pop("killer") == 3
    assert max(losses.values()) < 3, losses


@pytest.mark.timeout(240)
def test_a_full_disk_costs_waiting_and_one_that_a_training_fills_by_itself_costs_its_attempts(
    fleet: Fleet, verdict: Callable[..., Verdict], mongo_database: Database[dict[str, Any]], tmp_path: Path
) -> None:
    (port,) = free_ports(1)
    spool, ballast = tmp_path / "spool-w", tmp_path / "spool-w" / "ballast"
    fleet.create_topics()
    with small_disk(spool, 2**23):
        worker = fleet.start("w", PORT=str(port))
        fleet.await_log(["worker started"])
        fill(ballast)
        fleet.submit(*(request(f"r-{n}", f"m-{n}", "decision_tree", "iris") for n in range(6)))
        fleet.submit(trouble("stopped", "none"))
        fleet.await_log(['"service away"', '"disk"'])
        fleet.until(lambda: "ACCEPTED" in states(fleet, "stopped"), 60)
        assert gauge(port, 'ml_worker_breaker_open{service="disk"}') == 1
        for request_id in ("r-0", "stopped"):  # one waits for room, one for its turn
            fleet.cancel(request_id)
            fleet.until(partial(outcome, mongo_database, request_id), 60)
        assert mongo_database["training_outcomes"].count_documents({}) == 2
        assert lives(port)
        ballast.unlink()
        fleet.await_lag(0)
        assert gauge(port, 'ml_worker_breaker_open{service="disk"}') == 0
        fleet.submit(trouble("giant", "fill_disk"))
        fleet.await_lag(0)
        found = verdict()
        assert worker.drain() == 0
    assert found.violations == [], str(found)
    assert found.outcomes == {"REGISTERED": 5, "CANCELLED": 2, "FAILED": 1}
    registered = mongo_database["training_outcomes"].find({"kind": "REGISTERED"})
    assert {document["attempt"] for document in registered} == {1}
    giant = outcome(mongo_database, "giant") or {}
    assert (giant["error"]["kind"], giant["attempt"]) == ("TRAINER_CRASHED", 3)
    assert "No space left on device" in giant["error"]["message"]
    assert sum('"service away"' in line for line in worker.lines()) == 1


@pytest.mark.timeout(300)
@pytest.mark.parametrize("delivery", ["exactly-once", "at-least-once"])
def test_a_service_that_hangs_neither_stops_the_worker_nor_holds_its_end_up(
    fleet: Fleet,
    verdict: Callable[..., Verdict],
    mongodb: MongoDB,
    s3: S3,
    kafka: Kafka,
    delivery: str,
) -> None:
    (port,) = free_ports(1)
    settings = {"PORT": str(port), "ARTIFACT_GRIDFS_LIMIT": "0", "DRAIN_TIMEOUT": str(DRAIN_S), "DELIVERY": delivery}
    services: dict[str, Service] = {"mongodb": mongodb, "s3": s3, "kafka": kafka}
    fleet.create_topics(partitions=4)
    fleet.start("w", **settings)
    took_s = {}
    for name, service in services.items():
        fleet.submit(*(request(f"{name}-{n}", f"m-{n % 4}", "decision_tree", "iris") for n in range(20)))
        fleet.until(partial(fleet.workers[-1].has_said, f'"{name}-0"'), 60)
        service.pause()
        until = time.monotonic() + HANG_S  # a hang has a length
        while time.monotonic() < until:
            assert lives(port)
            time.sleep(0.5)
        begun = time.monotonic()
        assert fleet.workers[-1].drain(within_s=90) == 0
        took_s[name] = time.monotonic() - begun
        service.resume()
        fleet.start("w", **settings)
        fleet.await_lag(0, within_s=120)
    assert max(took_s.values()) < ENDS_WITHIN_S, took_s
    found = verdict(may_repeat=delivery == "at-least-once")
    assert found.violations == [], str(found)
    assert found.models == 60
