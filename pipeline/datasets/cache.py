"""Keeps datasets on local disk as Arrow files that all trainers of a machine map into memory."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO, cast
from uuid import uuid4
from weakref import WeakValueDictionary

import orjson
from cachetools import FIFOCache

from pipeline.datasets import Abandoned, Dataset, DatasetStore, Fetched, LoadAbandoned, Read, builtin, reading
from pipeline.datasets.names import check_name
from pipeline.datasets.sink import Sink
from pipeline.errors import RejectedError, TransientError

log = logging.getLogger(__name__)

SERVICE = "dataset cache"
FULL = (errno.ENOSPC, errno.EDQUOT)
FETCHED = ".fetched"
LOOK_S = 0.1
"""How often a thread that waits for another thread's reading checks whether its dataset is still needed."""
REFUSED_S = 300.0
"""How long a dataset that could not be read is not tried again unless it changed: a try may take its whole time limit.
"""
MOST_REMEMBERED = 1_000


@dataclass(frozen=True, slots=True)
class _Known:
    """The content of `names/<name>.json`: a dataset when it was last read, and the `reading.VERSION` that read it."""

    revision: str
    fingerprint: str
    target_column: str
    key: str = ""
    reading: int = 1


@dataclass(slots=True)
class _Hold:
    """An open file with a shared lock, and the number of jobs that need it."""

    file: BinaryIO
    jobs: int = 0


@dataclass(frozen=True, slots=True)
class _Fetch:
    """The result of a dataset's last fetch; `number` counts the fetches of all datasets."""

    number: int
    revision: str = ""
    rejection: str = ""


