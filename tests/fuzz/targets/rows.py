"""Rows as MongoDB gives them: every BSON type and what is derived from it, one kind a column or all mixed."""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Callable
from contextlib import suppress
from decimal import Decimal
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any

import bson
import pyarrow as pa
from bson.binary import Binary, UuidRepresentation
from bson.code import Code
from bson.codec_options import CodecOptions
from bson.datetime_ms import DatetimeMS
from bson.dbref import DBRef
from bson.max_key import MaxKey
from bson.min_key import MinKey
from bson.objectid import ObjectId
from bson.raw_bson import RawBSONDocument
from bson.regex import Regex
from bson.son import SON
from bson.timestamp import Timestamp

from pipeline.datasets import Fetched, reading
from pipeline.errors import RejectedError
from pipeline.features.columns import UnusableColumnError, describe, read
from pipeline.features.frames import frame_of
from pipeline.reading.tables import canonical, check_target, fingerprint, profile
from tests.fuzz import values
from tests.fuzz.mutation import mutated
from tests.fuzz.targets.requests import check_message

MAX_BYTES = 2**20
OPTIONS: CodecOptions[Any] = CodecOptions(tz_aware=True, tzinfo=dt.UTC, uuid_representation=UuidRepresentation.STANDARD)
"""As a program in Python writes them."""


def run(random: Random) -> None:
    table = loaded(_through_bson(random, _rows(random)), None)
    try:
        check_target(table, random.choice((None, "a", "é")))
    except RejectedError as error:
        check_message(str(error))
        raise
    read_as_columns(table)


def loaded(content: bytes, file_name: str | None, max_bytes: int = MAX_BYTES) -> pa.Table:
    """The table that a loader makes of bytes that somebody has stored."""
    with TemporaryDirectory(dir="/dev/shm") as folder:
        path = Path(folder, "fetched")
        path.write_bytes(content)
        try:
            return reading.loaded(Fetched("rows", path, file_name, None, ""), reading.read, max_bytes).table
        except RejectedError as error:
            check_message(str(error))
            raise


def read_as_columns(table: Any) -> None:
    """What training makes of a canonical table before it is fitted."""
    assert fingerprint(table) == fingerprint(canonical(table)), "a table that is canonical is changed"
    profile(table, None)
    frame = frame_of(table)
    for name in list(frame.columns)[:20]:
        try:
            column = describe(frame[name], str(name))
        except UnusableColumnError:
            continue
        with suppress(ValueError):  # as it says
            read(frame[name], column)


def _rows(random: Random) -> list[dict[str, Any]]:
    names = random.sample(_NAMES, random.randint(1, 4))
    makers = {name: _column(random) for name in names}
    present = random.choice((1.0, 1.0, 0.7))
    return [
        {name: make(random) for name, make in makers.items() if random.random() < present}
        for _ in range(random.choice((1, 2, 3, 10, 30)))
    ]


_NAMES = ("a", "b", "é", "", "a.b", "$x", "_id", "__index_level_0__", "x" * 300, "a_0", "\U0001f600", "NaN")


def _column(random: Random) -> Callable[[Random], Any]:
    """Values of one kind, of one kind with another now and then, or of all."""
    first, second = random.choice(_CELLS[:10] if random.random() < 0.5 else _CELLS), random.choice(_CELLS)
    roll = random.random()
    if roll < 0.5:
        return first
    if roll < 0.85:
        return lambda random: (first if random.random() < 0.8 else second)(random)
    return lambda random: random.choice(_CELLS)(random)


def _through_bson(random: Random, rows: list[dict[str, Any]]) -> bytes:
    """As a server sends them, now and then spoiled; what BSON has no place for is written as text."""
    data = b"".join(_encoded(row) for row in rows)
    return mutated(random, data, 2) if random.random() < 0.2 else data


def _encoded(row: dict[str, Any]) -> bytes:
    fitting = {}
    for name, value in row.items():
        try:
            bson.encode({name: value}, codec_options=OPTIONS)
        except (OverflowError, bson.errors.InvalidDocument, ValueError, TypeError, RecursionError):
            value = str(value)[:50].encode("utf-8", "replace").decode()
        fitting[name.replace("\0", "").encode("utf-8", "replace").decode()] = value
    return bytes(bson.encode(fitting, codec_options=OPTIONS))


def _moment(random: Random) -> dt.datetime:
    year = random.choice((1, 1600, 1677, 1678, 1970, 2026, 2262, 2263, 9999))
    zone = random.choice((None, dt.UTC, dt.timezone(dt.timedelta(hours=14)), dt.timezone(-dt.timedelta(hours=12))))
    return dt.datetime(year, random.choice((1, 12)), random.choice((1, 31)), random.choice((0, 23)), tzinfo=zone)


class Whole(int):
    pass


class Real(float):
    pass


class Words(str):
    __slots__ = ()


_CELLS: tuple[Callable[[Random], Any], ...] = (
    lambda random: None,
    lambda random: random.random() < 0.5,
    lambda random: random.randint(-5, 5),
    values.integer,
    values.number,
    values.number,
    values.text,
    lambda random: random.choice(("red", "green", "blue")),
    lambda random: bson.Int64(values.integer(random)),
    lambda random: bson.Int64(random.randint(-3, 3)),
    lambda random: bson.Decimal128(random.choice(("1.5", "NaN", "sNaN", "Infinity", "-0", "1E+6144", "0E-6176"))),
    lambda random: ObjectId(random.randbytes(12)),
    _moment,
    _moment,
    lambda random: DatetimeMS(random.choice((0, -(2**63), 2**63 - 1, 253402300800000))),
    lambda random: Binary(random.randbytes(random.choice((0, 16, 300))), random.choice((0, 1, 2, 5, 9, 128, 255))),
    lambda random: random.randbytes(3),
    lambda random: uuid.UUID(int=random.getrandbits(128)),
    lambda random: Regex("^a+$", "i"),
    lambda random: Code("return 1", {"x": 1}),
    lambda random: DBRef("datasets", 1),
    lambda random: Timestamp(random.getrandbits(31), 1),
    lambda random: random.choice((MinKey(), MaxKey())),
    lambda random: SON([("a", 1), ("b", values.scalar(random))]),
    lambda random: RawBSONDocument(bson.encode({"a": 1})),
    lambda random: Decimal(random.choice(("1", "NaN", "1e400"))),
    lambda random: dt.date(random.choice((1, 9999)), 1, 1),
    lambda random: dt.timedelta(days=random.choice((1, 999_999_999))),
    lambda random: Whole(3),
    lambda random: Real(values.number(random)),
    lambda random: Words(values.text(random)),
    lambda random: 10 ** random.choice((20, 400)),
    lambda random: [1.0, 2.0],
    lambda random: [values.scalar(random) for _ in range(random.randint(0, 3))],
    lambda random: [[1, 2], [3, random.choice((4, None, "x"))]],
    values.nested,
    lambda random: values.deep(random, 1),
    lambda random: random.choice(values.SURROGATES),
)
