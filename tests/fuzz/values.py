"""Values at their worst: text, numbers, and what JSON and BSON can nest."""

from __future__ import annotations

import math
from collections.abc import Callable
from random import Random
from typing import Any

LIMITS = (1, 120, 128, 256, 1_000, 4_000)
"""Lengths at which something of ours ends; each is tried, with one less and one more."""
HUGE = (20_000, 131_072, 200_000)
ODD = (
    *("\0", "\n", "\r\n", "\t", " ", "\x7f", "\x85", "\u2028", "\ufeff", "\u202e", "\u2066a\u2069", "\u200d"),
    *(
        "é",
        "e\u0301",
        "ﷺ",
        "🙂",
        "👨‍👩‍👧",
        "\U0010ffff",
        "\uffff",
        "İ",
        "ß",
        "../",
        "/",
        "\\",
        "'",
        '"',
        "$",
        "{",
        "%s",
    ),
    *("<script>", "NaN", "null", "true", "-0", "1e999", "\x1b[2J", "=1+1", ".", ".."),
)
SURROGATES = ("\ud800", "\udfff", "\udc80")
INTEGERS = (0, 1, -1, 2, 7, 127, 128, 255, 2**15, 2**31 - 1, 2**31, -(2**31), 2**32, 2**53 + 1, 2**63 - 1, -(2**63))
FLOATS = (
    *(0.0, -0.0, 1.0, 0.5, 0.2, -1.0, 10.0, 1e-300, 5e-324, 1e160, 1e300, 1.7976931348623157e308),
    *(math.nan, math.inf, -math.inf, 2.0**31, 2.0**53, 2.0**63),
)


def length(random: Random) -> int:
    """How long a text or list is."""
    roll = random.random()
    if roll < 0.5:
        return random.randint(0, 20)
    if roll < 0.97:
        return max(0, random.choice(LIMITS) + random.choice((-1, 0, 1)))
    return random.choice(HUGE)


def text(random: Random) -> str:
    """Valid Unicode."""
    roll = random.random()
    if roll < 0.15:
        return ""
    if roll < 0.3:
        return random.choice(ODD)
    size = length(random)
    if roll < 0.7:
        return random.choice("aZ0._-") * size
    parts = [random.choice(ODD) for _ in range(min(size, 30))]
    filled = "".join(parts)
    return (filled * (size // max(len(filled), 1) + 1))[:size]


def integer(random: Random, bits: int = 64) -> int:
    value = random.choice(INTEGERS) if random.random() < 0.7 else random.randint(-(2**63), 2**63 - 1)
    bound: int = 2 ** (bits - 1)
    return max(-bound, min(value, bound - 1))


def number(random: Random) -> float:
    return random.choice(FLOATS) if random.random() < 0.7 else random.uniform(-1e6, 1e6)


def scalar(random: Random) -> Any:
    return random.choice(_SCALARS)(random)


def nested(random: Random, depth: int = 3, leaf: Callable[[Random], Any] = scalar) -> Any:
    """Lists and dictionaries of scalars."""
    roll = random.random()
    if depth == 0 or roll < 0.4:
        return leaf(random)
    if roll < 0.7:
        return [nested(random, depth - 1, leaf) for _ in range(random.randint(0, 4))]
    return {text(random)[:200]: nested(random, depth - 1, leaf) for _ in range(random.randint(0, 4))}


def deep(random: Random, leaf: Any = 1) -> Any:
    """So deep that what follows it by calling itself may not come back."""
    value = leaf
    for _ in range(random.choice((10, 100, 200, 500))):
        value = [value] if random.random() < 0.5 else {"a": value}
    return value


_SCALARS: tuple[Callable[[Random], Any], ...] = (
    lambda _: None,
    lambda random: random.random() < 0.5,
    integer,
    number,
    number,
    text,
    lambda _: 10**400,
    lambda random: random.randint(-5, 200),
    lambda random: random.choice(("sqrt", "gini", "auto", "rbf", "l2", "adam", "constant")),
)
