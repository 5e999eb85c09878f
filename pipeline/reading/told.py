"""Reads columns by what somebody has told about them: their types, and values that count as missing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from decimal import Decimal, InvalidOperation
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.errors import RejectedError, did_you_mean
from pipeline.reading.dates import IN_UTC, ISO, UTC_NAMES
from pipeline.reading.notes import Note
from pipeline.reading.options import DATE, NUMBER, ReadOptions
from pipeline.reading.tables import TEXT
from pipeline.reading.texts import TRUTHS, Read, read, read_as

MOST_DIGITS = 300
"""What a float can hold."""


def check_known(types: Mapping[str, str], names: Iterable[str]) -> None:
    """Raises RejectedError if a type is told of a column that is not there."""
    names = list(names)
    for name in types:
        if name not in names:
            raise RejectedError(
                f"it has no column {name!r}, whose type was told{did_you_mean(name, names)} (--type; with --forget "
                "what earlier imports were told does not count)"
            )


def read_column(name: str, column: Any, options: ReadOptions, decimal: str = ".") -> Read:
    """Read a column of any type, by what was told about it; `decimal` is what the rest of the file uses."""
    column = without(column, options.missing)
    found = _as_told(name, column, options, decimal)
    found = found or read(name, column, decimal, certain=bool(options.decimal))
    return replace(found, values=without(found.values, options.missing)) if options.missing else found


def _as_told(name: str, column: Any, options: ReadOptions, decimal: str = ".") -> Read | None:
    """A column of any type, as its type was told; None if it is to be read from its texts.

    Raises RejectedError as `texts.read_as`.
    """
    told = options.types.get(name, "")
    kind, types = told.partition(":")[0], pa.types
    is_number = types.is_integer(column.type) or types.is_floating(column.type) or types.is_decimal(column.type)
    is_date = types.is_timestamp(column.type) or types.is_date(column.type)
    if (kind == NUMBER and is_number) or (kind == DATE and is_date):
        return as_it_is(column)
    if told:
        return read_as(name, texts_of(name, column), told, options.decimal or decimal, certain=bool(options.decimal))
    if is_text(column.type):
        return None
    return as_it_is(column.cast(column.type.value_type) if types.is_dictionary(column.type) else column)


def as_it_is(column: Any) -> Read:
    """A column that has its type; that its zone is left out is noted."""
    zone = getattr(column.type, "tz", None)
    return Read(column, () if zone is None or zone in UTC_NAMES else (Note("", f"{IN_UTC} (its zone is {zone})"),))


def without(column: Any, missing: Sequence[str]) -> Any:
    """The column without the values that somebody said are missing: equal texts, numbers, dates or truths."""
    if not missing:
        return column
    if pa.types.is_float16(column.type):  # Arrow compares no such numbers
        column = column.cast(pa.float32())
    kind, marks = column.type, [mark.strip() for mark in missing]
    values: Any
    if is_text(kind):
        column, kind = column.cast(TEXT), TEXT
        return pc.if_else(
            pc.is_in(pc.utf8_trim_whitespace(column), pa.array(marks, TEXT)), pa.scalar(None, TEXT), column
        )
    if pa.types.is_integer(kind):
        values = [int(number) for mark in marks if (number := _number(mark)) is not None and number == int(number)]
    elif pa.types.is_floating(kind):
        values = [float(number) for mark in marks if (number := _number(mark)) is not None]
    elif pa.types.is_boolean(kind):
        values = [TRUTHS[mark.lower()] for mark in marks if mark.lower() in TRUTHS]
    elif pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        values = ISO.read(pa.array(marks, TEXT)).drop_null().cast(kind).to_pylist()
    else:
        return column
    with suppress(pa.ArrowInvalid, OverflowError):  # beyond what the column can hold
        column = pc.if_else(pc.is_in(column, pa.array(values, kind)), pa.scalar(None, kind), column)
    return column


def _number(text: str) -> Decimal | None:
    try:
        number = Decimal(text)
    except InvalidOperation:
        return None
    return number if number.is_finite() and abs(number.adjusted()) < MOST_DIGITS else None


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
