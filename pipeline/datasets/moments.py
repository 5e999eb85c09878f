"""Dates in tables: microseconds in UTC, from the year 1 to 9999, so that a date which stands for "open" is one."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.errors import RejectedError

MOMENT = pa.timestamp("us")  # naive, UTC
FIRST_US, LAST_US = -62_135_596_800_000_000, 253_402_300_799_999_999
"""Microseconds since 1970 of the first moment of the year 1 and of the last of 9999: what a datetime can hold."""


def moments(name: str, column: Any) -> Any:
    """A column of dates or timestamps as MOMENT; what is finer than a microsecond is cut.

    Raises RejectedError, naming the column, for a date of another year.
    """
    zone = getattr(column.type, "tz", None)
    try:
        if getattr(column.type, "unit", "") == "ns":
            column = column.cast(pa.timestamp("us", zone), safe=False)
        column = column.cast(pa.timestamp("us", zone)).cast(MOMENT)
    except pa.ArrowInvalid as error:  # beyond what 64 bits hold
        raise no_date(name) from error
    ends: Any = pc.min_max(column.cast(pa.int64())).as_py()
    if ends["min"] is not None and (ends["min"] < FIRST_US or ends["max"] > LAST_US):
        raise no_date(name)
    return column


def no_date(name: str) -> RejectedError:
    return RejectedError(
        f"column {name!r} holds a date before the year 1 or after 9999; correct it, or leave the value out where it "
        "stands for none"
    )


def with_all_dates(table: pa.Table) -> pa.Table:
    """A table that Arrow has read from CSV, with those columns as dates too that it took for text: it reads fractions
    of a second as nanoseconds, which end in the year 2262."""
    for place, name in enumerate(table.column_names):
        column = table.column(place)
        if pa.types.is_string(column.type) and (read := _as_moments(column)) is not None:
            table = table.set_column(place, name, read)
    return table


def _as_moments(column: Any) -> Any | None:
    first = column.drop_null().slice(0, 1).to_pylist()
    if not first or not first[0][:4].isdecimal():  # as nearly all text, at no cost
        return None
    for kind in (MOMENT, pa.timestamp("us", "UTC")):
        try:
            return column.cast(kind)
        except pa.ArrowInvalid:
            continue
    return None
