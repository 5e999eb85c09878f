"""What somebody tells about a file, where its content does not, holds; and workbooks are read."""

from __future__ import annotations

import datetime
import io
from typing import Any

import numpy as np
import openpyxl
import pandas as pd
import pyarrow as pa
import pyarrow.feather as feather
import pytest

from pipeline.errors import RejectedError
from pipeline.features.columns import Column, Role, UnusableColumnError, describe, read
from pipeline.features.frames import frame_of
from pipeline.reading.dates import date_notation
from pipeline.reading.notes import NOTATION, TOLD
from pipeline.reading.options import MOST_BYTES, ReadOptions
from pipeline.reading.tables import canonical, fingerprint, last_target
from pipeline.reading.typed import missing_of, notation_of, notes_of, told_of
from pipeline.reading.writers import parquet_of
from tests.rows import table_from

ROWS = b"zip,n,when,note,y\n01234,1,1/2/2023,some,-999\n99999,2,3/4/2023,b,5\n55555,x,5/6/2023,c,6.5\n"
TOLD_OF_ALL: dict[str, Any] = {
    "types": {"zip": "category", "n": "number", "when": "date:d/m/y", "note": "id", "y": "number"},
    "missing": ("-999",),
}


def told(content: bytes, name: str = "a.csv", **options: Any) -> pa.Table:
    return canonical(table_from(content, name, options=ReadOptions(**options)))


def said(table: pa.Table) -> str:
    return "\n".join(map(str, notes_of(table)))


def test_the_type_that_is_told_is_the_column_s_and_what_does_not_fit_is_missing_and_named() -> None:
    table = told(ROWS, **TOLD_OF_ALL)
    assert table.to_pydict() == {
        "zip": ["01234", "99999", "55555"],
        "n": [1, 2, None],
        "when": [datetime.datetime(2023, month, day) for day, month in ((1, 2), (3, 4), (5, 6))],  # noqa: DTZ001
        "note": ["some", "b", "c"],
        "y": [None, 5, 6.5],
    }
    assert [told_of(field) for field in table.schema] == ["category", "", "", "id", ""]
    assert "column 'n': 2 of 3 values are numbers; the rest count as missing (row 3: 'x')" in said(table)
    assert missing_of(table) == ("-999",)


@pytest.mark.parametrize(
    ("content", "missing", "expected"),
    [
        (b"b\n-999\n-999.0\n2.5\n?\n", ("-999",), [None, None, 2.5, None]),
        (b"a;b\nx;-999\ny;-999,0\nz;2,5\n", ("-999",), [None, None, 2.5]),
        (b"b\n9007199254740993\n9007199254740992\n", ("9007199254740993",), [None, 2**53]),
        (b"b\nx\n y \n", (" y",), ["x", None]),
        (b"b\ntrue\nfalse\n", ("false",), [True, None]),
        (b'b\n"1/2/2023"\n"31/12/1999"\n', ("1999-12-31",), ["2023-02-01", None]),
    ],
)
def test_what_counts_as_missing_does_so_however_it_is_written(
    content: bytes, missing: tuple[str, ...], expected: list[Any]
) -> None:
    values = told(content, missing=missing)["b"].to_pylist()
    assert [str(value)[:10] if isinstance(value, datetime.datetime) else value for value in values] == expected


def test_half_floats_and_nan_take_missing_values_too() -> None:
    kept = pa.table({"h": pa.array(np.array([1, 2, -9], np.float16)), "f": [np.nan, 2.0, -9.0]})
    found = told(parquet_of(kept), "a.parquet", missing=("-9",))
    assert found.to_pydict() == {"h": [1, 2, None], "f": [None, 2, None]}


def test_values_that_have_types_are_missing_too() -> None:
    table = pa.table(
        {
            "day": pa.array([datetime.date(1900, 1, 1), datetime.date(2026, 1, 2)]),
            "flag": [False, True],
            "x": [-9.0, 1.5],
            "n": [-9, 1],
        }
    )
    found = told(parquet_of(table), "a.parquet", missing=("1900-01-01", "false", "-9"))
    assert [column.is_valid().to_pylist() for column in found.columns] == [[False, True]] * 4


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (pa.array([True, False, None]), "category"),
        (pa.array([1e16, 1.5, 1e-5]), "text"),
        (pa.array([10, 20, None]), "id"),
        (pa.array([datetime.datetime(2020, 1, 1, 5), None]), "category"),  # noqa: DTZ001
    ],
    ids=["boolean", "double", "integer", "timestamp"],
)
def test_the_words_of_values_that_have_types_are_the_same_in_training_and_prediction(
    values: pa.Array[Any], kind: str
) -> None:
    content = parquet_of(pa.table({"c": values, "y": range(len(values))}))
    trained = told(content, "a.parquet", types={"c": kind})
    frame = frame_of(canonical(table_from(content, "a.parquet", options=ReadOptions(keep_texts=True))))
    predicted = read(frame["c"], Column("c", Role.CATEGORICAL, "string"))
    assert [None if pd.isna(word) else word for word in predicted] == trained["c"].to_pylist()


