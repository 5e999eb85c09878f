"""The whole way of many requests through several workers, judged from outside."""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pandas as pd
import pytest
from pymongo.database import Database

from pipeline.jobs import TrainingRequest
from tests.end_to_end.fleet import Fleet
from tests.end_to_end.verdict import Verdict

ALGORITHMS: dict[str, dict[str, Any]] = {
    "decision_tree": {"max_depth": 5},
    "logistic_regression": {"max_iter": 300},
    "random_forest": {"n_estimators": 20},
    "svm": {"C": 2.0},
    "neural_network": {"max_iter": 30, "hidden_layer_sizes": [16]},
}
DATASETS = ("iris", "wine", "breast_cancer", "people")


def request(request_id: str, model_name: str, algorithm: str, dataset: str, **more: Any) -> TrainingRequest:
    return TrainingRequest(
        request_id,
        f"job-{model_name}",
        algorithm,
        dataset,
        model_name=model_name,
        requested_at=datetime.now(UTC),
        **more,
    )


def good_requests(count: int, models: int, seed: int) -> list[TrainingRequest]:
    """A mix of all algorithms and datasets; deterministic."""
    chosen = random.Random(seed)
    made = []
    for number in range(count):
        algorithm = chosen.choice(sorted(ALGORITHMS))
        dataset = chosen.choice(DATASETS)
        model = f"model-{number % models}"
        hyperparameters = ALGORITHMS[algorithm]
        made.append(request(f"good-{number}", model, algorithm, dataset, hyperparameters=hyperparameters))
    return made


def bad_requests() -> list[TrainingRequest]:
    """Ten that can be read, each wrong in its own way."""
    return [
        request("bad-algorithm", "model-0", "random_forrest", "iris"),
        request("bad-hyperparameter", "model-1", "svm", "iris", hyperparameters={"CC": 1.0}),
        request("bad-range", "model-2", "random_forest", "iris", hyperparameters={"n_estimators": 0}),
        request("bad-refused", "model-3", "random_forest", "iris", hyperparameters={"n_jobs": 4}),
        request("bad-dataset", "model-4", "svm", "iriss"),
        request("bad-target", "model-5", "svm", "iris", target_column="specie"),
        request("bad-feature", "model-6", "svm", "iris", features=("sepal length", "nose length")),
        request("bad-name", "../../etc", "svm", "iris"),
        request("bad-slash", "a/b", "svm", "iris"),
        request("bad-regression", "model-7", "svm", "diabetes"),
    ]


def seed_people(database: Database[dict[str, Any]]) -> None:
    """A collection whose documents are the rows, with text, missing values and a date."""
    chosen = random.Random(1)
    rows = []
    for number in range(200):
        old = chosen.random() < 0.5
        rows.append(
            {
                "age": None if chosen.random() < 0.1 else chosen.gauss(60 if old else 30, 8),
                "town": chosen.choice(["Ulm", "Graz", None] if old else ["Ulm", "Basel"]),
                "member": chosen.random() < 0.5,
                "since": datetime(2020 + number % 5, 1 + number % 12, 3, tzinfo=UTC),
                "group": "senior" if old else "junior",
            }
        )
    database["people"].insert_many(rows)


@pytest.mark.parametrize("killed", [False, True], ids=["calm", "kill-9"])
@pytest.mark.timeout(700)
def test_every_request_has_one_outcome_and_every_model_its_versions(
    fleet: Fleet,
    verdict: Callable[..., Verdict],
    mongo_database: Database[dict[str, Any]],
    killed: bool,
) -> None:
    seed_people(mongo_database)
    fleet.create_topics(partitions=12)
    workers = [fleet.start(f"w{number}") for number in range(3)]
    good = good_requests(280, models=20, seed=7)
    cancelled = [
        request(
            f"cancel-{n}", f"cancelled-{n}", "troublesome", "iris", hyperparameters={"mode": "hang", "seconds": 3000}
        )
        for n in range(5)
    ]
    fleet.submit(*good[:140], *cancelled, *bad_requests(), *good[140:])
    for value in (b"no avro", b'{"json": true}', b"", None, b"\x00\x00\x00\x00\x07xyz"):
        fleet.put(b"k", value)
    fleet.flush()
    for one in cancelled:
        fleet.cancel(one.request_id)
    if killed:
        fleet.until(lambda: mongo_database["model_registry"].count_documents({}) >= 60, 240)
        workers[1].kill()
        fleet.start("w1")
    fleet.await_lag(0, within_s=300)
    found = verdict()
    assert found.violations == [], str(found)
    assert found.requests == 295
    assert found.dead_letters == 15
    assert found.outcomes == {"REGISTERED": 280, "REJECTED": 10, "CANCELLED": 5}


def test_a_stored_model_scores_raw_rows(fleet: Fleet, mongo_database: Database[dict[str, Any]], tmp_path: Any) -> None:
    from pipeline.artifacts.gridfs import GridFSStore
    from pipeline.model_files import model_file

    seed_people(mongo_database)
    fleet.create_topics()
    fleet.start("w")
    fleet.submit(request("r", "people", "random_forest", "people"))
    fleet.await_lag(0)
    document = mongo_database["model_registry"].find_one({"request_id": "r"})
    assert document is not None
    path = tmp_path / "model.zip"
    GridFSStore(mongo_database).fetch(document["artifact_uri"], path)
    model = model_file.load(path, document["artifact_sha256"])
    rows = pd.DataFrame(
        {
            "age": [70.0, 25.0, None],
            "town": ["Graz", "Basel", "Atlantis"],
            "member": [True, False, None],
            "since": pd.to_datetime(pd.Index(["2021-05-01", None, "2022-07-01"]), utc=True),
        }
    )
    labels = list(model.predict(rows).labels)
    assert labels[:2] == ["senior", "junior"]
    assert labels[2] in ("senior", "junior")


def test_a_request_seen_twice_trains_once_and_other_content_is_a_conflict(
    fleet: Fleet, verdict: Callable[..., Verdict]
) -> None:
    fleet.create_topics()
    fleet.start("w")
    first = request("same", "model", "decision_tree", "iris")
    other = request("same", "model", "decision_tree", "wine")
    fleet.submit(first, first)
    fleet.await_lag(0)
    fleet.submit(first, other)
    fleet.await_lag(0)
    found = verdict()
    assert found.violations == [], str(found)
    assert (found.models, found.dead_letters, found.trainings_repeated) == (1, 1, 0)


def test_resetting_the_groups_offsets_announces_again_with_the_same_event_ids(
    fleet: Fleet, mongo_database: Database[dict[str, Any]], kafka: Any
) -> None:
    from schemas import RecordType
    from tests.end_to_end.evidence import decode, read_topic

    seed_people(mongo_database)
    fleet.create_topics()
    worker = fleet.start("w")
    fleet.submit(*good_requests(6, models=3, seed=1)[:3], request("no", "m", "nonsense", "iris"))
    fleet.await_lag(0)
    worker.drain()
    again = fleet.start("w", KAFKA_GROUP_ID=fleet.prefix + "another")
    fleet.await_log(["worker started"])
    topic = f"{fleet.prefix}model-registered"
    fleet.until(lambda: len(read_topic(kafka.bootstrap_servers, topic)) >= 6 or again.process.poll(), 60)
    ids = [
        decode(r.value(), RecordType.MODEL_REGISTERED)["event_id"] for r in read_topic(kafka.bootstrap_servers, topic)
    ]
    assert len(ids) == 6
    assert len(set(ids)) == 3
    assert mongo_database["model_registry"].count_documents({}) == 3
