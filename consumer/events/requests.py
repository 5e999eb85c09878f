"""Reads training requests from the bytes of a record, and writes them for producers.

A record becomes one of three things.  `Received` is a request with its defaults resolved; pipeline.validation checks
whether its names, algorithm and values exist.  `Malformed` has a fault but also a request_id, so it gets a REJECTED
outcome.  With UndecodableError there is no request_id: the record only becomes a dead letter.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson

from consumer.events.codec import Codec
from consumer.events.errors import UndecodableError
from pipeline.errors import RejectedError
from pipeline.jobs import Evaluation, HyperparameterValue, Search, TrainingRequest, fields_of
from schemas import RecordType

Headers = Sequence[tuple[str, bytes | str | None]]

MAX_REQUEST_ID_CHARACTERS = 120
MAX_ECHOED_CHARACTERS = 256
"""The most characters of a field that every event repeats: longer ones could make an outcome too large to publish."""

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_TRACEPARENT = re.compile(r"(?!ff)[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}(-.*)?")
_EPOCH = datetime.fromtimestamp(0, UTC)
_CANONICAL_JSON = json.JSONEncoder(sort_keys=True, separators=(",", ":"), default=str)
_NOT_CONTENT = ("requested_at", "correlation_id")
_ECHOED = ("project", "model_name", "job_name", "user")
EMPTY_IS_NOT_GIVEN = ("project", "user", "model_name", "target_column", "hyperparameters_json", "correlation_id")
"""Fields in which an empty string counts as null: producers in languages without null write it."""


@dataclass(frozen=True, slots=True)
class Received:
    """A readable request; `sha256` is its content_sha256."""

    request: TrainingRequest
    sha256: str


@dataclass(frozen=True, slots=True)
class Malformed:
    """A request that can only be REJECTED, with `message`.

    `request` has the right request_id; its other fields are filled as far as they could be read, overlong ones cut.
    """

    request: TrainingRequest
    sha256: str
    message: str


def read_request(
    codec: Codec, value: bytes | None, *, headers: Headers | None, timestamp_ms: int
) -> Received | Malformed:
    """The request in a record of the topic training-requests; `timestamp_ms` is the record's Kafka timestamp.

    Raises UndecodableError, and TransientError if the schema registry is needed and down.
    """
    try:
        record = codec.decode(value, RecordType.TRAINING_REQUEST)
        written: Mapping[str, Any] = record
        problem = None
    except UndecodableError as error:
        if error.written is None or not isinstance(error.written.get("request_id"), str):
            raise
        written, problem = error.written, str(error)
        record = _readable_part(written)
    check_request_id(record["request_id"])
    record = _given(record)
    problems = [problem] if problem else _problems(record)
    try:
        hyperparameters = given_hyperparameters(record)
    except RejectedError as error:
        hyperparameters = dict(record["hyperparameters"])
        problems.append(str(error))
    request = _request(record, hyperparameters, _texts(headers), timestamp_ms)
    sha256 = content_sha256(written)
    return Malformed(request, sha256, "; ".join(problems)) if problems else Received(request, sha256)


def content_sha256(record: Mapping[str, Any]) -> str:
    """The hexadecimal sha256 of a decoded record: two records with one request_id and this sum are the same request.

    It covers all that the result depends on, and the names, user and tags.  It ignores the framing, requested_at,
    correlation_id and headers; whether hyperparameters came as a map or as JSON; whether model_name is null or equals
    job_name; and null fields, so that fields of later releases do not change the sum of earlier requests.  Never change
    this: sums are compared with those that other releases stored.
    """
    content = {name: value for name, value in record.items() if name not in _NOT_CONTENT}
    content["model_name"] = content.get("model_name") or content.get("job_name")
    try:
        content["hyperparameters"] = merged_hyperparameters(record)
        content.pop("hyperparameters_json", None)
    except (RejectedError, TypeError, ValueError):
        pass  # then both fields are hashed as they are
    for name in ("search", "evaluation"):
        if isinstance(content.get(name), Mapping):
            content[name] = _without_nulls(content[name])
    canonical = _CANONICAL_JSON.encode(_without_nulls(content))
    return hashlib.sha256(canonical.encode()).hexdigest()


def merged_hyperparameters(record: Mapping[str, Any]) -> dict[str, HyperparameterValue]:
    """`hyperparameters` and `hyperparameters_json` in one; raises RejectedError for invalid ones and names in both."""
    merged = dict(record.get("hyperparameters") or {})
    text = record.get("hyperparameters_json")
    if text is None:
        return merged
    try:
        given = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise RejectedError(f"hyperparameters_json is not valid JSON: {error}") from error
    if not isinstance(given, dict):
        raise RejectedError('hyperparameters_json must be a JSON object, such as {"n_estimators": 200}')
    if twice := sorted(merged.keys() & given.keys()):
        raise RejectedError(f"given both in hyperparameters and in hyperparameters_json: {', '.join(twice)[:500]}")
    return merged | {name: _hyperparameter(name, value) for name, value in given.items()}


def given_hyperparameters(record: Mapping[str, Any]) -> dict[str, HyperparameterValue]:
    """As merged_hyperparameters, but raises RejectedError also for a repeated key in the JSON.

    content_sha256 cannot use this check, as it must never change.
    """
    merged = merged_hyperparameters(record)
    if (text := record.get("hyperparameters_json")) and (twice := _repeated_keys(text)):
        raise RejectedError(f"hyperparameters_json names {', '.join(twice)[:500]} more than once")
    return merged


def _repeated_keys(text: str) -> list[str]:
    """The repeated keys of a JSON object, which must be flat."""

    def repeated(pairs: list[tuple[str, Any]]) -> list[str]:
        return [name for name, times in Counter(name for name, _ in pairs).items() if times > 1]

    found: list[str] = json.loads(text, object_pairs_hook=repeated, parse_int=float)
    return found


def to_avro(request: TrainingRequest) -> dict[str, Any]:
    """The record that a producer sends for this request; the inverse of read_request.

    traceparent is not in it, but a header; a requested_at that was never set is null, and read from the record's
    timestamp.  Raises RejectedError for a hyperparameter that has no Avro form.
    """
    return {
        "request_id": request.request_id,
        "job_name": request.job_name,
        "project": request.project,
        "user": request.user,
        "model_name": request.model_name or None,
        "algorithm": request.algorithm,
        "dataset_name": request.dataset_name,
        "target_column": request.target_column,
        "features": None if request.features is None else list(request.features),
        "hyperparameters": {name: _hyperparameter(name, value) for name, value in request.hyperparameters.items()},
        "hyperparameters_json": None,
        "search": None if request.search is None else asdict(request.search),
        "evaluation": fields_of(request.evaluation),
        "seed": request.seed,
        "max_training_time_s": request.max_training_time_s,
        "max_memory_bytes": request.max_memory_bytes,
        "reuse": request.reuse,
        "correlation_id": request.correlation_id or None,
        "tags": dict(request.tags),
        "requested_at": None if request.requested_at == _EPOCH else request.requested_at,
    }


def moment(timestamp_ms: int) -> datetime:
    """A record's timestamp; the epoch if it is missing (-1) or beyond what datetime can hold."""
    try:
        return _EPOCH + timedelta(milliseconds=max(timestamp_ms, 0))
    except OverflowError:
        return _EPOCH


