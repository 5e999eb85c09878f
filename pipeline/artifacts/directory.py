"""Artifacts in a directory, for one machine without servers."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import unquote
from uuid import uuid4

from pipeline.artifacts import ListedArtifact, NewArtifact
from pipeline.artifacts.keys import folder_of, key_of, path_of
from pipeline.errors import NotFoundError, RejectedError, TransientError
from pipeline.jobs import StoredArtifact

INCOMING = ".incoming"  # the path of a key never begins with a dot
ABANDONED_AFTER_S = 24 * 3600.0


class DirectoryStore:
    """Files below `root`.  Each is written under another name, synced and renamed, so that it appears whole or not at
    all.

    Several processes may share a directory.  A file's uri is its absolute path, so it is valid only while the directory
    stays in place.
    """

    scheme = "file"

    def __init__(self, root: Path) -> None:
        self._root = Path(os.path.realpath(root))
        self._incoming = self._root / INCOMING

    def prepare(self) -> None:
        with _disk():
            self._incoming.mkdir(parents=True, exist_ok=True)
            for abandoned in self._incoming.iterdir():
                if time.time() - abandoned.stat().st_mtime > ABANDONED_AFTER_S:
                    abandoned.unlink(missing_ok=True)

    def put(self, artifacts: Sequence[NewArtifact]) -> Mapping[str, StoredArtifact]:
        stored, folders = {}, set[Path]()
        for artifact in artifacts:
            target = self._root / path_of(artifact.key)
            incoming = self._incoming / uuid4().hex
            with artifact.path.open("rb") as source, _disk():
                folders |= _make_folders(target.parent)
                try:
                    with incoming.open("xb") as copy:
                        shutil.copyfileobj(source, copy, 1 << 20)
                        copy.flush()
                        os.fsync(copy.fileno())
                    incoming.replace(target)
                finally:
                    incoming.unlink(missing_ok=True)
            stored[artifact.key] = StoredArtifact(target.as_uri(), artifact.sha256, artifact.size_bytes)
        with _disk():
            for folder in folders:
                _sync_folder(folder)
        return stored

    def fetch(self, uri: str, target: Path) -> None:
        path = self._path(uri)
        with _disk():
            try:
                source = path.open("rb")
            except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
                raise NotFoundError(f"there is no artifact {uri}") from None
        with source, target.open("wb") as copy:
            shutil.copyfileobj(source, copy, 1 << 20)

    def delete(self, uri: str) -> None:
        path = self._path(uri)
        with _disk():
            path.unlink(missing_ok=True)

    def list(self, prefix: str = "") -> Sequence[str]:
        with _disk():
            files = [
                Path(folder, name)
                for folder, _, names in os.walk(self._root / folder_of(prefix))
                if Path(folder) != self._incoming
                for name in names
            ]
        return sorted(f.as_uri() for f in files if key_of(f.relative_to(self._root).as_posix()).startswith(prefix))

    def listing(self, prefix: str = "") -> Sequence[ListedArtifact]:
        found = []
        for uri in self.list(prefix):
            path = self._path(uri)
            with _disk(), suppress(FileNotFoundError):  # deleted meanwhile
                status = path.stat()
                key, at = key_of(path.relative_to(self._root).as_posix()), datetime.fromtimestamp(status.st_mtime, UTC)
                found.append(ListedArtifact(key, uri, status.st_size, at))
        return found

    def _path(self, uri: str) -> Path:
        if not uri.startswith("file:///"):
            raise RejectedError(f"{uri} is not an artifact of this store: its uris begin with {self._root.as_uri()}/")
        path = Path(os.path.normpath(unquote(uri.removeprefix("file://"))))
        if not path.is_relative_to(self._root) or self._incoming in (path, path.parent) or path == self._root:
            raise RejectedError(f"{uri} is not an artifact of this store: its uris begin with {self._root.as_uri()}/")
        return path


def _make_folders(folder: Path) -> set[Path]:
    """Create the folder with its parents; return the folders whose entries must be synced."""
    missing = [folder]
    while not missing[-1].is_dir():
        missing.append(missing[-1].parent)
    folder.mkdir(parents=True, exist_ok=True)
    return set(missing)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _disk() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise TransientError("artifact directory", error.strerror or type(error).__name__) from error
