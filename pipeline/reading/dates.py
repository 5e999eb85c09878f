"""Reads dates as people write them: one order of year, month and day a column, with times and zones."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.reading.moments import FIRST_US, LAST_US, MOMENT

MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
MONTH = (
    r"(?P<month>jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|may|june?|july?|aug(?:ust)?|sept?(?:ember)?|"
    r"oct(?:ober)?|nov(?:ember)?|dec(?:ember)?)\.?"
)
WEEKDAY = r"(?:(?:mon|tue|wed|thu|fri|sat|sun)[a-z]{0,6}\.?,? )?"
TIME = (
    r"(?:(?:t|,? )\s?(?P<hour>\d{1,2})(?::(?P<minute>\d{2})(?::(?P<second>\d{2})(?:[.,](?P<fraction>\d{1,9}))?)?)?"
    r"(?: ?(?P<half>[ap])\.?m\.?)?(?: ?(?P<zone>z|utc|gmt|[+-]\d{2}(?::?\d{2})?))?)?"
)
OFFSET = r"(?i):\d{2}(?:[.,]\d+)?(?: ?[ap]\.?m\.?)? ?[+-](?:0[1-9]|1\d)(?::?\d{2})?$"
"""How a time ends that has a zone other than UTC."""
IN_UTC = "has zones, and is read in UTC, hours and weekdays too; times without a zone are taken for UTC"
UTC_NAMES = ("UTC", "Etc/UTC", "GMT", "Z", "+00:00")
YEAR, SHORT_YEAR, DAY, NUMBER = (
    r"(?P<year>\d{4})",
    r"(?P<year>\d{2})",
    r"(?P<day>\d{1,2})(?:st|nd|rd|th)?",
    r"(?P<month>\d{1,2})",
)
FEW = 20
"""Samples that show which notations are worth a try."""
QUARTER = r"q(?P<quarter>[1-4])"
PIVOT = 69
"""As POSIX reads years of two digits: 69 to 99 are 1969 to 1999, the rest 2000 to 2068."""
LAST_YEAR = 9999
FURTHEST_ZONE_H = 14
HOUR_US, MINUTE_US, SECOND_US = 3_600_000_000, 60_000_000, 1_000_000


@dataclass(frozen=True, slots=True)
class DateNotation:
    """How all dates of a column are written; the time of a day and a zone may stand behind each.

    Attributes:
        name: as shown, for instance `d.m.y`, or the format in the words of strptime, such as `%Y%m%d`.
        date: what a date matches, with the groups year, month and day (RE2; case does not count).
        twin: the notation with day and month exchanged; only values above 12 tell which one it is.
    """

    name: str
    date: str
    twin: str = ""

    @property
    def example(self) -> str:
        """The second of July 2023 in this notation."""
        if "%" in self.name:
            return datetime(2023, 7, 2, 15, 30, tzinfo=UTC).strftime(self.name)
        parts = {"y": "2023", "yy": "23", "m": "07", "d": "02", "month": "July", "q": "3"}
        return re.sub("[a-z]+", lambda part: parts[part[0]], self.name)

    @property
    def key(self) -> str:
        """Names the notation where it is stored; `notations.notation_of` reads it."""
        return f"date|{self.name}"

    @property
    def pattern(self) -> str:
        return rf"(?i)^{WEEKDAY}{self.date}{'' if '(?P<hour>' in self.date else TIME}$"

    @property
    def is_plain(self) -> bool:
        """Whether dates are written so where nothing is told."""
        return self.name == ISO.name

    def read(self, texts: Any) -> Any:
        """An array of texts as MOMENT in UTC; missing where a text is no date in this notation."""
        parts = pc.extract_regex(texts, self.pattern)
        found = np.asarray(parts.is_valid())
        year, has_day = _numbers(parts, "year"), "(?P<day>" in self.date
        if SHORT_YEAR in self.date:
            year = np.where(year < PIVOT, year + 2000, year + 1900)
        month = _months(parts) if MONTH in self.date else _numbers(parts, "month")
        if QUARTER in self.date:
            month = 3 * _numbers(parts, "quarter") - 2
        day = _numbers(parts, "day") if has_day else np.ones(len(texts), np.int64)
        found &= (year >= 1) & (year <= LAST_YEAR) & (month >= 1) & (month <= len(MONTHS))
        first = np.where(found, (year - 1970) * 12 + month - 1, 0).astype("datetime64[M]")
        days = first.astype("datetime64[D]") + np.where(found, day - 1, 0)
        found &= (day >= 1) & (days.astype("datetime64[M]") == first)
        time_us, is_time = _time_us(parts)
        found &= is_time
        values = np.where(found, days.astype("datetime64[us]").astype(np.int64) + time_us, 0)
        found &= (values >= FIRST_US) & (values <= LAST_US)
        return pa.array(values, pa.int64(), mask=~found).cast(MOMENT)

    @staticmethod
    def of(samples: Sequence[str]) -> DateNotation | None:
        """The notation that reads most samples; None if none reads more than half of them.

        Raises AmbiguousDatesError if day and month cannot be told apart.
        """
        few = samples[:: max(1, len(samples) // FEW)]
        fitting = [name for name, pattern in PATTERNS.items() if any(map(pattern.match, few))]  # for most words none
        texts = pa.array(samples, pa.large_string())
        read = {name: len(texts) - NOTATIONS[name].read(texts).null_count for name in fitting}
        if not read:
            return None
        best = max(read, key=lambda name: read[name])
        notation = NOTATIONS[best]
        if 2 * read[best] <= len(samples):
            return None
        for twin in (notation.twin, SHORT_YEAR_FIRST.get(best, "")):
            if read.get(twin) == read[best]:
                raise AmbiguousDatesError(best, twin)
        return notation


class AmbiguousDatesError(ValueError):
    """No value says which of two numbers is the day; its arguments are the names of the two notations."""


def _notations() -> dict[str, DateNotation]:
    found = {}

    def add(name: str, date: str, twin: str = "") -> None:
        found[name] = DateNotation(name, date, twin)

    for mark in ("-", "/", "."):
        sep = rf"\{mark}"
        add(f"y{mark}m{mark}d", f"{YEAR}{sep}{NUMBER}{sep}{DAY}")
    add("d.m.y", rf"{DAY}\.{NUMBER}\.{YEAR}")
    add("d.m.yy", rf"{DAY}\.{NUMBER}\.{SHORT_YEAR}")
    for mark in ("/", "-"):
        for year, shown in ((YEAR, "y"), (SHORT_YEAR, "yy")):
            first, second = f"d{mark}m{mark}{shown}", f"m{mark}d{mark}{shown}"
            add(first, f"{DAY}{mark}{NUMBER}{mark}{year}", second)
            add(second, f"{NUMBER}{mark}{DAY}{mark}{year}", first)
    add("yy-m-d", rf"{SHORT_YEAR}-{NUMBER}-{DAY}")
    add("d month y", rf"{DAY}[ \-]{MONTH},?[ \-]{YEAR}")
    add("d month yy", rf"{DAY}[ \-]{MONTH},?[ \-]{SHORT_YEAR}")
    add("month d y", rf"{MONTH}[ \-]{DAY},?[ \-]{YEAR}")
    add("y month d", rf"{YEAR}[ \-]{MONTH}[ \-]{DAY}")
    add("month y", rf"{MONTH},?[ \-]{YEAR}")
    add("month-yy", rf"{MONTH}-{SHORT_YEAR}")
    add("y month", rf"{YEAR}[ \-]{MONTH}")
    add("yQq", rf"{YEAR}[ \-]?{QUARTER}")
    add("Qq y", rf"{QUARTER}[ \-/]{YEAR}")
    add("y-m", rf"{YEAR}-{NUMBER}")
    add("y/m", rf"{YEAR}/{NUMBER}")
    return found


NOTATIONS = _notations()
"""By name; the first of those that read equally many samples is taken."""


SHORT_YEAR_FIRST = {"d-m-yy": "yy-m-d", "m-d-yy": "yy-m-d"}
"""Also with hyphens the year may come first, as in 23-01-05."""
PATTERNS = {name: re.compile(notation.pattern) for name, notation in NOTATIONS.items()}
ISO = NOTATIONS["y-m-d"]


DIRECTIVES = {
    **{"Y": YEAR, "y": SHORT_YEAR, "m": NUMBER, "d": r"(?P<day>\d{1,2})", "b": MONTH, "B": MONTH},
    **{"H": r"(?P<hour>\d{1,2})", "I": r"(?P<hour>\d{1,2})", "M": r"(?P<minute>\d{1,2})"},
    **{"S": r"(?P<second>\d{1,2})", "f": r"(?P<fraction>\d{1,9})", "p": r"(?P<half>[ap])\.?m\.?"},
    **{"z": r"(?P<zone>z|utc|gmt|[+-]\d{2}(?::?\d{2})?)", "a": r"[a-z]{2,9}\.?", "A": r"[a-z]{2,9}\.?", "%": "%"},
}
"""What strptime's letters match."""


