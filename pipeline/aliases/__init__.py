"""Aliases: names such as `production` that point to a version of a model, with their whole history.

Every adapter keeps the same contract (tests/contract/test_aliases.py) and may raise TransientError.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Protocol

PRODUCTION = "production"
"""The alias that is meant where none is named."""


class AliasChangeReason(StrEnum):
    PROMOTED = "PROMOTED"
    ROLLED_BACK = "ROLLED_BACK"
    REMOVED = "REMOVED"


@dataclass(frozen=True, slots=True)
class AliasChange:
    """One change.  `sequence` counts from 1 without a gap; a version is None where the alias points nowhere."""

    sequence: int
    version_number: int | None
    previous_version_number: int | None
    reason: AliasChangeReason
    user: str
    occurred_at: datetime


@dataclass(frozen=True, slots=True)
class Alias:
    """An alias as it is stored; `history` ends with the change that holds.

    Attributes:
        announced_sequence: up to which its changes are known to be on the topic; what is beyond is announced again.
    """

    project: str
    model_name: str
    alias: str
    history: tuple[AliasChange, ...]
    announced_sequence: int = 0

    @property
    def version_number(self) -> int | None:
        return self.history[-1].version_number

    @property
    def sequence(self) -> int:
        return self.history[-1].sequence

    @property
    def unannounced(self) -> Sequence[AliasChange]:
        return [change for change in self.history if change.sequence > self.announced_sequence]


class AliasStore(Protocol):
    """Changes are durable when a method returns."""

    def prepare(self) -> None:
        """Create collections and indexes; safe to call again and from several workers at once."""
        ...

    def get(self, project: str, model_name: str, alias: str) -> Alias | None:
        """None if there never was such an alias; one that was removed still has its history."""
        ...

    def list(self, *, project: str | None = None, model_name: str | None = None) -> Sequence[Alias]:
        """By project, model and name."""
        ...

    def change(self, project: str, model_name: str, alias: str, change: AliasChange) -> Alias | None:
        """Append the change if its sequence is the next one, in one atomic step; None if another change came first.

        A change that is there already, since an answer was lost, is not appended again.
        """
        ...

    def unannounced(self) -> Sequence[Alias]:
        """Those with changes that are not known to be on the topic."""
        ...

    def announced(self, alias: Alias) -> None:
        """All of this alias's changes are on the topic; one that came since is not."""
        ...
