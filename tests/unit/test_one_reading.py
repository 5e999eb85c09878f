"""A column is read the same whatever it came in, and what was decided is said."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import zipfile
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.feather as feather
import pyarrow.parquet as pq
import pytest

from pipeline.errors import RejectedError
from pipeline.features.columns import Column, Role, read
from pipeline.reading.notes import NOTATION, NOTES, Note
from pipeline.reading.tables import canonical, fingerprint
from pipeline.reading.typed import MOST_NOTES, notation_of, notes_of
from pipeline.reading.writers import parquet_of
from tests.rows import FORMS, as_csv, table_from

NUMBER, DATE, WORD, WHOLE, TRUTH, NOTHING = "double", "timestamp[us]", "large_string", "int64", "bool", "null"
ROWS = 30


def lines(header: str, row: str, count: int = ROWS) -> str:
    """A file of rows in which `{n}` is the row's number, `{d}` a day, `{m}` a month."""
    rows = (
        row.format(n=n, d=n % 28 + 1, m=n % 12 + 1, dd=f"{n % 28 + 1:02}", mm=f"{n % 12 + 1:02}") for n in range(count)
    )
    return "\n".join([header, *rows]) + "\n"


def types(table: pa.Table) -> dict[str, str]:
    return {field.name: str(field.type) for field in canonical(table).schema}


def said(table: pa.Table) -> str:
    return "\n".join(map(str, notes_of(table)))


