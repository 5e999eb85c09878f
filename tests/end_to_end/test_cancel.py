"""Cancel: in every state, from anywhere, and exactly one terminal event whoever wins."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import Any

import pytest
from pymongo.database import Database

from tests.end_to_end.fleet import Fleet
from tests.end_to_end.test_fleet import request
from tests.end_to_end.troubles import gauge, outcome, states, trouble
from tests.end_to_end.verdict import Verdict
from tests.services.s3 import S3
from tests.services.server import free_ports


@pytest.mark.timeout(300)
def test_a_cancel_stops_a_request_wherever_it_is_and_says_why_if_it_is_nowhere(
    fleet: Fleet,
    verdict: Callable[..., Verdict],
    mongo_database: Database[dict[str, Any]],
) -> None:
    fleet.create_topics(partitions=1)
    worker = fleet.start("w", WORKER_CONCURRENCY="1")

    def ended(request_id: str) -> str:
        fleet.until(lambda: outcome(mongo_database, request_id), 60)
        return str((outcome(mongo_database, request_id) or {})["kind"])

    # Before it was even polled.
    fleet.cancel("unpolled")
    fleet.await_log(['"cancel noted"', '"unpolled"'])
    fleet.submit(trouble("unpolled", "none"))
    assert ended("unpolled") == "CANCELLED"
    # In C code; fed behind it; ready; in its model's line.
    fleet.submit(trouble("runs", "hang", 600))
    fleet.await_log(["training started", '"runs"'])
    fleet.submit(*(trouble(f"waits-{n}", "hang", 600) for n in range(3)))
    fleet.submit(*(request(f"line-{n}", "m", "decision_tree", "iris") for n in range(2)))
    fleet.until(lambda: "ACCEPTED" in states(fleet, "line-1"), 60)
    for request_id in ("waits-2", "line-1", "waits-0", "waits-1"):
        fleet.cancel(request_id)
        assert ended(request_id) == "CANCELLED"
    fleet.cancel("runs")
    fleet.cancel("runs", reason="twice")
    assert ended("runs") == "CANCELLED"
    assert (outcome(mongo_database, "runs") or {})["error"]["message"] == "cancelled by ann: not needed"
    # What has ended stays as it is.
    assert ended("line-0") == "REGISTERED"
    fleet.await_lag(0)
    late = fleet.command("cancel", "line-0", "runs")
    assert (late.code, late.out.startswith("runs had been cancelled at 20")) == (1, True), late
    assert "line-0 was not stopped: it had ended as REGISTERED at 20" in late.error
    fleet.await_log(['"cancel came too late"', '"line-0"', '"REGISTERED"'])
    # While nobody has it, because its worker died.
    fleet.submit(trouble("orphan", "hang", 600))
    fleet.await_log(["training started", '"orphan"'])
    worker.kill()
    fleet.cancel("orphan")
    fleet.start("w")
    fleet.await_lag(0)
    assert ended("orphan") == "CANCELLED"
    found = verdict()
    assert found.violations == [], str(found)
    assert found.outcomes == {"CANCELLED": 7, "REGISTERED": 1}
    for request_id in ("unpolled", "waits-2", "line-1"):
        assert "STARTED" not in states(fleet, request_id)


@pytest.mark.timeout(240)
def test_a_cancel_reaches_a_training_whose_partition_is_another_workers(
    fleet: Fleet, verdict: Callable[..., Verdict], mongo_database: Database[dict[str, Any]]
) -> None:
    fleet.create_topics(partitions=4)
    fleet.start("w0", WORKER_CONCURRENCY="4")
    ids = [f"runs-{n}" for n in range(8)]
    fleet.submit(*(trouble(request_id, "hang", 600) for request_id in ids))
    fleet.until(lambda: sum("training started" in line for line in fleet.workers[0].lines()) == 4, 60)
    fleet.start("w1", WORKER_CONCURRENCY="4")
    fleet.until(lambda: any('"partitions":[' in line for line in fleet.workers[1].lines()), 60)
    for request_id in ids:
        fleet.cancel(request_id)
    fleet.until(lambda: mongo_database["training_outcomes"].count_documents({}) == 8, 60)
    fleet.await_lag(0)
    found = verdict()
    assert found.violations == [], str(found)
    assert found.outcomes == {"CANCELLED": 8}


@pytest.mark.timeout(240)
def test_a_cancel_wins_or_loses_against_the_end_of_its_training_exactly_once(
    fleet: Fleet, verdict: Callable[..., Verdict], mongo_database: Database[dict[str, Any]], s3: S3
) -> None:
    fleet.create_topics()
    (port,) = free_ports(1)
    fleet.start("w", PORT=str(port), ARTIFACT_GRIDFS_LIMIT="0")
    chosen = random.Random(4)
    for number in range(24):
        request_id = f"race-{number}"
        fleet.submit(trouble(request_id, "sleep", 0.1))
        fleet.await_log(["training started", f'"{request_id}"'])
        time.sleep(chosen.uniform(0.0, 0.15))  # the moments around its end
        fleet.cancel(request_id)
    fleet.await_lag(0)
    found = verdict()
    assert found.violations == [], str(found)
    assert found.outcomes["REGISTERED"] + found.outcomes["CANCELLED"] == 24
    # While its model is on the way to its store, the model counts.
    s3.pause()
    fleet.submit(request("stores", "stores", "decision_tree", "iris"))
    fleet.until(lambda: "REGISTERING" in states(fleet, "stores"), 60)
    late = gauge(port, 'ml_worker_cancels_total{result="late"}')
    fleet.cancel("stores")
    fleet.until(lambda: gauge(port, 'ml_worker_cancels_total{result="late"}') == late + 1, 60)
    s3.resume()
    fleet.await_lag(0)
    assert (outcome(mongo_database, "stores") or {})["kind"] == "REGISTERED"
    found = verdict()
    assert found.violations == [], str(found)
