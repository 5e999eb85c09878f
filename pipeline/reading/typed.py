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

from pipeline.reading.notations import notation_of as notation
from pipeline.reading.notes import MISSING, NOTATION, NOTES, TOLD, Note
from pipeline.reading.options import IDENTIFIER, WORDS, ReadOptions
from pipeline.reading.suspicions import FEW_ROWS, suspicions
from pipeline.reading.tables import TEXT, named
from pipeline.reading.texts import Read, has_decimal_comma, words
from pipeline.reading.told import as_it_is, check_known, is_text, read_column, without

MOST_NOTES = 100
"""They go with the dataset and with every model that is trained on it."""
ROW_NUMBERS = ("", "unnamed: 0", "rownames", "rowname")
"""Names of a column in which R and pandas write the names of rows."""


def as_read(columns: Sequence[Read], names: Sequence[str], notes: Sequence[Note], options: ReadOptions) -> pa.Table:
    """The table of these columns; a nameless one gets a name, one that only counts the rows is left out unless told."""
    kept, found = [], list(notes)
    for place, (name, column) in enumerate(zip(names, columns, strict=True)):
        may_name_rows = place == 0 and len(names) > 1 and not {name, named(name, place)} & options.types.keys()
        if may_name_rows and _numbers_rows(name, column):
            which = "" if name else "the first column, which has no name, "
            found.append(Note(name, f"{which}is left out: it holds integers that differ in every row, as row names do"))
            continue
        if may_name_rows and _names_rows(name, column):
            text = "is nameless, and its words differ in every row: they are taken for names of rows, and no feature"
            column = replace(column, told=IDENTIFIER, notes=(*column.notes, Note(name, text)))
        name = named(name, place)
        kept.append((name, column))
        found += [replace(note, column=name) for note in column.notes]
        found += () if column.told or column.is_known else suspicions(name, column.values)
    if len(found) > MOST_NOTES:
        found[MOST_NOTES:] = [Note("", f"there are {len(found) - MOST_NOTES:,} notes more")]
    fields = [pa.field(name, column.values.type, metadata=_metadata(column)) for name, column in kept]
    about: dict[bytes | str, bytes | str] = {NOTES: orjson.dumps([note.to_document() for note in found])}
    if options.missing:
        about[MISSING] = orjson.dumps(options.missing)
    return pa.table([column.values for _, column in kept], schema=pa.schema(fields, metadata=about))


def with_types(table: pa.Table, notes: Sequence[Note], options: ReadOptions) -> pa.Table:
    """The table with its columns of text read, and all that is told; what was read before is not read again."""
    is_read = _is_read(table)
    if is_read and not options.types and not options.missing:
        return table
    names = [named(name, place) for place, name in enumerate(table.column_names)]
    check_known(options.types, names)
    known = [*notes, *(notes_of(table) if is_read else ())]
    options = replace(options, missing=tuple(dict.fromkeys((*missing_of(table), *options.missing))))
    fields: Sequence[Any] = list(table.schema) if is_read else [None] * table.num_columns
    table = table.replace_schema_metadata(None)
    columns = _read(table, names, fields, options, options.decimal or ".")
    if not options.decimal and any(map(has_decimal_comma, columns)):
        columns = _read(table, names, fields, options, ",")
    known = [note for note in known if note.column not in options.types]
    return as_read(columns, table.column_names, known, options)


def _read(
    table: pa.Table, names: Sequence[str], fields: Sequence[Any], options: ReadOptions, decimal: str
) -> list[Read]:
    return [
        _column(name, column, field, options, decimal)
        for name, column, field in zip(names, table.columns, fields, strict=True)
    ]


def _column(name: str, column: Any, field: Any, options: ReadOptions, decimal: str) -> Read:
    """`field` is what is known of a column that was read before."""
    if options.keep_texts:
        return words(column) if is_text(column.type) else as_it_is(column)
    if field is not None and name not in options.types:
        key = notation_of(field)
        known = Read(without(column, options.missing), (), notation(key) if key else None, told_of(field))
        return replace(known, is_known=True)
    return read_column(name, column, options, decimal)


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
    except ValueError:  # none, or somebody else has written it
        return ""
    return str(key)


def told_of(field: pa.Field[Any]) -> str:
    """What a column was said to be, where its type does not show it; empty for nothing."""
    told = (field.metadata or {}).get(TOLD, b"").decode(errors="replace")
    return told if told in WORDS else ""


def missing_of(table: pa.Table) -> tuple[str, ...]:
    """The values of which somebody said that they count as missing."""
    try:
        found = orjson.loads((table.schema.metadata or {}).get(MISSING, b"[]"))
    except orjson.JSONDecodeError:  # somebody else has written it
        return ()
    return tuple(map(str, found)) if isinstance(found, list) else ()


def _is_read(table: pa.Table) -> bool:
    """Whether the notes that we write are there, and as we write them."""
    if NOTES not in (table.schema.metadata or {}):
        return False
    count = len(notes_of(table))
    return count <= MOST_NOTES + 1 and (count > 0 or table.schema.metadata[NOTES] == b"[]")


def _metadata(column: Read) -> dict[bytes, bytes]:
    said = {NOTATION: column.notation.key if column.notation else "", TOLD: column.told}
    return {key: text.encode() for key, text in said.items() if text}


def _names_rows(name: str, column: Read) -> bool:
    values = column.values
    is_nameless = name.strip().lower() in ROW_NUMBERS and values.type == TEXT and len(values) >= FEW_ROWS
    return is_nameless and not values.null_count and bool(pc.count_distinct(values).as_py() == len(values))


def _numbers_rows(name: str, column: Read) -> bool:
    values = column.values
    if name.strip().lower() not in ROW_NUMBERS or not pa.types.is_integer(values.type) or values.null_count:
        return False
    return bool(pc.count_distinct(values).as_py() == len(values))
