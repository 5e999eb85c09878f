"""An unpacked model file is a directory that the real MLflow loads, and it predicts there what it predicts here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow.exceptions import MlflowException

from pipeline.datasets.builtin import load_frame
from pipeline.model_files.model_file import LoadedModel
from tests.training_data import Bench, mixed_rows, request

CLASSIFIERS = ("random_forest", "svm", "gradient_boosting", "logistic_regression", "naive_bayes")
REGRESSORS = ("linear_regression", "svm_regressor", "gradient_boosting_regressor")
FITS = {"size": [1.5, None, 0.1], "count": [1, 2, 3], "city": ["Ulm", None, "Rome"], "paid": [True, None, False]}


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def mixed(algorithm: str) -> pd.DataFrame:
    """Numbers, words, truths, dates and text, with gaps in all but the whole numbers."""
    frame = mixed_rows(classes=3)
    if algorithm in REGRESSORS:
        frame["label"] = 20.0 * (np.arange(len(frame)) % 3) + np.random.default_rng(1).normal(size=len(frame))
    return frame


def as_mlflow_takes_them(frame: pd.DataFrame) -> pd.DataFrame:
    """The same rows; a missing boolean is None, and infinity, which we read as missing, is NaN."""
    paid = frame["paid"].astype(object).where(frame["paid"].notna(), None)
    return frame.assign(size=frame["size"].replace(np.inf, np.nan), paid=paid)


def in_mlflow(model: LoadedModel, folder: Path) -> Any:
    model.unpack(folder)
    return mlflow.pyfunc.load_model(str(folder))


def same(found: Any, expected: Any) -> bool:
    """Bit for bit: it is the same pipeline."""
    return list(found) == list(expected)


@pytest.mark.parametrize("algorithm", [*CLASSIFIERS, *REGRESSORS])
def test_mlflow_predicts_raw_rows_of_every_column_type_as_we_do(bench: Bench, tmp_path: Path, algorithm: str) -> None:
    frame = mixed(algorithm)
    model = bench.load(bench.train(request(algorithm), frame))
    rows = frame.drop(columns="label")
    assert rows.isna().any().sum() == 5
    loaded = in_mlflow(model, tmp_path / "model")
    found = loaded.predict(as_mlflow_takes_them(rows))
    assert same(found, model.predict(rows).labels)
    assert len(set(found)) > 1
    shuffled = as_mlflow_takes_them(rows)[rows.columns[::-1]].assign(more=1)
    assert same(loaded.predict(shuffled), found), "columns match by name"


@pytest.mark.parametrize(("algorithm", "dataset"), [("svm", "iris"), ("random_forest", "wine"), ("ridge", "diabetes")])
def test_mlflow_predicts_rows_of_numbers_as_we_do(bench: Bench, tmp_path: Path, algorithm: str, dataset: str) -> None:
    model = bench.load(bench.train(request(algorithm, dataset)))
    rows = load_frame(dataset)[model.manifest["features"]]
    assert same(in_mlflow(model, tmp_path / "model").predict(rows), model.predict(rows).labels)
    gaps = rows.astype(float).where(np.arange(rows.size).reshape(rows.shape) % 7 > 0)
    assert same(in_mlflow(model, tmp_path / "again").predict(gaps), model.predict(gaps).labels)


@pytest.mark.parametrize("kind", ["long", "boolean", "string"])
def test_labels_come_back_as_they_were_in_the_dataset(bench: Bench, tmp_path: Path, kind: str) -> None:
    frame = pd.DataFrame({"x": np.linspace(-1, 1, 60)})
    positive = frame["x"] > 0
    labels: dict[str, pd.Series[Any]] = {
        "long": positive + 3,
        "boolean": positive,
        "string": positive.map({True: "yes", False: "no"}),
    }
    frame["y"] = labels[kind]
    model = bench.load(bench.train(request("decision_tree"), frame))
    loaded = in_mlflow(model, tmp_path / "model")
    assert [str(output.type.name) for output in loaded.metadata.signature.outputs.inputs] == [kind]
    assert same(loaded.predict(frame[["x"]]), frame["y"])


def test_columns_of_objects_with_gaps_pass(bench: Bench, tmp_path: Path) -> None:
    model = bench.load(bench.train(request("random_forest"), mixed_rows()))
    loaded = in_mlflow(model, tmp_path / "model")
    days = pd.Series([pd.Timestamp("2025-01-03"), pd.NaT, pd.Timestamp("2025-02-01")])
    rows = pd.DataFrame({**FITS, "seen": days.astype(object), "note": ["good day", None, "rain"]})
    assert same(loaded.predict(rows), model.predict(rows).labels)


@pytest.mark.parametrize("kind", ["int32", "int64", "Int64", "float32", "float64", "object"])
def test_mlflow_takes_numbers_whatever_they_are_stored_as(bench: Bench, tmp_path: Path, kind: str) -> None:
    """In training `size` was real numbers and `count` whole ones."""
    model = bench.load(bench.train(request("random_forest"), mixed_rows()))
    loaded = in_mlflow(model, tmp_path / "model")
    rows = as_mlflow_takes_them(mixed_rows().drop(columns="label")).assign(size=1)
    rows = rows.astype({"count": kind, "size": kind})
    assert same(loaded.predict(rows), model.predict(rows).labels)


@pytest.mark.parametrize("gap", [None, np.nan])
def test_mlflow_takes_gaps_in_whole_numbers_and_text_where_dates_were(
    bench: Bench, tmp_path: Path, gap: object
) -> None:
    model = bench.load(bench.train(request("random_forest"), mixed_rows()))
    loaded = in_mlflow(model, tmp_path / "model")
    rows = as_mlflow_takes_them(mixed_rows().drop(columns="label"))
    rows = rows.assign(
        count=rows["count"].astype(object).where(rows["count"] > 5, gap),
        seen=rows["seen"].astype("string").fillna("2025-01-01"),
    ).set_index(pd.Index(range(500, 500 + len(rows))))
    assert same(loaded.predict(rows), model.predict(rows).labels)


def test_what_cannot_be_read_is_refused_in_mlflow_too(bench: Bench, tmp_path: Path) -> None:
    """docs/adr/0004-model-file.md says where it is stricter than we are."""
    model = bench.load(bench.train(request("random_forest"), mixed_rows()))
    loaded = in_mlflow(model, tmp_path / "model")
    rows = as_mlflow_takes_them(mixed_rows().drop(columns="label"))
    with pytest.raises(MlflowException, match="missing inputs \\['city'\\]"):
        loaded.predict(rows.drop(columns="city"))
    for wrong, why in (
        ({"size": np.inf}, "contains infinity"),
        ({"count": "7 or 8"}, "could not convert"),
        ({"count": rows["count"].astype("Int64").where(rows["count"] > 5)}, "NAType"),
        ({"seen": "yesterday"}, "yesterday"),
    ):
        with pytest.raises((ValueError, TypeError), match=why):
            loaded.predict(rows.assign(**wrong))