@pytest.mark.parametrize(
    ("text", "expected", "notes"),
    [
        (
            lines("x;y", "{n},5;a"),
            {"x": NUMBER, "y": WORD},
            ["'x': is read as numbers with decimal comma (row 1: '0,5')"],
        ),
        (lines("x,y", '"1,{n}00.5",a', 9), {"x": NUMBER, "y": WORD}, ["numbers with thousands ','"]),
        (lines("x,y", "$4.{n},a"), {"x": NUMBER, "y": WORD}, ["numbers with $"]),
        (lines("x,y", "{n} EUR,a"), {"x": WHOLE, "y": WORD}, ["numbers with EUR"]),
        (lines("x,y", "{n}.5%,a"), {"x": NUMBER, "y": WORD}, ["numbers with %"]),
        (lines("x,y", '"1,{n}00",a', 9), {"x": WHOLE, "y": WORD}, ["could have the other decimal mark"]),
        (lines("d,y", "2012/{mm}/{dd},a"), {"d": DATE, "y": WORD}, ["'d': is read as dates y/m/d"]),
        (lines("d,y", "{d}.{m}.2012,a"), {"d": DATE, "y": WORD}, ["dates d.m.y"]),
        (lines("d,y", "{d}/{m}/2012,a"), {"d": DATE, "y": WORD}, ["dates d/m/y"]),
        (lines("d,y", "{m}/{d}/2012 10:30 PM,a"), {"d": DATE, "y": WORD}, ["dates m/d/y"]),
        (lines("d,y", "2023-{mm}-{dd} 10,a"), {"d": DATE, "y": WORD}, []),
        (lines("d,y", "{d}.{m}.2012 3 PM,a"), {"d": DATE, "y": WORD}, ["dates d.m.y"]),
        (lines("d,y", '"May {d}, 2011",a'), {"d": DATE, "y": WORD}, ["dates month d y"]),
        (lines("d,y", "Jan-{d}-1995,a"), {"d": DATE, "y": WORD}, ["dates month d y"]),
        (lines("d,y", "{n}-Jan,a").replace(",a", "").replace("d,y", "d"), {"d": WORD}, []),
        (
            lines("d,y", "{m}/1/2012,a", 12),
            {"d": WORD, "y": WORD},
            ["could be dates d/m/y or m/d/y, which no value decides"],
        ),
        (
            lines("d,y", "2023-{mm}-{dd},a") + "unknown,b\n",
            {"d": DATE, "y": WORD},
            ["mark that counts as missing (row 31"],
        ),
        (
            lines("d,y", "2023-{mm}-{dd},a") + "2023-02-30,b\n",
            {"d": DATE, "y": WORD},
            ["30 of 31 values are dates", "02-30"],
        ),
        (
            lines("x,y", "{n},a") + "Total,b\n",
            {"x": WHOLE, "y": WORD},
            ["30 of 31 values are numbers", "(row 31: 'Total')"],
        ),
        (
            lines("x,y", "{n},a") + "Total,b\nNote,c\n",
            {"x": WORD, "y": WORD},
            ["'x': is read as words: 30 of 32 values are numbers, more than 5% are not; --type x=number", "'Total')"],
        ),
        (lines("x,y", "{d}.1.2024,a") + "late,b\n" * 3, {"x": WORD, "y": WORD}, ["30 of 33 values are dates"]),
        (
            lines("d,y", "23-{mm}-{dd},a", 12) + "24-01-05,a\n",
            {"d": WORD, "y": WORD},
            ["could be dates d-m-yy or yy-m-d, which no value decides"],
        ),
        (lines("d,y", "99-{mm}-{dd},a"), {"d": DATE, "y": WORD}, ["dates yy-m-d"]),
        (lines("p;y", "{m}.250;a"), {"p": NUMBER, "y": WORD}, ["could have the other decimal mark; decimal point is"]),
        (lines("p;y", "{m}.25;a"), {"p": NUMBER, "y": WORD}, []),
        (
            lines("x,y", "{n},a") + "-999,b\n-999,b\n",
            {"x": WHOLE, "y": WORD},
            ["'x': holds -999 in 2 rows, and no other negative number: where it stands", "(row 31: '-999')"],
        ),
        (lines("x,y", "{n}.5,a") + "-999,b\n-1,b\n-999,b\n", {"x": NUMBER, "y": WORD}, []),
        (lines("x,y", "{n},a") + "435,Total\n", {"x": WHOLE, "y": WORD}, ["last row calls itself a total", "row 31"]),
        (lines("q,y", "19{dd}Q{n},a", 4).replace("Q0", "Q4"), {"q": DATE, "y": WORD}, ["dates yQq"]),
        (lines("q,y", "Q3 20{dd},a"), {"q": DATE, "y": WORD}, ["dates Qq y"]),
        (
            lines("d,y", "2023{mm}{dd},a"),
            {"d": WHOLE, "y": WORD},
            ["looks like dates such as 20230101; --type d=date:"],
        ),
        (lines("d,y", "2023{dd}99,a"), {"d": WHOLE, "y": WORD}, []),
        (lines(",x", "car {n},{d}"), {"column_1": WORD, "x": WHOLE}, ["taken for names of rows, and no feature"]),
        (lines(",x", "car,{d}"), {"column_1": WORD, "x": WHOLE}, []),
        (lines("18.0,8,ford", "{n}.5,{m},a"), {"18.0": NUMBER, "8": WHOLE, "ford": WORD}, ["say --no-header"]),
        (lines("a:b", "{n}:x"), {"a:b": WORD}, ["if ':' stands between several, say --delimiter"]),
        (lines("x,y", "{n},a") + " ,a\n?,a\n-,a\n\\N,a\n#DIV/0!,a\n", {"x": WHOLE, "y": WORD}, ["4 times a mark"]),
        (lines("x,y", "{n},a") + "NA,a\nnull,a\n", {"x": WHOLE, "y": WORD}, []),
        (lines("x,y", "{n},00:{mm}") + "NA,00:01\n", {"x": WHOLE, "y": WORD}, []),
        (lines("x,y", "Inf,a") + "5,a\n", {"x": NUMBER, "y": WORD}, []),
        (lines("x,y", "Inf,a"), {"x": WORD, "y": WORD}, []),
        (lines("x,y", "Inf,a") + "Cav,a\n", {"x": WORD, "y": WORD}, []),
        (lines("z,y", "0{n},a"), {"z": WORD, "y": WORD}, ["codes that begin with 0"]),
        (lines("z,y", "0.{n},a"), {"z": NUMBER, "y": WORD}, []),
        (lines("z,y", "{n},00:{mm}"), {"z": WHOLE, "y": WORD}, []),
        (lines("i,y", "1189850876250608{n}283,a"), {"i": WORD, "y": WORD}, ["beyond 64 bits"]),
        (lines("i,y", "1{n}e30,a"), {"i": NUMBER, "y": WORD}, []),
        (lines("x,t", "{n},true") + "1,FALSE\n", {"x": WHOLE, "t": TRUTH}, []),
        (lines("x,y", "{n},yes ") + "1,yes\n", {"x": WHOLE, "y": WORD}, []),
        (lines("x,e,y", "{n},,a"), {"x": WHOLE, "e": NOTHING, "y": WORD}, []),
        (lines("x,y,,", "{n},a,,"), {"x": WHOLE, "y": WORD}, []),
        (lines(",x", "{n},a") + "99,b\n", {"x": WORD}, ["the first column, which has no name, is left out"]),
        (lines("Unnamed: 0,x", "{n},a") + "99,b\n", {"x": WORD}, ["column 'Unnamed: 0': is left out"]),
        (lines("18.0,8", "{n}.5,{m}"), {"column_1": NUMBER, "column_2": WHOLE}, ["there is no header"]),
        (lines("0,1", "{n}.5,{m}"), {"0": NUMBER, "1": WHOLE}, []),
        (lines(",0,1", "{n},0.5,{m}"), {"0": NUMBER, "1": WHOLE}, ["is left out"]),
        (
            lines('"","1940","1945"', '"food {n}",{n}.5,2'),
            {"column_1": WORD, "1940": NUMBER, "1945": WHOLE},
            ["names of rows"],
        ),
        (lines(",0,0", "{n}.5,{m},1"), {"column_1": NUMBER, "column_2": WHOLE, "column_3": WHOLE}, ["no header"]),
        (lines(",1,2", ",{n},1"), {"column_1": NOTHING, "column_2": WHOLE, "column_3": WHOLE}, ["no header"]),
        ("sep=;\n" + lines("x;y", "{n},5;a"), {"x": NUMBER, "y": WORD}, ["decimal comma"]),
        ("# made by a tool\n" + lines("x,y", "{n},a"), {"x": WHOLE, "y": WORD}, ["begin with #"]),
        (lines("x,y", "{n},a") + "# the end\n", {"x": WHOLE, "y": WORD}, ["begin with #"]),
        (lines("#id,y", "{n},a"), {"#id": WHOLE, "y": WORD}, []),
        (lines("x  y", "{n}   a"), {"x": WHOLE, "y": WORD}, ["separated by blanks"]),
        (lines('x "y z"', '{n}  "a b"'), {"x": WHOLE, "y z": WORD}, ["separated by blanks"]),
        (lines('"x" "y"', '"{n}" {n}.5 "a b"'), {"x": NUMBER, "y": WORD}, ["separated by blanks", "is left out"]),
        (lines("x y", '"row {n}" NA TRUE'), {"column_1": WORD, "x": NOTHING, "y": TRUTH}, ["separated by blanks"]),
        (lines("x\ty z", "{n}  5.5 a"), {"x": WHOLE, "y": NUMBER, "z": WORD}, ["separated by blanks"]),
        (lines("x\ty", "a b\tc"), {"x": WORD, "y": WORD}, []),
        (lines("name", "John Smith"), {"name": WORD}, []),
        (lines("a text", "some words of number {n} and more") + "short\n", {"a text": WORD}, []),
    ],
)
def test_a_csv_column_is_what_people_mean(text: str, expected: dict[str, str], notes: Sequence[str]) -> None:
    table = table_from(text.encode())
    assert types(table) == expected
    for note in notes:
        assert note in said(table)
    if not notes:
        assert not said(table)


