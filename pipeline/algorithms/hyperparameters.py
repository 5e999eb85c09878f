"""Defines hyperparameters: the kinds of value that each accepts, and how the value in a request is read.

Unlike scikit-learn, `true` is not an integer, and the double 10.0 is one, as JSON and Avro need.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from pipeline.jobs import HyperparameterValue

LARGEST_INTEGER = 2**31 - 1
"""scikit-learn's compiled parts overflow beyond a C int."""
LARGEST_FLOAT = sys.float_info.max
"""An integer may be larger and then does not fit into a float."""
MOST_BITS = 10_000
"""The largest integer that is printed; Python refuses those of more than 4,300 digits."""


class Kind(Protocol):
    """One kind of value: reads the value in a request, or raises ValueError."""

    def read(self, value: HyperparameterValue) -> HyperparameterValue: ...

    def __str__(self) -> str: ...


@dataclass(frozen=True, slots=True)
class Hyperparameter:
    """A name, its default, and the kinds of value it accepts; the first kind that can read a value is used."""

    name: str
    default: HyperparameterValue
    kinds: Sequence[Kind]

    def read(self, value: HyperparameterValue) -> HyperparameterValue:
        """The value for the estimator.  Raises ValueError that says what would be right."""
        for kind in self.kinds:
            try:
                return kind.read(value)
            except ValueError:
                continue
        raise ValueError(f"takes {self.accepts}, not {shown(value)}")

    @property
    def accepts(self) -> str:
        """The accepted values in words: `an integer from 1 to 10,000, or null`."""
        return ", or ".join(map(str, self.kinds))

    def to_document(self) -> dict[str, Any]:
        return {"default": self.default, "accepts": self.accepts}


@dataclass(frozen=True, slots=True)
class Null:
    def read(self, value: HyperparameterValue) -> None:
        if value is not None:
            raise ValueError

    def __str__(self) -> str:
        return "null"


@dataclass(frozen=True, slots=True)
class Boolean:
    def read(self, value: HyperparameterValue) -> bool:
        if not isinstance(value, bool):
            raise ValueError  # noqa: TRY004 - the value is wrong, whatever its type
        return value

    def __str__(self) -> str:
        return "true or false"


@dataclass(frozen=True, slots=True)
class Choice:
    options: frozenset[str]

    def read(self, value: HyperparameterValue) -> str:
        if not isinstance(value, str) or value not in self.options:
            raise ValueError
        return value

    def __str__(self) -> str:
        return "one of " + ", ".join(sorted(self.options))


@dataclass(frozen=True, slots=True)
class Integer:
    """A whole number between both ends, which are included."""

    low: int
    high: int = LARGEST_INTEGER

    def read(self, value: HyperparameterValue) -> int:
        if isinstance(value, bool) or not isinstance(value, (int, float)) or value not in self:
            raise ValueError
        return int(value)

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high and value == int(value)

    def __str__(self) -> str:
        return f"an integer from {self.low:,}" + ("" if self.high == LARGEST_INTEGER else f" to {self.high:,}")


@dataclass(frozen=True, slots=True)
class Number:
    """A finite real number.  `strict` refuses integers, where `1` row and `1.0` of the rows differ."""

    low: float
    high: float
    low_open: bool = False
    high_open: bool = False
    strict: bool = False

    def read(self, value: HyperparameterValue) -> float:
        wanted = float if self.strict else (int, float)
        if isinstance(value, bool) or not isinstance(value, wanted) or not self._holds(value):
            raise ValueError
        return float(value)

    def _holds(self, value: float) -> bool:
        above = value > self.low if self.low_open else value >= self.low
        below = value < self.high if self.high_open else value <= self.high
        return above and below and -LARGEST_FLOAT <= value <= LARGEST_FLOAT

    def __str__(self) -> str:
        low = None if math.isinf(self.low) else f"{'above' if self.low_open else 'from'} {self.low:g}"
        high = None if math.isinf(self.high) else f"{'below' if self.high_open else 'to'} {self.high:g}"
        return " ".join(part for part in ("a number", low, high) if part)


@dataclass(frozen=True, slots=True)
class Integers:
    """A list of whole numbers, for instance the sizes of hidden layers."""

    item: Integer
    longest: int

    def read(self, value: HyperparameterValue) -> list[int]:
        if isinstance(value, str) or not isinstance(value, Sequence) or not 1 <= len(value) <= self.longest:
            raise ValueError
        return [self.item.read(item) for item in value]

    def __str__(self) -> str:
        return f"a list of 1 to {self.longest} numbers, each {self.item}"


def derive(
    declared: Iterable[Hyperparameter],
    refused: Collection[str],
    overrides: Mapping[str, Sequence[Kind]],
    caps: Mapping[str, int],
) -> dict[str, Hyperparameter]:
    """The hyperparameters that a request may set, by name, of those that an estimator declares.

    `refused` are left out; `overrides` replace the declared kinds; `caps` limit counts from above.  A hyperparameter is
    also left out if no request can express a value for it.
    """
    found = {}
    for one in declared:
        if one.name in refused or one.name == "random_state":
            continue
        kinds = overrides.get(one.name)
        if kinds is None:
            kinds = [_capped(kind, caps.get(one.name, LARGEST_INTEGER)) for kind in one.kinds]
        if kinds:
            default = list(one.default) if isinstance(one.default, tuple) else one.default
            found[one.name] = Hyperparameter(one.name, default, kinds)
    return found


def _capped(kind: Kind, cap: int) -> Kind:
    return replace(kind, high=min(kind.high, cap)) if isinstance(kind, Integer) else kind


def shown(value: object) -> str:
    """A value in a message, as JSON would write it and at most 60 characters long."""
    words = {None: "null", True: "true", False: "false"}
    if isinstance(value, int) and value.bit_length() > MOST_BITS:
        return "an integer of many digits"
    text = words[value] if value is None or isinstance(value, bool) else repr(value)
    return text if len(text) <= 60 else f"{text[:57]}…"
