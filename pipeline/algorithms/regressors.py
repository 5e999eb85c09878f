"""The scikit-learn regressors in the catalogue, each named after its classifier if it has one."""

from __future__ import annotations

from typing import Any

from pipeline.algorithms.algorithm import Algorithm, Late, Resolved
from pipeline.algorithms.classifiers import (
    BOOSTING,
    CACHE,
    FOREST,
    NEIGHBORS,
    NETWORK,
    SUPPORT_VECTORS,
    TREE,
    forest_fits,
    network_fits,
)

IN_PLACE = "it would only save a copy"


def _standardised(estimator: Any, _: int) -> Any:
    """Standardise the target: the estimator's losses and tolerances assume mean 0 and deviation 1."""
    from sklearn.compose import TransformedTargetRegressor
    from sklearn.preprocessing import StandardScaler

    return TransformedTargetRegressor(estimator, transformer=StandardScaler())


def _nearest(**given: Any) -> Any:
    from sklearn.neighbors import KNeighborsRegressor

    return KNeighborsRegressor(algorithm="brute", **given)


def _quantile_given(resolved: Resolved) -> None:
    if (resolved["loss"] == "quantile") != (resolved["quantile"] is not None):
        raise ValueError("loss quantile needs a quantile between 0 and 1, and no other loss takes one")


def _ridge_fits(resolved: Resolved) -> None:
    if resolved["positive"] and resolved["solver"] not in ("auto", "lbfgs"):
        raise ValueError("positive needs solver lbfgs or auto")
    if resolved["solver"] == "lbfgs" and not resolved["positive"]:
        raise ValueError("solver lbfgs needs positive true")


REGRESSORS = (
    Algorithm.of(
        "linear_regression",
        "A weight for each column, by least squares; quick, and its weights can be read.",
        "regression",
        Late("sklearn.linear_model", "LinearRegression"),
        refused={"copy_X": IN_PLACE},
    ),
    Algorithm.of(
        "ridge",
        "A linear regression whose weights are kept small (l2), which many or related columns need.",
        "regression",
        Late("sklearn.linear_model", "Ridge"),
        refused={"copy_X": IN_PLACE},
        caps={"max_iter": 100_000},
        check=_ridge_fits,
    ),
    Algorithm.of(
        "elastic_net",
        "A linear regression that leaves columns out (l1) and keeps weights small (l2); l1_ratio 1 is the lasso.",
        "regression",
        Late("sklearn.linear_model", "ElasticNet"),
        refused={"copy_X": IN_PLACE, "precompute": "the worker decides how it is computed"},
        caps={"max_iter": 100_000},
    ),
    Algorithm.of(
        "random_forest_regressor",
        "Many decision trees on random parts of the rows and columns, whose mean counts; a good first choice.",
        "regression",
        Late("sklearn.ensemble", "RandomForestRegressor"),
        check=forest_fits,
        **FOREST,
    ),
    Algorithm.of(
        "gradient_boosting_regressor",
        "Trees that correct each other one after another, on binned columns; often the best on tables.",
        "regression",
        Late("sklearn.ensemble", "HistGradientBoostingRegressor"),
        check=_quantile_given,
        **BOOSTING,
    ),
    Algorithm.of(
        "svm_regressor",
        "A support vector machine for numbers, on a standardised target; for up to some ten thousand rows.",
        "regression",
        Late("sklearn.svm", "SVR"),
        refused={"cache_size": CACHE},
        adapt=_standardised,
        **SUPPORT_VECTORS,
    ),
    Algorithm.of(
        "decision_tree_regressor",
        "One tree of questions about the columns, which people can read.",
        "regression",
        Late("sklearn.tree", "DecisionTreeRegressor"),
        **TREE,
    ),
    Algorithm.of(
        "k_nearest_neighbors_regressor",
        "The mean of the rows that are most alike; nothing is learned, and every prediction looks at all rows.",
        "regression",
        _nearest,
        **NEIGHBORS,
    ),
    Algorithm.of(
        "neural_network_regressor",
        "A network of fully connected layers (multilayer perceptron), on a standardised target.",
        "regression",
        Late("sklearn.neural_network", "MLPRegressor"),
        check=network_fits,
        adapt=_standardised,
        **NETWORK,
    ),
)
