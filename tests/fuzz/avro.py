"""Records of an Avro schema, made and written at once: every branch of every union, every field at its worst.

Written by hand, since a library writes only what is right.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from random import Random
from typing import Any

from tests.fuzz import values
from tests.fuzz.mutation import varint

Plausible = Mapping[str, Callable[[Random], Any]]
BAD_UTF8 = (b"\xff", b"\xed\xa0\x80", b"\xc0\x80", b"a\x80", b"\xf4\x90\x80\x80")
MOST_ITEMS = 4
MOST_BYTES = 2 * 2**20


class Writer:
    """Writes one record.

    Args:
        plausible: by field, a value such as people give; taken unless the field is one of the bad ones.
        worst: the share of fields that are at their worst.
    """

    def __init__(self, random: Random, plausible: Plausible, worst: float) -> None:
        self._random = random
        self._plausible = plausible
        self._worst = worst

    def write(self, schema: Mapping[str, Any]) -> bytes:
        return b"".join(self._field(field) for field in schema["fields"])

    def _field(self, field: Mapping[str, Any]) -> bytes:
        make = self._plausible.get(field["name"])
        if make is not None and self._random.random() >= self._worst:
            return self._given(field["type"], make(self._random))
        if self._random.random() >= self._worst and "default" in field and field["default"] in (None, {}, ""):
            return self._given(field["type"], field["default"])
        return self._any(field["type"])

    def _given(self, kind: Any, value: Any) -> bytes:
        """This value, which fits the type or one branch of it."""
        if isinstance(kind, list):
            place = next(n for n, branch in enumerate(kind) if _fits(branch, value))
            return varint(place) + self._given(kind[place], value)
        if isinstance(kind, Mapping):
            if kind["type"] == "array":
                return _block([self._given(kind["items"], one) for one in value])
            if kind["type"] == "map":
                return _block([_text(name) + self._given(kind["values"], one) for name, one in value.items()])
            if kind["type"] == "record":
                return b"".join(self._given(field["type"], value[field["name"]]) for field in kind["fields"])
            kind = kind["type"]
        return _WRITTEN[kind](value)

    def _any(self, kind: Any) -> bytes:
        random = self._random
        if isinstance(kind, list):
            place = random.randrange(len(kind))
            return varint(place) + self._any(kind[place])
        if isinstance(kind, Mapping):
            if kind["type"] == "array":
                return self._items(lambda: self._any(kind["items"]))
            if kind["type"] == "map":
                return self._items(lambda: _text(values.text(random)[:300]) + self._any(kind["values"]))
            if kind["type"] == "record":
                return b"".join(self._field(field) for field in kind["fields"])
            kind = kind["type"]
        if kind == "string" and random.random() < 0.02:
            return varint(3) + random.choice(BAD_UTF8).ljust(3, b"!")[:3]
        return _WRITTEN[kind](_WORST[kind](random))

    def _items(self, item: Callable[[], bytes]) -> bytes:
        if self._random.random() < 0.02:
            one = item()
            return _block([one] * min(self._random.choice((1_000, 20_000)), MOST_BYTES // max(1, len(one))))
        return _block([item() for _ in range(self._random.randint(0, MOST_ITEMS))])


def _block(items: list[bytes]) -> bytes:
    return (varint(len(items)) if items else b"") + b"".join(items) + b"\0"


def _text(value: str) -> bytes:
    encoded = value.encode("utf-8", "surrogatepass")
    return varint(len(encoded)) + encoded


def _fits(branch: Any, value: Any) -> bool:
    kind = branch["type"] if isinstance(branch, Mapping) else branch
    fitting = _TYPES[kind]
    return isinstance(value, fitting) and (not isinstance(value, bool) or kind == "boolean")


_TYPES: Mapping[str, type | tuple[type, ...]] = {
    "null": type(None), "boolean": bool, "int": int, "long": int, "double": float, "string": str,
    "array": (list, tuple), "map": dict, "record": dict,
}  # fmt: skip
_WRITTEN: Mapping[str, Callable[[Any], bytes]] = {
    "null": lambda _: b"",
    "boolean": lambda value: b"\x01" if value else b"\0",
    "int": varint,
    "long": varint,
    "double": lambda value: struct.pack("<d", value),
    "string": _text,
}
_WORST: Mapping[str, Callable[[Random], Any]] = {
    "null": lambda _: None,
    "boolean": lambda random: random.random() < 0.5,
    "int": lambda random: values.integer(random, 32),
    "long": lambda random: values.integer(random),
    "double": values.number,
    "string": values.text,
}
