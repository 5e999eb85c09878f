"""What is said against a request before its data is seen."""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import UTC, datetime
from itertools import islice, product
from pathlib import Path
from typing import Any

import orjson
import pytest

from consumer.trainers.protocol import JOB_LIMIT_BYTES, Work
from pipeline.datasets import Dataset
from pipeline.errors import RejectedError
from pipeline.jobs import Search, SearchDimension, TrainingRequest
from pipeline.registry.model_names import semantic_name
from pipeline.validation import LARGEST_REQUEST_BYTES, check
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
        ({"time_column": "a", "time_gap": -1}, "evaluation.time_gap takes a number of rows from 0, not -1"),
        ({"time_gap": 1}, "evaluation.time_gap needs a time_column"),
        ({"max_training_time_s": 0}, "max_training_time_s takes seconds above 0, not 0"),
        ({"max_training_time_s": float("inf")}, "max_training_time_s takes seconds above 0, not inf"),
        ({"max_training_time_s": float("nan")}, "max_training_time_s takes seconds above 0, not nan"),
        ({"max_training_time_s": -0.0}, "max_training_time_s takes seconds above 0, not -0.0"),
        ({"max_memory_bytes": -1}, "max_memory_bytes takes bytes above 0, not -1"),
        ({"max_memory_bytes": 0}, "max_memory_bytes takes bytes above 0, not 0"),
        ({"seed": -1, "algorithm": "naive_bayes"}, "seed takes an integer from 0 to 4,294,967,295, not -1"),
        ({"seed": 2**32, "algorithm": "k_nearest_neighbors"}, "seed takes an integer from 0 to 4,294,967,295"),
        ({"target_column": ""}, "target_column takes names of 1 to 1,000 characters, not 0"),
        ({"target_column": "y" * 1_001}, "target_column takes names of 1 to 1,000 characters, not 1,001"),
        ({"group_column": "y" * 1_001}, "evaluation.group_column takes names of 1 to 1,000 characters, not 1,001"),
        ({"time_column": ""}, "evaluation.time_column takes names of 1 to 1,000 characters, not 0"),
        ({"features": ("a", "")}, "features takes names of 1 to 1,000 characters, not 0"),
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


def test_more_features_than_a_dataset_has_columns_are_rejected_although_their_names_fit_into_a_request() -> None:
    characters = [chr(code) for code in range(32, 127) if chr(code) not in '"\\']
    names = ["".join(name) for length in (1, 2, 3) for name in islice(product(characters, repeat=length), 20_000)]
    check(request(features=tuple(names[:20_000])))
    with pytest.raises(RejectedError, match=r"^features takes at most 20,000 columns, not 20,001$"):
        check(request(features=tuple(names[:20_001])))


class Whole(int):
    """As bson.Int64 is, which MongoDB's driver gives: a walk through a range would look for it for ever."""


@pytest.mark.parametrize("cv", [Whole(2), Whole(20), Whole(2**62)])
def test_a_number_of_a_subclass_is_compared_and_not_looked_for(cv: int) -> None:
    if cv <= 20:
        check(request(cv=cv))
    else:
        with pytest.raises(RejectedError, match=r"evaluation\.cv takes 2 to 20 folds"):
            check(request(cv=cv))


