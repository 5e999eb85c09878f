"""The slow parts of a report: importance of columns, and what more rows would bring.

Both are of the main metric (accuracy, or r2), repeat with the same seed, and leave the test part as it is: importance
is measured on it, and the learning curve does not look at it.
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
from pipeline.model_files.model_file import LoadedModel

REPEATS = 5
MOST_ROWS = 2_000
MOST_PREDICTED = 1_000_000
"""For the importance of all columns together: of wide data fewer rows are taken, and none if not even LEAST_ROWS."""
LEAST_ROWS = 200
DIGITS = 12
"""A loss of nothing is 0, and not what floating point leaves of it."""
SHARES = (0.1, 0.25, 0.5, 0.75, 1.0)
"""Of the rows to fit on, at the points of a learning curve."""
VALIDATION_FOLDS = 5
"""One of so many parts of the training part validates, where the request asks for no folds."""

P = ParamSpec("P")
R = TypeVar("R")
Told = Callable[[float, str], None]
"""Called with how much is done, 0 to 1, and what is going on."""


def _unheard(study: Callable[P, R]) -> Callable[P, R]:
    """What warns is no warning about the model: it is fitted on few rows, and predicts rows that are mixed up."""

    @wraps(study)
    def silent(*args: P.args, **kwargs: P.kwargs) -> R:
        with catch_warnings():
            simplefilter("ignore")
            return study(*args, **kwargs)

    return silent


@_unheard
def importance(pipeline: Pipeline, data: Examples, test: Places, seed: int, told: Told) -> dict[str, Any] | None:
    """How much worse the main metric gets when the values of one raw column are shuffled among the test rows.

    `pipeline` is fitted; `test` are places of rows among the examples.  Of two columns
    that say the same each may seem to matter little (Breiman 2001; Fisher, Rudin and Dominici 2019).  None where the
    metric is not defined, and of so many columns that it would take longer than the training.
    """
    metric = evaluation.MAIN["classification" if len(data.classes) else "regression"]
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
    """The same of a registered model, on the rows that it was tested on; `frame` is the whole dataset as it is now.

    Raises RejectedError where that has changed, or is split in another way than it was.
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
    """The main metric against the number of rows that are fitted on, on these rows and on others.

    Preparation and model are fitted anew on growing parts of `train`, in each of `asked.cv` folds, or with one part
    held back.  By time the latest rows are held back, and those fitted on are the latest before them.  A size that
    the estimator cannot be fitted on is left out; None if there is none left, or the training part cannot be cut.
    """
    metric = evaluation.MAIN["classification" if len(data.classes) else "regression"]
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
    """So that the first of them are a sample with the same share of each class; by time the latest come first."""
    if data.times is not None:
        return fit[::-1]
    order = np.random.default_rng(seed).permutation(fit)
    if not len(data.classes):
        return order
    codes = data.codes[order]
    nth = pd.Series(codes).groupby(codes).cumcount().to_numpy()
    return order[np.argsort((nth + 0.5) / np.bincount(codes)[codes], kind="stable")]


def _fitted(unfitted: Pipeline, data: Examples, fit: Places, score: Places, metric: str) -> tuple[float, float] | None:
    """The metric on the rows fitted on, and on the others."""
    if len(data.classes) and np.ptp(data.codes[fit]) == 0:
        return None
    try:
        pipeline = clone(unfitted).fit(take(data.rows, fit), data.target[fit])
        scores = [evaluation.scores(data, pipeline, take(data.rows, rows), rows).get(metric) for rows in (fit, score)]
    except MemoryError:
        raise
    except Exception:  # noqa: BLE001 - few rows can be too few, which each library says in its own way
        return None
    known, held_back = scores
    return None if known is None or held_back is None else (known, held_back)
