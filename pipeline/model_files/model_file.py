"""A model file: one zip archive with all that is needed to score raw rows; nothing in it is executed.

    model.skops        the fitted pipeline: preparation and estimator
    manifest.json      format, columns with their roles, tensors with their shapes, target, classes, hyperparameters,
                       environment, warnings
    signature.json     input columns and output with their types
    example.json       up to five raw rows
    evaluation.json    metrics, confusion matrix, per class, test predictions, and what a report adds
    report.html, model_card.md    where the request asks for a report
    requirements.txt, MLmodel, python_env.yaml    so that the unpacked directory loads in MLflow

The sha256 of the whole file is checked before anything in it is read, and only types of a fixed list are built.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import orjson
import pandas as pd
from numpy.typing import NDArray
from sklearn.pipeline import Pipeline

from pipeline.algorithms import catalogue
from pipeline.artifacts import ArtifactStore
from pipeline.deep.classifier import DeepClassifier
from pipeline.environment import requirements
from pipeline.errors import CorruptArtifactError, RejectedError
from pipeline.features import tensors
from pipeline.features.columns import Column, Role, read
from pipeline.features.preparation import as_rows, check_range, known_categories
from pipeline.jobs import RegisteredModel
from pipeline.model_files.checks import check_places
from pipeline.model_files.mlflow_files import mlmodel, python_env
from pipeline.model_files.skops_reader import loads
from pipeline.model_files.skops_writer import dumps
from pipeline.model_files.zip_files import archive, packed, unpack, unpacked

FORMAT = 2
"""Rises with every change that an older reader would misread; readers of older formats stay, and stay tested."""
ARTIFACT_FORMAT = f"tensorfleet-model/{FORMAT}"
NEEDED = ("manifest.json", "model.skops", "example.json", "evaluation.json")

TRUSTED_TYPES = (
    "numpy.asarray",
    "numpy.dtype",
    "numpy.ravel",
    "scipy.sparse._csr.csr_matrix",
    "sklearn.neural_network._stochastic_optimizers.AdamOptimizer",
    "sklearn.neural_network._stochastic_optimizers.SGDOptimizer",
    "sklearn.tree._tree.Tree",
    "tensorfleet.model_types.DateFeatures",
)
"""What a model file may hold beyond what skops trusts by itself; reviewed, never taken from a file.

