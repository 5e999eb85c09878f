"""The registry: one document per model version, v1, v2, … per (project, model_name), with no gap and no collision.

Every adapter keeps the same contract (tests/contract/test_registry.py) and may raise TransientError.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType
from typing import Protocol

from pipeline.jobs import Outcome, RegisteredModel

NO_TAGS: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Usage:
    """What a project's versions take that are not archived: how many they are, and the bytes of their artifacts."""

    models: int
    bytes: int


class Registry(Protocol):
    """Documents are durable (majority-written and journalled) when a method returns, and are never deleted.

    Nothing in them changes but whether a version is archived.  Archived versions count in versioning, and are found
    wherever they are named; they are left out where nobody asks for one in particular.
    """

    def prepare(self) -> None:
        """Create collections and indexes; safe to call again and from several workers at once."""
        ...

    def register(self, outcomes: Sequence[Outcome]) -> Mapping[str, RegisteredModel]:
        """Give each REGISTERED outcome the next version of its model; returns the document of every request_id.

        A request that has a document keeps it.  Outcomes of one model get their versions in the order given.
        """
        ...

    def find(self, request_ids: Collection[str]) -> Mapping[str, RegisteredModel]:
        """The documents of these requests, as far as there are any."""
        ...

    def get(self, project: str, model_name: str, version_number: int | None = None) -> RegisteredModel:
        """One version; if none is named, the newest that is not archived.

        Raises NotFoundError with the names or versions there are.
        """
        ...

    def list(
        self,
        *,
        project: str | None = None,
        model_name: str | None = None,
        dataset_name: str | None = None,
        tags: Mapping[str, str] = NO_TAGS,
        archived: bool = False,
        limit: int = 100,
    ) -> Sequence[RegisteredModel]:
        """The newest first; those with all of these tags; with `archived` the archived ones too."""
        ...

    def archive(
        self, project: str, model_name: str, version_number: int, archived_at: datetime | None
    ) -> RegisteredModel:
        """Note that the version is archived since then, or with None that it is not; returns its document after that.

        One that is archived already keeps its moment.  Raises NotFoundError as get() does, and RejectedError for a
        document of the replaced worker.  Whether an alias points there is pipeline.lifecycle.archiving's to ask.
        """
        ...

    def same(self, project: str, reuse_key: str) -> RegisteredModel | None:
        """The project's newest version with this key (see pipeline.training.reuse_key) that is not archived."""
        ...

    def usage(self, project: str) -> Usage:
        """What the project has registered and not archived; documents of the replaced worker do not count."""
        ...

    def count(self) -> int:
        """How many versions there are, archived ones too."""
        ...
