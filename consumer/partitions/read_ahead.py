"""How much of the requests topic is read ahead, and of which projects.

Up to LOOK_AHEAD requests are held, read in the order of each partition. Once they are that many, reading goes on for
the sake of projects that have few of them: a guest's requests are taken in on top, and what others have in front of
them is passed over until there is room again. So whoever submits a hundred thousand requests keeps nobody waiting who
submits one.
"""

from __future__ import annotations

from consumer.partitions.assignment import Assignment
from consumer.partitions.records import Reading

RESUME_SHARE = 0.2
"""Reading goes on once this much of what may wait is free: pausing drops what was fetched ahead."""
UNCLAIMED_LIMIT = 2_000
GUESTS_SHARE = 0.1
"""Of LOOK_AHEAD, and on top of it: what all guests together may hold."""
GUEST_SHARE = 0.01
"""Of LOOK_AHEAD: what a project may hold and still be a guest."""
PASSED_LIMIT = 100_000
"""Requests passed over at once. Each takes some 100 bytes, and is read again for each fifth of LOOK_AHEAD done."""


class ReadAhead:
    """Owned by the worker's thread."""

    def __init__(self, look_ahead: int, *, passed_limit: int = PASSED_LIMIT) -> None:
        self._look_ahead = look_ahead
        self._guests = max(1, int(look_ahead * GUESTS_SHARE))
        self._guest = max(1, int(look_ahead * GUEST_SHARE))
        self._passed_limit = passed_limit
        self._choked = False
        self.full = False
        """Whether only guests are taken in."""
        self.received = 0
        """Records that the intake has delivered since the start."""

    def reading(self, assignment: Assignment, unclaimed: int, *, halted: bool) -> Reading:
        """What to read now; nothing while `halted` or while the ledger does not keep up with claims."""
        held = assignment.unfinished
        self.full = held >= _limit(self._look_ahead, self.full)
        self._choked = unclaimed >= _limit(UNCLAIMED_LIMIT, self._choked)
        room = min(self._look_ahead + (self._guests if self.full else 0) - held, UNCLAIMED_LIMIT - unclaimed)
        return Reading(
            records=self.received + (0 if halted or self._choked else max(0, room)),
            closed=assignment.closed(self._passed_limit),
            in_order=assignment.crowded(),
            sated=assignment.holding(self._guest) if self.full else frozenset(),
        )


def _limit(limit: int, reached: bool) -> float:
    return limit * (1 - RESUME_SHARE) if reached else limit
