"""What makes two trainings the same, and what does not."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from pipeline.datasets import Dataset
from pipeline.jobs import Evaluation, Search, SearchDimension, TrainingRequest
from pipeline.training.reuse_key import reuse_key
from tests.training_data import request

IRIS = Dataset("iris", "f1", None, "species")
MACHINE = {"threads": "1"}
SPACE = (SearchDimension("max_depth", values=(1, 2)),)


def of(asked: TrainingRequest, dataset: Dataset = IRIS, machine: dict[str, str] = MACHINE) -> str:
    return reuse_key(asked, dataset, machine)


@pytest.mark.parametrize(
    "change",
    [
        {"request_id": "other"},
        {"model_name": "other", "job_name": "other"},
        {"user": "ada", "tags": {"a": "b"}},
        {"max_training_time_s": 10.0, "max_memory_bytes": 2**30, "reuse": True},
        {"target_column": "species"},
        {"hyperparameters": {"criterion": "gini"}},
    ],
)
def test_who_asks_and_what_is_the_default_anyway_is_of_no_matter(change: dict[str, Any]) -> None:
    assert of(replace(request(), **change)) == of(request())


@pytest.mark.parametrize(
    "change",
    [
        {"algorithm": "svm"},
        {"hyperparameters": {"max_depth": 3}},
        {"seed": 1},
        {"target_column": "petal width"},
        {"features": ("petal width",)},
        {"evaluation": Evaluation(test_size=0.3)},
        {"evaluation": Evaluation(time_gap=1)},
        {"search": Search("grid", SPACE)},
    ],
)
def test_what_a_result_depends_on_makes_another(change: dict[str, Any]) -> None:
    assert of(replace(request(), **change)) != of(request())


def test_other_data_and_another_machine_make_another() -> None:
    assert of(request(), replace(IRIS, fingerprint="f2")) != of(request())
    assert of(request(), machine={"threads": "2"}) != of(request())
    assert of(request(), replace(IRIS, name="same-content")) == of(request())
