"""Reads texts in a notation that is known: that of a column which a model was trained on."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.reading.dates import ISO, DateNotation, date_notation
from pipeline.reading.moments import FIRST_US, MOMENT
from pipeline.reading.numbers import NumberNotation
from pipeline.reading.tables import TEXT
from pipeline.reading.texts import SHOWN, are_marks

TRUTHS = "truth"
"""The key of true and false."""
CAST = {NumberNotation().key: pa.float64(), ISO.key: MOMENT}
"""The types that Arrow casts texts to by itself, by the key of their notation."""


def notation_of(key: str) -> NumberNotation | DateNotation:
    """The notation with this key.  Raises ValueError if there is none."""
    kind, _, written = key.partition("|")
    if kind == "date":
        return date_notation(written)
    decimal, thousands, unit = written.split("|")
    return NumberNotation(decimal, thousands, unit)


def parsed(texts: Any, key: str, rows: Any) -> Any:
    """An array of texts as float64 (also of TRUTHS) or timestamp[us], missing for blanks and MARKS.

    Dates may be ISO 8601, whatever the notation.  Raises ValueError for the first text that is neither; `rows` are the
    rows that they come from, counted from 0.
    """
    if (values := _cast(texts, key)) is not None:
        return values
    texts = pc.utf8_trim_whitespace(texts)
    is_mark = are_marks(texts)
    wanted = pc.if_else(is_mark, pa.scalar(None, TEXT), texts)
    if key == TRUTHS:
        place: Any = pc.index_in(pc.utf8_lower(wanted), pa.array(["false", "true", "0", "1"], TEXT))
        values, example, what = pc.bit_wise_and(place, 1).cast(pa.float64()), "true", "true or false"
    elif isinstance(notation := notation_of(key), DateNotation):
        values = notation.read(wanted)
        if not notation.name.startswith(("y", "%Y")) and values.null_count > wanted.null_count:
            values = pc.coalesce(values, ISO.read(wanted))
        example, what = notation.example, "a date"
    else:
        plain = pc.if_else(pc.match_substring_regex(wanted, notation.pattern), wanted, pa.scalar(None, TEXT))
        values = notation.plain(plain).cast(pa.float64())
        if notation.unit not in ("", "%", "\u2030"):  # a price is one without its currency too
            bare = replace(notation, unit="")
            plain = pc.if_else(pc.match_substring_regex(wanted, bare.pattern), wanted, pa.scalar(None, TEXT))
            values = pc.coalesce(values, bare.plain(plain).cast(pa.float64()))
        example, what = notation.example, "a number"
    wrong = np.flatnonzero(np.asarray(values.is_null()) & ~np.asarray(pc.fill_null(is_mark, True)))
    if len(wrong):
        text = texts[int(wrong[0])].as_py()[:SHOWN]
        more = f" (and {len(wrong) - 1:,} rows more)" if len(wrong) > 1 else ""
        raise ValueError(f"row {rows[wrong[0]] + 1:,} has {text!r}, which is not {what}{more}; write it like {example}")
    return values


def _cast(texts: Any, key: str) -> Any:
    """The values if Arrow reads them all, which is much faster; else None."""
    try:
        values: Any = texts.cast(CAST[key])
    except (KeyError, pa.ArrowInvalid):
        return None
    odd: Any
    if key == ISO.key:  # Arrow knows the year 0
        odd = np.asarray(pc.fill_null(values.cast(pa.int64()), 0)) < FIRST_US
    else:  # such as nan(1)
        odd = np.asarray(pc.fill_null(pc.is_nan(values), False))
    return None if odd.any() else values
