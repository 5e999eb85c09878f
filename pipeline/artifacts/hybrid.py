"""Keeps small artifacts in one store and large ones in another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from pipeline.artifacts import ArtifactStore, ListedArtifact, NewArtifact
from pipeline.errors import RejectedError
from pipeline.jobs import StoredArtifact


class SchemeStore(ArtifactStore, Protocol):
    """A store whose uris all begin with its scheme."""

    @property
    def scheme(self) -> str: ...


class HybridStore:
    """Stores files of up to `limit_bytes` in `small`, a group of them in one call, and larger ones in `large`.

    The stores have different schemes, so a uri tells where its file is even after the limit has changed.
    """

    def __init__(self, small: SchemeStore, large: SchemeStore, limit_bytes: int) -> None:
        self._small = small
        self._large = large
        self._limit_bytes = limit_bytes

    def prepare(self) -> None:
        self._small.prepare()
        self._large.prepare()

    def put(self, artifacts: Sequence[NewArtifact]) -> Mapping[str, StoredArtifact]:
        stored: dict[str, StoredArtifact] = {}
        for store, share in (
            (self._small, [a for a in artifacts if a.size_bytes <= self._limit_bytes]),
            (self._large, [a for a in artifacts if a.size_bytes > self._limit_bytes]),
        ):
            if share:
                stored |= store.put(share)
        return stored

    def fetch(self, uri: str, target: Path) -> None:
        self._store_of(uri).fetch(uri, target)

    def delete(self, uri: str) -> None:
        self._store_of(uri).delete(uri)

    def list(self, prefix: str = "") -> Sequence[str]:
        return [*self._small.list(prefix), *self._large.list(prefix)]

    def listing(self, prefix: str = "") -> Sequence[ListedArtifact]:
        return [*self._small.listing(prefix), *self._large.listing(prefix)]

    def _store_of(self, uri: str) -> SchemeStore:
        for store in (self._small, self._large):
            if uri.startswith(f"{store.scheme}://"):
                return store
        schemes = f"{self._small.scheme}:// or {self._large.scheme}://"
        raise RejectedError(f"{uri} is not an artifact of this store: its uris begin with {schemes}")
