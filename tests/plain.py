"""What ten lines of plain scikit-learn make of a request: the yardstick for what comes out of the worker."""

from __future__ import annotations

import math
import warnings
from typing import Any

from sklearn.datasets import load_diabetes, load_wine
from sklearn.impute import SimpleImputer
from sklearn.metrics import accuracy_score, f1_score, mean_absolute_error, r2_score, root_mean_squared_error
from sklearn.model_selection import ShuffleSplit, StratifiedShuffleSplit
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from pipeline.algorithms import catalogue


def metrics(algorithm: str, hyperparameters: dict[str, Any], seed: int = 42) -> dict[str, float]:
    """Of a classifier on wine, or a regressor on diabetes."""
    entry = catalogue()[algorithm]
    classifies = entry.task == "classification"
    X, y = (load_wine if classifies else load_diabetes)(return_X_y=True)
    splitter = StratifiedShuffleSplit if classifies else ShuffleSplit
    fit, test = next(splitter(1, test_size=math.ceil(0.2 * len(y)), random_state=seed).split(X, y))
    estimator = entry.build(entry.resolve(hyperparameters, seed), 3)
    model = make_pipeline(SimpleImputer(strategy="median"), StandardScaler(), estimator)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        predicted = model.fit(X[fit], y[fit]).predict(X[test])
    if classifies:
        return {
            "accuracy": accuracy_score(y[test], predicted),
            "f1": f1_score(y[test], predicted, average="weighted"),
            "train_accuracy": accuracy_score(y[fit], model.predict(X[fit])),
        }
    return {
        "r2": r2_score(y[test], predicted),
        "rmse": root_mean_squared_error(y[test], predicted),
        "mae": mean_absolute_error(y[test], predicted),
    }
