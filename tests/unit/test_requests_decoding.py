"""What a record of training-requests or training-control says, and what becomes of it when it says it badly."""

from __future__ import annotations

import copy
import hashlib
import json
from datetime import UTC, datetime
from io import BytesIO
from typing import Any

import pytest
from fastavro import schemaless_writer
from hypothesis import given
from hypothesis import strategies as st

from consumer.events.codec import Codec
from consumer.events.control import CancelRequest, cancel_command, read_control
from consumer.events.errors import UndecodableError
from consumer.events.framing import fingerprint_of, header
from consumer.events.requests import Malformed, Received, content_sha256, moment, read_request, to_avro
from pipeline.errors import RejectedError
from pipeline.jobs import Evaluation, TrainingRequest
from pipeline.ledger import Cancel
from pipeline.validation import check
from schemas import RecordType, schema

CODEC = Codec()
REQUEST: dict[str, Any] = {"request_id": "r-1", "job_name": "churn", "algorithm": "svm", "dataset_name": "iris"}
TIMESTAMP_MS = 1_769_868_900_123
TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def read(record: dict[str, Any], headers: Any = None, timestamp_ms: int = TIMESTAMP_MS) -> Received | Malformed:
    value = CODEC.encode(RecordType.TRAINING_REQUEST, REQUEST | record)
    return read_request(CODEC, value, headers=headers, timestamp_ms=timestamp_ms)


def received(record: dict[str, Any], headers: Any = None, timestamp_ms: int = TIMESTAMP_MS) -> Received:
    result = read(record, headers, timestamp_ms)
    assert isinstance(result, Received)
    return result


def malformed(record: dict[str, Any]) -> Malformed:
    result = read(record)
    assert isinstance(result, Malformed)
    return result


def as_decoded(record: dict[str, Any]) -> dict[str, Any]:
    return CODEC.decode(CODEC.encode(RecordType.TRAINING_REQUEST, REQUEST | record), RecordType.TRAINING_REQUEST)


def test_a_request_of_four_fields_has_all_defaults() -> None:
    assert received({}).request == TrainingRequest(
        request_id="r-1",
        job_name="churn",
        algorithm="svm",
        dataset_name="iris",
        project="default",
        user="",
        model_name="churn",
        target_column=None,
        features=None,
        hyperparameters={},
        evaluation=Evaluation(test_size=0.2, stratify=True, cv=None, group_column=None, time_column=None),
        seed=42,
        max_training_time_s=None,
        max_memory_bytes=None,
        correlation_id="r-1",
        tags={},
        requested_at=datetime(2026, 1, 31, 14, 15, 0, 123_000, UTC),
        traceparent=None,
    )


texts = st.text(max_size=10)
scalars = st.one_of(st.none(), st.booleans(), st.integers(-(2**63), 2**63 - 1), st.floats(allow_nan=False), texts)
plain = st.text(st.characters(exclude_categories=["Cc", "Cs", "Zl", "Zp"]), min_size=1, max_size=20)
optional_texts = st.none() | st.text(min_size=1, max_size=10)
training_requests = st.builds(
    TrainingRequest,
    request_id=plain,
    job_name=plain,
    algorithm=texts,
    dataset_name=texts,
    project=plain,
    user=st.just("") | plain,
    model_name=plain,
    target_column=optional_texts,
    features=st.none() | st.lists(texts, max_size=3).map(tuple),
    hyperparameters=st.dictionaries(texts, scalars | st.lists(scalars, max_size=3), max_size=4),
    evaluation=st.builds(
        Evaluation,
        test_size=st.floats(0, 1),
        stratify=st.booleans(),
        cv=st.none() | st.integers(0, 20),
        group_column=optional_texts,
        time_column=optional_texts,
        report=st.none() | st.booleans(),
        time_gap=st.none() | st.integers(0, 2**40),
    ),
    seed=st.integers(0, 2**32),
    max_training_time_s=st.none() | st.floats(0, 1e9),
    max_memory_bytes=st.none() | st.integers(0, 2**50),
    correlation_id=plain,
    tags=st.dictionaries(texts, texts, max_size=3),
    requested_at=st.integers(1, 4_000_000_000_000).map(moment),
    traceparent=st.none() | st.just(TRACEPARENT),
)


