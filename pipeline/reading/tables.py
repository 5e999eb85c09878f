"""The canonical form of tables, in which they are fingerprinted, cached and trained on."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias
from uuid import UUID

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline.errors import RejectedError, did_you_mean, said_by
from pipeline.reading.moments import moments
from pipeline.reading.notes import MISSING, NOTATION, NOTES, TOLD
from pipeline.reading.options import IDENTIFIER

Column: TypeAlias = Any  # a ChunkedArray or an Array; pyarrow's stubs lack some of their methods
Chunk: TypeAlias = Any
TEXT = pa.large_string()  # pandas stores text this way, so it is mapped without a copy; it has no limit of 2 GiB
UUID_BYTES = 16
"""Binary values of this length are taken for UUIDs; Parquet stores UUIDs like this."""
MAX_CLASSES = 50
LARGEST_WHOLE = 2.0**53
"""Up to here a float64 holds every integer."""
MAX_SHOWN = 30
MOST_NUMBERS = 16_384
"""Most numbers in one tensor, as in an image of 128 x 128.  Each becomes a column whose name must fit in a 900 kB
event.
"""
MOST_COLUMNS = 20_000
"""Most columns, for the same reason; a request's features may name them all."""
MOST_DIMENSIONS = 16
A_NUMBER = re.compile(r"[+-]?[\d.,]+")
PANDAS_INDEX = re.compile(r"__index_level_\d+__")


@contextmanager
def about(name: str) -> Iterator[None]:
    """Prefix a RejectedError with the dataset's name."""
    try:
        yield
    except RejectedError as error:
        raise RejectedError(f"dataset {name!r}: {error}") from error


def canonical(table: pa.Table) -> pa.Table:
    """The same rows with few types: bool, int64, float64, text, timestamp[us] in UTC, null, and tensors.

    Dates become timestamps, decimals floats, UUIDs text, and NaN missing.  A column without any value becomes `null`.
    Lists of one length, also nested ones, become fixed-size lists (tensors).  An index that pandas wrote is dropped.
    Raises RejectedError, naming the column, for other nested values and for bytes that are not text; also for a table
    without rows.
    """
    names = [name for name in table.column_names if not PANDAS_INDEX.fullmatch(name)]
    check_doubled(names)
    check_column_count(len(names))
    if table.num_rows == 0:
        raise RejectedError("it has no rows")
    columns = [canonical_column(name, table.column(name)) for name in names]
    fields = [
        pa.field(name, column.type, metadata=_only(table.schema.field(name).metadata, NOTATION, TOLD))
        for name, column in zip(names, columns, strict=True)
    ]
    table = pa.table(columns, schema=pa.schema(fields, metadata=_only(table.schema.metadata, NOTES, MISSING)))
    _check_room(table)
    return table


def _only(metadata: Mapping[bytes, bytes] | None, *keys: bytes) -> dict[bytes | str, bytes | str] | None:
    return {key: metadata[key] for key in keys if key in metadata} or None if metadata else None


def named(name: str, place: int) -> str:
    """The name of the column at this place, counted from 0, which may have none of its own."""
    return name or f"column_{place + 1}"


def check_doubled(names: Sequence[str]) -> None:
    """Raises RejectedError if two columns have one name."""
    times = Counter(names)
    if doubled := sorted(name for name in times if times[name] > 1):
        hint = ", or say --no-header if the first row holds values" if A_NUMBER.fullmatch(doubled[0]) else ""
        raise RejectedError(f"column {doubled[0]!r} comes {times[doubled[0]]} times; give each its own name{hint}")


def check_column_count(columns: int) -> None:
    """Raises RejectedError if a dataset may not have this many columns."""
    if columns > MOST_COLUMNS:
        raise RejectedError(
            f"it has at least {columns:,} columns; at most {MOST_COLUMNS:,} are allowed.  "
            "Lists of numbers of one length take one column"
        )


