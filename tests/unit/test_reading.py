"""Reading: what a file may do that nobody thought of ends that file, in words for whoever has stored it."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import bson
import pyarrow as pa
import pytest
from bson.datetime_ms import DatetimeMS
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pipeline.datasets import Fetched, directory, reading
from pipeline.datasets.directory import DirectorySource
from pipeline.errors import RejectedError
from pipeline.reading import csv_files, dialects
from pipeline.reading.tables import canonical
from pipeline.reading.writers import parquet_of
from tests.rows import table_from

Read = Callable[..., pa.Table]


@pytest.fixture
def read(tmp_path: Path) -> Read:
    def make(content: bytes, file_name: str | None = "rows.csv") -> pa.Table:
        path = tmp_path / "secret" / "fetched"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
        return reading.loaded(Fetched("rows", path, file_name, None, ""), reading.read, None).table

    return make


@pytest.mark.parametrize(
    ("raised", "says"),
    [
        (pa.ArrowNotImplementedError("no cast from x to y"), "no cast from x to y"),
        (pa.ArrowInvalid("two\nlines"), "two"),
        (OverflowError("date value out of range"), "date value out of range"),
        (RecursionError("maximum recursion depth exceeded"), "its values are nested too deep"),
        (KeyError("/a/path/of/ours"), "it holds values that no table can hold"),
        (OSError("Corrupt snappy compressed data."), "Corrupt snappy compressed data."),
    ],
)
def test_what_nobody_thought_of_is_a_rejection_that_names_the_column(
    read: Read, raised: Exception, says: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def odd(table: pa.Table) -> pa.Table:
        if "b" in table.column_names:
            raise raised
        return canonical(table)

    monkeypatch.setattr(reading, "canonical", odd)
    with pytest.raises(RejectedError) as rejected:
        read(b"a,b\n1,2\n")
    assert str(rejected.value) == f"dataset 'rows': its file rows.csv (8 bytes) cannot be read in column 'b': {says}"
    assert "Traceback" in caplog.text
    assert type(raised).__name__ in caplog.text


def test_what_an_import_wrote_keeps_its_types_until_they_are_made_canonical_once() -> None:
    table = pa.table({"day": [date(2020, 1, 31)], "count": pa.array([1], pa.int8()), "word": ["1,5"]})
    assert table_from(parquet_of(table), "rows.parquet", is_typed=True).equals(table)
    assert table_from(parquet_of(table), "rows.parquet")["word"].to_pylist() == [1.5]


@pytest.mark.parametrize("raised", [MemoryError("malloc"), OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))])
def test_what_is_the_machines_trouble_is_no_rejection(
    read: Read, raised: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> Any:
        raise raised

    monkeypatch.setattr(reading, "canonical", fails)
    with pytest.raises(type(raised)):
        read(b"a,b\n1,2\n")


def test_arrows_lack_of_memory_is_one_also_where_a_message_was_made_of_it(
    read: Read, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> Any:
        try:
            raise pa.lib.ArrowMemoryError("malloc of size 64 failed")
        except pa.ArrowException as error:
            raise RejectedError("its rows do not form a table") from error

    monkeypatch.setattr(reading, "canonical", fails)
    with pytest.raises(MemoryError):
        read(b"a,b\n1,2\n")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"a", "it has no rows"),
        (b"1" * 20_000_000, "the CSV file has a row of more than 8,388,608 bytes"),
        (b"a,b\n1,2\n" + b"x" * 20_000_000, "the CSV file has a row of more than 8,388,608 bytes"),
        (b'a,b\n1,"' + b"many words\n" * 2_000_000 + b'"\n', "the CSV file has a row of more than 8,388,608 bytes"),
        (b'"a,b\n', "it has no rows"),
        ("a,b\n1,2\n".encode("utf-16-be"), "the header of the CSV file holds zero bytes, as UTF-16 does"),
        ("\ufeffa,b\n1,2\n".encode("utf-16-be") + b"x", "line 3 is not utf-16"),
        (b'{"a": ' + b"[" * 300 + b"1" + b"]" * 300 + b"}", "column 'a' holds lists 300 deep; at most 16 are taken"),
    ],
)
def test_odd_texts_are_rejected_in_words(
    read: Read, content: bytes, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(csv_files, "MOST_ROW_BYTES", dialects.BLOCK_BYTES)
    with pytest.raises(RejectedError, match=f"^dataset 'rows': .*{says}"):
        read(content, "rows")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"a\n" + b"x" * 8_388_609, "the CSV file has a row of more than 8,388,608 bytes"),
        (b"a\n" + b"x" * 8_388_608, "the CSV file cannot be read: a block of words"),
        (b"a\n\n\n", "it has no rows"),
        (b"\n\na\r\r1\r", "the CSV file cannot be read: a block of words"),
        (b'a\n"\n"\n', "the CSV file cannot be read: a block of words"),
    ],
)
def test_what_is_wrong_with_rows_is_found_in_the_file_and_not_in_arrows_words(
    read: Read, content: bytes, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object, **__: object) -> Any:
        raise pa.ArrowInvalid("a block of words")

    monkeypatch.setattr(pa.csv, "read_csv", fails)
    monkeypatch.setattr(csv_files, "MOST_ROW_BYTES", dialects.BLOCK_BYTES)
    with pytest.raises(RejectedError, match=f"^dataset 'rows': {says}"):
        read(content)


def test_a_cell_may_have_megabytes(read: Read) -> None:
    for size in (5_000_000, 25_000_000):
        assert len(read(b"a,b\n" + b"x" * size + b",1\n")["a"][0].as_py()) == size


@settings(deadline=None, max_examples=300)
@given(
    pieces=st.lists(
        st.sampled_from(['"', '""', "\n", "\r\n", ",", "a", "12", ' "', "words and words", "#"]), max_size=60
    ),
    block=st.integers(16, 64),
)
@example(pieces=['"', *["w,1\n"] * 40], block=32)  # Arrow's threads would lose all rows of the first block
@example(pieces=["a,1\n", '"', *["w,1\n"] * 40, '",2\n'], block=32)
def test_blocks_change_nothing_of_what_is_read(pieces: list[str], block: int) -> None:
    text = "t,y\n" + "".join(pieces)
    read: list[Any] = []
    for size in (block, 2**20):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(csv_files, "dialect_of", lambda *given, size=size: _in_blocks(size, *given))
            try:
                read.append(table_from(text.encode()).to_pydict())
            except RejectedError as error:
                read.append(type(error))
    assert read[0] == read[1]


def _in_blocks(size: int, *given: Any) -> Any:
    path, dialect, notes = dialects.dialect_of(*given)
    return path, replace(dialect, block=size), notes


def test_lines_of_json_may_end_as_on_any_system(read: Read) -> None:
    for end in (b"\n", b"\r\n", b"\r"):
        table = read(end.join((b'{"a": 1}', b"", b'{"a": 2}', b"")), "rows.jsonl")
        assert table.to_pydict() == {"a": [1, 2]}
        with pytest.raises(RejectedError, match="line 3 is not valid JSON"):
            read(end.join((b'{"a": 1}', b"", b"{")), "rows.jsonl")


@pytest.mark.parametrize("content", [b'[{"a": 1}, {"a": 2}]', b'{"a": 1}\n{"a": 2}\n'])
@pytest.mark.parametrize("file_name", ["rows.json", "rows"])
def test_json_may_begin_with_the_mark_that_windows_writes(read: Read, content: bytes, file_name: str) -> None:
    assert read(b"\xef\xbb\xbf" + content, file_name).to_pydict() == {"a": [1, 2]}


def test_a_date_that_is_none_is_rejected_without_advice_for_programmers(read: Read) -> None:
    with pytest.raises(RejectedError) as rejected:
        read(bson.encode({"x": 1}) + bson.encode({"x": DatetimeMS(2**62)}), None)
    assert "column 'x' holds a date before the year 1 or after 9999" in str(rejected.value)


def test_the_description_in_a_parquet_file_of_ours_is_found_without_parsing_it(tmp_path: Path) -> None:
    source = DirectorySource(tmp_path)
    for classes in (2, 40):
        labels = [f"class {n % classes} {'é' * 60}" for n in range(400)]
        source.add("plants", pa.table({"x": list(range(400)), "y": labels}), "y")
        own = directory._described(tmp_path / "plants.parquet")
        assert len(own["profile"]["classes"]) == classes
        assert (own["target_column"], own["profile"]["rows"]) == ("y", 400)
    whole = (tmp_path / "plants.parquet").read_bytes()
    for place in range(1, 3_000, 7):
        (tmp_path / "cut.parquet").write_bytes(whole[:-place])
        assert directory._described(tmp_path / "cut.parquet") == {}
        (tmp_path / "cut.parquet").write_bytes(whole[:-place] + b"\xff" + whole[len(whole) - place + 1 :])
        directory._described(tmp_path / "cut.parquet")
