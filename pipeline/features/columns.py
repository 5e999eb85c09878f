"""Gives each raw column a role and reads its values, the same way in training and at prediction."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Self

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.features.dates import moments_of
from pipeline.reading import options
from pipeline.reading.dates import ISO
from pipeline.reading.notations import TRUTHS, parsed
from pipeline.reading.notes import Note
from pipeline.reading.numbers import NumberNotation
from pipeline.reading.tables import TEXT
from pipeline.reading.told import texts_of, without

IDENTIFIER = r"[0-9a-fA-F]{24}|[0-9a-fA-F]{8}-?(?:[0-9a-fA-F]{4}-?){3}[0-9a-fA-F]{12}"
"""A MongoDB ObjectId, or a UUID with or without hyphens."""
LARGEST = 1e100
"""The largest absolute value of a feature or target: sums of its squares still fit in a float64."""
POSITION = re.compile(r"\bat position (\d+)$")
"""Where a value stands, as pandas ends its message: counted from 0."""
MANY_VALUES = 100
WORDS_OF_TEXT = 5
_READING = "reading"


class Role(StrEnum):
    """What a column holds; it decides how preparation encodes the column."""

    NUMERIC = "numeric"
    BOOLEAN = "boolean"
    CATEGORICAL = "categorical"
    TEXT = "text"
    DATE = "date"


@dataclass(frozen=True, slots=True)
class Column:
    """An input column of a model.

    Attributes:
        type: MLflow's name for its values: double, long, boolean, string, datetime.
        notation: the key of how its values are written as text (see `reading.notations`); empty for plain ones.
        missing: values that count as missing, as they are written.
    """

    name: str
    role: Role
    type: str
    notation: str = ""
    missing: tuple[str, ...] = ()

    def to_document(self) -> dict[str, str]:
        return {"name": self.name, "type": self.type}


class UnusableColumnError(ValueError):
    """Says that a column is left out; its message is the reason."""


@dataclass(frozen=True, slots=True)
class Reading:
    """How a frame's rows were read.

    Attributes:
        notations: by column, the key of its notation.
        told: by column, what somebody said it is, where its type does not show it.
        missing: the values of which somebody said that they count as missing.
    """

    notations: Mapping[str, str] = field(default_factory=dict)
    told: Mapping[str, str] = field(default_factory=dict)
    missing: tuple[str, ...] = ()
    notes: tuple[Note, ...] = ()

    @classmethod
    def of(cls, frame: pd.DataFrame) -> Self:
        """As remembered with the frame."""
        kept: Self = frame.attrs.get(_READING, cls())
        return kept

    def remember(self, frame: pd.DataFrame) -> None:
        frame.attrs[_READING] = self

    def __deepcopy__(self, _: object) -> Self:
        """Itself: pandas copies what a frame remembers with each column that is taken out of it."""
        return self


def describe(values: pd.Series[Any], name: str, *, wanted: bool = False, told: str = "") -> Column:
    """Find the role of a column from what was told about it, its type and, for text, its values.

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
    if told == options.IDENTIFIER and not wanted:
        raise UnusableColumnError("holds identifiers, or names of rows; name it in features to use it")
    if told:
        return Column(name, Role.TEXT if told == options.TEXT else Role.CATEGORICAL, "string")
    if kind == "b":
        return Column(name, Role.BOOLEAN, "boolean")
    if kind == "M":
        return Column(name, Role.DATE, "datetime")
    return _of_objects(values.dropna(), name, wanted)


def read(values: pd.Series[Any], column: Column) -> NDArray[Any]:
    """The values as preparation takes them: float64 with NaN, datetime64 with NaT, or str objects with NaN.

    Texts are read in the column's notation; blanks and marks such as `?` are missing numbers and dates, as is
    infinity.  Raises ValueError for a value that the role does not allow, or that is beyond LARGEST; it names the row,
    counted from 1 in the values, or in the frame that they are a part of if they have a RangeIndex.
    """
    try:
        if column.missing and values.dtype.kind == "O":
            values = _without_texts(values, column.missing)
        if column.role in _PLAIN and values.dtype.kind == "O":
            values = _from_texts(values, column.notation or _PLAIN[column.role])
        found = _READERS[column.role](values)
        return _without_values(found, column.missing) if column.missing else found
    except (ValueError, TypeError, OverflowError) as wrong:
        why = POSITION.sub(lambda found: f"in row {_rows(values)[int(found[1])] + 1:,}", str(wrong))
        raise ValueError(f"column {column.name!r} takes {column.role} values ({column.type}): {why}") from None


def _without_texts(values: pd.Series[Any], missing: Sequence[str]) -> pd.Series[Any]:
    """The values without the texts that somebody said are missing, as `reading.told.without` does it."""
    marks = {mark.strip() for mark in missing}
    return values.mask(values.map(lambda value: isinstance(value, str) and value.strip() in marks).astype(bool))


def _without_values(found: NDArray[Any], missing: Sequence[str]) -> NDArray[Any]:
    """What was read, without the numbers, dates or words that somebody said are missing."""
    is_text = found.dtype.kind == "O"
    kept = without(pa.array(found, TEXT if is_text else None, from_pandas=True), missing)
    array = kept.to_numpy(zero_copy_only=False)
    return np.where(pd.isna(array), np.nan, array) if is_text else array.astype(found.dtype)


def _from_texts(values: pd.Series[Any], notation: str) -> pd.Series[Any]:
    """The values with the texts among them read; as they are if there is none."""
    if isinstance(values.dtype, pd.StringDtype):
        is_text = values.notna().to_numpy()
    else:
        is_text = values.map(lambda value: isinstance(value, str)).to_numpy()
    if not is_text.any():
        return values
    found = parsed(pa.array(values[is_text], TEXT), notation, _rows(values)[is_text]).to_pandas()
    if is_text.all():
        return pd.Series(found.to_numpy(), values.index)
    mixed = values.astype(object)
    mixed[is_text] = found.to_numpy()
    return mixed


def _rows(values: pd.Series[Any]) -> NDArray[np.int64]:
    """The rows of the values, counted from 0."""
    return np.asarray(values.index) if isinstance(values.index, pd.RangeIndex) else np.arange(len(values))


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
    if not len(found) or (found.min() >= -LARGEST and found.max() <= LARGEST):  # false where one is missing
        return found
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
    """Equal words are one object, which makes looking up categories faster."""
    places, words = pd.factorize(values if isinstance(values.dtype, pd.StringDtype) else _as_text(values))
    return np.append(np.asarray(words, dtype=object), np.nan)[places]


def _as_text(values: pd.Series[Any]) -> pd.Series[Any]:
    """Values that are no texts, as the words that reading makes of them."""
    if values.dtype.kind != "O":
        words = texts_of(str(values.name), pa.array(values, from_pandas=True)).to_pandas()
        return pd.Series(words.to_numpy(dtype=object), values.index)
    return values.map(_word, na_action="ignore").where(values.notna(), None)


def _word(value: Any) -> str:
    if isinstance(value, bool | int | float):
        return str(texts_of("", pa.array([value]))[0].as_py())
    return str(value)


_PLAIN = {Role.NUMERIC: NumberNotation().key, Role.BOOLEAN: TRUTHS, Role.DATE: ISO.key}

_READERS: Mapping[Role, Callable[[pd.Series[Any]], NDArray[Any]]] = {
    Role.NUMERIC: _numbers,
    Role.BOOLEAN: _truths,
    Role.CATEGORICAL: _words,
    Role.TEXT: _words,
    Role.DATE: moments_of,
}
