"""Files of rows, read from their bytes; and the same rows in every form that people have."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import bson
import pandas as pd
import pyarrow as pa
import pyarrow.csv as csv
import pyarrow.feather as feather

from pipeline.datasets import Fetched, reading
from pipeline.features.frames import table_of
from pipeline.reading.files import read_table
from pipeline.reading.writers import parquet_of


def table_from(content: bytes, name: str = "rows.csv", **options: Any) -> pa.Table:
    """The rows of a file with this content and name, see `read_table`."""
    with TemporaryDirectory() as folder:
        path = Path(folder, "file")
        path.write_bytes(content)
        return read_table(path, name, **options)


def as_csv(texts: pa.Table, **options: Any) -> pa.Table:
    file = io.BytesIO()
    csv.write_csv(texts, file)
    return table_from(file.getvalue(), **options)


def as_json(texts: pa.Table, **options: Any) -> pa.Table:
    lines = "\n".join(json.dumps(row) for row in texts.to_pylist())
    return table_from(lines.encode(), "a.jsonl", **options)


def as_parquet(texts: pa.Table, **options: Any) -> pa.Table:
    return table_from(parquet_of(texts), "a.parquet", **options)


def as_feather(texts: pa.Table, **options: Any) -> pa.Table:
    file = io.BytesIO()
    feather.write_feather(texts, file)
    return table_from(file.getvalue(), "a.feather", **options)


def as_workbook(texts: pa.Table, **options: Any) -> pa.Table:
    file = io.BytesIO()
    texts.to_pandas().to_excel(file, index=False)
    return table_from(file.getvalue(), "a.xlsx", **options)


def as_frame(texts: pa.Table, **options: Any) -> pa.Table:
    return table_of(pd.DataFrame(texts.to_pydict()), **options)


def as_collection(texts: pa.Table) -> pa.Table:
    with TemporaryDirectory() as folder:
        path = Path(folder, "rows")
        path.write_bytes(b"".join(bson.encode(row) for row in texts.to_pylist()))
        return reading.loaded(Fetched("rows", path, None, None, ""), reading.read, None).table


FORMS: Mapping[str, Callable[..., pa.Table]] = {
    **{"csv": as_csv, "json": as_json, "parquet": as_parquet, "feather": as_feather, "workbook": as_workbook},
    **{"frame": as_frame, "collection": as_collection},
}
"""What reads a table of texts after it was written in a form."""
