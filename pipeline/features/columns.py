"""Gives each raw column a role and reads its values, the same way in training and at prediction."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipeline.features.dates import moments_of

IDENTIFIER = r"[0-9a-fA-F]{24}|[0-9a-fA-F]{8}-?(?:[0-9a-fA-F]{4}-?){3}[0-9a-fA-F]{12}"
"""A MongoDB ObjectId, or a UUID with or without hyphens."""
LARGEST = 1e100
"""The largest absolute value of a feature or target: sums of its squares still fit in a float64."""
POSITION = re.compile(r"\bat position (\d+)$")
"""Where a value stands, as pandas ends its message: counted from 0."""
MANY_VALUES = 100
WORDS_OF_TEXT = 5


class Role(StrEnum):
    """What a column holds; it decides how preparation encodes the column."""

    NUMERIC = "numeric"
    BOOLEAN = "boolean"
    CATEGORICAL = "categorical"
    TEXT = "text"
    DATE = "date"


@dataclass(frozen=True, slots=True)
class Column:
    """An input column of a model; `type` is MLflow's name for its values: double, long, boolean, string, datetime."""

    name: str
    role: Role
    type: str

    def to_document(self) -> dict[str, str]:
        return {"name": self.name, "type": self.type}


class UnusableColumnError(ValueError):
    """Says that a column is left out; its message is the reason."""


def describe(values: pd.Series[Any], name: str, *, wanted: bool = False) -> Column:
    """Find the role of a column from its type and, for text, from its values.

    `wanted` says that the request names the column; identifiers then become categories.  Raises UnusableColumnError for
    identifiers that are not wanted, for columns without a value, and for bytes, lists and other nested values.
    """
    kind = values.dtype.kind
    if kind in "iu":
        return Column(name, Role.NUMERIC, "long")
    if kind == "f" and not np.isfinite(values.to_numpy(dtype=np.float64, na_value=np.nan)).any():
        raise UnusableColumnError("has no value")
    if kind in "fm":
        return Column(name, Role.NUMERIC, "double")
    if values.isna().all():
        raise UnusableColumnError("has no value")
    if kind == "b":
        return Column(name, Role.BOOLEAN, "boolean")
    if kind == "M":
        return Column(name, Role.DATE, "datetime")
    return _of_objects(values.dropna(), name, wanted)


def read(values: pd.Series[Any], column: Column) -> NDArray[Any]:
    """The values as preparation takes them: float64 with NaN, datetime64 with NaT, or str objects with NaN.

    Infinity counts as missing.  Raises ValueError for a value that the role does not allow, or that is beyond LARGEST.
    """
    try:
        return _READERS[column.role](values)
    except (ValueError, TypeError, OverflowError) as wrong:
        why = POSITION.sub(lambda found: f"in row {int(found[1]) + 1:,}", str(wrong))
        raise ValueError(f"column {column.name!r} takes {column.role} values ({column.type}): {why}") from None


def _of_objects(present: pd.Series[Any], name: str, wanted: bool) -> Column:
    inferred = pd.api.types.infer_dtype(present, skipna=True)
    if inferred == "boolean":
        return Column(name, Role.BOOLEAN, "boolean")
    if inferred in ("integer", "floating", "mixed-integer-float", "decimal"):
        return Column(name, Role.NUMERIC, "double")
    if inferred in ("datetime", "datetime64", "date"):
        return Column(name, Role.DATE, "datetime")
    if inferred == "bytes" or present.map(lambda value: isinstance(value, (list, dict, tuple, set, np.ndarray))).any():
        raise UnusableColumnError("holds values that are not numbers, words or dates")
    text = present.astype(str)
    if not wanted and text.iloc[:100].str.fullmatch(IDENTIFIER).all() and text.str.fullmatch(IDENTIFIER).all():
        raise UnusableColumnError("holds identifiers; name it in features to use it")
    return Column(name, Role.TEXT if _reads_as_text(text) else Role.CATEGORICAL, "string")


def _reads_as_text(values: pd.Series[str]) -> bool:
    distinct = values.nunique()
    many = distinct > MANY_VALUES or 2 * distinct > len(values)
    return many and float((values.str.count(r"\s+") + 1).mean()) > WORDS_OF_TEXT


def _numbers(values: pd.Series[Any]) -> NDArray[Any]:
    if values.dtype.kind == "m":
        return np.asarray(values.dt.total_seconds(), dtype=np.float64)
    numbers = values if values.dtype.kind in "iuf" else pd.to_numeric(values)
    found = np.asarray(numbers.to_numpy(dtype=np.float64, na_value=np.nan))
    large = np.abs(found) > LARGEST
    if not large.any():
        return found
    if len(beyond := found[large & np.isfinite(found)]):
        raise ValueError(too_large(beyond[0]))
    return np.where(large, np.nan, found)


def too_large(number: float) -> str:
    return (
        f"{number:g} is beyond {LARGEST:g}, the largest number that can be standardised; leave it out where it stands "
        "for a missing value, or scale the column"
    )


def _truths(values: pd.Series[Any]) -> NDArray[Any]:
    numbers = pd.to_numeric(values.astype("object").where(values.notna(), np.nan)).to_numpy(dtype=np.float64)
    if not np.isin(numbers[~np.isnan(numbers)], (0.0, 1.0)).all():
        raise ValueError("neither true nor false")
    return numbers


def _words(values: pd.Series[Any]) -> NDArray[Any]:
    missing = values.isna().to_numpy()
    words = values.astype(str).to_numpy(dtype=object)
    words[missing] = np.nan
    return words


_READERS: Mapping[Role, Callable[[pd.Series[Any]], NDArray[Any]]] = {
    Role.NUMERIC: _numbers,
    Role.BOOLEAN: _truths,
    Role.CATEGORICAL: _words,
    Role.TEXT: _words,
    Role.DATE: moments_of,
}
