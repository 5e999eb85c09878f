"""The slow parts of a report: the importance of columns, and the learning curve.

Both use the main metric (accuracy, or r2) and repeat with the same seed.  Importance is measured on the test part; the
learning curve does not use it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import wraps
from typing import Any, ParamSpec, TypeVar
from warnings import catch_warnings, simplefilter

import numpy as np
import pandas as pd
from sklearn.base import clone
from sklearn.pipeline import Pipeline

from pipeline import algorithms, evaluation
from pipeline.errors import RejectedError
from pipeline.features.examples import Examples, examples
from pipeline.features.preparation import Rows, take
from pipeline.features.splitting import Places, folds, split
from pipeline.jobs import Evaluation, Model, TrainingRequest
from pipeline.metrics import MAIN
from pipeline.model_files.model_file import LoadedModel

REPEATS = 5
MOST_ROWS = 2_000
MOST_PREDICTED = 1_000_000
"""Predictions for the importance of all columns together.  Wide data uses fewer rows; below LEAST_ROWS, none."""
LEAST_ROWS = 200
DIGITS = 12
"""Rounding, so that no loss is exactly 0."""
SHARES = (0.1, 0.25, 0.5, 0.75, 1.0)
"""The shares of the rows to fit on, at the points of a learning curve."""
VALIDATION_FOLDS = 5
"""If the request has no folds, one of this many parts of the training part validates."""

P = ParamSpec("P")
R = TypeVar("R")
Told = Callable[[float, str], None]
"""Called with the share done, 0 to 1, and a message."""


def _unheard(study: Callable[P, R]) -> Callable[P, R]:
    """Silence the study's warnings: fits on few rows and predictions of shuffled rows say nothing about the model."""

    @wraps(study)
    def silent(*args: P.args, **kwargs: P.kwargs) -> R:
        with catch_warnings():
            simplefilter("ignore")
            return study(*args, **kwargs)

    return silent


@_unheard
def importance(pipeline: Pipeline, data: Examples, test: Places, seed: int, told: Told) -> dict[str, Any] | None:
    """How much worse the main metric gets when one raw column is shuffled among the test rows.

    `pipeline` is fitted; `test` are places of rows among the examples.  If two columns carry the same information, each
    may seem to matter little (Breiman 2001; Fisher, Rudin and Dominici 2019).  None if the metric is not defined, or if
    there are so many columns that this would take longer than the training.
    """
    metric = MAIN["classification" if len(data.classes) else "regression"]
    names = [column.name for column in data.columns]
    if len(names) * REPEATS * min(LEAST_ROWS, len(test)) > MOST_PREDICTED:
        return None
    places = _sampled(test, len(names), seed)
    rows = take(data.rows, places)
    prepare, model = pipeline[:-1], pipeline[-1]

    def scored(asked: Rows) -> float | None:
        return evaluation.scores(data, model, prepare.transform(asked), places).get(metric)

    whole = scored(rows)
    if whole is None:
        return None
    columns = []
    for number, name in enumerate(names):
        told(number / len(names), f"importance of column {number + 1:,} of {len(names):,}")
        without = [scored(_shuffled(rows, number, [seed % 2**32, number, repeat])) for repeat in range(REPEATS)]
        lost = [whole - score for score in without if score is not None]
        if lost:
            mean, std = (round(float(of(lost)), DIGITS) + 0.0 for of in (np.mean, np.std))
            columns.append({"column": name, "mean": mean, "std": std})
    return {"metric": metric, "score": whole, "rows": len(places), "repeats": REPEATS, "columns": columns}


