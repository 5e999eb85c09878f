"""Limits a project's registered versions, bytes of artifacts, and concurrent trainings in a worker."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from pipeline.registry import Usage

EVERY_PROJECT = "*"


@dataclass(frozen=True, slots=True)
class Quota:
    """The maximum of each; None means no limit.  `models` and `bytes` count versions that are not archived."""

    models: int | None = None
    bytes: int | None = None
    trainings: int | None = None

    def excess(self, project: str, usage: Usage) -> str:
        """Why the project may register no more versions, with the figures; empty if it may."""
        full = [
            f"{used:,} of {limit:,} {what}"
            for used, limit, what in (
                (usage.models, self.models, "models"),
                (usage.bytes, self.bytes, "bytes of model files"),
            )
            if limit is not None and used >= limit
        ]
        if not full:
            return ""
        return (
            f"project {project} has {' and '.join(full)}; archive some (`tensorfleet models archive NAME@v1`), "
            "or ask for more (PROJECT_QUOTAS)"
        )


NO_QUOTA = Quota()


@dataclass(frozen=True, slots=True)
class Quotas:
    """The quota of every project: its own limits, and those of `*` for limits that it does not set."""

    of_projects: Mapping[str, Quota] = field(default_factory=dict)

    @classmethod
    def of(cls, given: Mapping[str, Mapping[Any, int | None]]) -> Self:
        """Read `{"*": {"models": 1000}, "risk": {"models": null, "trainings": 2}}`; null lifts a limit of `*`."""
        everyone = given.get(EVERY_PROJECT, {})
        return cls({project: Quota(**{**everyone, **own}) for project, own in given.items()})

    def quota(self, project: str) -> Quota:
        return self.of_projects.get(project) or self.of_projects.get(EVERY_PROJECT, NO_QUOTA)

    def trainings(self, project: str) -> int | None:
        """How many of the project's requests one worker may train at once; None means no limit."""
        return self.quota(project).trainings

    def limits_storage(self, project: str) -> bool:
        """Whether the registry's usage must be read before a request of the project is trained."""
        quota = self.quota(project)
        return quota.models is not None or quota.bytes is not None
