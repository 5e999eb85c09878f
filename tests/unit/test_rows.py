"""Rows of MongoDB: every type that BSON has is read as something sensible, or rejected by the name of its column."""

from __future__ import annotations

import struct
from datetime import datetime
from typing import Any
from uuid import UUID

import bson
import pyarrow as pa
import pytest
from bson import Binary, Code, DBRef, Decimal128, Int64, MaxKey, MinKey, ObjectId, Regex, Timestamp
from bson.datetime_ms import DatetimeMS

from pipeline.errors import RejectedError
from pipeline.reading import rows
from pipeline.reading.rows import decoded, table_of
from pipeline.reading.tables import canonical
from pipeline.reading.writers import parquet_of
from tests.rows import table_from

OID = ObjectId("65f000000000000000000001")
FIRST, LAST = datetime.fromisoformat("0001-01-01"), datetime.fromisoformat("9999-12-31T23:59:59.999")
LISTS = r"(values of type list|lists that are not all of numbers)"


def _table(*documents: dict[str, Any]) -> pa.Table:
    return canonical(table_of(decoded([b"".join(bson.encode(one) for one in documents)])))


def _raw(kind: int, value: bytes, name: bytes = b"x") -> bytes:
    element = bytes([kind]) + name + b"\0" + value
    return struct.pack("<i", len(element) + 5) + element + b"\0"


def _string(text: bytes) -> bytes:
    return struct.pack("<i", len(text) + 1) + text + b"\0"


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([1.5, None], [1.5, None]),
        ([Int64(5), 7], [5, 7]),
        ([Int64(2**63 - 1), Int64(-(2**63))], [2**63 - 1, -(2**63)]),
        ([Int64(5), 1.5], [5.0, 1.5]),
        ([Int64(5), "five"], ["5", "five"]),
        ([True, Int64(1)], ["true", "1"]),
        ([Decimal128("12.50"), Decimal128("-1E+3")], [12.5, -1000.0]),
        ([Decimal128("0.1"), 2, 3.5, Int64(4)], [0.1, 2.0, 3.5, 4.0]),
        ([Decimal128("12.50"), "many"], ["12.5", "many"]),
        ([*map(Decimal128, ("NaN", "sNaN", "-Infinity", "1E+6144", "1"))], [None, None, None, None, 1.0]),
        ([Decimal128("Infinity"), "many"], [None, "many"]),
        ([[Int64(1), 2], [3, Decimal128("4.5")]], [[1.0, 2.0], [3.0, 4.5]]),
        ([[Decimal128("Infinity")], [1]], [[None], [1.0]]),
        ([FIRST, LAST], [FIRST, LAST]),
        ([Timestamp(0, 1), LAST], [datetime.fromisoformat("1970-01-01"), LAST]),
        ([OID, None], [str(OID), None]),
        ([Binary.from_uuid(UUID(int=7)), "word"], [str(UUID(int=7)), "word"]),
    ],
)  # fmt: skip
@pytest.mark.parametrize("batch_rows", [1, 5_000])
def test_a_type_of_mongodb_that_says_a_value_is_one_however_rows_fall_into_batches(
    values: list[Any], expected: list[Any], batch_rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rows, "BATCH_ROWS", batch_rows)
    assert _table(*({"x": value} for value in values)).column("x").to_pylist() == expected
    sparse = [document for value in values for document in ({"x": value}, *[{"y": 1}] * 7)]
    assert _table(*sparse).column("x").to_pylist() == [each for value in expected for each in (value, *[None] * 7)]


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (MinKey(), "values of type MinKey"),
        (MaxKey(), "values of type MaxKey"),
        (Regex("a.*"), "values of type Regex"),
        (Code("return 1"), "values of type Code"),
        (Code("return x", {"x": 1}), "values of type Code"),
        (DBRef("people", 1), "values of type DBRef"),
        (b"bytes", "values of type bytes"),
        (Binary(b"0123456789abcdef", 3), "values of type Binary"),
        (Binary(b"short", 4), "values of type Binary"),
        (Binary(b"0123456789abcdef", 5), "values of type Binary"),
        (Binary(b"\x27\0\0\0\x80?", 9), "values of type Binary"),
        (Binary(b"mine", 128), "values of type Binary"),
        ({"city": "Rome"}, "values of type dict"),
        ([{"city": "Rome"}], LISTS),
        ([MinKey()], LISTS),
        ([Decimal128("1"), "word"], LISTS),
        (["word"], "values of type list"),
        (DatetimeMS(-(2**62)), "a date before the year 1 or after 9999"),
        (DatetimeMS(2**62), "a date before the year 1 or after 9999"),
        (DatetimeMS(253_402_300_800_000), "a date before the year 1 or after 9999"),
    ],
)
@pytest.mark.parametrize("beside", [None, 1, "word"])
def test_what_mongodb_has_beside_data_is_rejected_by_the_name_of_its_column(value: Any, says: str, beside: Any) -> None:
    with pytest.raises(RejectedError, match=f"column 'x' holds {says}"):
        _table({"x": beside, "y": 1}, {"x": value})


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        (_raw(0x06, b""), [None]),  # undefined
        (_raw(0x0E, _string(b"red")), ["red"]),  # symbol
        (_raw(0x0A, b""), [None]),
    ],
)
def test_a_type_that_mongodb_had_once_is_read(document: bytes, expected: list[Any]) -> None:
    assert table_of(decoded([document])).column("x").to_pylist() == expected