@pytest.mark.parametrize("form", ["a.csv", "a.jsonl", "a.parquet", "a.feather", "a.xlsx"])
def test_what_is_told_holds_whatever_the_rows_came_in(form: str) -> None:
    texts = pd.read_csv(io.BytesIO(ROWS), dtype=str)
    file = io.BytesIO()
    match form:
        case "a.csv":
            file.write(ROWS)
        case "a.jsonl":
            texts.to_json(file, orient="records", lines=True)
        case "a.parquet":
            texts.to_parquet(file)
        case "a.feather":
            feather.write_feather(pa.Table.from_pandas(texts), file)
        case "a.xlsx":
            texts.to_excel(file, index=False)
    assert fingerprint(told(file.getvalue(), form, **TOLD_OF_ALL)) == fingerprint(told(ROWS, **TOLD_OF_ALL))


def test_what_was_imported_before_keeps_its_types_but_for_those_that_are_told() -> None:
    table = told(ROWS, **TOLD_OF_ALL)
    assert fingerprint(told(parquet_of(table), "a.parquet")) == fingerprint(table)
    other = told(parquet_of(table), "a.parquet", types={"y": "category", "when": "category"})
    assert [told_of(field) for field in other.schema] == ["category", "", "category", "id", "category"]
    assert other["y"].to_pylist() == [None, "5", "6.5"]
    assert fingerprint(other) != fingerprint(table)


def test_numbers_of_a_file_become_dates_categories_and_missing_ones() -> None:
    table = pa.table({"d": [20240131, 20240201], "k": [1, 2], "f": [1.0, -9.0], "x": [5, -9]})
    found = told(parquet_of(table), "a.parquet", types={"d": "date:%Y%m%d", "k": "category"}, missing=("-9", "word"))
    assert [str(value)[:10] for value in found["d"].to_pylist()] == ["2024-01-31", "2024-02-01"]
    assert found.select(["k", "f", "x"]).to_pydict() == {"k": ["1", "2"], "f": [1, None], "x": [5, None]}


@pytest.mark.parametrize(
    ("types", "says"),
    [
        ({"when": "date"}, "'when' could be dates d/m/y or m/d/y, which no value decides; say date:d/m/y or date:m/d"),
        ({"note": "number"}, "'note' has no value that is a number such as 1,234.5; the first is 'some'"),
        ({"note": "date:%Y%m%d"}, "'note' has no value that is a date such as 20230702"),
        ({"zipp": "number"}, "no column 'zipp', whose type was told; did you mean zip?"),
        ({"zip": "numbr"}, "'zip' cannot be of type 'numbr'; did you mean number?"),
        ({"zip": "number:4"}, "'zip' cannot be of type 'number:4'"),
        ({"zip": "date:%Q"}, "'zip': the format '%Q' has %Q; take one of"),
        ({"zip": "date:%d"}, "the format '%d' must have one year"),
        ({"zip": "date:%Y%m%d%d"}, "has one part twice"),
        ({"zip": "date:soon"}, "'soon' is no format of dates"),
    ],
)
def test_a_type_that_cannot_be_is_refused_in_words(types: dict[str, str], says: str) -> None:
    with pytest.raises(RejectedError) as refused:
        told(ROWS, types=types)
    assert says in str(refused.value)


@pytest.mark.parametrize(
    ("written", "text", "moment"),
    [
        ("%Y%m%d", "20240131", "2024-01-31 00:00:00"),
        ("%Y%m%d", "2024-01-31", None),
        ("%Y%m%d", "20241301", None),
        ("%d.%m.%Y %H:%M", "1.2.2024 10:30", "2024-02-01 10:30:00"),
        ("%d%b%Y", "02JUL2023", "2023-07-02 00:00:00"),
        ("%d%b%Y:%H:%M:%S", "02JUL2023:01:02:03", "2023-07-02 01:02:03"),
        ("%m/%d/%y %I:%M %p", "7/2/23 3:30 PM", "2023-07-02 15:30:00"),
        ("%Y-%m-%dT%H:%M:%S.%f%z", "2023-07-02T03:30:00.25+02:00", "2023-07-02 01:30:00.250000"),
        ("%a %d %B %Y", "Sun 2 July 2023", "2023-07-02 00:00:00"),
        ("m-d-y", "7-2-2023", "2023-07-02 00:00:00"),
    ],
)
def test_a_format_of_dates_is_read(written: str, text: str, moment: str | None) -> None:
    notation = date_notation(written)
    found = notation.read(pa.array([text], pa.large_string()))[0].as_py()
    assert (None if found is None else str(found)) == moment
    assert notation.read(pa.array([notation.example], pa.large_string())).null_count == 0


