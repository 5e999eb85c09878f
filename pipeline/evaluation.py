"""Computes metrics for events and documents, and the details that the model file keeps.

All classification metrics come from one confusion matrix and one ranking of the scores.  They equal those of
sklearn.metrics (a property test checks this) and take a tenth of the time, which would be most of a tiny training.  An
undefined metric is absent, never NaN.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble._forest import ForestClassifier
from sklearn.metrics import mean_absolute_error, mean_squared_error, r2_score

from pipeline.deep.classifier import DeepClassifier

if TYPE_CHECKING:
    from pipeline.features.examples import Examples

Metrics = dict[str, float]
Codes = NDArray[np.intp]

MOST_PREDICTIONS = 10_000
"""The most test predictions that a model file keeps: the first ones."""
BINS = 10
_INNER_EDGES = np.linspace(0, 1, BINS + 1)[1:-1]


@dataclass(frozen=True, slots=True)
class Scored:
    """A classifier's answers for some rows.

    Attributes:
        predicted: shape (rows,), places in the sorted labels of the whole dataset.
        scores: shape (rows, len(seen)): one score per class, higher is more likely; None if the model gives none.
        seen: the classes that the model was fitted on, as places in the same labels.
        probabilities: whether the scores are probabilities.
    """

    predicted: Codes
    scores: NDArray[np.float64] | None
    seen: Codes
    probabilities: bool


def answers(model: Any, prepared: Any) -> tuple[NDArray[Any], NDArray[np.float64] | None]:
    """A fitted model's labels for prepared rows, and the probabilities if it gives any."""
    if not hasattr(model, "predict_proba"):
        return model.predict(prepared), None
    if not isinstance(model, ForestClassifier | DeepClassifier):
        return model.predict(prepared), model.predict_proba(prepared)
    probabilities = model.predict_proba(prepared)  # its predict() would compute the same once more
    return model.classes_.take(probabilities.argmax(axis=1)), probabilities


def ask(model: Any, prepared: Any, classes: NDArray[Any]) -> Scored:
    """Let a fitted classifier predict prepared rows.  `classes` are all sorted labels; the model may know only some."""
    seen = np.searchsorted(classes, model.classes_)
    labels, probabilities = answers(model, prepared)
    predicted = np.searchsorted(classes, labels)
    if probabilities is not None:
        return Scored(predicted, np.asarray(probabilities, dtype=np.float64), seen, True)
    scores = model.decision_function(prepared) if hasattr(model, "decision_function") else None
    if scores is not None and scores.ndim == 1:
        scores = np.column_stack([-scores, scores])
    if len(seen) > 2 and getattr(model, "decision_function_shape", "ovr") != "ovr":
        scores = None
    return Scored(predicted, scores, seen, False)


def score(model: Any, rows: Any, actual: NDArray[Any], classes: NDArray[Any]) -> Metrics:
    """The metrics of a fitted model on these rows.

    `classes` are all sorted labels and `actual` are places in them.  For regression `classes` is empty and `actual` is
    the target.
    """
    if not len(classes):
        return regression(actual, model.predict(rows))
    return classification(actual, ask(model, rows, classes), len(classes))


def classification(actual: Codes, scored: Scored, n_classes: int) -> Metrics:
    """accuracy; precision, recall, f1 weighted by support and as `*_macro`; balanced_accuracy; roc_auc.

    Where there are probabilities, log_loss, brier and calibration_error too.
    """
    counts = confusion(actual, scored.predicted, n_classes)
    precision, recall, f1, support = per_class(counts)
    told = support + counts.sum(axis=0) > 0
    metrics = {"accuracy": np.trace(counts) / len(actual), "balanced_accuracy": recall[support > 0].mean()}
    for name, values in (("precision", precision), ("recall", recall), ("f1", f1)):
        metrics[name] = np.average(values, weights=support)  # values @ support rounds differently
        metrics[f"{name}_macro"] = values[told].mean()
    metrics["roc_auc"] = _roc_auc(actual, scored)
    return defined({**metrics, **_of_probabilities(actual, scored, n_classes)})


def regression(actual: NDArray[np.float64], predicted: NDArray[np.float64]) -> Metrics:
    """r2 (undefined below two rows), rmse, mae."""
    return defined(
        {
            "r2": r2_score(actual, predicted) if len(actual) > 1 else np.nan,
            "rmse": mean_squared_error(actual, predicted) ** 0.5,
            "mae": mean_absolute_error(actual, predicted),
        }
    )


