"""The registry: one document per model version, v1, v2, … per (project, model_name), without gaps or duplicates.

All adapters pass tests/contract/test_registry.py and may raise TransientError.
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
    """The number of a project's versions that are not archived, and the bytes of their artifacts."""

    models: int
    bytes: int


class Registry(Protocol):
    """Documents are durable (majority-written and journalled) when a method returns, and are never deleted.

    Only `archived_at` of a document ever changes.  Archived versions count in numbering and are found by name; they are
    left out where no particular version is asked for.
    """

    def prepare(self) -> None:
        """Create collections and indexes; may be called again, and by several workers at once."""
        ...

    def register(self, outcomes: Sequence[Outcome]) -> Mapping[str, RegisteredModel]:
        """Give each REGISTERED outcome the next version of its model; return the document of every request_id.

        A request that has a document keeps it.  Outcomes of one model get their versions in the order given.
        """
        ...

    def find(self, request_ids: Collection[str]) -> Mapping[str, RegisteredModel]:
        """The documents of these requests; those without one are left out."""
        ...

    def get(self, project: str, model_name: str, version_number: int | None = None) -> RegisteredModel:
        """One version; without a number the newest that is not archived.

        Raises NotFoundError that lists names or versions that exist.
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
        """The newest versions first, which have all of these tags; with `archived` also archived ones."""
        ...

    def archive(
        self, project: str, model_name: str, version_number: int, archived_at: datetime | None
    ) -> RegisteredModel:
        """Set the time at which the version was archived, or None to restore it; return the document after that.

        A version that is archived already keeps its time.  Raises NotFoundError as get() does, and RejectedError for a
        document of the replaced worker.  Does not check aliases: pipeline.lifecycle.archiving does.
        """
        ...

    def same(self, project: str, reuse_key: str) -> RegisteredModel | None:
        """The project's newest version with this key (see pipeline.training.reuse_key), unless archived; else None."""
        ...

    def usage(self, project: str) -> Usage:
        """The usage by the project's versions that are not archived; documents of the replaced worker do not count."""
        ...

    def count(self) -> int:
        """The number of versions, including archived ones."""
        ...
