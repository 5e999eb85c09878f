"""Turns raw columns into the matrix that an estimator is fitted on.

All steps but the one for dates come from scikit-learn.  They are fitted on training rows only and stored with the
model, so that the same object prepares the rows to predict.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.sparse import issparse  # type: ignore[import-untyped]
from sklearn.base import clone
from sklearn.compose import ColumnTransformer
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.impute import SimpleImputer
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler

from pipeline.errors import RejectedError
from pipeline.features.columns import Column, Role
from pipeline.features.dates import PARTS, DateFeatures

MOST_CATEGORIES = 100
MOST_TERMS = 1_000
WIDEST_DENSE = 2_000
LARGEST_PREPARED = float(np.finfo(np.float32).max)
LISTED = 20
COLUMNS_AT_ONCE, ROWS_AT_ONCE = 64, 256
"""The part of a matrix that is worked on at once: it stays in a core's cache, which takes a third of the time."""

Rows = NDArray[Any] | pd.DataFrame
Steps = list[tuple[str, Any]]


def preparation(columns: Sequence[Column], rows: Rows, *, needs_dense: bool, algorithm: str) -> Steps:
    """The unfitted pipeline steps that prepare rows with these columns for an estimator.

    `rows` are the training rows; they decide how wide the matrix is, and so whether it is sparse.  Raises RejectedError
    if it is sparse and the algorithm needs a dense one.
    """
    if all(column.role is Role.NUMERIC for column in columns):
        return _numeric()
    width = _width(columns, rows)
    sparse = width > WIDEST_DENSE
    if sparse and needs_dense:
        raise RejectedError(
            f"preparation makes up to {width:,} columns of these features, and {algorithm} takes at most "
            f"{WIDEST_DENSE:,}; leave out columns with many categories or texts, or choose another algorithm"
        )
    return [("columns", _by_role(columns, sparse))]


def fit_steps(steps: Steps, rows: Rows, target: NDArray[Any]) -> Any:
    """Fit the steps, and return the rows prepared, as `Pipeline(steps).fit_transform` does; a matrix is overwritten.

    For a matrix of numbers this takes a tenth of the time, copies nothing where there are no gaps, and gives the same
    bits (a property test checks this).
    """
    for _, step in steps:
        if isinstance(step, SimpleImputer):
            rows = _imputed(step, np.asarray(rows))
        elif isinstance(step, StandardScaler) and np.shape(rows)[1]:  # else its own fit says so
            rows = _standardised(step, np.asarray(rows))
        else:
            rows = step.fit_transform(rows, target)
    return rows


def apply_steps(steps: Steps, rows: Rows) -> Any:
    """The rows as the fitted steps prepare them; a matrix is overwritten."""
    for _, step in steps:
        if isinstance(step, SimpleImputer) and not np.isnan([np.min(rows), *step.statistics_]).any():
            rows = np.asarray(rows, dtype=np.float64)
        else:
            rows = step.transform(rows, copy=False) if isinstance(step, StandardScaler) else step.transform(rows)
    return rows


def fit_pipeline(pipeline: Pipeline, rows: Rows, target: NDArray[Any]) -> Pipeline:
    """Fit preparation and model, as `pipeline.fit` does; a matrix is overwritten."""
    pipeline[-1].fit(fit_steps(pipeline.steps[:-1], rows, target), target)
    return pipeline


def as_rows(values: Sequence[NDArray[Any]], columns: Sequence[Column]) -> Rows:
    """Join columns that `columns.read` returned: a matrix if all are numeric, which is much faster, else a frame."""
    if all(column.role is Role.NUMERIC for column in columns):
        return np.column_stack(values)
    return pd.DataFrame({column.name: column_values for column, column_values in zip(columns, values, strict=True)})


def take(rows: Rows, places: NDArray[np.intp]) -> Rows:
    """The rows at these places; a matrix is a new one, of float64 or of whole numbers of up to 32 bits."""
    if isinstance(rows, pd.DataFrame):
        return rows.iloc[places]
    is_small = rows.dtype.kind in "iu" and rows.dtype.itemsize <= 4
    return rows[places] if is_small else rows[places].astype(np.float64, copy=False)


