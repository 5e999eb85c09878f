"""Files of rows, read from their bytes."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa

from pipeline.reading.files import read_table


def table_from(content: bytes, name: str = "rows.csv", **options: Any) -> pa.Table:
    """The rows of a file with this content and name, see `read_table`."""
    with TemporaryDirectory() as folder:
        path = Path(folder, "file")
        path.write_bytes(content)
        return read_table(path, name, **options)
