"""Who waits for whom: look-ahead and fairness among projects, on the real services."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pymongo.database import Database

from tests.end_to_end.fleet import Fleet, metric
from tests.end_to_end.test_fleet import request
from tests.end_to_end.troubles import trouble
from tests.end_to_end.verdict import Verdict
from tests.services.server import free_ports


@pytest.mark.timeout(240)
def test_no_more_than_look_ahead_is_read_and_all_of_it_is_done_in_the_end(
    fleet: Fleet, verdict: Callable[..., Verdict], mongo_database: Database[dict[str, Any]], tmp_path: Path
) -> None:
    """However much waits, what a worker holds is bounded, in the ledger as well."""
    fleet.create_topics()
    (port,) = free_ports(1)
    gate = tmp_path / "gate"
    fleet.submit(*(trouble(f"held-{n}", "until", path=str(gate), max_training_time_s=200) for n in range(2)))
    fleet.start("w", PORT=str(port), LOOK_AHEAD="50")
    for n in range(2):  # both lanes are taken before more comes
        fleet.await_log(["training started", f'"held-{n}"'])
    fleet.submit(*(request(f"r-{n}", f"m{n % 40}", "decision_tree", "iris") for n in range(200)))
    claims = mongo_database["training_requests"]
    fleet.until(lambda: claims.count_documents({}) >= 50, 60)
    fleet.until(lambda: metric(port, "ml_worker_intake_paused") == 1, 60)
    assert claims.count_documents({}) == 50
    (tmp_path / "gate.go").touch()
    held = 0.0
    while mongo_database["training_outcomes"].count_documents({}) < 202:
        held = max(held, metric(port, "ml_worker_unfinished_requests"))
        time.sleep(0.2)
    fleet.await_lag(0)
    assert 10 < held <= 50
    found = verdict()
    assert (found.violations, found.models) == ([], 202), str(found)


@pytest.mark.timeout(300)
def test_one_request_behind_a_flood_is_next_and_a_killed_worker_trains_no_more_than_it_had_in_hand_again(
    fleet: Fleet, verdict: Callable[..., Verdict], mongo_database: Database[dict[str, Any]], tmp_path: Path
) -> None:
    """In one partition, far beyond LOOK_AHEAD; the flood keeps its order all the same."""
    fleet.create_topics(partitions=1)
    (port,) = free_ports(1)
    gate = tmp_path / "gate"
    fleet.submit(*(trouble(f"held-{n}", "until", path=str(gate), max_training_time_s=200) for n in range(2)))
    worker = fleet.start("w", PORT=str(port), LOOK_AHEAD="40")
    for n in range(2):  # both lanes are taken before the flood comes
        fleet.await_log(["training started", f'"held-{n}"'])
    fleet.submit(*(request(f"flood-{n}", f"m{n % 7}", "decision_tree", "iris", project="big") for n in range(400)))
    fleet.submit(request("single", "m", "decision_tree", "iris", project="small"))
    claims, outcomes = mongo_database["training_requests"], mongo_database["training_outcomes"]
    fleet.until(lambda: claims.find_one({"request_id": "single"}), 60)
    assert claims.count_documents({}) == 41
    fleet.until(lambda: metric(port, "ml_worker_passed_over_requests") == 362, 60)
    (tmp_path / "gate.go").touch()
    fleet.until(lambda: outcomes.find_one({"request_id": "single"}), 60)
    single_at = (outcomes.find_one({"request_id": "single"}) or {})["at"]
    ahead = outcomes.count_documents({"request_id": {"$regex": "^flood"}, "at": {"$lt": single_at}})
    assert ahead < 40, ahead
    fleet.until(lambda: outcomes.count_documents({}) > 150, 60)
    worker.kill()
    stored = outcomes.count_documents({})
    fleet.start("w", PORT=str(port), LOOK_AHEAD="40")
    fleet.await_lag(0, within_s=120)
    found = verdict()
    assert found.violations == [], str(found)
    assert found.models == 403
    assert metric(port, 'ml_worker_models_trained_total{algorithm="decision_tree"}') == 403 - stored