def check_request_id(request_id: str) -> None:
    if not 1 <= len(request_id) <= MAX_REQUEST_ID_CHARACTERS:
        raise UndecodableError(
            f"request_id must have 1 to {MAX_REQUEST_ID_CHARACTERS} characters, this one has {len(request_id)}"
        )
    if _CONTROL.search(request_id):
        raise UndecodableError(f"request_id must have no control characters, this one is {request_id!r}")


def _problems(record: Mapping[str, Any]) -> list[str]:
    problems = [
        f"{name} has {len(record[name]):,} characters; at most {MAX_ECHOED_CHARACTERS} are allowed"
        for name in (*_ECHOED, "correlation_id")
        if len(record[name] or "") > MAX_ECHOED_CHARACTERS
    ]
    problems += [
        f"{name} must have no control characters"
        for name in ("correlation_id", "user")
        if _CONTROL.search(record[name] or "")
    ]
    return problems


def _given(record: Mapping[str, Any]) -> dict[str, Any]:
    """The record with empty strings replaced by null or the default, except in `features` and other lists."""
    given = {**record, **{name: record[name] or _NOTHING_GIVEN[name] for name in EMPTY_IS_NOT_GIVEN}}
    for name, fields in (("evaluation", ("group_column", "time_column")), ("search", ("scoring",))):
        if record[name] is not None:
            given[name] = {**record[name], **{field: record[name][field] or None for field in fields}}
    return given


