"""Turns raw columns into the matrix that an estimator is fitted on.

All steps but the one for dates come from scikit-learn.  They are fitted on training rows only and stored with the
model, so that the same object prepares the rows to predict.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.sparse import issparse  # type: ignore[import-untyped]
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


def as_rows(values: Sequence[NDArray[Any]], columns: Sequence[Column]) -> Rows:
    """Join columns that `columns.read` returned: a matrix if all are numeric, which is much faster, else a frame."""
    if all(column.role is Role.NUMERIC for column in columns):
        return np.column_stack(values)
    return pd.DataFrame({column.name: column_values for column, column_values in zip(columns, values, strict=True)})


def take(rows: Rows, places: NDArray[np.intp]) -> Rows:
    """The rows at these places."""
    return rows.iloc[places] if isinstance(rows, pd.DataFrame) else rows[places]


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
