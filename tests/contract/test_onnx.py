"""Models as ONNX: each algorithm answers in onnxruntime as it does here, or is refused with the reason."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import orjson
import pandas as pd
import pytest
from sklearn.dummy import DummyClassifier
from sklearn.pipeline import Pipeline

from pipeline.algorithms import Algorithm, catalogue
from pipeline.datasets.builtin import load_frame
from pipeline.errors import RejectedError
from pipeline.exports import FORMATS, export
from pipeline.exports import onnx as to_onnx
from pipeline.model_files.model_file import LoadedModel
from tests.training_data import Bench, mixed_rows, request

CLASSIFIES = [entry for entry in catalogue().values() if entry.task == "classification"]


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


@pytest.fixture(params=[entry for entry in catalogue().values() if not entry.framework], ids=lambda entry: entry.name)
def algorithm(request: pytest.FixtureRequest) -> Algorithm:
    entry: Algorithm = request.param
    return entry


def rows_for(algorithm: Algorithm, *columns: str) -> pd.DataFrame:
    """Numbers, words and truths, with gaps; the target follows the first column."""
    frame = mixed_rows(200, classes=3).replace(np.inf, np.nan)
    if algorithm.task == "regression":
        frame["label"] = 100.0 + 20.0 * (np.arange(200) % 3) + np.random.default_rng(1).normal(size=200)
    return frame[[*columns, "label"]]


def fed(frame: pd.DataFrame) -> dict[str, Any]:
    """As a user would: each column by its name, numbers and truths as doubles, words as they are."""
    columns = {}
    for name in frame.columns:
        if isinstance(frame[name].dtype, pd.StringDtype) or frame[name].dtype == object:
            columns[name] = frame[name].astype(object).fillna("missing").to_numpy().reshape(-1, 1)
        else:
            columns[name] = frame[name].to_numpy(dtype=np.float64, na_value=np.nan).reshape(-1, 1)
    return columns


def run(file: Path, frame: pd.DataFrame) -> dict[str, Any]:
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    assert [given.name for given in session.get_inputs()] == list(frame.columns)
    assert all(given.shape == [None, 1] for given in session.get_inputs())
    return dict(zip((one.name for one in session.get_outputs()), session.run(None, fed(frame)), strict=True))


def assert_same(model: LoadedModel, file: Path, rows: pd.DataFrame) -> None:
    found, expected = run(file, rows), model.predict(rows)
    if model.manifest["task"] == "regression":
        np.testing.assert_allclose(found["label"].reshape(-1), expected.labels, rtol=1e-5)
        return
    assert found["label"].tolist() == expected.labels
    if expected.probabilities is not None:
        np.testing.assert_allclose(found["probabilities"], expected.probabilities, atol=1e-5)


@pytest.mark.parametrize("columns", [("size", "count"), ("size", "count", "city", "paid")], ids=["numbers", "mixed"])
def test_every_algorithm_answers_raw_rows_in_onnx_as_it_does_here(
    bench: Bench, algorithm: Algorithm, columns: tuple[str, ...], tmp_path: Path
) -> None:
    frame = rows_for(algorithm, *columns)
    model = bench.load(bench.train(request(algorithm.name), frame))
    exported = export(model, "onnx", tmp_path / "model.onnx")
    assert exported.rows_compared == 505
    assert exported.difference < 1e-5
    rows = frame.drop(columns="label")
    assert rows.isna().any(axis=None)
    assert len(set(model.predict(rows).labels)) > 1
    assert_same(model, tmp_path / "model.onnx", rows)


@pytest.mark.parametrize(
    ("algorithm", "hyperparameters"),
    [
        ("logistic_regression", {"solver": "liblinear"}),
        ("svm", {"kernel": "linear"}),
        ("svm", {"kernel": "poly", "degree": 2, "gamma": 0.5}),
        ("svm", {"decision_function_shape": "ovo"}),
        ("k_nearest_neighbors", {"n_neighbors": 3, "metric": "manhattan"}),
        ("neural_network", {"activation": "tanh", "hidden_layer_sizes": [8, 4], "max_iter": 30}),
        ("random_forest", {"n_estimators": 300}),
        ("gradient_boosting", {"max_iter": 200, "min_samples_leaf": 2}),
    ],
)
def test_hyperparameters_that_change_what_is_computed_are_exported_too(
    bench: Bench, algorithm: str, hyperparameters: dict[str, Any], tmp_path: Path
) -> None:
    asked = request(algorithm, hyperparameters=hyperparameters)
    frame = rows_for(catalogue()[algorithm], "size", "count", "city")
    model = bench.load(bench.train(asked, frame))
    export(model, "onnx", tmp_path / "model.onnx")
    assert_same(model, tmp_path / "model.onnx", frame.drop(columns="label"))


@pytest.mark.parametrize("dataset", ["iris", "digits"])
def test_datasets_whose_values_repeat_come_out_the_same(bench: Bench, dataset: str, tmp_path: Path) -> None:
    model = bench.load(bench.train(request("random_forest", dataset, hyperparameters={"n_estimators": 50})))
    export(model, "onnx", tmp_path / "model.onnx")
    assert_same(model, tmp_path / "model.onnx", load_frame(dataset)[model.manifest["features"]])


def test_labels_are_of_their_own_type_and_the_file_says_what_they_are(bench: Bench, tmp_path: Path) -> None:
    frame = pd.DataFrame({"label": np.linspace(-1, 1, 60)})
    frame["y"] = (frame["label"] > 0) + 3
    model = bench.load(bench.train(request("decision_tree"), frame))
    export(model, "onnx", tmp_path / "model.onnx")
    found = run(tmp_path / "model.onnx", frame[["label"]])
    assert found["predicted_label"].tolist() == frame["y"].tolist(), "a column is called label already"
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    said = {name: orjson.loads(text) for name, text in session.get_modelmeta().custom_metadata_map.items()}
    assert said == {"classes": ["3", "4"], "target": "y", "request_id": "r1"}


def test_columns_keep_the_names_that_people_gave_them(bench: Bench, tmp_path: Path) -> None:
    rows = rows_for(CLASSIFIES[0], "size", "count", "city")
    names = {"size": "variable", "count": "Größe (cm), 2. Wahl", "city": "column_0"}
    frame = rows.rename(columns=names)
    model = bench.load(bench.train(request("random_forest"), frame))
    export(model, "onnx", tmp_path / "model.onnx")
    assert_same(model, tmp_path / "model.onnx", frame.drop(columns="label"))


def test_a_category_that_training_had_not_is_nobodys(bench: Bench, tmp_path: Path) -> None:
    frame = rows_for(CLASSIFIES[0], "size", "city")
    model = bench.load(bench.train(request("logistic_regression"), frame))
    export(model, "onnx", tmp_path / "model.onnx")
    strange = frame.drop(columns="label").assign(city="Atlantis")
    assert model.predict(strange).unseen == {"city": 200}
    assert_same(model, tmp_path / "model.onnx", strange)


@pytest.mark.parametrize(
    ("column", "message"), [("seen", "column 'seen' holds dates; ONNX"), ("note", "column 'note' holds texts; ONNX")]
)
def test_what_onnx_has_no_words_for_is_refused_by_the_columns_name(
    bench: Bench, column: str, message: str, tmp_path: Path
) -> None:
    model = bench.load(bench.train(request("random_forest"), rows_for(CLASSIFIES[0], "size", column)))
    with pytest.raises(RejectedError, match=message):
        export(model, "onnx", tmp_path / "model.onnx")
    assert not (tmp_path / "model.onnx").exists()


def test_rare_categories_that_are_one_to_us_are_refused(bench: Bench, tmp_path: Path) -> None:
    frame = rows_for(CLASSIFIES[0], "size").assign(city=[f"city {place % 150}" for place in range(200)])
    model = bench.load(bench.train(request("logistic_regression"), frame[["size", "city", "label"]]))
    with pytest.raises(RejectedError, match="more than 100 categories"):
        export(model, "onnx", tmp_path / "model.onnx")


def test_an_estimator_that_has_no_converter_is_named(bench: Bench, tmp_path: Path) -> None:
    model = bench.load(bench.train(request("decision_tree")))
    rows = load_frame("iris")
    strange = DummyClassifier(strategy="stratified").fit(rows.iloc[:, :4], rows["species"])
    pipeline = Pipeline([*model.pipeline.steps[:-1], ("model", strange)])
    other = LoadedModel(model.manifest, pipeline, model.columns, model.example, model.evaluation, model.data)
    with pytest.raises(RejectedError, match="DummyClassifier with its preparation cannot be converted to ONNX"):
        export(other, "onnx", tmp_path / "model.onnx")


def test_what_onnx_computes_in_another_way_is_refused(bench: Bench, tmp_path: Path) -> None:
    asked = request("k_nearest_neighbors", hyperparameters={"weights": "distance", "metric": "manhattan"})
    model = bench.load(bench.train(asked, rows_for(CLASSIFIES[0], "size", "count", "city")))
    with pytest.raises(RejectedError, match=r"\d+ of 505 labels differ, and probabilities differ by up to 0\.\d+"):
        export(model, "onnx", tmp_path / "model.onnx")
    assert not (tmp_path / "model.onnx").exists()


@pytest.mark.parametrize("algorithm", ["logistic_regression", "ridge"])
def test_a_copy_that_answers_otherwise_is_not_written_and_the_difference_is_told(
    bench: Bench, algorithm: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = bench.load(bench.train(request(algorithm), rows_for(catalogue()[algorithm], "size", "count")))
    whole = to_onnx._estimator

    def shifted(estimator: Any) -> Any:
        estimator = whole(estimator)
        estimator.coef_ = estimator.coef_ * 1.01
        return estimator

    monkeypatch.setattr(to_onnx, "_estimator", shifted)
    with pytest.raises(RejectedError, match=r"was not written.* differ by up to 0\.0\d+"):
        export(model, "onnx", tmp_path / "model.onnx")
    assert not (tmp_path / "model.onnx").exists()


def test_exporting_leaves_the_model_as_it_was(bench: Bench, tmp_path: Path) -> None:
    for name in ("svm_regressor", "neural_network_regressor", "gradient_boosting"):
        frame = rows_for(catalogue()[name], "size", "city", "paid")
        model = bench.load(bench.train(request(name), frame))
        before = model.predict(frame).labels
        export(model, "onnx", tmp_path / f"{name}.onnx")
        assert model.predict(frame).labels == before


def test_without_the_extra_its_packages_are_named(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = bench.load(bench.train(request()))
    monkeypatch.setattr(to_onnx, "find_spec", lambda name: None if name == "skl2onnx" else object())
    with pytest.raises(RejectedError, match="needs the extra onnx, of which skl2onnx is not installed"):
        export(model, "onnx", tmp_path / "model.onnx")


def test_there_is_no_other_format(bench: Bench, tmp_path: Path) -> None:
    with pytest.raises(RejectedError, match="there is no format 'pickle'; there are " + ", ".join(FORMATS)):
        export(bench.load(bench.train(request())), "pickle", tmp_path / "model")
