"""Laws that every algorithm of the catalogue keeps, on data of its kind."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from scipy.sparse import issparse  # type: ignore[import-untyped]

from pipeline.algorithms import Algorithm, catalogue
from pipeline.errors import RejectedError
from pipeline.model_files.model_file import LoadedModel
from pipeline.training.trained import Trained
from pipeline.training.training import Stage
from tests.frameworks import within
from tests.training_data import QUICK, Bench, mixed_rows, natural, request, told_while_training, wide_rows

REGRESSORS = [name for name, entry in catalogue().items() if entry.task == "regression"]
SPARSE = [name for name, entry in catalogue().items() if not entry.needs_dense]
SHAPED = [name for name, entry in catalogue().items() if entry.takes != "table"]
CLASSIFIERS = [name for name, entry in catalogue().items() if entry.task == "classification"]


@pytest.fixture
def bench(tmp_path: Any) -> Bench:
    return Bench(tmp_path)


@pytest.fixture(params=list(catalogue().values()), ids=lambda entry: entry.name)
def algorithm(request: pytest.FixtureRequest) -> Algorithm:
    entry: Algorithm = request.param
    return entry


def numbers(algorithm: Algorithm, features: int, rows: int = 80) -> pd.DataFrame:
    """Standard normal columns, the first of which tells the target."""
    x = np.random.default_rng(2).normal(size=(rows, features))
    frame = pd.DataFrame(x, columns=[f"x{place}" for place in range(features)])
    frame["y"] = np.where(x[:, 0] > 0, "above", "below") if algorithm.task == "classification" else 3 * x[:, 0]
    return frame


def score(trained: Trained) -> tuple[float, float]:
    """How well it does, and how well without a look at the features."""
    if trained.model_type == "regression":
        return -trained.metrics["rmse"], -trained.metrics["baseline_rmse"]
    return trained.metrics["accuracy"], trained.metrics["baseline_accuracy"]


def said(model: LoadedModel) -> list[Any]:
    """What it predicted of its test rows."""
    predicted: list[Any] = model.evaluation["test_predictions"]["predicted"]
    return [model.evaluation["classes"][place] for place in predicted] if model.manifest["classes"] else predicted


def test_it_learns_from_rows_of_its_kind_and_beats_the_baseline(bench: Bench, algorithm: Algorithm) -> None:
    found, baseline = score(bench.train(request(algorithm.name), natural(algorithm)))
    assert found > baseline


def test_the_stored_model_predicts_raw_rows_as_it_did_when_it_was_tested(bench: Bench, algorithm: Algorithm) -> None:
    frame = natural(algorithm)
    trained = bench.train(request(algorithm.name), frame)
    model = bench.load(trained)
    tested = model.evaluation["test_predictions"]
    raw = frame.drop(columns="label").iloc[tested["row"]]
    expected = said(model)
    assert bench.predict(trained, raw).labels == expected
    documents = [{name: value for name, value in row.items() if value is not None} for row in raw.to_dict("records")]
    assert bench.predict(trained, documents).labels == expected
    if (scores := tested.get("scores")) is not None and tested["scores_are"] == "probabilities":
        np.testing.assert_array_equal(bench.predict(trained, raw).probabilities, scores)


@pytest.mark.parametrize("name", SPARSE)
def test_the_stored_model_of_a_sparse_matrix_predicts_raw_rows_as_it_did_when_it_was_tested(
    bench: Bench, name: str
) -> None:
    frame = wide_rows(catalogue()[name])
    model = bench.load(bench.train(request(name), frame))
    raw = frame.drop(columns="label").iloc[model.evaluation["test_predictions"]["row"]]
    assert issparse(model.prepared(raw.to_dict("records")))
    assert model.predict(raw).labels == said(model)


def test_the_same_request_gives_the_same_file(bench: Bench, algorithm: Algorithm) -> None:
    data = bench.dataset(natural(algorithm, 60))
    first, second = (bench.train(request(algorithm.name), data) for _ in range(2))
    assert first.sha256 == second.sha256
    assert bench.train(request(algorithm.name, seed=1), data).sha256 != first.sha256


def test_progress_rises_and_changes_nothing(bench: Bench, algorithm: Algorithm) -> None:
    data = bench.dataset(natural(algorithm, 60))
    asked = request(algorithm.name)
    heard, told = within(algorithm.framework, told_while_training, asked, data, bench.directory)
    assert list(dict.fromkeys(stage for stage, _, _ in told)) == list(Stage)
    for stage in Stage:
        done = [fraction for at, fraction, _ in told if at is stage and fraction is not None]
        assert done == sorted(done)
        assert all(0 <= fraction <= 1 for fraction in done)
    if algorithm.framework:
        assert sum("epoch" in message for _, _, message in told) == QUICK[algorithm.name]["epochs"]
    assert heard.sha256 == bench.train(asked, data).sha256


def test_wrong_hyperparameters_are_rejected(bench: Bench, algorithm: Algorithm) -> None:
    with pytest.raises(RejectedError, match=f"{algorithm.name} has no hyperparameter 'depth'"):
        bench.train(request(algorithm.name, hyperparameters={"depth": 1}), numbers(algorithm, 2))


@pytest.mark.parametrize("features", [1, 1_000])
def test_one_feature_and_a_thousand(bench: Bench, algorithm: Algorithm, features: int) -> None:
    shape = {"input_shape": [20, 50]} if features == 1_000 and algorithm.takes != "table" else {}
    asked = request(algorithm.name, hyperparameters={**QUICK.get(algorithm.name, {}), **shape})
    trained = bench.train(asked, numbers(algorithm, features))
    assert len(trained.features) == features
    assert len(bench.predict(trained, [{f"x{place}": 0.5 for place in range(features)}]).labels) == 1


def test_folds_are_scored_inside_the_training_part(bench: Bench, algorithm: Algorithm) -> None:
    frame = numbers(algorithm, 4)
    plain, folded = (bench.train(request(algorithm.name, cv=cv), frame) for cv in (None, 3))
    assert plain.metrics.items() <= folded.metrics.items()
    metric = "rmse" if algorithm.task == "regression" else "accuracy"
    assert folded.metrics[f"cv_{metric}_mean"] > 0
    assert folded.metrics[f"cv_{metric}_std"] >= 0
    assert not any(name.startswith("cv_") for name in plain.metrics)


@pytest.mark.parametrize("name", CLASSIFIERS)
@pytest.mark.parametrize("classes", [2, 3, 20])
def test_a_classifier_tells_two_to_twenty_classes_apart(bench: Bench, name: str, classes: int) -> None:
    labels = np.arange(100) % classes
    trained = bench.train(request(name), pd.DataFrame({"x": np.linspace(0, 1, 100) + labels, "y": labels}))
    assert len(trained.classes) == classes
    assert all(isinstance(label, int) for label in bench.predict(trained, [{"x": 0.5}, {"x": None}]).labels)


@pytest.mark.parametrize("name", CLASSIFIERS)
@pytest.mark.parametrize("labels", [[True, False], [3, 7], ["yes", "no"]])
def test_labels_keep_their_type(bench: Bench, name: str, labels: list[Any]) -> None:
    frame = pd.DataFrame({"x": np.linspace(0, 1, 30) + np.arange(30) % 2, "y": labels * 15})
    trained = bench.train(request(name), frame)
    predicted = bench.predict(trained, [{"x": 0.0}, {"x": 1.9}]).labels
    assert {type(label) for label in predicted} == {type(labels[0])}
    assert trained.classes == sorted(map(str, labels))


@pytest.mark.parametrize("name", REGRESSORS)
def test_a_regressor_predicts_in_the_units_of_its_target(bench: Bench, name: str) -> None:
    """Whatever it is fitted on; integers are numbers too."""
    x = np.linspace(0, 1, 100)
    trained = bench.train(request(name), pd.DataFrame({"x": x, "y": (1_000_000 + 1_000 * x).astype(int)}))
    (predicted,) = bench.load(trained).predict([{"x": 0.5}]).labels
    assert isinstance(predicted, float)
    assert abs(predicted - 1_000_500) < 200
    assert trained.classes == []


@pytest.mark.parametrize("name", REGRESSORS)
def test_a_regressor_refuses_words(bench: Bench, name: str) -> None:
    with pytest.raises(RejectedError, match=f"holds no numbers, which {name} needs"):
        bench.train(request(name, "iris"))


@pytest.mark.parametrize("name", SHAPED)
def test_what_is_no_image_or_sequence_is_rejected_with_the_figures(bench: Bench, name: str) -> None:
    kind = catalogue()[name].takes
    with pytest.raises(RejectedError, match=f"6 feature columns do not form a square {kind}; .* input_shape"):
        bench.train(request(name), numbers(catalogue()[name], 6))
    asked = request(name, hyperparameters={"input_shape": [2, 2]})
    with pytest.raises(RejectedError, match=r"\[2, 2\] has 4 numbers, but the dataset has 6 feature columns"):
        bench.train(asked, numbers(catalogue()[name], 6))
    with pytest.raises(RejectedError, match=f"one {kind} of numbers; city, paid, seen, note are not numeric"):
        bench.train(request(name), mixed_rows())


@pytest.mark.parametrize("name", SHAPED)
def test_a_shape_that_is_given_is_taken(bench: Bench, name: str) -> None:
    asked = request(name, hyperparameters={**QUICK[name], "input_shape": [2, 3]})
    trained = bench.train(asked, numbers(catalogue()[name], 6))
    assert trained.hyperparameters["input_shape"] == [2, 3]
    assert len(bench.predict(trained, [{f"x{place}": 0.5 for place in range(6)}]).labels) == 1


@pytest.mark.parametrize("name", [name for name in SHAPED if not name.startswith("keras")])
def test_a_column_of_lists_says_its_shape_itself(bench: Bench, name: str) -> None:
    """Two by three, which is no square."""
    x = np.random.default_rng(2).normal(size=(80, 2, 3)).astype(np.float32)
    values = pa.FixedSizeListArray.from_arrays(pa.FixedSizeListArray.from_arrays(pa.array(x.ravel()), 3), 2)
    table = pa.table({"picture": values, "y": pa.array(np.where(x[:, 0, 0] > 0, "above", "below"))})
    trained = bench.train(request(name), table)
    assert trained.hyperparameters["input_shape"] == [2, 3]
    assert len(bench.predict(trained, [{"picture": x[0].tolist()}]).labels) == 1
