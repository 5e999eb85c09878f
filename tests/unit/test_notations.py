"""Numbers and dates as people write them are read back, and what is none of them stays words."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.reading.dates import ISO, NOTATIONS, AmbiguousDatesError, DateNotation
from pipeline.reading.notations import parsed
from pipeline.reading.numbers import NumberNotation

FIRST, LAST = datetime.fromisoformat("1970-01-01"), datetime.fromisoformat("2068-12-31")


def numbers(*texts: str) -> list[float | None] | None:
    notation = NumberNotation.of(texts)
    if notation is None:
        return None
    array = pa.array(texts, pa.large_string())
    matched: Any = pc.match_substring_regex(array, notation.pattern)
    return [
        notation.plain(array.slice(place, 1)).cast(pa.float64())[0].as_py() if matches.as_py() else None
        for place, matches in enumerate(matched)
    ]


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (["12,75", "9,95", "1000"], [12.75, 9.95, 1000]),
        (["1.234,56", "2,5"], [1234.56, 2.5]),
        (["1,234.56", "2.5"], [1234.56, 2.5]),
        (["1,234,567", "1,000"], [1_234_567, 1000]),
        (["1.234.567", "12"], [1_234_567, 12]),
        (["1 234,5", "7"], [1234.5, 7]),
        (["1\u202f234", "1\u00a0234\u00a0567"], [1234, 1_234_567]),
        (["1'000.50", "2"], [1000.5, 2]),
        (["12,34,567", "1,23,456"], [1_234_567, 123_456]),
        (["$4.99", "$1,200.00", "-$3", "$-4"], [4.99, 1200, -3, -4]),
        (["4.99 EUR", "1 EUR"], [4.99, 1]),
        (["EUR 4,99", "EUR 1"], [4.99, 1]),
        (["12.5%", "3 %"], [12.5, 3]),
        (["(1,234.50)", "2.00"], [-1234.5, 2]),
        (["\u22125", "3"], [-5, 3]),
        (["1e5", "2.5E-3", "+7"], [1e5, 0.0025, 7]),
        ([".5", "1."], [0.5, 1]),
        (["0,5", "1,234"], [0.5, 1.234]),
    ],
)
def test_numbers_are_read_as_they_are_meant(texts: list[str], expected: list[float]) -> None:
    assert numbers(*texts) == expected


@pytest.mark.parametrize(
    "texts",
    [
        ["5 kg", "6 kg"],
        ["3rd", "4th"],
        ["1.2.3", "2.0.1"],
        ["192.168.1.1", "10.0.0.1"],
        ["12:30", "13:45"],
        ["a1", "b2"],
        ["1-2", "3-4"],
        ["", "-"],
        ["1,,2"],
        ["--5"],
    ],
)
def test_what_is_no_number_stays_words(texts: list[str]) -> None:
    assert numbers(*texts) is None


def test_two_currencies_are_no_unit() -> None:
    assert numbers("5 EUR", "6 EUR", "7 USD") == [5, 6, None]


@pytest.mark.parametrize(("decimal", "expected"), [(".", [1234, 2345]), (",", [1.234, 2.345])])
def test_what_could_have_either_decimal_mark_has_the_rest_of_the_files(decimal: str, expected: list[float]) -> None:
    notation = NumberNotation.of(["1,234", "2,345"], decimal)
    assert notation is not None
    assert not notation.is_certain
    assert notation.plain(pa.array(["1,234", "2,345"])).cast(pa.float64()).to_pylist() == expected


@given(
    st.lists(st.decimals(-(10**12), 10**12, allow_nan=False, places=2), min_size=2, max_size=9),
    st.sampled_from([(".", ","), (",", "."), (",", " "), (".", "'"), (".", "")]),
    st.sampled_from(["{}", "{} %", "${}", "{}\u20ac", "CHF {}"]),
)
def test_any_numbers_in_one_notation_are_read_back(values: list[Any], marks: tuple[str, str], unit: str) -> None:
    decimal, thousands = marks
    swapped = str.maketrans({",": thousands, ".": decimal})
    texts = [unit.format(f"{value:,.2f}".translate(swapped)) for value in values]
    assert numbers(*texts) == [float(value) for value in values]


def dates(*texts: str) -> list[str | None] | None:
    notation = DateNotation.of(texts)
    if notation is None:
        return None
    moments = notation.read(pa.array(texts, pa.large_string())).to_pylist()
    return [moment and str(moment).removesuffix(" 00:00:00") for moment in moments]


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (["2012/01/01", "2012/1/31"], ["2012-01-01", "2012-01-31"]),
        (["2012.01.31"], ["2012-01-31"]),
        (["31.12.2020", "1.2.2021"], ["2020-12-31", "2021-02-01"]),
        (["12/31/2020", "1/2/2021"], ["2020-12-31", "2021-01-02"]),
        (["31/12/2020", "1/2/2021"], ["2020-12-31", "2021-02-01"]),
        (["31-12-99", "01-02-05"], ["1999-12-31", "2005-02-01"]),
        (["May 30, 2011", "June 1 2011"], ["2011-05-30", "2011-06-01"]),
        (["30 May 2011", "1st Sept 2011"], ["2011-05-30", "2011-09-01"]),
        (["Mon, 3 Feb 2020"], ["2020-02-03"]),
        (["1977-Jan", "1978-DEC"], ["1977-01-01", "1978-12-01"]),
        (["Jan 2000", "Dec 2001"], ["2000-01-01", "2001-12-01"]),
        (["2011-05", "2011-06"], ["2011-05-01", "2011-06-01"]),
        (["1.2.2021 9:05", "1.2.2021, 24:00"], ["2021-02-01 09:05:00", "2021-02-02"]),
        (["1/13/2021 12:05 AM", "1/13/2021 12:05pm"], ["2021-01-13 00:05:00", "2021-01-13 12:05:00"]),
        (["2021-01-31T10:00:00.5+01:00"], ["2021-01-31 09:00:00.500000"]),
        (["2021-01-31 10:00Z", "2021-01-31 10:00 -0530"], ["2021-01-31 10:00:00", "2021-01-31 15:30:00"]),
        (["9999-12-31", "0001-01-01"], ["9999-12-31", "0001-01-01"]),
    ],
)
def test_dates_are_read_as_they_are_meant(texts: list[str], expected: list[str]) -> None:
    assert dates(*texts) == expected


def test_what_is_no_day_is_missing_among_dates() -> None:
    good, wrong = (
        ["2023-01-31", "2023-02-28", "2024-02-29", "2023-03-01"],
        ["2023-02-29", "2023-13-01", "2023-01-01 25:00"],
    )
    assert dates(*good, *wrong) == [*good, None, None, None]


@pytest.mark.parametrize("texts", [["1/2/2021", "3/4/2021"], ["01-02-2021"], ["1/2/21", "12/11/21"]])
def test_day_and_month_that_no_value_tells_apart_are_not_guessed(texts: list[str]) -> None:
    with pytest.raises(AmbiguousDatesError, match="m"):
        DateNotation.of(texts)


@pytest.mark.parametrize("texts", [["hello", "may"], ["12", "13"], ["1.5"], ["10:30"], ["2021"], ["v2021-01"], [""]])
def test_what_is_no_date_stays_words(texts: list[str]) -> None:
    assert dates(*texts) is None


@pytest.mark.parametrize("name", NOTATIONS)
@given(first=st.datetimes(FIRST, LAST), zone=st.sampled_from(["", "Z", " +0200"]))
def test_any_moment_in_any_notation_is_read_back(name: str, first: datetime, zone: str) -> None:
    first = first.replace(microsecond=0)
    day = first.replace(day=1) if "d" not in name else first
    quarter = (first.month + 2) // 3
    if "Q" in name:
        day = day.replace(month=3 * quarter - 2)
    date = {"y": f"{day:%Y}", "m": f"{day.month}", "d": f"{day.day}", "month": f"{day:%B}", "yy": f"{day:%y}"}
    date |= {"yQq": f"{day:%Y}Q{quarter}", "Qq": f"Q{quarter}"}
    marks = "".join(mark for mark in name if mark in "-/.") or " "
    text = marks[0].join(date[part] for part in name.replace(marks[0], " ").split())
    written = f"{text} {day:%H:%M:%S}{zone}"
    moment = day - timedelta(hours=2 if "+" in zone else 0)
    assert NOTATIONS[name].read(pa.array([written], pa.large_string())).to_pylist() == [moment], written


PLAIN = NumberNotation().key
WRITTEN = [
    *(
        (PLAIN, text)
        for text in ("1e5", "+5", ".5", "5.", "-0", "inf", "1e400", "1e-400", "nan", "nan(1)", "0x10", "1_0", "5f")
    ),
    *(
        (ISO.key, text)
        for text in ("2024-01-02", "2024-01-02T03:04", "2024-01-02 03:04:05.6", "2024-01-02 03", "20240102")
    ),
    *(
        (ISO.key, text)
        for text in ("0000-05-01", "0001-01-01", "9999-12-31 23:59:59.999999", "2024-1-2", "2024-01-02T03Z")
    ),
    *((ISO.key, text) for text in ("2024-01-02T03:04:05+02:00", "2024-02-30", "2024-01-02 24:00:00")),
]


@pytest.mark.parametrize(("key", "text"), WRITTEN)
def test_a_value_to_predict_is_read_the_same_whatever_stands_beside_it(key: str, text: str) -> None:
    """A mark keeps Arrow from casting all values at once."""

    def read(*texts: str) -> str:
        try:
            return str(parsed(pa.array(texts, pa.large_string()), key, range(2))[0].as_py()).replace("nan", "None")
        except ValueError as wrong:
            return str(wrong)

    assert read(text) == read(text, "?")