@given(training_requests)
def test_what_a_producer_sends_is_what_the_worker_reads(request_: TrainingRequest) -> None:
    headers = [("traceparent", request_.traceparent.encode())] if request_.traceparent else []
    value = CODEC.encode(RecordType.TRAINING_REQUEST, to_avro(request_))
    result = read_request(CODEC, value, headers=headers, timestamp_ms=TIMESTAMP_MS)
    assert isinstance(result, Received)
    assert result.request == request_


def test_a_producer_may_leave_the_time_to_the_record() -> None:
    record = to_avro(TrainingRequest(request_id="r-1", job_name="churn", algorithm="svm", dataset_name="iris"))
    assert record["requested_at"] is None
    assert received(record).request.requested_at == moment(TIMESTAMP_MS)


@pytest.mark.parametrize(
    ("field", "headers", "correlation_id"),
    [
        ("of-field", [("correlation_id", b"of-header")], "of-field"),
        (None, [("correlation_id", b"of-header"), ("correlation_id", b"second")], "of-header"),
        ("", [("correlation_id", b"of-header")], "of-header"),
        (None, [("correlation_id", None)], "r-1"),
        (None, [("correlation_id", b"two\nlines")], "r-1"),
        (None, [("correlation_id", b"x" * 1000)], "r-1"),
        (None, None, "r-1"),
    ],
)
def test_a_correlation_id_is_the_field_else_the_header_else_the_request_id(
    field: str | None, headers: Any, correlation_id: str
) -> None:
    assert received({"correlation_id": field}, headers).request.correlation_id == correlation_id


@pytest.mark.parametrize(
    ("value", "read_as"),
    [
        (TRACEPARENT.encode(), TRACEPARENT),
        (TRACEPARENT, TRACEPARENT),
        (b"ff" + TRACEPARENT[2:].encode(), None),
        (b"nonsense", None),
        (b"\xff\xfe", None),
        (None, None),
    ],
)
def test_a_traceparent_is_taken_only_if_it_is_one(value: Any, read_as: str | None) -> None:
    assert received({}, [("traceparent", value)]).request.traceparent == read_as


@pytest.mark.parametrize("timestamp_ms", [-1, 0, 2**62])
def test_a_timestamp_that_is_none_is_the_epoch(timestamp_ms: int) -> None:
    assert received({}, timestamp_ms=timestamp_ms).request.requested_at == datetime.fromtimestamp(0, UTC)


def test_an_empty_string_in_an_optional_field_says_nothing() -> None:
    """Producers in languages without null write it."""
    empty = dict.fromkeys(
        ("project", "user", "model_name", "target_column", "hyperparameters_json", "correlation_id"), ""
    )
    evaluation = {"test_size": 0.2, "group_column": "", "time_column": ""}
    search = {"strategy": "grid", "space": [], "scoring": ""}
    request = received({**empty, "evaluation": evaluation, "search": search}).request
    plain = received({"search": {"strategy": "grid", "space": []}}).request
    assert request == plain
    assert (plain.project, plain.model_name, plain.target_column) == ("default", "churn", None)


@pytest.mark.parametrize("name", ["job_name", "dataset_name", "algorithm"])
def test_an_empty_string_in_a_field_that_is_needed_is_rejected_by_its_name(name: str) -> None:
    request = received({"algorithm": "svm", "model_name": "churn", name: ""}).request
    with pytest.raises(RejectedError, match=name if name != "algorithm" else "there is no algorithm ''"):
        check(request)


def test_an_empty_name_among_the_features_is_rejected() -> None:
    with pytest.raises(RejectedError, match="features takes names of 1 to 1,000 characters, not 0"):
        check(received({"features": ["a", ""]}).request)