@pytest.mark.parametrize(
    ("text", "expected", "note"),
    [
        (
            "s;x;z\n1;1.234;5.1\n2;2.345;6.25\n1,3;3.456;7.5\n4;4.567;8\n",
            {"s": [1, 2, 1.3, 4], "x": [1.234, 2.345, 3.456, 4.567], "z": [5.1, 6.25, 7.5, 8]},
            "'s': is read as numbers with decimal comma",
        ),
        ("u;p\n1.234;1,50\n2.500;2,75\n", {"u": [1234, 2500], "p": [1.5, 2.75]}, "other decimal mark"),
        (
            'u,p,q\n1.234,"1,50","1,234"\n2.500,"2,75","2,500"\n',
            {"u": [1.234, 2.5], "p": [1.5, 2.75], "q": [1.234, 2.5]},
            "'p': is read as numbers with decimal comma",
        ),
        ("c\nR1\nR2\nSKU3\n", {"c": ["R1", "R2", "SKU3"]}, ""),
        ("c\nSKU1\nSKU2\n", {"c": ["SKU1", "SKU2"]}, ""),
        ("x\n$5\n$6\n($7)\n-$8\n$-9\n0\n", {"x": [5, 6, -7, -8, -9, 0]}, "numbers with $"),
        ("x\n$5\n$6\n($-5)\n", {"x": ["$5", "$6", "($-5)"]}, ""),
        ("x;y\n1234,50\u00a0€;a\n99,90\u00a0€;b\n", {"x": [1234.5, 99.9], "y": ["a", "b"]}, "decimal comma, €"),
        ("x\n12\u00a0\n13\n", {"x": [12, 13]}, ""),
        ("x\n" + "1\n2\n3\n4\n" * 10 + "a note\n", {"x": [1, 2, 3, 4] * 10 + [None]}, "row 41: 'a note'"),
        ("a, b\n1, 007\n", {"a": [1], "b": ["007"]}, "codes that begin with 0"),
        ("a,b\n1, NA\n2,x\n", {"a": [1, 2], "b": [None, "x"]}, "NA is taken for a missing value"),
        ("a,b\n-007,1\n2,3\n", {"a": ["-007", "2"], "b": [1, 3]}, "codes that begin with 0"),
        ('"1,5",2\n"2,5",3\n', {"column_1": [1.5, 2.5], "column_2": [2, 3]}, "there is no header"),
        ("a\n1\n00\n10\n", {"a": ["1", "00", "10"]}, "row 2: '00'"),
        ("a\n0x1F\n0x10\n", {"a": ["0x1F", "0x10"]}, ""),
        ("a\ntrue\n0\n1\n", {"a": ["true", "0", "1"]}, ""),
        ("sep=\t\na\tb\n1\t2\n", {"a": [1], "b": [2]}, ""),
        ('"a", "b"\n"x, ""y""",  "1.5"\n"z", "2"\n', {"a": ['x, "y"', "z"], "b": [1.5, 2]}, ""),
        ('a; "b"\n1; "x; y"\n2; z, "q"\n', {"a": [1, 2], "b": ["x; y", 'z, "q"']}, ""),
        ("d\n" + "2020-01-01\n" * 30 + "2020-01-01T10:00:00+99:99\n", {}, "30 of 31 values are dates"),
        ("d\n" + "2020-01-01\n" * 30 + "9999-12-31 24:00\n", {}, "30 of 31 values are dates"),
    ],
)
def test_what_a_second_look_found(text: str, expected: dict[str, Any], note: str) -> None:
    table = canonical(table_from(text.encode()))
    assert not expected or table.to_pydict() == expected
    assert note in said(table)
    assert note or not said(table)


