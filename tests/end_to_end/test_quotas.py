"""Quotas of projects on the real services."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

import orjson
import pytest
from pymongo.database import Database

from pipeline.registry.mongodb import MongoRegistry
from tests.end_to_end.fleet import Fleet
from tests.end_to_end.test_fleet import request
from tests.end_to_end.troubles import outcome, progress, trouble
from tests.end_to_end.verdict import Verdict

QUOTAS = orjson.dumps({"risk": {"models": 2}, "busy": {"trainings": 1}}).decode()


@pytest.mark.timeout(240)
def test_a_full_project_is_rejected_until_something_is_archived_and_others_are_not(
    fleet: Fleet, verdict: Callable[..., Verdict], mongo_database: Database[dict[str, Any]]
) -> None:
    fleet.create_topics()
    fleet.start("w", PROJECT_QUOTAS=QUOTAS)

    def ended(request_id: str, project: str) -> dict[str, Any]:
        fleet.submit(request(request_id, request_id, "decision_tree", "iris", project=project))
        fleet.until(lambda: outcome(mongo_database, request_id))
        fleet.await_lag(0)
        found = outcome(mongo_database, request_id)
        assert found is not None
        return found

    assert [ended(name, "risk")["kind"] for name in ("r1", "r2")] == ["REGISTERED", "REGISTERED"]
    full = ended("r3", "risk")
    assert (full["kind"], full["error"]["kind"]) == ("REJECTED", "QUOTA_EXCEEDED")
    assert full["error"]["message"].startswith("project risk has 2 of 2 models; archive some")
    assert ended("other", "other")["kind"] == "REGISTERED"
    MongoRegistry(mongo_database).archive("risk", "r1", 1, datetime.now(UTC))
    assert ended("r4", "risk")["kind"] == "REGISTERED"
    found = verdict()
    assert found.violations == [], str(found)
    assert (found.models, found.dead_letters) == (4, 1)


@pytest.mark.timeout(240)
def test_a_project_trains_as_many_at_once_as_it_may_while_others_go_on(
    fleet: Fleet, verdict: Callable[..., Verdict]
) -> None:
    fleet.create_topics()
    fleet.start("w", PROJECT_QUOTAS=QUOTAS, WORKER_CONCURRENCY="3")
    busy = [f"busy-{n}" for n in range(3)]
    fleet.submit(*(trouble(name, "hang", 2, project="busy") for name in busy), trouble("quiet", "hang", 2, project="q"))
    fleet.await_lag(0, within_s=120)
    spans = {}
    for name in (*busy, "quiet"):
        times = {event["state"]: event["occurred_at"] for event in progress(fleet, name)}
        spans[name] = (times["STARTED"], times["REGISTERED"])
    in_turn = sorted(spans[name] for name in busy)
    assert all(earlier[1] <= later[0] for earlier, later in pairwise(in_turn))
    assert spans["quiet"][0] < in_turn[0][1], "it did not wait for the busy project"
    found = verdict()
    assert found.violations == [], str(found)