@cache
def date_notation(name: str) -> DateNotation:
    """One of NOTATIONS, or that of a format such as `%d.%m.%Y %H:%M`.  Raises ValueError, with what is possible."""
    if name in NOTATIONS:
        return NOTATIONS[name]
    letters = re.findall("%(.)", name)
    unknown = [letter for letter in letters if letter not in DIRECTIVES]
    if not letters or unknown:
        wrong = f"the format {name!r} has %{unknown[0]}" if unknown else f"{name!r} is no format of dates"
        raise ValueError(f"{wrong}; take one of {', '.join(NOTATIONS)}, or strptime's letters %{' %'.join(DIRECTIVES)}")
    parts = [
        re.escape(part) if not part.startswith("%") else _of_directive(part[1], beside=len(one) > 2)
        for one in re.findall("(?:%.)+|[^%]+", name)
        for part in (re.findall("%.", one) or [one])
    ]
    pattern = "".join(parts)
    for group in ("year", "month"):
        if pattern.count(f"(?P<{group}>") != 1:
            raise ValueError(f"the format {name!r} must have one {group} (%Y or %y, and %m, %b or %B)")
    if any(letters.count(letter) > 1 for letter in letters) or pattern.count("(?P<hour>") > 1:
        raise ValueError(f"the format {name!r} has one part twice")
    return DateNotation(name, pattern)


