"""A file that a source writes a dataset's bytes to, with a size limit and a check whether it is still needed."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Self

from pipeline.datasets import Abandoned, LoadAbandoned
from pipeline.errors import RejectedError


class Sink:
    """A file that is open during one fetch; it is closed before it is read."""

    def __init__(self, path: Path, max_bytes: int | None, abandoned: Abandoned | None = None) -> None:
        self.path = path
        self.size_bytes = 0
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
        """Discard what was written so far; `size_bytes` is the size of what comes next, if known.

        Raises RejectedError if that is too large.
        """
        self._file.seek(0)
        self._file.truncate()
        self.size_bytes = 0
        if size_bytes is not None:
            self._check(size_bytes, f"its file of {size_bytes:,} bytes is larger than")

    def write(self, part: bytes) -> None:
        """Raises RejectedError if the file gets too large, LoadAbandoned if it is not needed, OSError if the disk is
        full.
        """
        if self._abandoned is not None and self._abandoned.is_set():
            raise LoadAbandoned
        self.size_bytes += len(part)
        self._check(self.size_bytes, "it is larger than")
        self._file.write(part)

    def _check(self, size_bytes: int, says: str) -> None:
        if self._max_bytes is not None and size_bytes > self._max_bytes:
            raise RejectedError(f"{says} the dataset cache of {self._max_bytes:,} bytes")
