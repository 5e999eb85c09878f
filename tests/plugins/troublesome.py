"""An algorithm that does what trainings do on a bad day. Found by its entry point when this folder is on the path."""

from __future__ import annotations

import ctypes
import hashlib
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin

from pipeline.algorithms import Algorithm
from pipeline.algorithms.hyperparameters import Choice, Hyperparameter, Number


class AnyText:
    def read(self, value: Any) -> str:
        return str(value)

    def __str__(self) -> str:
        return "text"


class Troublesome(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """Predicts the first class, after trouble.

    Parameters:
        mode: what to do in fit; see `_TROUBLE`.
        seconds: for how long, where that means something.
        path: a file that a mode leaves something in.
    """

    def __init__(self, mode: str = "none", seconds: float = 1.0, path: str = "") -> None:
        self.mode = mode
        self.seconds = seconds
        self.path = path

    def fit(self, X: Any, y: Any) -> Troublesome:
        if self.path:
            with Path(self.path).open("a") as log:
                log.write(f"{os.getpid()}\n")
        _TROUBLE[self.mode](self)
        self.classes_ = np.unique(y)
        return self

    def predict(self, X: Any) -> Any:
        return np.full(X.shape[0], self.classes_[0])


def _hang_in_c(me: Troublesome) -> None:
    """Holds the interpreter's lock in C code, where no Python signal handler runs."""
    ctypes.PyDLL(None).sleep(int(me.seconds))


def _swell(me: Troublesome) -> None:
    """Takes memory piece by piece, each touched."""
    kept = []
    while True:
        kept.append(np.ones(8 * 2**20))
        time.sleep(0.02)


def _swell_outside(me: Troublesome) -> None:
    """Takes memory that RLIMIT_DATA does not count: shared mappings."""
    import mmap

    kept = []
    while True:
        piece = mmap.mmap(-1, 64 * 2**20)
        piece.write(b"x" * (64 * 2**20))
        kept.append(piece)
        time.sleep(0.02)


def _grandchild(me: Troublesome) -> None:
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    Path(me.path).write_text(str(child.pid))
    time.sleep(me.seconds)


def _first_fails(me: Troublesome) -> None:
    """The first training of all fails, and every other one is good; each takes its time."""
    try:
        Path(me.path + ".first").touch(exist_ok=False)
    except FileExistsError:
        time.sleep(me.seconds)
    else:
        time.sleep(me.seconds)
        raise ValueError("the first training fails")


def _until(me: Troublesome) -> None:
    """Waits for a file, so that a test decides how long this takes."""
    while not Path(me.path + ".go").exists():
        time.sleep(0.05)


def _deaf(me: Troublesome) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    time.sleep(me.seconds)


def _chatter(me: Troublesome) -> None:
    """Writes to both without an end, or for as long as it is told."""
    until = time.monotonic() + me.seconds
    while time.monotonic() < until:
        sys.stdout.write("y" * 999 + "\n")
        sys.stderr.write("z" * 999 + "\n")


def _close_all(me: Troublesome) -> None:
    os.closerange(0, 4096)
    time.sleep(me.seconds)


def _babble(me: Troublesome) -> None:
    """Writes into every socket it has, as one does who mistakes a descriptor's number."""
    for descriptor in range(3, 256):
        try:
            os.write(descriptor, b"hello?")
        except OSError:
            continue
    time.sleep(me.seconds)


_LEAKED: list[int] = []


def _leak(me: Troublesome) -> None:
    """Leaves a hundred descriptors open, and as many temporary files; `path` gets the folder's name."""
    _LEAKED.extend(tempfile.mkstemp()[0] for _ in range(100))
    Path(me.path).write_text(f"{tempfile.gettempdir()}\n{len(_LEAKED)}")


def _leave_running(me: Troublesome) -> None:
    """Ends, but what it has started goes on."""
    Path(me.path).write_text(str(subprocess.Popen(["sleep", "600"]).pid))


def _daemon(me: Troublesome) -> None:
    """Starts what leaves group and session behind: fork, setsid, fork."""
    daemon = "import os, sys, time\nif os.fork(): os._exit(0)\nos.setsid()\nif os.fork(): os._exit(0)\n"
    daemon += "open(sys.argv[1], 'w').write(str(os.getpid()))\ntime.sleep(600)\n"
    subprocess.run([sys.executable, "-c", daemon, me.path], check=True)
    time.sleep(me.seconds)


def _swell_in_a_grandchild(me: Troublesome) -> None:
    """Several, as one alone would meet the limit that it inherits."""
    swell = "import time\nkept = []\nwhile True: kept.append(bytearray(b'x') * 2**23); time.sleep(0.1)"
    for one in [subprocess.Popen([sys.executable, "-c", swell]) for _ in range(4)]:
        one.wait()


def _spin(me: Troublesome) -> None:
    """Computes in more threads than it may, in C code without the interpreter's lock."""

    def work() -> None:
        until, block = time.monotonic() + me.seconds, bytes(2**20)
        while time.monotonic() < until:
            hashlib.sha256(block)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _kill_worker(me: Troublesome) -> None:
    """Ends the process that the forkserver belongs to."""
    worker = int(Path(f"/proc/{os.getppid()}/stat").read_text().rpartition(")")[2].split()[1])
    os.kill(worker, signal.SIGKILL)
    time.sleep(me.seconds)


def _fill_disk(me: Troublesome) -> None:
    """Writes where its model file will be, until there is no space."""
    with tempfile.NamedTemporaryFile() as file:
        for _ in range(4096):
            file.write(bytes(2**20))
        file.flush()


_TROUBLE: dict[str, Callable[[Troublesome], object]] = {
    "none": lambda me: None,
    "sleep": lambda me: time.sleep(me.seconds),
    "hang": _hang_in_c,
    "swell": _swell,
    "swell_outside": _swell_outside,
    "segfault": lambda me: ctypes.string_at(0),
    "exit": lambda me: os._exit(3),
    "grandchild": _grandchild,
    "deaf": _deaf,
    "until": _until,
    "first_fails": _first_fails,
    "chatter": _chatter,
    "close_all": _close_all,
    "babble": _babble,
    "leak": _leak,
    "leave_running": _leave_running,
    "daemon": _daemon,
    "swell_in_a_grandchild": _swell_in_a_grandchild,
    "spin": _spin,
    "kill_worker": _kill_worker,
    "fill_disk": _fill_disk,
    "raise": lambda me: (_ for _ in ()).throw(ValueError("the data is cursed")),
    "warn": lambda me: warnings.warn("the data is strange", stacklevel=1),
}

TROUBLESOME = Algorithm(
    name="troublesome",
    description="Does what trainings do on a bad day; for tests.",
    task="classification",
    estimator=Troublesome,
    hyperparameters={
        "mode": Hyperparameter("mode", "none", [Choice(frozenset(_TROUBLE))]),
        "seconds": Hyperparameter("seconds", 1.0, [Number(0.0, 3600.0)]),
        "path": Hyperparameter("path", "", [AnyText()]),
    },
    seeded=False,
    trusted_types=("troublesome.Troublesome",),
)