def _of_directive(letter: str, *, beside: bool) -> str:
    """What a letter matches; two digits where it stands beside another, as in %Y%m%d."""
    return DIRECTIVES[letter].replace(r"\d{1,2}", r"\d{2}") if beside else DIRECTIVES[letter]


def _part(parts: Any, name: str) -> Any | None:
    return parts.field(name) if parts.type.get_field_index(name) >= 0 else None


def _text(parts: Any, name: str) -> Any:
    """A group as texts, empty where there is none."""
    found = _part(parts, name)
    return pa.array([""] * len(parts), pa.large_string()) if found is None else pc.fill_null(found, "")


def _numbers(parts: Any, name: str) -> np.ndarray[Any, np.dtype[np.int64]]:
    """A group of digits as integers; 0 where it is empty."""
    texts = _part(parts, name)
    if texts is None:
        return np.zeros(len(parts), np.int64)
    filled: Any = pc.fill_null(texts, "")
    filled = pc.replace_substring_regex(filled, "^$", "0")
    return np.asarray(filled.cast(pa.int64()))


def _months(parts: Any) -> np.ndarray[Any, np.dtype[np.int64]]:
    names = pc.utf8_slice_codeunits(pc.ascii_lower(pc.fill_null(parts.field("month"), "")), 0, 3)
    places = pc.index_in(names, pa.array(MONTHS, names.type))
    return np.asarray(pc.fill_null(places, -1)).astype(np.int64) + 1


def _time_us(parts: Any) -> tuple[np.ndarray[Any, np.dtype[np.int64]], np.ndarray[Any, np.dtype[np.bool_]]]:
    """The microseconds since midnight, less the zone's; and whether there is such a time."""
    hour, minute, second = (_numbers(parts, name) for name in ("hour", "minute", "second"))
    half: Any = pc.ascii_lower(_text(parts, "half"))
    of_twelve, after_noon = (
        np.asarray(pc.is_in(half, pa.array(["a", "p"], half.type))),
        np.asarray(pc.is_in(half, pa.array(["p"], half.type))),
    )
    right = (hour <= 24) & (minute < 60) & (second < 60) & ((hour < 24) | ((minute == 0) & (second == 0)))
    right &= ~of_twelve | ((hour >= 1) & (hour <= 12))
    hour = np.where(of_twelve, hour % 12 + 12 * after_noon, hour)
    digits = pc.utf8_slice_codeunits(pc.utf8_rpad(_text(parts, "fraction"), 6, "0"), 0, 6)
    fraction = np.asarray(digits.cast(pa.int64()))
    zone = pc.replace_substring(_text(parts, "zone"), ":", "")
    offset = pc.if_else(pc.match_substring_regex(zone, "^[+-]"), zone, "+0")
    signed = np.asarray(pc.utf8_slice_codeunits(pc.utf8_rpad(offset, 5, "0"), 1, 5).cast(pa.int64()))
    right &= (signed // 100 <= FURTHEST_ZONE_H) & (signed % 100 < 60)
    minutes = (signed // 100 * 60 + signed % 100) * np.where(np.asarray(pc.starts_with(offset, "-")), -1, 1)
    return (hour * HOUR_US + (minute - minutes) * MINUTE_US + second * SECOND_US + fraction), right
