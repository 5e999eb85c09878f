"""Finds and removes artifacts that nothing refers to: files of lost trainings, checkpoints of finished requests.

An artifact is removed only if the ledger holds the outcome of its request, and neither that outcome nor the registry's
document names the artifact.  Why no order of events removes a file that is or will be needed:

- A registration stores its artifact, then its outcome, then its document.  Until the outcome exists, everything of the
  request is kept, whoever trains it and however old the file is.
- An outcome never changes once it exists.  A later attempt loses: its outcome is refused, whatever it stores.  So a
  file that the outcome does not name will never be named, and may be deleted at any later time, also by a late or
  repeated delete.  A REGISTERED outcome protects its file before the document is written.
- An attempt that stores a file again under the same key, right after we looked, has the same request and sha256.  Files
  are compared by these two, not by location: a key that the outcome names is kept in every store.  So it does not
  matter that GridFS leaves an existing file untouched (with its old date) while other stores write it again.
- Documents outlive outcomes.  If a request_id was forgotten, came again and got a second outcome, the document still
  names the first file; both are kept.
- A request that the ledger does not know may come again at any moment and store the very file that we found.  Its files
  are kept and counted.  So are those of an outcome that will be forgotten within FORGOTTEN_SOON_S; else it could be
  forgotten between our look, which is repeated for each file right before its delete, and the delete.

A file must also be old enough, but age alone decides nothing.  Files whose key is not one of ours are never touched.
Archived versions have documents, so their files are kept.  Only work depends on checkpoints: they are removed once the
request has its outcome, when no training reads them any more.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from urllib.parse import unquote

from pipeline.artifacts import CHECKPOINTS, ArtifactStore, ListedArtifact
from pipeline.jobs import Outcome, RegisteredModel
from pipeline.ledger import Ledger
from pipeline.registry import Registry

MODEL_FILE = re.compile(r"[A-Za-z0-9._-]{1,128}/[A-Za-z0-9._-]{1,128}/(.+)/([0-9a-f]{64})\.zip", re.DOTALL)
CHECKPOINT = re.compile(re.escape(CHECKPOINTS) + r"([^/]+)/\d+-[0-9a-f]{64}")
PAGE = 500
FORGOTTEN_SOON_S = 900.0
"""Longer than a look, a delete, and the difference of two clocks together."""


class Fate(StrEnum):
    GARBAGE = "garbage"
    NAMED = "named"
    YOUNG = "young"
    UNFINISHED = "unfinished"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Piece:
    """An artifact of ours and its request; `sha256` is None for a checkpoint."""

    artifact: ListedArtifact
    request_id: str
    sha256: str | None


@dataclass(frozen=True, slots=True)
class Judged:
    piece: Piece
    fate: Fate


class Collector:
    """Scans an artifact store once; `older_than_s` and `retention_s` (LEDGER_RETENTION) are seconds."""

    def __init__(
        self,
        artifacts: ArtifactStore,
        ledger: Ledger,
        registry: Registry,
        *,
        older_than_s: float,
        retention_s: float,
        project: str | None = None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._artifacts = artifacts
        self._ledger = ledger
        self._registry = registry
        self._older_than = timedelta(seconds=older_than_s)
        self._remembered = timedelta(seconds=retention_s - FORGOTTEN_SOON_S)
        self._project = project
        self._clock = clock

    def collect(self, *, dry_run: bool = False) -> Iterator[Judged]:
        """Delete the garbage, unless it is a dry run; yield each artifact of ours with its fate.

        With a project, only that project's artifacts are considered.  Raises TransientError; earlier deletes stay done.
        """
        pieces = self._pieces()
        for first in range(0, len(pieces), PAGE):
            for judged in self._judged(pieces[first : first + PAGE]):
                if judged.fate is Fate.GARBAGE and not dry_run:
                    yield from self._delete(judged.piece)
                else:
                    yield judged

    def _delete(self, piece: Piece) -> Sequence[Judged]:
        again = self._judged([piece])
        for judged in again:
            if judged.fate is Fate.GARBAGE:
                self._artifacts.delete(piece.artifact.uri)
        return again

    def _pieces(self) -> Sequence[Piece]:
        prefixes = {""} if self._project is None else {f"{self._project}/", CHECKPOINTS}
        listed = [_piece(one) for prefix in sorted(prefixes) for one in self._artifacts.listing(prefix)]
        return [piece for piece in listed if piece is not None]

    def _judged(self, pieces: Sequence[Piece]) -> Sequence[Judged]:
        request_ids = {piece.request_id for piece in pieces}
        entries = self._ledger.read(request_ids)
        documents = self._registry.find(request_ids)
        judged = []
        for piece in pieces:
            entry = entries[piece.request_id]
            if self._is_ours(piece, entry.outcome):
                fate = self._fate(piece, entry.claim is not None, entry.outcome, documents.get(piece.request_id))
                judged.append(Judged(piece, fate))
        return judged

    def _is_ours(self, piece: Piece, outcome: Outcome | None) -> bool:
        """Whether the artifact is of the project: a model file's key says so, a checkpoint's only its request's
        outcome.
        """
        if self._project is None or (piece.sha256 is not None and piece.artifact.key.startswith(f"{self._project}/")):
            return True
        return piece.sha256 is None and outcome is not None and outcome.project == self._project

    def _fate(self, piece: Piece, claimed: bool, outcome: Outcome | None, document: RegisteredModel | None) -> Fate:
        models = [one.model for one in (outcome, document) if one is not None and one.model is not None]
        if piece.sha256 is not None and any(model.artifact_sha256 == piece.sha256 for model in models):
            return Fate.NAMED
        now = self._clock()
        if outcome is None:
            return Fate.UNFINISHED if claimed else Fate.UNKNOWN
        if now - outcome.at > self._remembered:
            return Fate.UNKNOWN
        return Fate.GARBAGE if now - piece.artifact.stored_at >= self._older_than else Fate.YOUNG


def _piece(artifact: ListedArtifact) -> Piece | None:
    """The artifact as one of ours, or None if its key is not."""
    if match := MODEL_FILE.fullmatch(artifact.key):
        return Piece(artifact, match[1], match[2])
    if match := CHECKPOINT.fullmatch(artifact.key):
        return Piece(artifact, unquote(match[1]), None)
    return None
