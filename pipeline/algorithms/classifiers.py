"""The classifiers of scikit-learn that the catalogue offers."""

from __future__ import annotations

from typing import Any

from pipeline.algorithms.algorithm import Algorithm, Late, Resolved
from pipeline.algorithms.hyperparameters import Choice, Integer, Integers, Number

PREPARED = "it would speak of columns as they are after preparation, which a request cannot know"
LAYER = Integer(1, 10_000)
FOREST: dict[str, Any] = {
    "refused": {"monotonic_cst": PREPARED},
    "caps": {"n_estimators": 10_000},
    "sliced": True,
}
"""Catalogue settings; these and those below also apply to the algorithm's regressor."""
TREE: dict[str, Any] = {"refused": {"monotonic_cst": PREPARED}}
BOOSTING: dict[str, Any] = {
    "refused": {
        "monotonic_cst": PREPARED,
        "interaction_cst": PREPARED,
        "categorical_features": PREPARED,
        "scoring": "early stopping goes by the loss",
    },
    "caps": {"max_iter": 10_000},
    "needs_dense": True,
    "trusted_types": ["sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor"],
}
NEIGHBORS: dict[str, Any] = {
    "refused": {
        "algorithm": "rows are compared with every row, so that a model file holds no search tree",
        "leaf_size": "there is no search tree",
        "metric_params": "the metrics on offer take none but p",
    },
    "overrides": {
        "metric": (Choice(frozenset({"minkowski", "euclidean", "manhattan", "cosine"})),),
        "n_neighbors": (Integer(1, 10_000),),
        "p": (Number(1, 100),),
        "weights": (Choice(frozenset({"uniform", "distance"})),),
    },
}
SUPPORT_VECTORS: dict[str, Any] = {
    "overrides": {"kernel": (Choice(frozenset({"linear", "poly", "rbf", "sigmoid"})),)},
    "caps": {"degree": 100},
}
NETWORK: dict[str, Any] = {
    "overrides": {"hidden_layer_sizes": (Integers(LAYER, longest=20), LAYER)},
    "caps": {"max_iter": 100_000, "max_fun": 10_000_000, "batch_size": 1_000_000},
}
CACHE = "the worker decides how much memory a training gets"


def _solver_fits(resolved: Resolved) -> None:
    """Checks that LogisticRegression makes only in fit (sklearn.linear_model._logistic._check_solver)."""
    solver, l1_ratio = resolved["solver"], resolved["l1_ratio"]
    if l1_ratio not in (None, 0, 1) and solver != "saga":
        raise ValueError(f"an l1_ratio between 0 and 1 needs solver saga, not {solver}")
    if l1_ratio == 1 and solver not in ("saga", "liblinear"):
        raise ValueError(f"l1_ratio 1 needs solver saga or liblinear, not {solver}")
    if resolved["dual"] and (solver != "liblinear" or l1_ratio == 1):
        raise ValueError("dual needs solver liblinear and l1_ratio 0")


def _one_vs_rest(estimator: Any, n_classes: int) -> Any:
    """liblinear only separates two classes."""
    from sklearn.multiclass import OneVsRestClassifier

    return OneVsRestClassifier(estimator) if estimator.solver == "liblinear" and n_classes > 2 else estimator


def network_fits(resolved: Resolved) -> None:
    if resolved["early_stopping"] and resolved["validation_fraction"] == 0:
        raise ValueError("early_stopping needs a validation_fraction above 0")
    if resolved["early_stopping"] and resolved["solver"] == "lbfgs":
        raise ValueError("early_stopping needs solver adam or sgd, not lbfgs")


def forest_fits(resolved: Resolved) -> None:
    if not resolved["bootstrap"] and resolved["oob_score"]:
        raise ValueError("oob_score needs bootstrap true")
    if not resolved["bootstrap"] and resolved["max_samples"] is not None:
        raise ValueError("max_samples needs bootstrap true")


def _ties_break(resolved: Resolved) -> None:
    if resolved["break_ties"] and resolved["decision_function_shape"] != "ovr":
        raise ValueError("break_ties needs decision_function_shape ovr")


def _nearest(**given: Any) -> Any:
    from sklearn.neighbors import KNeighborsClassifier

    return KNeighborsClassifier(algorithm="brute", **given)


CLASSIFIERS = (
    Algorithm.of(
        "random_forest",
        "Many decision trees on random parts of the rows and columns, which vote; a good first choice.",
        "classification",
        Late("sklearn.ensemble", "RandomForestClassifier"),
        check=forest_fits,
        **FOREST,
    ),
    Algorithm.of(
        "gradient_boosting",
        "Trees that correct each other one after another, on binned columns; often the best on tables.",
        "classification",
        Late("sklearn.ensemble", "HistGradientBoostingClassifier"),
        **BOOSTING,
    ),
    Algorithm.of(
        "logistic_regression",
        "A linear model of the log-odds of each class; quick, and its weights can be read.",
        "classification",
        Late("sklearn.linear_model", "LogisticRegression"),
        refused={
            "penalty": "it is deprecated; l1_ratio 0 is the l2 penalty and l1_ratio 1 the l1 penalty",
            "intercept_scaling": "columns are scaled in preparation",
        },
        caps={"max_iter": 100_000},
        check=_solver_fits,
        adapt=_one_vs_rest,
    ),
    Algorithm.of(
        "svm",
        "A support vector machine: the widest margin between classes, with a kernel; for up to some ten thousand rows.",
        "classification",
        Late("sklearn.svm", "SVC"),
        refused={
            "probability": "it is deprecated; ROC AUC is taken from the decision function",
            "cache_size": CACHE,
        },
        check=_ties_break,
        **SUPPORT_VECTORS,
    ),
    Algorithm.of(
        "decision_tree",
        "One tree of questions about the columns, which people can read.",
        "classification",
        Late("sklearn.tree", "DecisionTreeClassifier"),
        **TREE,
    ),
    Algorithm.of(
        "k_nearest_neighbors",
        "The classes of the rows that are most alike vote; nothing is learned, and every prediction looks at all rows.",
        "classification",
        _nearest,
        **NEIGHBORS,
    ),
    Algorithm.of(
        "naive_bayes",
        "Each column votes by its normal distribution in each class, as if columns had nothing to do with each other.",
        "classification",
        Late("sklearn.naive_bayes", "GaussianNB"),
        refused={"priors": "they are taken from the training rows"},
        needs_dense=True,
    ),
    Algorithm.of(
        "neural_network",
        "A network of fully connected layers (multilayer perceptron).",
        "classification",
        Late("sklearn.neural_network", "MLPClassifier"),
        check=network_fits,
        **NETWORK,
    ),
)