def check_target(table: pa.Table, target_column: str | None) -> None:
    """Raises RejectedError, listing the columns, if the target column does not exist."""
    if target_column is not None and target_column not in table.column_names:
        hint = did_you_mean(target_column, table.column_names) or "."
        more = f" and {table.num_columns - MAX_SHOWN:,} more" if table.num_columns > MAX_SHOWN else ""
        columns = ", ".join(table.column_names[:MAX_SHOWN]) + more
        raise RejectedError(f"it has no column {target_column!r}{hint} Its columns are {columns}")


def fingerprint(table: pa.Table) -> str:
    """Hexadecimal sha256 of names, types, notations and values of a canonical table; chunking does not change it."""
    digest = hashlib.sha256(f"tensorfleet table 1, {table.num_rows} rows".encode())
    digest.update((table.schema.metadata or {}).get(MISSING, b""))
    for name in table.column_names:
        column = table.column(name)
        digest.update(f"\0{name}\0{column.type}\0{column.null_count}\0".encode())
        for key, said in sorted((table.schema.field(name).metadata or {}).items()):
            digest.update(key + b"=" + said + b"\0")
        for part in _digests(column):
            digest.update(part)
    return digest.hexdigest()


def whole(columns: list[Column], schema: pa.Schema) -> pa.Table:
    """A table of these columns, each in one chunk.

    Empties the list, so that each column's old chunks are released before the next is joined.
    """
    columns.reverse()
    joined = []
    while columns:
        column = columns.pop()
        joined.append(chunked([in_one(column)], column.type))
    return pa.table(joined, schema=schema)


def in_one(column: Column) -> Chunk:
    """The column as one array; Arrow would copy a single chunk too."""
    if not isinstance(column, pa.ChunkedArray):
        return column
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


def numbers_of(column: Column) -> NDArray[Any] | None:
    """The numbers without a copy; None if some are missing, or if they are in several chunks."""
    chunks = getattr(column, "chunks", [column])
    return None if column.null_count or len(chunks) != 1 else chunks[0].to_numpy()


def ends_of(column: Column) -> tuple[Any, Any]:
    """The least and the greatest number, None if there is none; NaN does not count."""
    numbers = numbers_of(column)
    if numbers is not None and len(numbers) and not np.isnan(least := numbers.min()):  # several times as fast as Arrow
        return least.item(), numbers.max().item()
    ends: Any = pc.min_max(column).as_py()
    return ends["min"], ends["max"]


def chunked(chunks: Sequence[Chunk], kind: Any) -> Column:
    """Join chunks of one type into a column."""
    return pa.chunked_array(chunks, type=kind)


@dataclass(frozen=True, slots=True)
class Profile:
    """What lists of datasets show.  `columns` counts the target; `classes` are texts, None for a continuous target."""

    rows: int
    columns: int
    target: str
    classes: Sequence[str] | None


def profile(table: pa.Table, target_column: str | None) -> Profile:
    """`target_column` is the dataset's own; without one it is `last_target`."""
    target = target_column or last_target(table)
    return Profile(table.num_rows, table.num_columns, target, _classes(table, target))


def last_target(table: pa.Table) -> str:
    """The default target: the last column that may be one, which tensors and told ids may not."""
    names: Sequence[str] = table.column_names
    if not names:
        raise RejectedError("it has no columns")
    return next((field.name for field in reversed(list(table.schema)) if _may_be_target(field)), names[-1])


def _may_be_target(field: Any) -> bool:
    is_id = (field.metadata or {}).get(TOLD) == IDENTIFIER.encode()
    return not is_tensor(field.type) and not is_id


def labels_of(column: Column) -> Column | None:
    """A column of a canonical table as a classifier's labels; None if it cannot be.

    Labels are words, truths and integers.  Floats that are whole numbers, as pandas stores integers with gaps, become
    integers; infinite ones are missing.
    """
    kind = column.type
    if pa.types.is_boolean(kind) or pa.types.is_integer(kind) or kind == TEXT:
        return column
    if not pa.types.is_floating(kind):
        return None
    numbers: Any = pc.if_else(pc.is_finite(column), column, None)
    whole = pc.and_(pc.equal(numbers, pc.floor(numbers)), pc.less_equal(pc.abs(numbers), pa.scalar(LARGEST_WHOLE)))
    return numbers.cast(pa.int64()) if pc.all(whole).as_py() else None


