"""Deep learning through the whole worker: how well it learns, and what a kill costs."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
from pymongo.database import Database

from pipeline.algorithms import catalogue
from tests.end_to_end.fleet import Fleet
from tests.end_to_end.test_fleet import request
from tests.end_to_end.troubles import progress
from tests.end_to_end.verdict import Verdict

DEEP = [name for name, entry in catalogue().items() if entry.framework]
AT_LEAST = {"torch_cnn": 0.97, "keras_cnn": 0.97, "torch_mlp": 0.95, "keras_dnn": 0.95}
"""Test accuracy on digits; the others are to beat 0.9."""


@pytest.mark.timeout(480)
def test_deep_networks_learn_the_digits(
    fleet: Fleet, verdict: Callable[..., Verdict], mongo_database: Database[dict[str, Any]]
) -> None:
    fleet.create_topics()
    fleet.start("w")
    for name in DEEP:
        fleet.submit(request(name, name, name, "digits"))
    fleet.await_lag(0, within_s=420)
    found = verdict()
    assert (found.violations, found.models) == ([], len(DEEP)), str(found)
    for name in DEEP:
        document = mongo_database["model_registry"].find_one({"model_name": name})
        assert document is not None, name
        assert document["metrics"]["test_accuracy"] >= AT_LEAST.get(name, 0.9), (name, document["metrics"])


@pytest.mark.timeout(480)
def test_epochs_that_are_done_are_not_done_again_after_a_kill_on_another_machine(
    fleet: Fleet, verdict: Callable[..., Verdict], mongo_database: Database[dict[str, Any]]
) -> None:
    epochs = 600
    fleet.create_topics(partitions=2)
    first = fleet.start("w0")
    for request_id in ("killed", "calm"):
        hyperparameters = {"epochs": epochs, "batch_size": 64}
        fleet.submit(request(request_id, "one-line", "torch_mlp", "digits", hyperparameters=hyperparameters))
    checkpoints = {"filename": {"$regex": "^~checkpoints/killed/"}}
    fleet.until(lambda: mongo_database["fs.files"].count_documents(checkpoints), 120)
    fleet.lose_machine(first)
    fleet.start("w1")
    fleet.await_log(["checkpoint found", '"killed"'])
    fleet.await_lag(0, within_s=240)
    found = verdict()
    assert (found.violations, found.models) == ([], 2), str(found)
    told = [event for event in progress(fleet, "killed") if event["message"].startswith("epoch ")]
    resumed = [int(re.findall(r"\d+", event["message"])[0]) for event in told if event["worker_id"] == "w1"]
    assert min(resumed, default=epochs) > 5
    killed, calm = (mongo_database["model_registry"].find_one({"version_number": number}) for number in (1, 2))
    assert killed is not None
    assert calm is not None
    assert killed["metrics"] == calm["metrics"]
    fleet.until(lambda: not mongo_database["fs.files"].count_documents({"filename": {"$regex": "^~checkpoints/"}}), 60)