LIKE_AN_ID = "differs in every row: if it is an id, leave it out (--type NAME=id at import, or features)"


@pytest.mark.parametrize(
    ("name", "numbers", "is_one"),
    [
        ("x", range(1001, 1041), True),
        ("x", range(1040, 1000, -1), True),
        ("x", [n * n for n in range(40)], True),
        ("x", [n * 7 % 41 for n in range(1, 41)], True),
        ("customerId", [n * n * 7919 % 10_007 for n in range(1, 41)], True),
        ("zip code", [n * n * 7919 % 10_007 for n in range(1, 41)], True),
        ("price", [n * n * 7919 % 10_007 for n in range(1, 41)], False),
        ("amount paid", [n * n * 7919 % 10_007 for n in range(1, 41)], False),
        ("id", [*range(39), 0], False),
        ("id", range(30), False),
        ("id", [n + 0.5 for n in range(40)], False),
        ("id", [*range(39), ""], False),
        ("year", range(1871, 1911), False),
    ],
)
def test_integers_that_are_like_an_id_are_named_and_measures_are_not(
    name: str, numbers: Sequence[Any], is_one: bool
) -> None:
    text = f"{name},y\n" + "".join(f"{number},{place % 2}\n" for place, number in enumerate(numbers))
    assert said(table_from(text.encode())) == (f"column {name!r}: {LIKE_AN_ID}" if is_one else "")


