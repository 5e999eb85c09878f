"""Exports models as ONNX: preparation and estimator in one graph that takes raw columns by name.

Inputs have the shape (rows, 1): double for numbers and booleans (1, 0; NaN is missing), string for categories, where a
missing value is MISSING_CATEGORY.  Outputs are `label` and, for a classifier, `probabilities` in the order of its
classes, or `scores` if it has no probabilities.  An output named like a column gets the prefix `predicted_`.
Preparation runs in double precision, as here.  The estimator runs in single precision, since onnxruntime has most of
them only so.  The result is therefore a close copy, and is written only if it answers as the model does.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pandas as pd
from numpy.typing import NDArray
from sklearn.compose import ColumnTransformer, TransformedTargetRegressor
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.impute import SimpleImputer
from sklearn.pipeline import Pipeline

from pipeline.deep.classifier import DeepClassifier
from pipeline.errors import RejectedError
from pipeline.exports import Exported
from pipeline.features.columns import Column, Role, read
from pipeline.features.preparation import known_categories
from pipeline.model_files.model_file import LoadedModel, Predictions

MISSING_CATEGORY = "missing"
"""Preparation also encodes a missing category so."""
OPSET = {"": 18, "ai.onnx.ml": 3}
"""onnxruntime 1.14 (2023) and all newer versions read it."""
TOLERANCE = 1e-4
"""The largest allowed difference of probabilities, or of numbers as a share of the largest.

Single precision rounds to 6e-8, and estimators add at most some thousand such terms.  A wrong branch in one tree of a
thousand makes ten times this difference.
"""
ROWS = 500
"""The number of generated rows for the comparison, beside the example rows."""
NEEDED = ("onnx", "onnxruntime", "skl2onnx")


def export_onnx(model: LoadedModel, path: Path) -> Exported:
    """Write `model` to `path`.  Raises RejectedError that names what cannot be converted, or how far the answers
    differ.
    """
    if missing := [name for name in NEEDED if find_spec(name) is None]:
        raise RejectedError(f"ONNX needs the extra onnx, of which {', '.join(missing)} is not installed")
    if isinstance(model.pipeline[-1], DeepClassifier):
        raise RejectedError("a deep model has no converter to ONNX; its formats are keras and safetensors")
    for column in model.columns:
        if column.role is Role.DATE:
            raise RejectedError(f"column {column.name!r} holds dates; ONNX has no operator for their preparation")
        if column.role is Role.TEXT:
            raise RejectedError(f"column {column.name!r} holds texts; ONNX splits them by each machine's own locale")
    content = _converted(model)
    rows = _rows(model)
    difference = _compare(content, model, rows)
    path.write_bytes(content)
    return Exported(path, len(rows), difference)


def _converted(model: LoadedModel) -> bytes:
    from skl2onnx import convert_sklearn
    from skl2onnx.common.data_types import DoubleTensorType, StringTensorType

    pipeline = _convertible(model)
    words = StringTensorType([None, 1])
    numbers = DoubleTensorType([None, 1])
    inputs = [
        (_inner(place), words if c.role is Role.CATEGORICAL else numbers) for place, c in enumerate(model.columns)
    ]
    classifies = hasattr(model.pipeline, "classes_")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = convert_sklearn(
                pipeline,
                initial_types=inputs,
                target_opset=OPSET,
                options={id(pipeline[-1]): {"zipmap": False}} if classifies else None,
                custom_conversion_functions=_CONVERTERS,
                custom_shape_calculators={SimpleImputer: _impute_shape},
            )
    except Exception as error:
        estimator = type(pipeline[-1]).__name__
        why = " ".join(str(error).split())[:300] or "it gave no reason"
        raise RejectedError(f"{estimator} with its preparation cannot be converted to ONNX: {why}") from error
    _name(found.graph, model)
    for key in ("classes", "target", "request_id"):
        entry = found.metadata_props.add()
        entry.key, entry.value = key, orjson.dumps(model.manifest[key]).decode()
    return bytes(found.SerializeToString())


def _convertible(model: LoadedModel) -> Pipeline:
    """An equal pipeline of parts that skl2onnx knows; the model itself is not changed."""
    from skl2onnx.sklapi import CastTransformer

    *preparation, (_, estimator) = copy.deepcopy(model.pipeline.steps)
    columns = preparation[0][1]
    if isinstance(columns, ColumnTransformer):
        parts = [(name, _part(part), names) for name, part, names in columns.transformers_]
    else:
        parts = [("numeric", Pipeline(preparation), [column.name for column in model.columns])]
        columns = ColumnTransformer([("numeric", "passthrough", [0])]).fit(np.zeros((1, len(model.columns))))
    inner = {column.name: _inner(place) for place, column in enumerate(model.columns)}
    columns.transformers_ = [(name, part, [inner[one] for one in names]) for name, part, names in parts]
    cast = CastTransformer(dtype=np.float32).fit(np.zeros((1, 1)))
    return Pipeline([("columns", columns), ("cast", cast), ("model", _estimator(estimator))])


def _part(part: Any) -> Any:
    """Drop the steps that convert missing values and types: the graph's inputs have these forms already."""
    if not isinstance(part, Pipeline):
        return part
    categories = "one_hot" in part.named_steps and "numbers" not in part.named_steps
    dropped = {"numbers", "impute"} if categories else {"numbers"}
    kept = [(name, step) for name, step in part.steps if name not in dropped]
    for name, step in kept:
        if name == "one_hot":
            if any(found is not None for found in getattr(step, "infrequent_categories_", [])):
                raise RejectedError(
                    "a column has more than 100 categories; ONNX cannot treat the rare ones as one, as the model does"
                )
            step.handle_unknown = "ignore"  # the same where no category is infrequent
    return Pipeline(kept)


