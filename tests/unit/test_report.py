"""Reports: a page that needs nothing else, for every kind of model, with what it says in words."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path

import pytest

from consumer.registrar import Result, registered_outcome
from pipeline import report
from pipeline.algorithms import catalogue
from pipeline.jobs import RegisteredModel, Search, SearchDimension, StoredArtifact, TrainingRequest
from pipeline.model_file import LoadedModel
from tests.training_data import Bench, mixed_rows, natural, request

NOW = datetime(2026, 1, 31, tzinfo=UTC)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def made(bench: Bench, asked: TrainingRequest, frame: object = None) -> tuple[RegisteredModel, LoadedModel]:
    trained = bench.train(asked, frame)  # type: ignore[arg-type]
    stored = StoredArtifact("file://x", trained.sha256, trained.size_bytes)
    outcome = registered_outcome(Result(asked, bench.directory, NOW, "w", 1, 7), trained, stored)
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