def test_words_that_differ_in_case_or_blanks_only_are_named() -> None:
    words = ["Yes", "no", "yes", "New York", "new  york", "YES", "Straße"] * 40_000
    (found,) = notes_of(table_from(("y\n" + "\n".join(words)).encode()))
    assert (found.column, found.row, found.example) == ("y", 3, "yes")
    assert found.text.endswith("count as different: 'Yes' and 'yes' and 'YES'; 'New York' and 'new  york'")


def test_many_words_are_no_categories() -> None:
    assert not said(table_from(("y\na\nA\n" + "\n".join(f"w{n}" for n in range(2_000))).encode()))


BERLIN, ZULU = "2022-03-20T00:00:00+01:00", "2022-03-20T00:00:00Z"


@pytest.mark.parametrize(
    ("moments", "name", "row"),
    [
        ([ZULU, BERLIN], "a.csv", 2),
        (["2022-03-20", "2022-03-20 10:00", BERLIN], "a.csv", 3),
        (["20.3.2022 10:00 PM -0530"], "a.csv", 1),
        ([BERLIN, ZULU], "a.jsonl", 1),
        ([ZULU, "2022-03-20 10:00 UTC", "2022-03-20T00:00:00+00:00"], "a.jsonl", 0),
        ([ZULU, ZULU], "a.csv", 0),
        (["2022-03-20"], "a.csv", 0),
    ],
)
def test_a_column_with_zones_is_in_utc_and_says_so(moments: list[str], name: str, row: int) -> None:
    form = "t\n" + "\n".join(moments) if name.endswith("csv") else "\n".join(json.dumps({"t": t}) for t in moments)
    table = table_from(form.encode(), name)
    assert types(table)["t"] == DATE
    found = [note for note in notes_of(table) if "is read in UTC" in note.text]
    assert [(note.row, note.example) for note in found] == ([(row, moments[row - 1])] if row else [])


def test_a_zone_of_a_parquet_column_is_named() -> None:
    kinds = {"t": pa.timestamp("us", "Europe/Berlin"), "u": pa.timestamp("us", "UTC")}
    table = pa.table({name: pa.array([0, 1], kind) for name, kind in kinds.items()})
    (found,) = notes_of(table_from(parquet_of(table), "a.parquet"))
    assert (found.column, found.text.partition(" (")[2]) == ("t", "its zone is Europe/Berlin)")


def test_names_that_come_twice_are_named() -> None:
    with pytest.raises(RejectedError, match="column 'a' comes 2 times; give each its own name"):
        table_from(b"a,a\n007,1\n3,4\n")
    assert table_from(b",,y\nNA,x,1\nb,NA,2\n").column_names == ["column_1", "column_2", "y"]


@pytest.mark.parametrize("kind", [pa.dictionary(pa.int32(), pa.string()), pa.string_view()])
def test_texts_are_read_however_parquet_and_feather_keep_them(kind: pa.DataType) -> None:
    column = pa.array(["1,5", "2,5", "3,7"]).cast(kind)
    file = io.BytesIO()
    feather.write_feather(pa.table({"x": column}), file)
    assert table_from(file.getvalue(), "a.feather")["x"].to_pylist() == [1.5, 2.5, 3.7]


