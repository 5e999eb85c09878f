"""Keeps checkpoints of long trainings in the artifact store, so that the next attempt goes on from there.

A training writes files to its spool folder (`pipeline.training.trained.KEPT`). A checkpoint is an archive of those that
exist, stored under `~checkpoints/{request_id}/{number}-{sha256}`. Storing one deletes the older ones; all are deleted
when the request has its outcome.
"""

from __future__ import annotations

import hashlib
import queue
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from math import inf
from pathlib import Path
from uuid import uuid4
from zipfile import ZIP_STORED, BadZipFile, ZipFile

import structlog
from cachetools import LRUCache

from consumer import failpoints
from consumer.system import disk
from consumer.threads.containment import contained
from consumer.threads.neighbour import TRANSFER_LIMIT_S, Periodic, Surroundings
from pipeline.artifacts import ArtifactStore, NewArtifact, checkpoints_of
from pipeline.errors import CorruptArtifactError, NotFoundError, TransientError
from pipeline.training.trained import KEPT

log = structlog.get_logger(__name__)

EVERY_S = 5.0
"""How much work is repeated when a worker dies; more if a checkpoint takes long to store."""
MOST_REMEMBERED = 10_000
"""Requests whose number is remembered; trainings at one time are far fewer."""
PAUSES = 10
"""The pause after a checkpoint is this many times as long as storing it took."""


@dataclass(slots=True)
class _Kept:
    """A training whose spool folder is watched."""

    spool: Path
    next_at: float = 0.0
    stored: dict[str, tuple[int, int]] = field(default_factory=dict)
    """The newest checkpoint's files, by name, as (modification time in ns, size in bytes)."""


class Checkpoints(Periodic):
    """Stores changed files every EVERY_S; any thread may call `restore`."""

    def __init__(
        self,
        artifacts: ArtifactStore,
        folder: Path,
        *,
        around: Surroundings,
        every_s: float = EVERY_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__("checkpoints", around, every_s, busy_limit_s=TRANSFER_LIMIT_S)
        self._artifacts = artifacts
        self._folder = folder
        self._clock = clock
        self._kept: dict[str, _Kept] = {}
        self._numbers: LRUCache[str, int] = LRUCache(MOST_REMEMBERED)
        """By request, the highest number that was found in the store, or given to a checkpoint here."""
        self._counting = threading.Lock()
        self._over: queue.SimpleQueue[str] = queue.SimpleQueue()

    def keep(self, request_id: str, spool: Path) -> None:
        """Watch the folder that a training writes to, until the folder is gone."""
        self._kept[request_id] = _Kept(spool)

    def drop(self, request_id: str) -> None:
        """Delete the checkpoints of a request that has its outcome."""
        self._over.put(request_id)

    def restore(self, request_id: str) -> Path | None:
        """A new folder with the newest readable checkpoint; None if there is none.  Raises TransientError."""
        stored = sorted(self._stored(request_id), reverse=True)
        if stored:  # a new one gets a higher number, also where the newest cannot be read
            with self._counting:
                self._numbers[request_id] = max(stored[0][0], self._numbers.get(request_id, 0))
        for number, uri in stored:
            archive = self._folder / f"{uuid4().hex}.zip"
            folder = self._folder / f"{archive.stem}.checkpoint"
            try:
                self._artifacts.fetch(uri, archive)
                folder.mkdir()
                _unpack(archive, folder)
            except NotFoundError:  # a newer one has replaced it meanwhile
                continue
            except (BadZipFile, CorruptArtifactError, EOFError, RuntimeError, ValueError) as error:
                log.warning("checkpoint cannot be read", request_id=request_id, number=number, error=str(error))
                disk.remove(folder)
                continue
            except OSError as error:
                disk.remove(folder)
                raise TransientError(disk.SERVICE, f"a checkpoint cannot be written: {error.strerror}") from error
            finally:
                archive.unlink(missing_ok=True)
            log.info("checkpoint found", request_id=request_id, number=number)
            return folder
        return None

    def work(self) -> None:
        for request_id, kept in tuple(self._kept.items()):
            self.turn.begin()
            with contained(self._metrics, "checkpoint", request_id=request_id):
                self._store(request_id, kept)
        self.last_work()

    def last_work(self) -> None:
        while not self._over.empty():
            request_id = self._over.get()
            self._kept.pop(request_id, None)
            with self._counting:
                self._numbers.pop(request_id, None)
            self.turn.begin()
            try:
                with contained(self._metrics, "checkpoint", request_id=request_id):
                    self._remove(request_id)
            except TransientError:
                self._over.put(request_id)
                raise

    def _store(self, request_id: str, kept: _Kept) -> None:
        there = _stamps(kept.spool)
        if not there or there == kept.stored or self._clock() < kept.next_at:
            if not kept.spool.exists() and self._kept.get(request_id) is kept:
                del self._kept[request_id]
            return
        begun = self._clock()
        copy = self._folder / f"{uuid4().hex}.zip"
        try:
            with ZipFile(copy, "w") as archive:
                for name in there:
                    with suppress(FileNotFoundError):
                        archive.write(kept.spool / name, name)
            if set(archive.namelist()) != there.keys() or not kept.spool.exists():
                return
            with copy.open("rb") as file:
                sha256 = hashlib.file_digest(file, "sha256").hexdigest()
            number = self._next_number(request_id)
            key = f"{checkpoints_of(request_id)}{number:09d}-{sha256}"
            new = NewArtifact(key, copy, sha256, copy.stat().st_size)
            failpoints.after("after_checkpoint", "artifacts", self._artifacts.put([new]))
        except OSError as error:
            log.warning("checkpoint cannot be written", request_id=request_id, error=str(error))
            return
        finally:
            copy.unlink(missing_ok=True)
        kept.stored = there
        kept.next_at = self._clock() + (self._clock() - begun) * PAUSES
        self._remove(request_id, before=number)

    def _next_number(self, request_id: str) -> int:
        """Taken before anything is stored: no two contents may have one number, even if storing the first fails."""
        with self._counting:
            number = self._numbers.get(request_id, 0) + 1
            self._numbers[request_id] = number
            return number

    def _remove(self, request_id: str, before: float = inf) -> None:
        for number, uri in self._stored(request_id):
            if number < before:
                self._artifacts.delete(uri)

    def _stored(self, request_id: str) -> Sequence[tuple[int, str]]:
        """The number and the uri of each checkpoint."""
        begin = checkpoints_of(request_id)
        numbered = [(one.key.removeprefix(begin).partition("-")[0], one.uri) for one in self._artifacts.listing(begin)]
        return [(int(number), uri) for number, uri in numbered if number.isdecimal()]


def _unpack(archive: Path, folder: Path) -> None:
    """Raises CorruptArtifactError if `_store` cannot have written this archive."""
    with ZipFile(archive) as file:
        entries = file.infolist()
        stored = all(entry.compress_type == ZIP_STORED and entry.filename in KEPT for entry in entries)
        if not stored or sum(entry.file_size for entry in entries) > archive.stat().st_size:
            raise CorruptArtifactError("it is not a checkpoint")
        file.extractall(folder)


def _stamps(spool: Path) -> dict[str, tuple[int, int]]:
    """(modification time in ns, size in bytes) of each checkpoint file that exists."""
    found = {}
    for name in KEPT:
        with suppress(FileNotFoundError):
            stat = (spool / name).stat()
            found[name] = (stat.st_mtime_ns, stat.st_size)
    return found
