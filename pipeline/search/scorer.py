"""Scores candidates on every fold and appends the scores to a file."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from pipeline.metrics import LOWER_IS_BETTER
from pipeline.search.fitting import Fit, Fitted, Fitting, Fold
from pipeline.search.space import Values, key_of


@dataclass(frozen=True, slots=True)
class Trial:
    """A scored candidate.

    Attributes:
        rows: the training rows of each fold that it was fitted on.
        scores: one per fold, in the metric's own unit; empty if it could not be fitted, and then `error` says why.
        fit_s: seconds for all folds.
    """

    number: int
    hyperparameters: Values
    rows: int
    scores: Sequence[float]
    fit_s: float
    error: str = ""

    @property
    def mean(self) -> float | None:
        return float(np.mean(self.scores)) if self.scores else None

    def to_document(self) -> dict[str, Any]:
        return {
            "number": self.number,
            "hyperparameters": dict(self.hyperparameters),
            "rows": self.rows,
            "scores": list(self.scores),
            "mean": self.mean,
            "std": float(np.std(self.scores)) if self.scores else None,
            "fit_s": self.fit_s,
            "error": self.error,
        }


@dataclass(frozen=True, slots=True)
class SearchResult:
    """The result of a search.  `planned` candidates were to be scored; `cut` says that the time budget ended it."""

    best: Trial
    trials: Sequence[Trial]
    planned: int
    scoring: str
    cut: bool

    def to_document(self) -> dict[str, Any]:
        return {
            "scoring": self.scoring,
            "lower_is_better": self.scoring in LOWER_IS_BETTER,
            "planned": self.planned,
            "cut": self.cut,
            "best": self.best.number,
            "candidates": [trial.to_document() for trial in self.trials],
        }


@dataclass(slots=True)
class Scorer:
    scoring: str
    folds: Sequence[Fold]
    fit: Fit
    fitting: Fitting
    notes: Path
    made_on: bytes
    report: Callable[[int, int, str], None]
    trials: list[Trial] = field(default_factory=list)
    best: Trial | None = None
    _known: dict[bytes, dict[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Read the notes: none if their first line (data, environment) differs, and no incomplete last line."""
        found = self.notes.read_bytes().split(b"\n")[:-1] if self.notes.exists() else []
        lines = found[1:] if found[:1] == [self.made_on] else []
        rewritten = self.notes.with_suffix(".new")
        rewritten.write_bytes(b"".join(line + b"\n" for line in (self.made_on, *lines)))
        rewritten.replace(self.notes)
        for note in map(orjson.loads, lines):
            self._known[key_of(note["hyperparameters"], note["rows"])] = note

    def score(self, candidates: Sequence[Values], rows: int | None, planned: int) -> Generator[Trial]:
        """Yield a trial for each candidate, scored on every fold and noted, or taken from the notes."""
        used = max(len(fold.target) for fold in self.folds) if rows is None else rows
        new = [candidate for candidate in candidates if key_of(candidate, used) not in self._known]
        outcomes = self.fitting(self.folds, self.fit, new, used)
        try:
            for candidate in candidates:
                yield self._scored(candidate, used, planned, outcomes)
        finally:
            outcomes.close()

    def _scored(self, candidate: Values, rows: int, planned: int, outcomes: Iterator[Fitted]) -> Trial:
        number = len(self.trials) + 1
        known = self._known.get(key_of(candidate, rows))
        if known is not None:
            trial = Trial(number, candidate, rows, known["scores"], known["fit_s"], known["error"])
        else:
            trial = self._fitted(number, candidate, rows, outcomes)
            note = trial.to_document()
            with self.notes.open("ab") as notes:
                notes.write(orjson.dumps(note) + b"\n")
            self._known[key_of(candidate, rows)] = note
        self.trials.append(trial)
        if self.gain(trial) is not None and (self.best is None or self._better(trial, self.best)):
            self.best = trial
        so_far = "none yet" if self.best is None else f"{self.best.mean:.4g}"
        self.report(number, planned, f"candidate {number:,} of {planned:,}; best {self.scoring} {so_far}")
        return trial

    def gain(self, trial: Trial) -> float | None:
        """The mean over the folds, negated if lower is better; None if the candidate could not be scored."""
        if trial.mean is None:
            return None
        return -trial.mean if self.scoring in LOWER_IS_BETTER else trial.mean

    def _better(self, trial: Trial, best: Trial) -> bool:
        """More rows win over a better score, so that the last round of a halving search decides."""
        new, old = self.gain(trial), self.gain(best)
        assert new is not None
        assert old is not None
        return trial.rows > best.rows or (trial.rows == best.rows and new > old)

    def _fitted(self, number: int, candidate: Values, rows: int, outcomes: Iterator[Fitted]) -> Trial:
        """The next outcome as a trial."""
        outcome = next(outcomes)
        error = outcome.error
        defined = [score for score in outcome.scores if score is not None and np.isfinite(score)]
        if not error and len(defined) < len(outcome.scores):
            error = f"{self.scoring} is not defined on every fold"
        return Trial(number, candidate, rows, () if error else defined, outcome.fit_s, error)
