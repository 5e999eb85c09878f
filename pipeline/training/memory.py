"""Whether a training fits into its memory, judged from the dataset's cached file before a trainer gets it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa

from pipeline.datasets import Dataset
from pipeline.datasets.tables import TEXT
from pipeline.errors import RejectedError
from pipeline.jobs import TrainingRequest

NUMBER_BYTES = 8
COPIES = 3
"""How often a training holds each number, truth or date, as float64, at its peak: the least that can be.

Measured, a million rows of twenty columns, naive_bayes, growth of the resident size: real numbers 6.6 times (53 bytes a
value), truths 7.9, dates 25; with a test part of a half 5.0 and 6.6; of rows without a target 4.1 for those that are
left.  The libraries and what an estimator takes come on top.
"""


def check_fits(request: TrainingRequest, dataset: Dataset, limit_bytes: int) -> None:
    """Raises RejectedError, with the figures, if no training of these columns fits into the limit.

    `limit_bytes` is the worker's; the request may ask for less.  Nothing is read but the file's layout.
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
    """Rows that have a target, the bytes of the columns that are read, and how many a training takes at the least."""
    with pa.memory_map(str(path)) as source, pa.ipc.open_file(source) as reader:
        table = reader.read_all()
        names = table.column_names
        target = request.target_column or dataset.target_column
        rows = table.num_rows - (table.column(target).null_count if target in names else 0)
        wanted = names if request.features is None else [name for name in request.features if name in names]
        columns: list[Any] = [table.column(name) for name in wanted]
        text = sum(column.nbytes for column in columns if column.type == TEXT)
    numbers = rows * NUMBER_BYTES * sum(_numbers(column.type) for column in columns)
    return rows, numbers + text, COPIES * numbers + text


def _numbers(kind: pa.DataType) -> int:
    """How many numbers one row of a column becomes at the least; a text may turn out to be an identifier."""
    if pa.types.is_fixed_size_list(kind):
        return int(kind.list_size) * _numbers(kind.value_type)
    return 0 if kind == TEXT or pa.types.is_null(kind) else 1


def _shown(size: int) -> str:
    return f"{size / 2**30:,.1f} GiB" if size >= 2**30 else f"{size / 2**20:,.1f} MiB"
