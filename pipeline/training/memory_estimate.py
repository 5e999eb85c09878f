"""Checks from a dataset's cached file whether a training fits into its memory, before a trainer gets it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa

from pipeline.datasets import Dataset
from pipeline.errors import RejectedError
from pipeline.jobs import TrainingRequest
from pipeline.reading.tables import TEXT

NUMBER_BYTES = 8
COPIES = 3
"""The least number of float64 copies that a training holds, at its peak, of each number, boolean or date.

Measured with naive_bayes on a million rows of twenty columns, as growth of the resident size: real numbers 5.0 times
(40 bytes a value), booleans 7.9, dates 25; with a test part of one half 4.5 and 6.6; where rows lack a target, 3.7 for
the rows that are left.  One of these copies of a tensor has its own type: with bytes 3.6 times, with a test part of one
half 2.8.  The libraries and the estimator itself come on top.
"""


def check_fits(request: TrainingRequest, dataset: Dataset, limit_bytes: int) -> None:
    """Raises RejectedError, with the figures, if a training of these columns cannot fit into the limit.

    `limit_bytes` is the worker's limit; the request may ask for less.  Reads only the file's layout, not its values.
    """
    if dataset.path is None:
        return
    allowed = min(request.max_memory_bytes or limit_bytes, limit_bytes)
    rows, held, needed = _size(request, dataset, dataset.path)
    if needed > allowed:
        which = "MAX_TRAINING_MEMORY" if allowed == limit_bytes else "max_memory_bytes"
        raise RejectedError(
            f"dataset {dataset.name} has {rows:,} rows and {_shown(held)} in memory, with which a training takes "
            f"{_shown(needed)} at the least; it may use {_shown(allowed)} ({which}): name fewer features, store fewer "
            "rows, or ask for more memory of a worker that has it"
        )


def _size(request: TrainingRequest, dataset: Dataset, path: Path) -> tuple[int, int, int]:
    """The rows with a target, the bytes of the columns used, and the least bytes that a training needs."""
    with pa.memory_map(str(path)) as source, pa.ipc.open_file(source) as reader:
        table = reader.read_all()
        names = table.column_names
        target = request.target_column or dataset.target_column
        rows = table.num_rows - (table.column(target).null_count if target in names else 0)
        wanted = names if request.features is None else [name for name in request.features if name in names]
        columns: list[Any] = [table.column(name) for name in wanted]
        text = sum(column.nbytes for column in columns if column.type == TEXT)
    numbers = rows * NUMBER_BYTES * sum(_numbers(column.type) for column in columns)
    saved = rows * sum(_saved(column.type) for column in columns)
    return rows, numbers + text, COPIES * numbers + text - saved


def _numbers(kind: pa.DataType) -> int:
    """The least number of values that one row of a column becomes; 0 for text, which may be an identifier."""
    if pa.types.is_fixed_size_list(kind):
        return int(kind.list_size) * _numbers(kind.value_type)
    return 0 if kind == TEXT or pa.types.is_null(kind) else 1


def _saved(kind: pa.DataType) -> int:
    """The bytes by which one row of a tensor is smaller in its own type than in float64."""
    inner: Any = kind
    while pa.types.is_fixed_size_list(inner):
        inner = inner.value_type
    return 0 if inner is kind else _numbers(kind) * (NUMBER_BYTES - max(inner.bit_width // 8, 1))


def _shown(size: int) -> str:
    return f"{size / 2**30:,.1f} GiB" if size >= 2**30 else f"{size / 2**20:,.1f} MiB"
