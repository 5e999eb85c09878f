"""Artifact stores: immutable files under keys that contain the request_id and the sha256 of the content.

All adapters pass tests/contract/test_artifacts.py and may raise TransientError.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Protocol
from urllib.parse import quote

from pipeline.jobs import StoredArtifact

CHECKPOINTS = "~checkpoints/"
"""The prefix of all checkpoints' keys; no project can have this name."""


def checkpoints_of(request_id: str) -> str:
    """The prefix of the keys of a request's checkpoints; a number follows, and the highest is the newest.

    A request id is free text that may contain slashes; quoting ensures that no request's prefix contains another's.
    """
    return f"{CHECKPOINTS}{quote(request_id, safe='')}/"


@dataclass(frozen=True, slots=True)
class NewArtifact:
    """A file to store.  `key` is `project/model_name/request_id/sha256.zip`; its bytes never change."""

    key: str
    path: Path
    sha256: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class ListedArtifact:
    """A file in the store.

    `stored_at` is the store's own date.  In GridFS it is that of the first writer, since putting a key again writes
    nothing there; a folder and S3 set a new date.
    """

    key: str
    uri: str
    size_bytes: int
    stored_at: datetime


class ArtifactStore(Protocol):
    """Files are durable when `put` returns; putting the same key again changes nothing."""

    def prepare(self) -> None:
        """Create bucket, folder or indexes; may be called again, and by several workers at once."""
        ...

    def put(self, artifacts: Sequence[NewArtifact]) -> Mapping[str, StoredArtifact]:
        """Store all files in as few calls as the store allows; return the location of each key."""
        ...

    def fetch(self, uri: str, target: Path) -> None:
        """Write the stored bytes to the path.  Raises NotFoundError, or RejectedError for a uri of another store.

        The caller checks the sha256 before it parses anything (pipeline.model_files.model_file does).
        """
        ...

    def delete(self, uri: str) -> None:
        """Delete the file; does nothing if it does not exist."""
        ...

    def list(self, prefix: str = "") -> Sequence[str]:
        """The uris of all artifacts whose key starts with the prefix."""
        ...

    def listing(self, prefix: str = "") -> Sequence[ListedArtifact]:
        """All artifacts whose key starts with the prefix, with size and date."""
        ...