@pytest.mark.parametrize(
    ("content", "options", "rows"),
    [
        ("ä;b\n1.234;5,5\n2.345;6\n".encode("latin-1"), {"encoding": "latin-1"}, {"ä": [1234, 2345], "b": [5.5, 6]}),
        (b"a;b\n1.234;5\n2.345;6\n", {"decimal": ","}, {"a": [1234, 2345], "b": [5, 6]}),
        (b"a;b\n1.234;5,5\n2.345;6\n", {"decimal": "."}, {"a": [1.234, 2.345], "b": ["5,5", "6"]}),
        (b"a;b\n1,234;5,5\n", {"decimal": "."}, {"a": [1234], "b": ["5,5"]}),
        (b"a b\n1 2\n", {"delimiter": ","}, {"a b": ["1 2"]}),
        (b"a;b,c\n1;2,5\n", {"delimiter": ";"}, {"a": [1], "b,c": [2.5]}),
        (b"a!b\n1!2\n", {"delimiter": "!"}, {"a": [1], "b": [2]}),
        (b"a,b\n1,  007\n2,  8\n", {}, {"a": [1, 2], "b": ["007", "8"]}),
        (b"007,1\n8,2\n", {"header": False}, {"column_1": ["007", "8"], "column_2": [1, 2]}),
        (b"#id:name\n1:a\n2:b\n", {"delimiter": ":"}, {"#id": [1, 2], "name": ["a", "b"]}),
        (b"a,,b\n1,2,3\n", {"types": {"column_2": "id"}}, {"a": [1], "column_2": ["2"], "b": [3]}),
        (b"rownames,x\n1,a\n2,b\n", {"types": {"rownames": "number"}}, {"rownames": [1, 2], "x": ["a", "b"]}),
        (b"c,x\nNA,1\nDE,2\n", {"types": {"c": "category"}}, {"c": ["NA", "DE"], "x": [1, 2]}),
        (b"a,b\n" + b'1,"w"\n' * 60 + b'2, "w"\n', {}, {"a": [1] * 60 + [2], "b": ["w"] * 61}),
        (b"1,2\n3,4\n", {"header": True}, {"1": [3], "2": [4]}),
        (b"a,2\n3,4\n", {"header": False}, {"column_1": ["a", "3"], "column_2": [2, 4]}),
        (b'"x,y",2\n"3",4\n', {"header": False}, {"column_1": ["x,y", "3"], "column_2": [2, 4]}),
        (b"a,b\nnone,1\nx,-1\n", {"missing": ("none", "-1")}, {"a": [None, "x"], "b": [1, None]}),
        (b'"007","1"\n', {"header": False, "types": {"column_1": "number"}}, {"column_1": [7], "column_2": [1]}),
    ],
)
def test_what_is_told_of_a_csv_file_holds(content: bytes, options: dict[str, Any], rows: dict[str, Any]) -> None:
    assert told(content, **options).to_pydict() == rows


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"encoding": "latin-99"}, "there is no encoding 'latin-99'"),
        ({"encoding": "base64"}, "there is no encoding 'base64'"),
        ({"delimiter": ";;"}, "the delimiter must be one character"),
        ({"decimal": ";"}, "the decimal mark must be"),
        ({"missing": ("x" * MOST_BYTES,)}, f"at most {MOST_BYTES:,} are taken"),
    ],
)
def test_what_cannot_be_is_refused(options: dict[str, Any], says: str) -> None:
    with pytest.raises(RejectedError, match=says):
        ReadOptions(**options)


def test_a_told_delimiter_that_the_header_lacks_is_refused_and_a_doubtful_encoding_noted() -> None:
    with pytest.raises(RejectedError, match=r"the header has no ';', which was told .* but ','; .* --forget"):
        told(b"a,b\n1,2\n", delimiter=";")
    assert "is read as latin-1, as told, and could be UTF-8" in said(told("ä\nö\n".encode(), encoding="latin-1"))
    with pytest.raises(RejectedError, match="missing takes a list of values, not the text '-999'"):
        ReadOptions.from_document({"missing": "-999"})


