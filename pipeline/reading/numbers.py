"""Reads numbers as people write them: decimal comma or point, thousands, one currency, percent."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import pyarrow.compute as pc

SPACES = " \u00a0\u202f"
"""A space, and the two that do not break a line: all three separate thousands."""
BLANK = f"[{SPACES}]?"
GROUPERS = ".,'\u2019" + SPACES
SIGN = "[+\\-\u2212]"
AFFIX = r"(?:[^\s\d.,'+\-\u2212()][^\d.,'+\-\u2212()]{0,7})"
"""What may stand before or after a number: a percent sign, a currency or its code; at most eight characters."""
PARTS = re.compile(
    rf"(?P<minus>\()?(?P<sign>{SIGN})?\s?(?P<before>{AFFIX}?)\s?(?P<inner>{SIGN})?"
    rf"(?P<digits>\d[\d{re.escape(GROUPERS)}]*\d|\d|[.,]\d+)(?P<last>[.,])?(?P<exponent>[eE][+-]?\d+)?"
    rf"\s?(?P<after>{AFFIX}?)(?(minus)\))"
)
UNITS = re.compile(
    "%|\u2030|[$\u20ac\u00a3\u00a5\u20b9\u20bd\u20a9\u20ba\u20bf]|[A-Z]{1,2}[$]|kr|z\u0142|Fr[.]?|K\u010d|"
    "USD|EUR|GBP|JPY|CHF|CNY|INR|AUD|CAD|NZD|SEK|NOK|DKK|PLN|CZK|HUF|RON|TRY|RUB|UAH|ZAR|BRL|MXN|ARS|CLP|COP|KRW|SGD|"
    "HKD|TWD|THB|IDR|MYR|PHP|VND|ILS|AED|SAR|EGP|NGN|KES"
)
"""Affixes that leave a number a number. `5 kg` or `3rd` do not: they stay words."""
INTEGER = r"^[+-]?\d+$"
LEADING_ZERO = r"^[+-]?0\d+$"


@dataclass(frozen=True, slots=True)
class NumberNotation:
    """How all numbers of a column are written.

    Attributes:
        decimal: the decimal mark, a point or a comma.
        thousands: what separates thousands, empty for nothing.  A space stands for all spaces.
        unit: the sign or code that stands beside each number, empty for none.  It is left out: 12.5 % is 12.5.
        is_certain: False if the values would be numbers with the other decimal mark too, as 1,234.
    """

    decimal: str = "."
    thousands: str = ""
    unit: str = ""
    is_certain: bool = True

    @classmethod
    def of(cls, samples: Sequence[str], decimal: str = ".", *, certain: bool = False) -> Self | None:
        """The notation of most samples; None if most are no numbers.

        `decimal` decides where the samples do not; if it is `certain`, they do not decide at all.
        """
        read = [found for text in samples if (found := _Written.of(text)) is not None]
        if 2 * len(read) <= len(samples):
            return None
        unit = Counter(one.unit for one in read).most_common(1)[0][0]
        read = [one for one in read if one.unit == unit]
        decimals = Counter(mark for one in read if (mark := one.decimal))
        thousands = Counter(mark for one in read if (mark := one.thousands))
        open_marks = Counter(one.either for one in read if one.either)
        if certain:
            mark = decimal
        elif decimals:
            mark = decimals.most_common(1)[0][0]
        elif thousands and thousands.most_common(1)[0][0] in ".,":
            mark = "," if thousands.most_common(1)[0][0] == "." else "."
        else:
            mark = decimal if open_marks else "."
        other = "," if mark == "." else "."
        group = thousands.most_common(1)[0][0] if thousands else other if open_marks[other] else ""
        if group == mark:
            group = ""
        return cls(mark, group, unit, is_certain=bool(certain or decimals or thousands) or not open_marks)

    @property
    def key(self) -> str:
        """Names the notation where it is stored; `notations.notation_of` reads it."""
        return f"number|{self.decimal}|{self.thousands}|{self.unit}"

    @property
    def example(self) -> str:
        """A number in this notation."""
        number = f"1{self.thousands}234{self.decimal}5"
        return f"{number} {self.unit}".strip()

    @property
    def is_plain(self) -> bool:
        """Whether Arrow reads such numbers as they are."""
        return self == NumberNotation(is_certain=self.is_certain)

    @property
    def pattern(self) -> str:
        """What a whole value in this notation matches (RE2)."""
        group = self._group
        whole = rf"\d{{1,3}}(?:{group}\d{{2,3}})*{group}\d{{3}}|\d+" if group else r"\d+"
        mark = re.escape(self.decimal)
        number = rf"(?:(?:{whole})(?:{mark}\d*)?|{mark}\d+)(?:[eE][+-]?\d+)?"
        if not self.unit:
            return rf"^(?:{SIGN}?{number}|\({number}\)|{SIGN}?(?i:inf|infinity))$"
        unit = re.escape(self.unit)
        before, behind = f"{unit}{BLANK}{number}", f"{number}{BLANK}{unit}"
        signed = f"{SIGN}?{BLANK}{before}|{unit}{BLANK}{SIGN}{number}|{SIGN}?{behind}"
        return rf"^(?:{signed}|\((?:{before}|{behind})\)|0(?:{mark}0*)?)$"

    def plain(self, texts: Any) -> Any:
        """Texts that match the pattern, as Arrow casts them to numbers."""
        texts = _replace(_replace(texts, r"^\((.*)\)$", r"-\1"), "\u2212", "-")
        if self.unit:
            texts = _replace(texts, f"{BLANK}{re.escape(self.unit)}{BLANK}", "")
            texts = _replace(texts, f"^({SIGN}){BLANK}", r"\1")
        if self.thousands:
            texts = _replace(texts, self._group, "")
        return texts if self.decimal == "." else _replace(texts, self.decimal, ".")

    @property
    def _group(self) -> str:
        """A pattern of the mark between thousands."""
        return {" ": f"[{SPACES}]", "'": "['\u2019]"}.get(self.thousands, re.escape(self.thousands))

    def __str__(self) -> str:
        """In words, as in `decimal comma, thousands '.', EUR`; empty for plain numbers."""
        parts = ["decimal comma"] if self.decimal == "," else []
        parts += [f"thousands {self.thousands!r}"] if self.thousands else []
        return ", ".join([*parts, *([self.unit] if self.unit else [])])


@dataclass(frozen=True, slots=True)
class _Written:
    """What one text tells; empty for what it does not."""

    decimal: str
    thousands: str
    either: str
    unit: str

    @classmethod
    def of(cls, text: str) -> Self | None:
        parts = PARTS.fullmatch(text)
        if parts is None or (parts["before"] and parts["after"]) or (parts["sign"] and parts["inner"]):
            return None
        unit = (parts["before"] or parts["after"]).strip()
        if unit and not UNITS.fullmatch(unit):
            return None
        digits = parts["digits"] + (parts["last"] or "")
        marks = [" " if mark in SPACES else "'" if mark in "'\u2019" else mark for mark in re.findall(r"\D", digits)]
        groups = re.split(r"\D", digits)
        kinds = list(dict.fromkeys(marks))
        if not kinds:
            return cls("", "", "", unit)
        if len(kinds) > 2 or (len(kinds) == 2 and (marks.count(kinds[1]) > 1 or kinds[1] not in ".,")):
            return None
        if len(kinds) == 2:
            return cls(kinds[1], kinds[0], "", unit) if _grouped(groups[:-1]) else None
        (mark,) = kinds
        if mark not in ".,":
            return cls("", mark, "", unit) if _grouped(groups) else None
        if len(marks) > 1:
            return cls("", mark, "", unit) if _grouped(groups) else None
        whole, fraction = groups
        either = len(fraction) == 3 and 1 <= len(whole) <= 3 and not whole.startswith("0") and not parts["exponent"]
        return cls("", "", mark, unit) if either else cls(mark, "", "", unit)


def _grouped(groups: Sequence[str]) -> bool:
    """Whether these are groups of thousands; Indian lakhs have two digits."""
    return 1 <= len(groups[0]) <= 3 and all(len(one) in (2, 3) for one in groups[1:-1]) and len(groups[-1]) == 3


def are_whole(texts: Any) -> bool:
    """Whether all plain numbers are integers."""
    return bool(pc.all(pc.match_substring_regex(texts, INTEGER)).as_py())


def has_leading_zero(texts: Any) -> bool:
    """Whether one is a code such as 007, which is no number."""
    return bool(pc.any(pc.match_substring_regex(texts, LEADING_ZERO)).as_py())


def _replace(texts: Any, pattern: str, by: str) -> Any:
    return pc.replace_substring_regex(texts, pattern, by)
