"""Writes tables as files: Parquet, CSV, JSON lines."""

from __future__ import annotations

import csv as plain_csv
from collections.abc import Iterable
from io import BytesIO, StringIO
from itertools import chain
from typing import BinaryIO, Literal

import orjson
import pyarrow as pa
import pyarrow.csv as csv
import pyarrow.parquet as pq

BATCH_ROWS = 5_000


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
    batches = (batch.to_pylist() for batch in table.to_batches(max_chunksize=BATCH_ROWS))
    return b"".join(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE) for rows in batches for row in rows)


def write_parquet(parts: Iterable[pa.Table], file: BinaryIO) -> None:
    """Write tables with the same columns, at least one, below each other."""
    parts = iter(parts)
    first = next(parts)
    with pq.ParquetWriter(file, first.schema, compression="zstd") as writer:
        for part in chain([first], parts):
            writer.write_table(part)


def write_csv(parts: Iterable[pa.Table], file: BinaryIO, delimiter: str = ",") -> None:
    """As `write_parquet`; a number gets the fewest digits that read back as the same number."""
    for number, part in enumerate(parts):
        if number == 0:
            header = StringIO()
            plain_csv.writer(header, delimiter=delimiter, lineterminator="\n").writerow(part.column_names)
            file.write(header.getvalue().encode())
        try:
            file.write(_csv_rows(part, delimiter, "none"))
        except pa.ArrowInvalid:  # a text holds a delimiter, a quote or a line end
            file.write(_csv_rows(part, delimiter, "needed"))


def _csv_rows(table: pa.Table, delimiter: str, quoting: Literal["none", "needed"]) -> bytes:
    """Arrow quotes all texts or none."""
    rows = BytesIO()
    csv.write_csv(table, rows, csv.WriteOptions(include_header=False, delimiter=delimiter, quoting_style=quoting))
    return rows.getvalue()


def write_json_lines(parts: Iterable[pa.Table], file: BinaryIO) -> None:
    """As `write_parquet`."""
    for part in parts:
        file.write(json_lines_of(part))
