"""What comes out of the worker is what plain scikit-learn gives, to the last digit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from pymongo.database import Database

from pipeline.algorithms import catalogue
from tests import plain
from tests.end_to_end.fleet import Fleet
from tests.end_to_end.test_fleet import request
from tests.end_to_end.verdict import Verdict
from tests.training_data import QUICK

ALGORITHMS = [name for name, entry in catalogue().items() if not entry.framework]


@pytest.mark.timeout(240)
def test_every_algorithm_through_the_whole_worker_equals_plain_scikit_learn(
    fleet: Fleet, verdict: Callable[..., Verdict], mongo_database: Database[dict[str, Any]]
) -> None:
    fleet.create_topics()
    fleet.start("w")
    for name in ALGORITHMS:
        dataset = "diabetes" if catalogue()[name].task == "regression" else "wine"
        fleet.submit(request(name, name, name, dataset, hyperparameters=QUICK.get(name, {})))
    fleet.await_lag(0, within_s=120)
    found = verdict()
    assert (found.violations, found.models) == ([], len(ALGORITHMS)), str(found)
    for name in ALGORITHMS:
        document = mongo_database["model_registry"].find_one({"model_name": name})
        assert document is not None, name
        expected = plain.metrics(name, QUICK.get(name, {}))
        assert {metric: document["metrics"][metric] for metric in expected} == expected, name
