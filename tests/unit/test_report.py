"""Reports: a page that needs nothing else, for every kind of model, with what it says in words."""

from __future__ import annotations

import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from dataclasses import replace
from datetime import UTC, datetime
from html import escape
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest

from consumer.jobs.event_numbers import EventNumbers
from consumer.jobs.outcomes import Ending, Result, registered_outcome
from pipeline.algorithms import catalogue
from pipeline.jobs import RegisteredModel, Search, SearchDimension, StoredArtifact, TrainingRequest
from pipeline.model_files.model_file import LoadedModel
from pipeline.reports import comparison, report
from pipeline.reports.version_comparison import lower_is_better
from tests.training_data import Bench, mixed_rows, natural, request

NOW = datetime(2026, 1, 31, tzinfo=UTC)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def made(bench: Bench, asked: TrainingRequest, frame: object = None) -> tuple[RegisteredModel, LoadedModel]:
    trained = bench.train(asked, frame)  # type: ignore[arg-type]
    stored = StoredArtifact("file://x", trained.sha256, trained.size_bytes)
    outcome = registered_outcome(Result(asked, Ending(NOW, "w", 1, EventNumbers(6)), bench.directory), trained, stored)
    return RegisteredModel.of(outcome, 3), bench.load(trained)


def titles(page: str) -> list[str]:
    return re.findall(r"<h2>([^<]*)</h2>", page)


