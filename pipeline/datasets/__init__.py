"""Datasets: the sources of rows, and the cache that trainers read them from.

A *source* (built-in, MongoDB, a directory) knows names and revisions.  It fetches the bytes of a dataset to a file
without parsing them.  A *pointer* is a version whose bytes stay in S3: the source keeps their url, and fetches them as
they are now (`s3`).  `reading` turns that file into an Arrow file.  Since this may crash or take all memory, workers
and commands do it in another process (`consumer.loaders`).  The *cache* keeps the Arrow files on disk, named by the
fingerprint of their content; all trainers map them into memory.  Only the parent process talks to a source: loaders and
trainers get paths and never see credentials.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from pipeline.reading.options import NOTHING_SAID, ReadOptions

if TYPE_CHECKING:
    import pyarrow as pa

    from pipeline.datasets.sink import Sink


@dataclass(frozen=True, slots=True)
class Dataset:
    """A dataset that a trainer can read.

    Attributes:
        fingerprint: hexadecimal sha256 of the content; equal content has an equal fingerprint.
        path: the Arrow IPC file in the cache; None for a built-in, which the trainer loads itself.
        target_column: the target unless a request names another.
    """

    name: str
    fingerprint: str
    path: Path | None
    target_column: str


@dataclass(frozen=True, slots=True)
class DatasetSummary:
    """One line of `datasets list`: the fields of the replaced worker's GET /datasets, and the current version."""

    name: str
    rows: int | None
    columns: int | None
    target: str | None
    classes: Sequence[str] | None
    source: str
    version: int | None = None


@dataclass(frozen=True, slots=True)
class Origin:
    """Who stored a dataset, and from which file; empty where unknown."""

    user: str = ""
    file: str = ""


UNKNOWN_ORIGIN = Origin()


@dataclass(frozen=True, slots=True)
class DatasetVersion:
    """One version of a dataset, which requests can name as `NAME.vN` (see `versions`).

    Attributes:
        fingerprint, rows, columns: None if the file cannot be read.
        imported_at: aware, UTC; None if the file was put there by other means than `add`.
        current: whether the bare name means this version.
        options: what the import was told about its file.
        s3_url: where the bytes are, if it is a pointer; the other attributes are those of its last import then.
        notes: what reading has decided; only an import knows it.
    """

    number: int
    fingerprint: str | None
    rows: int | None
    columns: int | None
    target_column: str | None
    imported_at: datetime | None
    origin: Origin
    current: bool
    options: ReadOptions = NOTHING_SAID
    s3_url: str | None = None
    notes: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Added:
    """The version that an `add` or `point` made current; `is_new` is False if an equal one existed already."""

    version: DatasetVersion
    is_new: bool


@dataclass(frozen=True, slots=True)
class Loaded:
    """The rows that were read, in canonical form.

    Attributes:
        target_column: the dataset's own target, if it has one.
        revision: of the bytes that were read, as their source tells it.
        fingerprint: as `Dataset.fingerprint`.
    """

    table: pa.Table
    target_column: str | None
    revision: str
    fingerprint: str


@dataclass(frozen=True, slots=True)
class Fetched:
    """The bytes of a dataset in a local file, as they were stored; they are not parsed yet.

    Attributes:
        file_name: the file's name in its source; None for a collection, whose BSON documents are concatenated.
        revision: of the bytes and the target.
        options: what the reader is told about the file.
        is_typed: whether `add` wrote the file; its types are then final, whatever reading would find today.
        is_archive: whether the file is a tar archive of Parquet files, which are the parts of one table.
    """

    name: str
    path: Path
    file_name: str | None
    target_column: str | None
    revision: str
    is_typed: bool = False
    is_archive: bool = False
    options: ReadOptions = NOTHING_SAID


@dataclass(frozen=True, slots=True)
class Content:
    """Describes the Arrow file that reading has written.

    Attributes:
        size_bytes: of the Arrow file.
        last_target: the target if nobody names a column (see `tables.last_target`).
        key: names the file in the cache: equal rows that were read with other notes have another file.
    """

    fingerprint: str
    size_bytes: int
    rows: int
    columns: int
    last_target: str
    key: str


class LoadAbandoned(Exception):  # noqa: N818 - an order, not a malfunction
    """The dataset is no longer needed: the caller's event is set, or the loader was stopped."""


class Abandoned(Protocol):
    """Polled while a dataset is fetched and read; a `threading.Event` has this interface."""

    def is_set(self) -> bool:
        """Whether the dataset is no longer needed."""
        ...


class Read(Protocol):
    """Reads datasets, in this process (`reading.read`) or in another (`consumer.loaders`)."""

    def __call__(
        self, fetched: Fetched, into: Path, max_bytes: int | None, abandoned: Abandoned | None = None
    ) -> Content:
        """Write the rows of fetched bytes to the file `into` as Arrow IPC, in canonical form.

        Raises RejectedError if they are not a table, or one larger than max_bytes; OSError if the disk is full;
        LoadAbandoned once `abandoned` is set, if this implementation looks at it.
        """
        ...


class DatasetSource(Protocol):
    """A source of datasets.  All adapters pass tests/contract/test_datasets.py and may raise TransientError."""

    def revision(self, name: str, *, at_once: bool = False) -> str | None:
        """A string that changes whenever the content may have changed; None if only reading can tell.

        `at_once`: None for a pointer too, since S3 may be slow or away.
        Raises RejectedError, with similar names, if there is no such dataset.
        """
        ...

    def load(self, name: str) -> Loaded:
        """All rows, in canonical form.  Raises RejectedError if there is no such dataset or it is not a table."""
        ...

    def list(self) -> Sequence[DatasetSummary]:
        """All datasets, sorted by name."""
        ...

    def add(
        self,
        name: str,
        table: pa.Table,
        target_column: str | None,
        origin: Origin = UNKNOWN_ORIGIN,
        options: ReadOptions = NOTHING_SAID,
        fingerprint: str | None = None,
    ) -> Added:
        """Store a dataset as the next version of the name and make it current, in one atomic step.

        `options` are those that the table was read with; they are kept for the next import.  `fingerprint` is that of
        `Loaded`, if the table was loaded.  If a version with this content, target and options exists, it becomes
        current instead.
        """
        ...

    def versions(self, name: str) -> Sequence[DatasetVersion]:
        """The versions, oldest first; empty for built-ins and collections, which have none.

        Raises RejectedError if there is no such dataset.
        """
        ...

    def restore(self, name: str, number: int) -> DatasetVersion:
        """Make a version current again.  Raises RejectedError, listing the versions, if there is no such version."""
        ...

    def prune(self, name: str, keep: int) -> Sequence[DatasetVersion]:
        """Remove all but the newest `keep` versions and the current one; return the removed ones."""
        ...


class DatasetStore(DatasetSource, Protocol):
    """A source whose datasets users have stored; their bytes are not trusted."""

    def fetch(self, name: str, sink: Sink) -> Fetched:
        """Write the bytes of one revision of a dataset to the sink, without parsing them.

        Raises RejectedError if there is no such dataset, and what the sink raises.
        """
        ...

    def point(
        self,
        name: str,
        s3_url: str,
        target_column: str | None,
        origin: Origin = UNKNOWN_ORIGIN,
        options: ReadOptions = NOTHING_SAID,
    ) -> tuple[Added, pa.Table]:
        """Store a pointer to the Parquet at this url as the next version of the name, and make it current; also return
        its rows, which are read to check and describe them.

        If a pointer with this url, target and `options` exists, it is described anew and becomes current instead.
        Raises RejectedError if the url names nothing that is a table.
        """
        ...
