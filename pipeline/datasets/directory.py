"""Stores datasets as files in a directory, for one machine without servers."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, replace
from itertools import islice
from pathlib import Path
from typing import Any
from uuid import uuid4

import orjson
import pyarrow as pa

from pipeline.datasets import (
    UNKNOWN_ORIGIN,
    Added,
    DatasetSummary,
    DatasetVersion,
    Fetched,
    Loaded,
    Origin,
    Read,
    reading,
)
from pipeline.datasets.names import check_free, check_name, unknown, unknown_version, version_name, version_of
from pipeline.datasets.s3 import Pointer, S3Objects, is_url
from pipeline.datasets.sink import Sink
from pipeline.datasets.versions import described, description, equal, is_description, next_number, now
from pipeline.errors import RejectedError, TransientError
from pipeline.jobs import NAME
from pipeline.reading.options import NOTHING_SAID, ReadOptions
from pipeline.reading.tables import about, canonical, check_target, profile
from pipeline.reading.writers import parquet_of

POINTER = ".pointer"
SUFFIXES = (".parquet", POINTER, ".csv", ".tsv", ".jsonl", ".ndjson")  # the first one that exists is the dataset
SIDECAR = ".json"
METADATA = b"tensorfleet"  # key in the metadata of a Parquet file that add() wrote: version number and description
VERSIONS = "versions"
LOCK = ".lock"
TRIES = 5
"""How often a file that is replaced while it is read is read again."""
PROFILED_BYTES = 16 * 1024 * 1024
PART_BYTES = 1024 * 1024
MOST_DESCRIBED_BYTES = 16 * 1024 * 1024


class DirectorySource:
    """Reads `root/name.csv` (or .parquet, .tsv, .jsonl, .ndjson); `name.json` beside it may hold {"target_column": …}.

    `add` stores a dataset as one Parquet file that also holds its target, so that one rename replaces both; `point`
    stores a pointer as `name.pointer`, in JSON.  Before that they write the replaced version to `root/versions/`, as
    `name.vN.parquet` or `name.vN.pointer`.
    """

    def __init__(
        self,
        root: Path,
        max_bytes: int | None = None,
        read: Read = reading.read,
        objects: S3Objects | None = None,
    ) -> None:
        self._root = root
        self._objects = objects or S3Objects()
        self._max_bytes = max_bytes
        self._read = read

    def revision(self, name: str, *, at_once: bool = False) -> str | None:
        with _disk():
            file = self._file(name)
            if file.suffix != POINTER:
                return _revision(file)
        pointer = _pointer(name, file)
        return None if at_once else self._objects.revision(name, pointer)

    def load(self, name: str) -> Loaded:
        return self._loaded(lambda sink: self.fetch(name, sink))

    def fetch(self, name: str, sink: Sink) -> Fetched:
        for _ in range(TRIES):
            with _disk():
                file = self._file(name)
                revision = _revision(file)
            if file.suffix == POINTER:
                return self._objects.fetch(name, _pointer(name, file), sink)
            with about(name):
                fetched = self._copy(name, file, revision, sink)
            with _disk():
                if _revision(file) == revision:  # else the file was replaced, perhaps by another version, while we read
                    return fetched
        raise RejectedError(f"dataset {name!r}: its file {file.name} is being written; send the request later")

    def list(self) -> Sequence[DatasetSummary]:
        with _disk():
            return [self._summary(name) for name in self._names()]

    def add(
        self,
        name: str,
        table: pa.Table,
        target_column: str | None,
        origin: Origin = UNKNOWN_ORIGIN,
        options: ReadOptions = NOTHING_SAID,
        fingerprint: str | None = None,
    ) -> Added:
        check_free(name)
        with about(name):
            table = canonical(table) if fingerprint is None else table
            check_target(table, target_column)
        new = description(table, fingerprint, target_column, origin, now(), options)
        with _disk(), self._alone():
            there = self._versions(name)
            if one := equal(there, new):
                return Added(self._make_current(name, one), is_new=False)
            number = next_number(name, (one.number for one in there), self._names().__contains__)
            self._keep_current(name, there)
            self._put(name, ".parquet", _with_description(table, {"version": number, **new}))
        return Added(described(number, new, current=True), is_new=True)

    def point(
        self,
        name: str,
        s3_url: str,
        target_column: str | None,
        origin: Origin = UNKNOWN_ORIGIN,
        options: ReadOptions = NOTHING_SAID,
    ) -> tuple[Added, pa.Table]:
        check_free(name)
        pointer = Pointer(s3_url, target_column, options)
        loaded = self._loaded(lambda sink: self._objects.fetch(name, pointer, sink))
        with about(name):
            check_target(loaded.table, target_column)
        new = description(loaded.table, loaded.fingerprint, target_column, origin, now(), options, s3_url)
        with _disk(), self._alone():
            there = self._versions(name)
            before = equal(there, new)
            next_one = next_number(name, (one.number for one in there), self._names().__contains__)
            number = before.number if before else next_one
            self._keep_current(name, [one for one in there if one.number != number])
            self._put(name, POINTER, orjson.dumps({"version": number, **new}))
            self._kept(name, number).unlink(missing_ok=True)  # with the former description
        return Added(described(number, new, current=True), is_new=before is None), loaded.table

    def versions(self, name: str) -> Sequence[DatasetVersion]:
        with _disk():
            file, version = self._file(name), version_of(name)
            if version and file.parent != self._root:  # the name is that of a version
                return [described(version[1], _described(file), current=True)]
            return self._versions(name)

    def restore(self, name: str, number: int) -> DatasetVersion:
        check_free(name)
        with _disk(), self._alone():
            self._file(name)
            there = self._versions(name)
            for one in there:
                if one.number == number:
                    return self._make_current(name, one)
        raise unknown_version(name, number, (one.number for one in there))

    def prune(self, name: str, keep: int) -> Sequence[DatasetVersion]:
        check_free(name)
        with _disk(), self._alone():
            self._file(name)
            there = self._versions(name)
            gone = [one for one in there[: max(0, len(there) - keep)] if not one.current]
            for one in gone:
                self._kept(name, one.number).unlink()
        return gone

    def _loaded(self, fetch: Callable[[Sink], Fetched]) -> Loaded:
        return reading.load(fetch, self._read, self._max_bytes)

    def _load(self, file: Path) -> Loaded:
        return self._loaded(lambda sink: self._copy(file.stem, file, "", sink))

    def _copy(self, name: str, file: Path, revision: str, sink: Sink) -> Fetched:
        with _disk():
            own = _described(file)
            stream = file.open("rb")
        with stream:
            sink.begin(os.fstat(stream.fileno()).st_size)
            while True:
                with _disk():
                    part = stream.read(PART_BYTES)
                if not part:
                    target = own.get("target_column")
                    return Fetched(name, sink.path, file.name, target, revision, is_typed="profile" in own)
                sink.write(part)

    def _kept(self, name: str, number: int) -> Path:
        """The file of a version that is not the current one; it may not exist."""
        file = self._root / VERSIONS / version_name(name, number)
        pointer = file.with_name(f"{file.name}{POINTER}")
        return pointer if pointer.exists() else file.with_name(f"{file.name}.parquet")

    def _versions(self, name: str) -> Sequence[DatasetVersion]:
        """Oldest first; a file that did not come from `add` counts as the next version."""
        kept = {}
        for file in (self._root / VERSIONS).glob("*"):
            base, number = version_of(file.stem) or ("", 0)
            if base == name and file.suffix in (".parquet", POINTER):
                own: Mapping[str, Any] = {}
                with suppress(RejectedError):
                    own = _described(file)
                kept[number] = described(number, own, current=False)
        for there in islice(self._files(name), 1):
            current = self._current(there, kept.values())
            kept[current.number] = current
        return [kept[number] for number in sorted(kept)]

    def _current(self, file: Path, kept: Collection[DatasetVersion]) -> DatasetVersion:
        own: Mapping[str, Any] = {}
        with suppress(RejectedError):
            own = _described(file)
            if "version" in own:
                return described(own["version"], own, current=True)
            read = self._load(file)
            own = description(read.table, read.fingerprint, own.get("target_column"), UNKNOWN_ORIGIN, None)
            if there := equal(kept, own):  # left by an import that was killed before it replaced the current file
                return replace(there, current=True)
        return described(
            next_number(file.stem, (one.number for one in kept), self._names().__contains__), own, current=True
        )

    def _keep_current(self, name: str, there: Sequence[DatasetVersion]) -> None:
        for one in there:
            if not one.current:
                continue
            folder, file = self._root / VERSIONS, self._file(name)
            folder.mkdir(exist_ok=True)
            if one.fingerprint is None:  # keep a file that we cannot read: it belongs to somebody
                _replace(folder / f"{file.name}.unreadable", file.read_bytes())
            elif not self._kept(name, one.number).exists():
                suffix = ".parquet" if one.s3_url is None else POINTER
                _replace(folder / f"{version_name(name, one.number)}{suffix}", self._content(file, one))

    def _content(self, file: Path, version: DatasetVersion) -> bytes:
        """The Parquet file of a version; a file that did not come from `add` is converted."""
        if "version" in _described(file):
            return file.read_bytes()
        read, one = self._load(file), version
        own = description(read.table, read.fingerprint, one.target_column, one.origin, one.imported_at, one.options)
        return _with_description(read.table, {"version": one.number, **own})

    def _make_current(self, name: str, version: DatasetVersion) -> DatasetVersion:
        if not version.current:
            self._keep_current(name, self._versions(name))
            kept = self._kept(name, version.number)
            self._put(name, kept.suffix, kept.read_bytes())
        return replace(version, current=True)

    def _put(self, name: str, suffix: str, content: bytes) -> None:
        _replace(self._root / f"{name}{suffix}", content)
        for other in (*SUFFIXES, SIDECAR):
            if other != suffix:
                (self._root / f"{name}{other}").unlink(missing_ok=True)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Imports by several processes run one after another."""
        self._root.mkdir(parents=True, exist_ok=True)
        with (self._root / LOCK).open("wb") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            for folder in (self._root, self._root / VERSIONS):
                for left in folder.glob(f".{'[0-9a-f]' * 32}"):  # left by an import that was killed
                    left.unlink()
            yield

    def _file(self, name: str) -> Path:
        check_name(name)
        for file in self._files(name):
            return file
        raise unknown(name, self._names())

    def _files(self, name: str) -> Iterator[Path]:
        """The files that a name may mean, the right one first: the file of this name, then a version of another
        dataset.
        """
        for suffix in SUFFIXES:
            if (file := self._root / f"{name}{suffix}").is_file():
                yield file
        if version := version_of(name):
            base, number = version
            if (kept := self._kept(base, number)).is_file():
                yield kept
            for file in self._files(base):
                if _described(file).get("version") == number:
                    yield file

    def _names(self) -> Sequence[str]:
        if not self._root.is_dir():
            return []
        return sorted(
            {
                file.stem
                for file in self._root.iterdir()
                if file.suffix in SUFFIXES and NAME.fullmatch(file.stem) and file.is_file()
            }
        )

    def _summary(self, name: str) -> DatasetSummary:
        """From the description that `add` stored, else by reading the file if it is small."""
        file = self._file(name)
        target = None
        with suppress(RejectedError), _disk():
            own = _described(file)
            if "profile" in own:
                source = "s3" if "s3_url" in own else "directory"
                return DatasetSummary(name, **own["profile"], source=source, version=own["version"])
            target = own.get("target_column")
            if file.stat().st_size <= PROFILED_BYTES:
                loaded = self.load(name)
                return DatasetSummary(name, **asdict(profile(loaded.table, loaded.target_column)), source="directory")
        return DatasetSummary(name, None, None, target, None, "directory")


