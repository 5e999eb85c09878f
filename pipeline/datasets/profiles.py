"""Describes the columns of a table: types, missing and distinct values, ranges, most frequent values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.reading.moments import MOMENT
from pipeline.reading.tables import MAX_CLASSES, Column, labels_of

MOST_FREQUENT = 3
FEW = 10
"""An integer column with at most this many distinct values is described by its frequent values, as text is."""


@dataclass(frozen=True, slots=True)
class ColumnProfile:
    """Describes one column of a canonical table.

    Attributes:
        shape: the shape of one row's value in a tensor column, else None.
        missing: the number of rows without a value.
        distinct: the number of distinct values, missing ones not counted; None for tensors.
        low, middle, high: minimum, median and maximum of numbers or dates; None for other columns.
        frequent: the most frequent values with their counts, values that occur once left out.
    """

    name: str
    type: str
    shape: Sequence[int] | None
    missing: int
    distinct: int | None
    low: Any
    middle: Any
    high: Any
    frequent: Sequence[tuple[Any, int]]


def profile_columns(table: pa.Table) -> Sequence[ColumnProfile]:
    """The profiles of a canonical table's columns, in their order."""
    return [_profile(name, table.column(name)) for name in table.column_names]


def task_of(column: Column) -> str | None:
    """The task of a model with this target: classification or regression; None if it cannot be a target."""
    labels = labels_of(column)
    if labels is None:
        return "regression" if pa.types.is_floating(column.type) else None
    if pa.types.is_integer(labels.type) and pc.count_distinct(labels).as_py() > MAX_CLASSES:
        return "regression"
    return "classification"


def _profile(name: str, column: Column) -> ColumnProfile:
    kind, shape = column.type, []
    while pa.types.is_fixed_size_list(kind):
        shape.append(kind.list_size)
        kind = kind.value_type
    if pa.types.is_null(kind):
        return ColumnProfile(name, "null", None, column.null_count, 0, None, None, None, ())
    distinct = None if shape else pc.count_distinct(column).as_py()
    ordered = pa.types.is_floating(kind) or kind == MOMENT or (pa.types.is_integer(kind) and (distinct or 0) > FEW)
    low, middle, high = _range(column) if ordered and not shape else (None, None, None)
    return ColumnProfile(
        name=name,
        type=str(column.type if not shape else kind).removeprefix("large_"),
        shape=shape or None,
        missing=column.null_count,
        distinct=distinct,
        low=low,
        middle=middle,
        high=high,
        frequent=() if ordered or shape else _frequent(column),
    )


def _range(column: Column) -> tuple[Any, Any, Any]:
    ends: Any = pc.min_max(column).as_py()
    numbers = column.cast(pa.int64()) if column.type == MOMENT else column
    median: Any = pc.quantile(numbers, 0.5, interpolation="nearest")
    return ends["min"], median.cast(column.type)[0].as_py(), ends["max"]


def _frequent(column: Column) -> Sequence[tuple[Any, int]]:
    counted: Any = pc.value_counts(column.drop_null())
    pairs = zip(counted.field("values").to_pylist(), counted.field("counts").to_pylist(), strict=True)
    most = sorted(pairs, key=lambda pair: (-pair[1], str(pair[0])))[:MOST_FREQUENT]
    return [pair for pair in most if pair[1] > 1]