def scores(data: Examples, model: Any, rows: Any, places: Codes) -> Metrics:
    """The metrics of a fitted model on prepared rows; `places` are their places among the examples."""
    return score(model, rows, actual(data, places), data.classes)


def actual(data: Examples, places: Codes) -> NDArray[Any]:
    """The `actual` argument of `score` for these rows: their places in the classes, or their targets."""
    return data.codes[places] if len(data.classes) else data.target[places]


def loss_curve(model: Any) -> dict[str, Any] | None:
    """A fitted estimator's loss after each epoch; None if it does not keep it.

    The result is {"epoch": [1, 2, ...], "loss": [...]} and, if some training rows were held back, "validation_loss" or
    "validation_score" (accuracy or r2), all of equal length.  An estimator provides it by the attributes of
    scikit-learn's networks, or by `history_`, a mapping with the same names except the epochs.
    """
    model = getattr(model, "regressor_", model)
    told = getattr(model, "history_", None)
    if not isinstance(told, Mapping):
        told = {
            "loss": getattr(model, "loss_curve_", None),
            "validation_score": getattr(model, "validation_scores_", None),
        }
    series = {
        name: [float(value) for value in values] for name, values in told.items() if values is not None and len(values)
    }
    return {"epoch": list(range(1, len(series["loss"]) + 1)), **series} if "loss" in series else None


def baseline_accuracy(train: Codes, test: Codes) -> float:
    """The test accuracy of always predicting the most frequent class of the training part."""
    return float((test == np.bincount(train).argmax()).mean())


def baseline_rmse(train: NDArray[np.float64], test: NDArray[np.float64]) -> float:
    """The root mean squared error of always predicting the mean of the training part."""
    return float(np.sqrt(np.mean((test - train.mean()) ** 2)))


def over_folds(folds: Sequence[Metrics]) -> Metrics:
    """`cv_*_mean` and `cv_*_std` of the metrics that are defined in every fold."""
    summary = {}
    for name in folds[0]:
        values = [fold[name] for fold in folds if name in fold]
        if len(values) == len(folds):
            summary[f"cv_{name}_mean"] = float(np.mean(values))
            summary[f"cv_{name}_std"] = float(np.std(values))
    return summary


def classification_details(actual: Codes, scored: Scored, classes: Sequence[str], places: Codes) -> dict[str, Any]:
    """Details for the model file: confusion matrix (rows are the truth), metrics per class, and the test predictions.

    `places` are the test rows' places in the dataset.  `actual`, `predicted` and `seen` are places in `classes`.
    """
    counts = confusion(actual, scored.predicted, len(classes))
    columns = per_class(counts)
    kept = slice(0, MOST_PREDICTIONS)
    return {
        "classes": classes,
        "confusion_matrix": counts,
        "per_class": {
            label: {"precision": p, "recall": r, "f1": f, "support": int(n)}
            for label, p, r, f, n in zip(classes, *(column.tolist() for column in columns), strict=True)
        },
        "test_rows": len(actual),
        "test_predictions": {
            "row": places[kept],
            "actual": actual[kept],
            "predicted": scored.predicted[kept],
            "seen": scored.seen,
            "scores": None if scored.scores is None else scored.scores[kept],
            "scores_are": "probabilities" if scored.probabilities else "decision_function",
        },
    }


def regression_details(actual: NDArray[np.float64], predicted: NDArray[np.float64], places: Codes) -> dict[str, Any]:
    kept = slice(0, MOST_PREDICTIONS)
    predictions = {"row": places[kept], "actual": actual[kept], "predicted": predicted[kept]}
    return {"test_rows": len(actual), "test_predictions": predictions}


def confusion(actual: Codes, predicted: Codes, n_classes: int) -> NDArray[np.int64]:
    """Counts of shape (n_classes, n_classes): rows are the truth, columns the prediction."""
    cells = np.bincount(actual * n_classes + predicted, minlength=n_classes**2)
    return cells.reshape(n_classes, n_classes).astype(np.int64)


def per_class(counts: NDArray[np.int64]) -> tuple[NDArray[np.float64], ...]:
    """precision, recall, f1 (0 if undefined) and support, each of shape (classes,)."""
    hits = np.diagonal(counts).astype(np.float64)
    predicted, support = counts.sum(axis=0), counts.sum(axis=1)
    ratios = (hits / np.maximum(of, 1) for of in (predicted, support))
    return (*ratios, 2 * hits / np.maximum(predicted + support, 1), support.astype(np.float64))


