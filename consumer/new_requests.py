"""Makes a request from a user's input: fills in defaults, refuses unknown words with the nearest known one."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from datetime import UTC, datetime
from typing import Any, NotRequired, Required, TypedDict
from uuid import UUID

from consumer.events.requests import EMPTY_IS_NOT_GIVEN, given_hyperparameters
from pipeline.errors import RejectedError, did_you_mean
from pipeline.jobs import Evaluation, HyperparameterValue, Search, SearchDimension, TrainingRequest, milliseconds


class RequestFields(TypedDict, total=False):
    """The fields of a request, documented in `schemas/training-requests.avsc`; all but two have a default."""

    algorithm: Required[str]
    dataset_name: Required[str]
    request_id: NotRequired[str]
    job_name: NotRequired[str]
    project: NotRequired[str]
    user: NotRequired[str]
    model_name: NotRequired[str]
    target_column: NotRequired[str | None]
    features: NotRequired[Sequence[str] | None]
    hyperparameters: NotRequired[Mapping[str, HyperparameterValue]]
    search: NotRequired[Search | Mapping[str, Any] | None]
    evaluation: NotRequired[Evaluation | Mapping[str, Any] | None]
    seed: NotRequired[int]
    max_training_time_s: NotRequired[float | None]
    max_memory_bytes: NotRequired[int | None]
    reuse: NotRequired[bool]
    correlation_id: NotRequired[str]
    tags: NotRequired[Mapping[str, str]]
    traceparent: NotRequired[str]


def training_request(given: Mapping[str, object]) -> TrainingRequest:
    """The request with these fields, and a new request_id if it has none.  Raises RejectedError for unknown fields."""
    values: dict[str, Any] = {
        name: _plain(value)
        for name, value in given.items()
        if value is not None and (name not in EMPTY_IS_NOT_GIVEN or value != "")
    }
    _known(values, _REQUEST_FIELDS, "a request")
    _check_types(values, _REQUEST_TYPES)
    for name in ("algorithm", "dataset_name"):
        if not values.get(name):
            raise RejectedError(f"a request needs {name}")
    text = values.pop("hyperparameters_json", None)
    if text is not None:
        values["hyperparameters"] = {
            **values.get("hyperparameters", {}),
            **given_hyperparameters({"hyperparameters_json": text}),
        }
    evaluation = values.get("evaluation", {})
    if isinstance(evaluation, Mapping):
        _known(evaluation, [field.name for field in fields(Evaluation)], "evaluation")
        _check_types(evaluation, _EVALUATION_TYPES, "evaluation.")
        values["evaluation"] = Evaluation(**evaluation)
    if isinstance(values.get("search"), Mapping):
        values["search"] = _search(values["search"])
    values.setdefault("request_id", new_request_id())
    values.setdefault("job_name", values.get("model_name") or f"{values['dataset_name']}-{values['algorithm']}")
    values.setdefault("model_name", values["job_name"])
    values.setdefault("requested_at", milliseconds(datetime.now(UTC)))
    if "features" in values:
        values["features"] = tuple(values["features"])
    for name, texts in (("features", values.get("features", ())), ("tags", values.get("tags", {}).values())):
        for text in texts:
            if not isinstance(text, str):
                raise _wrong_type(name, "text", text)
    return TrainingRequest(**values)


def _plain(value: Any) -> Any:
    """The value with NumPy's numbers and arrays turned into Python's."""
    if isinstance(value, Mapping):
        return {name: _plain(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return value.tolist() if type(value).__module__ == "numpy" else value


def _search(given: Mapping[str, Any]) -> Search:
    """A search; `space` may also be a mapping from names to lists of values or to ranges."""
    _known(given, [field.name for field in fields(Search)], "search")
    _check_types(given, _SEARCH_TYPES, "search.")
    space = given.get("space", ())
    if isinstance(space, Mapping):
        space = [
            {"name": name, **(tried if isinstance(tried, Mapping) else {"values": tried})}
            for name, tried in space.items()
        ]
    for dimension in space:
        if not isinstance(dimension, Mapping):
            raise RejectedError(f"search.space takes an object for each hyperparameter, not {dimension!r}")
        _known(dimension, [field.name for field in fields(SearchDimension)], "search.space")
        if not isinstance(dimension.get("name"), str):
            raise RejectedError("search.space: each needs the name of a hyperparameter")
        if not isinstance(dimension.get("values", []), Sequence | None) or isinstance(dimension.get("values"), str):
            raise RejectedError(f"search.space: {dimension.get('name')} takes a list of values")
    return Search.from_document({"strategy": "grid", **given, "space": space})


_REQUEST_FIELDS = (*(field.name for field in fields(TrainingRequest)), "hyperparameters_json")


def new_request_id() -> str:
    """A UUID of version 7: it contains its time, from which a watch starts to read."""
    value = round(time.time() * 1000) << 80 | int.from_bytes(os.urandom(10))
    value = value & ~(0xF << 76 | 0x3 << 62) | 0x7 << 76 | 0x2 << 62
    return str(UUID(int=value))


def time_of(request_id: str) -> datetime | None:
    """When a request_id was made, if it is one of `new_request_id`; else None."""
    try:
        value = UUID(request_id)
    except ValueError:
        return None
    if value.version != 7 or str(value) != request_id:
        return None
    return min(datetime.fromtimestamp((value.int >> 80) / 1000, UTC), datetime.now(UTC))


def earliest(request_ids: Iterable[str]) -> datetime | None:
    """When the first of these was made; None unless all of them contain their time."""
    times = [time_of(request_id) for request_id in request_ids]
    return min((one for one in times if one is not None), default=None) if all(times) else None


def _check_types(given: Mapping[str, Any], types: Mapping[str, tuple[Any, str]], of: str = "") -> None:
    """Raises RejectedError for a field whose value is of another type; those that are not in `types` take text."""
    for name, value in given.items():
        kind, what = types.get(name, _TEXT)
        own = {str: str, bool: bool}.get(type(value), kind)  # a text is no list of letters, and True no number
        if value is not None and not (isinstance(value, kind) and kind is own):
            raise _wrong_type(f"{of}{name}", what, value)


def _wrong_type(name: str, what: str, value: object) -> RejectedError:
    shown = f"the text {value!r}" if isinstance(value, str) else repr(value)
    return RejectedError(f"a request cannot be written: {name} takes {what}, not {shown[:SHOWN]}")


SHOWN = 100
_TEXT = (str, "text")
_WHOLE = (int, "a whole number")
_NUMBER = ((int, float), "a number")
_TRUTH = (bool, "true or false")
_PAIRS = (Mapping, "an object of names and values")
_REQUEST_TYPES: Mapping[str, tuple[Any, str]] = {
    "features": (Iterable, "a list of names of columns"),
    "hyperparameters": _PAIRS,
    "search": ((Mapping, Search), _PAIRS[1]),
    "evaluation": ((Mapping, Evaluation), _PAIRS[1]),
    "seed": _WHOLE,
    "max_training_time_s": _NUMBER,
    "max_memory_bytes": _WHOLE,
    "reuse": _TRUTH,
    "tags": _PAIRS,
    "requested_at": (datetime, "a datetime"),
}
_EVALUATION_TYPES: Mapping[str, tuple[Any, str]] = {
    "test_size": _NUMBER,
    "stratify": _TRUTH,
    "cv": _WHOLE,
    "time_gap": _WHOLE,
    "report": _TRUTH,
}
_SEARCH_TYPES: Mapping[str, tuple[Any, str]] = {
    "space": (Iterable, "a list of hyperparameters with their values"),
    "cv": _WHOLE,
    "max_candidates": _WHOLE,
    "time_budget_s": _NUMBER,
}


def _known(given: Iterable[str], known: Iterable[str], what: str) -> None:
    for name in given:
        if name not in known:
            raise RejectedError(f"{what} has no {name!r}{did_you_mean(name, known)}")
