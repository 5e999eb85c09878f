"""The records that flow through the worker: a request, and the outcome it ends in.

All records are frozen.  Datetimes are aware, UTC, and cut to milliseconds, the resolution of Avro's `timestamp-millis`
and BSON: a record read back from a store equals the one written.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Self
from uuid import UUID, uuid5

Scalar = bool | int | float | str | None
HyperparameterValue = Scalar | Sequence[Scalar]

NAME = re.compile(r"[A-Za-z0-9._-]{1,128}")
EVENTS = UUID("6f0f4f0c-6d39-5d4c-9b80-2f5ad1f0c9a1")


def event_id(request_id: str, kind: str) -> str:
    """The id of the one event of this kind for this request; repeating a step gives the same id."""
    return str(uuid5(EVENTS, f"{request_id}/{kind}"))


def milliseconds(moment: datetime) -> datetime:
    """The same moment in UTC, cut to milliseconds."""
    moment = moment.astimezone(UTC)
    return moment.replace(microsecond=moment.microsecond // 1000 * 1000)


def fields_of(record: Any) -> dict[str, Any]:
    """The fields of a record with slots by name, one level deep and not copied."""
    return {name: getattr(record, name) for name in record.__slots__}


@dataclass(frozen=True, slots=True)
class Evaluation:
    """How the dataset is split, and whether the training part is cross-validated.

    `time_gap` rows before the test part, by time, are in neither part; so also before the scored rows of each fold.
    With `report`, importance and learning curve are computed too, and the model file holds a page and a card.
    """

    test_size: float = 0.2
    stratify: bool = True
    cv: int | None = None
    group_column: str | None = None
    time_column: str | None = None
    report: bool | None = None
    time_gap: int | None = None

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Self:
        """Ignores fields that later releases add."""
        return cls(**{f.name: document[f.name] for f in fields(cls) if f.name in document})


@dataclass(frozen=True, slots=True)
class SplitSummary:
    """How the rows were split, and into how many; as text it is one line for people.

    Attributes:
        kind: time, group, stratified or random.
        column: the column that it was split by, if any.
        gap: the rows between the parts that are in neither.
        train_until, test_from: with a split by time, the last value of the training part and the first of the test
            part; dates as ISO 8601 text.
    """

    kind: str
    train_rows: int
    test_rows: int
    column: str | None = None
    gap: int = 0
    train_until: Scalar = None
    test_from: Scalar = None

    def __str__(self) -> str:
        how = {"stratified": "at random, stratified by class", "random": "at random"}.get(self.kind)
        train, test = f"{self.train_rows:,} rows to train on", f"{self.test_rows:,} to test on"
        if self.kind == "time":
            train, test = f"{train}, up to {self.train_until}", f"{test}, from {self.test_from}"
        gap = f"; {self.gap:,} between them left out" if self.gap else ""
        return f"{how or f'by {self.kind} ({self.column})'}: {train}; {test}{gap}"

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Self:
        """Ignores fields that later releases add."""
        return cls(**{f.name: document[f.name] for f in fields(cls) if f.name in document})


@dataclass(frozen=True, slots=True)
class SearchDimension:
    """One hyperparameter and the values to try: `values`, or a range from `low` to `high`, both included.

    Values are drawn from a range, on a logarithmic scale with `log`.  With a `step` the range is a list of values that
    far apart.
    """

    name: str
    values: tuple[HyperparameterValue, ...] | None = None
    low: float | None = None
    high: float | None = None
    step: float | None = None
    log: bool | None = None


@dataclass(frozen=True, slots=True)
class Search:
    """A search for the best hyperparameters; see pipeline.search for its defaults."""

    strategy: str
    space: tuple[SearchDimension, ...]
    cv: int | None = None
    scoring: str | None = None
    max_candidates: int | None = None
    time_budget_s: float | None = None

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Self:
        space = tuple(
            SearchDimension(**{**one, "values": None if one.get("values") is None else tuple(one["values"])})
            for one in document["space"]
        )
        return cls(**{**document, "space": space})


@dataclass(frozen=True, slots=True)
class TrainingRequest:
    """A training request, defaults resolved.  `consumer.events` reads it from Avro; see schemas/ for each field."""

    request_id: str
    job_name: str
    algorithm: str
    dataset_name: str
    project: str = "default"
    user: str = ""
    model_name: str = ""
    target_column: str | None = None
    features: tuple[str, ...] | None = None
    hyperparameters: Mapping[str, HyperparameterValue] = field(default_factory=dict)
    search: Search | None = None
    evaluation: Evaluation = Evaluation()
    seed: int = 42
    max_training_time_s: float | None = None
    max_memory_bytes: int | None = None
    reuse: bool = False
    correlation_id: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)
    requested_at: datetime = datetime.fromtimestamp(0, UTC)
    traceparent: str | None = None

    @property
    def model_key(self) -> str:
        """`project/model_name`: its requests are trained in order, and its versions are numbered together."""
        return f"{self.project}/{self.model_name}"

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Self:
        known = {f.name for f in fields(cls)}
        values = {name: value for name, value in document.items() if name in known}
        values["evaluation"] = Evaluation.from_document(values["evaluation"])
        if values.get("search") is not None:
            values["search"] = Search.from_document(values["search"])
        if values["features"] is not None:
            values["features"] = tuple(values["features"])
        return cls(**values)


class OutcomeKind(StrEnum):
    REGISTERED = "REGISTERED"
    REJECTED = "REJECTED"
    FAILED = "FAILED"
    TIMED_OUT = "TIMED_OUT"
    CANCELLED = "CANCELLED"


class ErrorKind(StrEnum):
    """What went wrong, in the `error.kind` of an outcome and of its event."""

    INVALID_REQUEST = "INVALID_REQUEST"
    TRAINING_ERROR = "TRAINING_ERROR"
    OUT_OF_MEMORY = "OUT_OF_MEMORY"
    TRAINER_CRASHED = "TRAINER_CRASHED"
    WORKER_LOST = "WORKER_LOST"
    TIME_LIMIT = "TIME_LIMIT"
    CANCELLED = "CANCELLED"
    RESULT_TOO_LARGE = "RESULT_TOO_LARGE"
    QUOTA_EXCEEDED = "QUOTA_EXCEEDED"
    INTERNAL_ERROR = "INTERNAL_ERROR"


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a request did not end in a model, for its sender."""

    kind: str
    message: str