def _estimator(estimator: Any) -> Any:
    return _on_its_own_scale(estimator) if isinstance(estimator, TransformedTargetRegressor) else estimator


def _on_its_own_scale(estimator: TransformedTargetRegressor) -> Any:
    """The regressor with the inverse of the target's standardisation moved into its last layer or support vectors."""
    regressor, scaler = estimator.regressor_, estimator.transformer_
    scale, mean = scaler.scale_[0], scaler.mean_[0]
    if hasattr(regressor, "coefs_"):
        regressor.coefs_[-1] = regressor.coefs_[-1] * scale
        regressor.intercepts_[-1] = regressor.intercepts_[-1] * scale + mean
        return regressor
    for name in ("dual_coef_", "_dual_coef_"):
        setattr(regressor, name, getattr(regressor, name) * scale)
    for name in ("intercept_", "_intercept_"):
        setattr(regressor, name, getattr(regressor, name) * scale + mean)
    return regressor


def _impute_shape(operator: Any) -> None:
    operator.outputs[0].type = operator.inputs[0].type


def _impute(scope: Any, operator: Any, container: Any) -> None:
    """An imputer in double precision; onnxruntime has ONNX's own only in single precision."""
    from skl2onnx.algebra.onnx_ops import OnnxIsNaN, OnnxWhere

    (rows,) = operator.inputs
    filled = operator.raw_operator.statistics_.astype(np.float64).reshape(1, -1)
    opset = container.target_opset
    missing = OnnxIsNaN(rows, op_version=opset)
    result = OnnxWhere(missing, filled, rows, op_version=opset, output_names=operator.outputs[:1])
    result.add_to(scope, container)


def _boosted(scope: Any, operator: Any, container: Any) -> None:
    """skl2onnx's own converter (1.20) writes booleans where onnx takes integers; convert them."""
    from skl2onnx.common._registration import get_converter

    add_node = container.add_node

    def with_whole_numbers(*of: Any, **attributes: Any) -> None:
        truths = attributes.get("nodes_missing_value_tracks_true")
        if truths is not None:
            attributes["nodes_missing_value_tracks_true"] = [int(one) for one in truths]
        add_node(*of, **attributes)

    container.add_node = with_whole_numbers
    try:
        get_converter(operator.type)(scope, operator, container)
    finally:
        container.add_node = add_node


_CONVERTERS = {
    SimpleImputer: _impute,
    HistGradientBoostingClassifier: _boosted,
    HistGradientBoostingRegressor: _boosted,
}


def _inner(place: int) -> str:
    """The name of a column during conversion: skl2onnx renames names that are not identifiers."""
    return f"column_{place}"


def _name(graph: Any, model: LoadedModel) -> None:
    """Name inputs like the columns, and outputs by their meaning; inner values with such a name are renamed."""
    columns = [column.name for column in model.columns]
    scores = "probabilities" if hasattr(model.pipeline[-1], "predict_proba") else "scores"
    outputs = [f"predicted_{name}" if name in columns else name for name in ("label", scores)][: len(graph.output)]
    new = {name: f"inner/{name}" for name in (*columns, *outputs)}
    new |= {_inner(place): name for place, name in enumerate(columns)}
    new |= {output.name: name for output, name in zip(graph.output, outputs, strict=True)}
    for one in (*graph.input, *graph.output, *graph.initializer):
        one.name = new.get(one.name, one.name)
    for node in graph.node:
        for places in (node.input, node.output):
            for place, name in enumerate(places):
                places[place] = new.get(name, name)