def test_a_character_cut_by_the_end_of_a_part_is_no_error_before_the_wrong_byte() -> None:
    content = b"a,b\n" + b"x" * (2**20 - 5) + "é".encode() + b",1\ny,\xff"
    with pytest.raises(RejectedError, match=r"line 3 is not utf-8 \(byte 0xff\)"):
        told(content, encoding="utf-8")


def test_comments_are_counted_once() -> None:
    table = told(b"a,b\n1,2\n# c\n3,4\n", types={"a": "id"})
    assert "1 lines that begin with #" in said(table)


def test_a_zone_is_noted_of_a_told_date_too() -> None:
    column = pa.array([datetime.datetime(2026, 1, 2)]).cast(pa.timestamp("us", "Europe/Berlin"))  # noqa: DTZ001
    assert "has zones" in said(told(parquet_of(pa.table({"d": column})), "a.parquet", types={"d": "date"}))


def test_what_was_told_before_stays_where_more_is_told() -> None:
    ids = "".join(f"{n},{n % 3}\n" for n in range(60))
    table = told(f"id,x\n{ids}".encode(), missing=("-999",))
    again = told(parquet_of(table), "a.parquet", types={"x": "category"})
    assert missing_of(again) == ("-999",)
    assert said(again).count("differs in every row") == 1


def test_numbers_that_do_not_have_the_told_mark_are_words_with_a_note_or_refused() -> None:
    texts = b"a;b\n1.25;x\n2.5;y\n"
    assert "'a': is read as words: its numbers do not have the decimal mark ',', which was told" in said(
        told(texts, decimal=",")
    )
    with pytest.raises(RejectedError, match=r"'a' has no value that is a number such as 1\.234,5; the first is"):
        told(texts, decimal=",", types={"a": "number"})
    with pytest.raises(RejectedError, match=r"reading takes no 'typs'; did you mean types\?"):
        ReadOptions.from_document({"typs": {}})


def test_a_price_without_its_currency_is_one_to_predict_but_a_share_without_its_sign_is_none() -> None:
    price = Column("x", Role.NUMERIC, "double", notation="number|,|.|€")
    assert read(pd.Series(["1.234,5 €", "1.234,5", "5"]), price).tolist() == [1234.5, 1234.5, 5]
    with pytest.raises(ValueError, match="row 1 has '0,1', which is not a number"):
        read(pd.Series(["0,1"]), Column("x", Role.NUMERIC, "double", notation="number|,||%"))


def test_numbers_with_the_other_mark_are_not_called_numbers() -> None:
    texts = "".join(f'"{n}.5";a\n' for n in range(20))
    assert "values are numbers" not in said(told(f"b;c\n{texts}".encode(), decimal=","))


def test_a_byte_that_is_not_of_the_encoding_is_named_with_its_line() -> None:
    with pytest.raises(RejectedError, match=r"line 2 is not utf-8 \(byte 0xe4\); say --encoding"):
        told("a,b\nä,2\n".encode("latin-1"), encoding="utf-8")


def test_roles_that_are_told_are_those_of_training() -> None:
    words = pd.Series(["507f1f77bcf86cd799439011", "one two three four five six seven"] * 60)
    assert describe(words, "w", told="category").role is Role.CATEGORICAL
    assert describe(words, "w", told="text").role is Role.TEXT
    assert describe(words, "w", told="id", wanted=True).role is Role.CATEGORICAL
    with pytest.raises(UnusableColumnError, match="holds identifiers, or names of rows"):
        describe(words, "w", told="id")


def test_values_that_count_as_missing_do_so_in_rows_to_predict() -> None:
    number = Column("x", Role.NUMERIC, "double", missing=("-999", "none"))
    for values in (
        pd.Series(["1", "-999.0"]),
        pd.Series([1.0, -999.0]),
        pd.Series(["1", "-999"]),
        pd.Series([1, "none"], dtype=object),
    ):
        assert pd.isna(read(values, number)).tolist() == [False, True]
    word = Column("x", Role.CATEGORICAL, "string", missing=("-999", "none"))
    assert pd.isna(read(pd.Series(["a", "none"]), word)).tolist() == [False, True]


def test_options_are_kept_as_documents_and_added_to() -> None:
    before = ReadOptions(delimiter=";", header=False, missing=("x",), types={"a": "id", "b": "text"})
    assert ReadOptions.from_document(before.to_document()) == before
    later = before.but(ReadOptions(delimiter=",", types={"b": "number"}))
    assert later == ReadOptions(delimiter=",", header=False, missing=("x",), types={"a": "id", "b": "number"})
    assert before.but(ReadOptions()) == before
    assert ReadOptions(keep_texts=True).to_document() == {}


