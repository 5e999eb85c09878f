"""Aliases: names such as `production` that point to a version of a model, with their history.

All adapters pass tests/contract/test_aliases.py and may raise TransientError.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Protocol

PRODUCTION = "production"
"""The default alias."""


class AliasChangeReason(StrEnum):
    PROMOTED = "PROMOTED"
    ROLLED_BACK = "ROLLED_BACK"
    REMOVED = "REMOVED"


@dataclass(frozen=True, slots=True)
class AliasChange:
    """One change.  `sequence` counts from 1 without gaps; a version is None if the alias points nowhere."""

    sequence: int
    version_number: int | None
    previous_version_number: int | None
    reason: AliasChangeReason
    user: str
    occurred_at: datetime


@dataclass(frozen=True, slots=True)
class Alias:
    """An alias as it is stored; the last change in `history` is the current one.

    Attributes:
        announced_sequence: changes up to this one are known to be on the topic; later ones are announced again.
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
        """Create collections and indexes; may be called again, and by several workers at once."""
        ...

    def get(self, project: str, model_name: str, alias: str) -> Alias | None:
        """The alias, or None if it never existed; a removed alias still has its history."""
        ...

    def list(self, *, project: str | None = None, model_name: str | None = None) -> Sequence[Alias]:
        """All aliases, sorted by project, model and name."""
        ...

    def change(self, project: str, model_name: str, alias: str, change: AliasChange) -> Alias | None:
        """Append the change atomically if its sequence is the next one; None if another change came first.

        A change that is stored already, because an answer was lost, is not appended again.
        """
        ...

    def unannounced(self) -> Sequence[Alias]:
        """The aliases with changes that are not known to be on the topic."""
        ...

    def announced(self, alias: Alias) -> None:
        """Note that all changes of this alias are on the topic; a change made since is not included."""
        ...
