"""Which threads of the worker stand still."""

from __future__ import annotations

from collections.abc import Mapping


class Turn:
    """Owned by one thread."""

    def begin(self) -> None:
        """An order was taken, or its thread is still alive while it works on one."""

    def rest(self) -> None:
        """The order is answered."""


class Watch:
    def turn(self, thread: str, limit_s: float) -> Turn:
        """Called in the thread that is watched."""
        return Turn()

    def stuck(self) -> Mapping[str, float]:
        """Threads beyond their limit, and for how many seconds they have been at work."""
        return {}