def check_range(steps: Sequence[Any], prepared: Any, columns: Sequence[Column]) -> None:
    """Raises RejectedError, naming columns, if the fitted steps made numbers beyond single precision.

    Trees and networks compute in single precision.  Such a value is far from all values that the steps were fitted on.
    """
    numbers = prepared.data if issparse(prepared) else prepared
    if not numbers.size or max(numbers.max(), -numbers.min()) <= LARGEST_PREPARED:  # false where one is NaN
        return
    numbers = prepared.toarray() if issparse(prepared) else prepared
    beyond = ~(np.abs(numbers) <= LARGEST_PREPARED).all(axis=0)
    names: Any = [column.name for column in columns]
    for step in steps:
        names = step.get_feature_names_out(np.asarray(names, dtype=object))
    names = [repr(str(name).split("__")[-1]) for name in names[beyond]]
    raise RejectedError(
        f"column {', '.join(names[:LISTED])}: a value is so far from those that preparation was fitted on that it "
        "cannot be standardised; leave out what stands for a missing value, or scale the column"
    )


def remember_names(pipeline: Pipeline, columns: Sequence[Column]) -> None:
    """Give a pipeline that was fitted on a matrix the names of its columns, as if it was fitted on a frame."""
    first = pipeline.steps[0][1]
    if not hasattr(first, "feature_names_in_"):
        first.feature_names_in_ = np.array([column.name for column in columns], dtype=object)


def known_categories(pipeline: Pipeline) -> dict[str, set[str]]:
    """The categories seen in training, by name of the categorical column."""
    first = pipeline.steps[0][1]
    if not isinstance(first, ColumnTransformer):
        return {}
    fitted = {name: (part, names) for name, part, names in first.transformers_}
    if "categorical" not in fitted:
        return {}
    part, names = fitted["categorical"]
    return {name: set(seen) for name, seen in zip(names, part.named_steps["one_hot"].categories_, strict=True)}


def owners(pipeline: Pipeline, columns: Sequence[Column]) -> list[str]:
    """The name of the input column that each prepared column was made from."""
    names = [column.name for column in columns]
    steps = [step for _, step in pipeline.steps[:-1]]
    if not isinstance(steps[0], ColumnTransformer):
        return _owners(steps, names)
    parts = [one for one in steps[0].transformers_ if one[0] != "remainder"]
    return [name for _, part, of in parts for name in _owners([step for _, step in part.steps], of)]


def _imputed(step: SimpleImputer, rows: NDArray[Any]) -> NDArray[np.float64]:
    """Fit the step on the medians, whose median they are: scikit-learn's own masks and sorts all rows."""
    gaps = np.isnan(rows.min(axis=0))
    if not gaps.any():
        step.fit(_medians(rows)[np.newaxis])
        return rows.astype(np.float64, copy=False)
    medians = np.empty(len(gaps))
    medians[gaps] = clone(step).fit(rows[:, gaps]).statistics_
    medians[~gaps] = _medians(rows[:, ~gaps])
    return np.asarray(step.fit(medians[np.newaxis]).transform(rows))


def _medians(rows: NDArray[Any]) -> NDArray[np.float64]:
    """The median of each column; none has a gap."""
    count, width = rows.shape
    middle = count // 2
    medians = np.empty(width)
    kind = np.result_type(rows.dtype, np.int32)  # smaller ones are not sorted by vector instructions
    columns = np.empty((min(COLUMNS_AT_ONCE, width), count), dtype=kind)
    for left in range(0, width, COLUMNS_AT_ONCE):
        some = columns[: width - left]
        for top in range(0, count, ROWS_AT_ONCE):
            some[:, top : top + ROWS_AT_ONCE] = rows[top : top + ROWS_AT_ONCE, left : left + len(some)].T
        some.partition(middle, axis=1)
        upper = some[:, middle]
        lower = upper if count % 2 else some[:, :middle].max(axis=1)
        medians[left : left + len(some)] = np.mean([lower, upper], axis=0, dtype=np.float64)
    return medians