def is_tensor(kind: pa.DataType) -> bool:
    return pa.types.is_fixed_size_list(kind)


def _classes(table: pa.Table, target: str) -> Sequence[str] | None:
    if target not in table.column_names:
        return None
    column = labels_of(table.column(target))
    if column is None:
        return None
    labels = [label for label in pc.unique(column).to_pylist() if label is not None]
    return [str(label) for label in sorted(labels)] if len(labels) <= MAX_CLASSES else None


def canonical_column(name: str, column: Column) -> Column:
    """One column in the form that `canonical` gives it."""
    try:
        column = _plain(name, column)
    except pa.ArrowInvalid as error:
        raise RejectedError(f"column {name!r} of type {column.type} cannot be read: {said_by(error)}") from error
    return column if column.null_count < len(column) else chunked([pa.nulls(len(column))], pa.null())


def _plain(name: str, column: Column) -> Column:
    kind, types = column.type, pa.types
    if isinstance(kind, pa.BaseExtensionType):
        return _plain(name, chunked([chunk.storage for chunk in column.chunks], kind.storage_type))
    if types.is_dictionary(kind):
        return _plain(name, column.cast(kind.value_type))
    if types.is_null(kind) or types.is_boolean(kind):
        return column
    if types.is_uint64(kind) and (pc.max(column).as_py() or 0) > np.iinfo(np.int64).max:
        return column.cast(pa.float64(), safe=False)
    if types.is_integer(kind):
        return column.cast(pa.int64())
    if types.is_floating(kind) or types.is_decimal(kind):
        return _without_nan(column.cast(pa.float64(), safe=False))
    if types.is_date(kind) or types.is_timestamp(kind):
        return moments(name, column)
    if types.is_duration(kind):
        return pc.divide(column.cast(pa.duration("us"), safe=False).cast(pa.int64()).cast(pa.float64()), 1e6)
    if types.is_fixed_size_binary(kind) and kind.byte_width == UUID_BYTES:
        return chunked([_uuids(chunk) for chunk in column.chunks], TEXT)
    if types.is_time(kind) or _is_text(kind) or _is_bytes(kind):
        return column.cast(TEXT)
    return _tensor(name, column)


def _is_text(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)


def _is_bytes(kind: pa.DataType) -> bool:
    types = pa.types
    variable = types.is_binary(kind) or types.is_large_binary(kind) or types.is_binary_view(kind)
    return variable or types.is_fixed_size_binary(kind)


def _uuids(chunk: Chunk) -> Chunk:
    """UUIDs as text, as they are read from a collection."""
    return pa.array([None if each is None else str(UUID(bytes=each)) for each in chunk.to_pylist()], TEXT)


def _without_nan(column: Column) -> Column:
    numbers = numbers_of(column)
    if numbers is not None and not np.isnan(numbers.min(initial=0.0)):  # which is NaN if one is, and much faster
        return column
    missing = pc.is_nan(column)
    return pc.if_else(missing, pa.scalar(None, column.type), column) if pc.any(missing).as_py() else column


def _tensor(name: str, column: Column) -> Column:
    _check_dimensions(name, column.type)
    column = column.cast(_fixed(name, column))
    shape, inner = [], column.type
    while is_tensor(inner):
        shape.append(inner.list_size)
        inner = inner.value_type
    if not shape or not (pa.types.is_integer(inner) or pa.types.is_floating(inner) or pa.types.is_boolean(inner)):
        if shape and pa.types.is_null(inner):  # lists with only missing values; no column can hold lists of nothing
            return column if 0 in shape else chunked([pa.nulls(len(column))], pa.null())
        raise RejectedError(
            f"column {name!r} holds values of type {column.type}; a column takes numbers, booleans, text, dates, "
            "or lists of numbers of one length.  Spread nested values over columns of their own"
        )
    for length in reversed(shape):  # drop the names that writers give to list elements
        inner = pa.list_(inner, length)
    return column.cast(inner)