def test_hyperparameters_as_json_join_those_of_the_map() -> None:
    record = {
        "hyperparameters": {"C": 1.5},
        "hyperparameters_json": '{"kernel": "rbf", "gamma": null, "probability": true, "sizes": [1, 2.5]}',
    }
    assert received(record).request.hyperparameters == {
        "C": 1.5,
        "kernel": "rbf",
        "gamma": None,
        "probability": True,
        "sizes": [1, 2.5],
    }


@pytest.mark.parametrize(
    ("record", "complaint"),
    [
        ({"hyperparameters": {"C": 1, "a": 1}, "hyperparameters_json": '{"C": 1}'}, "in hyperparameters_json: C$"),
        ({"hyperparameters_json": "{C: 1}"}, "not valid JSON"),
        ({"hyperparameters_json": '{"C": NaN}'}, "not valid JSON"),
        ({"hyperparameters_json": '{"C": "\\ud800"}'}, "not valid JSON"),
        ({"hyperparameters_json": "[" * 100_000}, "not valid JSON"),
        ({"hyperparameters_json": " "}, "not valid JSON"),
        (
            {"hyperparameters_json": '{"C": 1, "n": 2, "C": 1, "n": 3}'},
            "hyperparameters_json names C, n more than once",
        ),
        ({"hyperparameters_json": '{"C": 1, "\\u0043": ' + "9" * 5_000 + "}"}, "not valid JSON|names C more than once"),
        ({"hyperparameters_json": "[1]"}, "must be a JSON object"),
        ({"hyperparameters_json": '{"C": {"low": 1}}'}, "C: must be null, a boolean, .* not dict"),
        ({"hyperparameters_json": '{"C": [[1]]}'}, "not a list in a list"),
        ({"hyperparameters_json": '{"C": 18446744073709551615}'}, "does not fit into 64 bits"),
        ({"project": "p" * 300, "hyperparameters_json": "!"}, "project has .*; hyperparameters_json is not"),
        ({"project": "p" * 300}, "project has 300 characters"),
        ({"correlation_id": "two\nlines"}, "correlation_id must have no control characters"),
        ({"user": "ann\x1b[2J"}, "user must have no control characters"),
    ],
)
def test_a_request_that_is_wrong_in_itself_is_told_why_and_keeps_its_names(
    record: dict[str, Any], complaint: str
) -> None:
    result = malformed(record)
    with pytest.raises(RejectedError, match=complaint):
        raise RejectedError(result.message)
    assert (result.request.request_id, result.request.correlation_id) == ("r-1", "r-1")
    assert (result.request.job_name, result.request.model_name) == ("churn", "churn")


def test_what_events_repeat_is_cut_so_that_an_outcome_can_always_be_published() -> None:
    result = malformed(dict.fromkeys(("project", "model_name", "job_name", "user", "correlation_id"), "x" * 100_000))
    request = result.request
    assert max(map(len, (request.project, request.model_name, request.job_name, request.user))) == 256
    assert request.correlation_id == "r-1"
    assert len(result.message) < 1_000


@pytest.mark.parametrize("request_id", ["", "x" * 121, "a\nb", "a\0", "a\x85", "a\u2028b"])
def test_a_request_without_a_readable_request_id_is_undecodable(request_id: str) -> None:
    with pytest.raises(UndecodableError, match="request_id must have"):
        read({"request_id": request_id})


@pytest.mark.parametrize("request_id", ["x", "ü" * 120, "a b/c#1"])
def test_a_request_id_is_any_text_of_1_to_120_characters(request_id: str) -> None:
    assert received({"request_id": request_id}).request.request_id == request_id


