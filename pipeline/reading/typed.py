"""Puts columns that were read into a table, which carries their notations and the notes along.

A table with notes has been read; its columns of text are words, and are not looked at again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.reading.notes import NOTATION, NOTES, Note
from pipeline.reading.options import ReadOptions
from pipeline.reading.tables import TEXT
from pipeline.reading.texts import Read, read, words

MOST_NOTES = 100
"""They go with the dataset and with every model that is trained on it."""
ROW_NUMBERS = ("", "unnamed: 0", "rownames", "rowname")
"""Names of a column in which R and pandas write the names of rows."""


def as_read(columns: Sequence[Read], names: Sequence[str], notes: Sequence[Note]) -> pa.Table:
    """The table of these columns; a nameless one gets a name, one that only counts the rows is left out."""
    kept, found = [], list(notes)
    for place, (name, column) in enumerate(zip(names, columns, strict=True)):
        if place == 0 and len(names) > 1 and _numbers_rows(name, column):
            found.append(Note(name, "is left out: it is a nameless column of integers that differ in every row"))
            continue
        name = name or f"column_{place + 1}"
        kept.append((name, column))
        found += [replace(note, column=name) for note in column.notes]
    if len(found) > MOST_NOTES:
        found[MOST_NOTES:] = [Note("", f"there are {len(found) - MOST_NOTES:,} notes more")]
    fields = [pa.field(name, column.values.type, metadata=_metadata(column)) for name, column in kept]
    schema = pa.schema(fields, metadata={NOTES: orjson.dumps([note.to_document() for note in found])})
    return pa.table([column.values for _, column in kept], schema=schema)


def with_types(table: pa.Table, notes: Sequence[Note], options: ReadOptions) -> pa.Table:
    """The table with its columns of text read; as it is if that was done before."""
    if NOTES in (table.schema.metadata or {}):
        return table
    columns = [
        Read(column, ()) if not _is_text(column.type) else words(column) if options.keep_texts else read(name, column)
        for name, column in zip(table.column_names, table.columns, strict=True)
    ]
    return as_read(columns, table.column_names, notes)


def notes_of(table: pa.Table) -> list[Note]:
    """The notes that a table carries."""
    metadata = table.schema.metadata or {}
    return [Note.from_document(one) for one in orjson.loads(metadata.get(NOTES, b"[]"))]


def notation_of(field: pa.Field[Any]) -> str:
    """The key of the notation of a column's values, empty for none."""
    return str((field.metadata or {}).get(NOTATION, b"").decode())


def _metadata(column: Read) -> dict[bytes, bytes] | None:
    return None if column.notation is None else {NOTATION: column.notation.key.encode()}


def _is_text(kind: pa.DataType) -> bool:
    return kind == TEXT or pa.types.is_string(kind)


def _numbers_rows(name: str, column: Read) -> bool:
    values = column.values
    if name.strip().lower() not in ROW_NUMBERS or not pa.types.is_integer(values.type) or values.null_count:
        return False
    return bool(pc.count_distinct(values).as_py() == len(values))
