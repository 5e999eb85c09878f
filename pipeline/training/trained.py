"""The result of a training, as the trainer sends it to the worker; needs no scikit-learn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import orjson

from pipeline.jobs import HyperparameterValue, SplitSummary

SEARCH_NOTES = "search.jsonl"
"""The file in the spool with the scores of a search; the next attempt does not repeat them."""
EPOCH_STATE = "epoch_state.npz"
"""The file in the spool with the finished epochs of a deep network; the next attempt does not repeat them."""
MOST_WARNINGS = 50
KEPT = (SEARCH_NOTES, EPOCH_STATE)
"""The files that the next attempt of a training continues from."""


@dataclass(frozen=True, slots=True)
class Trained:
    """The result of a training: a model file in the spool, and the fields of its events and documents.

    Attributes:
        hyperparameters: all of them, defaults resolved.
        metrics: of the test part, except train_accuracy (or train_r2) and cv_*.
        classes: as text, in the model's order; empty for a regressor.
        training_time: seconds from the start of loading to the written file.
        split: see Split.fingerprint.
        reproducible: whether the same training gives the same model again.
        signature: input columns as {name, type}, in the order of `features`.
    """

    model_file: Path
    sha256: str
    size_bytes: int
    artifact_format: str
    model_type: str
    hyperparameters: Mapping[str, HyperparameterValue]
    metrics: Mapping[str, float]
    dataset_fingerprint: str
    features: Sequence[str]
    target_column: str
    classes: Sequence[str]
    training_time: float
    signature: Sequence[Mapping[str, str]]
    environment: Mapping[str, str]
    warnings: Sequence[str]
    split: str
    reproducible: bool
    split_summary: SplitSummary

    def to_json(self) -> bytes:
        return orjson.dumps(self, default=str)

    @classmethod
    def from_json(cls, data: bytes) -> Self:
        values: dict[str, Any] = orjson.loads(data)
        summary = SplitSummary.from_document(values["split_summary"])
        return cls(**{**values, "model_file": Path(values["model_file"]), "split_summary": summary})