@dataclass(frozen=True, slots=True)
class StoredArtifact:
    """Where a model file is stored, under an immutable key.

    Attributes:
        uri: `gridfs://…`, `s3://…` or `file://…`; the store that wrote the file reads it.
        sha256: of the whole file, hexadecimal; checked before anything in it is parsed.
        size_bytes: of the whole file.
        file_id: the GridFS `_id` as text; None if the file is elsewhere.
    """

    uri: str
    sha256: str
    size_bytes: int
    file_id: str | None = None


@dataclass(frozen=True, slots=True)
class Model:
    """A trained and stored model: all fields of its event and registry document except the version.

    `name` is the semantic name.  `training_time` is in seconds.  `signature` lists the input columns with their types.
    `environment` is what the result depends on (library versions, threads, CPU).  `split` is a sha256 that is equal if
    two models' metrics were measured on the same rows, empty if unknown.  `evaluation` is what the request asks
    for, and `split_summary` how the rows were split, None if unknown.  `reuse_key` is equal for equal models
    (pipeline.training.reuse_key), empty if another training may give another model.  `reused_from` names the version
    whose result this one reuses (`model_name@v3`).
    """

    model_id: str
    name: str
    project: str
    user: str
    model_name: str
    algorithm: str
    model_type: str
    hyperparameters: Mapping[str, HyperparameterValue]
    metrics: Mapping[str, float]
    dataset_name: str
    dataset_fingerprint: str
    features: Sequence[str]
    target_column: str
    classes: Sequence[str]
    artifact_uri: str
    artifact_format: str
    artifact_sha256: str
    artifact_bytes: int
    file_id: str | None
    training_time: float
    created_at: datetime
    tags: Mapping[str, str]
    seed: int
    signature: Sequence[Mapping[str, str]]
    environment: Mapping[str, str]
    warnings: Sequence[str] = ()
    split: str = ""
    evaluation: Evaluation = Evaluation()
    split_summary: SplitSummary | None = None
    reuse_key: str = ""
    reused_from: str | None = None

    def __post_init__(self) -> None:
        """Make sequences tuples: stores return lists, and a model read back must equal the one written."""
        for name in ("features", "classes", "signature", "warnings"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        values = {k: tuple(v) if isinstance(v, list) else v for k, v in self.hyperparameters.items()}
        object.__setattr__(self, "hyperparameters", values)

    def to_document(self) -> dict[str, Any]:
        summary = None if self.split_summary is None else fields_of(self.split_summary)
        return fields_of(self) | {"evaluation": fields_of(self.evaluation), "split_summary": summary}

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Self:
        values = {f.name: document[f.name] for f in fields(cls) if f.name in document}
        values["evaluation"] = Evaluation.from_document(values.get("evaluation", {}))
        if values.get("split_summary") is not None:
            values["split_summary"] = SplitSummary.from_document(values["split_summary"])
        return cls(**values)


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a request ended: written once, never changed, and the source of every terminal event.

    Attributes:
        attempt: 1 for the first training of the request.
        sequence: the place of the terminal event among the request's progress events.
        started_at: when the training started, if its STARTED event is announced just before the terminal one.
        error: present unless the kind is REGISTERED.
        model: present only if the kind is REGISTERED.
    """

    request_id: str
    kind: OutcomeKind
    at: datetime
    correlation_id: str
    project: str
    model_name: str
    worker_id: str
    attempt: int = 1
    sequence: int = 0
    error: Failure | None = None
    model: Model | None = None
    traceparent: str | None = None
    started_at: datetime | None = None

    @property
    def dead_lettered(self) -> bool:
        """Whether the request's bytes also go to the dead-letter topic."""
        ours = (ErrorKind.TRAINER_CRASHED, ErrorKind.WORKER_LOST, ErrorKind.INTERNAL_ERROR)
        return self.kind is OutcomeKind.REJECTED or (self.error is not None and self.error.kind in ours)

    def to_document(self) -> dict[str, Any]:
        document = fields_of(self)
        document["kind"] = self.kind.value
        document["error"] = None if self.error is None else fields_of(self.error)
        document["model"] = None if self.model is None else self.model.to_document()
        return document

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Self:
        values = {"started_at": None, **document}  # documents of earlier versions have none
        values = {f.name: values[f.name] for f in fields(cls)}
        values["kind"] = OutcomeKind(values["kind"])
        values["error"] = None if values["error"] is None else Failure(**values["error"])
        values["model"] = None if values["model"] is None else Model.from_document(values["model"])
        return cls(**values)


@dataclass(frozen=True, slots=True)
class RegisteredModel:
    """A model with its version: the content of one registry document.

    Only `archived_at` ever changes; no event contains it.
    """

    request_id: str
    correlation_id: str
    worker_id: str
    version_number: int
    model: Model
    traceparent: str | None = None
    archived_at: datetime | None = None

    @classmethod
    def of(cls, outcome: Outcome, version_number: int) -> Self:
        """The registered model of a REGISTERED outcome.  Raises ValueError for an outcome without a model."""
        if outcome.model is None:
            raise ValueError(f"{outcome.request_id} ended {outcome.kind}: there is no model to register")
        about = (outcome.request_id, outcome.correlation_id, outcome.worker_id)
        return cls(*about, version_number, outcome.model, outcome.traceparent)

    @property
    def version(self) -> str:
        return f"v{self.version_number}"

    def to_document(self) -> dict[str, Any]:
        return {
            **self.model.to_document(),
            "request_id": self.request_id,
            "correlation_id": self.correlation_id,
            "worker_id": self.worker_id,
            "traceparent": self.traceparent,
            "version": self.version,
            "version_number": self.version_number,
            "archived_at": self.archived_at,
        }

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Self:
        own = ("request_id", "correlation_id", "worker_id", "version_number", "traceparent")
        about = {name: document[name] for name in own}
        return cls(model=Model.from_document(document), archived_at=document.get("archived_at"), **about)