The functions are pure; a Tree and a sparse matrix can hold places outside of themselves, which `check_places` looks
for.
"""
FORMER_TYPES = {
    1: (
        "pipeline.dates.DateFeatures",
        *(f"pipeline.deep.classifiers.{name}" for name in ("KerasCNN", "KerasDNN", "TorchCNN", "TorchLSTM")),
        *(f"pipeline.deep.classifiers.{name}" for name in ("TorchLogistic", "TorchMLP", "TorchTransformer")),
    ),
}
"""By format: names of ours that only files of it hold.  Those of later formats are in `tensorfleet.model_types`."""

_OPTIONS = orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NON_STR_KEYS


@dataclass(frozen=True, slots=True)
class ModelContent:
    """What goes into a model file.

    Attributes:
        pipeline: fitted on training rows.
        target_type: MLflow's name for what is predicted: long, boolean, string, double.
        example: raw rows.
        evaluation: JSON types and numpy arrays.
        manifest: what else is to be known, JSON types.
        pages: texts for people, by file name.
    """

    pipeline: Pipeline
    columns: Sequence[Column]
    target_column: str
    target_type: str
    classes: Sequence[str]
    example: Sequence[Mapping[str, Any]]
    evaluation: Mapping[str, Any]
    manifest: Mapping[str, Any]
    model_id: str
    created: datetime
    pages: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Written:
    path: Path
    sha256: str
    size_bytes: int


def write(content: ModelContent, path: Path) -> Written:
    """Write a model file; the same content gives the same bytes.  Not synced: the artifact store makes it durable."""
    columns = content.columns
    model = dumps(content.pipeline)
    manifest = {
        "format": FORMAT,
        "columns": [{**column.to_document(), "role": column.role} for column in columns],
        "features": [column.name for column in columns],
        "target": content.target_column,
        "target_type": content.target_type,
        "classes": content.classes,
        **content.manifest,
    }
    signature = {
        "inputs": [column.to_document() for column in columns],
        "outputs": [{"name": content.target_column, "type": content.target_type}],
    }
    needed = requirements() + requirements(_ours(content.pipeline[-1], columns))
    data = archive(
        {
            "manifest.json": _json(manifest),
            "model.skops": model,
            "MLmodel": mlmodel(columns, content.target_type, trusted_types(), content.model_id, content.created),
            "signature.json": _json(signature),
            "example.json": _json(content.example),
            "evaluation.json": _json(content.evaluation),
            "requirements.txt": "".join(f"{line}\n" for line in needed),
            "python_env.yaml": python_env(),
            **content.pages,
        }
    )
    path.write_bytes(data)
    return Written(path, hashlib.sha256(data).hexdigest(), len(data))


def load(path: Path, sha256: str | None = None) -> LoadedModel:
    """Read a model file, or the directory that one was unpacked to.

    Raises CorruptArtifactError if its bytes do not have this sha256, if it is no model file, or if it was written by
    a newer version; FileNotFoundError if it is not there.
    """
    data = packed(path) if path.is_dir() else path.read_bytes()
    found = hashlib.sha256(data).hexdigest()
    if sha256 is not None and found != sha256.lower():
        raise CorruptArtifactError(f"{path} has the sha256 {found}, but {sha256} was recorded for it")
    return _parse(data, str(path))


def fetch(artifacts: ArtifactStore, registered: RegisteredModel) -> LoadedModel:
    """The model of a registered version, from the store that holds its file.

    Raises NotFoundError if the file is gone, and what `load` raises.
    """
    with TemporaryDirectory(prefix="tensorfleet-") as folder:
        file = Path(folder, "model.zip")
        artifacts.fetch(registered.model.artifact_uri, file)
        return replace(load(file, registered.model.artifact_sha256), version=registered.version)


@dataclass(frozen=True, slots=True)
class Predictions:
    """What a model says of some rows.

    Attributes:
        labels: one a row, of the type that the target had: int, bool, str, or float.
        probabilities: shape (rows, len(classes)), or None where the model has none.
        classes: the labels that the probabilities are of.
        extra_columns: columns that came along and were not needed.
        unseen: by column, how many rows had a category that training had not.
    """

    labels: Sequence[Any]
    probabilities: NDArray[np.float64] | None
    classes: Sequence[Any]
    extra_columns: Sequence[str]
    unseen: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model that scores raw rows; it may be used by several threads.

    Attributes:
        evaluation: what was measured when it was trained.
        version: `v3`, where it comes from the registry.
    """

    manifest: Mapping[str, Any]
    pipeline: Pipeline
    columns: Sequence[Column]
    example: Sequence[Mapping[str, Any]]
    evaluation: Mapping[str, Any]
    data: bytes
    version: str = ""

    def predict(self, rows: pd.DataFrame | Sequence[Mapping[str, Any]]) -> Predictions:
        """Columns match by name, in any order; a tensor may come as the column of lists that training had, or spread.

        Raises RejectedError that lists what is missing or cannot be read.
        """
        frame = rows if isinstance(rows, pd.DataFrame) else pd.DataFrame.from_records(list(rows))
        shapes = self._shapes()
        frame = tensors.spread(frame, shapes)
        names = [column.name for column in self.columns]
        missing = [name for name in names if name not in frame.columns]
        if missing:
            raise RejectedError(f"the rows lack {len(missing)} of the model's columns: {_listed(missing, shapes)}")
        extra = tuple(str(name) for name in frame.columns if name not in names)
        classes = getattr(self.pipeline, "classes_", np.array([])).tolist()
        if frame.empty:
            return Predictions([], None, classes, extra, {})
        try:
            values = {column.name: read(frame[column.name], column) for column in self.columns}
        except ValueError as wrong:
            raise RejectedError(str(wrong)) from None
        prepared = self._transformed(list(values.values()))
        check_range([step for _, step in self.pipeline.steps[:-1]], prepared, self.columns)
        estimator = self.pipeline[-1]
        probabilities = estimator.predict_proba(prepared) if hasattr(estimator, "predict_proba") else None
        labels = estimator.predict(prepared).tolist()
        return Predictions(labels, probabilities, classes, extra, self._unseen(values))

    def prepared(self, rows: Sequence[Mapping[str, Any]]) -> Any:
        """Raw rows, as the estimator gets them."""
        frame = tensors.spread(pd.DataFrame.from_records(list(rows)), self._shapes())
        return self._transformed([read(frame[column.name], column) for column in self.columns])

    def unpack(self, directory: Path) -> None:
        """Write the members into a directory, which MLflow then loads.  It is made if it is not there."""
        unpack(self.data, directory)

    def _shapes(self) -> Mapping[str, tensors.Shape]:
        """Of the columns of lists, by name."""
        return {name: tuple(shape) for name, shape in self.manifest.get("tensors", {}).items()}

    def _transformed(self, values: Sequence[NDArray[Any]]) -> Any:
        """scikit-learn warns when a pipeline that knows names is given a bare matrix."""
        rows = as_rows(values, self.columns)
        if not isinstance(rows, pd.DataFrame):
            rows = pd.DataFrame(rows, columns=pd.Index([column.name for column in self.columns]))
        return self.pipeline[:-1].transform(rows)

    def _unseen(self, values: Mapping[str, NDArray[Any]]) -> dict[str, int]:
        counts = {}
        for name, seen in known_categories(self.pipeline).items():
            count = sum(1 for value in values[name] if isinstance(value, str) and value not in seen)
            if count:
                counts[name] = count
        return counts


