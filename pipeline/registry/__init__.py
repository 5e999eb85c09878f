"""The registry: one document per model version, v1, v2, … per (project, model_name), with no gap and no collision.

Every adapter keeps the same contract (tests/contract/test_registry.py) and may raise TransientError.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from types import MappingProxyType
from typing import Protocol

from pipeline.jobs import Outcome, RegisteredModel

NO_TAGS: Mapping[str, str] = MappingProxyType({})


class Registry(Protocol):
    """Documents are durable (majority-written and journalled) when a method returns, and never change."""

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
        """One version, the newest if none is named.  Raises NotFoundError with the names or versions there are."""
        ...

    def list(
        self,
        *,
        project: str | None = None,
        model_name: str | None = None,
        dataset_name: str | None = None,
        tags: Mapping[str, str] = NO_TAGS,
        limit: int = 100,
    ) -> Sequence[RegisteredModel]:
        """The newest first; those with all of these tags."""
        ...

    def count(self) -> int:
        """How many versions there are."""
        ...
