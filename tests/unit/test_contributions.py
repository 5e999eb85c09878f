"""What each raw column adds to a prediction: with the baseline it is the model's own score."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from pipeline.algorithms import catalogue
from pipeline.errors import RejectedError
from pipeline.features.frames import table_of
from pipeline.features.preparation import owners
from pipeline.model_files.contributions import check_explainable
from pipeline.model_files.model_file import LoadedModel
from tests.training_data import Bench, mixed_rows, natural, pictures, request

HAVE = (
    *("decision_tree", "decision_tree_regressor", "elastic_net", "linear_regression", "logistic_regression"),
    *("random_forest", "random_forest_regressor", "ridge"),
)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def records(rows: pd.DataFrame) -> list[dict[str, Any]]:
    return [dict(zip(rows.columns, row, strict=True)) for row in rows.itertuples(index=False, name=None)]


def score(model: LoadedModel, rows: pd.DataFrame) -> Any:
    """The model's own score of each row, as `Contributions` describes it."""
    predictions = model.predict(rows)
    if predictions.probabilities is None:
        return np.asarray(predictions.labels)
    estimator = model.pipeline[-1]
    codes = np.searchsorted(estimator.classes_, predictions.labels)
    if not hasattr(estimator, "decision_function"):
        return predictions.probabilities[np.arange(len(codes)), codes]
    scores = estimator.decision_function(model.prepared(records(rows)))
    return np.where(codes == 1, scores, -scores) if scores.ndim == 1 else scores[np.arange(len(codes)), codes]


@pytest.mark.parametrize("name", HAVE)
def test_baseline_and_contributions_add_up_to_the_score(bench: Bench, name: str) -> None:
    rows = natural(catalogue()[name])
    model = bench.load(bench.train(request(name), rows))
    raw = rows.drop(columns="label")
    why = model.predict(raw, explain=True).contributions
    assert why is not None
    assert set(why.columns) == set(raw)
    assert np.allclose(why.baseline + why.values.sum(axis=1), score(model, raw), rtol=1e-9, atol=1e-9)
    assert np.abs(why.values).max() > 0


@pytest.mark.parametrize(("classes", "solver"), [(2, "lbfgs"), (2, "liblinear"), (3, "liblinear")])
def test_log_odds_are_those_of_the_predicted_class(bench: Bench, classes: int, solver: str) -> None:
    rows = mixed_rows(classes=classes)
    model = bench.load(bench.train(request("logistic_regression", hyperparameters={"solver": solver}), rows))
    raw = rows.drop(columns="label")
    predictions = model.predict(raw, explain=True)
    why = predictions.contributions
    assert why is not None
    total = why.baseline + why.values.sum(axis=1)
    assert np.allclose(total, score(model, raw), rtol=1e-9, atol=1e-9)
    if classes == 2:
        assert predictions.probabilities is not None
        likely = predictions.probabilities.max(axis=1)
        assert np.allclose(total, np.log(likely / (1 - likely)))


def test_a_contribution_is_of_the_column_that_made_it(bench: Bench) -> None:
    """Names that begin alike, and a column whose categories look like another column's name."""
    random = np.random.default_rng(0)
    plan = random.choice(["x", "x_1", "y"], 300)
    rows = pd.DataFrame({"a": plan, "a_x": random.choice(["1", "2"], 300), "y": (plan == "x") * 10.0})
    model = bench.load(bench.train(request("linear_regression"), rows))
    why = model.predict(rows[["a_x", "a"]], explain=True).contributions
    assert why is not None
    by_column = dict(zip(why.columns, np.abs(why.values).max(axis=0), strict=True))
    assert by_column["a"] > 3
    assert by_column["a_x"] < 1e-9


def test_there_is_an_owner_for_each_prepared_column(bench: Bench) -> None:
    """Rare categories share a column, and a column without a value in the training part makes none."""
    rows = mixed_rows(400)
    rows.insert(0, "rare", [f"word {place % 150}" for place in range(len(rows))])
    rows.insert(0, "late", np.where(np.arange(len(rows)) == 399, 1.0, np.nan))
    rows.insert(0, "day", range(len(rows)))
    model = bench.load(bench.train(request("decision_tree", time_column="day"), rows))
    prepared = model.prepared(records(rows.drop(columns="label")))
    found = owners(model.pipeline, model.columns)
    assert len(found) == prepared.shape[1]
    assert found.count("rare") == 100
    assert found.count("seen") == 5
    assert "late" not in found


def test_a_tensor_is_one_column(bench: Bench) -> None:
    flat = pictures(120)
    images = flat.drop(columns="label").to_numpy().reshape(len(flat), 4, 4)
    table = pd.DataFrame({"pixels": [image.tolist() for image in images], "label": flat["label"]})
    model = bench.load(bench.train(request("random_forest"), table_of(table)))
    why = model.predict(table[["pixels"]], explain=True).contributions
    assert why is not None
    assert why.columns == ["pixels"]
    assert np.allclose(why.baseline + why.values[:, 0], score(model, table[["pixels"]]))


def test_other_algorithms_are_refused_with_the_names_of_those_that_have_contributions(bench: Bench) -> None:
    model = bench.load(bench.train(request("svm")))
    with pytest.raises(RejectedError, match="a model of svm has no contributions") as refused:
        model.predict([dict(model.example[0])], explain=True)
    assert f"those of {', '.join(HAVE)} have" in str(refused.value)
    for name, entry in catalogue().items():
        if name not in HAVE and not entry.framework:
            with pytest.raises(RejectedError):
                check_explainable(entry.build(entry.resolve({}, 1)), name)