def trusted_types() -> list[str]:
    """The fixed list, and what the installed algorithms add to it."""
    return sorted({*TRUSTED_TYPES, *(name for entry in catalogue().values() for name in entry.trusted_types)})


def _parse(data: bytes, name: str) -> LoadedModel:
    try:
        return _read(data)
    except CorruptArtifactError as wrong:
        raise CorruptArtifactError(f"{name} {wrong}") from wrong
    except MemoryError:  # the reader's: what a file claims is checked before
        raise
    except Exception as wrong:  # skops raises whatever it stumbles on in a state that it has not written
        raise CorruptArtifactError(f"{name} is no model file: {str(wrong)[:500] or type(wrong).__name__}") from wrong


def _read(data: bytes) -> LoadedModel:
    members = unpacked(data)
    if missing := [name for name in NEEDED if name not in members]:
        raise CorruptArtifactError(f"is no model file: there is no item named {missing[0]} in it")
    manifest = orjson.loads(members["manifest.json"])
    _check_format(manifest)
    pipeline = loads(members["model.skops"], [*trusted_types(), *FORMER_TYPES.get(manifest["format"], ())])
    if not isinstance(pipeline, Pipeline) or not pipeline.steps:
        raise TypeError("its model.skops holds no pipeline")
    example, evaluation = (orjson.loads(members[f"{part}.json"]) for part in ("example", "evaluation"))
    columns = [Column(str(c["name"]), Role(c["role"]), str(c["type"])) for c in manifest["columns"]]
    check_places(pipeline)
    return LoadedModel(manifest, pipeline, columns, example, evaluation, data)


def _check_format(manifest: Mapping[str, Any]) -> None:
    found = manifest.get("format")
    if not isinstance(found, int) or found < 1:
        raise ValueError(f"its format is {found!r}")
    if found > FORMAT:
        raise CorruptArtifactError(
            f"has the format {found}; this version reads formats up to {FORMAT}: upgrade tensorfleet-worker"
        )


def _listed(names: Sequence[str], shapes: Mapping[str, tensors.Shape]) -> str:
    """A tensor of which nothing is there by its own name."""
    whole = {name: shape for name, shape in shapes.items() if set(names).issuperset(tensors.parts(name, shape))}
    said = tensors.gathered(dict.fromkeys(names), whole)
    return ", ".join(f"{name} (lists of {tensors.shown(whole[name])})" if name in whole else name for name in said)


def _ours(model: Any, columns: Sequence[Column]) -> list[str]:
    """What of ours is needed to load the model."""
    if isinstance(model, DeepClassifier):
        return [f"tensorfleet-worker[{model.framework}]"]
    return ["tensorfleet-worker"] if any(column.role is Role.DATE for column in columns) else []


def _json(value: Any) -> bytes:
    return orjson.dumps(value, default=_plain, option=_OPTIONS)


def _plain(value: Any) -> Any:
    """orjson takes arrays only as C lays them out."""
    return value.tolist() if isinstance(value, np.ndarray) else str(value)
