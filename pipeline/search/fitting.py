"""Fits and scores candidates on folds, in this thread or through another `Fitting`."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from pipeline import algorithms, evaluation
from pipeline.errors import said_by
from pipeline.jobs import HyperparameterValue
from pipeline.search.space import Values


@dataclass(frozen=True, slots=True)
class Fold:
    """One prepared fold.  Its rows to fit on are shuffled, so that the first of them are a sample (not in splits by
    time).
    """

    fit_on: Any
    target: NDArray[Any]
    score: Callable[[Any], float | None]
    """Scores a fitted estimator on the fold's other rows; None if the metric is not defined there."""


Fit = Callable[[Values, Any, NDArray[Any]], Any]
"""Fits a new estimator with these hyperparameters on prepared rows and their target."""


@dataclass(frozen=True, slots=True)
class Fitted:
    """The result of fitting a candidate: a score for each fold, or the reason in `error` if it could not be fitted."""

    scores: Sequence[float | None]
    fit_s: float
    error: str = ""


class Fitting(Protocol):
    def __call__(self, folds: Sequence[Fold], fit: Fit, candidates: Sequence[Values], rows: int) -> Generator[Fitted]:
        """Yield outcomes in the order of `candidates`, each fitted on the first `rows` of every fold.

        Raises MemoryError.  Candidates whose outcome is not requested need not be fitted.
        """
        ...


def here(folds: Sequence[Fold], fit: Fit, candidates: Sequence[Values], rows: int) -> Generator[Fitted]:
    """Fit in this thread, each candidate when its outcome is requested."""
    for candidate in candidates:
        begun = time.perf_counter()
        scores = []
        error = ""
        for fold in folds:
            score, error = on_fold(fold, fit, candidate, rows)
            if error:
                break
            scores.append(score)
        yield Fitted(() if error else scores, time.perf_counter() - begun, error)


def on_fold(fold: Fold, fit: Fit, candidate: Values, rows: int) -> tuple[float | None, str]:
    """The score, or an error: a candidate that cannot be fitted loses, whatever exception a library raises."""
    try:
        return fold.score(fit(candidate, fold.fit_on[:rows], fold.target[:rows])), ""
    except MemoryError:
        raise
    except Exception as error:  # noqa: BLE001 - see above
        return None, said_by(error)


def only_the_users(simplefilter: Callable[..., None]) -> None:
    """Record warnings about the data or the model; ignore those about the code of libraries."""
    simplefilter("always")
    for category in (DeprecationWarning, PendingDeprecationWarning, FutureWarning, ImportWarning, ResourceWarning):
        simplefilter("ignore", category)


def fit_algorithm(
    name: str,
    given: Mapping[str, HyperparameterValue],
    seed: int,
    candidate: Values,
    rows: Any,
    target: NDArray[Any],
) -> Any:
    """A `Fit` with its first three arguments bound; they are plain values, so it can be sent to another process."""
    algorithm = algorithms.find(name)
    n_classes = len(np.unique(target)) if algorithm.task == "classification" else 0
    return algorithm.build(algorithm.resolve({**given, **candidate}, seed), n_classes).fit(rows, target)


def score_on(rows: Any, actual: NDArray[Any], classes: NDArray[Any], metric: str, model: Any) -> float | None:
    """A fold's `score` with its first four arguments bound; see `evaluation.score`."""
    return evaluation.score(model, rows, actual, classes).get(metric)
