"""Finds a column that gives the target away."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipeline.features.columns import Role
from pipeline.features.examples import Examples

PURE = 0.99
RUNS_A_CLASS = 2
MOST_ROWS = 10_000


def giveaway(examples: Examples, train: NDArray[np.intp]) -> str | None:
    """The first column that predicts the target alone, or None.

    A numeric or date column does if the rows sorted by it form at most RUNS_A_CLASS runs for each class.  A category or
    boolean does if a share of PURE rows have the most frequent class of their value.  Looks at the first MOST_ROWS
    training rows.
    """
    train = train[:MOST_ROWS]
    codes = examples.codes[train]
    for place, column in enumerate(examples.columns):
        rows = examples.rows
        values = rows[column.name].to_numpy()[train] if isinstance(rows, pd.DataFrame) else rows[train, place]
        if _RULES[column.role](values, codes):
            return column.name
    return None


def _sorts(values: NDArray[Any], codes: NDArray[np.intp]) -> bool:
    """Whether equal values have one class, and the class changes about as rarely as it can in rows sorted by value."""
    present = ~pd.isna(values)
    if present.mean() < PURE:
        return False
    values, codes = values[present], codes[present]
    ordered = codes[np.lexsort((codes, values))]
    runs = int((ordered[1:] != ordered[:-1]).sum()) + 1
    return runs <= RUNS_A_CLASS * len(np.unique(codes)) and _purity(values, codes)[0] >= PURE


def _tells(values: NDArray[Any], codes: NDArray[np.intp]) -> bool:
    """Whether each value has almost always the same class; a value that occurs once proves nothing."""
    purity, distinct = _purity(values, codes)
    return purity >= PURE and 2 * distinct <= len(values)


def _purity(values: NDArray[Any], codes: NDArray[np.intp]) -> tuple[float, int]:
    """The share of rows that have the most frequent class of their value, and the number of distinct values."""
    places, distinct = pd.factorize(values, use_na_sentinel=False)
    table = np.zeros((len(distinct), codes.max() + 1), dtype=np.int64)
    np.add.at(table, (places, codes), 1)
    return float(table.max(axis=1).sum() / len(values)), len(distinct)


def _never(_values: NDArray[Any], _codes: NDArray[np.intp]) -> bool:
    return False


_RULES: Mapping[Role, Any] = {
    Role.NUMERIC: _sorts,
    Role.DATE: _sorts,
    Role.BOOLEAN: _tells,
    Role.CATEGORICAL: _tells,
    Role.TEXT: _never,
}