def test_texts_that_parquet_keeps_once_are_read_as_those_that_it_repeats() -> None:
    names: dict[str, list[str | None]] = {
        "word": ["a ", " b", None, ""],
        "number": ["1,5", " 2,5", None, "x"],
        "date": ["1.2.2023", "", "13.2.2023"],
    }
    columns = {name: [values[n % len(values)] for n in range(600)] for name, values in names.items()}
    found = []
    for once in (False, True):
        file = io.BytesIO()
        pq.write_table(pa.table(columns), file, use_dictionary=once, row_group_size=250)
        found.append(table_from(file.getvalue(), "a.parquet"))
    assert types(found[0]) == {"word": WORD, "number": WORD, "date": DATE}
    assert found[0].equals(found[1], check_metadata=True)
    assert fingerprint(canonical(found[0])) == fingerprint(canonical(found[1]))


def test_words_among_which_dates_are_that_a_value_elsewhere_tells_apart_stay_words() -> None:
    days = ["01/02/2023" if n % 5 < 3 else f"word {n % 7}" for n in range(2_000)]
    days[1_001] = "13/02/2023"  # no sample
    table = table_from(("d,y\n" + "\n".join(f"{day},1" for day in days)).encode())
    assert types(table)["d"] == WORD
    assert "1,200 of 2,000 values are dates" in said(table)


def test_a_stand_in_is_seen_beside_nan() -> None:
    values = pa.array(np.array([1.0, np.nan, -999.0, -999.0, 4.0]))
    assert "holds -999 in 2 rows" in said(table_from(parquet_of(pa.table({"x": values})), "a.parquet"))


@pytest.mark.parametrize(
    "notes", [b"x", b"[1]", b'[{"q": 1}]', b'[{"column": 1, "text": "", "row": 0, "example": ""}]']
)
def test_notes_and_notations_that_we_have_not_written_count_for_nothing(notes: bytes) -> None:
    field = pa.field("x", pa.string(), metadata={NOTATION: b"foo"})
    table = pa.table([pa.array(["1,5", "2"])], schema=pa.schema([field], metadata={NOTES: notes}))
    found = canonical(table_from(parquet_of(table), "a.parquet"))
    assert found["x"].to_pylist() == [1.5, 2.0]
    assert "decimal comma" in said(found)
    assert notes_of(table) == []
    assert notation_of(table.schema.field("x")) == ""


def test_one_value_anywhere_tells_day_from_month() -> None:
    text = lines("d,y", "{m}/1/2012,a", 40_000).replace("12/1/2012", "12/25/2012", 1)
    table = table_from(text.encode())
    assert types(table)["d"] == DATE
    assert table["d"][11].as_py().day == 25
    assert "dates m/d/y" in said(table)


def test_words_that_mean_a_missing_value_are_words_where_they_are_quoted_and_none_is_always_one() -> None:
    table = table_from(b'c,d\nNA,None\n"NA",b\nNAM,None\n,"-"\n')
    assert table["c"].to_pylist() == [None, "NA", "NAM", None]
    assert table["d"].to_pylist() == ["None", "b", "None", "-"]
    assert "NA is taken for a missing value in 1 rows; where it is a word, quote it" in said(table)


def packed(name: str, text: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(zipfile.ZipInfo(name), text)
    return file.getvalue()


TEXT = lines("größe,y", "{n},5 €;ä").replace("größe,y", "größe;y")


@pytest.mark.parametrize(
    ("content", "name", "note"),
    [
        (gzip.compress(TEXT.encode(), mtime=0), "a.csv.gz", "unpacked (gzip)"),
        (bz2.compress(TEXT.encode()), "a.csv.bz2", "unpacked (bzip2)"),
        (lzma.compress(TEXT.encode()), "a.csv.xz", "unpacked (xz)"),
        (packed("folder/a.csv", TEXT.encode()), "a.zip", "folder/a.csv is unpacked (zip)"),
        (TEXT.encode("utf-16"), "a.csv", "utf-16"),
        (TEXT.encode("utf-8-sig"), "a.csv", "decimal comma, €"),
        (TEXT.encode("cp1252"), "a.csv", "cp1252, which is a guess"),
    ],
)
def test_a_file_is_read_whatever_it_is_packed_or_encoded_in(content: bytes, name: str, note: str) -> None:
    table = table_from(content, name)
    assert types(table) == {"größe": NUMBER, "y": WORD}
    assert table["y"][0].as_py() == "ä"
    assert note in said(table)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"\x80\x05\x95\x00\x00", "the file is no text"),
        (gzip.compress(b"a,b\n1,2\n", mtime=0)[:-4], "the compressed file cannot be unpacked"),
        (b"\xff\xfea", "is not utf-16"),
    ],
)
def test_what_is_no_file_of_rows_is_refused_in_words(content: bytes, says: str) -> None:
    with pytest.raises(RejectedError, match=says):
        table_from(content, "a.csv")


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.dta", b"x", "the file is Stata's; save it as CSV or Parquet"),
        ("a.arff", b"@relation x", "the file is Weka's"),
        ("a.json", b'{\n "a": [1, 2]\n}', "the file is one JSON object; a list of objects, or one a line, is read"),
        ("a.csv", b"0.5,0,ford,0\n0.6,1,audi,2\n", "column '0' comes 2 times; give each its own name, or say --no-h"),
    ],
)
def test_what_the_file_is_instead_is_said(name: str, content: bytes, says: str) -> None:
    with pytest.raises(RejectedError, match=says):
        table_from(content, name)