def _with_description(table: pa.Table, own: Mapping[str, Any]) -> bytes:
    metadata = {**(table.schema.metadata or {}), METADATA: orjson.dumps(own)}
    return parquet_of(table.replace_schema_metadata(metadata))


def _revision(file: Path) -> str:
    found = file.stat()
    revision = f"{file.absolute()} {found.st_ino} {found.st_mtime_ns} {found.st_size}"
    with suppress(FileNotFoundError):
        beside = file.with_suffix(SIDECAR).stat()
        revision += f" {beside.st_ino} {beside.st_mtime_ns} {beside.st_size}"
    return revision


def _described(file: Path) -> Mapping[str, Any]:
    """The description inside the file, if `add` or `point` wrote it, else that in the sidecar."""
    if file.suffix == POINTER:
        return _pointed(file)
    if file.suffix == ".parquet" and (own := _written_by_us(file)) is not None:
        return own
    sidecar = file.with_suffix(SIDECAR)
    if not sidecar.exists():
        return {}
    try:
        described = orjson.loads(sidecar.read_bytes())
    except orjson.JSONDecodeError as error:
        raise RejectedError(f"{sidecar.name} is not valid JSON: {error}") from error
    if not isinstance(described, dict) or not isinstance(described.get("target_column"), str | None):
        raise RejectedError(f'{sidecar.name} is not of the form {{"target_column": "…"}}')
    return {"target_column": described.get("target_column") or None}


