"""What a long training has come to, kept in the artifact store: the next attempt goes on from there, elsewhere too.

A training leaves files in its spool folder (`pipeline.trained.KEPT`). A checkpoint is an archive of those there are,
stored under `checkpoints/{request_id}/{number}`; the older ones go once a newer one is stored, and all of them when the
request has its outcome.
"""

from __future__ import annotations

import hashlib
import queue
import shutil
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote
from uuid import uuid4
from zipfile import ZipFile

import structlog

from consumer.failures import ThreadFailed
from consumer.periodic import Periodic
from consumer.waiting import Breakers
from pipeline.artifacts import ArtifactStore, NewArtifact
from pipeline.errors import NotFoundError, TransientError
from pipeline.trained import KEPT

log = structlog.get_logger(__name__)

EVERY_S = 5.0
"""The work of so many seconds is repeated at most when a worker dies."""


@dataclass(slots=True)
class _Kept:
    """A training whose spool folder is looked at; `number` is its newest checkpoint's."""

    spool: Path
    number: int
    stored: dict[str, tuple[int, int]] = field(default_factory=dict)
    """The files in it, by name, with the time and size they had."""


class Checkpoints(Periodic):
    """Stores what has changed every EVERY_S; `restore` may be called by any thread."""

    def __init__(
        self,
        artifacts: ArtifactStore,
        folder: Path,
        *,
        breakers: Breakers,
        deliver: Callable[[ThreadFailed], None],
        every_s: float = EVERY_S,
    ) -> None:
        super().__init__("checkpoints", every_s, breakers=breakers, deliver=deliver)
        self._artifacts = artifacts
        self._folder = folder
        self._kept: dict[str, _Kept] = {}
        self._numbers: dict[str, int] = {}
        """Of the checkpoints that were found, by request."""
        self._over: queue.SimpleQueue[str] = queue.SimpleQueue()

    def keep(self, request_id: str, spool: Path) -> None:
        """A training begins, which writes to this folder; it is looked at until it is gone."""
        self._kept[request_id] = _Kept(spool, self._numbers.pop(request_id, 0))

    def drop(self, request_id: str) -> None:
        """The request has its outcome."""
        self._over.put(request_id)

    def restore(self, request_id: str) -> Path | None:
        """What an earlier attempt has left, as a folder of ours; None if it has left nothing.

        Raises TransientError.
        """
        newest, number = None, 0
        for uri in self._artifacts.list(_prefix(request_id)):
            found = self._folder / f"{uuid4().hex}.zip"
            try:
                self._artifacts.fetch(uri, found)
            except NotFoundError:  # a newer one has taken its place meanwhile
                continue
            with ZipFile(found) as archive:
                if (its := int(archive.comment)) > number:
                    if newest is not None:
                        shutil.rmtree(newest)
                    newest, number = self._folder / f"{uuid4().hex}.checkpoint", its
                    archive.extractall(newest)
            found.unlink()
        if newest is not None:
            self._numbers[request_id] = number
            log.info("checkpoint found", request_id=request_id, number=number)
        return newest

    def turn(self) -> None:
        for request_id, kept in tuple(self._kept.items()):
            self._store(request_id, kept)
        self.last_turn()

    def last_turn(self) -> None:
        while not self._over.empty():
            request_id = self._over.get()
            self._kept.pop(request_id, None)
            self._numbers.pop(request_id, None)
            try:
                self._remove(request_id, keep=())
            except TransientError:
                self._over.put(request_id)
                raise

    def _store(self, request_id: str, kept: _Kept) -> None:
        there = _stamps(kept.spool)
        if not there or there == kept.stored:
            if not kept.spool.exists() and self._kept.get(request_id) is kept:
                del self._kept[request_id]
            return
        copy = self._folder / f"{uuid4().hex}.zip"
        try:
            with ZipFile(copy, "w") as archive:
                archive.comment = str(kept.number + 1).encode()
                for name in there:
                    with suppress(FileNotFoundError):
                        archive.write(kept.spool / name, name)
            if not kept.spool.exists():
                return
            with copy.open("rb") as file:
                sha256 = hashlib.file_digest(file, "sha256").hexdigest()
            key = f"{_prefix(request_id)}{kept.number + 1:09d}"
            stored = self._artifacts.put([NewArtifact(key, copy, sha256, copy.stat().st_size)])
        finally:
            copy.unlink(missing_ok=True)
        kept.number, kept.stored = kept.number + 1, there
        self._remove(request_id, keep=(stored[key].uri,))

    def _remove(self, request_id: str, keep: Iterable[str]) -> None:
        for uri in set(self._artifacts.list(_prefix(request_id))) - set(keep):
            self._artifacts.delete(uri)


def _stamps(spool: Path) -> dict[str, tuple[int, int]]:
    """When each file was written last, and how large it is."""
    found = {}
    for name in KEPT:
        with suppress(FileNotFoundError):
            stat = (spool / name).stat()
            found[name] = (stat.st_mtime_ns, stat.st_size)
    return found


def _prefix(request_id: str) -> str:
    """An id is free text, and may hold slashes: none is the folder of another."""
    return f"checkpoints/{quote(request_id, safe='')}/"
