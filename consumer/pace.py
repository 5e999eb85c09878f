"""How long what is finished gathers before it goes on as a group."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Pace:
    """Lets groups grow while every lane is busy, when only readers wait for them; else each goes at once."""

    every_s: float
    next_at: float = 0.0

    def wait_s(self, now: float, busy: bool) -> float:
        """How long the next group has to wait."""
        return max(0.0, self.next_at - now) if busy else 0.0

    def went(self, now: float) -> None:
        self.next_at = now + self.every_s