def _check_dimensions(name: str, kind: Any) -> None:
    dimensions = 0
    while is_tensor(kind) or pa.types.is_list(kind) or pa.types.is_large_list(kind):
        dimensions, kind = dimensions + 1, kind.value_type
    if dimensions > MOST_DIMENSIONS:
        raise RejectedError(f"column {name!r} holds lists {dimensions} deep; at most {MOST_DIMENSIONS} are taken")


def _fixed(name: str, column: Column) -> Any:
    """The type of a list column with its lengths fixed.  Raises RejectedError if they differ."""
    kind = column.type
    part: Any
    if is_tensor(kind):
        length, part = kind.list_size, pc.list_flatten(column)
    elif pa.types.is_list(kind) or pa.types.is_large_list(kind):
        lengths: Any = pc.min_max(pc.list_value_length(column)).as_py()
        if lengths["min"] != lengths["max"]:
            raise RejectedError(
                f"column {name!r} holds lists of {lengths['min']} to {lengths['max']} values; "
                "a tensor column takes lists of one length"
            )
        length, part = lengths["max"] or 0, pc.list_flatten(column)
    else:
        return kind
    inner = _fixed(name, part)
    if is_tensor(inner) and part.null_count:
        raise RejectedError(f"column {name!r} holds lists in which {part.null_count:,} inner lists are missing")
    return pa.list_(inner, length)


def _check_room(table: pa.Table) -> None:
    """Raises RejectedError if a tensor has too many numbers, or names that its numbers would get are taken."""
    names = set(table.column_names)
    for name in table.column_names:
        width, kind = 1, table.column(name).type
        tensor = is_tensor(kind)
        while is_tensor(kind):
            width *= kind.list_size
            kind = kind.value_type
        if tensor and not 0 < width <= MOST_NUMBERS:
            raise RejectedError(
                f"column {name!r} holds lists of {width:,} numbers, each of which becomes a column; "
                f"a list may have 1 to {MOST_NUMBERS:,}"
            )
        if tensor and (taken := names & {f"{name}_{place}" for place in range(width)}):
            raise RejectedError(
                f"column {name!r} holds lists, whose numbers become columns; one would be named {min(taken)!r}, as "
                "another column is: rename one of the two"
            )


def _digests(column: Column) -> Iterator[bytes]:
    """A digest of the mask of missing values, then digests of the values, each fed chunk by chunk."""
    if column.null_count:
        missing = hashlib.sha256()
        for chunk in column.chunks:
            missing.update(_array(pc.is_null(chunk)))
        yield missing.digest()
    if pa.types.is_fixed_size_list(column.type):
        flat: Any = pc.list_flatten(column)
        yield from _digests(flat)
    elif column.type == TEXT:
        lengths, texts = hashlib.sha256(), hashlib.sha256()
        for chunk in column.chunks:
            filled = pc.fill_null(chunk, "")
            lengths.update(_array(pc.binary_length(filled).cast(pa.int64())))
            texts.update(_characters(filled))
        yield lengths.digest()
        yield texts.digest()
    elif not pa.types.is_null(column.type):
        values = hashlib.sha256()
        for chunk in column.chunks:
            values.update(_array(chunk))
        yield values.digest()


def _array(chunk: Chunk) -> memoryview:
    """The values of a fixed-width column as bytes; missing values are zero."""
    if pa.types.is_timestamp(chunk.type):
        chunk = chunk.cast(pa.int64())
    if chunk.null_count:
        chunk = pc.fill_null(chunk, pa.scalar(0).cast(chunk.type))
    return np.ascontiguousarray(chunk.to_numpy(zero_copy_only=False)).data


def _characters(chunk: Chunk) -> memoryview:
    """The UTF-8 bytes of all values of a large_string array."""
    _, offsets, characters = chunk.buffers()
    if characters is None:
        return memoryview(b"")
    ends = np.frombuffer(offsets, np.int64, len(chunk) + 1, chunk.offset * 8)
    return memoryview(characters)[ends[0] : ends[-1]]
