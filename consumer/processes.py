"""What a process asks of the kernel for its own end."""

from __future__ import annotations

import ctypes
import signal

PR_SET_PDEATHSIG = 1
"""prctl(2)"""


def die_with_parent(how: signal.Signals | None = signal.SIGKILL) -> None:
    """Get this signal when the thread that started this process ends, however it ends; None: no more."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, 0 if how is None else how)
