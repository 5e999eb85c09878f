"""Writes and reads a model file: one zip archive with all that is needed to score raw rows.

    model.skops        the fitted pipeline: preparation and estimator
    manifest.json      format, columns with their roles, tensors with their shapes, target, classes, hyperparameters,
                       environment, warnings
    signature.json     input columns and output with their types
    example.json       up to five raw rows
    evaluation.json    metrics, confusion matrix, per class, test predictions, and what a report adds
    report.html, model_card.md    where the request asks for a report
    requirements.txt, MLmodel, python_env.yaml    so that the unpacked directory loads in MLflow

Nothing in it is executed.  `load` checks the sha256 of the whole file, if given, before it parses anything, and builds
only types of a fixed list.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import orjson
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray
from sklearn.pipeline import Pipeline

from pipeline.algorithms import catalogue
from pipeline.artifacts import ArtifactStore
from pipeline.deep.classifier import DeepClassifier
from pipeline.environment import requirements
from pipeline.errors import CorruptArtifactError, RejectedError
from pipeline.evaluation import answers
from pipeline.features import tensors
from pipeline.features.columns import Column, Role, read
from pipeline.features.frames import frame_of
from pipeline.features.preparation import as_rows, check_range, known_categories, owners
from pipeline.jobs import RegisteredModel
from pipeline.model_files.checks import check_places
from pipeline.model_files.contributions import Contributions, check_explainable, contributions
from pipeline.model_files.mlflow_files import mlmodel, python_env
from pipeline.model_files.skops_reader import loads
from pipeline.model_files.skops_writer import dumps
from pipeline.model_files.zip_files import archive, packed, unpack, unpacked
from pipeline.reading.texts import NA_WORDS

FORMAT = 2
"""Raise it with every change that an older reader would misread; readers of older formats are kept and tested."""
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
"""The types that a model file may hold beyond those that skops trusts.  Reviewed by hand, never taken from a file.

