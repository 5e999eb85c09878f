"""Names the metrics of models: those of each task, the main one, and those that are better if lower."""

from __future__ import annotations

METRICS = {
    "classification": (
        "accuracy", "balanced_accuracy", "brier", "calibration_error", "f1", "f1_macro", "log_loss", "precision",
        "precision_macro", "recall", "recall_macro", "roc_auc",
    ),
    "regression": ("mae", "r2", "rmse"),
}  # fmt: skip
"""The metrics measured on the test rows, by task: searches optimise them and versions are compared by them."""
MAIN = {"classification": "accuracy", "regression": "r2"}
LOWER_IS_BETTER = frozenset({"brier", "calibration_error", "log_loss", "mae", "rmse"})

SKLEARN_NAMES = {
    "f1_weighted": "f1",
    "precision_weighted": "precision",
    "recall_weighted": "recall",
    "roc_auc_ovr": "roc_auc",
    "neg_brier_score": "brier",
    "neg_log_loss": "log_loss",
    "neg_mean_absolute_error": "mae",
    "neg_root_mean_squared_error": "rmse",
}
"""scikit-learn's names of metrics that have another name here."""


def optimised(scoring: str | None, task: str) -> str:
    """The metric that a search with this `scoring` optimises, under our name; without one, the task's main metric."""
    name = scoring or MAIN[task]
    return SKLEARN_NAMES.get(name, name)
