"""Exports the networks of deep models: `.keras` for Keras, and safetensors for all.

A file holds only the network.  It takes prepared rows (standardised, clipped to pipeline.deep.classifier.CLIPPED_AT, in
its input shape) and returns logits; preparation is only in the model file.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from pipeline.deep.classifier import DeepClassifier, Network, Rows
from pipeline.errors import RejectedError
from pipeline.exports import Exported
from pipeline.model_files.model_file import LoadedModel


def export_safetensors(model: LoadedModel, path: Path) -> Exported:
    """Write the weights by their layers' names.  Raises RejectedError if this is not a deep model."""
    from safetensors.numpy import load_file, save_file

    network, rows = _network(model, None)
    metadata = {name: str(model.manifest[name]) for name in ("algorithm", "request_id", "hyperparameters")}
    save_file(dict(zip(network.weight_names(), network.weights(), strict=True)), path, metadata)
    before = network.logits(rows)
    stored = load_file(path)
    network.set_weights([stored[name] for name in network.weight_names()])
    return Exported(path, len(rows), _difference(before, network.logits(rows)))


def export_keras(model: LoadedModel, path: Path) -> Exported:
    """Write the network in Keras' own format.  Raises RejectedError if it is not a Keras model."""
    network: Any
    network, rows = _network(model, "keras")
    return Exported(path, len(rows), _difference(network.logits(rows), network.store(path, rows)))


def _network(model: LoadedModel, framework: str | None) -> tuple[Network, Rows]:
    """The network, and the model's example rows as its input."""
    estimator = model.pipeline[-1]
    wanted = framework or "a deep model"
    if not isinstance(estimator, DeepClassifier) or framework not in (None, estimator.framework):
        raise RejectedError(f"{model.manifest['algorithm']} is not {wanted}, and this format is for nothing else")
    return estimator.live(), estimator.as_rows(model.prepared(model.example))


def _difference(before: Any, after: Any) -> float:
    return float(np.abs(before - after).max())
