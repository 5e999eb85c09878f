"""The state of a training between epochs, and its checkpoints."""

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
"""Of a training's time that checkpoints may cost: a short epoch is not worth one each."""

Arrays = Sequence[NDArray[Any]]
_ARRAYS = ("weights", "optimizer", "best")


@dataclass(slots=True)
class EpochState:
    """Where a training is.

    Attributes:
        epoch: how many are done.
        weights, optimizer: after the last one.
        best, best_loss, best_epoch: the weights with the lowest validation loss, where there is validation.
        losses, validation_losses: one an epoch.
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
        """Replace the file as a whole.  `made_on` says on what the state depends beside the request."""
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
        """None where there is no such file, or it cannot be read, or was made on something else."""
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
    """What a training is watched by: `told` hears of each epoch (done, of how many, in words), and `checkpoint` is the
    file that it goes on from and leaves its state in.  Neither changes what comes out.
    """

    told: Callable[[int, int, str], None] = lambda *_: None
    checkpoint: Path | None = None
    made_on: str = ""
    clock: Callable[[], float] = time.monotonic
    _next_at: float = 0.0

    def resumed(self) -> EpochState | None:
        return None if self.checkpoint is None else EpochState.load(self.checkpoint, self.made_on)

    def due(self) -> bool:
        """Whether a checkpoint is worth its time now."""
        return self.checkpoint is not None and self.clock() >= self._next_at

    def keep(self, state: EpochState) -> None:
        assert self.checkpoint is not None
        begun = self.clock()
        state.save(self.checkpoint, self.made_on)
        ended = self.clock()
        self._next_at = ended + (ended - begun) / WRITING_SHARE
