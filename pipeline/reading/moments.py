"""Reads dates as microseconds in UTC from year 1 to 9999, so that placeholder dates such as 9999-12-31 work."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.errors import RejectedError

MOMENT = pa.timestamp("us")  # naive, UTC
FIRST_US, LAST_US = -62_135_596_800_000_000, 253_402_300_799_999_999
"""The range of a Python datetime in microseconds since 1970: the first moment of year 1 and the last of 9999."""


def moments(name: str, column: Any) -> Any:
    """A column of dates or timestamps as MOMENT; digits below a microsecond are cut off.

    Raises RejectedError, naming the column, for a date outside the years 1 to 9999.
    """
    zone = getattr(column.type, "tz", None)
    try:
        if getattr(column.type, "unit", "") == "ns":
            column = column.cast(pa.timestamp("us", zone), safe=False)
        column = column.cast(pa.timestamp("us", zone)).cast(MOMENT)
    except pa.ArrowInvalid as error:  # beyond 64 bits
        raise no_date(name) from error
    ends: Any = pc.min_max(column.cast(pa.int64())).as_py()
    if ends["min"] is not None and (ends["min"] < FIRST_US or ends["max"] > LAST_US):
        raise no_date(name)
    return column


def no_date(name: str) -> RejectedError:
    return RejectedError(
        f"column {name!r} holds a date before the year 1 or after 9999; correct it, or leave the value out if it "
        "stands for no date"
    )