def workbook(hidden: bool = False) -> openpyxl.Workbook:
    book = openpyxl.Workbook()
    sheet: Any = book.active
    sheet.title = "Sales"
    sheet.append(["Report of 2026"])
    sheet.append([])
    sheet.append(["id", "when", "at", "paid", "price", None, "empty"])
    for n in range(30):
        day = datetime.datetime(2026, 1, n % 28 + 1)  # noqa: DTZ001
        sheet.append([n, day, datetime.time(10, 30), n % 2 == 0, n / 2, "x", None])
    sheet.append([30, "tbd", None, None, "n/a", "y"])
    if hidden:
        book.create_sheet("Secret", 0).append(["a"])
        book["Secret"].sheet_state = "hidden"
    return book


def saved(book: openpyxl.Workbook) -> bytes:
    file = io.BytesIO()
    book.save(file)
    return file.getvalue()


def test_a_sheet_is_read_with_its_types() -> None:
    table = told(saved(workbook()), "a.xlsx")
    kinds = {field.name: str(field.type) for field in table.schema}
    assert kinds == {
        **{"id": "int64", "when": "timestamp[us]", "at": "large_string", "paid": "bool", "price": "double"},
        **{"column_6": "large_string", "empty": "null"},
    }
    assert table.num_rows == 31
    assert table["at"][0].as_py() == "10:30:00"
    assert "2 rows before the names of the columns are left out" in said(table)
    assert "column 'when': holds dates, and 1 times a mark that counts as missing (row 31: 'tbd')" in said(table)


def test_one_sheet_of_several_is_read_and_said() -> None:
    book = workbook(hidden=True)
    book.create_sheet("More").append(["a", "b"])
    book["More"].append([1, 2])
    content = saved(book)
    assert "sheet 'Sales' of 3 is read; --sheet names another: Secret, More" in said(told(content, "a.xlsx"))
    assert told(content, "a.xlsx", sheet="More").to_pydict() == {"a": [1], "b": [2]}
    assert told(content, "a.xlsx", sheet="More", header=False).to_pydict() == {
        "column_1": ["a", "1"],
        "column_2": ["b", "2"],
    }
    with pytest.raises(
        RejectedError, match=r"no sheet 'sales'; did you mean Sales\?; its sheets are Secret, Sales, More"
    ):
        told(content, "a.xlsx", sheet="sales")


def test_a_sheet_without_a_header_has_none() -> None:
    book = openpyxl.Workbook()
    sheet: Any = book.active
    for row in ([5.1, 3.5], [4.9, 3.0]):
        sheet.append(row)
    table = told(saved(book), "a.xlsx")
    assert table.to_pydict() == {"column_1": [5.1, 4.9], "column_2": [3.5, 3.0]}
    assert "there is no header" in said(table)
    sheet.insert_rows(1)
    sheet.cell(1, 1, 7)
    assert told(saved(book), "a.xlsx", header=False)["column_1"].to_pylist() == [7, 5.1, 4.9]


@pytest.mark.parametrize(
    ("rows", "says"),
    [([], "no visible sheet with values"), ([["a", "a"], [1, 2]], "'a' comes 2 times"), ([["a"]], "it has no ")],
)
def test_a_sheet_without_a_table_is_refused_in_words(rows: list[list[Any]], says: str) -> None:
    book = openpyxl.Workbook()
    sheet: Any = book.active
    for row in rows:
        sheet.append(row)
    with pytest.raises(RejectedError, match=says):
        told(saved(book), "a.xlsx")


def test_a_workbook_that_is_cut_is_refused_in_words() -> None:
    for cut in (saved(workbook())[:-400], b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + b"x" * 600):
        with pytest.raises(RejectedError, match=r"cannot be (read|unpacked)"):
            told(cut, "a.xlsx")


def test_the_default_target_is_a_column_that_can_be_one() -> None:
    table = told(b"a,b,c\n1,2,3\n4,5,6\n", types={"c": "id"})
    assert last_target(table) == "b"
    assert last_target(table.select(["c"])) == "c"


def test_metadata_that_we_have_not_written_tells_nothing() -> None:
    field = pa.field("x", pa.int64(), metadata={TOLD: b"secret", NOTATION: b"date|%Q"})
    assert (told_of(field), notation_of(field)) == ("", "")
    assert missing_of(pa.table({"x": [1]}).replace_schema_metadata({"tensorfleet.missing": "{"})) == ()
