"""Datasets on local disk, where all trainers of a machine map them into memory."""

from __future__ import annotations

import errno
import fcntl
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast
from uuid import uuid4
from weakref import WeakValueDictionary

import orjson
import pyarrow as pa

from pipeline.datasets import Dataset, DatasetSource, Loaded, builtin
from pipeline.datasets.names import check_name
from pipeline.datasets.tables import about, canonical, fingerprint
from pipeline.errors import RejectedError, TransientError

SERVICE = "dataset cache"
FULL = (errno.ENOSPC, errno.EDQUOT)


@dataclass(frozen=True, slots=True)
class _Known:
    """What `names/<name>.json` remembers of a dataset: how it was when it was read last."""

    revision: str
    fingerprint: str
    target_column: str | None


@dataclass(slots=True)
class _Hold:
    """An open file with a shared lock, and how many jobs need it."""

    file: BinaryIO
    jobs: int = 0


class DatasetCache:
    """Files `content/<fingerprint>.arrow` of at most `max_bytes` together, shared by the workers of a machine.

    What `ensure` returns stays where it is until `release`: each worker holds a shared lock on the files of its jobs,
    the least recently used of the others make room, and a worker that dies lets go of its locks.  Files appear whole,
    by a link from `incoming/`, where a writer holds an exclusive lock: what has none there was left behind by a dead
    one and is removed.  Revisions must be unique over all sources that share a directory.  Thread-safe.
    """

    def __init__(
        self, directory: Path, max_bytes: int, source: DatasetSource, clock: Callable[[], float] = time.time
    ) -> None:
        self.hits = 0
        self.misses = 0
        self._content, self._names, self._incoming = (
            directory.absolute() / part for part in ("content", "names", "incoming")
        )
        self._max_bytes = max_bytes
        self._source = source
        self._clock = clock
        self._lock = threading.Lock()
        self._holds: dict[str, _Hold] = {}
        self._readers: WeakValueDictionary[str, threading.Lock] = WeakValueDictionary()

    def ensure(self, name: str) -> Dataset:
        """The dataset as it is in its source now, on disk and held until `release`; built-ins need neither.

        Raises RejectedError if it does not exist, cannot be read or is larger than the cache; TransientError if the
        source does not answer, the disk is full, or running trainings hold so much that there is no room at present.
        """
        if name in builtin.BUILTINS:
            return Dataset(name, builtin.fingerprint(name), None, builtin.TARGETS[name])
        check_name(name)
        revision = self._source.revision(name)
        with self._one_reader(name) if revision is not None else nullcontext():
            known = self._held(name, revision)
            if known is None:
                known = self._keep(name, self._source.load(name))
        return Dataset(name, known.fingerprint, self._path(known.fingerprint), known.target_column)

    def release(self, dataset: Dataset) -> None:
        """The job that `ensure` was called for needs the file no more; once for each call of `ensure`."""
        if dataset.path is None:
            return
        with self._lock:
            hold = self._holds[dataset.fingerprint]
            hold.jobs -= 1
            if not hold.jobs:
                self._holds.pop(dataset.fingerprint).file.close()

    def _held(self, name: str, revision: str | None) -> _Known | None:
        with _disk():
            known = self._remembered(name)
            if known is not None and known.revision == revision and self._hold(known.fingerprint):
                self.hits += 1
                return known
        self.misses += 1
        return None

    def _keep(self, name: str, loaded: Loaded) -> _Known:
        with _disk(), about(name):
            table = canonical(loaded.table)
            known = _Known(loaded.revision, fingerprint(table), loaded.target_column)
            if not self._hold(known.fingerprint):
                self._store(table, known.fingerprint)
                if not self._hold(known.fingerprint):
                    raise TransientError(SERVICE, f"dataset {name!r} was removed as soon as it was stored")
            if known != self._remembered(name):
                self._remember(name, known)
        return known

    def _remember(self, name: str, known: _Known) -> None:
        self._names.mkdir(parents=True, exist_ok=True)
        with self._new_file() as (file, path):
            file.write(orjson.dumps(asdict(known)))
            file.flush()
            path.replace(self._names / f"{name}.json")

    def _remembered(self, name: str) -> _Known | None:
        with suppress(FileNotFoundError, orjson.JSONDecodeError, TypeError):
            return _Known(**orjson.loads((self._names / f"{name}.json").read_bytes()))
        return None

    def _hold(self, fingerprint: str) -> bool:
        """Keep the file from being removed for one more job; False if it is not there."""
        path = self._path(fingerprint)
        with self._lock:
            hold = self._holds.get(fingerprint)
            if hold is None or not _is_at(hold.file, path):  # somebody may have emptied the directory by hand
                file = _locked(path, fcntl.LOCK_SH)
                if file is None:
                    return False
                jobs = 0
                if hold is not None:
                    jobs = hold.jobs
                    hold.file.close()
                hold = self._holds[fingerprint] = _Hold(file, jobs)
            hold.jobs += 1
            now = self._clock()
            os.utime(hold.file.fileno(), (now, now))
        return True

    def _store(self, table: pa.Table, fingerprint: str) -> None:
        table = table.combine_chunks()
        counter = pa.MockOutputStream()
        _write(table, counter)
        size = counter.size()
        if size > self._max_bytes:
            raise RejectedError(f"it takes {size:,} bytes, more than the dataset cache of {self._max_bytes:,} bytes")
        self._content.mkdir(parents=True, exist_ok=True)
        with self._new_file() as (file, path):
            try:
                os.posix_fallocate(file.fileno(), 0, size)  # others who make room see it from now on
                self._make_room()
                _write(table, file)
                file.flush()
                os.fsync(file.fileno())
            except OSError as error:
                if error.errno in FULL:
                    self._remove(size)
                raise
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)  # so that others can hold it as soon as it is there
            with suppress(FileExistsError):  # another worker was faster, and has jobs that hold its file
                self._path(fingerprint).hardlink_to(path)

    def _make_room(self) -> None:
        for path in self._incoming.iterdir():
            if (file := _locked(path, fcntl.LOCK_EX)) is not None:
                path.unlink()
                file.close()
        used = sum(size for folder in (self._incoming, self._content) for _, size, _ in _files(folder))
        if self._remove(used - self._max_bytes) < used - self._max_bytes:
            raise TransientError(SERVICE, f"datasets of running trainings fill all of its {self._max_bytes:,} bytes")

    def _remove(self, wanted_bytes: int) -> int:
        """Remove files that nobody holds, the least recently used first, until so much is free; returns how much is."""
        removed = 0
        for _, size, path in sorted(_files(self._content)):
            if removed >= wanted_bytes:
                break
            if (file := _locked(path, fcntl.LOCK_EX)) is not None:
                path.unlink()
                file.close()
                removed += size
        return removed

    @contextmanager
    def _new_file(self) -> Iterator[tuple[BinaryIO, Path]]:
        """A file in `incoming/` that is locked while it is written, and gone after that unless it was moved."""
        self._incoming.mkdir(parents=True, exist_ok=True)
        file = None
        while file is None:  # between creation and lock it looks as if its writer had died
            path = self._incoming / uuid4().hex
            path.touch()
            file = _locked(path, fcntl.LOCK_EX)
        with file:
            try:
                yield file, path
            finally:
                path.unlink(missing_ok=True)

    @contextmanager
    def _one_reader(self, name: str) -> Iterator[None]:
        """Threads that want the same dataset wait for the one that reads it."""
        with self._lock:
            reader = self._readers.setdefault(name, threading.Lock())
        with reader:
            yield

    def _path(self, fingerprint: str) -> Path:
        return self._content / f"{fingerprint}.arrow"


def _write(table: pa.Table, sink: Any) -> None:
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)


def _locked(path: Path, lock: int) -> BinaryIO | None:
    """The file with a lock on it, which ends when it is closed; None if it is gone, or locked by others."""
    try:
        file = cast(BinaryIO, path.open("r+b"))
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(file, lock | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return None
    if _is_at(file, path):
        return file
    file.close()
    return None


def _is_at(file: BinaryIO, path: Path) -> bool:
    with suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    return False


def _files(folder: Path) -> list[tuple[float, int, Path]]:
    """When each was used last, its size, and where it is."""
    found = []
    for path in folder.iterdir():
        with suppress(FileNotFoundError):
            status = path.stat()
            found.append((status.st_mtime, status.st_size, path))
    return found


@contextmanager
def _disk() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise TransientError(SERVICE, error.strerror or type(error).__name__) from error
