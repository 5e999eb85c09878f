"""Builds the outcome of a request from its training's result, an equal training's result, or a failure."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from consumer.jobs.event_numbers import EventNumbers
from pipeline.jobs import (
    Failure,
    Model,
    Outcome,
    OutcomeKind,
    RegisteredModel,
    StoredArtifact,
    TrainingRequest,
    event_id,
)
from pipeline.registry.model_names import semantic_name
from pipeline.training.trained import Trained


@dataclass(frozen=True, slots=True)
class Ending:
    """When and where a request ended, and the numbers of its events, of which the terminal one gets the last."""

    at: datetime
    worker_id: str
    attempt: int
    numbers: EventNumbers


@dataclass(frozen=True, slots=True)
class Result:
    """A training that made a model, with its files in `spool`.

    Attributes:
        reuse_key: equal for equal trainings.
        trained: a `Trained` as JSON; empty if it is a file in the spool.
    """

    request: TrainingRequest
    ending: Ending
    spool: Path
    reuse_key: str = ""
    trained: bytes = b""


@dataclass(frozen=True, slots=True)
class Reused:
    """A request that gets the result of an equal training, the version `source`."""

    request: TrainingRequest
    ending: Ending
    source: RegisteredModel


def negative_outcome(request: TrainingRequest, ending: Ending, kind: OutcomeKind, failure: Failure) -> Outcome:
    """The outcome of a request that ended without a model."""
    return _outcome(request, ending, kind, failure=failure)


def registered_outcome(result: Result, trained: Trained, stored: StoredArtifact) -> Outcome:
    """The outcome of a training whose model file is stored."""
    request = result.request
    model = Model(
        model_id=event_id(request.request_id, "model"),
        name=semantic_name(request, result.ending.at),
        project=request.project,
        user=request.user,
        model_name=request.model_name,
        algorithm=request.algorithm,
        model_type=trained.model_type,
        hyperparameters=trained.hyperparameters,
        metrics=trained.metrics,
        dataset_name=request.dataset_name,
        dataset_fingerprint=trained.dataset_fingerprint,
        features=trained.features,
        target_column=trained.target_column,
        classes=trained.classes,
        artifact_uri=stored.uri,
        artifact_format=trained.artifact_format,
        artifact_sha256=stored.sha256,
        artifact_bytes=stored.size_bytes,
        file_id=stored.file_id,
        training_time=trained.training_time,
        created_at=result.ending.at,
        tags=request.tags,
        seed=request.seed,
        signature=trained.signature,
        environment=trained.environment,
        warnings=trained.warnings,
        split=trained.split,
        evaluation=request.evaluation,
        split_summary=trained.split_summary,
        reuse_key=result.reuse_key if trained.reproducible else "",
    )
    return _outcome(request, result.ending, OutcomeKind.REGISTERED, model=model)


def reused_outcome(reused: Reused) -> Outcome:
    """The outcome of a request that gets another version's model."""
    request, source = reused.request, reused.source
    model = replace(
        source.model,
        model_id=event_id(request.request_id, "model"),
        name=semantic_name(request, reused.ending.at),
        project=request.project,
        user=request.user,
        model_name=request.model_name,
        dataset_name=request.dataset_name,
        created_at=reused.ending.at,
        tags=request.tags,
        reused_from=f"{source.model.model_name}@{source.version}",
    )
    return _outcome(request, reused.ending, OutcomeKind.REGISTERED, model=model)


def _outcome(
    request: TrainingRequest,
    ending: Ending,
    kind: OutcomeKind,
    *,
    model: Model | None = None,
    failure: Failure | None = None,
) -> Outcome:
    last = ending.numbers.last()
    return Outcome(
        request_id=request.request_id,
        kind=kind,
        at=ending.at,
        correlation_id=request.correlation_id,
        project=request.project,
        model_name=request.model_name,
        worker_id=ending.worker_id,
        attempt=ending.attempt,
        sequence=last.sequence,
        error=failure,
        model=model,
        traceparent=request.traceparent,
        started_at=last.started_at,
    )