def test_a_zip_archive_of_several_files_is_refused_and_a_bomb_ends_at_the_limit() -> None:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name in ("a.csv", "b.csv"):
            archive.writestr(name, "x\n1\n")
    with pytest.raises(RejectedError, match=r"holds 2 files \(a.csv, b.csv\); it must hold one"):
        table_from(file.getvalue(), "a.zip")
    for bomb in (gzip.compress(b"1\n" * 1_000_000), packed("a.csv", b"1\n" * 1_000_000)):
        with pytest.raises(RejectedError, match="more bytes than the dataset cache of 100,000 bytes"):
            table_from(bomb, "a", max_bytes=100_000)


def test_numbers_that_json_does_not_have_are_missing() -> None:
    table = table_from(b'{"x": 1.5, "y": "NaN, a word"}\n{"x": NaN, "y": "b"}\n{"x": -Infinity, "y": "c"}\n', "a.jsonl")
    assert table.to_pydict() == {"x": [1.5, None, None], "y": ["NaN, a word", "b", "c"]}


SAME = {
    "day": [f"{n % 28 + 1}.{n % 12 + 1}.2012" for n in range(ROWS)],
    "price": [f"{n + 1}.234,5 €" for n in range(ROWS)],
    "code": [f"{n:03}" for n in range(ROWS)],
    "word": ["a", "b", "None"] * (ROWS // 3),
    "size": [*map(str, range(ROWS - 1)), "?"],
}


@pytest.mark.parametrize("form", FORMS)
def test_the_same_rows_are_the_same_in_every_form(form: str) -> None:
    texts = pa.table(SAME)
    table, of_csv = canonical(FORMS[form](texts)), canonical(as_csv(texts))
    assert types(table) == {"day": DATE, "price": NUMBER, "code": WORD, "word": WORD, "size": WHOLE}
    assert fingerprint(table) == fingerprint(of_csv)
    assert notes_of(table) == notes_of(of_csv)
    roles = {"day": Role.DATE, "price": Role.NUMERIC, "size": Role.NUMERIC}
    for name, role in roles.items():
        column = Column(name, role, "", notation_of(table.schema.field(name)))
        predicted = read(pd.Series(SAME[name]), column)
        trained = read(table[name].to_pandas(), column)
        assert np.array_equal(predicted, trained, equal_nan=True), name


def test_what_was_read_is_not_read_again() -> None:
    table = canonical(table_from(b'code,x\n"NA",1\n"1,5",2\nb,3\nc,4\n'))
    again = table_from(parquet_of(table), "a.parquet")
    assert again.equals(table)
    assert again.schema.metadata[NOTES] == table.schema.metadata[NOTES]


def test_the_notes_of_a_wide_file_are_cut() -> None:
    columns = 3 * MOST_NOTES
    text = ";".join(f"c{n}" for n in range(columns)) + "\n" + ";".join(["1,5"] * columns)
    notes = notes_of(table_from(text.encode()))
    assert len(notes) == MOST_NOTES + 1
    assert notes[-1] == Note("", f"there are {columns - MOST_NOTES:,} notes more")
