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
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pandas as pd
from numpy.typing import NDArray
from scipy.sparse import csr_matrix, issparse  # type: ignore[import-untyped]
from sklearn.base import BaseEstimator, is_classifier
from sklearn.neighbors._base import NeighborsBase
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import OneHotEncoder
from sklearn.svm._base import BaseLibSVM
from sklearn.tree._tree import Tree

from pipeline import tensors
from pipeline.algorithms import catalogue
from pipeline.columns import Column, Role, read
from pipeline.deep.classifier import DeepClassifier
from pipeline.environment import requirements
from pipeline.errors import CorruptArtifactError, RejectedError
from pipeline.mlflow_files import mlmodel, python_env
from pipeline.preparation import as_rows, check_range, known_categories
from pipeline.skops_reader import loads
from pipeline.skops_writer import dumps
from pipeline.zip_files import archive, unpack, unpacked

FORMAT = 1
"""Rises with every change that an older reader would misread; readers of older formats stay, and stay tested."""
ARTIFACT_FORMAT = "tensorfleet-model/1"
OUTSIDE = "holds a decision tree that leads outside of itself"
NEEDED = ("manifest.json", "model.skops", "example.json", "evaluation.json")
KERNELS = ("linear", "poly", "rbf", "sigmoid")
"""Those on offer; any other looks up what the rows to predict hold."""

TRUSTED_TYPES = (
    "numpy.asarray",
    "numpy.dtype",
    "numpy.ravel",
    "pipeline.dates.DateFeatures",
    "scipy.sparse._csr.csr_matrix",
    "sklearn.neural_network._stochastic_optimizers.AdamOptimizer",
    "sklearn.neural_network._stochastic_optimizers.SGDOptimizer",
    "sklearn.tree._tree.Tree",
)
"""What a model file may hold beyond what skops trusts by itself; reviewed, never taken from a file.

The functions are pure; a Tree and a sparse matrix can hold places outside of themselves, which `_check_places` looks
for.
"""

_OPTIONS = orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NON_STR_KEYS


@dataclass(frozen=True, slots=True)
class Content:
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


def write(content: Content, path: Path) -> Written:
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


def load(path: Path, sha256: str) -> LoadedModel:
    """Read a model file.

    Raises CorruptArtifactError if its bytes do not have this sha256, if it is no model file, or if it was written by
    a newer version; FileNotFoundError if it is not there.
    """
    data = path.read_bytes()
    found = hashlib.sha256(data).hexdigest()
    if found != sha256.lower():
        raise CorruptArtifactError(f"{path} has the sha256 {found}, but {sha256} was recorded for it")
    return _parse(data, str(path))


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
    """A model that scores raw rows.  `evaluation` is what was measured when it was trained."""

    manifest: Mapping[str, Any]
    pipeline: Pipeline
    columns: Sequence[Column]
    example: Sequence[Mapping[str, Any]]
    evaluation: Mapping[str, Any]
    data: bytes

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
    pipeline = loads(members["model.skops"], trusted_types())
    if not isinstance(pipeline, Pipeline) or not pipeline.steps:
        raise TypeError("its model.skops holds no pipeline")
    example, evaluation = (orjson.loads(members[f"{part}.json"]) for part in ("example", "evaluation"))
    columns = [Column(str(c["name"]), Role(c["role"]), str(c["type"])) for c in manifest["columns"]]
    _check_places(pipeline)
    return LoadedModel(manifest, pipeline, columns, example, evaluation, data)


def _check_format(manifest: Mapping[str, Any]) -> None:
    found = manifest.get("format")
    if not isinstance(found, int) or found < 1:
        raise ValueError(f"its format is {found!r}")
    if found > FORMAT:
        raise CorruptArtifactError(
            f"has the format {found}; this version reads formats up to {FORMAT}: upgrade tensorfleet-worker"
        )


def _check_places(pipeline: Any) -> None:
    """scikit-learn and SciPy write and read where a model says without looking; outside of arrays that is a crash.

    What is not fitted says nothing yet: preparation holds each of its parts twice.
    """
    parts = list(_parts_of(pipeline))
    learned = {id(value) for part in parts for value in _rows_learned(part)}
    for part in parts:
        if isinstance(part, np.ndarray) and type(part) is not np.ndarray:
            raise CorruptArtifactError("holds an array that hides some of its values")
        if issparse(part):
            if id(part) not in learned or not _inside(part):
                raise CorruptArtifactError("holds a sparse matrix that leads outside of itself or of its model")
        elif isinstance(part, BaseEstimator):
            _check_trees(part)
            if isinstance(part, NeighborsBase) and hasattr(part, "_fit_X"):
                _check_neighbors(part)
            if isinstance(part, BaseLibSVM) and hasattr(part, "support_vectors_") and not _supported(part):
                raise CorruptArtifactError("holds support vectors that there are not")
            if isinstance(part, OneHotEncoder) and hasattr(part, "categories_") and not _encodes(part):
                raise CorruptArtifactError("holds categories with columns that there are not")
            vocabulary = getattr(part, "vocabulary_", {})
            if not all(0 <= place < len(vocabulary) for place in vocabulary.values()):
                raise CorruptArtifactError("holds words with columns that there are not")


