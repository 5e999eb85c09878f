"""Importance of columns and learning curves: found when they are asked for, the same each time, test part untouched."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone

from pipeline import algorithms
from pipeline.datasets.builtin import load_frame
from pipeline.features.examples import Examples, examples
from pipeline.features.splitting import Split, split
from pipeline.jobs import Evaluation
from pipeline.model_files.model_file import LoadedModel
from pipeline.reports import diagnostics
from tests.training_data import Bench, mixed_rows, request

ROOT = Path(__file__).parents[2]


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """What another process says, whose hashes are others: whether it drew, and the sha256 of a file with pages."""
    script = (
        "import sys; from pathlib import Path; from tests.training_data import Bench, request;"
        "bench = Bench(Path(sys.argv[1])); bench.train(request());"
        "print('drawing was imported:', 'matplotlib' in sys.modules);"
        "print(bench.train(request('random_forest', report=True, tags={'a': '1', 'b': '2'})).sha256)"
    )
    command = [sys.executable, "-c", script, str(tmp_path_factory.mktemp("elsewhere"))]
    environment = {**os.environ, "PYTHONHASHSEED": "7"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


def quiet(_done: float, _message: str) -> None:
    pass


def read(frame: pd.DataFrame, algorithm: str = "decision_tree", **changes: Any) -> tuple[Examples, Split]:
    asked = request(algorithm, **changes)
    data = examples(asked, frame, str(frame.columns[-1]), algorithms.find(algorithm))
    return data, split(data, asked.evaluation, asked.seed)


def members(model: LoadedModel) -> dict[str, bytes]:
    with ZipFile(io.BytesIO(model.data)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def test_a_loss_is_what_shuffling_the_raw_column_costs_on_the_test_rows(bench: Bench) -> None:
    """The same by hand, with the loaded model on raw rows."""
    frame = mixed_rows(200, classes=3)
    model = bench.load(bench.train(request("random_forest", report=True), frame))
    data, parts = read(frame, "random_forest")
    test = frame.iloc[parts.test]
    found = model.evaluation["importance"]
    names = [one["column"] for one in found["columns"]]
    assert names == ["size", "count", "city", "paid", "seen", "note"]
    assert (found["metric"], found["rows"], found["repeats"]) == ("accuracy", 40, 5)
    assert found["score"] == model.evaluation["metrics"]["accuracy"]
    for number, column in enumerate(names):
        losses = []
        for repeat in range(5):
            order = np.random.default_rng([42, number, repeat]).permutation(len(test))
            shuffled = test.assign(**{column: test[column].array.take(order)})
            right = np.asarray(model.predict(shuffled).labels) == data.target[parts.test]
            losses.append(found["score"] - right.mean())
        assert found["columns"][number]["mean"] == pytest.approx(np.mean(losses))
        assert found["columns"][number]["std"] == pytest.approx(np.std(losses))


def test_the_column_that_decides_matters_and_a_column_that_is_never_looked_at_does_not(bench: Bench) -> None:
    random = np.random.default_rng(3)
    frame = pd.DataFrame({"noise": random.normal(size=400), "said": random.normal(size=400)})
    frame["label"] = np.where(frame["said"] > 0, "yes", "no")
    model = bench.load(bench.train(request(report=True, hyperparameters={"max_depth": 1}), frame))
    noise, said = model.evaluation["importance"]["columns"]
    assert said["mean"] > 0.3
    assert (noise["mean"], noise["std"]) == (0.0, 0.0)


def test_a_regressor_loses_r2(bench: Bench) -> None:
    model = bench.load(bench.train(request("ridge", "diabetes", report=True)))
    found = model.evaluation["importance"]
    assert found["metric"] == "r2"
    assert found["score"] == pytest.approx(model.evaluation["metrics"]["r2"])
    assert max(found["columns"], key=lambda one: one["mean"])["column"] in ("s1", "s5", "bmi")


def test_importance_is_measured_on_at_most_two_thousand_rows_and_on_fewer_of_wide_data(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    random = np.random.default_rng(0)
    frame = pd.DataFrame(random.normal(size=(12_000, 2)), columns=["a", "b"]).assign(
        label=random.integers(0, 2, 12_000)
    )
    asked = request("naive_bayes", report=True)
    assert bench.load(bench.train(asked, frame)).evaluation["importance"]["rows"] == diagnostics.MOST_ROWS == 2_000
    monkeypatch.setattr(diagnostics, "MOST_PREDICTED", 9_000)
    assert bench.load(bench.train(asked, frame)).evaluation["importance"]["rows"] == 9_000 // (2 * 5)
    monkeypatch.setattr(diagnostics, "MOST_PREDICTED", 2 * 5 * diagnostics.LEAST_ROWS)
    assert bench.load(bench.train(asked, frame)).evaluation["importance"]["rows"] == diagnostics.LEAST_ROWS
    monkeypatch.setattr(diagnostics, "MOST_PREDICTED", 2 * 5 * diagnostics.LEAST_ROWS - 1)
    assert "importance" not in bench.load(bench.train(asked, frame)).evaluation


def test_importance_of_one_test_row_has_no_r2_and_is_absent(bench: Bench) -> None:
    frame = pd.DataFrame({"a": np.arange(12.0), "y": np.arange(12.0)})
    model = bench.load(bench.train(request("ridge", report=True, test_size=0.05), frame))
    assert model.evaluation["test_rows"] == 1
    assert "importance" not in model.evaluation


@pytest.mark.parametrize("cv", [None, 4])
def test_a_learning_curve_grows_to_all_rows_of_the_training_part_but_those_held_back(
    bench: Bench, cv: int | None
) -> None:
    model = bench.load(bench.train(request("logistic_regression", "breast_cancer", report=True, cv=cv)))
    curve = model.evaluation["learning_curve"]
    rows = [point["rows"] for point in curve["points"]]
    held_back = 455 / (cv or 5)
    assert (curve["metric"], curve["folds"], len(rows)) == ("accuracy", cv or 1, 5)
    assert rows == sorted(rows)
    assert rows[0] == pytest.approx(0.1 * (455 - held_back), abs=1)
    assert rows[-1] == pytest.approx(455 - held_back, abs=1)
    assert all(len(point["validation"]) == len(point["train"]) == (cv or 1) for point in curve["points"])
    last = curve["points"][-1]
    if cv:
        assert np.mean(last["validation"]) == pytest.approx(model.evaluation["metrics"]["cv_accuracy_mean"], abs=0.01)
    assert np.mean(last["validation"]) > np.mean(curve["points"][0]["validation"]) - 0.02


def test_a_learning_curve_does_not_look_at_the_test_part(bench: Bench) -> None:
    asked = request("logistic_regression", "wine")
    data, parts = read(load_frame("wine"), "logistic_regression")
    unfitted = clone(bench.load(bench.train(asked)).pipeline)
    rows = np.asarray(data.rows).copy()
    rows[parts.test] = np.nan
    other = replace(data, rows=rows, target=np.where(np.isin(np.arange(len(rows)), parts.test), "class_0", data.target))
    curves = [diagnostics.learning_curve(unfitted, one, Evaluation(), parts.train, 42, quiet) for one in (data, other)]
    assert curves[0] == curves[1] is not None
    moved = rows.copy()
    moved[parts.train] = moved[parts.train][::-1]
    assert (
        diagnostics.learning_curve(unfitted, replace(data, rows=moved), Evaluation(), parts.train, 42, quiet)
        != curves[0]
    )


def test_by_time_the_latest_rows_before_those_held_back_are_fitted_on_first() -> None:
    frame = pd.DataFrame({"x": np.arange(100.0), "when": np.arange(100)[::-1], "label": ["a", "b"] * 50})
    data, parts = read(frame, time_column="when")
    latest = data.times[parts.train].max()  # type: ignore[index]
    seen: list[Any] = []

    class Spy:
        def get_params(self, deep: bool = True) -> dict[str, Any]:
            return {}

        def fit(self, rows: Any, target: Any) -> Spy:
            seen.append(99 - np.asarray(rows)[:, 0])
            self.classes_ = np.unique(target)
            return self

        def predict(self, rows: Any) -> Any:
            return np.array(["a"] * len(rows), dtype=object)

    curve = diagnostics.learning_curve(Spy(), data, Evaluation(time_column="when"), parts.train, 1, quiet)
    assert curve is not None
    smallest, largest = seen[0], seen[-1]
    assert smallest.min() > np.setdiff1d(largest, smallest).max()
    assert largest.max() < latest


def test_each_part_of_a_learning_curve_has_the_classes_in_their_shares(bench: Bench) -> None:
    """One row of twenty is rare: a tenth of the rows holds its share of them."""
    frame = pd.DataFrame({"x": np.arange(400.0), "label": ["rare" if n % 20 == 0 else "often" for n in range(400)]})
    data, parts = read(frame)
    ordered = diagnostics._growing(data, parts.train, [1])
    for share in (0.1, 0.25, 0.5, 1.0):
        first = ordered[: round(share * len(ordered))]
        assert (data.target[first] == "rare").mean() == pytest.approx(0.05, abs=0.02)
    assert sorted(ordered) == sorted(parts.train)


def test_a_size_that_is_too_small_to_be_fitted_on_is_left_out(bench: Bench) -> None:
    asked = request("k_nearest_neighbors", "iris", report=True, hyperparameters={"n_neighbors": 60})
    curve = bench.load(bench.train(asked)).evaluation["learning_curve"]
    assert [point["rows"] for point in curve["points"]] == [72, 96]


def test_a_training_part_that_cannot_be_cut_has_no_learning_curve(bench: Bench) -> None:
    frame = pd.DataFrame({"a": [1.0, 2, 3, 4], "y": [1.0, 2, 3, 4]})
    model = bench.load(bench.train(request("ridge", report=True), frame))
    assert "learning_curve" not in model.evaluation


def test_what_is_not_asked_for_costs_nothing(bench: Bench) -> None:
    plain, full = (bench.load(bench.train(request("decision_tree", report=asked))) for asked in (None, True))
    assert not {"importance", "learning_curve"} & set(plain.evaluation)
    assert not {"report.html", "model_card.md"} & set(members(plain))
    assert {"report.html", "model_card.md"} <= set(members(full))
    assert plain.evaluation["metrics"] == full.evaluation["metrics"]
    assert members(plain)["model.skops"] == members(full)["model.skops"]


def test_a_training_without_a_report_draws_nothing(elsewhere: list[str]) -> None:
    assert elsewhere[0] == "drawing was imported: False"


def test_progress_is_told_while_they_are_found_and_rises(bench: Bench) -> None:
    told: list[tuple[str, float | None, str]] = []
    bench.train(request(report=True, cv=2), report=lambda stage, done, said: told.append((stage, done, said)))
    said = [message for stage, _, message in told if stage == "EVALUATING"]
    assert [message for message in said if message.startswith("importance of column")] == [
        f"importance of column {number} of 4" for number in (1, 2, 3, 4)
    ]
    assert len([message for message in said if message.startswith("learning curve")]) == 5
    assert said[-1] == "drawing the report"
    done = [fraction for stage, fraction, _ in told if stage == "EVALUATING" and fraction is not None]
    assert done == sorted(done)
    assert (done[0], done[-1]) == (0.0, 1.0)
    assert all(fraction is None or 0 <= fraction <= 1 for _, fraction, _ in told)


def test_an_equal_request_gives_the_same_file_with_its_pages_in_another_process_too(
    bench: Bench, elsewhere: list[str]
) -> None:
    """Tags come in the order of the record, which is no difference."""
    asked = request("random_forest", report=True, tags={"b": "2", "a": "1"})
    assert bench.train(asked).sha256 == elsewhere[1]


def test_the_pages_in_the_file_are_about_the_model_and_name_no_version(bench: Bench) -> None:
    model = bench.load(bench.train(request("random_forest", "wine", report=True, tags={"team": "<b>x"})))
    page, card = (members(model)[name].decode() for name in ("report.html", "model_card.md"))
    assert all("stratified by class: 142 rows to train on; 36 to test on" in told for told in (page, card))
    assert "<title>default/model</title>" in page
    for text in ("Importance when shuffled", "Learning curve", "Confusion matrix", "&lt;b&gt;x", "r1"):
        assert text in page
    assert card.startswith("# default/model\n")
    assert "## Importance of columns when shuffled" in card


def test_warnings_of_the_studies_are_no_warnings_about_the_model(bench: Bench) -> None:
    """Few rows lack a value in a column, and few epochs do not converge."""
    frame = pd.DataFrame({"a": np.arange(60.0), "b": [1.0] + [np.nan] * 59, "label": ["x", "y"] * 30})
    plain, full = (bench.train(request(report=asked), frame).warnings for asked in (None, True))
    assert plain == full
