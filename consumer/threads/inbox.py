"""Queues messages for the main thread."""

from __future__ import annotations

import contextlib
import os
import time
from collections import deque
from collections.abc import Iterator
from typing import Any


class Inbox:
    """Messages for the worker's thread; its file descriptor is readable while there are any, and after `wake`."""

    def __init__(self) -> None:
        self._messages: deque[Any] = deque()
        self._event = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)

    def put(self, message: Any) -> None:
        self._messages.append(message)
        self.wake()

    def wake(self) -> None:
        """Let the worker's thread take a turn, with or without a message."""
        os.eventfd_write(self._event, 1)

    def fileno(self) -> int:
        return self._event

    def take(self, for_s: float) -> Iterator[Any]:
        """Take messages until there are no more or the time is over; if some are left, this stays readable."""
        until = time.monotonic() + for_s
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._event)
        while self._messages:
            yield self._messages.popleft()
            if time.monotonic() >= until:
                os.eventfd_write(self._event, 1)
                return
