"""Reads columns by what somebody has told about them: their types, and values that count as missing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.errors import RejectedError, did_you_mean
from pipeline.reading.options import CATEGORY, DATE, NUMBER, ReadOptions
from pipeline.reading.tables import TEXT
from pipeline.reading.texts import Read, read_as


def check_known(types: Mapping[str, str], names: Iterable[str]) -> None:
    """Raises RejectedError if a type is told of a column that is not there."""
    names = list(names)
    for name in types:
        if name not in names:
            raise RejectedError(
                f"it has no column {name!r}, whose type was told{did_you_mean(name, names)} (--type; with --forget "
                "what earlier imports were told does not count)"
            )


def as_told(name: str, column: Any, options: ReadOptions, decimal: str = ".") -> Read | None:
    """A column of any type, as its type was told; None if none was.  Raises RejectedError as `texts.read_as`."""
    told = options.types.get(name, "")
    if not told and is_text(column.type):
        return None
    kind, types = told.partition(":")[0], pa.types
    is_number = types.is_integer(column.type) or types.is_floating(column.type) or types.is_decimal(column.type)
    is_date = types.is_timestamp(column.type) or types.is_date(column.type)
    if (kind == NUMBER and is_number) or (kind == DATE and is_date):
        return Read(column)
    if not told:
        return read_as(name, texts_of(name, column), CATEGORY) if types.is_dictionary(column.type) else Read(column)
    return read_as(name, texts_of(name, column), told, options.decimal or decimal, certain=bool(options.decimal))


def without(column: Any, missing: Sequence[str]) -> Any:
    """The column without the values that count as missing: equal texts, or equal numbers."""
    if not missing:
        return column
    values: Any = None
    if is_text(column.type):
        column = column.cast(TEXT)
        values = pa.array(missing, TEXT)
        column = pc.if_else(pc.is_in(pc.utf8_trim_whitespace(column), values), pa.scalar(None, TEXT), column)
    elif pa.types.is_integer(column.type) or pa.types.is_floating(column.type):
        numbers = []
        for mark in missing:
            with suppress(ValueError, OverflowError):
                numbers.append(pa.scalar(float(mark)).cast(column.type))
        if numbers:
            values = pa.array([number.as_py() for number in numbers], column.type)
            column = pc.if_else(pc.is_in(column, values), pa.scalar(None, column.type), column)
    return column


def is_text(kind: pa.DataType) -> bool:
    """Whether these are texts, also if each different one is kept once."""
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)


def texts_of(name: str, column: Any) -> Any:
    """The values as texts, whole numbers without a point.  Raises RejectedError for nested values."""
    try:
        if pa.types.is_dictionary(column.type):
            column = column.cast(column.type.value_type)
        return column.cast(TEXT)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        raise RejectedError(f"column {name!r} of type {column.type} has no words; leave out its --type") from None
