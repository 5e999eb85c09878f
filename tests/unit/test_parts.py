"""One table from many Parquet files: what unifies, what is rejected, and how much memory it takes."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Mapping
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.errors import RejectedError
from pipeline.reading.options import NOTHING_SAID
from pipeline.reading.parts import read_parts
from pipeline.reading.tables import canonical, fingerprint
from pipeline.reading.typed import notes_of
from pipeline.reading.writers import parquet_of
from tests.rows import table_from

PEOPLE = pa.table({"price": ["1.234,5", "2,5", "?", "7,0"], "when": ["1.2.2026", "31.1.2026", "3.3.2026", "4.4.2026"]})


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "archive"


def _write(path: Path, parts: Mapping[str, bytes | pa.Table]) -> Path:
    with tarfile.open(path, "w:") as archive:
        for name, part in parts.items():
            content = part if isinstance(part, bytes) else _parquet(part)
            header = tarfile.TarInfo(name)
            header.size = len(content)
            archive.addfile(header, io.BytesIO(content))
    return path


def _parquet(table: pa.Table, **options: Any) -> bytes:
    file = io.BytesIO()
    pq.write_table(table, file, **options)
    return file.getvalue()


def _read(path: Path, parts: Mapping[str, bytes | pa.Table], max_bytes: int | None = None) -> pa.Table:
    return canonical(read_parts(_write(path, parts), max_bytes, NOTHING_SAID))


def _column(*values: Any, kind: Any = None) -> pa.Table:
    return pa.table({"x": pa.array(values, kind), "y": [0] * len(values)})


def test_parts_are_one_table_in_their_order_whatever_the_order_of_their_columns(path: Path) -> None:
    parts = {"2": pa.table({"a.b": [1], "a": ["x"]}), "1": pa.table({"a": ["y", "z"], "a.b": [2, 3]})}
    assert _read(path, parts).to_pydict() == {"a.b": [1, 2, 3], "a": ["x", "y", "z"]}


def test_text_is_read_as_in_any_other_file_over_all_parts(path: Path) -> None:
    """As CSV, as one Parquet file, and as two parts, of which only the second tells day and month apart."""
    many = _read(path, {"1": PEOPLE.slice(0, 1), "2": PEOPLE.slice(1)})
    csv = "price;when\n1.234,5;1.2.2026\n2,5;31.1.2026\n?;3.3.2026\n7,0;4.4.2026\n"
    others = [canonical(table_from(_parquet(PEOPLE), "x.parquet")), canonical(table_from(csv.encode(), "x.csv"))]
    assert {fingerprint(many)} == {fingerprint(one) for one in others}
    assert notes_of(many) == notes_of(others[0])
    assert [str(kind) for kind in many.schema.types] == ["double", "timestamp[us]"]


def test_what_was_exported_keeps_its_types_and_notes(path: Path) -> None:
    read = _read(path, {"1": PEOPLE})
    assert _read(path, {"1": parquet_of(read)}).schema.equals(read.schema, check_metadata=True)
    assert _read(path, {"1": parquet_of(read), "2": parquet_of(read)}).schema.equals(read.schema, check_metadata=True)


@pytest.mark.parametrize(
    ("one", "other", "together"),
    [
        (_column(1), _column(2.5), [1.0, 2.5]),
        (_column(1, kind=pa.int8()), _column(2, kind=pa.uint32()), [1, 2]),
        (_column(2**63, kind=pa.uint64()), _column(-1), [2.0**63, -1.0]),
        (_column(None), _column("x"), [None, "x"]),
        (_column(float("nan")), _column("x"), [None, "x"]),
        (_column(None), _column([1, 2]), [None, [1, 2]]),
        (_column("x"), _column("y", kind=pa.large_string()), ["x", "y"]),
        (_column("1"), pa.table({"x": pa.array(["2"]).dictionary_encode(), "y": [0]}), [1, 2]),
        (_column([1, 2]), _column([0.5, 2]), [[1.0, 2.0], [0.5, 2.0]]),
        (_column(kind=pa.string()), _column(7), [7]),
        (
            _column(date(2026, 1, 31)),
            _column(datetime(2026, 1, 31, 10, tzinfo=UTC)),
            [datetime(2026, 1, 31), datetime(2026, 1, 31, 10)],  # noqa: DTZ001
        ),
    ],
)
def test_types_that_unify(path: Path, one: pa.Table, other: pa.Table, together: list[Any]) -> None:
    for parts, values in (({"1": one, "2": other}, together), ({"1": other, "2": one}, together[::-1])):
        assert _read(path, parts)["x"].to_pylist() == values


@pytest.mark.parametrize(
    ("one", "other", "says"),
    [
        (_column(1), _column("x"), "column 'x' is int64 in a and text in b: write both with the same type"),
        (_column(True), _column(1), "column 'x' is bool in a and int64 in b"),
        (_column("x"), _column(date(2026, 1, 31)), r"column 'x' is text in a and timestamp\[us\] in b"),
        (_column([1, 2]), _column([1, 2, 3], kind=pa.list_(pa.float64())), "column 'x' is fixed_size_list"),
        (_column(1), pa.table({"y": [1]}), "column 'x' is in a and not in b: write both with the same columns"),
        (pa.table({"y": [1]}), _column(1), "column 'x' is in b and not in a"),
        (_column(1), b"PAR1 and nothing", "b: the Parquet file cannot be read: "),
        (_column(1), b"", "b: the Parquet file cannot be read: "),
        (_column(1), b"x,y\n1,2\n", "b: the Parquet file cannot be read: "),
        (_column(1), pa.table([pa.array([1]), pa.array([2])], names=["x", "x"]), "b: column 'x' comes 2 times"),
        (pa.table({}), _column(1), "a: it has no columns"),
        (_column(kind=pa.int64()), _column(kind=pa.int64()), "it has no rows"),
    ],
)
def test_what_does_not_unify_is_rejected_by_both_names_and_the_column(
    path: Path, one: bytes | pa.Table, other: bytes | pa.Table, says: str
) -> None:
    with pytest.raises(RejectedError, match=f"^{says}"):
        _read(path, {"a": one, "b": other})


def test_the_part_that_made_the_type_is_named(path: Path) -> None:
    with pytest.raises(RejectedError, match="column 'x' is double in b and text in d"):
        _read(path, {"a": _column(1), "b": _column(0.5), "c": _column(2), "d": _column("x")})


def test_a_few_bytes_that_hold_any_number_of_values_take_the_memory_of_a_batch_of_a_column(path: Path) -> None:
    texts = pa.DictionaryArray.from_arrays(pa.array([0] * 100_000, pa.int32()), pa.array(["x" * 2**12]))
    content = _parquet(pa.table({f"x{n}": texts for n in range(10)}), store_schema=False)
    assert len(content) < 2**20, "of 3.8 GiB"
    pool = pa.proxy_memory_pool(pa.default_memory_pool())
    before = pa.default_memory_pool()
    pa.set_memory_pool(pool)
    try:
        with pytest.raises(RejectedError, match="1: unpacked it has more bytes than the dataset cache of 1,000,000"):
            _read(path, {"1": content}, max_bytes=1_000_000)
    finally:
        pa.set_memory_pool(before)
    assert (pool.max_memory() or 0) < 150 * 2**20


def test_folders_that_other_programs_read_as_columns_are_noted(path: Path) -> None:
    (note,) = notes_of(_read(path, {"sales/year=2026/1.parquet": _column(1)}))
    assert (
        str(note) == "the names of folders such as year=2026 are no columns; write the column into the files to have it"
    )
    assert notes_of(_read(path, {"sales/2026/a=1.parquet": _column(1)})) == []
