"""Turns rows that come as dictionaries (MongoDB documents, lines of JSON) into a table, batch by batch."""

from __future__ import annotations

import math
import struct
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from itertools import chain, islice
from typing import Any
from uuid import UUID

import bson
import numpy as np
import pyarrow as pa
from bson import Binary, Code, Decimal128, ObjectId, Timestamp
from bson.binary import UUID_SUBTYPE, UuidRepresentation
from bson.codec_options import CodecOptions, DatetimeConversion
from bson.datetime_ms import DatetimeMS
from bson.errors import BSONError

from pipeline.errors import RejectedError, said_by
from pipeline.reading.moments import MOMENT, no_date
from pipeline.reading.tables import LARGEST_WHOLE, TEXT, UUID_BYTES, Chunk, Column, check_column_count, chunked

BATCH_ROWS = 5_000
SPARSE_SHARE = 0.25
"""A column with fewer values than this share of a batch's rows is read value by value, not row by row."""
CODEC: CodecOptions[dict[str, Any]] = CodecOptions(
    uuid_representation=UuidRepresentation.UNSPECIFIED,
    datetime_conversion=DatetimeConversion.DATETIME_AUTO,
    unicode_decode_error_handler="surrogateescape",
)
"""Decodes documents so that an unreadable value becomes one that `table_of` rejects with its column's name."""

Row = Mapping[str, Any]


def decoded(batches: Iterable[bytes]) -> Iterator[Row]:
    """The documents of raw BSON, as `table_of` takes them; a batch holds any number of documents.

    Raises RejectedError with the number of the document that cannot be decoded.
    """
    number = 0
    for batch in batches:
        documents = bson.decode_iter(batch, CODEC)
        while True:
            number += 1
            try:
                document = next(documents, None)
            except (BSONError, struct.error, RecursionError) as error:
                raise RejectedError(f"document {number:,} cannot be read: {said_by(error)}") from error
            if document is None:
                number -= 1
                break
            yield document


def table_of(rows: Iterable[Row], max_bytes: int | None = None) -> pa.Table:
    """All rows as a table.  Columns are in order of first appearance; a row without a column has a missing value.

    A column of integers, floats and decimals becomes float64; decimals that are infinite or NaN become missing.  A
    column of different kinds of value becomes text, the same however the rows fall into batches (except that integers
    beyond 2^53 among floats are rounded).  Lists of numbers stay lists.  Raises RejectedError, naming the column, for
    other nested values, bytes, and MongoDB types that are not data; also if the table grows beyond max_bytes.
    """
    batches: list[_Batch] = []
    size = 0
    for batch in _batches(_with_few_columns(rows)):
        batches.append(_Batch(len(batch), _columns(batch)))
        size += sum(chunk.nbytes for chunk in batches[-1].columns.values())
        if max_bytes is not None and size > max_bytes:
            raise RejectedError(f"it is larger than the dataset cache of {max_bytes:,} bytes, by its first rows alone")
    names = dict.fromkeys(chain.from_iterable(batch.columns for batch in batches))
    try:
        return pa.table([_joined(name, batches) for name in names], names=list(names))
    except pa.ArrowException as error:
        raise RejectedError(f"its rows do not form a table: {said_by(error)}") from error


@dataclass(frozen=True, slots=True)
class _Batch:
    rows: int
    columns: Mapping[str, Chunk]


def _with_few_columns(rows: Iterable[Row]) -> Iterator[Row]:
    names: set[str] = set()
    for row in rows:
        names.update(row)
        check_column_count(len(names))
        yield row


def _batches(rows: Iterable[Row]) -> Iterator[Sequence[Row]]:
    remaining = iter(rows)
    while batch := list(islice(remaining, BATCH_ROWS)):
        yield batch


def _columns(batch: Sequence[Row]) -> dict[str, Chunk]:
    """The columns of a batch, in time by its values, not its cells: of 20,000 columns most cells may be missing."""
    counts = Counter(chain.from_iterable(batch))
    sparse: dict[str, tuple[list[int], list[Any]]]
    sparse = {name: ([], []) for name, count in counts.items() if count < len(batch) * SPARSE_SHARE}
    if sparse:
        for position, row in enumerate(batch):
            for name in row:
                if name in sparse:
                    positions, values = sparse[name]
                    positions.append(position)
                    values.append(row[name])
    return {
        name: _spread(_array(name, sparse[name][1]), sparse[name][0], len(batch))
        if name in sparse
        else _array(name, [row.get(name) for row in batch])
        for name in counts
    }


def _spread(values: Chunk, positions: Sequence[int], length: int) -> Chunk:
    """An array of this length with the values at these positions; all else is missing."""
    sources = np.full(length, -1)
    sources[positions] = np.arange(len(positions))
    return values.take(pa.array(sources, mask=sources < 0))


def _array(name: str, values: Sequence[Any]) -> Chunk:
    found = {type(value) for value in values}
    try:
        name.encode()
        if found <= {list, type(None)} and list in found:
            return _lists(name, values)
        return _flat(name, values, found)
    except UnicodeEncodeError as error:
        raise RejectedError(f"column {name!r} holds text, or has a name, that is not UTF-8") from error


def _flat(name: str, values: Sequence[Any], found: set[type]) -> Chunk:
    kind = _kind(name, found)
    if kind == TEXT:
        return pa.array([_text(name, value) for value in values], TEXT)
    if kind == MOMENT:
        return pa.array([_moment(value) for value in values], MOMENT)
    if kind == pa.int64() and any(value is not None and not -(2**63) <= value < 2**63 for value in values):
        kind = pa.float64()
    if kind == pa.float64() and found - {float, type(None)}:  # Arrow refuses integers that a float would round
        return pa.array([_number(value) for value in values], kind)
    return pa.array(values, kind)


