"""Reads datasets as pandas frames (built-ins by name, others from the cache) and turns frames into tables."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pandas as pd
import pyarrow as pa

from pipeline.datasets import Dataset
from pipeline.datasets.builtin import load_frame
from pipeline.errors import RejectedError
from pipeline.features import tensors
from pipeline.features.columns import Reading
from pipeline.reading.options import NOTHING_SAID
from pipeline.reading.tables import canonical
from pipeline.reading.typed import notation_of, notes_of, with_types


def read_frame(dataset: Dataset) -> pd.DataFrame:
    """All rows of a dataset.  Do not change the frame: a built-in's frame is shared, an Arrow file's memory is mapped.

    Raises RejectedError if there is no such built-in, or two columns have the same name.
    """
    if dataset.path is None:
        return load_frame(dataset.name)
    with pa.memory_map(str(dataset.path)) as source, pa.ipc.open_file(source) as reader:
        return frame_of(reader.read_all())


def frame_of(table: pa.Table) -> pd.DataFrame:
    """An Arrow table as a frame; integers and booleans with missing values keep their type.

    A tensor column becomes one column for each number, and the frame remembers its shape (`pipeline.features.tensors`).
    """
    names = table.column_names
    twice = sorted(name for name, times in Counter(names).items() if times > 1)
    if twice:
        raise RejectedError(f"the dataset has more than one column named {', '.join(twice)}")
    columns: dict[str, Any] = {}
    shapes = {}
    for name, column in zip(names, table.columns, strict=True):
        if shape := tensors.shape_of(column.type):
            shapes[name] = shape
            columns.update(zip(tensors.parts(name, shape), tensors.matrix(column).T, strict=True))
        else:
            columns[name] = _array(column)
    frame = pd.DataFrame(columns, copy=False)
    tensors.remember_shapes(frame, shapes)
    notations = {field.name: key for field in table.schema if (key := notation_of(field))}
    Reading(notations, tuple(notes_of(table))).remember(frame)
    return frame


def table_of(frame: pd.DataFrame) -> pa.Table:
    """A frame as a canonical table; `frame_of` turns it back into the same values and types.

    Integers, booleans and dates with missing values keep their type, categories become their values, and the index is
    dropped.  Raises RejectedError, naming the column, for values that a table cannot hold.
    """
    try:
        table = pa.Table.from_pandas(frame, preserve_index=False)
    except (pa.ArrowException, ValueError, TypeError) as error:
        raise RejectedError(f"the frame cannot be read as a table: {'; '.join(map(str, error.args))}") from error
    return canonical(with_types(table, (), NOTHING_SAID))


def _array(column: Any) -> Any:
    """The column as a pandas array.  As a Series, pandas would compare its index with that of every other column."""
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    nullable: Any = None
    if column.null_count and pa.types.is_integer(column.type):
        column, nullable = column.cast(pa.int64()), pd.Int64Dtype()
    elif column.null_count and pa.types.is_boolean(column.type):
        nullable = pd.BooleanDtype()
    mapper = None if nullable is None else lambda _type: nullable
    return column.to_pandas(date_as_object=False, types_mapper=mapper).array
