"""A request that may reuse an equal training's result gets it as a version of its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pymongo.database import Database

from tests.end_to_end.fleet import Fleet
from tests.end_to_end.test_fleet import request
from tests.end_to_end.troubles import progress
from tests.end_to_end.verdict import Verdict


def test_an_equal_training_is_not_done_again_where_the_request_says_so(
    fleet: Fleet, verdict: Callable[..., Verdict], mongo_database: Database[dict[str, Any]]
) -> None:
    fleet.create_topics()
    fleet.start("w")
    fleet.submit(request("first", "flowers", "random_forest", "iris"))
    fleet.await_lag(0, within_s=60)
    fleet.submit(request("again", "petals", "random_forest", "iris", reuse=True, tags={"team": "b"}))
    fleet.submit(request("other", "petals", "random_forest", "iris", reuse=True, seed=1))
    fleet.submit(request("elsewhere", "petals", "random_forest", "iris", reuse=True, project="p"))
    fleet.submit(request("plain", "petals", "random_forest", "iris"))
    fleet.await_lag(0, within_s=60)
    found = verdict()
    assert (found.violations, found.models) == ([], 5), str(found)
    models = {row["request_id"]: row for row in mongo_database["model_registry"].find()}
    trained = {i for i in models if any(event["state"] == "TRAINING" for event in progress(fleet, i))}
    assert trained == {"first", "other", "elsewhere", "plain"}
    assert models["again"]["reused_from"] == "flowers@v1"
    assert {i: row["reused_from"] for i, row in models.items() if i != "again"} == dict.fromkeys(trained)
    same = ("artifact_uri", "artifact_sha256", "metrics", "hyperparameters", "training_time")
    assert {name: models["again"][name] for name in same} == {name: models["first"][name] for name in same}
    assert (models["again"]["tags"], models["again"]["version"]) == ({"team": "b"}, "v1")