@pytest.mark.parametrize("sent", [TIMESTAMP_MS * 1000, -TIMESTAMP_MS * 1000, 253_402_300_800_000, -(2**63), 2**63 - 1])
def test_a_date_beyond_the_calendar_is_rejected_with_its_request_id(sent: int) -> None:
    """Microseconds sent as milliseconds are the commonest mistake with timestamp-millis."""
    numbers = copy.deepcopy(schema(RecordType.TRAINING_REQUEST))
    numbers["fields"][-1]["type"][1] = "long"
    buffer = BytesIO()
    schemaless_writer(buffer, numbers, REQUEST | {"project": "p", "requested_at": sent})
    value = header(fingerprint_of(schema(RecordType.TRAINING_REQUEST))) + buffer.getvalue()
    result = read_request(CODEC, value, headers=[("correlation_id", b"c-1")], timestamp_ms=TIMESTAMP_MS)
    assert isinstance(result, Malformed)
    assert "out of range" in result.message
    assert result.request.request_id == "r-1"
    assert result.request.correlation_id == "c-1"
    assert (result.request.project, result.request.model_name) == ("p", "churn")


@pytest.mark.parametrize("year", ["0001-01-01", "9999-12-31T23:59:59.999"])
def test_any_date_of_the_calendar_is_the_time_of_a_request(year: str) -> None:
    asked_at = datetime.fromisoformat(year).replace(tzinfo=UTC)
    request = received({"requested_at": asked_at}).request
    assert request.requested_at == asked_at
    check(request)


def test_bytes_that_do_not_decode_have_no_request() -> None:
    value = CODEC.encode(RecordType.TRAINING_REQUEST, REQUEST)
    for broken in (None, b"", value[:-1], value + b"x", b'{"request_id": "r-1"}'):
        with pytest.raises(UndecodableError):
            read_request(CODEC, broken, headers=None, timestamp_ms=0)


@given(st.binary(max_size=200), st.lists(st.tuples(texts, st.none() | st.binary(max_size=60)), max_size=3))
def test_any_body_and_headers_are_received_malformed_or_undecodable(body: bytes, headers: Any) -> None:
    value = header(fingerprint_of(schema(RecordType.TRAINING_REQUEST))) + b"\x06r-1" + body
    try:
        result = read_request(CODEC, value, headers=headers, timestamp_ms=TIMESTAMP_MS)
    except UndecodableError:
        return
    assert result.request.request_id == "r-1"
    assert len(result.sha256) == 64


def test_the_content_of_a_request_has_the_sum_that_other_releases_stored() -> None:
    full = {
        "project": "p",
        "hyperparameters": {"C": 1.5, "kernel": "rbf", "gamma": None, "n": 3},
        "evaluation": {"test_size": 0.25, "stratify": False, "cv": None, "group_column": "g", "time_column": None},
        "features": ["a", "ü"],
        "tags": {"team": "growth"},
    }
    assert content_sha256(as_decoded({})) == "afe1223be8ca76b7383235c295915cf297c0933dabdb2b2a7229834aaa05e142"
    assert content_sha256(as_decoded(full)) == "2359e99e634279d3d1e46c717ee6a0e55c9dd0db1db60c71b1231e07e1472ef8"


@pytest.mark.parametrize(
    "same",
    [
        {"requested_at": datetime(2030, 1, 1, tzinfo=UTC)},
        {"correlation_id": "another"},
        {"model_name": "churn"},
        {"hyperparameters": {}, "hyperparameters_json": '{"C": 1.5, "n": 3}'},
        {"hyperparameters": {"n": 3, "C": 1.5}},
        {"hyperparameters": {"n": 3}, "hyperparameters_json": ' {"C":1.5} '},
    ],
    ids=str,
)
def test_a_retry_of_the_same_request_has_the_same_content(same: dict[str, Any]) -> None:
    first = {"hyperparameters": {"C": 1.5, "n": 3}}
    assert received(first).sha256 == received(first | same, [("correlation_id", b"x")], 1).sha256