def _pointer(name: str, file: Path) -> Pointer:
    with about(name), _disk():
        return Pointer.of(_pointed(file))


def _pointed(file: Path) -> Mapping[str, Any]:
    with suppress(orjson.JSONDecodeError):
        own = orjson.loads(file.read_bytes())
        if is_description(own) and is_url(own.get("s3_url")):
            return {**own, "target_column": own["target_column"] or None}
    raise RejectedError(f"{file.name} is not what `datasets import s3://…` writes; import it again")


def _written_by_us(file: Path) -> Mapping[str, Any] | None:
    """The description that `add` put into the key-value metadata at the end of a Parquet file, or None.

    It is searched for in the bytes, since the worker's own process must not parse a user's Parquet.  In Thrift's
    compact protocol a text is 0x18, its length in groups of seven bits, and its characters.
    """
    with file.open("rb") as stream:
        size = stream.seek(0, os.SEEK_END)
        stream.seek(max(0, size - 8))
        length = int.from_bytes(stream.read(4), "little")
        if stream.read(4) != b"PAR1" or length > min(size - 8, MOST_DESCRIBED_BYTES):
            return None
        stream.seek(size - 8 - length)
        footer = stream.read(length)
    with suppress(orjson.JSONDecodeError):
        own = orjson.loads(_text(footer.rpartition(b"\x18" + bytes([len(METADATA)]) + METADATA + b"\x18")[2]))
        if is_description(own):  # else the metadata is not ours
            return {**own, "target_column": own.get("target_column") or None}
    return None


def _text(encoded: bytes) -> bytes:
    """Decode a length and the text after it; what follows is ignored."""
    characters = 0
    for place, byte in enumerate(encoded[:5]):
        characters |= (byte & 0x7F) << 7 * place
        if byte < 0x80:
            return encoded[place + 1 : place + 1 + characters]
    return b""


def _replace(file: Path, content: bytes) -> None:
    """Replace the file atomically, also if the power fails."""
    incoming = file.with_name(f".{uuid4().hex}")
    try:
        with incoming.open("xb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        incoming.replace(file)
    finally:
        incoming.unlink(missing_ok=True)


@contextmanager
def _disk() -> Iterator[None]:
    try:
        yield
    except (PermissionError, IsADirectoryError) as error:
        raise RejectedError(f"the file {Path(str(error.filename)).name} may not be read by the workers") from error
    except OSError as error:
        raise TransientError("dataset directory", error.strerror or "it gave no reason") from error