class Strict(HTMLParser):
    """Every tag that is opened is closed, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: object) -> None:
        if tag not in ("meta",):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_a_page_of_a_classifier_shows_all_there_is_and_needs_nothing_else(bench: Bench) -> None:
    page = report.page(*made(bench, request("random_forest", "wine")))
    assert titles(page)[:5] == [
        "Confusion matrix", "ROC curves", "Precision and recall", "Calibration", "Importance of columns",
    ]  # fmt: skip
    assert {"By class", "All metrics", "Hyperparameters", "Columns", "Where it comes from"} <= set(titles(page))
    assert not re.search(r'(src|href)="(?!#|data:)', page.replace('xmlns:xlink="http://www.w3.org/1999/xlink"', ""))
    assert "<script" not in page
    parser = Strict()
    parser.feed(page)
    assert parser.open == []
    ids = re.findall(r' id="([^"]*)"', page)
    assert len(ids) == len(set(ids)), "several pictures in one page share no id"
    for svg in re.findall(r"<svg.*?</svg>", page, re.DOTALL):
        ET.fromstring(svg)


def test_a_page_of_a_regressor_shows_residuals(bench: Bench) -> None:
    page = report.page(*made(bench, request("ridge", "diabetes")))
    assert titles(page)[:3] == ["Predicted and true", "Residuals", "Importance of columns"]


def test_a_search_is_shown_with_its_candidates(bench: Bench) -> None:
    search = Search("grid", (SearchDimension("max_depth", (1, 2, 3)),))
    page = report.page(*made(bench, request("decision_tree", "wine", search=search)))
    assert {"Search", "Candidates"} <= set(titles(page))
    assert "max_depth=3" in page


def test_losses_are_drawn_with_those_of_rows_held_back(bench: Bench) -> None:
    asked = request("neural_network", "iris", hyperparameters={"max_iter": 15, "early_stopping": True})
    registered, loaded = made(bench, asked)
    assert "Loss by epoch" in titles(report.page(registered, loaded))
    assert "score of rows held back" in report.page(registered, loaded)
    told = {"epoch": [1, 2], "loss": [0.5, 0.4], "validation_loss": [0.6, 0.5]}
    deep = replace(loaded, evaluation={**loaded.evaluation, "loss_curve": told})
    page = report.page(registered, deep)
    assert "2 epochs; the last loss is 0.4." in page
    assert "rows held back" in page


def test_all_that_a_request_for_a_report_finds_is_shown(bench: Bench) -> None:
    registered, loaded = made(bench, request("ridge", "diabetes", report=True, cv=3))
    page, card = report.page(registered, loaded), report.card(registered, loaded)
    assert {"Importance when shuffled", "Learning curve", "Residuals"} <= set(titles(page))
    assert "3 folds" in page
    split = "at random: 353 rows to train on; 89 to test on"
    assert split in page
    assert f"| split | {split} |" in card
    assert "## Importance of columns when shuffled" in card
    assert re.search(r"\| bmi \| 0\.\d+ \| 0\.\d+ \|", card)


def test_a_version_is_shown_against_the_one_in_production(bench: Bench) -> None:
    here, there = (made(bench, request(hyperparameters={"max_depth": depth})) for depth in (1, 3))
    production = replace(there[0], version_number=2)
    page, card = report.page(*here, production), report.card(*here, production)
    assert "Against production (v2)" in titles(page)
    fall = here[0].model.metrics["accuracy"] - production.model.metrics["accuracy"]
    assert fall < 0
    assert f'<td class="worse">{fall:+.3g} worse</td>' in page
    assert f"| accuracy | {here[0].model.metrics['accuracy']:.4g} |" in card
    assert f"| {fall:+.3g} worse |" in card
    assert "Both were tested on the same rows of the same dataset." in page
    assert "Both were tested on the same rows of the same dataset." in card
    assert "Against production" not in report.page(*there, there[0])


def test_figures_of_other_rows_are_shown_against_production_and_judged_by_nothing(bench: Bench) -> None:
    here, there = (made(bench, request(hyperparameters={"max_depth": 1 + seed}, seed=seed)) for seed in (0, 3))
    page = report.page(*here, replace(there[0], version_number=2))
    assert "These figures are not comparable: the test rows are others" in page
    assert "better</td>" not in page
    assert "worse</td>" not in page
    other = replace(there[0], version_number=2, model=replace(there[0].model, dataset_fingerprint="ab", metrics={}))
    page = report.page(*here, other)
    assert "the dataset is not the same" in page
    assert "No metric was measured of both." in page


def test_which_metrics_fall_when_a_model_gets_better() -> None:
    judged = {
        name: lower_is_better(name) for name in ("accuracy", "test_accuracy", "cv_f1_mean", "cv_brier_mean", "mae")
    }
    assert judged == {
        "accuracy": False,
        "test_accuracy": False,
        "cv_f1_mean": False,
        "cv_brier_mean": True,
        "mae": True,
    }
    silent = ("train_accuracy", "baseline_accuracy", "cv_f1_std", "search_candidates", "training_time")
    assert all(lower_is_better(name) is None for name in silent)


def test_versions_side_by_side_have_the_best_marked_and_the_same_pictures_in_rows(bench: Bench) -> None:
    both = [made(bench, request(hyperparameters={"max_depth": depth})) for depth in (1, 3)]
    page = comparison.page([one for one, _ in both], [loaded for _, loaded in both], ["v1", "<v2>"])
    metrics = page[page.index("<h2>Metrics") : page.index("<h2>Hyperparameters")]
    accuracy = both[1][0].model.metrics["accuracy"]
    assert f'<td>{both[0][0].model.metrics["accuracy"]:.4g}</td><td class="best">{accuracy:.4g}</td>' in metrics
    loss = re.search(r"<td>log_<wbr/>loss</td>(<td[^>]*>)([^<]*)</td>(<td[^>]*>)([^<]*)</td>", metrics)
    assert loss is not None
    assert ("best" in loss[1]) == (float(loss[2]) < float(loss[4])) != ("best" in loss[3])
    made_of = page[page.index("<h2>Hyperparameters") : page.index("<h2>Data")]
    assert "max_<wbr/>depth" in made_of
    assert "criterion" not in made_of
    assert page.count("<h2>v1</h2>") == page.count("<h2>&lt;v2&gt;</h2>") == page.count("<svg ") / 2 > 3
    parser = Strict()
    parser.feed(page)
    assert parser.open == []
    ids = re.findall(r' id="([^"]*)"', page)
    assert len(ids) == len(set(ids))
    assert not re.search(r'(src|href)="(?!#|data:)', page.replace('xmlns:xlink="http://www.w3.org/1999/xlink"', ""))


def test_versions_tested_on_other_rows_have_no_best(bench: Bench) -> None:
    both = [made(bench, request(hyperparameters={"max_depth": 1 + seed}, seed=seed)) for seed in (0, 3)]
    page = comparison.page([one for one, _ in both], [loaded for _, loaded in both], ["v1", "v2"])
    assert "The metrics tell little about which is better" in page
    assert 'class="best"' not in page


def test_a_classifier_beside_a_regressor_shows_what_each_has(bench: Bench) -> None:
    both = [made(bench, request()), made(bench, request("ridge", "diabetes"))]
    page = comparison.page([one for one, _ in both], [loaded for _, loaded in both], ["tree@v1", "line@v1"])
    assert {"Confusion matrix", "Residuals"} <= set(titles(page))
    assert "they predict different columns" in page


def test_the_same_model_gives_the_same_page(bench: Bench) -> None:
    registered, loaded = made(bench, request("random_forest", "iris"))
    assert report.page(registered, loaded) == report.page(registered, loaded)


def test_what_users_call_things_is_text_and_never_markup(bench: Bench) -> None:
    frame = mixed_rows().rename(columns={"city": "<b>city</b>"})
    frame["label"] = frame["label"].str.replace("class 0", "<script>alert(1)</script>")
    registered, loaded = made(bench, request("decision_tree", tags={"note": "<i>|x"}), frame)
    page, card = report.page(registered, loaded), report.card(registered, loaded)
    assert "<script" not in page
    assert "<b>city" not in page
    assert "&lt;b&gt;city" in page
    assert "&lt;i&gt;\\|x" in card
    assert "<script" not in card


@pytest.mark.parametrize("name", list(catalogue()))
def test_every_algorithm_has_a_page_and_a_card(bench: Bench, name: str) -> None:
    frame = natural(catalogue()[name])
    registered, loaded = made(bench, request(name), frame)
    assert "All metrics" in titles(report.page(registered, loaded))
    card = report.card(registered, loaded)
    assert card.startswith("# default/model v3")
    weights = report.importance(loaded)
    if weights:
        assert sum(weight for _, weight in weights) == pytest.approx(1)
        assert {column for column, _ in weights} <= {column.name for column in loaded.columns}


def test_importance_is_summed_by_the_columns_people_know(bench: Bench) -> None:
    """The first column tells the class; categories and terms count for the column that they come from."""
    _, loaded = made(bench, request("random_forest", hyperparameters={"n_estimators": 50}), mixed_rows(300))
    weights = dict(report.importance(loaded))
    assert set(weights) == {"size", "count", "city", "paid", "seen", "note"}
    assert max(weights, key=lambda name: weights[name]) == "size"


def test_names_that_look_like_mathematics_or_alike_are_drawn_as_they_are(bench: Bench) -> None:
    frame = mixed_rows()
    frame["label"] = frame["label"].str.replace("class 0", "$0_$50")
    long = "a column with a name so long that "
    frame = frame.rename(columns={"size": f"{long}one", "count": f"{long}two"})
    page = report.page(*made(bench, request("random_forest"), frame))
    assert "Importance of columns" in titles(page)


BLOCK = re.compile(r"```python\n(.*?)```", re.DOTALL)


@pytest.mark.parametrize(
    ("rows", "count"), [(mixed_rows(), 1), (mixed_rows().drop(columns="seen"), 2)], ids=["dates", "none"]
)
def test_the_programs_of_a_card_run_in_the_unpacked_file(bench: Bench, rows: pd.DataFrame, count: int) -> None:
    """With MLflow alone only where the model needs no code of ours, which one with dates does."""
    trained = bench.train(request("random_forest", report=True), rows)
    loaded = bench.load(trained)
    loaded.unpack(bench.directory / "model")
    programs = BLOCK.findall((bench.directory / "model" / "model_card.md").read_text())
    assert len(programs) == count
    expected = loaded.predict(loaded.example).labels
    for program in programs:
        assert sorted(re.findall(r"class \d", ran(program, bench.directory / "model"))) == sorted(expected)


def test_the_programs_of_a_version_run_beside_what_was_downloaded(bench: Bench) -> None:
    """The first needs the fleet's stores; tests/unit/test_public.py loads a model by its name."""
    registered, loaded = made(bench, request("random_forest"))
    card, page = report.card(registered, loaded), report.page(registered, loaded)
    named, *programs = BLOCK.findall(card)
    assert 'load_model("default/model@v3")' in named
    assert len(programs) == 2
    assert "How to use it" in titles(page)
    loaded.unpack(bench.directory / "model-v3")
    for program in programs:
        assert escape(program) in page
        assert ran(program, bench.directory).count("setosa") == list(loaded.predict(loaded.example).labels).count(
            "setosa"
        )


def ran(program: str, folder: Path) -> str:
    done = subprocess.run([sys.executable, "-c", program], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout
