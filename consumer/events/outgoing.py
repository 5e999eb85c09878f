"""Builds outgoing events only from stored documents, so that building one again gives the same bytes.

Each function returns the Avro form of one record of schemas/.  Maps are sorted, since stores may reorder them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from enum import StrEnum
from typing import Any

import orjson

from consumer.events.codec import Codec
from consumer.events.messages import Message, message
from consumer.events.topics import Topics
from pipeline.aliases import Alias, AliasChange
from pipeline.jobs import Failure, Outcome, OutcomeKind, RegisteredModel, TrainingRequest, event_id, milliseconds
from pipeline.training.trained import MOST_WARNINGS
from schemas import RecordType

LONGEST_WARNING = 500
"""Characters.  MOST_WARNINGS of them take 100 kB at most: with EVENT_LIMIT_BYTES that is less than the broker takes."""


class ProgressState(StrEnum):
    """The states before the terminal one; terminal states have the names of OutcomeKind."""

    ACCEPTED = "ACCEPTED"
    STARTED = "STARTED"
    LOADING = "LOADING"
    TRAINING = "TRAINING"
    EVALUATING = "EVALUATING"
    REGISTERING = "REGISTERING"
    RETRYING = "RETRYING"


def registered_event(registered: RegisteredModel) -> dict[str, Any]:
    """The ModelRegistered event of a registry document."""
    model = registered.model
    return {
        "event_id": event_id(registered.request_id, "model-registered"),
        "request_id": registered.request_id,
        "correlation_id": registered.correlation_id,
        "project": model.project,
        "user": model.user,
        "model_id": model.model_id,
        "name": model.name,
        "model_name": model.model_name,
        "version": registered.version,
        "version_number": registered.version_number,
        "algorithm": model.algorithm,
        "model_type": model.model_type,
        "hyperparameters": {name: _json(value) for name, value in sorted(model.hyperparameters.items())},
        "metrics": _metrics(model.metrics),
        "dataset_name": model.dataset_name,
        "dataset_fingerprint": model.dataset_fingerprint,
        "features": list(model.features),
        "target_column": model.target_column,
        "classes": list(model.classes),
        "artifact_uri": model.artifact_uri,
        "artifact_format": model.artifact_format,
        "artifact_sha256": model.artifact_sha256,
        "artifact_bytes": model.artifact_bytes,
        "training_time": float(model.training_time),
        "created_at": milliseconds(model.created_at),
        "tags": dict(sorted(model.tags.items())),
        "reused_from": model.reused_from,
        "warnings": [_cut(warning) for warning in model.warnings[:MOST_WARNINGS]],
    }


def started_progress(outcome: Outcome) -> dict[str, Any]:
    """The STARTED event of a training that was over so soon that it is announced with the terminal event."""
    assert outcome.started_at is not None
    return progress_event(
        outcome,
        ProgressState.STARTED,
        attempt=outcome.attempt,
        sequence=outcome.sequence - 1,
        worker_id=outcome.worker_id,
        occurred_at=outcome.started_at,
    )


def terminal_progress(outcome: Outcome, registered: RegisteredModel | None = None) -> dict[str, Any]:
    """The only terminal TrainingProgress of a request; a REGISTERED outcome needs its registry document."""
    if outcome.kind is OutcomeKind.REGISTERED:
        if registered is None:
            raise ValueError(f"{outcome.request_id}: a REGISTERED outcome is announced with its registry document")
        message = f"{registered.model.project}/{registered.model.model_name} {registered.version} is registered"
        metrics = _metrics(registered.model.metrics)
    else:
        message = "" if outcome.error is None else outcome.error.message
        metrics = {}
    return {
        "event_id": event_id(outcome.request_id, outcome.kind.value),
        "request_id": outcome.request_id,
        "correlation_id": outcome.correlation_id,
        "project": outcome.project,
        "model_name": outcome.model_name,
        "attempt": outcome.attempt,
        "sequence": outcome.sequence,
        "state": outcome.kind.value,
        "fraction": 1.0 if outcome.kind is OutcomeKind.REGISTERED else None,
        "step": None,
        "steps": None,
        "message": message,
        "error": _error(outcome.error),
        "metrics": metrics,
        "cpu_s": None,
        "rss_bytes": None,
        "worker_id": outcome.worker_id,
        "occurred_at": milliseconds(outcome.at),
    }


def progress_event(
    request: TrainingRequest | Outcome,
    state: ProgressState,
    *,
    attempt: int,
    sequence: int,
    worker_id: str,
    occurred_at: datetime,
    fraction: float | None = None,
    step: int | None = None,
    steps: int | None = None,
    message: str = "",
    error: Failure | None = None,
    metrics: Mapping[str, float] | None = None,
    cpu_s: float | None = None,
    rss_bytes: int | None = None,
) -> dict[str, Any]:
    """A TrainingProgress before the terminal one; worker and time are in its event_id, so no two attempts share one."""
    occurred_at = milliseconds(occurred_at)
    place = f"{state.value}/{attempt}/{sequence}/{worker_id}/{occurred_at.isoformat(timespec='milliseconds')}"
    return {
        "event_id": event_id(request.request_id, place),
        "request_id": request.request_id,
        "correlation_id": request.correlation_id,
        "project": request.project,
        "model_name": request.model_name,
        "attempt": attempt,
        "sequence": sequence,
        "state": state.value,
        "fraction": fraction,
        "step": step,
        "steps": steps,
        "message": message,
        "error": _error(error),
        "metrics": _metrics(metrics or {}),
        "cpu_s": cpu_s,
        "rss_bytes": rss_bytes,
        "worker_id": worker_id,
        "occurred_at": occurred_at,
    }


def alias_changed(alias: Alias, change: AliasChange) -> dict[str, Any]:
    """The ModelAliasChanged event of one change in an alias's history."""
    return {
        "event_id": event_id(f"{alias.project}/{alias.model_name}/{alias.alias}", f"alias-changed/{change.sequence}"),
        "project": alias.project,
        "model_name": alias.model_name,
        "alias": alias.alias,
        "version": _version(change.version_number),
        "previous_version": _version(change.previous_version_number),
        "sequence": change.sequence,
        "reason": change.reason.value,
        "user": change.user,
        "occurred_at": milliseconds(change.occurred_at),
    }


def _version(number: int | None) -> str | None:
    return None if number is None else f"v{number}"


def _metrics(metrics: Mapping[str, float]) -> dict[str, float]:
    return {name: float(value) for name, value in sorted(metrics.items())}


def _error(error: Failure | None) -> dict[str, str] | None:
    return None if error is None else {"kind": str(error.kind), "message": error.message}


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST_WARNING else f"{text[: LONGEST_WARNING - 1]}…"


def _json(value: Any) -> str:
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS).decode()


def outcome_messages(
    codec: Codec, topics: Topics, outcome: Outcome, registered: RegisteredModel | None
) -> Iterator[Message]:
    """The progress events of an outcome, of which the last is terminal, and model-registered if it has a model."""
    if outcome.started_at is not None:
        yield message(codec, topics, RecordType.TRAINING_PROGRESS, started_progress(outcome), outcome.traceparent)
    terminal = terminal_progress(outcome, registered)
    yield message(codec, topics, RecordType.TRAINING_PROGRESS, terminal, outcome.traceparent)
    if registered is not None:
        event = registered_event(registered)
        yield message(codec, topics, RecordType.MODEL_REGISTERED, event, registered.traceparent)
