"""Finds a column that gives the target away."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipeline.features.columns import Role
from pipeline.features.examples import Examples
from pipeline.features.preparation import take

PURE = 0.99
RUNS_A_CLASS = 2
MOST_ROWS = 10_000
FIRST_ROWS = 500


def giveaway(examples: Examples, train: NDArray[np.intp]) -> str | None:
    """The first column that predicts the target alone, or None.  Looks at the first MOST_ROWS training rows.

    Of classes, a numeric or date column does if the rows sorted by it form at most RUNS_A_CLASS runs for each class; a
    category or boolean if a share of PURE rows have the most frequent class of their value.  Of numbers, a column does
    if it explains a share of PURE of the target's variance: as a rising or falling or a smooth function (numbers and
    dates), or by the mean target of each value, if values have two rows on average.
    """
    train = train[:MOST_ROWS]
    is_classes = len(examples.classes) > 0
    rules = _OF_CLASSES if is_classes else _OF_NUMBERS
    target = examples.codes[train] if is_classes else examples.target[train]
    if len(target) < 2 or target.min() == target.max():
        return None
    rows = take(examples.rows, train)
    for place, column in enumerate(examples.columns):
        values = rows[column.name].to_numpy() if isinstance(rows, pd.DataFrame) else rows[:, place]
        if rules[column.role](values, target):
            return column.name
    return None


def _sorts(values: NDArray[Any], codes: NDArray[np.intp]) -> bool:
    """Whether equal values have one class, and the class changes about as rarely as it can in rows sorted by value.

    Some of the rows never form more runs than all of them, so the first ones settle it for most columns.
    """
    if _runs(values[:FIRST_ROWS], codes[:FIRST_ROWS]) > RUNS_A_CLASS * np.count_nonzero(np.bincount(codes)):
        return False
    present = ~pd.isna(values)
    if present.mean() < PURE:
        return False
    values, codes = values[present], codes[present]
    return _purity(values, codes)[0] >= PURE and _runs(values, codes) <= RUNS_A_CLASS * len(np.unique(codes))


def _runs(values: NDArray[Any], codes: NDArray[np.intp]) -> int:
    """The number of runs of one class in the rows sorted by value, without those that have none."""
    present = ~pd.isna(values)
    values, codes = values[present], codes[present]
    ordered = codes[np.lexsort((codes, values))]
    return int((ordered[1:] != ordered[:-1]).sum()) + 1


def _tells(values: NDArray[Any], codes: NDArray[np.intp]) -> bool:
    """Whether each value has almost always the same class; a value that occurs once proves nothing."""
    purity, distinct = _purity(values, codes)
    return purity >= PURE and 2 * distinct <= len(values)


def _purity(values: NDArray[Any], codes: NDArray[np.intp]) -> tuple[float, int]:
    """The share of rows that have the most frequent class of their value, and the number of distinct values."""
    places, distinct = pd.factorize(values, use_na_sentinel=False)
    classes = codes.max() + 1
    table = np.bincount(places * classes + codes, minlength=len(distinct) * classes).reshape(-1, classes)
    return float(table.max(axis=1).sum() / len(values)), len(distinct)


def _orders(values: NDArray[Any], target: NDArray[Any]) -> bool:
    """Whether the target is almost a function of a number."""
    present = ~pd.isna(values)
    if present.mean() < PURE:
        return False
    values, target = values[present], target[present]
    shares = (_share_by_rank, _share_by_neighbour, _share_by_mean)
    return any(share(values, target) >= PURE for share in shares)


def _averages(values: NDArray[Any], target: NDArray[Any]) -> bool:
    """Whether the target is almost a function of a word."""
    return _share_by_mean(values, target) >= PURE


def _share_by_rank(values: NDArray[Any], target: NDArray[Any]) -> float:
    """The square of Spearman's correlation: 1 if the target always rises, or always falls, with the value."""
    ranks, of_target = pd.Series(values).rank(), pd.Series(target).rank()
    return 0.0 if ranks.nunique() < 2 else float(ranks.corr(of_target)) ** 2


def _share_by_neighbour(values: NDArray[Any], target: NDArray[Any]) -> float:
    """1 less half of the mean squared difference of neighbours' targets, in rows sorted by value, over the variance.

    Differences of neighbours estimate what no smooth function of the value explains (Rice 1984).
    """
    shuffled = np.random.default_rng(0).permutation(len(values))  # rows of one value are then in no order
    ordered = target[shuffled][np.argsort(values[shuffled], kind="stable")]
    return _share(float(np.square(np.diff(ordered)).mean()) / 2.0, target)


def _share_by_mean(values: NDArray[Any], target: NDArray[Any]) -> float:
    """The share of the variance between the values; 0 if most values occur once, which proves nothing."""
    places, distinct = pd.factorize(values, use_na_sentinel=False)
    if 2 * len(distinct) > len(values):
        return 0.0
    means = np.bincount(places, target) / np.bincount(places)
    return _share(float(np.square(target - means[places]).mean()), target)


def _share(unexplained: float, target: NDArray[Any]) -> float:
    """The share of the target's variance that is explained; 0 if there is none."""
    variance = float(target.var())
    return 1.0 - unexplained / variance if variance else 0.0


def _never(_values: NDArray[Any], _target: NDArray[Any]) -> bool:
    return False


_OF_CLASSES: Mapping[Role, Any] = {
    Role.NUMERIC: _sorts,
    Role.DATE: _sorts,
    Role.BOOLEAN: _tells,
    Role.CATEGORICAL: _tells,
    Role.TEXT: _never,
}
_OF_NUMBERS: Mapping[Role, Any] = {
    Role.NUMERIC: _orders,
    Role.DATE: _orders,
    Role.BOOLEAN: _averages,
    Role.CATEGORICAL: _averages,
    Role.TEXT: _never,
}
