"""What a long training has come to, kept in the artifact store: the next attempt goes on from there, elsewhere too.

A checkpoint is one file that only grows (the notes of a search). It lies under `checkpoints/{request_id}/{size}`, so
that a newer one is another key; the older ones go once it is stored, and all of them when the request has its outcome.
"""

from __future__ import annotations

import hashlib
import queue
from collections.abc import Callable, Iterable
from pathlib import Path
from urllib.parse import quote
from uuid import uuid4

import structlog

from consumer.failures import ThreadFailed
from consumer.periodic import Periodic
from consumer.waiting import Breakers
from pipeline.artifacts import ArtifactStore, NewArtifact
from pipeline.errors import NotFoundError, TransientError

log = structlog.get_logger(__name__)

EVERY_S = 5.0
"""The work of so many seconds is repeated at most when a worker dies; the notes of a search are kilobytes."""


class Checkpoints(Periodic):
    """Stores what grows every EVERY_S; `restore` may be called by any thread."""

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
        self._growing: dict[str, Path] = {}
        self._stored: dict[str, int] = {}
        """The size of each request's newest checkpoint."""
        self._over: queue.SimpleQueue[str] = queue.SimpleQueue()

    def keep(self, request_id: str, path: Path) -> None:
        """A training begins, which may leave this file; it is looked at until it is gone."""
        self._growing[request_id] = path

    def drop(self, request_id: str) -> None:
        """The request has its outcome."""
        self._over.put(request_id)

    def restore(self, request_id: str) -> Path | None:
        """The newest checkpoint of an earlier attempt, as a file of ours; None if there is none.

        Raises TransientError.
        """
        newest: Path | None = None
        for uri in self._artifacts.list(_prefix(request_id)):
            found = self._folder / f"{uuid4().hex}.checkpoint"
            try:
                self._artifacts.fetch(uri, found)
            except NotFoundError:  # a newer one has taken its place meanwhile
                continue
            if newest is not None and newest.stat().st_size >= found.stat().st_size:
                found.unlink()
                continue
            if newest is not None:
                newest.unlink()
            newest = found
        if newest is not None:
            log.info("checkpoint found", request_id=request_id, lines=newest.read_bytes().count(b"\n"))
        return newest

    def turn(self) -> None:
        for request_id, path in tuple(self._growing.items()):
            self._store(request_id, path)
        self.last_turn()

    def last_turn(self) -> None:
        while not self._over.empty():
            request_id = self._over.get()
            self._growing.pop(request_id, None)
            self._stored.pop(request_id, None)
            try:
                self._remove(request_id, keep=())
            except TransientError:
                self._over.put(request_id)
                raise

    def _store(self, request_id: str, path: Path) -> None:
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            if not path.parent.exists() and self._growing.get(request_id) == path:
                del self._growing[request_id]
            return
        if len(content) <= self._stored.get(request_id, 0):
            return
        copy = self._folder / f"{uuid4().hex}.checkpoint"
        copy.write_bytes(content)
        key = f"{_prefix(request_id)}{len(content):012d}"
        try:
            stored = self._artifacts.put([NewArtifact(key, copy, hashlib.sha256(content).hexdigest(), len(content))])
        finally:
            copy.unlink()
        self._stored[request_id] = len(content)
        self._remove(request_id, keep=(stored[key].uri,))

    def _remove(self, request_id: str, keep: Iterable[str]) -> None:
        for uri in set(self._artifacts.list(_prefix(request_id))) - set(keep):
            self._artifacts.delete(uri)


def _prefix(request_id: str) -> str:
    """An id is free text, and may hold slashes: none is the folder of another."""
    return f"checkpoints/{quote(request_id, safe='')}/"
