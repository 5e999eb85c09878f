"""Names of datasets: which are good, and what is near to one that does not exist."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

from pipeline.datasets.builtin import BUILTINS
from pipeline.errors import RejectedError
from pipeline.jobs import NAME

SHOWN = 10


def check_name(name: str) -> None:
    """Raises RejectedError for what cannot be the name of a dataset."""
    if not NAME.fullmatch(name):
        raise RejectedError(f"dataset {name[:200]!r}: a name has 1 to 128 of the characters A-Z a-z 0-9 . _ -")


def check_free(name: str) -> None:
    """Raises RejectedError for what cannot be the name of a new dataset."""
    check_name(name)
    if name in BUILTINS:
        raise RejectedError(f"dataset {name!r} is built in; give yours another name")


def unknown(name: str, known: Iterable[str]) -> RejectedError:
    """There is no such dataset: names the near ones, or all if they are few."""
    names = sorted({*known, *BUILTINS})
    near = get_close_matches(name, names, n=3, cutoff=0.6)
    if near:
        return RejectedError(f"there is no dataset {name!r}; did you mean {' or '.join(near)}?")
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return RejectedError(f"there is no dataset {name!r}; there are {', '.join(names[:SHOWN])}{more}")
