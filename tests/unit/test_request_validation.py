"""What is said against a request before its data is seen."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from pipeline.errors import RejectedError
from pipeline.naming import semantic_name
from pipeline.validation import check
from tests.training_data import request


def test_a_plain_request_is_in_order() -> None:
    check(request())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"request_id": ""}, "request_id takes 1 to 120 characters, not 0"),
        ({"request_id": "x" * 121}, "request_id takes 1 to 120 characters, not 121"),
        ({"project": "a/b"}, "project takes 1 to 128 characters of A-Z a-z 0-9 . _ -, not 'a/b'"),
        ({"model_name": ""}, "model_name takes 1 to 128 characters"),
        ({"job_name": "über"}, "job_name takes 1 to 128 characters"),
        ({"dataset_name": "a" * 129}, "dataset_name takes 1 to 128 characters"),
        ({"test_size": 1.0}, "test_size takes a share above 0 and below 1, not 1.0"),
        ({"test_size": float("nan")}, "test_size takes a share"),
        ({"cv": 1}, "cv takes 2 to 20 folds, not 1"),
        ({"cv": 21}, "cv takes 2 to 20 folds, not 21"),
        ({"group_column": "a", "time_column": "b"}, "a group_column or a time_column, not both"),
        ({"max_training_time_s": 0}, "max_training_time_s takes seconds above 0, not 0"),
        ({"max_training_time_s": float("inf")}, "max_training_time_s takes seconds above 0, not inf"),
        ({"max_memory_bytes": -1}, "max_memory_bytes takes bytes above 0, not -1"),
        ({"tags": {"a b": "c"}}, "tag 'a b' takes a name"),
        ({"tags": {"a": "c" * 1001}}, "tag 'a' takes at most 1,000 characters"),
        ({"tags": {f"t{n}": "" for n in range(101)}}, "at most 100 tags, not 101"),
        ({"features": ()}, "features lists no column"),
        ({"features": ("a", "b", "a")}, "features lists a more than once"),
        ({"features": ("a", "y"), "target_column": "y"}, "the target 'y' is among the features"),
        ({"hyperparameters": {"max_depth": 0}}, "max_depth of decision_tree takes an integer from 1, or null, not 0"),
        ({"algorithm": "tree"}, "no algorithm 'tree'"),
    ],
)
def test_each_fault_is_named_with_what_would_be_right(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(RejectedError) as rejected:
        check(request(**changes))
    assert message in str(rejected.value)


def test_all_faults_are_named_at_once() -> None:
    with pytest.raises(RejectedError, match=r"project .*; evaluation.cv .*; there is no algorithm"):
        check(request("tree", project="", cv=99))


def test_a_semantic_name_holds_job_algorithm_dataset_and_time() -> None:
    moment = datetime(2026, 1, 31, 14, 15, tzinfo=UTC)
    asked = request("random_forest", "iris.v2", job_name="my_job__1.")
    assert semantic_name(asked, moment) == "my-job-1_random-forest_iris-v2_20260131T141500Z"
