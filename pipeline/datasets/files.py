"""Reads files of rows (CSV, Parquet, JSON lines) as tables."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO, Literal, TypeVar

import orjson
import pyarrow as pa
import pyarrow.csv as csv
import pyarrow.parquet as pq

from pipeline.datasets.moments import with_all_dates
from pipeline.datasets.rows import table_of
from pipeline.datasets.tables import Column, check_column_count
from pipeline.errors import RejectedError, said_by

BOM = b"\xef\xbb\xbf"
"""Windows programs write it before UTF-8."""
JSON_SUFFIXES = (".jsonl", ".ndjson", ".json")
CSV_SUFFIXES = (".csv", ".tsv", ".txt")
DELIMITERS = (",", ";", "\t", "|")
MISSING = [  # the values that pandas reads as missing
    *("", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN"),
    *("<NA>", "N/A", "NA", "NULL", "NaN", "None", "n/a", "nan", "null"),
]
OTHERS = {
    b"\x1f\x8b": "compressed with gzip",
    b"PK\x03\x04": "a zip or Excel file",
    b"\xff\xfe": "in UTF-16",
    b"\xfe\xff": "in UTF-16",
}
PART_BYTES = 1024 * 1024
BLOCK_BYTES = 8 * 1024 * 1024
"""CSV is read in blocks of this size; a row must fit into one."""
QUOTED_TEXT = 80
JSON_BATCH_ROWS = 5_000

Content = bytes | Path
"""A file's content in memory, or its path where it may not fit into memory."""
Keys = TypeVar("Keys", bound=Mapping[str, Any])


def read_table(content: Content, file_name: str, max_bytes: int | None = None) -> pa.Table:
    """The rows of a file with its own types; the first bytes, then the name, tell the format.

    CSV needs a header line and UTF-8.  Its delimiter is the comma, semicolon, tab or bar that occurs most in the
    header.  Column types are inferred from all values.  Raises RejectedError that says where the file is wrong, or if
    its rows would take more than max_bytes.
    """
    with _opened(content) as file:
        beginning = next((part for part in _parts(file) if not part.isspace()), b"").lstrip().removeprefix(BOM)
        file.seek(0)
        magic = file.read(4)
    if not beginning:
        raise RejectedError("the file is empty")
    for others, what in OTHERS.items():
        if magic.startswith(others):
            raise RejectedError(f"the file is {what}; store it as plain CSV in UTF-8, Parquet or JSON lines")
    name = file_name.lower()
    if magic == b"PAR1":
        return _parquet(content, max_bytes)
    if name.endswith(JSON_SUFFIXES) or (not name.endswith(CSV_SUFFIXES) and beginning[:1] in (b"{", b"[")):
        rows = _list(content) if beginning.startswith(b"[") else _lines(content)
        return table_of(rows, max_bytes)
    return _csv(content)


def parquet_of(table: pa.Table) -> bytes:
    """The table as a Parquet file; reading it gives the same table."""
    file = BytesIO()
    pq.write_table(table, file, compression="zstd")
    return file.getvalue()


def csv_of(table: pa.Table) -> bytes:
    """The table as CSV in UTF-8.  Raises ArrowInvalid for tensors, which CSV cannot hold."""
    file = BytesIO()
    csv.write_csv(table, file)
    return file.getvalue()


def json_lines_of(table: pa.Table) -> bytes:
    """The table as JSON lines, one object per row."""
    batches = (batch.to_pylist() for batch in table.to_batches(max_chunksize=JSON_BATCH_ROWS))
    return b"".join(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE) for rows in batches for row in rows)


def _opened(content: Content) -> BinaryIO:
    return BytesIO(content) if isinstance(content, bytes) else content.open("rb")


def _parts(file: BinaryIO) -> Iterator[bytes]:
    while part := file.read(PART_BYTES):
        yield part


def _mapped(content: Content) -> Any:
    return pa.BufferReader(content) if isinstance(content, bytes) else pa.memory_map(str(content))


def _parquet(content: Content, max_bytes: int | None) -> pa.Table:
    """Reads batch by batch, since a few bytes of Parquet may hold any number of equal values."""
    try:
        with _mapped(content) as source:
            file = pq.ParquetFile(source)
            check_column_count(len(file.schema_arrow))
            if not len(file.schema_arrow):
                raise RejectedError("it has no columns")
            batches, size = [], 0
            for batch in file.iter_batches():
                batches.append(batch)
                size += batch.nbytes
                if max_bytes is not None and size > max_bytes:
                    raise RejectedError(f"unpacked it has more bytes than the dataset cache of {max_bytes:,} bytes")
            return pa.Table.from_batches(batches, file.schema_arrow)
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:  # the machine's error, not Arrow's about the data
            raise
        raise RejectedError(f"the Parquet file cannot be read: {said_by(error)}") from error


def _lines(content: Content) -> Iterator[Mapping[str, Any]]:
    with _opened(content) as file:
        lines = enumerate((part.removeprefix(BOM) for line in file for part in line.splitlines()), 1)
        rows = (_parsed(line, f"line {number}") for number, line in lines if line.strip())
        yield from _objects(rows, "object")


