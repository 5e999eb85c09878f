"""Writes tables as files: Parquet, CSV, JSON lines."""

from __future__ import annotations

from io import BytesIO

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
