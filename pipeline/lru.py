"""What was used or put last, within a bound of bytes or of values."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


def put_newest(kept: dict[Key, Value], key: Key, value: Value, most: int) -> None:
    """Keep a value, and of more than `most` not the oldest; one that is put again is the newest."""
    kept.pop(key, None)
    kept[key] = value
    if len(kept) > most:
        del kept[next(iter(kept))]


class Recent(Generic[Value]):
    """Values by key, the least recently used given up first.  Owned by one thread; what it gives out is shared.

    `size_of` gives a value's bytes; one beyond the limit is not kept at all.
    """

    def __init__(self, limit_bytes: int, size_of: Callable[[Value], int]) -> None:
        self._limit_bytes = limit_bytes
        self._size_of = size_of
        self._kept: OrderedDict[Hashable, tuple[Value, int]] = OrderedDict()
        self._bytes = 0

    def get(self, key: Hashable, make: Callable[[], Value]) -> Value:
        """The value kept under the key, or made now; what `make` raises is passed on and not kept."""
        if key in self._kept:
            self._kept.move_to_end(key)
            return self._kept[key][0]
        value = make()
        size = self._size_of(value)
        if size <= self._limit_bytes:
            self._kept[key] = (value, size)
            self._bytes += size
        while self._bytes > self._limit_bytes:
            self._bytes -= self._kept.popitem(last=False)[1][1]
        return value
