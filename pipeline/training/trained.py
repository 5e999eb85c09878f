"""The result of a training on its way from the trainer to the worker; needs no scikit-learn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import orjson

from pipeline.jobs import HyperparameterValue

SEARCH_NOTES = "search.jsonl"
"""What a search has scored, in the spool folder: the next attempt does not score it again."""
EPOCH_STATE = "epoch_state.npz"
"""The epochs of a deep network that are done, likewise."""
KEPT = (SEARCH_NOTES, EPOCH_STATE)
"""What the next attempt of a training goes on from."""


@dataclass(frozen=True, slots=True)
class Trained:
    """What a training leaves behind: a model file in the spool directory, and what events and documents say of it.

    Attributes:
        hyperparameters: all of them, defaults resolved.
        metrics: on the test part, but for train_accuracy (or train_r2) and cv_*.
        classes: as text, in the order of the model's; empty for a regressor.
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

    def to_json(self) -> bytes:
        return orjson.dumps(asdict(self), default=str)

    @classmethod
    def from_json(cls, data: bytes) -> Self:
        values: dict[str, Any] = orjson.loads(data)
        return cls(**{**values, "model_file": Path(values["model_file"])})