def _lists(name: str, values: Sequence[Any]) -> Chunk:
    try:
        try:
            chunk: Chunk = pa.array(values)
        except (pa.ArrowException, OverflowError):  # decimals of MongoDB, or integers beyond 64 bits
            chunk = pa.array(_plain_numbers(values))
    except (pa.ArrowException, OverflowError) as error:
        raise RejectedError(f"column {name!r} holds lists that are not all of numbers: {said_by(error)}") from error
    if not _is_of_numbers(chunk.type):
        raise _nested(name, list)
    return chunk


def _plain_numbers(values: Sequence[Any]) -> list[Any]:
    return [
        _plain_numbers(value) if isinstance(value, list) else _number(value) if _is_large_or_decimal(value) else value
        for value in values
    ]


def _is_large_or_decimal(value: Any) -> bool:
    if isinstance(value, int):
        return not -(2**63) <= value < 2**63
    return isinstance(value, Decimal | Decimal128)


def _is_of_numbers(kind: pa.DataType) -> bool:
    while pa.types.is_list(kind):
        kind = kind.value_type
    return kind in (pa.null(), pa.bool_(), pa.int64(), pa.float64())


def _kind(name: str, found: set[type]) -> pa.DataType:
    kinds = {_kind_of(name, each) for each in found if each is not type(None)}
    if not kinds:
        return pa.null()
    if kinds == {pa.int64(), pa.float64()}:
        return pa.float64()
    return kinds.pop() if len(kinds) == 1 else TEXT


def _kind_of(name: str, each: type) -> pa.DataType:
    for python, kind in _KINDS:
        if issubclass(each, python):
            if kind is None:
                break
            return kind
    raise no_date(name) if each is DatetimeMS else _nested(name, each)


_KINDS: Sequence[tuple[Any, pa.DataType | None]] = (
    (bool, pa.bool_()),  # before int, its base class
    (int, pa.int64()),
    ((float, Decimal, Decimal128), pa.float64()),
    ((datetime, Timestamp), MOMENT),
    (Code, None),  # before str, its base class
    ((str, UUID, ObjectId, date, Binary), TEXT),  # a Binary may be a UUID
)


def _nested(name: str, each: type) -> RejectedError:
    return RejectedError(
        f"column {name!r} holds values of type {each.__name__}; a column takes numbers, booleans, text, dates, or "
        "lists of numbers of one length.  Spread nested values over columns of their own, and leave others out"
    )


def _joined(name: str, batches: Sequence[_Batch]) -> Column:
    chunks: list[Chunk] = [batch.columns.get(name, pa.nulls(batch.rows)) for batch in batches]
    kinds = {chunk.type for chunk in chunks} - {pa.null()}
    if any(pa.types.is_list(kind) for kind in kinds):
        return _joined_lists(name, chunks)
    kind = kinds.pop() if len(kinds) == 1 else pa.float64() if kinds == {pa.int64(), pa.float64()} else TEXT
    if kind == TEXT:
        chunks = [chunk if chunk.type == TEXT else _as_text(name, chunk) for chunk in chunks]
    return chunked([chunk.cast(kind, safe=False) for chunk in chunks], kind)


def _as_text(name: str, chunk: Chunk) -> Chunk:
    return pa.array([_text(name, value) for value in chunk.to_pylist()], TEXT)


def _joined_lists(name: str, chunks: Sequence[Chunk]) -> Column:
    """Use the deepest and widest type of all batches: one batch may hold only integers, or empty lists."""
    joined: Any = pa.null()
    try:
        for chunk in chunks:
            joined = (
                pa.unify_schemas(
                    [pa.schema({name: joined}), pa.schema({name: chunk.type})], promote_options="permissive"
                )
                .field(name)
                .type
            )
        return chunked([pa.array(chunk.to_pylist(), joined) for chunk in chunks], joined)
    except pa.ArrowException as error:
        raise RejectedError(
            f"column {name!r} holds lists in some rows only, or of several kinds: {said_by(error)}"
        ) from error


def _moment(value: datetime | Timestamp | None) -> datetime | None:
    if isinstance(value, Timestamp):
        value = value.as_datetime()
    return value.astimezone(UTC).replace(tzinfo=None) if value is not None and value.tzinfo else value


def _number(value: Any) -> float | None:
    """The number as a float; None for decimals that are infinite or NaN, and for numbers too large for a float."""
    if value is None or isinstance(value, float):
        return value
    if isinstance(value, Decimal128):
        value = value.to_decimal()
    if isinstance(value, Decimal) and not value.is_finite():
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def _text(name: str, value: Any) -> str | None:
    """The value as JSON text; a whole float is written like an integer, since it may have been one."""
    if isinstance(value, Decimal | Decimal128):
        value = _number(value)
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer() and abs(value) <= LARGEST_WHOLE:
        return str(int(value))
    if isinstance(value, float) and value != value:  # NaN is a missing value
        return None
    if isinstance(value, Binary):
        if value.subtype != UUID_SUBTYPE or len(value) != UUID_BYTES:
            raise _nested(name, Binary)
        return str(UUID(bytes=bytes(value)))
    return str(_moment(value)) if isinstance(value, datetime | Timestamp) else str(value)