class DatasetCache:
    """Files `content/<key>.arrow` of at most `max_bytes` together, shared by the workers of a machine.
    Thread-safe.

    A file that `ensure` returned stays until `release`: each worker holds a shared lock on the files of its jobs.  The
    least recently used of the other files are removed to make room.  The locks of a dead worker end with it.  A file
    appears whole: it is written in `incoming/` under an exclusive lock, then linked.  A file in `incoming/` without a
    lock belongs to a dead writer and is removed.  Revisions must be unique over all sources that share a directory.

    Fetched bytes wait in `incoming/` to be read.  Files that nobody holds are removed for them, but datasets do not
    wait for them: the directory may exceed its limit by `fetches` times `max_bytes` while datasets are read.
    """

    def __init__(
        self,
        directory: Path,
        max_bytes: int,
        source: DatasetStore,
        read: Read = reading.read,
        *,
        fetches: int = 1,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self.hits = 0
        self.misses = 0
        self._content, self._names, self._incoming = (
            directory.absolute() / part for part in ("content", "names", "incoming")
        )
        self._max_bytes = max_bytes
        self._fetching = threading.Semaphore(fetches)
        self._source = source
        self._read = read
        self._clock = clock
        self._wall_clock = wall_clock
        self._lock = threading.Lock()
        self._holds: dict[str, _Hold] = {}
        self._readers: WeakValueDictionary[str, threading.Lock] = WeakValueDictionary()
        """By dataset; an entry lives while some thread waits for or reads the dataset."""
        self._fetches: FIFOCache[str, _Fetch] = FIFOCache(MOST_REMEMBERED)
        self._begun = 0
        self._refused: FIFOCache[tuple[str, str], tuple[float, str]] = FIFOCache(MOST_REMEMBERED)

    def at_hand(self, name: str) -> Dataset | None:
        """Return what `ensure` would, but None if the dataset must be fetched, or S3 be asked, first."""
        if name in builtin.BUILTINS:
            return builtin.dataset(name)
        check_name(name)
        if (revision := self._source.revision(name, at_once=True)) is None:
            return None
        with self._disk():
            known = self._found(name, revision)
        return None if known is None else self._dataset(name, known)

    @property
    def begun(self) -> int:
        """The number of fetches begun so far; see `ensure`."""
        return self._begun

    def ensure(self, name: str, abandoned: Abandoned | None = None, came: int | None = None) -> Dataset:
        """The dataset as its source has it now, on disk and held until `release`; built-ins need neither.

        `came` is the value of `begun` when the caller first asked.  A fetch of this dataset that began later is recent
        enough to answer the caller.  Raises RejectedError if the dataset does not exist, cannot be read or is larger
        than the cache; TransientError if the source does not answer, the disk is full, or running trainings hold so
        much that there is no room; LoadAbandoned soon after `abandoned` is set, unless the dataset is already there.
        """
        if name in builtin.BUILTINS:
            return builtin.dataset(name)
        check_name(name)
        came = self._begun if came is None else came
        revision = self._source.revision(name)
        with self._disk():
            known = self._known(name, revision, abandoned, came)
        return self._dataset(name, known)

    def release(self, dataset: Dataset) -> None:
        """The job no longer needs the file; call it once for each call of `ensure`."""
        if dataset.path is None:
            return
        self._let_go(dataset.path.stem)

    def _dataset(self, name: str, known: _Known) -> Dataset:
        return Dataset(name, known.fingerprint, self._path(known.key), known.target_column)

    def _let_go(self, key: str) -> None:
        with self._lock:
            hold = self._holds[key]
            hold.jobs -= 1
            if not hold.jobs:
                self._holds.pop(key).file.close()

    def _known(self, name: str, revision: str | None, abandoned: Abandoned | None, came: int) -> _Known:
        with self._one_reader(name, abandoned):
            with self._lock:
                last = self._fetches.get(name)
            if revision is None and last is not None and last.number > came:
                if last.rejection:
                    raise RejectedError(last.rejection)
                revision = last.revision
            if revision is not None and (known := self._found(name, revision)):
                return known
            with self._fetched(name, abandoned) as fetched:
                return self._found(name, fetched.revision) or self._keep(fetched, abandoned)

    @contextmanager
    def _fetched(self, name: str, abandoned: Abandoned | None) -> Iterator[Fetched]:
        with _taken(self._fetching, abandoned), self._new_file(FETCHED) as (_, path):
            with self._lock:
                self._begun = number = self._begun + 1
            try:
                with Sink(path, self._max_bytes, abandoned) as sink:
                    fetched = self._source.fetch(name, sink)
            except RejectedError as error:
                self._remember_fetch(name, _Fetch(number, rejection=str(error)))
                raise
            self._remember_fetch(name, _Fetch(number, fetched.revision))
            self._make_room()
            yield fetched

    def _remember_fetch(self, name: str, fetch: _Fetch) -> None:
        with self._lock:
            self._fetches[name] = fetch

    def _found(self, name: str, revision: str) -> _Known | None:
        """This revision, held, or None.  Raises RejectedError if it could not be read less than REFUSED_S ago."""
        known = self._remembered(name)
        is_it = known is not None and (known.revision, known.reading) == (revision, reading.VERSION)
        if known is not None and is_it and self._hold(known.key):
            self.hits += 1
            return known
        with self._lock:
            at, refusal = self._refused.get((name, revision), (0.0, ""))
        if refusal and self._clock() - at < REFUSED_S:
            raise RejectedError(refusal)
        return None

    def _keep(self, fetched: Fetched, abandoned: Abandoned | None) -> _Known:
        self.misses += 1
        with self._new_file() as (file, path):
            try:
                content = self._read(fetched, path, self._max_bytes, abandoned)
            except RejectedError as error:
                self._remember_refusal(fetched, error)
                raise
            fetched.path.unlink(missing_ok=True)
            target = fetched.target_column or content.last_target
            known = _Known(fetched.revision, content.fingerprint, target, content.key, reading.VERSION)
            if not self._hold(known.key):
                self._store(file, path, known.key)
                if not self._hold(known.key):
                    raise TransientError(SERVICE, f"dataset {fetched.name!r} was removed as soon as it was stored")
        try:
            if known != (before := self._remembered(fetched.name)):
                if before is not None and before.revision == known.revision:
                    _log_other_reading(fetched.name, before, known)
                self._remember(fetched.name, known)
        except BaseException:
            self._let_go(known.key)
            raise
        return known

    def _remember_refusal(self, fetched: Fetched, error: RejectedError) -> None:
        refusal = (self._clock(), str(error))
        with self._lock:
            self._refused[fetched.name, fetched.revision] = refusal

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

    def _hold(self, key: str) -> bool:
        """Protect the file from removal for one more job; False if it does not exist."""
        path = self._path(key)
        with self._lock:
            hold = self._holds.get(key)
            if hold is None or not _is_at(hold.file, path):  # the directory may have been emptied by hand
                file = _locked(path, fcntl.LOCK_SH)
                if file is None:
                    return False
                jobs = 0
                if hold is not None:
                    jobs = hold.jobs
                    hold.file.close()
                hold = self._holds[key] = _Hold(file, jobs)
            hold.jobs += 1
            now = self._wall_clock()  # all workers of the machine compare these times, and they survive a restart
            os.utime(hold.file.fileno(), (now, now))
        return True

    def _store(self, file: BinaryIO, path: Path, key: str) -> None:
        self._make_room()
        os.fsync(file.fileno())
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)  # so that others can hold the file as soon as it is linked
        with suppress(FileExistsError):  # another worker was faster, and has jobs that hold its file
            self._path(key).hardlink_to(path)

    def _make_room(self) -> None:
        for path in self._incoming.iterdir():
            if (file := _locked(path, fcntl.LOCK_EX)) is not None:
                path.unlink()
                file.close()
        incoming = _files(self._incoming)
        fetched = sum(size for _, size, path in incoming if path.suffix == FETCHED)
        used = sum(size for _, size, _ in (*incoming, *_files(self._content)))
        if self._remove(used - self._max_bytes) < used - self._max_bytes - fetched:
            raise TransientError(
                SERVICE, f"datasets of running trainings fill all {self._max_bytes:,} bytes of it (DATASET_CACHE_BYTES)"
            )

    def _remove(self, wanted_bytes: int) -> int:
        """Remove files that nobody holds, the least recently used first, until `wanted_bytes` are free; return the
        bytes freed.
        """
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
    def _new_file(self, suffix: str = "") -> Iterator[tuple[BinaryIO, Path]]:
        """A new file in `incoming/`, locked while it is written and deleted afterwards unless it was moved."""
        for folder in (self._incoming, self._content):
            folder.mkdir(parents=True, exist_ok=True)
        file = None
        while file is None:  # another worker may remove the file between creation and lock, as if its writer had died
            path = self._incoming / f"{uuid4().hex}{suffix}"
            path.touch()
            file = _locked(path, fcntl.LOCK_EX)
        with file:
            try:
                yield file, path
            finally:
                path.unlink(missing_ok=True)

    @contextmanager
    def _one_reader(self, name: str, abandoned: Abandoned | None) -> Iterator[None]:
        """One thread reads a dataset; others that want the same one wait."""
        with self._lock:
            turn = self._readers.setdefault(name, threading.Lock())
        with _taken(turn, abandoned):
            yield

    @contextmanager
    def _disk(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if error.errno in FULL and self._content.is_dir():
                self._remove(self._max_bytes)
            raise TransientError(SERVICE, error.strerror or type(error).__name__) from error

    def _path(self, key: str) -> Path:
        return self._content / f"{key}.arrow"


@contextmanager
def _taken(turn: threading.Lock | threading.Semaphore, abandoned: Abandoned | None) -> Iterator[None]:
    while not turn.acquire(timeout=LOOK_S):
        if abandoned is not None and abandoned.is_set():
            raise LoadAbandoned
    try:
        yield
    finally:
        turn.release()


def _log_other_reading(name: str, before: _Known, now: _Known) -> None:
    """The same bytes give other columns: a dataset that nobody imported keeps no types of its own."""
    if before.fingerprint != now.fingerprint:
        log.warning(
            "a dataset is read otherwise than by the version of this program before; `datasets import` keeps its types",
            extra={"dataset": name, "before": before.fingerprint, "fingerprint": now.fingerprint},
        )


def _locked(path: Path, lock: int) -> BinaryIO | None:
    """The open file with a lock that closing it ends; None if it does not exist or others hold a conflicting lock."""
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
    """Time of last use, size and path of each file."""
    found = []
    for path in folder.iterdir():
        with suppress(FileNotFoundError):
            status = path.stat()
            found.append((status.st_mtime, status.st_size, path))
    return found
