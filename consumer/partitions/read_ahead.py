"""Decides how much of the requests topic is read ahead, and of which projects.

Up to LOOK_AHEAD requests are held, read in the order of each partition. At that limit reading continues for *guests*:
projects of which the worker holds few requests. Their requests are accepted beyond the limit, and those of all other
projects, called *sated*, are passed over until there is room again. So a project with a hundred thousand requests does
not delay a project with one.
"""

from __future__ import annotations

from consumer.partitions.assignment import Assignment
from consumer.partitions.records import Reading

RESUME_SHARE = 0.2
"""At a limit, reading resumes once this share of it is free: each pause drops what was fetched ahead."""
UNCLAIMED_LIMIT = 2_000
"""The most records whose claim the ledger has not answered yet."""
GUESTS_SHARE = 0.1
"""Share of LOOK_AHEAD, beyond it, that all guests together may hold."""
GUEST_SHARE = 0.01
"""Share of LOOK_AHEAD from which a project is sated and no guest any more."""
PASSED_LIMIT = 100_000
"""The most passed-over requests. Each takes some 100 bytes, and is read again for each fifth of LOOK_AHEAD done."""


class ReadAhead:
    """Owned by the worker's thread."""

    def __init__(self, look_ahead: int, *, passed_limit: int = PASSED_LIMIT) -> None:
        self._look_ahead = look_ahead
        self._guests = max(1, int(look_ahead * GUESTS_SHARE))
        self._guest = max(1, int(look_ahead * GUEST_SHARE))
        self._passed_limit = passed_limit
        self._choked = False
        """Whether too many records wait for their claim."""
        self.full = False
        """Whether LOOK_AHEAD is reached, so that only guests' requests are accepted."""
        self.received = 0
        """How many records the intake has delivered since the start."""

    def reading(self, assignment: Assignment, unclaimed: int, *, halted: bool) -> Reading:
        """What to read now: nothing while `halted`, or while the ledger does not keep up with claims."""
        held = assignment.unfinished
        self.full = held >= _limit(self._look_ahead, self.full)
        self._choked = unclaimed >= _limit(UNCLAIMED_LIMIT, self._choked)
        room = min(self._look_ahead + (self._guests if self.full else 0) - held, UNCLAIMED_LIMIT - unclaimed)
        return Reading(
            records=self.received + (0 if halted or self._choked else max(0, room)),
            closed=assignment.closed(self._passed_limit),
            in_order=assignment.crowded(),
            sated=assignment.holding(self._guest) if self.full else frozenset(),
            idle=assignment.empty and not unclaimed and not halted,
        )


def _limit(limit: int, reached: bool) -> float:
    return limit * (1 - RESUME_SHARE) if reached else limit
