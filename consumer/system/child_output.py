"""Reads what a child process writes to its standard output and error, up to a limit.

A child that writes endlessly is slowed to the speed of these reads, and fills neither a log nor a disk.
"""

from __future__ import annotations

import os
from contextlib import suppress

SIP_BYTES = 65_536
"""The most that one call of `lines` reads, so about 600 kB a second."""
LIMIT_BYTES = 65_536
"""The most output of one training or load that is logged; the rest is thrown away."""
LINE_LIMIT = 4_000


class Output:
    """Owned by the thread that watches the process. `writing` is the process's end."""

    def __init__(self) -> None:
        self._reading, self.writing = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(self._reading, False)
        self._left = LIMIT_BYTES

    def given_away(self) -> None:
        """Close our copy of `writing`, once the process or its forkserver has it."""
        os.close(self.writing)

    def begin(self) -> None:
        """Begin the output of another training or load, with its full limit."""
        self._left = LIMIT_BYTES

    def lines(self) -> list[str]:
        """The lines written since the last call, within the limits."""
        sip = b""
        with suppress(BlockingIOError):
            sip = os.read(self._reading, SIP_BYTES)
        wanted, before = sip[: self._left], self._left
        self._left -= len(wanted)
        lines = [line[:LINE_LIMIT] for line in wanted.decode(errors="replace").splitlines() if line.strip()]
        if before and not self._left:
            lines.append(f"it has written {LIMIT_BYTES:,} bytes; what else it writes is not logged")
        return lines

    def close(self) -> None:
        os.close(self._reading)
