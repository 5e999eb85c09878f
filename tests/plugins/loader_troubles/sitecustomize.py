"""Makes loaders stumble over datasets of these names: put this folder on the PYTHONPATH of what starts them."""

from __future__ import annotations

import ctypes
import faulthandler
import mmap
import os
import signal
import subprocess
import sys
import time
from pathlib import Path


def segfault() -> None:
    faulthandler._sigsegv()  # type: ignore[attr-defined]  # left out of the stubs


def leave() -> None:
    os._exit(3)


def hang() -> None:
    """In C code, with the interpreter held."""
    ctypes.PyDLL(None).pause()


def grow() -> None:
    kept = []
    while True:
        kept.append(bytearray(2**20))


def gulp() -> None:
    """Much at once, which it does not touch."""
    bytes(2**32)


def swell() -> None:
    """In memory that RLIMIT_DATA does not count."""
    kept = []
    while True:
        kept.append(mmap.mmap(-1, 2**23))
        kept[-1].write(b"x" * 2**23)


def killed() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def killed_once() -> None:
    marker = Path(os.environ["LOADER_TROUBLES_MARKER"])
    if not marker.exists():
        marker.touch()
        killed()


def orphan() -> None:
    """Leaves a process behind that has left its group, and whose parent has ended, as daemons do."""
    subprocess.run(["/bin/sh", "-c", "/bin/sleep 1000 &"], start_new_session=True, check=True)


def orphan_and_hang() -> None:
    orphan()
    hang()


def chatter() -> None:
    for _ in range(10_000):
        os.write(2, b"a line\n")


def terminated_once() -> None:
    """As by a service manager that stops all processes of a worker."""
    marker = Path(os.environ["LOADER_TROUBLES_MARKER"])
    if not marker.exists():
        marker.touch()
        os.kill(os.getpid(), signal.SIGTERM)


def slow() -> None:
    time.sleep(0.3)


def compute() -> None:
    """For a second of CPU time."""
    end = time.process_time() + 1.0
    while time.process_time() < end:
        pass


def compute_for_ever() -> None:
    while True:
        pass


PROCESS = (segfault, leave, hang, killed, killed_once, terminated_once, orphan, orphan_and_hang, chatter, slow)
RESOURCES = (grow, gulp, swell, compute, compute_for_ever)
TROUBLES = {trouble.__name__: trouble for trouble in PROCESS + RESOURCES}

if "consumer.loaders.child" in sys.orig_argv:
    from pipeline.datasets import Abandoned, Content, Fetched, reading

    read = reading.read

    def stumble(fetched: Fetched, into: Path, max_bytes: int | None, abandoned: Abandoned | None = None) -> Content:
        TROUBLES.get(fetched.name, bool)()
        return read(fetched, into, max_bytes, abandoned)

    reading.read = stumble
