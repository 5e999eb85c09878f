"""Metrics: equal to those of sklearn.metrics where defined, absent where not."""

from __future__ import annotations

import warnings
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as reference
from sklearn.calibration import calibration_curve
from sklearn.compose import TransformedTargetRegressor
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.svm import SVC

from pipeline import evaluation
from pipeline.deep.classifier import DeepClassifier
from pipeline.evaluation import Scored

pytestmark = pytest.mark.filterwarnings("ignore:Stochastic Optimizer")


@st.composite
def scored_cases(draw: st.DrawFn) -> tuple[Any, Scored, int]:
    """True and predicted codes, and scores with ties, of up to five classes of which the rows may lack some."""
    n_classes = draw(st.integers(2, 5))
    rows = draw(st.integers(1, 40))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    actual = random.integers(0, n_classes, rows)
    scores = random.integers(1, 6, (rows, n_classes)).astype(float)
    scores /= scores.sum(axis=1, keepdims=True)
    return actual, Scored(scores.argmax(axis=1), scores, np.arange(n_classes), True), n_classes


def expected_calibration_error(actual: Any, scored: Scored) -> float:
    """From scikit-learn's calibration curve, which tells no counts."""
    assert scored.scores is not None
    sure = scored.scores.max(axis=1)
    true, said = calibration_curve(scored.scores.argmax(axis=1) == actual, sure, n_bins=10)
    rows = np.histogram(np.ceil(np.round(sure * 10, 9)), np.arange(0.5, 11))[0]
    return float((np.abs(true - said) * rows[rows > 0]).sum() / len(actual))


@settings(deadline=None, max_examples=60)
@given(scored_cases())
def test_metrics_equal_those_of_scikit_learn(case: tuple[Any, Scored, int]) -> None:
    actual, scored, n_classes = case
    found = evaluation.classification(actual, scored, n_classes)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = {
            "accuracy": reference.accuracy_score(actual, scored.predicted),
            "balanced_accuracy": reference.balanced_accuracy_score(actual, scored.predicted),
            "log_loss": reference.log_loss(actual, scored.scores, labels=range(n_classes)),
            "brier": reference.brier_score_loss(actual, scored.scores, labels=range(n_classes)),
            "calibration_error": expected_calibration_error(actual, scored),
        }
        for average, suffix in (("weighted", ""), ("macro", "_macro")):
            values = reference.precision_recall_fscore_support(
                actual, scored.predicted, average=average, zero_division=0
            )
            expected |= dict(zip((f"precision{suffix}", f"recall{suffix}", f"f1{suffix}"), values[:3], strict=True))
    if len(np.unique(actual)) == n_classes:
        scores = scored.scores if n_classes > 2 else scored.scores[:, 1]  # type: ignore[index]
        expected["roc_auc"] = reference.roc_auc_score(actual, scores, multi_class="ovr")
    assert found == pytest.approx(expected)
    assert (
        evaluation.confusion(actual, scored.predicted, n_classes)
        == reference.confusion_matrix(actual, scored.predicted, labels=range(n_classes))
    ).all()


def test_roc_auc_is_absent_where_the_test_part_lacks_a_class() -> None:
    scored = Scored(np.array([0, 0]), np.array([[0.9, 0.1], [0.8, 0.2]]), np.arange(2), True)
    assert "roc_auc" not in evaluation.classification(np.array([0, 0]), scored, 2)


def test_log_loss_is_absent_for_a_class_that_training_had_no_row_of() -> None:
    scored = Scored(np.array([0, 1]), np.array([[0.9, 0.1], [0.2, 0.8]]), np.array([0, 1]), True)
    found = evaluation.classification(np.array([0, 2]), scored, 3)
    assert found["accuracy"] == 0.5
    assert not {"log_loss", "roc_auc"} & set(found)


def test_the_brier_score_counts_a_class_that_training_had_no_row_of_as_never_expected() -> None:
    scored = Scored(np.array([0, 1]), np.array([[0.9, 0.1], [0.2, 0.8]]), np.array([0, 1]), True)
    actual = np.array([0, 2])
    with_all = np.column_stack([scored.scores, [0.0, 0.0]])  # type: ignore[list-item]
    expected = reference.brier_score_loss(actual, with_all, labels=range(3))
    assert evaluation.classification(actual, scored, 3)["brier"] == pytest.approx(expected)


def test_the_calibration_error_by_hand() -> None:
    """Two rows at 0.9, one right: 0.4 apart; two at 0.6, both right: 0.4 apart; one at 0.7, in a bin of its own."""
    sure = np.array([0.9, 0.9, 0.6, 0.6, 0.7])
    scored = Scored(np.zeros(5, int), np.column_stack([sure, 1 - sure]), np.arange(2), True)
    found = evaluation.classification(np.array([0, 1, 0, 0, 0]), scored, 2)
    assert found["calibration_error"] == pytest.approx((2 * 0.4 + 2 * 0.4 + 0.3) / 5)
    said, true, rows = evaluation.calibration(np.array([0, 1, 0, 0, 0]), scored.scores, scored.seen)  # type: ignore[arg-type]
    assert said.tolist() == pytest.approx([0.6, 0.7, 0.9])
    assert true.tolist() == [1.0, 1.0, 0.5]
    assert rows.tolist() == [2, 1, 2]


