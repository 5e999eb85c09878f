"""Files of rows: CSV, Parquet and JSON lines as people export them, odd ones, and spoiled ones.

In production a loader process reads them, so that a crash of the parser is contained; a hang is not.
"""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Callable
from decimal import Decimal
from functools import cache
from io import BytesIO
from random import Random
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from tests.fuzz import values
from tests.fuzz.mutation import mutated, noise
from tests.fuzz.targets.rows import loaded, read_as_columns

MAX_BYTES = 8 * 2**20
NAMES = ("rows.csv", "rows.parquet", "rows.jsonl", "rows.json", "rows", "rows.txt", "ROWS.TSV", "rows.csv.gz")


def run(random: Random) -> None:
    make, name = random.choice(((_csv, "rows.csv"), (_parquet, "rows.parquet"), (_json, "rows.jsonl")))
    content = make(random)
    if random.random() < 0.15:
        name = random.choice(NAMES)
    if random.random() < 0.05:
        content = random.choice((b"\x1f\x8b", b"PK\x03\x04", b"\xff\xfe", b"\xef\xbb\xbf", b"PAR1")) + content
    read_as_columns(loaded(content, name, MAX_BYTES))


def _csv(random: Random) -> bytes:
    roll = random.random()
    if roll < 0.002:
        return b",".join(b"c%d" % n for n in range(3_000)) + b"\n" + b",".join([b"1"] * 3_000)
    if roll < 0.01:
        return b'a,b\n1,"' + b"x" * random.choice((2**20, 2**21, 3 * 2**20)) + random.choice((b'"\n', b"\n", b""))
    if roll < 0.04:
        return noise(random)
    delimiter = random.choice((",", ",", ";", "\t", "|", ":"))
    end = random.choice(("\n", "\n", "\r\n", "\r"))
    columns = random.randint(1, 6)
    lines = [delimiter.join(_cell(random, delimiter) for _ in range(columns)) for _ in range(random.randint(0, 30))]
    header = delimiter.join(random.choice(("a", "b", "c", "", " x ", '"q"', "a", "é")) + str(n) for n in range(columns))
    text = end.join([header, *lines]) + random.choice(("", end))
    encoding = random.choice(("utf-8", "utf-8", "utf-8", "utf-8-sig", "latin-1", "utf-16", "utf-32", "cp037"))
    data = text.encode(encoding, "replace")
    return mutated(random, data) if random.random() < 0.4 else data


def _cell(random: Random, delimiter: str) -> str:
    roll = random.random()
    if roll < 0.6:
        return random.choice(("1", "2.5", "", "true", "red", "2024-01-01", "NA", "01", "1e5", "-3", "x y"))
    if roll < 0.9:
        return random.choice(_CELLS)
    if roll < 0.95:
        return f'"{values.text(random)[:300]}"'
    return values.text(random)[:300].replace("\n", " ").replace(delimiter, " ")


_CELLS = (
    *('"', '""', '"a""b"', '"a\nb"', '"unclosed', "'", "\0", "9" * 400, "1e999", "-1e-999", "NaN", "inf", "-Infinity"),
    *("9999-12-31", "0001-01-01", "9999-12-31T23:59:59.999999999Z", "24:00", "1/2/2024", "18446744073709551616"),
    *("0x1F", "1_000", "1,5", "é", "\ufeff", "\u202e", "=cmd|' /C calc'!A0", "True", "null", "1.", ".5", "+1", "--1"),
)


def _parquet(random: Random) -> bytes:
    data = random.choice(parquet_files())
    roll = random.random()
    if roll < 0.2:
        return data
    if roll < 0.4:  # the footer's length, before the last four bytes
        size = random.choice((0, 1, 7, 2**31 - 1, 2**31, 2**32 - 1, len(data), len(data) - 12))
        return data[:-8] + size.to_bytes(4, "little") + data[-4:]
    if roll < 0.7:  # in the footer, which says where everything is
        length = int.from_bytes(data[-8:-4], "little")
        begin = len(data) - 8 - length
        footer = mutated(random, data[begin:-8])
        return data[:begin] + footer + len(footer).to_bytes(4, "little") + data[-4:]
    return mutated(random, data)


@cache
def parquet_files() -> list[bytes]:
    """Small files of every type that a column can have."""
    tables = [pa.table({"a": [1, 2, None], "b": column}) for column in _columns()]
    tables.append(pa.table({"a": pa.array([], pa.int64())}))
    tables.append(pa.table({}))
    tables.append(pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=["a", "a"]))
    tables.append(pa.table({"zero": pa.array([0] * 300_000, pa.int64())}))
    tables.append(pa.table({"text": pa.array(["x" * 10_000] * 3_000)}))
    files = []
    compressions: tuple[Literal["zstd", "snappy", "none", "gzip", "brotli", "lz4"], ...]
    compressions = ("zstd", "snappy", "none", "gzip", "brotli", "lz4")
    for number, table in enumerate(tables):
        file = BytesIO()
        pq.write_table(table, file, compression=compressions[number % 6], use_dictionary=number % 2 == 0)
        files.append(file.getvalue())
    return files