def _request(
    record: Mapping[str, Any],
    hyperparameters: Mapping[str, HyperparameterValue],
    headers: Mapping[str, str],
    timestamp_ms: int,
) -> TrainingRequest:
    evaluation, features, traceparent = record["evaluation"], record["features"], headers.get("traceparent", "")
    project, model_name, job_name, user = (_cut(record[name] or "") for name in _ECHOED)
    return TrainingRequest(
        request_id=record["request_id"],
        job_name=job_name,
        algorithm=record["algorithm"],
        dataset_name=record["dataset_name"],
        project=project,
        user=user,
        model_name=model_name or job_name,
        target_column=record["target_column"],
        features=None if features is None else tuple(features),
        hyperparameters=hyperparameters,
        search=None if record["search"] is None else Search.from_document(record["search"]),
        evaluation=Evaluation() if evaluation is None else Evaluation(**evaluation),
        seed=record["seed"],
        max_training_time_s=record["max_training_time_s"],
        max_memory_bytes=record["max_memory_bytes"],
        reuse=record["reuse"],
        correlation_id=_correlation_id(record, headers),
        tags=dict(record["tags"]),
        requested_at=record["requested_at"] or moment(timestamp_ms),
        traceparent=traceparent if _TRACEPARENT.fullmatch(traceparent) else None,
    )


def _correlation_id(record: Mapping[str, Any], headers: Mapping[str, str]) -> str:
    for candidate in (record["correlation_id"], headers.get("correlation_id")):
        if candidate and len(candidate) <= MAX_ECHOED_CHARACTERS and not _CONTROL.search(candidate):
            return str(candidate)
    return str(record["request_id"])


def _texts(headers: Headers | None) -> dict[str, str]:
    """The headers that are text, the first of each name."""
    texts: dict[str, str] = {}
    for name, value in headers or ():
        text = value.decode("utf-8", "replace") if isinstance(value, bytes) else value
        if text:
            texts.setdefault(name, text)
    return texts


def _readable_part(written: Mapping[str, Any]) -> dict[str, Any]:
    """The text fields of a record that does not fit our schema; its other fields as if they were not given."""
    texts = ("job_name", "algorithm", "dataset_name", *_ECHOED, "correlation_id", "request_id")
    readable = {name: written[name] for name in texts if isinstance(written.get(name), str)}
    return {**_NOTHING_GIVEN, **readable}


_NOTHING_GIVEN: dict[str, Any] = {
    **to_avro(TrainingRequest(request_id="", job_name="", algorithm="", dataset_name="")),
    "evaluation": None,
}


def _hyperparameter(name: str, value: Any, *, inside: bool = False) -> Any:
    if value is None or isinstance(value, (bool, str, float)):
        return value
    if isinstance(value, int):
        if not -(2**63) <= value < 2**63:
            raise RejectedError(f"hyperparameter {name[:100]}: an integer that does not fit into 64 bits")
        return value
    if isinstance(value, (list, tuple)) and not inside:
        return [_hyperparameter(name, one, inside=True) for one in value]
    raise RejectedError(
        f"hyperparameter {name[:100]}: must be null, a boolean, a number, a string or a list of these, "
        f"not {'a list in a list' if inside and isinstance(value, (list, tuple)) else type(value).__name__}"
    )


def _without_nulls(record: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in record.items() if value is not None}


def _cut(text: str) -> str:
    return text if len(text) <= MAX_ECHOED_CHARACTERS else text[: MAX_ECHOED_CHARACTERS - 1] + "…"