def _rows(model: LoadedModel) -> pd.DataFrame:
    """The example's rows and random rows like the training rows; some values are missing or unseen."""
    random = np.random.default_rng(0)
    known = known_categories(model.pipeline)
    spread = _spread(model.pipeline)
    made = pd.DataFrame({c.name: _values(c, random, known.get(c.name, set()), spread) for c in model.columns})
    example = pd.DataFrame(list(model.example), columns=made.columns)
    values = {c.name: np.concatenate([read(example[c.name], c), made[c.name].to_numpy()]) for c in model.columns}
    return pd.DataFrame(values)


def _spread(pipeline: Pipeline) -> Mapping[str, tuple[float, float]]:
    """Mean and standard deviation of each numeric column."""
    first = pipeline.steps[0][1]
    if isinstance(first, ColumnTransformer):
        parts = [(part["scale"], names) for name, part, names in first.transformers_ if name == "numeric"]
    else:
        parts = [(pipeline.named_steps["scale"], first.feature_names_in_)]
    return {
        name: (mean, scale)
        for scaler, names in parts
        for name, mean, scale in zip(names, scaler.mean_, scaler.scale_, strict=True)
    }


def _values(
    column: Column, random: np.random.Generator, known: set[str], spread: Mapping[str, tuple[float, float]]
) -> NDArray[Any]:
    missing = random.random(ROWS) < 0.05
    if column.role is Role.CATEGORICAL:
        words = random.choice(np.array([*sorted(known - {MISSING_CATEGORY}), "never seen"], dtype=object), ROWS)
        return np.where(missing, np.nan, words)
    if column.role is Role.BOOLEAN:
        return np.where(missing, np.nan, random.integers(0, 2, ROWS).astype(np.float64))
    numbers = random.normal(*spread[column.name], ROWS)
    return np.where(missing, np.nan, np.round(numbers) if column.type == "long" else numbers)


def _compare(content: bytes, model: LoadedModel, rows: pd.DataFrame) -> float:
    """The largest difference.  Raises RejectedError if it exceeds TOLERANCE."""
    from onnxruntime import InferenceSession

    expected = model.predict(rows)
    feeds = {column.name: _fed(rows[column.name].to_numpy(), column) for column in model.columns}
    try:
        session = InferenceSession(content, providers=["CPUExecutionProvider"])
        found = session.run(None, feeds)
    except Exception as error:
        why = " ".join(str(error).split())[:300]
        raise RejectedError(f"onnxruntime does not run what the model was converted to: {why}") from error
    if len(expected.classes):
        return _compare_classes(found, expected)
    numbers = np.asarray(expected.labels, dtype=np.float64)
    share = np.abs(found[0].reshape(-1) - numbers).max() / max(np.abs(numbers).max(), 1e-300)
    if not share <= TOLERANCE:
        raise RejectedError(
            f"the ONNX model was not written, as its predictions differ by up to {share:.2g} of the largest; "
            f"single precision accounts for {TOLERANCE:g} at most"
        )
    return float(share)


def _compare_classes(found: Sequence[NDArray[Any]], expected: Predictions) -> float:
    labels = np.asarray(expected.labels)
    same = found[0].astype(labels.dtype) == labels
    difference = 0.0
    if expected.probabilities is not None:
        difference = float(np.abs(found[1] - expected.probabilities).max())
        best_two = np.sort(expected.probabilities, axis=1)[:, -2:]
        same |= best_two[:, 1] - best_two[:, 0] <= 2 * TOLERANCE  # a tie may end either way
    if not same.all() or not difference <= TOLERANCE:
        raise RejectedError(
            f"the ONNX model was not written: {int((~same).sum()):,} of {len(same):,} labels differ, and "
            f"probabilities differ by up to {difference:.2g}; single precision accounts for {TOLERANCE:g} at most"
        )
    return difference


def _fed(values: NDArray[Any], column: Column) -> NDArray[Any]:
    if column.role is not Role.CATEGORICAL:
        return values.astype(np.float64).reshape(-1, 1)
    missing = pd.isna(values)
    return np.where(missing, MISSING_CATEGORY, values).astype(object).reshape(-1, 1)