def _standardised(step: StandardScaler, rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """Standardise the rows in place, and fit the step meanwhile: its own `fit` copies all rows three times.

    The variance is corrected for the rounding of the mean (Chan, Golub and LeVeque 1983), and a column counts as
    constant if its variance is what rounding alone may make it, both as in scikit-learn.
    """
    count, width = rows.shape
    mean = rows.sum(axis=0) / count
    rows -= mean
    parts = np.array_split(np.arange(width), math.ceil(width / COLUMNS_AT_ONCE))  # of one column only if that is all
    squares = np.concatenate([np.square(rows[:, part[0] : part[-1] + 1]).sum(axis=0) for part in parts])
    variance = (squares - rows.sum(axis=0) ** 2 / count) / count
    rounding = np.finfo(np.float64).eps * count
    is_constant = variance <= rounding * variance + (rounding * mean) ** 2
    step.n_features_in_, step.n_samples_seen_ = width, np.float64(count)
    step.mean_, step.var_, step.scale_ = mean, variance, np.where(is_constant, 1.0, np.sqrt(variance))
    rows /= step.scale_
    return rows


def _owners(steps: Sequence[Any], names: Sequence[str]) -> list[str]:
    for step in steps:
        if isinstance(step, SimpleImputer):  # it leaves out a column without a value in the training part
            counts = [int(not pd.isna(filled)) for filled in step.statistics_]
        elif isinstance(step, OneHotEncoder):
            rare = getattr(step, "infrequent_categories_", [None] * len(names))
            seen = zip(step.categories_, rare, strict=True)
            counts = [len(all_) - (0 if few is None else len(few) - 1) for all_, few in seen]
        elif isinstance(step, DateFeatures):
            counts = [len(PARTS)] * len(names)
        elif isinstance(step, TfidfVectorizer):
            counts = [len(step.vocabulary_)]
        else:
            continue
        names = [name for name, count in zip(names, counts, strict=True) for _ in range(count)]
    return list(names)


def _by_role(columns: Sequence[Column], sparse: bool) -> ColumnTransformer:
    parts = []
    for role, steps in _STEPS.items():
        names = [column.name for column in columns if column.role is role]
        if names:
            parts.append((str(role), Pipeline(steps(sparse)), names))
    texts = [column.name for column in columns if column.role is Role.TEXT]
    parts += [(f"text_{place}", Pipeline(_text()), [name]) for place, name in enumerate(texts)]
    return ColumnTransformer(parts, sparse_threshold=1.0 if sparse else 0.0)


def _numeric(_sparse: bool = False) -> Steps:
    return [("impute", SimpleImputer(strategy="median")), ("scale", StandardScaler())]


def _boolean(sparse: bool) -> Steps:
    as_numbers = FunctionTransformer(np.asarray, kw_args={"dtype": "float64"}, feature_names_out="one-to-one")
    return [("numbers", as_numbers), ("impute", SimpleImputer(strategy="most_frequent")), ("one_hot", _one_hot(sparse))]


def _categorical(sparse: bool) -> Steps:
    """A missing value becomes a category of its own, since missingness may be informative."""
    return [("impute", SimpleImputer(strategy="constant", fill_value="missing")), ("one_hot", _one_hot(sparse))]


def _date(_sparse: bool) -> Steps:
    return [("parts", DateFeatures()), ("impute", SimpleImputer(strategy="median")), ("scale", StandardScaler())]


def _text() -> Steps:
    return [
        ("impute", SimpleImputer(strategy="constant", fill_value="")),
        ("flat", FunctionTransformer(np.ravel, feature_names_out="one-to-one")),
        ("terms", TfidfVectorizer(max_features=MOST_TERMS)),
    ]


def _one_hot(sparse: bool) -> OneHotEncoder:
    return OneHotEncoder(handle_unknown="infrequent_if_exist", max_categories=MOST_CATEGORIES, sparse_output=sparse)


_STEPS: dict[Role, Callable[[bool], Steps]] = {
    Role.NUMERIC: _numeric,
    Role.BOOLEAN: _boolean,
    Role.CATEGORICAL: _categorical,
    Role.DATE: _date,
}


def _width(columns: Sequence[Column], rows: Rows) -> int:
    """The number of columns after preparation: exact, except that each text column counts as MOST_TERMS."""
    width = 0
    for column in columns:
        if column.role is Role.CATEGORICAL:
            width += min(pd.Series(rows[column.name]).nunique(dropna=False), MOST_CATEGORIES)
        else:
            width += {Role.NUMERIC: 1, Role.BOOLEAN: 2, Role.DATE: len(PARTS), Role.TEXT: MOST_TERMS}[column.role]
    return width
