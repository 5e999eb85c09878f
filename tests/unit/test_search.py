"""Searching for hyperparameters: which candidates there are, which one wins, and what is not done again."""

from __future__ import annotations

from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import orjson
import pytest

from pipeline.algorithms import find
from pipeline.datasets.builtin import load_frame
from pipeline.errors import RejectedError, TrainingFailed
from pipeline.jobs import Search, SearchDimension
from pipeline.search.fitting import Fold
from pipeline.search.running import run
from pipeline.search.space import values_of
from pipeline.training.trained import SEARCH_NOTES
from pipeline.validation import check
from tests.searches import fitted_from_now_on
from tests.training_data import Bench, request

DEPTHS = SearchDimension("max_depth", values=(1, 2, 3, None))
LARGE = [SearchDimension(name, low=2, high=201, step=1) for name in ("max_depth", "max_leaf_nodes")]
LEAVES = SearchDimension("min_samples_leaf", low=1, high=9, step=4)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def grid(*space: SearchDimension, strategy: str = "grid", **more: Any) -> Search:
    return Search(strategy, space, **more)


def searched(bench: Bench, asked: Search, algorithm: str = "decision_tree", **more: Any) -> dict[str, Any]:
    """What the model file says of the search."""
    model = bench.load(bench.train(request(algorithm, "wine", search=asked, **more)))
    document: dict[str, Any] = model.evaluation["search"]
    assert model.manifest["hyperparameters"].items() >= best(document)["hyperparameters"].items()
    return document


