"""Datasets: where rows come from, and the cache that trainers read them from.

A *source* (built-in, MongoDB, a directory) knows names and revisions; the *cache* keeps what was read as
memory-mapped Arrow files on disk, named by the fingerprint of the content, shared by all trainers.  Only the
parent process talks to a source: a trainer gets the path of a cached file and never sees a credential.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Protocol

import pyarrow as pa


@dataclass(frozen=True, slots=True)
class Dataset:
    """A dataset ready to be read by a trainer.

    Attributes:
        fingerprint: sha256 of the content, hexadecimal; equal content has an equal fingerprint.
        path: of the Arrow IPC file in the cache; None for a built-in, which the trainer loads by itself.
        target_column: the dataset's own target; None means its last column.
    """

    name: str
    fingerprint: str
    path: Path | None
    target_column: str | None


@dataclass(frozen=True, slots=True)
class DatasetSummary:
    """One line of `datasets list`: what GET /datasets of the replaced worker had, and the current version."""

    name: str
    rows: int | None
    columns: int | None
    target: str | None
    classes: Sequence[str] | None
    source: str
    version: int | None = None


@dataclass(frozen=True, slots=True)
class Origin:
    """Who stored a dataset, and from which file; empty where that is not known."""

    user: str = ""
    file: str = ""


UNKNOWN_ORIGIN = Origin()


@dataclass(frozen=True, slots=True)
class DatasetVersion:
    """What was stored under a name at one time; `NAME.vN` is the name that it goes on to have (see `versions`).

    Attributes:
        fingerprint, rows, columns: None where the file cannot be read.
        imported_at: aware, UTC; None where somebody else has put the file there.
        current: whether the bare name means this one.
    """

    number: int
    fingerprint: str | None
    rows: int | None
    columns: int | None
    target_column: str | None
    imported_at: datetime | None
    origin: Origin
    current: bool


@dataclass(frozen=True, slots=True)
class Added:
    """What came of storing a dataset; `is_new` is False where a version with its content and target was there."""

    version: DatasetVersion
    is_new: bool


@dataclass(frozen=True, slots=True)
class Loaded:
    """What a source read: the rows, and the revision under which they were read."""

    table: pa.Table
    target_column: str | None
    revision: str


class DatasetSource(Protocol):
    """Every adapter keeps the same contract (tests/contract/test_datasets.py) and may raise TransientError."""

    def revision(self, name: str) -> str | None:
        """Changes whenever the content may have changed; None where only reading tells.

        Raises RejectedError if there is no such dataset, with the names that are near.
        """
        ...

    def load(self, name: str) -> Loaded:
        """Read all rows.  Raises RejectedError if there is no such dataset or it cannot be read as a table."""
        ...

    def list(self) -> Sequence[DatasetSummary]:
        """By name."""
        ...

    def add(self, name: str, table: pa.Table, target_column: str | None, origin: Origin = UNKNOWN_ORIGIN) -> Added:
        """Store a dataset as the next version of the name, and make it current, in one atomic step.

        A version with this content and target that is there already becomes current again instead.
        """
        ...

    def versions(self, name: str) -> Sequence[DatasetVersion]:
        """Oldest first; none of what is never replaced: built-ins, and collections.

        Raises RejectedError if there is no such dataset.
        """
        ...

    def restore(self, name: str, number: int) -> DatasetVersion:
        """Make a version current again.  Raises RejectedError, with those there are, if there is no such version."""
        ...

    def prune(self, name: str, keep: int) -> Sequence[DatasetVersion]:
        """Remove all but the newest `keep` versions and the current one; returns those that are gone."""
        ...
