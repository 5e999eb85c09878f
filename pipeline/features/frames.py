"""Reads datasets as pandas frames (built-ins by name, others from the cache) and turns frames into tables."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import pandas as pd
import pyarrow as pa

from pipeline.datasets import Dataset
from pipeline.datasets.builtin import load_frame
from pipeline.errors import RejectedError
from pipeline.features import tensors
from pipeline.features.columns import Reading
from pipeline.reading import rows
from pipeline.reading.notes import Note
from pipeline.reading.options import CATEGORY, NOTHING_SAID, ReadOptions
from pipeline.reading.tables import TEXT, canonical, check_doubled
from pipeline.reading.typed import missing_of, notation_of, notes_of, told_of, with_types


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
    shapes = {field.name: shape for field in table.schema if (shape := tensors.shape_of(field.type))}
    plain = {name: _array(table.column(name)) for name in names if name not in shapes}
    frame = pd.DataFrame(plain, copy=False)
    if shapes:
        blocks = {name: tensors.block(name, table.column(name)) for name in shapes}
        frame = pd.concat([blocks[name] if name in shapes else frame[[name]] for name in names], axis=1)
    tensors.remember_shapes(frame, shapes)
    notations = {field.name: key for field in table.schema if (key := notation_of(field))}
    told = {field.name: said for field in table.schema if (said := told_of(field))}
    Reading(notations, told, missing_of(table), tuple(notes_of(table))).remember(frame)
    return frame


def table_of(frame: pd.DataFrame, options: ReadOptions = NOTHING_SAID) -> pa.Table:
    """A frame as a canonical table, its texts read as those of a file; `frame_of` turns it back.

    Integers, booleans and dates with missing values keep their type, categories become words, an index with a name
    becomes columns, and another one is dropped.  Raises RejectedError, naming the column, for values that a table
    cannot hold.
    """
    if not isinstance(frame, pd.DataFrame):
        raise RejectedError(f"a dataset is made of a DataFrame, not of a {type(frame).__name__}")
    notes = []
    if any(name is not None for name in frame.index.names):
        if both := [name for name in frame.index.names if name in frame.columns]:
            raise RejectedError(
                f"the index and a column are both named {both[0]!r}; rename one, or reset_index(drop=True)"
            )
        frame = frame.reset_index()
    elif not isinstance(frame.index, pd.RangeIndex):
        notes.append(Note("", "the frame's index has no name and is left out; frame.reset_index() makes it a column"))
    frame = frame.set_axis([str(name) for name in frame.columns], axis="columns")
    check_doubled(list(frame.columns))
    categories = {name: CATEGORY for name in frame.columns if isinstance(frame[name].dtype, pd.CategoricalDtype)}
    options = replace(options, types={**categories, **options.types})
    table = pa.table([_arrow(name, frame[name]) for name in frame.columns], names=list(frame.columns))
    return canonical(with_types(table, notes, options))


def _arrow(name: str, values: pd.Series[Any]) -> Any:
    """The values as Arrow keeps them; words for categories, intervals and periods, and for values of several kinds."""
    kind: Any = values.dtype
    if isinstance(kind, pd.CategoricalDtype | pd.IntervalDtype | pd.PeriodDtype):
        shown = zip(values.astype(object), values.isna(), strict=True)
        return pa.array([None if missing else str(value) for value, missing in shown], TEXT)
    try:
        return pa.array(values, from_pandas=True)
    except (pa.ArrowException, ValueError, TypeError):
        objects = values.astype(object).where(values.notna(), None)
        return rows.table_of({name: value} for value in objects).column(name)


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