def best(document: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = document["candidates"][document["best"] - 1]
    return found


def test_a_grid_tries_everything_and_the_best_mean_wins(bench: Bench) -> None:
    document = searched(bench, grid(DEPTHS, LEAVES, cv=4))
    tried = [
        (one["hyperparameters"]["max_depth"], one["hyperparameters"]["min_samples_leaf"])
        for one in document["candidates"]
    ]
    assert sorted(tried, key=str) == sorted(((d, n) for d in (1, 2, 3, None) for n in (1, 5, 9)), key=str)
    assert best(document)["mean"] == max(one["mean"] for one in document["candidates"])
    assert all(len(one["scores"]) == 4 for one in document["candidates"])
    assert (document["planned"], document["cut"], document["scoring"]) == (12, False, "accuracy")


def test_a_candidate_scores_as_a_training_with_folds_scores_it(bench: Bench) -> None:
    """Preparation is fitted in each fold alone, as without a search."""
    trained = bench.train(request("naive_bayes", "wine", cv=5))
    asked = Search("grid", (SearchDimension("var_smoothing", values=(1e-9,)),), cv=5)
    found = bench.load(bench.train(request("naive_bayes", "wine", search=asked))).evaluation["search"]
    assert found["candidates"][0]["mean"] == pytest.approx(trained.metrics["cv_accuracy_mean"], abs=1e-12)


def test_a_metric_that_is_better_when_lower_is_minimised(bench: Bench) -> None:
    document = searched(bench, grid(DEPTHS, scoring="neg_log_loss"))
    assert document["scoring"] == "log_loss"
    assert best(document)["mean"] == min(one["mean"] for one in document["candidates"])


@pytest.mark.parametrize("strategy", ["random", "optuna"])
def test_ranges_are_drawn_from_within_their_ends_and_the_same_by_seed(bench: Bench, strategy: str) -> None:
    space = (SearchDimension("C", low=1e-3, high=1e2, log=True), SearchDimension("max_iter", low=50, high=60))
    asked = Search(strategy, space, max_candidates=7, cv=3)
    first, second = (searched(bench, asked, "logistic_regression") for _ in range(2))
    drawn = [one["hyperparameters"] for one in first["candidates"]]
    assert drawn == [one["hyperparameters"] for one in second["candidates"]]
    assert len(drawn) == 7
    assert all(1e-3 <= one["C"] <= 1e2 and one["max_iter"] in range(50, 61) for one in drawn)
    assert sum(one["C"] < 1 for one in drawn) >= 2, "the scale is logarithmic"


def test_halving_fits_few_on_all_rows_and_they_decide(bench: Bench) -> None:
    space = (SearchDimension("max_depth", low=1, high=9, step=1), SearchDimension("min_samples_leaf", values=(1, 2, 4)))
    document = searched(bench, Search("halving", space, cv=3), dataset_name="digits")
    rounds = [one["rows"] for one in document["candidates"]]
    assert rounds == sorted(rounds)
    assert rounds.count(rounds[0]) == 27
    assert rounds.count(rounds[-1]) <= 3
    assert best(document)["rows"] == rounds[-1]


def test_a_candidate_that_cannot_be_fitted_is_noted_and_loses(bench: Bench) -> None:
    space = (SearchDimension("n_neighbors", values=(3, 5_000)),)
    document = searched(bench, Search("grid", space), "k_nearest_neighbors")
    assert [one["mean"] is None for one in document["candidates"]] == [False, True]
    assert "n_neighbors" in document["candidates"][1]["error"]
    with pytest.raises(TrainingFailed, match="none of 1 candidates could be scored: Expected n_neighbors"):
        searched(bench, Search("grid", (SearchDimension("n_neighbors", values=(5_000,)),)), "k_nearest_neighbors")


def test_what_is_noted_is_not_fitted_again_and_the_result_is_the_same(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = request("decision_tree", "wine", search=grid(DEPTHS, LEAVES))
    notes = bench.directory / SEARCH_NOTES
    whole = bench.train(asked)
    lines = notes.read_bytes().splitlines(keepends=True)
    assert len(lines) == 13, "the first line says what the scores were made on"
    notes.write_bytes(b"".join(lines[:8]) + lines[8][:20])
    fitted = fitted_from_now_on(monkeypatch)
    again = bench.train(asked)
    assert fitted == [8, 9, 10, 11, 12]
    assert again.hyperparameters == whole.hyperparameters
    assert again.metrics == whole.metrics
    fitted.clear()
    assert bench.train(asked).metrics == whole.metrics
    assert fitted == [], "what was cut off has left no trace"


@pytest.mark.parametrize("strategy", ["grid", "random", "halving", "optuna"])
def test_every_strategy_goes_on_from_its_notes_to_the_same_end(bench: Bench, strategy: str) -> None:
    space = (
        SearchDimension("max_depth", low=1, high=9, step=1),
        SearchDimension("ccp_alpha", values=(0.0, 0.01, 0.05)),
    )
    asked = request("decision_tree", "digits", search=Search(strategy, space, cv=3))
    notes = bench.directory / SEARCH_NOTES
    whole = bench.load(bench.train(asked)).evaluation["search"]
    lines = notes.read_bytes().splitlines(keepends=True)
    notes.write_bytes(b"".join(lines[: len(lines) // 2]))
    again = bench.load(bench.train(asked)).evaluation["search"]

    def told(found: dict[str, Any]) -> list[Any]:
        return [(one["number"], one["hyperparameters"], one["rows"], one["scores"]) for one in found["candidates"]]

    assert told(again) == told(whole)
    assert (again["best"], again["planned"]) == (whole["best"], whole["planned"])


def test_the_best_so_far_is_kept_when_time_runs_out(tmp_path: Path) -> None:
    algorithm = find("decision_tree")
    clock = count()
    folds = [Fold([[0.0]], [0], lambda model: float(model))]  # type: ignore[arg-type]
    found = run(
        grid(SearchDimension("max_depth", values=(3, 9, 5, 7)), time_budget_s=2),
        algorithm,
        0,
        folds,
        lambda candidate, _rows, _target: candidate["max_depth"],
        notes=tmp_path / "notes",
        made_on="data",
        report=lambda *_: None,
        clock=lambda: float(next(clock)),
    )
    assert found.cut
    assert len(found.trials) < found.planned == 4
    assert found.best.mean == max(trial.mean or 0 for trial in found.trials)


def test_notes_of_other_data_do_not_count(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = request("decision_tree", search=grid(DEPTHS))
    frames = [load_frame("wine").iloc[:rows] for rows in (178, 150)]
    bench.train(asked, frames[0])
    other = bench.dataset(frames[1])
    fitted = fitted_from_now_on(monkeypatch)
    bench.train(asked, replace(other, fingerprint="another"))
    assert fitted == [1, 2, 3, 4]


def test_a_combination_that_does_not_go_together_loses_and_ends_nothing(bench: Bench) -> None:
    space = (SearchDimension("solver", ("lbfgs", "saga")), SearchDimension("l1_ratio", (0.0, 0.5)))
    document = searched(bench, Search("grid", space), "logistic_regression")
    errors = {str(one["hyperparameters"]): one["error"] for one in document["candidates"] if one["error"]}
    assert list(errors) == ["{'l1_ratio': 0.5, 'solver': 'lbfgs'}"]
    assert "needs solver saga" in errors["{'l1_ratio': 0.5, 'solver': 'lbfgs'}"]


def test_what_is_given_may_go_together_only_with_what_is_searched(bench: Bench) -> None:
    asked = Search("grid", (SearchDimension("solver", ("saga",)),))
    found = searched(bench, asked, "logistic_regression", hyperparameters={"l1_ratio": 0.5, "max_iter": 50})
    assert best(found)["hyperparameters"] == {"solver": "saga"}


@pytest.mark.parametrize(
    ("dimension", "algorithm", "values"),
    [
        (SearchDimension("max_features", low=1, high=10, step=3), "random_forest", [1, 4, 7, 10]),
        (SearchDimension("max_features", low=0.25, high=1, step=0.25), "random_forest", [0.25, 0.5, 0.75, 1.0]),
        (
            SearchDimension("l1_ratio", low=0, high=1, step=0.3333333333334),
            "logistic_regression",
            [0, 1 / 3, 2 / 3, 1.0],
        ),
        (SearchDimension("max_depth", values=(3, 3.0, 5)), "decision_tree", [3, 5]),
    ],
)
def test_a_range_is_of_one_kind_and_keeps_its_ends(
    dimension: SearchDimension, algorithm: str, values: list[float]
) -> None:
    found = values_of(dimension, find(algorithm))
    assert found == pytest.approx(values)
    assert len({type(value) for value in found}) == 1


def test_a_range_of_counts_draws_whole_numbers(bench: Bench) -> None:
    asked = Search("random", (SearchDimension("max_features", low=1, high=10),), max_candidates=6, cv=3)
    document = searched(bench, asked, "random_forest", hyperparameters={"n_estimators": 3})
    drawn = [one["hyperparameters"]["max_features"] for one in document["candidates"]]
    assert all(isinstance(one, int) for one in drawn)
    assert not any(one["error"] for one in document["candidates"])


def test_a_large_space_may_be_searched_at_random() -> None:
    check(request("decision_tree", search=Search("random", tuple(LARGE))))
    check(request("decision_tree", search=Search("optuna", tuple(LARGE))))


def test_a_rejection_is_never_longer_than_an_event_takes() -> None:
    space = tuple(SearchDimension(f"no-{number}" + "x" * 100, values=(1,)) for number in range(5_000))
    with pytest.raises(RejectedError) as rejected:
        check(request("decision_tree", search=Search("grid", space)))
    assert len(str(rejected.value)) <= 4_000


def test_a_search_that_was_cut_says_that_it_cannot_be_repeated(bench: Bench) -> None:
    trained = bench.train(request("decision_tree", "wine", search=grid(DEPTHS, time_budget_s=1e-9)))
    assert "after 1 of 4 candidates" in trained.warnings[-1]
    assert bench.load(trained).manifest["reproducible"] is False


def test_progress_rises_with_every_candidate(bench: Bench) -> None:
    told: list[tuple[float, str]] = []
    bench.train(
        request("decision_tree", "wine", search=grid(DEPTHS)),
        report=lambda stage, done, message: told.append((done, message)) if stage == "TRAINING" else None,
    )
    fractions = [done for done, _ in told]
    assert fractions == sorted(fractions)
    assert any(message.startswith("candidate 2 of 4; best accuracy 0.") for _, message in told)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (grid(DEPTHS, strategy="genetic"), "search.strategy takes one of grid, random, halving, optuna, not 'genetic'"),
        (grid(), "names no hyperparameter"),
        (grid(DEPTHS, DEPTHS), "names max_depth more than once"),
        (grid(SearchDimension("depth", values=(1,))), "no hyperparameter 'depth'; did you mean max_depth"),
        (grid(SearchDimension("random_state", values=(1,))), "random_state cannot be searched"),
        (grid(SearchDimension("max_depth", values=(1, "deep"))), "from 1, or null, not 'deep'"),
        (grid(SearchDimension("max_depth", low=0, high=4, step=1)), "an integer from 1, or null, which a range"),
        (grid(SearchDimension("max_depth", low=1)), "max_depth needs values, or low and high"),
        (grid(SearchDimension("max_depth", low=1, high=4)), "max_depth needs values or a step in a grid"),
        (grid(SearchDimension("max_depth", low=4, high=1, step=1)), "goes from 4 to 1"),
        (grid(SearchDimension("max_depth", values=())), "max_depth has no values"),
        (grid(SearchDimension("max_depth", low=1, high=4, step=0.5)), "whole numbers, which the step 0.5 is not"),
        (grid(SearchDimension("max_depth", low=1, high=4, step=float("inf"))), "has the step inf"),
        (grid(SearchDimension("max_depth", low=1, high=4, step=float("nan"))), "has the step nan"),
        (grid(SearchDimension("max_depth", low=1, high=4, step=5e-324)), "has more than 10,000 steps"),
        (grid(SearchDimension("max_depth", low=float("nan"), high=4, step=1)), "needs values, or low and high"),
        (grid(SearchDimension("max_depth", low=1, high=float("inf"), step=1)), "needs values, or low and high"),
        (grid(SearchDimension("min_samples_leaf", low=0.5, high=50, step=0.5)), "which a range from 0.5 to 50 is not"),
        (grid(DEPTHS, scoring="r2"), "search.scoring takes one of accuracy"),
        (grid(DEPTHS, cv=1), "search.cv takes 2 to 20 folds, not 1"),
        (grid(DEPTHS, max_candidates=0), "search.max_candidates takes 1 to 10,000, not 0"),
        (grid(DEPTHS, time_budget_s=0.0), "search.time_budget_s takes seconds above 0"),
        (grid(*LARGE), "40,000 candidates"),
    ],
)  # fmt: skip
def test_a_search_that_makes_no_sense_is_rejected_with_what_would(asked: Search, message: str) -> None:
    with pytest.raises(RejectedError, match=message.replace("(", r"\(")):
        check(request("decision_tree", search=asked))


def test_what_is_searched_cannot_be_given_too() -> None:
    with pytest.raises(RejectedError, match="max_depth is both searched and given in hyperparameters"):
        check(request("decision_tree", search=grid(DEPTHS), hyperparameters={"max_depth": 3}))


def test_a_request_with_a_search_survives_json() -> None:
    asked = request("decision_tree", search=grid(DEPTHS, LEAVES, time_budget_s=3.0))
    document = orjson.loads(orjson.dumps(asked))
    assert type(asked).from_document(document | {"requested_at": asked.requested_at}) == asked
