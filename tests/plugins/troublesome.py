"""An algorithm that does what trainings do on a bad day. Found by its entry point when this folder is on the path."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
import warnings
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


class Troublesome(ClassifierMixin, BaseEstimator):
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


def _until(me: Troublesome) -> None:
    """Waits for a file, so that a test decides how long this takes."""
    while not Path(me.path + ".go").exists():
        time.sleep(0.05)


def _deaf(me: Troublesome) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    time.sleep(me.seconds)


_TROUBLE = {
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
