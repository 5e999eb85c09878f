"""Checks names of datasets, and suggests similar ones for a name that does not exist."""

from __future__ import annotations

import re
from collections.abc import Iterable

from pipeline.datasets.builtin import BUILTINS
from pipeline.errors import RejectedError, did_you_mean
from pipeline.jobs import NAME

SHOWN = 10
VERSION = re.compile(r"(.+)\.v([1-9]\d{0,8})")


def check_name(name: str) -> None:
    """Raises RejectedError if this cannot be the name of a dataset."""
    if not NAME.fullmatch(name):
        raise RejectedError(f"dataset {name[:200]!r}: a name has 1 to 128 of the characters A-Z a-z 0-9 . _ -")


def check_free(name: str) -> None:
    """Raises RejectedError if this cannot be the name of a new dataset, or of one with versions."""
    check_name(name)
    if name in BUILTINS:
        raise RejectedError(f"dataset {name!r} is built in; give yours another name")
    if version := version_of(name):
        base, number = version
        raise RejectedError(f"dataset {name!r}: that is what version {number} of {base} is called; use {base}")


def is_collection_name(name: str) -> bool:
    """Whether a collection may have this name, which `check_name` accepts; MongoDB refuses or reserves some."""
    return not (name.startswith((".", "system.")) or name.endswith(".") or ".." in name)


def version_of(name: str) -> tuple[str, int] | None:
    """The dataset and number in `NAME.vN`, or None.  A dataset that itself has such a name takes precedence."""
    match = VERSION.fullmatch(name)
    return (match[1], int(match[2])) if match else None


def version_name(name: str, number: int) -> str:
    """The name by which a request asks for this version, current or not."""
    return f"{name}.v{number}"


def unknown_version(name: str, number: int, known: Iterable[int]) -> RejectedError:
    there = ", ".join(f"v{one}" for one in sorted(known)) or "none"
    return RejectedError(f"dataset {name!r} has no version v{number}; it has {there}")


def not_versioned(name: str) -> RejectedError:
    return RejectedError(f"dataset {name!r} has no versions: only what was imported has")


def unknown(name: str, known: Iterable[str]) -> RejectedError:
    """The error for an unknown dataset: names similar ones, or else the first SHOWN."""
    names = sorted({*known, *BUILTINS})
    if hint := did_you_mean(name, names):
        return RejectedError(f"there is no dataset {name!r}{hint}")
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return RejectedError(f"there is no dataset {name!r}; there are {', '.join(names[:SHOWN])}{more}")