def _columns() -> list[Any]:
    last, first = (dt.datetime.combine(day, dt.time.max) for day in (dt.date.max, dt.date.min))
    made: list[Callable[[], Any]] = [
        lambda: pa.array([1.5, float("nan"), float("inf")]),
        lambda: pa.array([1e308, -1e308, 5e-324]),
        lambda: pa.array([True, None, False]),
        lambda: pa.array(["a", "", None]),
        lambda: pa.array([b"a", b"\xff", None]),
        lambda: pa.array([2**64 - 1, 0, 1], pa.uint64()),
        lambda: pa.array([1, 2, 3], pa.int8()),
        lambda: pa.array([1, 2, 3], pa.float16()),
        lambda: pa.array([None, None, None], pa.null()),
        lambda: pa.array(["a", "b", "a"]).dictionary_encode(),
        lambda: pa.array([Decimal("1.5"), None, Decimal("-2.25")], pa.decimal128(10, 2)),
        lambda: pa.array([Decimal("1e60"), None, Decimal(1)], pa.decimal256(76, 2)),
        lambda: pa.array([last, None, first], pa.timestamp("us")),
        lambda: pa.array([last, None, first], pa.timestamp("ms", "Europe/Berlin")),
        lambda: pa.array([2**50, -(2**50), 0], pa.timestamp("s")),
        lambda: pa.array([2**62, -(2**62), 0], pa.timestamp("us", "Mars/Olympus")),
        lambda: pa.array([dt.date(9999, 12, 31), dt.date(1, 1, 1), None]),
        lambda: pa.array([dt.time(23, 59), None, dt.time(0)], pa.time64("ns")),
        lambda: pa.array([2**62, -(2**62), 1], pa.duration("s")),
        lambda: pa.array([[1, 2], [3], None]),
        lambda: pa.array([[1, 2], [3, 4], [5, 6]]),
        lambda: pa.array([[[1], [2]], [[3], [4]], [[5], [6]]]),
        lambda: pa.array([[1.0, None], [2.0, 3.0], [4.0, 5.0]], pa.list_(pa.float64(), 2)),
        lambda: pa.array([["a"], ["b"], ["c"]]),
        lambda: pa.array([{"x": 1, "y": "a"}, None, {"x": 2, "y": "b"}]),
        lambda: pa.array([[("k", 1)], [], None], pa.map_(pa.string(), pa.int64())),
        lambda: pa.array(["x", "y", "z"], pa.large_string()),
        lambda: pa.array([b"ab", b"cd", None], pa.binary(2)),
        lambda: pa.ExtensionArray.from_storage(pa.uuid(), pa.array([b"0" * 16, b"1" * 16, None], pa.binary(16))),
        lambda: pa.ExtensionArray.from_storage(pa.json_(), pa.array(['{"a": 1}', "[", None])),
        lambda: pa.ExtensionArray.from_storage(
            pa.fixed_shape_tensor(pa.int64(), [2]), pa.array([[1, 2]] * 3, pa.list_(pa.int64(), 2))
        ),
    ]
    return [make() for make in made]


def _json(random: Random) -> bytes:
    roll = random.random()
    if roll < 0.03:
        depth = random.choice((100, 1_000, 1_023, 1_024, 1_025, 100_000))
        return b'{"a": ' + b"[" * depth + b"]" * depth + b"}"
    if roll < 0.032:
        return ("{" + ", ".join(f'"c{n}": 1' for n in range(3_000)) + "}").encode()
    if roll < 0.1:
        return random.choice(_LINES)
    lines = [json.dumps(_object(random), ensure_ascii=random.random() < 0.5) for _ in range(random.randint(1, 20))]
    text = "[" + ",".join(lines) + "]" if random.random() < 0.3 else "\n".join(lines)
    data = text.encode("utf-8", "surrogatepass")
    return mutated(random, data) if random.random() < 0.4 else data


def _object(random: Random) -> dict[str, Any]:
    if random.random() < 0.7:
        return {name: random.choice((1, 2.5, None, "x", True, [1, 2], "2024-01-01")) for name in ("a", "b", "c")}
    return {name: values.nested(random, 3) for name in ("a", "b", values.text(random)[:300])}


_LINES = (
    *(b'{"a": 1, "a": 2}', b'{"a": NaN}', b'{"a": 1e999}', b'{"a": "\\ud800"}', b'{"a": ' + b"9" * 5_000 + b"}"),
    *(b"null", b"1", b'"x"', b"[]", b"{}", b"[{}]", b"[1, 2]", b"\xef\xbb\xbf{}", b'{"": 1}', b'{"a": 1}\r\n{"a": 2}'),
    *(b'{"a": -9223372036854775809}', b'{"a": 18446744073709551616}', b'{"a": "\\u0000"}', b'[{"a": 1}, null]'),
)
