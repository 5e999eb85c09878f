"""Exports a stored model to a format that other programs read, after checking it against the model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import RejectedError
from pipeline.model_files.model_file import LoadedModel

__all__ = ["FORMATS", "Exported", "export"]


@dataclass(frozen=True, slots=True)
class Exported:
    """A written export.  `difference` is the largest found between its answers and the model's."""

    path: Path
    rows_compared: int
    difference: float


def _onnx(model: LoadedModel, path: Path) -> Exported:
    from pipeline.exports.onnx import export_onnx

    return export_onnx(model, path)


def _keras(model: LoadedModel, path: Path) -> Exported:
    from pipeline.exports.deep import export_keras

    return export_keras(model, path)


def _safetensors(model: LoadedModel, path: Path) -> Exported:
    from pipeline.exports.deep import export_safetensors

    return export_safetensors(model, path)


FORMATS: Mapping[str, Callable[[LoadedModel, Path], Exported]] = {
    "keras": _keras,
    "onnx": _onnx,
    "safetensors": _safetensors,
}
"""Each function imports its libraries only when it is called."""


def export(model: LoadedModel, format_name: str, path: Path) -> Exported:
    """Write `model` to `path`.  Raises RejectedError if there is no such format or it cannot hold this model."""
    if format_name not in FORMATS:
        raise RejectedError(f"there is no format {format_name!r}; there are {', '.join(FORMATS)}")
    return FORMATS[format_name](model, path)
