"""Limits of a project: registered versions, bytes of artifacts, trainings at once in a worker."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from pipeline.registry import Usage

EVERY_PROJECT = "*"


@dataclass(frozen=True, slots=True)
class Quota:
    """The most of each; None is no limit.  `models` and `bytes` are of versions that are not archived."""

    models: int | None = None
    bytes: int | None = None
    trainings: int | None = None

    def excess(self, project: str, usage: Usage) -> str:
        """Why the project may register no more, with the figures; empty if it may."""
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
    """The quota of every project: its own figures, and where it has none those of `*`."""

    of_projects: Mapping[str, Quota] = field(default_factory=dict)

    @classmethod
    def of(cls, given: Mapping[str, Mapping[Any, int | None]]) -> Self:
        """From `{"*": {"models": 1000}, "risk": {"models": null, "trainings": 2}}`: null lifts a limit of `*`."""
        everyone = given.get(EVERY_PROJECT, {})
        return cls({project: Quota(**{**everyone, **own}) for project, own in given.items()})

    def quota(self, project: str) -> Quota:
        return self.of_projects.get(project) or self.of_projects.get(EVERY_PROJECT, NO_QUOTA)

    def trainings(self, project: str) -> int | None:
        """How many of the project's requests one worker may train at once."""
        return self.quota(project).trainings

    def limits_storage(self, project: str) -> bool:
        """Whether the registry is to be asked before a request of the project is trained."""
        quota = self.quota(project)
        return quota.models is not None or quota.bytes is not None
