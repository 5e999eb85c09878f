"""Outgoing events: built from stored documents alone, the same bytes each time."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer.events.codec import Codec
from consumer.events.messages import cloud_event_headers, key_of, message
from consumer.events.outgoing import (
    LONGEST_WARNING,
    ProgressState,
    alias_changed,
    outcome_messages,
    progress_event,
    registered_event,
    terminal_progress,
)
from consumer.events.requests import moment
from consumer.events.topics import Topics
from consumer.jobs.registrar import EVENT_LIMIT_BYTES
from pipeline.aliases import Alias, AliasChange, AliasChangeReason
from pipeline.jobs import (
    ErrorKind,
    Failure,
    Model,
    Outcome,
    OutcomeKind,
    RegisteredModel,
    TrainingRequest,
    event_id,
)
from pipeline.training.trained import MOST_WARNINGS
from schemas import RecordType, schema

CODEC = Codec()
AT = datetime(2026, 1, 31, 14, 15, 0, 123_000, UTC)
TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
MODEL = Model(
    model_id="m-1",
    name="churn_svm_iris_20260131T141500Z",
    project="default",
    user="ada",
    model_name="churn",
    algorithm="svm",
    model_type="classifier",
    hyperparameters={"kernel": "rbf", "C": 1.5, "gamma": None, "sizes": (1, 2)},
    metrics={"test_accuracy": 0.9, "accuracy": 1},
    dataset_name="iris",
    dataset_fingerprint="ab",
    features=("sepal length", "petal length"),
    target_column="species",
    classes=("setosa", "virginica"),
    artifact_uri="gridfs://models/r-1",
    artifact_format="skops",
    artifact_sha256="cd",
    artifact_bytes=363,
    file_id="f-1",
    training_time=1.5,
    created_at=AT,
    tags={"b": "2", "a": "1"},
    seed=42,
    signature=({"name": "sepal length", "type": "double"},),
    environment={"python": "3.11"},
    warnings=(),
)
OUTCOME = Outcome("r-1", OutcomeKind.REGISTERED, AT, "c-1", "default", "churn", "worker-1", 1, 7, None, MODEL)
REGISTERED = RegisteredModel("r-1", "c-1", "worker-1", 3, MODEL, TRACEPARENT)
REQUEST = TrainingRequest("r-1", "churn", "svm", "iris", model_name="churn", correlation_id="c-1")
FAILURE = Failure(ErrorKind.TRAINING_ERROR, "singular matrix")

texts = st.text(max_size=10)
doubles = st.floats(allow_nan=False)
values = st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | doubles | texts
models = st.builds(
    lambda **changed: replace(MODEL, **changed),
    hyperparameters=st.dictionaries(texts, values | st.lists(values, max_size=3), max_size=4),
    metrics=st.dictionaries(texts, doubles, max_size=4),
    tags=st.dictionaries(texts, texts, max_size=4),
    features=st.lists(texts, max_size=3),
    classes=st.lists(texts, max_size=3),
    warnings=st.lists(texts, max_size=3),
    training_time=st.floats(0, 1e6),
    created_at=st.integers(0, 4_000_000_000_000).map(moment),
)
failures = st.builds(Failure, st.sampled_from(ErrorKind), texts)
negatives = st.builds(
    Outcome,
    request_id=texts,
    kind=st.sampled_from([kind for kind in OutcomeKind if kind is not OutcomeKind.REGISTERED]),
    at=st.integers(0, 4_000_000_000_000).map(moment),
    correlation_id=texts,
    project=texts,
    model_name=texts,
    worker_id=texts,
    attempt=st.integers(1, 10),
    sequence=st.integers(2, 10_000),
    error=failures,
    started_at=st.none() | st.integers(0, 4_000_000_000_000).map(moment),
)


def reordered(node: Any, seed: int) -> Any:
    """As a store may give a document back: maps in another order, tuples as lists."""
    if isinstance(node, dict):
        names = list(node)
        random.Random(seed).shuffle(names)
        return {name: reordered(node[name], seed) for name in names}
    return [reordered(one, seed) for one in node] if isinstance(node, (list, tuple)) else node


@given(models, st.integers(1, 10_000), st.integers())
def test_announcing_a_model_again_sends_the_same_bytes(model: Model, version: int, seed: int) -> None:
    registered = replace(REGISTERED, model=model, version_number=version)
    outcome = replace(OUTCOME, model=model)
    again = RegisteredModel.from_document(reordered(registered.to_document(), seed))
    outcome_again = Outcome.from_document(reordered(outcome.to_document(), seed))
    topics = Topics("t.")
    assert message(CODEC, topics, RecordType.MODEL_REGISTERED, registered_event(registered)) == message(
        Codec(), topics, RecordType.MODEL_REGISTERED, registered_event(again)
    )
    assert message(CODEC, topics, RecordType.TRAINING_PROGRESS, terminal_progress(outcome, registered)) == message(
        Codec(), topics, RecordType.TRAINING_PROGRESS, terminal_progress(outcome_again, again)
    )


@given(negatives, st.integers())
def test_announcing_a_negative_outcome_again_sends_the_same_bytes(outcome: Outcome, seed: int) -> None:
    again = Outcome.from_document(reordered(outcome.to_document(), seed))
    event, topics = terminal_progress(outcome), Topics("t.")
    assert [*outcome_messages(CODEC, topics, outcome, None)] == [*outcome_messages(Codec(), topics, again, None)]
    assert CODEC.decode(CODEC.encode(RecordType.TRAINING_PROGRESS, event), RecordType.TRAINING_PROGRESS) == event


def test_a_registered_event_says_what_the_document_says() -> None:
    event = registered_event(REGISTERED)
    document = REGISTERED.to_document()
    derived = {"event_id", "hyperparameters", "features", "classes", "warnings"}
    assert {name: event[name] for name in event.keys() - derived} == {
        name: document[name] for name in event.keys() - derived
    }
    assert event["event_id"] == event_id("r-1", "model-registered")
    assert event["features"] == ["sepal length", "petal length"]
    assert {name: json.loads(value) for name, value in event["hyperparameters"].items()} == {
        "C": 1.5,
        "gamma": None,
        "kernel": "rbf",
        "sizes": [1, 2],
    }


def test_an_event_has_fifty_warnings_of_bounded_length_and_none_of_a_document_that_has_no_such_field() -> None:
    said = ["short", *(f"{number}{'ß' * 10_000}" for number in range(100))]
    event = registered_event(replace(REGISTERED, model=replace(MODEL, warnings=said)))
    assert event["warnings"][0] == "short"
    assert [len(warning) for warning in event["warnings"][1:]] == [LONGEST_WARNING] * 49
    document = REGISTERED.to_document()
    del document["warnings"]
    assert registered_event(RegisteredModel.from_document(document))["warnings"] == []


def test_the_longest_warnings_fit_into_a_record_beside_the_largest_event() -> None:
    added = len("\U0001f600".encode()) * LONGEST_WARNING * MOST_WARNINGS
    assert EVENT_LIMIT_BYTES + added < 1_048_576 - 10_000


def test_a_terminal_event_of_a_model_carries_its_metrics_and_version() -> None:
    event = terminal_progress(OUTCOME, REGISTERED)
    assert event["event_id"] == event_id("r-1", "REGISTERED")
    assert (event["state"], event["fraction"], event["sequence"]) == ("REGISTERED", 1.0, 7)
    assert event["metrics"] == {"accuracy": 1.0, "test_accuracy": 0.9}
    assert event["message"] == "default/churn v3 is registered"
    assert event["error"] is None


def test_a_terminal_event_of_a_failure_carries_its_error() -> None:
    event = terminal_progress(replace(OUTCOME, kind=OutcomeKind.FAILED, error=FAILURE, model=None))
    assert event["event_id"] == event_id("r-1", "FAILED")
    assert event["error"] == {"kind": "TRAINING_ERROR", "message": "singular matrix"}
    assert event["message"] == "singular matrix"
    assert event["metrics"] == {}


def test_the_start_of_a_training_that_was_over_at_once_is_announced_before_its_end() -> None:
    short = replace(OUTCOME, started_at=AT)
    *progress, model = outcome_messages(CODEC, Topics("t."), short, REGISTERED)
    events = [CODEC.decode(one.value or b"", RecordType.TRAINING_PROGRESS) for one in progress]
    assert [(event["state"], event["sequence"], event["occurred_at"]) for event in events] == [
        ("STARTED", 6, AT),
        ("REGISTERED", 7, AT),
    ]
    assert {one.key for one in progress} == {b"r-1"}
    assert model.topic == "t.model-registered"
    document = short.to_document()
    del document["started_at"]  # written by an earlier version
    assert Outcome.from_document(document) == OUTCOME


def test_a_model_is_not_announced_without_its_document() -> None:
    with pytest.raises(ValueError, match="r-1"):
        terminal_progress(OUTCOME)


@pytest.mark.parametrize("state", ProgressState)
def test_progress_on_the_way_is_a_record_of_its_schema(state: ProgressState) -> None:
    event = progress_event(
        REQUEST,
        state,
        attempt=2,
        sequence=5,
        worker_id="worker-1",
        occurred_at=AT,
        fraction=0.5,
        step=1,
        steps=2,
        message="half",
        error=FAILURE,
        metrics={"loss": 0.5},
        cpu_s=1.5,
        rss_bytes=1024,
    )
    assert CODEC.decode(CODEC.encode(RecordType.TRAINING_PROGRESS, event), RecordType.TRAINING_PROGRESS) == event


def test_progress_of_two_attempts_or_lives_of_a_worker_never_shares_an_id() -> None:
    place: dict[str, Any] = {"attempt": 1, "sequence": 1, "worker_id": "worker-1", "occurred_at": AT}
    others: list[dict[str, Any]] = [
        {"attempt": 2},
        {"sequence": 2},
        {"worker_id": "worker-2"},
        {"occurred_at": AT.replace(second=1)},
    ]
    events = [progress_event(REQUEST, ProgressState.TRAINING, **(place | other)) for other in ({}, *others)]
    events.append(progress_event(REQUEST, ProgressState.LOADING, **place))
    assert len({event["event_id"] for event in events}) == 6
    assert progress_event(REQUEST, ProgressState.TRAINING, **place) == events[0]


def changed(alias: str = "production", model_name: str = "churn", **more: Any) -> dict[str, Any]:
    change = AliasChange(5, 3, 2, AliasChangeReason.PROMOTED, "ada", AT)
    return alias_changed(Alias("default", model_name, alias, (change,)), replace(change, **more))


def test_an_alias_event_has_one_id_for_each_change_of_each_alias() -> None:
    events = [changed(), changed(sequence=6), changed(alias="staging"), changed(model_name="other")]
    assert len({event["event_id"] for event in events}) == 4
    removed = changed(version_number=None, reason=AliasChangeReason.REMOVED)
    assert removed["event_id"] == events[0]["event_id"]
    assert (removed["version"], removed["previous_version"]) == (None, "v2")
    assert (
        CODEC.decode(CODEC.encode(RecordType.MODEL_ALIAS_CHANGED, changed()), RecordType.MODEL_ALIAS_CHANGED)
        == changed()
    )


def test_the_states_and_reasons_here_are_those_of_the_schemas() -> None:
    def symbols(record: RecordType, name: str) -> set[str]:
        return set(next(field for field in schema(record)["fields"] if field["name"] == name)["type"]["symbols"])

    assert symbols(RecordType.TRAINING_PROGRESS, "state") == {*ProgressState, *OutcomeKind, "UNKNOWN"}
    assert symbols(RecordType.MODEL_ALIAS_CHANGED, "reason") == {*AliasChangeReason, "UNKNOWN"}


def test_every_kind_of_error_is_explained_in_the_schema() -> None:
    error = next(field for field in schema(RecordType.TRAINING_PROGRESS)["fields"] if field["name"] == "error")
    told = error["type"][1]["fields"][0]["doc"]
    assert all(kind.value in told for kind in ErrorKind)


@pytest.mark.parametrize(
    ("record", "event", "key"),
    [
        (RecordType.TRAINING_REQUEST, {"project": "p", "model_name": None, "job_name": "straße"}, "p/straße"),
        (RecordType.TRAINING_REQUEST, {"project": "p", "model_name": "m", "job_name": "j"}, "p/m"),
        (RecordType.TRAINING_CONTROL, {"request_id": "r-1"}, "r-1"),
        (RecordType.TRAINING_PROGRESS, terminal_progress(OUTCOME, REGISTERED), "r-1"),
        (RecordType.MODEL_REGISTERED, registered_event(REGISTERED), "default/churn"),
        (RecordType.MODEL_ALIAS_CHANGED, changed(), "default/churn/production"),
    ],
)
def test_keys_are_plain_utf_8(record: RecordType, event: dict[str, Any], key: str) -> None:
    assert key_of(record, event) == key.encode()


def test_a_message_is_a_cloud_event_in_binary_mode() -> None:
    event = registered_event(REGISTERED)
    sent = message(CODEC, Topics("t."), RecordType.MODEL_REGISTERED, event, REGISTERED.traceparent)
    assert (sent.topic, sent.key) == ("t.model-registered", b"default/churn")
    assert CODEC.decode(sent.value, RecordType.MODEL_REGISTERED) == event
    assert dict(sent.headers) == {
        "ce_specversion": b"1.0",
        "ce_id": event["event_id"].encode(),
        "ce_type": b"io.tensorfleet.v1.ModelRegistered",
        "ce_source": b"/tensorfleet/default",
        "ce_time": b"2026-01-31T14:15:00.123Z",
        "content-type": b"application/avro",
        "correlation_id": b"c-1",
        "traceparent": TRACEPARENT.encode(),
    }


def test_a_traceparent_that_is_none_is_no_header() -> None:
    assert "traceparent" not in dict(cloud_event_headers(RecordType.MODEL_REGISTERED, registered_event(REGISTERED)))


@pytest.mark.parametrize(
    ("record", "event", "identity", "correlation_id"),
    [
        (RecordType.MODEL_ALIAS_CHANGED, changed(), changed()["event_id"], changed()["event_id"]),
        (RecordType.TRAINING_CONTROL, {"request_id": "r-1", "command": "CANCEL"}, "r-1/CANCEL", "r-1"),
        (RecordType.TRAINING_REQUEST, {"request_id": "r-1", "project": "p", "correlation_id": "c"}, "r-1", "c"),
    ],
)
def test_records_that_belong_to_no_request_or_event_still_have_an_id(
    record: RecordType, event: dict[str, Any], identity: str, correlation_id: str
) -> None:
    headers = dict(cloud_event_headers(record, event))
    assert (headers["ce_id"], headers["correlation_id"]) == (identity.encode(), correlation_id.encode())
