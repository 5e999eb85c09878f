"""Datasets: where rows come from, and the cache that trainers read them from.

A *source* (built-in, MongoDB, a directory) knows names and revisions; the *cache* keeps what was read as
memory-mapped Arrow files on disk, named by the fingerprint of the content, shared by all trainers.  Only the
parent process talks to a source: a trainer gets the path of a cached file and never sees a credential.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
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
    """One line of `datasets list`: the fields that GET /datasets of the replaced worker had."""

    name: str
    rows: int | None
    columns: int | None
    target: str | None
    classes: Sequence[str] | None
    source: str


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

    def add(self, name: str, table: pa.Table, target_column: str | None) -> None:
        """Store a dataset under the name, replacing what was there in one atomic step."""
        ...