def _of_bytes(size: int) -> TrainingRequest:
    """A request of this size as JSON."""
    plain = request(features=("",))
    room = size - len(orjson.dumps(plain))
    names = ["x" * 999] * (room // 1_002)
    left = room - 1_002 * len(names)
    return replace(plain, features=(*names, "y" * left))


def test_a_request_is_checked_up_to_its_largest_size_and_beyond_rejected_with_both_figures() -> None:
    assert len(orjson.dumps(_of_bytes(LARGEST_REQUEST_BYTES))) == LARGEST_REQUEST_BYTES
    with pytest.raises(RejectedError, match=r"features lists x+ more than once"):
        check(_of_bytes(LARGEST_REQUEST_BYTES))
    with pytest.raises(RejectedError, match=r"^the request has 114,689 bytes as JSON; at most 114,688 can be trained"):
        check(_of_bytes(LARGEST_REQUEST_BYTES + 1))


def test_the_largest_request_goes_to_a_trainer_in_one_datagram() -> None:
    longest = "/".join(["", *["d" * 255] * 15, "f" * 255])
    dataset = Dataset("d" * 128, "ab" * 32, Path(longest), "ü" * 1_000)
    work = Work(_of_bytes(LARGEST_REQUEST_BYTES), dataset, Path(longest), 2**63 - 1, "tls://" + "h" * 255 + ":8786")
    assert len(work.to_datagram()) <= JOB_LIMIT_BYTES


@pytest.mark.parametrize(
    "changes",
    [
        {"target_column": "\ud800"},
        {"features": ("a", "\udfff")},
        {"user": "\ud800"},
        {"hyperparameters": {"max_depth": 2**64}},
        {"hyperparameters": {"\ud800": 1}},
        {"tags": {"a": "\ud800"}},
    ],
)
def test_what_json_has_no_place_for_is_rejected(changes: dict[str, Any]) -> None:
    with pytest.raises(RejectedError, match=r"^the request cannot be written as JSON: "):
        check(request(**changes))


@pytest.mark.parametrize("text", ["a\0b", "\u202eevil", "$where", "a.b", "\x1b[2J", "\ufeff", "a" * 1_000])
def test_any_other_text_names_a_column_or_is_a_tags_value(text: str) -> None:
    check(request(target_column=text, features=(f"{text[:990]} too",), tags={"why": text}))


WORST: dict[str, dict[str, Any]] = {
    "features": {"features": tuple(f"{n}" for n in range(14_000))},
    "features twice": {"features": tuple(f"{n % 7_000}" for n in range(14_000))},
    "hyperparameters": {"hyperparameters": {f"h{n}": n for n in range(7_000)}},
    "a long hyperparameter": {"hyperparameters": {"h" * 100_000: 1}},
    "a long algorithm": {"algorithm": "decision_tree" * 8_000},
    "a long choice": {"hyperparameters": {"criterion": "gini" * 25_000}},
    "many values": {"search": Search("grid", (SearchDimension("max_depth", values=tuple(range(1, 15_000))),))},
    "many dimensions": {"search": Search("grid", (SearchDimension("max_depth", low=1, high=2),) * 1_000)},
    "a long dimension": {"search": Search("grid", (SearchDimension("max_depth" * 10_000, values=(1,)),))},
    "a wide range": {"search": Search("grid", (SearchDimension("ccp_alpha", low=0, high=1e308, step=5e-324),))},
    "the widest range": {"search": Search("random", (SearchDimension("ccp_alpha", low=-1e308, high=1e308),))},
    "candidates": {"search": Search("random", (SearchDimension("max_depth", low=1, high=9),), max_candidates=2**31)},
    "folds": {"search": Search("random", (SearchDimension("max_depth", low=1, high=9),), cv=2**31)},
    "tags": {"tags": {f"t{n}": "x" for n in range(8_000)}},
}


@pytest.mark.parametrize("worst", WORST.values(), ids=WORST.keys())
def test_the_worst_of_each_field_is_answered_in_bounded_time_and_with_a_bounded_message(worst: dict[str, Any]) -> None:
    """The check is made by a thread that all requests of a worker share."""
    asked = replace(request(), **worst)
    begun = time.process_time()
    said = _said_of(asked)
    assert time.process_time() - begun < 1
    assert len(said) <= 4_000


def _said_of(asked: TrainingRequest) -> str:
    try:
        check(asked)
    except RejectedError as error:
        return str(error)
    return ""


def test_all_faults_are_named_at_once() -> None:
    with pytest.raises(RejectedError, match=r"project .*; evaluation.cv .*; there is no algorithm"):
        check(request("tree", project="", cv=99))


def test_a_semantic_name_holds_job_algorithm_dataset_and_time() -> None:
    moment = datetime(2026, 1, 31, 14, 15, tzinfo=UTC)
    asked = request("random_forest", "iris.v2", job_name="my_job__1.")
    assert semantic_name(asked, moment) == "my-job-1_random-forest_iris-v2_20260131T141500Z"