def _list(content: Content) -> Iterator[Mapping[str, Any]]:
    whole = content if isinstance(content, bytes) else content.read_bytes()
    yield from _objects(_parsed(whole.removeprefix(BOM), "the file"), "element")


def _objects(rows: Iterable[Any], place: str) -> Iterator[Mapping[str, Any]]:
    for number, row in enumerate(rows, 1):
        if not isinstance(row, dict):
            raise RejectedError(f"{place} {number} of the JSON is not an object of column names and values")
        yield row


def _parsed(text: bytes, place: str) -> Any:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as error:
        if str(error).startswith("Not enough memory"):
            raise MemoryError from error
        raise RejectedError(f"{place} is not valid JSON: {error}") from error


def _csv(content: Content) -> pa.Table:
    header = _header(content)
    if "\0" in header:
        raise RejectedError("the header of the CSV file holds zero bytes, as UTF-16 does; save it as UTF-8")
    delimiter = max(DELIMITERS, key=header.count)
    check_column_count(header.count(delimiter) + 1)
    quoted = _has_quotes(content)
    try:
        with _mapped(content) as source:
            table = csv.read_csv(
                source,
                csv.ReadOptions(block_size=BLOCK_BYTES),
                parse_options=csv.ParseOptions(delimiter=delimiter, newlines_in_values=quoted),
                convert_options=csv.ConvertOptions(null_values=MISSING, strings_can_be_null=True),
            )
        names = table.column_names
    except UnicodeDecodeError:
        raise _no_utf8(content) or _no_text() from None
    except pa.ArrowInvalid as error:
        wrong = _no_utf8(content) or _bad_line(content, delimiter, quoted=quoted) or _bad_csv(content, error)
        raise wrong from error
    if any(pa.types.is_binary(kind) for kind in table.schema.types):
        raise _no_utf8(content) or _no_text()
    return _named(with_all_dates(table), [name.strip() for name in names])


def _header(content: Content) -> str:
    """The first line that is not blank, at most BLOCK_BYTES of it."""
    with _opened(content) as file:
        line = b" "
        while line.isspace():
            line = file.readline(BLOCK_BYTES)
        return line.decode(errors="replace")


def _has_quotes(content: Content) -> bool:
    with _opened(content) as file:
        return any(b'"' in part for part in _parts(file))


def _named(table: pa.Table, names: list[str]) -> pa.Table:
    """Strip the column names and name unnamed columns; drop an unnamed first column that only counts the rows."""
    if not names[0] and len(names) > 1 and _is_count(table.column(0)):
        table, names = table.remove_column(0), names[1:]
    return table.rename_columns([name or f"column_{n}" for n, name in enumerate(names, 1)])


def _is_count(column: Column) -> bool:
    return pa.types.is_int64(column.type) and column.to_pylist() == list(range(len(column)))


def _bad_line(content: Content, delimiter: str, *, quoted: bool) -> RejectedError | None:
    """The error about the first row with too many or too few values.  One thread, since only then rows have numbers."""
    bad: list[csv.InvalidRow] = []

    def note(row: csv.InvalidRow) -> Literal["skip", "error"]:
        bad.append(row)
        return "skip" if len(bad) == 1 else "error"

    options = csv.ParseOptions(delimiter=delimiter, newlines_in_values=quoted, invalid_row_handler=note)
    with suppress(pa.ArrowInvalid, UnicodeDecodeError), _mapped(content) as source:
        csv.read_csv(source, csv.ReadOptions(use_threads=False, block_size=BLOCK_BYTES), options)
    if not bad:
        return None
    row = bad[0]
    return RejectedError(
        f"{'row' if quoted else 'line'} {row.number} of the CSV file has {row.actual_columns} values where the header "
        f"has {row.expected_columns}: {row.text[:QUOTED_TEXT]!r}"
    )


def _bad_csv(content: Content, error: pa.ArrowInvalid) -> RejectedError:
    """Explain a row longer than a block, or a file with only a header; Arrow's own messages for these are unclear."""
    rows, longest = 0, 0
    for size in _row_sizes(content):
        rows, longest = rows + 1, max(longest, size)
    if rows == 1 and longest <= BLOCK_BYTES:
        return RejectedError("it has no rows")
    if longest <= BLOCK_BYTES:
        return RejectedError(f"the CSV file cannot be read: {said_by(error)}")
    return RejectedError(
        f"the CSV file has a row of more than {BLOCK_BYTES:,} bytes; are line ends missing, or is a quote never closed?"
    )


def _row_sizes(content: Content) -> Iterator[int]:
    """The bytes of each row without blank lines; a line end inside quotation marks belongs to the row."""
    with _opened(content) as file:
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


def _no_text() -> RejectedError:
    return RejectedError("the CSV file holds values that are not text")


def _no_utf8(content: Content) -> RejectedError | None:
    """The error about the first line that is not UTF-8.  Runs first, since Arrow prints undecodable bytes of a bad
    line.
    """
    with _opened(content) as file:
        for number, line in enumerate(file, 1):
            try:
                line.decode()
            except UnicodeDecodeError as error:
                byte = f"0x{line[error.start]:02x}"
                return RejectedError(f"line {number} of the CSV file is not UTF-8 (byte {byte}); save it as UTF-8")
    return None