def _check_trees(model: Any) -> None:
    for estimator in (model, *np.ravel(getattr(model, "estimators_", []))):
        tree = getattr(estimator, "tree_", None)
        if isinstance(tree, Tree) and not _closed(tree, model.n_features_in_):
            raise CorruptArtifactError(OUTSIDE)
    for predictor in (one for round_ in getattr(model, "_predictors", ()) for one in round_):
        if not _closed_nodes(predictor.nodes, model.n_features_in_):
            raise CorruptArtifactError(OUTSIDE)


def _check_neighbors(model: Any) -> None:
    if model._fit_X.ndim != 2 or model._fit_X.shape[1] != model.n_features_in_:
        raise CorruptArtifactError("holds neighbours with features that there are not")
    if is_classifier(model) and not _labelled(model):
        raise CorruptArtifactError("holds neighbours with labels that there are not")


def _parts_of(pipeline: Any) -> Iterator[Any]:
    """Every object in it, however deep and under whatever name, but for plain text and numbers."""
    waiting, seen = [pipeline], {id(pipeline)}
    while waiting:
        one = waiting.pop()
        yield one
        for part in _held(one):
            if id(part) not in seen and not isinstance(part, str | int | float | None):
                seen.add(id(part))
                waiting.append(part)


def _held(value: Any) -> Iterable[Any]:
    if isinstance(value, dict):
        return value.values()
    if isinstance(value, list | tuple | set):
        return value
    if isinstance(value, np.ndarray):
        return value.ravel().tolist() if value.dtype == object else ()
    return vars(value).values() if hasattr(value, "__dict__") else ()


def _closed(tree: Any, n_features: int) -> bool:
    if not tree.node_count or tree.n_features != n_features:
        return False
    inner = tree.children_left != -1
    places = np.flatnonzero(inner)
    children = np.stack([tree.children_left[inner], tree.children_right[inner]])
    ahead = (children > places).all() and (children < tree.node_count).all()
    return bool(ahead and (tree.feature[inner] >= 0).all() and (tree.feature[inner] < tree.n_features).all())


def _labelled(model: Any) -> bool:
    labels = model._y
    whole = labels.dtype.kind == "i" and labels.ndim == 1 and len(labels) == model._fit_X.shape[0]
    return bool(whole and (labels >= 0).all() and (labels < len(model.classes_)).all())


def _rows_learned(model: Any) -> list[Any]:
    """What an estimator of ours keeps sparse; elsewhere a matrix of a few bytes would make predictions of any width."""
    if isinstance(model, NeighborsBase):
        return [getattr(model, "_fit_X", None)]
    names = ("support_vectors_", "dual_coef_", "_dual_coef_") if isinstance(model, BaseLibSVM) else ()
    return [getattr(model, name, None) for name in names]


def _inside(matrix: Any) -> bool:
    """SciPy's own check passes over a matrix that ends at 0, and over a step back that 32 bits do not hold."""
    if type(matrix) is not csr_matrix:
        return False
    matrix.check_format(full_check=True)
    return bool((matrix.indptr[:-1] <= matrix.indptr[1:]).all())


def _supported(model: Any) -> bool:
    """Whether there is what LIBSVM reads for each support vector and each pair of classes.

    It leaves the counts of all but classifiers undefined.
    """
    vectors, counts, coefficients = model.support_vectors_, model._n_support, model._dual_coef_
    n_vectors, n_classes = vectors.shape[0], len(counts)
    n_pairs = n_classes * (n_classes - 1) // 2
    n_probabilities = n_pairs if getattr(model, "_effective_probability", False) else 0
    counted = model._impl not in ("c_svc", "nu_svc") or ((counts >= 0).all() and counts.sum() == n_vectors)
    shaped = vectors.shape[1] == model.n_features_in_ and coefficients.shape == (n_classes - 1, n_vectors)
    full = not issparse(coefficients) or coefficients.nnz == (n_classes - 1) * n_vectors
    paired = len(model._intercept_) == n_pairs and len(model.support_) == n_vectors
    likely = len(model._probA) == len(model._probB) == n_probabilities
    return bool(counted and shaped and full and paired and likely and model.kernel in KERNELS)


def _encodes(encoder: Any) -> bool:
    """Whether each category has a column of its own or that of the rare ones; ours drop none."""
    widths = encoder._compute_n_features_outs()
    mappings = getattr(encoder, "_default_to_infrequent_mappings", None) or [None] * len(widths)
    if encoder._drop_idx_after_grouping is not None or widths != list(encoder._n_features_outs):
        return False
    return all(
        width == len(categories) if columns is None else ((columns >= 0) & (columns < width)).all()
        for width, categories, columns in zip(widths, encoder.categories_, mappings, strict=True)
    )


def _closed_nodes(nodes: Any, n_features: int) -> bool:
    """The same of a boosted tree; none of ours splits by categories, which it would look up elsewhere."""
    inner = nodes[nodes["is_leaf"] == 0]
    places = np.flatnonzero(nodes["is_leaf"] == 0)
    children = np.stack([inner["left"], inner["right"]]).astype(np.int64)
    ahead = (children > places).all() and (children < len(nodes)).all()
    known = (inner["feature_idx"] >= 0).all() and (inner["feature_idx"] < n_features).all()
    return bool(len(nodes) and ahead and known and not inner["is_categorical"].any())


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
