"""Datasets: where rows come from, and the cache that trainers read them from.

A *source* (built-in, MongoDB, a directory) knows names and revisions, and fetches the bytes of a dataset to a file
without looking into them.  What *reads* that file (`reading`) makes an Arrow file of it; since it may crash or take all
memory, workers and commands have it done in another process (`consumer.loaders`).  The *cache* keeps the Arrow files on
disk, named by the fingerprint of their content, mapped into memory by all trainers.  Only the parent process talks to
a source: loaders and trainers get paths and never see a credential.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import pyarrow as pa

if TYPE_CHECKING:
    from pipeline.datasets.sink import Sink


@dataclass(frozen=True, slots=True)
class Dataset:
    """A dataset ready to be read by a trainer.

    Attributes:
        fingerprint: sha256 of the content, hexadecimal; equal content has an equal fingerprint.
        path: of the Arrow IPC file in the cache; None for a built-in, which the trainer loads by itself.
        target_column: what is learned unless a request names another.
    """

    name: str
    fingerprint: str
    path: Path | None
    target_column: str


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
    """What a source read: the rows, what is learned of them unless a request names another, and their revision."""

    table: pa.Table
    target_column: str
    revision: str


@dataclass(frozen=True, slots=True)
class Fetched:
    """The bytes of a dataset in a file of this machine, as somebody has stored them: nobody has looked into them yet.

    Attributes:
        file_name: what the file is called where it comes from; None for BSON documents, one after another.
        revision: of these bytes and the target.
    """

    name: str
    path: Path
    file_name: str | None
    target_column: str | None
    revision: str


@dataclass(frozen=True, slots=True)
class Content:
    """What came of reading: an Arrow file of so many bytes.

    Attributes:
        last_target: what is learned where nobody names a column (see `tables.last_target`).
    """

    fingerprint: str
    size_bytes: int
    rows: int
    columns: int
    last_target: str


class LoadAbandoned(Exception):  # noqa: N818 - an order, not a malfunction
    """Nobody waits for this dataset any more: the caller's event was set, or what reads datasets was stopped."""


class Abandoned(Protocol):
    """Asked again and again while a dataset is fetched and read; a `threading.Event` will do."""

    def is_set(self) -> bool:
        """Whether nobody waits for it any more."""
        ...


class Read(Protocol):
    """Reads datasets: in this process (`reading.read`), or in one of its own (`consumer.loaders`)."""

    def __call__(
        self, fetched: Fetched, into: Path, max_bytes: int | None, abandoned: Abandoned | None = None
    ) -> Content:
        """Write the rows of fetched bytes to the file `into` as Arrow IPC, in canonical form.

        Raises RejectedError if they are no table, or one of more than max_bytes; OSError if the disk is full;
        LoadAbandoned once `abandoned` is set, where that can be noticed.
        """
        ...


class DatasetSource(Protocol):
    """Every adapter keeps the same contract (tests/contract/test_datasets.py) and may raise TransientError."""

    def revision(self, name: str) -> str | None:
        """Changes whenever the content may have changed; None where only reading tells.

        Raises RejectedError if there is no such dataset, with the names that are near.
        """
        ...

    def load(self, name: str) -> Loaded:
        """All rows, in canonical form.  Raises RejectedError if there is no such dataset or it is no table."""
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


class DatasetStore(DatasetSource, Protocol):
    """A source whose datasets are other people's bytes."""

    def fetch(self, name: str, sink: Sink) -> Fetched:
        """Put the bytes of a dataset into the sink, all of one revision, without looking into them.

        Raises RejectedError if there is no such dataset, and what the sink raises.
        """
        ...
