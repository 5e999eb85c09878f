"""The module name under which model files store our own types, wherever their code is."""

from __future__ import annotations

from typing import TypeVar

MODULE = "tensorfleet.model_types"
"""This module imports every type that is `stored`, so that names in files resolve."""

AnyType = TypeVar("AnyType", bound=type)


def stored(kept: AnyType) -> AnyType:
    """Decorate a class whose instances model files hold: its module becomes MODULE, wherever it is defined."""
    kept.__module__ = MODULE
    return kept
