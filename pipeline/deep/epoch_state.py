"""Saves and loads the state of a training between epochs, as a checkpoint."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self
from zipfile import BadZipFile

import numpy as np
import orjson
from numpy.typing import NDArray

WRITING_SHARE = 0.05
"""The share of a training's time that checkpoints may take; short epochs do not get one each."""
FIRST_AFTER_S = 1.0
"""Shorter trainings get none: the worker stores one every 5 s at most."""

Arrays = Sequence[NDArray[Any]]
_ARRAYS = ("weights", "optimizer", "best")


@dataclass(slots=True)
class EpochState:
    """The state of a training after an epoch.

    Attributes:
        epoch: the number of finished epochs.
        weights, optimizer: their state after the last epoch.
        best, best_loss, best_epoch: the weights with the lowest validation loss, if there is validation.
        losses, validation_losses: one per epoch.
    """

    epoch: int = 0
    weights: Arrays = ()
    optimizer: Arrays = ()
    best: Arrays = ()
    best_loss: float = float("inf")
    best_epoch: int = 0
    losses: list[float] = field(default_factory=list)
    validation_losses: list[float] = field(default_factory=list)

    def save(self, path: Path, made_on: str) -> None:
        """Replace the file atomically.  `made_on` identifies what the state depends on beside the request."""
        arrays = {f"{name}_{place}": array for name in _ARRAYS for place, array in enumerate(getattr(self, name))}
        rest = {
            "made_on": made_on,
            "epoch": self.epoch,
            "best_loss": None if np.isinf(self.best_loss) else self.best_loss,
            "best_epoch": self.best_epoch,
            "losses": self.losses,
            "validation_losses": self.validation_losses,
        }
        unfinished = path.with_suffix(".new")
        with unfinished.open("wb") as file:
            np.savez(file, rest=np.frombuffer(orjson.dumps(rest), dtype=np.uint8), **arrays)
        unfinished.replace(path)

    @classmethod
    def load(cls, path: Path, made_on: str) -> Self | None:
        """The saved state; None if the file is missing, unreadable, or has another `made_on`."""
        try:
            with np.load(path, allow_pickle=False) as file:
                rest: dict[str, Any] = orjson.loads(file["rest"].tobytes())
                if rest.pop("made_on") != made_on:
                    return None
                for kind in _ARRAYS:
                    count = sum(name.startswith(f"{kind}_") for name in file.files)
                    rest[kind] = [file[f"{kind}_{place}"] for place in range(count)]
        except (OSError, BadZipFile, KeyError, ValueError, EOFError):
            return None
        if rest["best_loss"] is None:
            rest["best_loss"] = float("inf")
        return cls(**rest)


@dataclass(slots=True)
class EpochWatch:
    """Observes a training: `told` is called after each epoch (done, of how many, message), and `checkpoint` is the file
    that it resumes from and saves its state in.  Neither changes the result.
    """

    told: Callable[[int, int, str], None] = lambda *_: None
    checkpoint: Path | None = None
    made_on: str = ""
    clock: Callable[[], float] = time.monotonic
    _next_at: float = field(init=False)

    def __post_init__(self) -> None:
        self._next_at = self.clock() + FIRST_AFTER_S

    def resumed(self) -> EpochState | None:
        return None if self.checkpoint is None else EpochState.load(self.checkpoint, self.made_on)

    def due(self) -> bool:
        """Whether a checkpoint may be written now, by FIRST_AFTER_S and WRITING_SHARE."""
        return self.checkpoint is not None and self.clock() >= self._next_at

    def keep(self, state: EpochState) -> None:
        assert self.checkpoint is not None
        begun = self.clock()
        state.save(self.checkpoint, self.made_on)
        ended = self.clock()
        self._next_at = ended + (ended - begun) / WRITING_SHARE
