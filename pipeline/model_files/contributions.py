"""Splits each prediction into what every raw column adds to it, for models where that is exact and quick.

A linear model multiplies each prepared column by a coefficient.  A tree changes its answer at each question on a row's
way down; the change belongs to the column that is asked about, and a forest is the mean of its trees.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix, issparse  # type: ignore[import-untyped]
from sklearn.base import is_classifier
from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor
from sklearn.linear_model import ElasticNet, LinearRegression, LogisticRegression, Ridge
from sklearn.multiclass import OneVsRestClassifier
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

from pipeline.algorithms import catalogue
from pipeline.errors import RejectedError

Numbers = NDArray[np.float64]
Places = NDArray[np.intp]

LINEAR = (LinearRegression, Ridge, ElasticNet, LogisticRegression)
TREES = (DecisionTreeClassifier, DecisionTreeRegressor)
FORESTS = (RandomForestClassifier, RandomForestRegressor)


@dataclass(frozen=True, slots=True)
class Contributions:
    """What each raw column adds to the score of each row: the baseline and a row's contributions add up to its score.

    The score of a regressor is its prediction.  That of a classifier is about the class that it predicts: for trees and
    forests its probability; for logistic regression with two classes its log-odds, with more its decision function.

    Attributes:
        columns: the raw columns; a tensor is one.
        baseline: shape (rows,), the score before any column is looked at.  For a linear model, that of a row whose
            prepared columns are all 0: its numbers are at their mean, and its words are none that is known.
        values: shape (rows, len(columns)).
    """

    columns: Sequence[str]
    baseline: Numbers
    values: Numbers


def check_explainable(estimator: Any, algorithm: str) -> None:
    """Raises RejectedError, naming the algorithms that have contributions, if this estimator has none."""
    if not isinstance(_core(estimator), (*LINEAR, *TREES, *FORESTS)):
        made = {name: _core(entry.build(entry.resolve({}, 0))) for name, entry in catalogue().items()}
        have = [name for name, one in made.items() if isinstance(one, (*LINEAR, *TREES, *FORESTS))]
        raise RejectedError(
            f"a model of {algorithm} has no contributions of columns that are exact and quick to compute; "
            f"those of {', '.join(sorted(have))} have"
        )


def contributions(estimator: Any, prepared: Any, owners: Sequence[str], labels: NDArray[Any]) -> Contributions:
    """The contributions to the score of each prepared row.

    `owners` names the raw column that each prepared column was made from, `labels` are the row's predictions.
    """
    columns = list(dict.fromkeys(owners))
    place = {name: at for at, name in enumerate(columns)}
    owner = np.array([place[name] for name in owners], dtype=np.intp)
    outputs = np.searchsorted(estimator.classes_, labels) if is_classifier(estimator) else np.zeros(len(labels), int)
    if isinstance(_core(estimator), LINEAR):
        baseline, values = _of_coefficients(estimator, prepared, owner, outputs)
    else:
        baseline, values = _of_trees(getattr(estimator, "estimators_", [estimator]), prepared, owner, outputs)
    return Contributions(columns, baseline, values)


def _core(estimator: Any) -> Any:
    return estimator.estimator if isinstance(estimator, OneVsRestClassifier) else estimator


def _of_coefficients(estimator: Any, prepared: Any, owner: Places, outputs: Places) -> tuple[Numbers, Numbers]:
    """Baseline and values of a linear model."""
    models = estimator.estimators_ if isinstance(estimator, OneVsRestClassifier) else [estimator]
    coefficients = np.vstack([np.atleast_2d(model.coef_) for model in models])
    intercepts = np.hstack([np.atleast_1d(model.intercept_) for model in models])
    if is_classifier(estimator) and len(coefficients) == 1:  # it has the second class's alone
        coefficients, intercepts = np.vstack([-coefficients, coefficients]), np.hstack([-intercepts, intercepts])
    intercepts = np.broadcast_to(intercepts, len(coefficients))
    width = int(owner.max()) + 1
    values = np.empty((len(outputs), width))
    for output in np.unique(outputs):
        rows = outputs == output
        weights = csr_matrix((coefficients[output], (np.arange(len(owner)), owner)), (len(owner), width))
        found = prepared[rows] @ weights
        values[rows] = found.toarray() if issparse(found) else found
    return intercepts[outputs], values


def _of_trees(trees: Sequence[Any], prepared: Any, owner: Places, outputs: Places) -> tuple[Numbers, Numbers]:
    """Baseline and values of the mean of some trees."""
    prepared = prepared.astype(np.float32)  # as trees do, once for all
    rows, width = len(outputs), int(owner.max()) + 1
    baseline, values = np.zeros(rows), np.zeros(rows * width)
    for tree in trees:
        nodes = tree.tree_
        answers = nodes.value[:, 0, :]
        parents = np.zeros(nodes.node_count, dtype=np.intp)
        asking = np.flatnonzero(nodes.children_left >= 0)
        parents[nodes.children_left[asking]] = parents[nodes.children_right[asking]] = asking
        changes = answers - answers[parents]  # none at the root, whose parent is itself
        owners = owner[np.maximum(nodes.feature[parents], 0)]
        ways = tree.decision_path(prepared)
        row = np.repeat(np.arange(rows), np.diff(ways.indptr))
        values += np.bincount(row * width + owners[ways.indices], changes[ways.indices, outputs[row]], rows * width)
        baseline += answers[0, outputs]
    return baseline / len(trees), values.reshape(rows, width) / len(trees)