@pytest.mark.parametrize(
    "other",
    [
        {"job_name": "other"},
        {"project": "other"},
        {"user": "ada"},
        {"model_name": "other"},
        {"algorithm": "other"},
        {"dataset_name": "other"},
        {"target_column": "y"},
        {"features": []},
        {"hyperparameters": {"C": 1}},
        {"hyperparameters": {"C": 1.5}},
        {"hyperparameters": {"C": 1.0}},
        {"hyperparameters": {"C": True}},
        {"hyperparameters": {"C": "1.0"}},
        {"hyperparameters": {"C": None}},
        {"hyperparameters_json": "{"},
        {"search": {"strategy": "grid", "space": []}},
        {"evaluation": {"test_size": 0.3}},
        {"evaluation": {"report": True}},
        {"seed": 43},
        {"max_training_time_s": 1.0},
        {"max_memory_bytes": 1},
        {"reuse": True},
        {"tags": {"a": "b"}},
    ],
    ids=str,
)
def test_each_thing_that_the_result_depends_on_makes_another_content(other: dict[str, Any]) -> None:
    everything = [{}, {"hyperparameters": {"C": 2}}, other]
    assert len({content_sha256(as_decoded(one)) for one in everything}) == 3


def test_a_field_of_a_later_release_that_is_not_set_does_not_change_the_content() -> None:
    assert content_sha256(as_decoded({}) | {"priority": None}) == content_sha256(as_decoded({}))


@pytest.mark.parametrize(
    "value", [object(), {"a": 1}, [[1]], 2**63, -(2**63) - 1], ids=["object", "dict", "nested list", "2**63", "low"]
)
def test_a_hyperparameter_without_an_avro_form_is_not_sent(value: Any) -> None:
    request = TrainingRequest("r-1", "j", "svm", "iris", hyperparameters={"C": value})
    with pytest.raises(RejectedError, match="hyperparameter C"):
        to_avro(request)


def test_a_cancel_is_read_as_it_was_asked_for() -> None:
    asked_at = moment(TIMESTAMP_MS)
    command = cancel_command("r-1", reason="wrong dataset", user="ada", requested_at=asked_at)
    value = CODEC.encode(RecordType.TRAINING_CONTROL, command)
    assert read_control(CODEC, value, timestamp_ms=5) == CancelRequest("r-1", Cancel("wrong dataset", "ada", asked_at))


def test_a_cancel_of_two_fields_has_the_time_of_its_record() -> None:
    value = CODEC.encode(RecordType.TRAINING_CONTROL, {"command": "CANCEL", "request_id": "r-1"})
    assert read_control(CODEC, value, timestamp_ms=TIMESTAMP_MS) == CancelRequest(
        "r-1", Cancel("", "", moment(TIMESTAMP_MS))
    )


def test_a_tombstone_commands_nothing() -> None:
    assert read_control(CODEC, None, timestamp_ms=0) is None


@pytest.mark.parametrize(
    ("record", "complaint"),
    [
        ({"command": "PAUSE", "request_id": "r-1"}, "unknown command 'PAUSE'; the only one is CANCEL"),
        ({"command": "CANCEL", "request_id": ""}, "request_id must have"),
    ],
)
def test_a_command_that_is_none_is_told_why(record: dict[str, Any], complaint: str) -> None:
    with pytest.raises(UndecodableError, match=complaint):
        read_control(CODEC, CODEC.encode(RecordType.TRAINING_CONTROL, record), timestamp_ms=0)


def test_the_canonical_form_is_plain_json() -> None:
    """So that another implementation can compute the sum: sorted keys, no white space, no nulls at the top."""
    record = as_decoded({"hyperparameters": {"b": [1, None], "a": 0.5}})
    canonical = (
        '{"algorithm":"svm","dataset_name":"iris","hyperparameters":{"a":0.5,"b":[1,null]},"job_name":"churn",'
        '"model_name":"churn","project":"default","request_id":"r-1","reuse":false,"seed":42,"tags":{},"user":""}'
    )
    assert json.loads(canonical)
    assert content_sha256(record) == hashlib.sha256(canonical.encode()).hexdigest()
