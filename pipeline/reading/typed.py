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

from pipeline.reading.dates import IN_UTC, UTC_NAMES
from pipeline.reading.notations import notation_of as notation
from pipeline.reading.notes import NOTATION, NOTES, Note
from pipeline.reading.options import ReadOptions
from pipeline.reading.suspicions import suspicions
from pipeline.reading.tables import TEXT
from pipeline.reading.texts import Read, has_decimal_comma, read, words

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
        found += suspicions(name, column.values)
    if len(found) > MOST_NOTES:
        found[MOST_NOTES:] = [Note("", f"there are {len(found) - MOST_NOTES:,} notes more")]
    fields = [pa.field(name, column.values.type, metadata=_metadata(column)) for name, column in kept]
    schema = pa.schema(fields, metadata={NOTES: orjson.dumps([note.to_document() for note in found])})
    return pa.table([column.values for _, column in kept], schema=schema)


def with_types(table: pa.Table, notes: Sequence[Note], options: ReadOptions) -> pa.Table:
    """The table with its columns of text read; as it is if that was done before."""
    if _is_read(table):
        return table
    table = table.replace_schema_metadata(None)
    if options.keep_texts:
        columns = [words(column) if _is_text(column.type) else _read_already(column) for column in table.columns]
    else:
        columns = _read(table, ".")
        if any(map(has_decimal_comma, columns)):
            columns = _read(table, ",")
    return as_read(columns, table.column_names, notes)


def _read(table: pa.Table, decimal: str) -> list[Read]:
    return [
        read(name, column, decimal) if _is_text(column.type) else _read_already(column)
        for name, column in zip(table.column_names, table.columns, strict=True)
    ]


def _read_already(column: Any) -> Read:
    """A column that has its type."""
    zone = getattr(column.type, "tz", None)
    return Read(column, () if zone is None or zone in UTC_NAMES else (Note("", f"{IN_UTC} (its zone is {zone})"),))


def notes_of(table: pa.Table) -> list[Note]:
    """The notes that a table carries."""
    metadata = table.schema.metadata or {}
    try:
        return [Note.from_document(one) for one in orjson.loads(metadata.get(NOTES, b"[]"))]
    except (orjson.JSONDecodeError, TypeError, ValueError):  # somebody else has written them
        return []


def notation_of(field: pa.Field[Any]) -> str:
    """The key of the notation of a column's values, empty for none."""
    key = (field.metadata or {}).get(NOTATION, b"").decode(errors="replace")
    try:
        notation(key)
    except (KeyError, ValueError, IndexError):  # none, or somebody else has written it
        return ""
    return str(key)


def _is_read(table: pa.Table) -> bool:
    """Whether the notes that we write are there, and as we write them."""
    if NOTES not in (table.schema.metadata or {}):
        return False
    count = len(notes_of(table))
    return count <= MOST_NOTES + 1 and (count > 0 or table.schema.metadata[NOTES] == b"[]")


def _metadata(column: Read) -> dict[bytes, bytes] | None:
    return None if column.notation is None else {NOTATION: column.notation.key.encode()}


def _is_text(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return kind == TEXT or pa.types.is_string(kind) or pa.types.is_string_view(kind)


def _numbers_rows(name: str, column: Read) -> bool:
    values = column.values
    if name.strip().lower() not in ROW_NUMBERS or not pa.types.is_integer(values.type) or values.null_count:
        return False
    return bool(pc.count_distinct(values).as_py() == len(values))