The functions are pure.  Trees and sparse matrices may hold indices outside themselves; `check_places` rejects these.
"""
FORMER_TYPES = {
    1: (
        "pipeline.dates.DateFeatures",
        *(f"pipeline.deep.classifiers.{name}" for name in ("KerasCNN", "KerasDNN", "TorchCNN", "TorchLSTM")),
        *(f"pipeline.deep.classifiers.{name}" for name in ("TorchLogistic", "TorchMLP", "TorchTransformer")),
    ),
}
"""By format: type names of ours that only its files hold.  Later names are in `tensorfleet.model_types`."""

MOST_LISTED = 20
PREPARED_AT_ONCE = 4_000_000
"""The most prepared values of a part of the rows to predict: 32 MB, and as much again for each copy that steps make."""
FEWEST_AT_ONCE, MOST_AT_ONCE = 1_000, 50_000
"""Rows of a part.  Fewer take more time in all; more than this took no less (20 columns, scikit-learn 1.9)."""

_OPTIONS = orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NON_STR_KEYS


@dataclass(frozen=True, slots=True)
class ModelContent:
    """The content of a model file.

    Attributes:
        pipeline: fitted on training rows.
        target_type: MLflow's name for the type of the target: long, boolean, string, double.
        example: raw rows.
        evaluation: JSON types and numpy arrays.
        manifest: the manifest's other fields, JSON types.
        pages: the report's pages, by file name.
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
    """Write a model file; equal content gives equal bytes.  Does not fsync: the artifact store makes it durable."""
    columns = content.columns
    model = dumps(content.pipeline)
    manifest = {
        "format": FORMAT,
        "columns": [_described(column) for column in columns],
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


def _described(column: Column) -> dict[str, Any]:
    said = {"notation": column.notation, "missing": list(column.missing)}
    return {**column.to_document(), "role": column.role, **{name: value for name, value in said.items() if value}}


def _texts(given: Sequence[object]) -> tuple[str, ...]:
    return tuple(map(str, given))


def load(path: Path, sha256: str | None = None) -> LoadedModel:
    """Read a model file, or a directory that one was unpacked to.

    Raises CorruptArtifactError if its bytes do not have this sha256, if it is not a model file, or if a newer version
    wrote it; FileNotFoundError if it does not exist.
    """
    data = packed(path) if path.is_dir() else path.read_bytes()
    found = hashlib.sha256(data).hexdigest()
    if sha256 is not None and found != sha256.lower():
        raise CorruptArtifactError(f"{path} has the sha256 {found}, but {sha256} was recorded for it")
    return _parse(data, str(path))


def fetch(artifacts: ArtifactStore, registered: RegisteredModel) -> LoadedModel:
    """Fetch the model of a registered version from the artifact store.

    Raises NotFoundError if the file is gone, and what `load` raises.
    """
    with TemporaryDirectory(prefix="tensorfleet-") as folder:
        file = Path(folder, "model.zip")
        artifacts.fetch(registered.model.artifact_uri, file)
        return replace(load(file, registered.model.artifact_sha256), version=registered.version)


@dataclass(frozen=True, slots=True)
class Predictions:
    """A model's predictions for some rows.

    Attributes:
        labels: one per row, of the target's type: int, bool, str, or float.
        probabilities: shape (rows, len(classes)), or None if the model gives none.
        classes: the labels of the probabilities' columns.
        extra_columns: columns of the rows that the model does not use.
        unseen: by column, the number of rows with a category that was not seen in training.
        contributions: what each raw column adds to each prediction, if that was asked for.
    """

    labels: Sequence[Any]
    probabilities: NDArray[np.float64] | None
    classes: Sequence[Any]
    extra_columns: Sequence[str]
    unseen: Mapping[str, int]
    contributions: Contributions | None = None


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model that scores raw rows; several threads may use it.

    Attributes:
        evaluation: the content of evaluation.json, measured in training.
        version: such as `v3`, if it comes from the registry.
    """

    manifest: Mapping[str, Any]
    pipeline: Pipeline
    columns: Sequence[Column]
    example: Sequence[Mapping[str, Any]]
    evaluation: Mapping[str, Any]
    data: bytes
    version: str = ""

    def predict(self, rows: pd.DataFrame | Sequence[Mapping[str, Any]], *, explain: bool = False) -> Predictions:
        """Score rows.  Columns match by name, in any order; a tensor may be a column of lists or spread over columns.

        With `explain` also what each column adds to each prediction, which trees, forests and linear models have.

        Raises RejectedError that lists missing columns, or names one with a value that cannot be read; also, with
        `explain`, if the model is none of these.
        """
        if explain:
            check_explainable(self.pipeline[-1], self.manifest["algorithm"])
        frame = rows if isinstance(rows, pd.DataFrame) else pd.DataFrame.from_records(list(rows))
        shapes = self._shapes()
        frame = tensors.spread(frame, shapes)
        names = [column.name for column in self.columns]
        missing = [name for name in names if name not in frame.columns]
        if missing:
            there = ", ".join(map(str, frame.columns[:MOST_LISTED])) or "none"
            raise RejectedError(
                f"the rows lack {len(missing)} of the model's columns: {_listed(missing, shapes)}; they have {there}"
            )
        extra = tuple(str(name) for name in frame.columns if name not in names)
        classes = getattr(self.pipeline, "classes_", np.array([])).tolist()
        if frame.empty:
            return Predictions([], None, classes, extra, {})
        try:
            values, unseen = self._known({column.name: read(frame[column.name], column) for column in self.columns})
        except ValueError as wrong:
            raise RejectedError(str(wrong)) from None
        prepared = self._transformed(list(values.values()))
        check_range([step for _, step in self.pipeline.steps[:-1]], prepared, self.columns)
        estimator = self.pipeline[-1]
        labels, probabilities = answers(estimator, prepared)
        explained = contributions(estimator, prepared, self._owners(), labels) if explain else None
        return Predictions(labels.tolist(), probabilities, classes, extra, unseen, explained)

    def predict_in_parts(self, table: pa.Table, *, explain: bool = False) -> Iterator[Predictions]:
        """Score the rows of a table part by part, so that memory stays bounded; errors count rows in the whole table.

        Raises what `predict` raises, when it comes to the part.
        """
        at_once = min(max(PREPARED_AT_ONCE // len(self._owners()), FEWEST_AT_ONCE), MOST_AT_ONCE)
        for start in range(0, table.num_rows, at_once):
            frame = frame_of(table.slice(start, at_once))
            frame.index = pd.RangeIndex(start, start + len(frame))
            yield self.predict(frame, explain=explain)

    def prepared(self, rows: Sequence[Mapping[str, Any]]) -> Any:
        """Raw rows as the matrix that the estimator gets."""
        frame = tensors.spread(pd.DataFrame.from_records(list(rows)), self._shapes())
        return self._transformed([read(frame[column.name], column) for column in self.columns])

    def unpack(self, directory: Path) -> None:
        """Write the members into a directory that MLflow can load; create it if needed."""
        unpack(self.data, directory)

    def _shapes(self) -> Mapping[str, tensors.Shape]:
        """The shapes of the tensor columns, by name."""
        return {name: tuple(shape) for name, shape in self.manifest.get("tensors", {}).items()}

    def _owners(self) -> list[str]:
        """The raw column of each prepared column; a tensor is one."""
        tensor = {part: name for name, shape in self._shapes().items() for part in tensors.parts(name, shape)}
        return [tensor.get(name, name) for name in owners(self.pipeline, self.columns)]

    def _transformed(self, values: Sequence[NDArray[Any]]) -> Any:
        """Prepare the values.  As a frame: scikit-learn warns if a pipeline that knows names gets a bare matrix."""
        if all(column.role is Role.NUMERIC for column in self.columns):
            rows = pd.DataFrame(np.array(values).T, columns=pd.Index([column.name for column in self.columns]))
        else:
            rows = pd.DataFrame(as_rows(values, self.columns))
        return self.pipeline[:-1].transform(rows)

    def _known(self, values: dict[str, NDArray[Any]]) -> tuple[dict[str, NDArray[Any]], dict[str, int]]:
        """Makes words such as NA missing where the model knows no such category, as reading a dataset does.

        Also returns, by column, how many rows hold another category that the model does not know.
        """
        unseen = {}
        for name, seen in known_categories(self.pipeline).items():
            places, words = pd.factorize(values[name])
            is_unknown = np.array([word not in seen for word in words], dtype=bool)
            is_mark = is_unknown & np.isin(words, NA_WORDS)
            if is_mark.any():
                values[name] = np.where(np.append(is_mark, False)[places], np.nan, values[name])
            if count := int(np.append(is_unknown & ~is_mark, False)[places].sum()):
                unseen[name] = count
        return values, unseen


def trusted_types() -> list[str]:
    """The fixed list, and the types that the installed algorithms add."""
    return sorted({*TRUSTED_TYPES, *(name for entry in catalogue().values() for name in entry.trusted_types)})


def _parse(data: bytes, name: str) -> LoadedModel:
    try:
        return _read(data)
    except CorruptArtifactError as wrong:
        raise CorruptArtifactError(f"{name} {wrong}") from wrong
    except MemoryError:  # the reader's own memory: sizes that a file claims are checked before
        raise
    except Exception as wrong:  # skops raises any exception for a state that it has not written
        raise CorruptArtifactError(f"{name} is not a model file: {str(wrong)[:500] or type(wrong).__name__}") from wrong


def _read(data: bytes) -> LoadedModel:
    members = unpacked(data)
    if missing := [name for name in NEEDED if name not in members]:
        raise CorruptArtifactError(f"is not a model file: there is no item named {missing[0]} in it")
    manifest = orjson.loads(members["manifest.json"])
    _check_format(manifest)
    pipeline = loads(members["model.skops"], [*trusted_types(), *FORMER_TYPES.get(manifest["format"], ())])
    if not isinstance(pipeline, Pipeline) or not pipeline.steps:
        raise TypeError("its model.skops holds no pipeline")
    example, evaluation = (orjson.loads(members[f"{part}.json"]) for part in ("example", "evaluation"))
    columns = [
        Column(
            str(c["name"]), Role(c["role"]), str(c["type"]), str(c.get("notation", "")), _texts(c.get("missing", ()))
        )
        for c in manifest["columns"]
    ]
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
    """The missing columns; a tensor without any of its numbers is listed by its own name."""
    whole = {name: shape for name, shape in shapes.items() if set(names).issuperset(tensors.parts(name, shape))}
    said = tensors.gathered(dict.fromkeys(names), whole)
    return ", ".join(f"{name} (lists of {tensors.shown(whole[name])})" if name in whole else name for name in said)


def _ours(model: Any, columns: Sequence[Column]) -> list[str]:
    """The packages of ours that are needed to load the model."""
    if isinstance(model, DeepClassifier):
        return [f"tensorfleet-worker[{model.framework}]"]
    return ["tensorfleet-worker"] if any(column.role is Role.DATE for column in columns) else []


def _json(value: Any) -> bytes:
    return orjson.dumps(value, default=_plain, option=_OPTIONS)


def _plain(value: Any) -> Any:
    """A fallback, since orjson only takes C-contiguous arrays."""
    return value.tolist() if isinstance(value, np.ndarray) else str(value)
