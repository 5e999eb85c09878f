"""Numbers at the ends of what a float holds: every algorithm trains on them, or the column is rejected by its name."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from pipeline.algorithms import Algorithm, catalogue
from pipeline.errors import RejectedError, TrainingFailed, said_by
from pipeline.features.columns import LARGEST
from pipeline.jobs import Search, SearchDimension
from tests.training_data import Bench, request

ROWS = 60
PLACE = np.arange(ROWS)
NORMAL = np.random.default_rng(0).normal(size=ROWS)
TRAINED: dict[str, Any] = {
    "infinity": np.where(PLACE % 7, NORMAL, np.where(PLACE % 2, np.inf, -np.inf)),
    "the largest": np.where(PLACE % 5, NORMAL, np.where(PLACE % 2, LARGEST, -LARGEST)),
    "one large": np.where(PLACE == 17, 1e39, NORMAL),
    "subnormal": NORMAL * 1e-310,
    "64 bits": np.where(PLACE % 3, 2**63 - 1, -(2**63)),
    "beyond 64 bits": 2.0**63 + PLACE,
}
REJECTED: dict[str, Any] = {
    "infinity beside the largest float": np.where(PLACE % 2, np.inf, 1e308),
    "the largest floats": np.where(PLACE % 2, -1e308, 1e308),
    "a square that overflows": np.where(PLACE == 17, 1e160, NORMAL),
    "above the largest": np.where(PLACE == 17, np.nextafter(LARGEST, np.inf), NORMAL),
    "far from the training part": np.where(PLACE > 50, 1e90, np.nan),
}


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


@pytest.fixture(params=list(catalogue().values()), ids=lambda entry: entry.name)
def algorithm(request: pytest.FixtureRequest) -> Algorithm:
    entry: Algorithm = request.param
    return entry


def _frame(algorithm: Algorithm, column: Any) -> pd.DataFrame:
    """Four features, which are also an image of 2 x 2; the second is the column."""
    x = np.random.default_rng(1).normal(size=(ROWS, 3))
    target = x[:, 0] if algorithm.task == "regression" else np.where(PLACE % 2, "odd", "even")
    return pd.DataFrame({"a": x[:, 0], "b": column, "c": x[:, 1], "d": x[:, 2], "y": target})


def test_numbers_up_to_the_largest_are_learned_and_the_model_scores_rows_of_them(
    bench: Bench, algorithm: Algorithm
) -> None:
    for column in TRAINED.values():
        frame = _frame(algorithm, column)
        trained = bench.train(request(algorithm.name), frame)
        assert np.isfinite(list(trained.metrics.values())).all()
        labels = bench.predict(trained, frame.drop(columns="y")).labels
        assert algorithm.task == "classification" or np.isfinite(labels).all()


def test_numbers_that_cannot_be_standardised_are_rejected_by_the_name_of_their_column(
    bench: Bench, algorithm: Algorithm
) -> None:
    for column in REJECTED.values():
        with pytest.raises(RejectedError, match=r"^column 'b'.* leave (it )?out .*scale the column$"):
            bench.train(request(algorithm.name), _frame(algorithm, column))


@pytest.mark.parametrize("value", [1e308, -1e160, np.nextafter(LARGEST, np.inf), 1e90, 10**400])
@pytest.mark.parametrize("name", ["random_forest", "logistic_regression", "svm_regressor"])
def test_a_row_to_predict_is_rejected_by_the_column_that_is_beyond(bench: Bench, name: str, value: float) -> None:
    model = bench.load(bench.train(request(name), _frame(catalogue()[name], NORMAL)))
    row = {"a": 0.5, "b": value, "c": 0.5, "d": 0.5}
    with pytest.raises(RejectedError, match=r"^column 'b'"):
        model.predict([row])
    for missing in (np.inf, -np.inf, np.nan, None):
        assert len(model.predict([{**row, "b": missing}]).labels) == 1


def test_the_column_is_named_beside_words_and_dates_too(bench: Bench) -> None:
    frame = _frame(catalogue()["decision_tree"], np.where(PLACE > 50, 1e90, 5.0))
    frame = frame.assign(word=np.where(PLACE % 3, "x", "y"), seen=pd.date_range("2025-01-01", periods=ROWS))
    for features in (None, ("word", "b", "a")):
        with pytest.raises(RejectedError, match=r"^column 'b': a value is so far"):
            bench.train(request(target_column="y", time_column="seen", features=features), frame)


def test_a_search_names_it_too(bench: Bench) -> None:
    space = (SearchDimension("max_depth", values=(2, 3)),)
    asked = request(search=Search("grid", space, cv=3), hyperparameters={}, time_column="b", features=("a", "c"))
    frame = _frame(catalogue()["decision_tree"], PLACE).assign(c=np.where(PLACE > 30, 1e90, 5.0))
    with pytest.raises(RejectedError, match=r"^column 'c': a value is so far"):
        bench.train(asked, frame)


@pytest.mark.parametrize("name", [name for name, entry in catalogue().items() if entry.task == "regression"])
def test_a_target_is_learned_up_to_the_largest_number_and_rejected_by_its_name_beyond(bench: Bench, name: str) -> None:
    frame = _frame(catalogue()[name], NORMAL)
    for column in TRAINED.values():
        metrics = bench.train(request(name), frame.assign(y=column)).metrics
        assert np.isfinite(list(metrics.values())).all()
    for why in list(REJECTED)[:4]:
        with pytest.raises(RejectedError, match=r"^the target 'y' holds numbers that cannot be learned: .*scale"):
            bench.train(request(name), frame.assign(y=REJECTED[why]))


def test_what_an_estimator_raises_is_told_without_its_class_or_a_path(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever is left to raise."""

    def raising(*_: Any, **__: Any) -> None:
        raise ValueError("Input X contains NaN.\nSee https://scikit-learn.org for more")

    monkeypatch.setattr("pipeline.training.training._fit", raising)
    with pytest.raises(
        TrainingFailed, match=re.escape("decision_tree could not be trained: Input X contains NaN.")
    ) as e:
        bench.train(request(), _frame(catalogue()["decision_tree"], NORMAL))
    assert "Error" not in str(e.value)
    assert said_by(FileNotFoundError(2, "No such file or directory", "/var/lib/x")) == "No such file or directory"
    assert said_by(KeyError()) == "it gave no reason"
    assert said_by(TimeoutError()) == "it took too long"
