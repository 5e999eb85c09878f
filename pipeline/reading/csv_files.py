"""Reads CSV: the type of each column comes from all its values."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as csv

from pipeline.errors import RejectedError, said_by
from pipeline.reading.dates import IN_UTC, OFFSET
from pipeline.reading.dialects import BLOCK_BYTES, Dialect, dialect_of
from pipeline.reading.notes import Note
from pipeline.reading.options import ReadOptions
from pipeline.reading.tables import TEXT, check_doubled, ends_of, named, whole
from pipeline.reading.texts import NA_WORDS, Read, has_decimal_comma, has_decimal_point, may_hold, words
from pipeline.reading.told import check_known, read_column

MOST_ROW_BYTES = 64 * 1024 * 1024
"""A longer row has no line ends, or a quote that is never closed."""
QUOTED_TEXT = 80
TRUTHS = {"true_values": ["true", "True", "TRUE"], "false_values": ["false", "False", "FALSE"]}
SCANNED_BYTES = 256 * 1024
"""As much as the caches of a processor hold."""
IS_DIGIT_OR_X = np.isin(np.arange(256), [*b"0123456789xX"])
"""By byte, whether it makes a code of a 0 before it."""
LONGEST_BLANK = 8
"""Blanks and signs that may stand before a code that begins with 0."""
LARGEST_INT = 2.0**63


def read_csv(path: Path, options: ReadOptions, into: Path) -> tuple[list[Read], list[str], list[Note]]:
    """The columns of a CSV file in UTF-8, their names, and notes about the whole file.

    A file separated by blanks is rewritten to the file `into` first.  Raises RejectedError that says where it is wrong.
    """
    path, dialect, notes = dialect_of(path, options, into)
    table, bad, dialect = _parsed(path, dialect, options)
    if bad:
        notes.append(Note("", f"{len(bad):,} lines that begin with # are left out", bad[0].number or 0))
    check_doubled([name for name in table.column_names if name])
    columns = [*map(words, table.columns)] if options.keep_texts else _typed(path, dialect, options, table)
    names = [name.strip() for name in table.column_names]
    kept = [place for place, name in enumerate(names) if name or not _is_empty(columns[place])]
    return [columns[place] for place in kept], [names[place] for place in kept], notes


def _parsed(path: Path, dialect: Dialect, options: ReadOptions) -> tuple[pa.Table, list[Any], Dialect]:
    """The rows, the comments among them, and the dialect that read them."""
    with suppress(pa.ArrowInvalid):  # raised too if a block ends at a line end within a value
        return _attempt(path, dialect, options)
    dialect = replace(dialect, quoted=_has_quotes(path))
    while True:
        try:
            return _attempt(path, dialect, options)
        except pa.ArrowInvalid as error:
            longest = max(_row_sizes(path), default=0)
            if longest > MOST_ROW_BYTES:
                raise RejectedError(
                    f"the CSV file has a row of more than {MOST_ROW_BYTES:,} bytes; are line ends missing, or is a "
                    "quote never closed?"
                ) from None
            if longest > dialect.block:
                dialect = replace(dialect, block=2 * longest)
                continue
            raise _bad_line(path, dialect) or _bad_csv(path, dialect, error) from error


def _attempt(path: Path, dialect: Dialect, options: ReadOptions) -> tuple[pa.Table, list[Any], Dialect]:
    comments: list[Any] = []

    def note(row: csv.InvalidRow) -> Literal["skip", "error"]:
        if _is_comment(row):
            comments.append(row)
        return _skips(row)

    try:
        names = _names(path, dialect) if options.keep_texts or options.types else []
        final = [named(name.strip(), place) for place, name in enumerate(names)]
        check_known(options.types, final)
        told = zip(names, final, strict=True)
        as_texts = [name for name, later in told if options.keep_texts or later in options.types]
        types = dict.fromkeys(as_texts, pa.string())
        marks = [*NA_WORDS, *options.missing]
        return _arrow(path, dialect, note, column_types=types, null_values=marks), comments, dialect
    except UnicodeDecodeError:
        raise RejectedError("the CSV file holds values that are not text") from None


def _arrow(path: Path, dialect: Dialect, note: Any, **wanted: Any) -> pa.Table:
    convert: dict[str, Any] = {"null_values": NA_WORDS, "strings_can_be_null": False, **TRUTHS, **wanted}
    with pa.memory_map(str(path)) as source:
        mapped: Any = source
        reading, parsing = _read_options(dialect), _parse_options(dialect, note)
        table = csv.read_csv(mapped, reading, parsing, csv.ConvertOptions(**convert))
    columns, schema = table.columns, table.schema
    del table
    return whole(columns, schema)


def _names(path: Path, dialect: Dialect) -> list[str]:
    with pa.memory_map(str(path)) as source:
        mapped: Any = source
        reading, parsing = _read_options(dialect), _parse_options(dialect, _skips)
        return list(csv.open_csv(mapped, reading, parsing).schema.names)


def _read_options(dialect: Dialect) -> csv.ReadOptions:
    """With more threads, Arrow would drop a block that lies within one value, and give rows no numbers."""
    return csv.ReadOptions(
        use_threads=False, block_size=dialect.block, skip_rows=dialect.skipped, column_names=dialect.names
    )


def _parse_options(dialect: Dialect, note: Any) -> csv.ParseOptions:
    return csv.ParseOptions(delimiter=dialect.delimiter, newlines_in_values=dialect.quoted, invalid_row_handler=note)


def _typed(path: Path, dialect: Dialect, options: ReadOptions, table: pa.Table) -> list[Read]:
    names, kinds = table.column_names, table.schema.types
    final = {name: named(name.strip(), place) for place, name in enumerate(names)}
    columns = [
        read_column(final[name], column, options, options.decimal or ".")
        for name, column in zip(names, table.columns, strict=True)
    ]
    once = {name for name, times in Counter(names).items() if times == 1}
    again = dict.fromkeys(_misread(path, dialect, table), options.decimal or ".")
    if dialect.delimiter == ";" and not options.decimal:
        again |= {name: "." for name, column in zip(names, table.columns, strict=True) if _may_be_thousands(column)}
    if options.decimal == "," or (not options.decimal and any(map(has_decimal_comma, columns))):
        points = options.decimal or dialect.delimiter != ","  # between commas, an unquoted 1.234 has a decimal point
        again |= {  # in such a file 1.234 is more likely a thousand
            name: ","
            for name, kind in zip(names, kinds, strict=True)
            if pa.types.is_string(kind) or (points and pa.types.is_floating(kind))
        }
    if wanted := [name for name in again if name in once]:
        texts = _texts(path, dialect, wanted)
        found = {
            name: read_column(final[name], column, options, again[name])
            for name, column in zip(texts.column_names, texts.columns, strict=True)
        }
        places = {name: place for place, name in enumerate(names)}
        is_mixed = not options.decimal and any(map(has_decimal_point, found.values()))
        for name, column in found.items():
            if not (is_mixed and again[name] == "," and pa.types.is_floating(kinds[places[name]])):
                columns[places[name]] = column
    by_name = [name if name in once else "" for name in names]
    untold = [name if final.get(name) not in options.types else "" for name in by_name]
    _quoted(path, dialect, columns, untold)
    _zoned(path, dialect, columns, by_name)
    return columns


def _texts(path: Path, dialect: Dialect, names: list[str], **convert: Any) -> pa.Table:
    types = dict.fromkeys(names, pa.string())
    return _arrow(path, dialect, _skips, include_columns=names, column_types=types, **convert)


def _misread(path: Path, dialect: Dialect, table: pa.Table) -> list[str]:
    """Columns that are to be read from their texts: codes such as 007, integers beyond 64 bits, times of a day."""
    codes = any(map(pa.types.is_integer, table.schema.types)) and _has_leading_zeros(path, dialect.delimiter)
    return [
        name
        for name, column in zip(table.column_names, table.columns, strict=True)
        if (codes and pa.types.is_integer(column.type))
        or pa.types.is_time(column.type)
        or (pa.types.is_floating(column.type) and _is_beyond_64_bits(column))
    ]


def _may_be_thousands(column: Any) -> bool:
    """Whether all numbers have three digits behind the point, or none, as 1.250 of those who write a decimal comma."""
    if not pa.types.is_floating(column.type) or not len(column):
        return False
    numbers = column.drop_null().to_numpy()
    thousandths = numbers * 1_000
    return bool(np.allclose(thousandths, np.round(thousandths), rtol=1e-9) and (numbers != np.round(numbers)).any())


def _is_beyond_64_bits(column: Any) -> bool:
    least, greatest = ends_of(column)
    return least is not None and max(greatest, -least) >= LARGEST_INT


def _has_leading_zeros(path: Path, delimiter: str) -> bool:
    """Whether a value may begin with 0 and another digit, after a blank or a sign too; looks at the bytes.

    All that may stand before it, but for some delimiters, is below a point in ASCII, which is fast to see.
    """
    content = np.asarray(np.memmap(path, np.uint8, "r"))
    begins, may_follow = np.zeros(256, bool), np.zeros(256, bool)
    begins[[*f'"\n\r{delimiter}'.encode()]] = True
    may_follow[[*b" -+\t"]] = True
    may_follow &= ~begins
    for start in range(0, len(content), SCANNED_BYTES):
        part = content[max(0, start - LONGEST_BLANK - 2) : start + SCANNED_BYTES]
        if start == 0:
            part = np.insert(part, 0, ord("\n"))
        before, second = part[:-2], part[2:]
        found = before < ord(".")
        if delimiter > ".":
            found |= before == ord(delimiter)
        found &= part[1:-1] == ord("0")
        found &= second >= ord("0")
        places = np.flatnonzero(found)
        places = places[IS_DIGIT_OR_X[second[places]]]
        for _ in range(LONGEST_BLANK + 1):
            stands_before = part[places]
            if begins[stands_before].any():
                return True
            places = places[may_follow[stands_before] & (places > 0)] - 1
    return False


def _quoted(path: Path, dialect: Dialect, columns: list[Read], names: Sequence[str]) -> None:
    """Make NA and the like missing in columns of words, where they are not quoted, and say so."""
    marks = pa.array(NA_WORDS[1:], TEXT)
    with_marks = [
        place
        for place, column in enumerate(columns)
        if names[place]
        and column.values.type == TEXT
        and may_hold(column.values, NA_WORDS[1:])
        and pc.any(pc.is_in(column.values, marks)).as_py()
    ]
    if not with_marks:
        return
    blank_before = [f" {mark}" for mark in NA_WORDS]
    unquoted_only = {
        "strings_can_be_null": True,
        "quoted_strings_can_be_null": False,
        "null_values": [*NA_WORDS, *blank_before],
    }
    given = _texts(path, dialect, [names[place] for place in with_marks], **unquoted_only)
    for place in with_marks:
        column, nulls = columns[place], given.column(names[place])
        missing = pa.array(np.concatenate([np.asarray(chunk.is_null()) for chunk in nulls.chunks]))
        unquoted = pc.and_(missing, pc.is_in(column.values, marks))
        count = pc.sum(unquoted).as_py()
        if not count:
            continue
        row = pc.index(unquoted, True).as_py()
        mark = column.values[row].as_py()
        text = f"{mark} is taken for a missing value in {count:,} rows; where it is a word, quote it"
        values = pc.if_else(unquoted, pa.scalar(None, TEXT), column.values)
        columns[place] = replace(column, values=values, notes=(*column.notes, Note(names[place], text, row + 1, mark)))


def _zoned(path: Path, dialect: Dialect, columns: list[Read], names: Sequence[str]) -> None:
    """Say of columns that Arrow has read as times with zones that they are in UTC; looks at the first block."""
    places = {
        names[place]: place for place, column in enumerate(columns) if names[place] and _has_zones(column.values.type)
    }
    if not places:
        return
    types = dict.fromkeys(places, TEXT)
    convert = csv.ConvertOptions(include_columns=list(places), column_types=types)
    with pa.memory_map(str(path)) as source:
        mapped: Any = source
        first = csv.open_csv(mapped, _read_options(dialect), _parse_options(dialect, _skips), convert)
        batch = first.read_next_batch()
    for name, texts in zip(places, batch.columns, strict=True):
        row = pc.index(pc.match_substring_regex(texts, OFFSET), True).as_py()
        if row >= 0:
            note = Note(name, IN_UTC, row + 1, texts[row].as_py())
            columns[places[name]] = replace(columns[places[name]], notes=(note,))


def _has_zones(kind: pa.DataType) -> bool:
    return pa.types.is_timestamp(kind) and kind.tz is not None


def _skips(row: csv.InvalidRow) -> Literal["skip", "error"]:
    """What was skipped before is skipped again."""
    return "skip" if _is_comment(row) else "error"


def _is_comment(row: csv.InvalidRow) -> bool:
    return row.text.startswith("#")


def _is_empty(column: Read) -> bool:
    return bool(pa.types.is_null(column.values.type))


def _bad_line(path: Path, dialect: Dialect) -> RejectedError | None:
    """The error about the first row with too many or too few values."""
    bad: list[csv.InvalidRow] = []

    def note(row: csv.InvalidRow) -> Literal["skip", "error"]:
        if _is_comment(row):
            return "skip"
        bad.append(row)
        return "skip" if len(bad) == 1 else "error"

    reading = _read_options(replace(dialect, names=None))
    with suppress(pa.ArrowInvalid, UnicodeDecodeError), pa.memory_map(str(path)) as source:
        mapped: Any = source
        csv.read_csv(mapped, reading, _parse_options(dialect, note))
    if not bad:
        return None
    row = bad[0]
    return RejectedError(
        f"{'row' if dialect.quoted else 'line'} {(row.number or 0) + dialect.skipped:,} of the CSV file has "
        f"{row.actual_columns} values where the header has {row.expected_columns}: {row.text[:QUOTED_TEXT]!r}"
    )


def _bad_csv(path: Path, dialect: Dialect, error: pa.ArrowInvalid) -> RejectedError:
    if sum(1 for _ in islice(_row_sizes(path, dialect.skipped), 2)) < 2 - (dialect.names is not None):
        return RejectedError("it has no rows")
    return RejectedError(f"the CSV file cannot be read: {said_by(error)}")


def _has_quotes(path: Path) -> bool:
    with path.open("rb") as file:
        return any(b'"' in part for part in iter(lambda: file.read(BLOCK_BYTES), b""))


def _row_sizes(path: Path, skipped: int = 0) -> Iterator[int]:
    """The bytes of each row without blank lines; a line end inside quotation marks belongs to the row."""
    with path.open("rb") as file:
        for _ in range(skipped):
            file.readline()
        size, quoted = 0, False
        for line in (part for whole in file for part in whole.splitlines(keepends=True)):
            size += len(line)
            quoted ^= line.count(b'"') % 2 == 1
            if quoted:
                continue
            if not line.isspace():
                yield size
            size = 0
        if size:
            yield size