def defined(metrics: Mapping[str, Any] | Iterable[tuple[str, Any]]) -> Metrics:
    """The metrics as floats, without those that are None or not finite."""
    return {name: float(value) for name, value in dict(metrics).items() if value is not None and np.isfinite(value)}


def _roc_auc(actual: Codes, scored: Scored) -> float | None:
    """One-vs-rest, macro-averaged (Mann-Whitney); undefined unless the rows contain exactly the training classes."""
    if scored.scores is None or not np.isfinite(scored.scores).all():
        return None
    is_class = actual[:, None] == scored.seen
    positives = is_class.sum(axis=0)
    negatives = len(actual) - positives
    if not (positives.all() and negatives.all() and positives.sum() == len(actual)):
        return None
    rank_sums = np.array([_rank_sum(*column) for column in zip(scored.scores.T, is_class.T, strict=True)])
    wins = rank_sums - positives * (positives + 1) / 2
    areas = wins / (positives * negatives)
    return float(areas[1] if len(areas) == 2 else areas.mean())


def _rank_sum(scores: NDArray[np.float64], wanted: NDArray[np.bool_]) -> float:
    """The sum of the ranks, from 1, of the wanted scores; equal scores share the mean of their ranks."""
    order = scores.argsort()
    ordered = scores[order]
    first = np.flatnonzero(np.concatenate(([True], ordered[1:] != ordered[:-1])))
    ranks = (first + np.append(first[1:], len(scores)) + 1) / 2
    found = np.add.reduceat(wanted[order].astype(np.intp), first)
    return float(ranks @ found)


def _of_probabilities(actual: Codes, scored: Scored, n_classes: int) -> dict[str, float | None]:
    """log_loss, brier and calibration_error; empty without probabilities.

    brier is the mean squared distance to the truth (Brier 1950): 0 to 1 for two classes, halved as scikit-learn does,
    and 0 to 2 for more.  A class without training rows has probability 0 in it; log_loss is then undefined.
    """
    chances = scored.scores
    if chances is None or not scored.probabilities or not np.isfinite(chances).all():
        return {}
    columns = np.minimum(np.searchsorted(scored.seen, actual), len(scored.seen) - 1)
    known = scored.seen[columns] == actual
    of_truth = chances[np.arange(len(actual)), columns] * known
    brier = ((chances**2).sum(axis=1) - 2 * of_truth + 1).mean()
    likelihood = np.clip(of_truth / chances.sum(axis=1), np.finfo(np.float64).eps, 1.0)
    return {
        "log_loss": -np.log(likelihood).mean() if known.all() else None,
        "brier": brier / 2 if n_classes == 2 else brier,
        "calibration_error": calibration_error(actual, chances, scored.seen),
    }


def calibration_error(actual: Codes, chances: NDArray[np.float64], seen: Codes) -> float:
    """The expected calibration error, 0 to 1: how far the probability of the most likely class is from its accuracy.

    Rows are put into ten bins of equal width by that probability, (0, 0.1] to (0.9, 1].  In each bin the mean
    probability is compared with the share of correct rows; the differences are averaged by rows (Naeini, Cooper and
    Hauskrecht 2015; Guo et al. 2017).
    """
    bins, sure, right = _by_certainty(actual, chances, seen)
    return float(np.abs(np.bincount(bins, sure - right)).sum() / len(actual))


def calibration(
    actual: Codes, chances: NDArray[np.float64], seen: Codes
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.intp]]:
    """For each bin with rows: the mean probability of the most likely class, the share that was right, its rows."""
    bins, sure, right = _by_certainty(actual, chances, seen)
    rows = np.bincount(bins)
    filled = rows > 0
    rows = rows[filled]
    return np.bincount(bins, sure)[filled] / rows, np.bincount(bins, right)[filled] / rows, rows


def _by_certainty(
    actual: Codes, chances: NDArray[np.float64], seen: Codes
) -> tuple[NDArray[np.intp], NDArray[np.float64], NDArray[np.bool_]]:
    """For each row its bin, the probability of its most likely class, and whether that class is the true one."""
    likeliest = chances.argmax(axis=1)
    sure = chances[np.arange(len(actual)), likeliest]
    return np.searchsorted(_INNER_EDGES, sure), sure, seen[likeliest] == actual
