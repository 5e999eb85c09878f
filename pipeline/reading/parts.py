"""Reads one table from the Parquet files in a tar archive, its parts, whose columns must agree."""

from __future__ import annotations

import re
import tarfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import RejectedError, said_by
from pipeline.reading.notes import Note
from pipeline.reading.options import ReadOptions
from pipeline.reading.tables import (
    PANDAS_INDEX,
    Column,
    canonical_column,
    check_column_count,
    check_doubled,
    chunked,
    is_tensor,
)
from pipeline.reading.typed import with_types
from pipeline.reading.unpacking import check_size

BATCH_ROWS = 8_192
PARTITION = re.compile(r"(?:^|/)([^/=]+=[^/]*)/")
"""What Hive and Spark call folders: `year=2026`."""


def read_parts(path: Path, max_bytes: int | None, options: ReadOptions) -> pa.Table:
    """The rows of all parts, in their order; columns are matched by name.

    A part is read column by column and batch by batch, since a few bytes of Parquet may hold any number of equal
    values.  Raises RejectedError that names the part that cannot be read, or the two whose columns differ.
    """
    read, size = _Parts(), 0
    for name, content in _contents(path):
        with _about(name):
            part = _opened(content)
            schema = part.schema_arrow
        read.begin(name, schema)
        with _about(name):
            for column in read.names:
                chunks = []
                for batch in part.iter_batches(BATCH_ROWS, columns=[column]):
                    chunks.append(batch.column(column))
                    size += batch.nbytes
                    check_size(size, max_bytes)
                read.add(column, chunked(chunks, schema.field(column).type))
    return with_types(read.table(), _notes(read.parts), options)


class _Parts:
    """The columns of the parts that were read so far."""

    def __init__(self) -> None:
        self.parts: list[str] = []
        self.names: Sequence[str] = ()
        self._columns: dict[str, list[Column]] = {}
        self._schema = pa.schema([])
        """Of the first part, without metadata as soon as another part's differs."""

    def begin(self, part: str, schema: pa.Schema) -> None:
        """Raises RejectedError if this part does not have the columns of the first one."""
        names = [name for name in schema.names if not PANDAS_INDEX.fullmatch(name)]
        if not self.parts:
            self.names, self._columns, self._schema = names, {name: [] for name in names}, schema
        if not schema.equals(self._schema, check_metadata=True):
            self._schema = pa.schema([one.remove_metadata() for one in self._schema])
        for name in sorted(set(names) ^ set(self.names)):
            there, lacks = (part, self.parts[0]) if name in names else (self.parts[0], part)
            raise RejectedError(f"column {name!r} is in {there} and not in {lacks}: write both with the same columns")
        self.parts.append(part)

    def add(self, name: str, column: Column) -> None:
        self._columns[name].append(column)

    def table(self) -> pa.Table:
        """The rows of all parts.  Raises RejectedError if the types of a column do not unify."""
        columns = [self._joined(name, self._columns.pop(name)) for name in self.names]
        fields = [
            pa.field(name, column.type, metadata=self._schema.field(name).metadata)
            for name, column in zip(self.names, columns, strict=True)
        ]
        metadata: Any = self._schema.metadata
        return pa.table(columns, schema=pa.schema(fields, metadata=metadata))

    def _joined(self, name: str, pieces: list[Column]) -> Column:
        if any(piece.type != pieces[0].type for piece in pieces):
            pieces = [canonical_column(name, piece) for piece in pieces]
        kind, first = pieces[0].type, self.parts[0]
        for part, piece in zip(self.parts, pieces, strict=True):
            unified = _unified(kind, piece.type)
            if unified is None:
                raise RejectedError(
                    f"column {name!r} is {_shown(kind)} in {first} and {_shown(piece.type)} in {part}: "
                    "write both with the same type"
                )
            if unified != kind:
                kind, first = unified, part
        return chunked([chunk for piece in pieces for chunk in _as(piece, kind).chunks], kind)


def _opened(content: pa.Buffer) -> pq.ParquetFile:
    part = pq.ParquetFile(pa.BufferReader(content))
    names = part.schema_arrow.names
    check_column_count(len(names))
    check_doubled(names)
    if not names:
        raise RejectedError("it has no columns")
    return part


def _contents(path: Path) -> Iterator[tuple[str, pa.Buffer]]:
    """The name and the bytes, mapped into memory, of each file of the archive."""
    with tarfile.open(path, "r:") as archive, pa.memory_map(str(path)) as source:
        for member in archive:
            source.seek(member.offset_data)
            yield member.name, source.read_buffer(member.size)


@contextmanager
def _about(part: str) -> Iterator[None]:
    """Errors about the data become a RejectedError that names the part."""
    try:
        yield
    except RejectedError as error:
        raise RejectedError(f"{part}: {error}") from error
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:  # the machine's error, not Arrow's about the data
            raise
        raise RejectedError(f"{part}: the Parquet file cannot be read: {said_by(error)}") from error


def _notes(parts: Sequence[str]) -> list[Note]:
    folders = [found[1] for part in parts[:1] if (found := PARTITION.search(part))]
    return [
        Note("", f"the names of folders such as {folder} are no columns; write the column into the files to have it")
        for folder in folders
    ]


def _unified(one: Any, other: Any) -> Any:
    """The type that holds values of both canonical types, or None."""
    if one == other or pa.types.is_null(other):
        return one
    if pa.types.is_null(one):
        return other
    numbers = {pa.int64(), pa.float64()}
    if one in numbers and other in numbers:
        return pa.float64()
    if is_tensor(one) and is_tensor(other) and one.list_size == other.list_size:
        inner = _unified(one.value_type, other.value_type)
        return None if inner is None else pa.list_(inner, one.list_size)
    return None


def _as(column: Column, kind: Any) -> Column:
    if column.type == kind:
        return column
    return (
        chunked([pa.nulls(len(column), kind)], kind) if pa.types.is_null(column.type) else column.cast(kind, safe=False)
    )


def _shown(kind: pa.DataType) -> str:
    return "text" if pa.types.is_large_string(kind) else str(kind)
