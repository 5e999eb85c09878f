"""The name under which model files keep our own types: one that does not follow where their code is."""

from __future__ import annotations

from typing import TypeVar

MODULE = "tensorfleet.model_types"
"""Imports every type that is `stored`, so that a file's names lead to it."""

AnyType = TypeVar("AnyType", bound=type)


def stored(kept: AnyType) -> AnyType:
    """A class whose instances model files hold: it is known by MODULE, wherever it is defined."""
    kept.__module__ = MODULE
    return kept