def importance_afterwards(
    model: Model, loaded: LoadedModel, frame: pd.DataFrame, fingerprint: str
) -> dict[str, Any] | None:
    """Like `importance`, for a registered model, on its own test rows; `frame` is the whole present dataset.

    Raises RejectedError if the dataset has changed, or is now read or split differently.
    """
    name = model.dataset_name
    only = "importance can only be found on the rows it was tested on; `tensorfleet submit --report` trains anew"
    if fingerprint != model.dataset_fingerprint:
        raise RejectedError(f"dataset {name} is not what it was when the model was trained: {only}")
    request = TrainingRequest(
        request_id="",
        job_name="",
        algorithm=model.algorithm,
        dataset_name=name,
        target_column=model.target_column,
        features=tuple(model.features),
        evaluation=model.evaluation,
    )
    data = examples(request, frame, model.target_column, algorithms.find(model.algorithm))
    parts = split(data, model.evaluation, model.seed)
    if parts.fingerprint(data.target_column) != model.split or data.columns != tuple(loaded.columns):
        raise RejectedError(f"dataset {name} is read or split in another way than it was: {only}")
    return importance(loaded.pipeline, data, parts.test, model.seed, lambda _done, _said: None)


@_unheard
def learning_curve(
    unfitted: Pipeline, data: Examples, asked: Evaluation, train: Places, seed: int, told: Told
) -> dict[str, Any] | None:
    """The main metric by number of rows fitted on, measured on these rows and on others.

    Preparation and model are refitted on growing parts of `train`, in each of `asked.cv` folds, or with one part held
    back.  With a split by time the latest rows are held back, and the latest before them are fitted on.  Sizes at which
    the estimator cannot be fitted are left out; None if none is left, or the training part cannot be split.
    """
    metric = MAIN["classification" if len(data.classes) else "regression"]
    try:
        parts = list(folds(data, replace(asked, cv=asked.cv or VALIDATION_FOLDS), train, seed))
    except RejectedError:
        return None
    if not asked.cv or data.times is not None:
        parts = parts[-1:]
    ordered = [(_growing(data, fit, [seed % 2**32, place]), score) for place, (fit, score) in enumerate(parts)]
    sizes = sorted({max(2, round(share * min(len(fit) for fit, _ in ordered))) for share in SHARES})
    points = []
    for number, size in enumerate(sizes):
        told(number / len(sizes), f"learning curve: fitting on {size:,} rows")
        found = [_fitted(unfitted, data, fit[:size], score, metric) for fit, score in ordered]
        known = [pair for pair in found if pair is not None]
        if len(known) == len(found):
            points.append({"rows": size, "train": [one for one, _ in known], "validation": [one for _, one in known]})
    return {"metric": metric, "folds": len(parts), "points": points} if points else None


def _sampled(test: Places, columns: int, seed: int) -> Places:
    most = min(MOST_ROWS, max(LEAST_ROWS, MOST_PREDICTED // (columns * REPEATS)))
    if len(test) <= most:
        return test
    return np.sort(np.random.default_rng([seed % 2**32, most]).choice(test, most, replace=False))


def _shuffled(rows: Rows, column: int, seed: Sequence[int]) -> Rows:
    order = np.random.default_rng(seed).permutation(len(rows))
    if isinstance(rows, pd.DataFrame):
        changed = rows.copy(deep=False)
        changed.isetitem(column, rows.iloc[:, column].array.take(order))
        return changed
    matrix = rows.copy()
    matrix[:, column] = rows[order, column]
    return matrix


def _growing(data: Examples, fit: Places, seed: Sequence[int]) -> Places:
    """Order rows so that the first of them are a stratified sample; with a split by time, the latest come first."""
    if data.times is not None:
        return fit[::-1]
    order = np.random.default_rng(seed).permutation(fit)
    if not len(data.classes):
        return order
    codes = data.codes[order]
    nth = pd.Series(codes).groupby(codes).cumcount().to_numpy()
    return order[np.argsort((nth + 0.5) / np.bincount(codes)[codes], kind="stable")]


def _fitted(unfitted: Pipeline, data: Examples, fit: Places, score: Places, metric: str) -> tuple[float, float] | None:
    """The metric on the rows fitted on and on the held-back rows, or None if it cannot be measured."""
    if len(data.classes) and np.ptp(data.codes[fit]) == 0:
        return None
    try:
        pipeline = clone(unfitted).fit(take(data.rows, fit), data.target[fit])
        scores = [evaluation.scores(data, pipeline, take(data.rows, rows), rows).get(metric) for rows in (fit, score)]
    except MemoryError:
        raise
    except Exception:  # noqa: BLE001 - too few rows fail differently in each library
        return None
    known, held_back = scores
    return None if known is None or held_back is None else (known, held_back)