@pytest.mark.parametrize(
    ("document", "says"),
    [
        (_raw(0x0C, _string(b"people") + OID.binary), "column 'x' holds values of type DBRef"),
        (_raw(0x02, _string(b"\xff\xfe")), "column 'x' holds text, or has a name, that is not UTF-8"),
        (_raw(0x10, b"\1\0\0\0", b"\xff"), r"column '\\udcff' holds text, or has a name, that is not UTF-8"),
        (_raw(0x7E, b""), "document 2 cannot be read: Detected unknown BSON type"),
        (_raw(0x08, b"\2"), "document 2 cannot be read: invalid boolean"),
        (bson.encode({"x": 1})[:-3], "document 2 cannot be read"),
        (b"\0\0\0", "document 2 cannot be read"),
    ],
)
def test_a_document_that_cannot_be_read_is_rejected_with_its_column_or_number(document: bytes, says: str) -> None:
    with pytest.raises(RejectedError, match=says):
        table_of(decoded([bson.encode({"x": None}), document]))


def test_documents_are_counted_over_the_batches_and_an_empty_one_is_none() -> None:
    batch = bson.encode({"x": 1}) * 3
    assert [row["x"] for row in decoded([batch, b"", batch])] == [1] * 6


def test_a_number_of_any_size_is_a_number() -> None:
    """Python's own: lines of JSON have them."""
    assert table_of([{"x": 10**400, "y": 2**63}, {"x": 1, "y": -(2**63)}]).to_pydict() == {
        "x": [None, 1.0],
        "y": [2.0**63, -(2.0**63)],
    }


def test_more_columns_than_a_dataset_takes_are_rejected_with_the_figure() -> None:
    most = {f"c{place}": 1 for place in range(20_000)}
    assert table_of([most]).num_columns == 20_000
    with pytest.raises(RejectedError, match="columns; at most 20,000 are allowed"):
        table_of([most, {"one more": 1}])
    with pytest.raises(RejectedError, match="columns; at most 20,000 are allowed"):
        canonical(pa.table({**{name: [1] for name in most}, "one more": [1]}))


@pytest.mark.parametrize("depth", [16, 17, 400])
def test_lists_in_lists_are_taken_to_a_depth(depth: int) -> None:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    if depth == 16:
        assert canonical(table_of([{"x": value}])).num_rows == 1
        return
    with pytest.raises(RejectedError, match=f"column 'x' holds lists {depth} deep; at most 16"):
        canonical(table_of([{"x": value}]))


@pytest.mark.parametrize("unit", ["s", "ms", "us"])
@pytest.mark.parametrize("value", [-(2**62), 2**62, -62_135_596_801, 253_402_300_800])
def test_a_date_that_no_calendar_has_is_rejected_from_a_file_too(unit: str, value: int) -> None:
    scale = 1 if abs(value) == 2**62 else {"s": 1, "ms": 1_000, "us": 1_000_000}[unit]
    column = pa.array([value * scale, None], pa.int64()).cast(pa.timestamp(unit))
    with pytest.raises(RejectedError, match="column 'x' holds a date before the year 1 or after 9999"):
        canonical(pa.table({"x": column}))


def test_a_date_finer_than_a_microsecond_is_cut() -> None:
    column = pa.array([1_700_000_000_123_456_789], pa.int64()).cast(pa.timestamp("ns"))
    assert canonical(pa.table({"x": column})).column("x").cast(pa.int64()).to_pylist() == [1_700_000_000_123_456]


@pytest.mark.parametrize("kind", ["storage", "extension", "dictionary"])
def test_uuids_of_a_parquet_file_are_the_words_that_a_collection_of_them_has(kind: str) -> None:
    uuids = [UUID(int=7), None, UUID(int=2**128 - 1)]
    column: Any = pa.array([uuid and uuid.bytes for uuid in uuids], pa.binary(16))
    if kind == "extension":
        column = pa.ExtensionArray.from_storage(pa.uuid(), column)
    elif kind == "dictionary":
        column = column.dictionary_encode()
    table = canonical(table_from(parquet_of(pa.table({"x": column})), "x.parquet"))
    assert table.equals(_table(*({"x": uuid and Binary.from_uuid(uuid)} for uuid in uuids)))


@pytest.mark.parametrize("width", [15, 17])
def test_other_values_of_one_length_are_read_as_bytes_of_any_length_are(width: int) -> None:
    words, odd = [b"a" * width, None], [b"\xff" * width]
    assert canonical(pa.table({"x": pa.array(words, pa.binary(width))})).equals(canonical(pa.table({"x": words})))
    with pytest.raises(RejectedError, match=rf"column 'x' of type fixed_size_binary\[{width}\] cannot be read"):
        canonical(pa.table({"x": pa.array(odd, pa.binary(width))}))
