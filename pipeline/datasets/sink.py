"""Where a source puts the bytes of a dataset: a file, up to a size, for as long as somebody wants them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

from pipeline.datasets import LoadAbandoned
from pipeline.errors import RejectedError, TransientError


class Room:
    """So many bytes on disk, which all sinks that are written to at a time have together.  Thread-safe."""

    def __init__(self, service: str, max_bytes: int) -> None:
        self._service = service
        self._max_bytes = max_bytes
        self._taken_bytes = 0
        self._lock = threading.Lock()

    @contextmanager
    def share(self) -> Iterator[Callable[[int], None]]:
        """Call what this yields with how many bytes one has in all; it raises TransientError if there are not so many.

        Whoever asks in vain gives back what it had, so that the others come to their end.
        """
        mine = 0

        def take(size_bytes: int) -> None:
            nonlocal mine
            with self._lock:
                others = self._taken_bytes - mine
                if others + size_bytes > self._max_bytes:
                    raise TransientError(
                        self._service, f"datasets that are being read fill all of its {self._max_bytes:,} bytes"
                    )
                self._taken_bytes, mine = others + size_bytes, size_bytes

        try:
            yield take
        finally:
            with self._lock:
                self._taken_bytes -= mine


class Sink:
    """A file that is open for one fetch, and closed before anybody reads it."""

    def __init__(
        self,
        path: Path,
        max_bytes: int | None,
        abandoned: threading.Event | None = None,
        take: Callable[[int], None] = lambda _: None,
    ) -> None:
        """`take` is called with the size before the file has it (see `Room.share`)."""
        self.path = path
        self.size_bytes = 0
        self._take = take
        self._taken_bytes = 0
        self._max_bytes = max_bytes
        self._abandoned = abandoned
        self._file = path.open("wb")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def begin(self, size_bytes: int | None = None) -> None:
        """What was written so far does not count; what comes next has this size, as far as is known.

        Raises RejectedError if it is too large, and what `take` raises.
        """
        self._file.seek(0)
        self._file.truncate()
        self.size_bytes = 0
        if size_bytes is not None:
            self._check(size_bytes, f"its file of {size_bytes:,} bytes is larger than")
        self._taken_bytes = size_bytes or 0
        self._take(self._taken_bytes)

    def write(self, part: bytes) -> None:
        """Raises RejectedError if it is too large, LoadAbandoned, what `take` does, OSError if the disk is full."""
        if self._abandoned is not None and self._abandoned.is_set():
            raise LoadAbandoned
        self.size_bytes += len(part)
        self._check(self.size_bytes, "it is larger than")
        if self.size_bytes > self._taken_bytes:
            self._taken_bytes = self.size_bytes
            self._take(self._taken_bytes)
        self._file.write(part)

    def _check(self, size_bytes: int, says: str) -> None:
        if self._max_bytes is not None and size_bytes > self._max_bytes:
            raise RejectedError(f"{says} the dataset cache of {self._max_bytes:,} bytes")
