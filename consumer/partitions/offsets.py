"""Tracks which records of a partition are finished, and computes what to commit for them.

Records finish out of order: a long training holds the committed offset back while hundreds behind it are done. So we
commit the *low-water offset* (the first unfinished record; a committed offset is the next one to read) with metadata
that lists the finished records beyond it: a restart trains none of them again.

The metadata has at most METADATA_LIMIT characters: `1;<tag>;<runs>`, where runs is base64 of varints, alternately the
length of an unfinished and of a finished stretch, starting at the committed offset. Its size grows with the number of
stretches, hardly with their length. The tag names the transaction that wrote it: if the end of a transaction is in
doubt, the tag tells whether it was committed.
"""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

METADATA_LIMIT = 3_500
"""The broker accepts 4,095 characters from Python (measured); the rest is for the tag and for growth."""


@dataclass(frozen=True, slots=True)
class Commit:
    """What is committed for one partition."""

    offset: int
    metadata: str


@dataclass(frozen=True, slots=True)
class CommittedProgress:
    """What was committed before: the low-water offset, and the finished stretches [first, end) beyond it."""

    offset: int
    finished: Sequence[tuple[int, int]]
    tag: str

    def has(self, offset: int) -> bool:
        at = bisect_left(self.finished, (offset + 1,)) - 1
        return at >= 0 and self.finished[at][0] <= offset < self.finished[at][1]


def read_metadata(offset: int, metadata: str | None) -> CommittedProgress:
    """Decode a committed offset and its metadata; metadata that is not ours lists nothing as finished."""
    version, _, rest = (metadata or "").partition(";")
    tag, _, runs = rest.partition(";")
    if version != "1":
        return CommittedProgress(offset, (), "")
    try:
        lengths = list(_read_varints(urlsafe_b64decode(runs + "=" * (-len(runs) % 4))))
    except ValueError:
        return CommittedProgress(offset, (), "")
    finished, at = [], offset
    for unfinished, done in zip(lengths[::2], lengths[1::2], strict=False):
        finished.append((at + unfinished, at + unfinished + done))
        at += unfinished + done
    return CommittedProgress(offset, finished, tag)


def write_metadata(offset: int, finished: Iterable[tuple[int, int]], tag: str) -> str:
    """The inverse of read_metadata; the stretches [first, end) ascend and lie beyond the offset."""
    encoded, at = bytearray(), offset
    for first, end in finished:
        encoded += _varint(first - at) + _varint(end - first)
        at = end
    return f"1;{tag};{urlsafe_b64encode(bytes(encoded)).rstrip(b'=').decode()}"


class OffsetTracker:
    """The records of one partition in one assignment.  Owned by the worker's thread.

    Offsets have gaps (transaction markers, compaction), so this counts delivered records, never ranges of offsets. A
    gap between two finished records counts as finished, since nothing can be delivered there.
    """

    def __init__(self, before: CommittedProgress) -> None:
        self._before = before
        self._delivered: list[int] = []
        self._low = 0
        """Index into _delivered of the first unfinished record."""
        self._run_end: dict[int, int] = {}
        self._run_start: dict[int, int] = {}
        self.unfinished = 0
        """How many records are delivered and unfinished."""

    def deliver(self, offset: int) -> bool:
        """Count a record as delivered; False if it was delivered already, or committed as finished before."""
        if self._delivered and offset <= self._delivered[-1]:
            return False
        self._delivered.append(offset)
        self.unfinished += 1
        if self._before.has(offset):
            self._finish(len(self._delivered) - 1)
            return False
        return True

    def finish(self, offsets: Iterable[int]) -> None:
        """Count these delivered records as finished, once that is committed."""
        for offset in offsets:
            self._finish(self._index(offset))
        self._forget()

    def commit(self, finishing: Iterable[int], position: int, tag: str) -> Commit:
        """What to commit if these records are finished too.

        `position`, the next offset to be delivered, is the low-water offset if nothing is unfinished.
        """
        done = sorted({self._index(offset) for offset in finishing})
        runs = list(_merge([*sorted(self._run_end.items()), *((at, at + 1) for at in done)]))
        low = runs.pop(0)[1] if runs and runs[0][0] == self._low else self._low
        if low == len(self._delivered):
            return Commit(max(position, self.end), write_metadata(position, (), tag))
        offset = self._delivered[low]
        stretches = [(self._delivered[first], self._delivered[end - 1] + 1) for first, end in runs]
        return Commit(offset, write_metadata(offset, stretches, tag))

    @property
    def lowest_unfinished(self) -> int | None:
        return self._delivered[self._low] if self._low < len(self._delivered) else None

    @property
    def finished_ahead(self) -> int:
        """How many finished records lie beyond the first unfinished one."""
        return sum(end - start for start, end in self._run_end.items())

    @property
    def crowded(self) -> bool:
        """Whether the metadata is nearly too long for the broker; read no new records until gaps have closed."""
        return 2 * 2 * len(self._run_end) > METADATA_LIMIT * 3 // 4

    @property
    def end(self) -> int:
        """The offset after the last delivered record."""
        return self._delivered[-1] + 1 if self._delivered else self._before.offset

    def _index(self, offset: int) -> int:
        index = bisect_left(self._delivered, offset, lo=self._low)
        if index == len(self._delivered) or self._delivered[index] != offset:
            raise LookupError(f"offset {offset} was not delivered in this assignment, or is finished already")
        return index

    def _finish(self, index: int) -> None:
        self.unfinished -= 1
        start, end = self._run_start.pop(index, index), self._run_end.pop(index + 1, index + 1)
        self._run_end.pop(start, None)
        self._run_start.pop(end, None)
        if start == self._low:
            self._low = end
        else:
            self._run_end[start], self._run_start[end] = end, start

    def _forget(self) -> None:
        """Drop the offsets below the low-water offset once there are many, to bound memory."""
        if self._low < 4_096 or self._low < len(self._delivered) // 2:
            return
        shift = self._low
        del self._delivered[: shift - 1]
        shift -= 1
        self._low -= shift
        self._run_end = {start - shift: end - shift for start, end in self._run_end.items()}
        self._run_start = {end: start for start, end in self._run_end.items()}


def _merge(runs: list[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Join stretches [start, end) that touch."""
    start = end = -1
    for first, last in sorted(runs):
        if first == end:
            end = last
        else:
            if end >= 0:
                yield start, end
            start, end = first, last
    if end >= 0:
        yield start, end


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def _read_varints(encoded: bytes) -> Iterator[int]:
    value = shift = 0
    for byte in encoded:
        value |= (byte & 0x7F) << shift
        if byte & 0x80:
            shift += 7
        else:
            yield value
            value = shift = 0
