"""Defines the places a job can be in, and the moves between them; prints the table of docs/architecture.md."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from enum import Enum


class Place(Enum):
    """Where a job is; the value says what that means."""

    PARKED = "another worker has it, or what we know is out of date: the ledger is asked again who owns it"
    WAITING = "ours, in its model's line"
    PREPARING = "its turn has come: its dataset is made ready, or a crash of its trainer is counted"
    READY = "waits for room in a lane"
    FED = "given to a lane; no trainer has taken it yet"
    TRAINING = "in a trainer's hands"
    STORING = "its result, or its negative outcome, is being made durable"
    STORED = "durable; its announcement is on its way, and the job is over"
    RELEASED = "given up here: another worker has it, or will"

    __hash__ = object.__hash__  # Enum's own hashes the name, in Python: slow for frequent look-ups


MOVES: Mapping[Place, frozenset[Place]] = {
    Place.PARKED: frozenset({Place.WAITING, Place.STORING, Place.RELEASED}),
    Place.WAITING: frozenset({Place.PREPARING, Place.STORING, Place.RELEASED}),
    Place.PREPARING: frozenset({Place.READY, Place.PARKED, Place.STORING, Place.RELEASED}),
    Place.READY: frozenset({Place.FED, Place.STORING, Place.RELEASED}),
    Place.FED: frozenset({Place.TRAINING, Place.READY, Place.PREPARING, Place.STORING, Place.RELEASED}),
    Place.TRAINING: frozenset({Place.READY, Place.PREPARING, Place.STORING, Place.RELEASED}),
    Place.STORING: frozenset({Place.STORED, Place.PARKED, Place.RELEASED}),
    Place.STORED: frozenset(),
    Place.RELEASED: frozenset(),
}
"""The places to which a job may go from each place."""

ENDS = frozenset(place for place, further in MOVES.items() if not further)
RUNNING = frozenset({Place.PREPARING, Place.READY, Place.FED, Place.TRAINING})
"""From a job's turn to the end of its training; only here does it hold a dataset."""


def table() -> Iterator[str]:
    """MOVES as Markdown."""
    yield "| a job is | that is | it may go on to be |"
    yield "|---|---|---|"
    for place, further in MOVES.items():
        names = ", ".join(one.name for one in Place if one in further)
        yield f"| {place.name} | {place.value} | {names or 'nothing: it is over'} |"


if __name__ == "__main__":
    sys.stdout.writelines(f"{line}\n" for line in table())
