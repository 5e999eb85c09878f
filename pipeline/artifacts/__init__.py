"""Artifact stores: immutable files under a key that holds the request_id and the sha256 of the content.

Every adapter keeps the same contract (tests/contract/test_artifacts.py) and may raise TransientError.
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
"""What the keys of checkpoints begin with: no project is called so."""


def checkpoints_of(request_id: str) -> str:
    """What the keys of a request's checkpoints begin with; a number follows, of which the highest is the newest.

    An id is free text, and may hold slashes: none is the folder of another.
    """
    return f"{CHECKPOINTS}{quote(request_id, safe='')}/"


@dataclass(frozen=True, slots=True)
class NewArtifact:
    """A file to be stored.  `key` is `project/model_name/request_id/sha256.zip`, the same bytes for ever."""

    key: str
    path: Path
    sha256: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class ListedArtifact:
    """A file that lies in the store.

    `stored_at` is the store's own date, that of the first writer with GridFS, whose files are not written again when
    the same key is put again; a folder and S3 date them anew.
    """

    key: str
    uri: str
    size_bytes: int
    stored_at: datetime


class ArtifactStore(Protocol):
    """What was put is durable when the call returns; putting the same key again changes nothing."""

    def prepare(self) -> None:
        """Create bucket, folder or indexes; safe to call again and from several workers at once."""
        ...

    def put(self, artifacts: Sequence[NewArtifact]) -> Mapping[str, StoredArtifact]:
        """Store all of them, in as few calls as the store allows; returns where each key lies now."""
        ...

    def fetch(self, uri: str, target: Path) -> None:
        """Write the stored bytes to the path.  Raises NotFoundError, or RejectedError for a uri of another store.

        The caller checks the sha256 before it reads anything (pipeline.model_files.model_file does).
        """
        ...

    def delete(self, uri: str) -> None:
        """Remove it; nothing happens if it is gone."""
        ...

    def list(self, prefix: str = "") -> Sequence[str]:
        """The uris of all artifacts whose key starts with the prefix."""
        ...

    def listing(self, prefix: str = "") -> Sequence[ListedArtifact]:
        """All artifacts whose key starts with the prefix, with what the store knows of them."""
        ...
