"""How a thread says that it cannot go on."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ThreadFailed:
    """A thread met an error that it does not know: the worker must end, loudly."""

    thread: str
    error: BaseException