def test_what_is_no_number_has_no_metric_of_probabilities() -> None:
    scored = Scored(np.array([0, 1]), np.array([[np.nan, np.nan], [0.2, 0.8]]), np.arange(2), True)
    assert not {"brier", "calibration_error", "log_loss"} & set(evaluation.classification(np.array([0, 1]), scored, 2))


@pytest.mark.parametrize("classes", [2, 4])
def test_a_support_vector_machine_is_ranked_by_its_decision_function(classes: int) -> None:
    random = np.random.default_rng(1)
    codes = np.arange(80) % classes
    rows = random.normal(size=(80, 3)) + codes[:, None] * 0.5
    model = SVC().fit(rows, codes)
    scored = evaluation.ask(model, rows, np.arange(classes))
    assert not scored.probabilities
    found = evaluation.classification(codes, scored, classes)
    decision = model.decision_function(rows).reshape(80, -1)
    areas = [
        reference.roc_auc_score(codes == place, decision[:, -1 if classes == 2 else place]) for place in range(classes)
    ]
    assert found["roc_auc"] == pytest.approx(areas[1] if classes == 2 else np.mean(areas))
    assert not {"log_loss", "brier", "calibration_error"} & set(found)


def test_a_network_is_asked_once() -> None:
    asked = []

    class Told(DeepClassifier):
        classes_ = np.array(["a", "b", "c"])

        def predict_proba(self, X: Any) -> Any:
            asked.append(len(X))
            return np.eye(3)[[1, 0, 2]] * 0.5 + 0.1

    scored = evaluation.ask(Told(), np.zeros((3, 1)), np.array(["a", "b", "bb", "c"]))
    assert asked == [3]
    assert scored.predicted.tolist() == [1, 0, 3]
    assert scored.probabilities


def test_scores_of_class_pairs_rank_no_classes() -> None:
    codes = np.arange(30) % 3
    model = SVC(decision_function_shape="ovo").fit(codes[:, None] + np.linspace(0, 0.1, 30)[:, None], codes)
    assert evaluation.ask(model, codes[:, None], np.arange(3)).scores is None


def test_the_baseline_always_names_the_most_frequent_class_of_training() -> None:
    assert evaluation.baseline_accuracy(np.array([0, 1, 1]), np.array([1, 0, 0, 1, 1])) == 0.6


def test_a_metric_that_a_fold_lacks_has_no_mean() -> None:
    summary = evaluation.over_folds([{"accuracy": 1.0, "roc_auc": 1.0}, {"accuracy": 0.5}])
    assert summary == {"cv_accuracy_mean": 0.75, "cv_accuracy_std": 0.25}


def test_regression_has_r2_rmse_and_mae_and_no_r2_of_one_row() -> None:
    found = evaluation.regression(np.array([0.0, 2.0]), np.array([1.0, 2.0]))
    assert found == pytest.approx({"r2": 0.5, "rmse": 0.5**0.5, "mae": 0.5})
    assert set(evaluation.regression(np.array([1.0]), np.array([1.0]))) == {"rmse", "mae"}


def test_details_hold_confusion_classes_and_predictions() -> None:
    scored = Scored(np.array([0, 1]), None, np.arange(2), False)
    details = evaluation.classification_details(np.array([0, 0]), scored, ["a", "b"], np.array([7, 9]))
    assert details["confusion_matrix"].tolist() == [[1, 1], [0, 0]]
    assert details["per_class"]["a"] == {"precision": 1.0, "recall": 0.5, "f1": pytest.approx(2 / 3), "support": 2}
    assert details["test_predictions"]["row"].tolist() == [7, 9]


def test_a_network_says_what_its_loss_was_after_each_epoch() -> None:
    rows, codes = np.arange(40.0)[:, None] / 40, np.arange(40) // 20
    curve = evaluation.loss_curve(MLPClassifier(max_iter=5, random_state=1).fit(rows, codes))
    assert curve is not None
    assert curve["epoch"] == [1, 2, 3, 4, 5]
    assert len(curve["loss"]) == 5
    assert set(curve) == {"epoch", "loss"}
    regressor = TransformedTargetRegressor(MLPRegressor(max_iter=4, early_stopping=True, random_state=1))
    curve = evaluation.loss_curve(regressor.fit(rows, rows[:, 0]))
    assert curve is not None
    assert len(curve["validation_score"]) == len(curve["epoch"]) == 4


def test_an_estimator_may_tell_its_losses_as_a_history_or_not_at_all() -> None:
    told = {"loss": [0.5, 0.4], "validation_loss": [0.6, 0.5]}
    assert evaluation.loss_curve(SimpleNamespace(history_=told)) == {"epoch": [1, 2], **told}
    told = {"loss": [0.5], "validation_loss": []}
    assert evaluation.loss_curve(SimpleNamespace(history_=told)) == {"epoch": [1], "loss": [0.5]}
    assert evaluation.loss_curve(SVC()) is None
