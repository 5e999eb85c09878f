"""Files of rows (CSV, Parquet, JSON lines) as tables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from io import BytesIO
from typing import Any, Literal

import orjson
import pyarrow as pa
import pyarrow.csv as csv
import pyarrow.parquet as pq

from pipeline.datasets.moments import with_all_dates
from pipeline.datasets.rows import table_of
from pipeline.datasets.tables import Column, canonical
from pipeline.errors import RejectedError

JSON_SUFFIXES = (".jsonl", ".ndjson", ".json")
CSV_SUFFIXES = (".csv", ".tsv", ".txt")
DELIMITERS = (",", ";", "\t", "|")
MISSING = [  # what pandas reads as missing
    *("", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN"),
    *("<NA>", "N/A", "NA", "NULL", "NaN", "None", "n/a", "nan", "null"),
]
OTHERS = {b"\x1f\x8b": "compressed with gzip", b"PK\x03\x04": "a zip or Excel file", b"\xff\xfe": "in UTF-16"}
QUOTED_TEXT = 80
JSON_BATCH_ROWS = 5_000


def read_table(content: bytes, file_name: str, max_bytes: int | None = None) -> pa.Table:
    """The rows of a file as a canonical table; its kind is told by its first bytes, then by its name.

    CSV has a header line, is UTF-8, and is separated by the comma, semicolon, tab or bar that the header has most of;
    the types of its columns are found from all their values.  Raises RejectedError that says where the file is
    wrong, and if its rows would take more than max_bytes.
    """
    if not content or content.isspace():
        raise RejectedError("the file is empty")
    if max_bytes is not None and len(content) > max_bytes:
        raise RejectedError(f"it has {len(content):,} bytes, more than the dataset cache of {max_bytes:,} bytes")
    for magic, what in OTHERS.items():
        if content.startswith(magic):
            raise RejectedError(f"the file is {what}; store it as plain CSV in UTF-8, Parquet or JSON lines")
    name = file_name.lower()
    if content.startswith(b"PAR1"):
        return canonical(_parquet(content, max_bytes))
    if name.endswith(JSON_SUFFIXES) or (not name.endswith(CSV_SUFFIXES) and content.lstrip()[:1] in (b"{", b"[")):
        return canonical(table_of(_json(content), max_bytes))
    return canonical(_csv(content))


def parquet_of(table: pa.Table) -> bytes:
    """The table as a Parquet file, which reads back as the same table."""
    file = BytesIO()
    pq.write_table(table, file, compression="zstd")
    return file.getvalue()


def csv_of(table: pa.Table) -> bytes:
    """The table as CSV in UTF-8.  Raises ArrowInvalid for tensors, which CSV has no place for."""
    file = BytesIO()
    csv.write_csv(table, file)
    return file.getvalue()


def json_lines_of(table: pa.Table) -> bytes:
    """The table as one JSON object a line."""
    batches = (batch.to_pylist() for batch in table.to_batches(max_chunksize=JSON_BATCH_ROWS))
    return b"".join(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE) for rows in batches for row in rows)


def _parquet(content: bytes, max_bytes: int | None) -> pa.Table:
    """Batch by batch, for a few bytes of Parquet may hold any number of equal values."""
    try:
        file = pq.ParquetFile(pa.BufferReader(content))
        batches, size = [], 0
        for batch in file.iter_batches():
            batches.append(batch)
            size += batch.nbytes
            if max_bytes is not None and size > max_bytes:
                raise RejectedError(f"unpacked it has more bytes than the dataset cache of {max_bytes:,} bytes")
        return pa.Table.from_batches(batches, file.schema_arrow)
    except (pa.ArrowException, OSError) as error:
        raise RejectedError(f"the Parquet file cannot be read: {error}") from error


def _json(content: bytes) -> Iterator[Mapping[str, Any]]:
    if content.lstrip().startswith(b"["):
        rows, place = _parsed(content, "the file"), "element"
    else:
        lines = ((number, line) for number, line in enumerate(content.splitlines(), 1) if line.strip())
        rows, place = (_parsed(line, f"line {number}") for number, line in lines), "object"
    for number, row in enumerate(rows, 1):
        if not isinstance(row, dict):
            raise RejectedError(f"{place} {number} of the JSON is no object of column names and values")
        yield row


def _parsed(text: bytes, place: str) -> Any:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise RejectedError(f"{place} is no JSON: {error}") from error


def _csv(content: bytes) -> pa.Table:
    header = content.lstrip().split(b"\n", 1)[0].decode(errors="replace")
    delimiter = max(DELIMITERS, key=header.count)
    try:
        table = csv.read_csv(
            BytesIO(content),
            parse_options=csv.ParseOptions(delimiter=delimiter, newlines_in_values=b'"' in content),
            convert_options=csv.ConvertOptions(null_values=MISSING, strings_can_be_null=True),
        )
        names = table.column_names
    except UnicodeDecodeError:
        raise _no_utf8(content) from None
    except pa.ArrowInvalid as error:
        raise _bad_line(content, delimiter) or RejectedError(f"the CSV file cannot be read: {error}") from error
    if any(pa.types.is_binary(kind) for kind in table.schema.types):
        raise _no_utf8(content)
    return _named(with_all_dates(table), [name.strip() for name in names])


def _named(table: pa.Table, names: list[str]) -> pa.Table:
    """Names without blanks around them, and a name for each column; a first, unnamed count of the rows is no column."""
    if not names[0] and len(names) > 1 and _is_count(table.column(0)):
        table, names = table.remove_column(0), names[1:]
    return table.rename_columns([name or f"column_{n}" for n, name in enumerate(names, 1)])


def _is_count(column: Column) -> bool:
    return pa.types.is_int64(column.type) and column.to_pylist() == list(range(len(column)))


def _bad_line(content: bytes, delimiter: str) -> RejectedError | None:
    """What is wrong with the first row that has too many or too few values; only one thread counts rows."""
    bad: list[csv.InvalidRow] = []

    def note(row: csv.InvalidRow) -> Literal["skip", "error"]:
        bad.append(row)
        return "skip" if len(bad) == 1 else "error"

    quoted = b'"' in content
    options = csv.ParseOptions(delimiter=delimiter, newlines_in_values=quoted, invalid_row_handler=note)
    with suppress(pa.ArrowInvalid, UnicodeDecodeError):
        csv.read_csv(BytesIO(content), csv.ReadOptions(use_threads=False), options)
    if not bad:
        return None
    row = bad[0]
    return RejectedError(
        f"{'row' if quoted else 'line'} {row.number} of the CSV file has {row.actual_columns} values where the header "
        f"has {row.expected_columns}: {row.text[:QUOTED_TEXT]!r}"
    )


def _no_utf8(content: bytes) -> RejectedError:
    try:
        content.decode()
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        return RejectedError(
            f"line {line} of the CSV file is not UTF-8 (byte 0x{content[error.start]:02x}); save it as UTF-8"
        )
    return RejectedError("the CSV file holds values that are no text")
