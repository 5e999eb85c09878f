"""Training: what it tells, and every rule about data. Laws of every algorithm are in tests/contract."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from pandas.api.extensions import ExtensionArray
from sklearn.ensemble import RandomForestClassifier

from pipeline.algorithms import catalogue
from pipeline.datasets.builtin import load_frame
from pipeline.errors import RejectedError, TrainingFailed
from pipeline.features.columns import Column, Role
from pipeline.features.examples import Examples, examples
from pipeline.features.frames import frame_of
from pipeline.features.leakage import giveaway
from pipeline.features.splitting import folds, split
from pipeline.jobs import SplitSummary, TrainingRequest
from pipeline.reading.options import ReadOptions
from pipeline.reading.tables import canonical
from pipeline.training import training
from pipeline.training.trained import Trained
from pipeline.training.training import Stage
from tests.rows import FORMS, table_from
from tests.training_data import QUICK, Bench, mixed_rows, request

ALL = list(catalogue())


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def rows(target: Sequence[Any] | NDArray[Any] | ExtensionArray, **columns: Any) -> pd.DataFrame:
    """One feature that follows the target, unless others are given; the target `y` comes last."""
    features = columns or {"x": np.linspace(0, 1, len(target)) + pd.factorize(pd.Series(target))[0]}
    return pd.DataFrame({**features, "y": target})


def rejection(bench: Bench, frame: pd.DataFrame, **changes: Any) -> str:
    with pytest.raises(RejectedError) as rejected:
        bench.train(request(**changes), frame)
    return str(rejected.value)


@pytest.mark.parametrize(
    ("algorithm", "hyperparameters"),
    [
        ("logistic_regression", {"solver": "liblinear"}),
        ("neural_network", {"solver": "sgd", "early_stopping": True, "hidden_layer_sizes": [6, 4]}),
        ("svm", {"kernel": "linear", "decision_function_shape": "ovo"}),
        ("random_forest", {"n_estimators": 8, "oob_score": True, "max_samples": 0.8}),
    ],
)
def test_other_ways_of_fitting_are_stored_and_load_too(
    bench: Bench, algorithm: str, hyperparameters: dict[str, Any]
) -> None:
    model = bench.load(bench.train(request(algorithm, hyperparameters=hyperparameters), mixed_rows(classes=3)))
    assert set(model.predict(mixed_rows(classes=3)).labels) <= {"class 0", "class 1", "class 2"}


# What a training tells.


def test_a_training_tells_all_that_events_and_documents_need(bench: Bench) -> None:
    trained = bench.train(request("decision_tree", "iris"))
    assert trained.model_type == "classification"
    assert trained.features == ["sepal length", "sepal width", "petal length", "petal width"]
    assert trained.signature[0] == {"name": "sepal length", "type": "double"}
    assert (trained.target_column, trained.classes) == ("species", ["setosa", "versicolor", "virginica"])
    assert trained.hyperparameters["random_state"] == 42
    assert {"scikit-learn", "python", "threads", "cpu"} <= set(trained.environment)
    assert trained.size_bytes == trained.model_file.stat().st_size
    assert trained.training_time > 0
    assert Trained.from_json(trained.to_json()) == trained


def test_the_metrics_of_the_replaced_worker_are_there(bench: Bench) -> None:
    metrics = bench.train(request()).metrics
    assert metrics["accuracy"] == metrics["test_accuracy"]
    assert metrics["train_accuracy"] == 1.0
    assert all(np.isfinite(value) for value in metrics.values())


def test_stages_are_reported_in_their_order(bench: Bench) -> None:
    dataset = bench.dataset(load_frame("iris"), "species")
    for stages in (list(Stage), [Stage.TRAINING, Stage.EVALUATING]):  # the second has nothing to load
        told: list[tuple[Stage, float | None, str]] = []
        bench.train(request(cv=2), dataset, report=lambda *what, told=told: told.append(what))
        assert list(dict.fromkeys(stage for stage, _, _ in told)) == stages
        assert told[-1] == (Stage.EVALUATING, 1.0, "fold 2 of 2")


def test_a_forest_that_grows_in_slices_is_the_forest_of_one_fit(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = request("random_forest", hyperparameters={"n_estimators": 45, "class_weight": "balanced"})
    whole = bench.train(asked)
    monkeypatch.setattr(training, "WORTH_SLICING", 0)
    told: list[str] = []
    sliced = bench.train(asked, report=lambda _stage, _fraction, message: told.append(message))
    assert "2 of 45 trees" in told
    assert "45 of 45 trees" in told
    assert sliced.sha256 == whole.sha256


def test_what_an_estimator_raises_fails_readably(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = request("neural_network", hyperparameters={"early_stopping": True, "validation_fraction": 0.01})
    with pytest.raises(TrainingFailed, match="neural_network could not be trained: The validation set is too small"):
        bench.train(asked, rows([0, 1, 2] * 5))

    def out_of_memory(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(RandomForestClassifier, "fit", out_of_memory)
    with pytest.raises(MemoryError):
        bench.train(request("random_forest"))


def test_what_a_library_warns_of_is_stored(bench: Bench) -> None:
    trained = bench.train(request("neural_network", hyperparameters={"max_iter": 1}))
    assert "Maximum iterations (1) reached" in trained.warnings[0]
    assert bench.load(trained).manifest["warnings"] == trained.warnings


# Rules about the target.


def test_the_target_is_the_requests_else_the_datasets_else_the_last_column(bench: Bench) -> None:
    frame = pd.DataFrame({"a": [0, 1] * 10, "b": ["u", "v"] * 10, "c": ["w", "z"] * 10})
    assert bench.train(request(), frame).target_column == "c"
    assert bench.train(request(), bench.dataset(frame, "b")).target_column == "b"
    assert bench.train(request(target_column="a"), bench.dataset(frame, "b")).target_column == "a"


def test_an_unknown_target_is_rejected_with_the_near_column(bench: Bench) -> None:
    message = rejection(bench, rows([0, 1] * 5, price=[0.0] * 10), target_column="prize")
    assert message == "dataset iris has no target column 'prize' (did you mean 'price'?); its columns are price, y"


def test_unknown_features_are_rejected_with_the_near_columns(bench: Bench) -> None:
    message = rejection(bench, rows([0, 1] * 5), features=("x", "xs", "nothing"))
    assert "no column 'xs' (did you mean 'x'?), 'nothing'; its columns are x, y" in message


def test_the_target_among_the_features_is_rejected(bench: Bench) -> None:
    assert "the target 'y' is among the features" in rejection(bench, rows([0, 1] * 5), features=("x", "y"))


def test_features_are_used_in_the_order_asked_for(bench: Bench) -> None:
    frame = rows([0, 1] * 10, a=range(20), b=range(20), c=range(20))
    assert bench.train(request(features=("c", "a")), frame).features == ["c", "a"]


def test_rows_without_a_target_are_left_out_and_counted(bench: Bench) -> None:
    trained = bench.train(request(), rows(pd.array([0, 1, None] * 10, dtype="Int64"), x=range(30)))
    assert "10 of 30 rows have no target and are left out" in trained.warnings
    assert trained.classes == ["0", "1"]
    assert bench.load(trained).predict([{"x": 0}]).labels == [0]


def test_a_target_that_is_missing_in_more_than_half_of_the_rows_is_rejected(bench: Bench) -> None:
    assert "missing in 12 of 20 rows; more than half" in rejection(bench, rows(["a", "b"] * 4 + [None] * 12))


def test_a_target_without_any_value_is_rejected(bench: Bench) -> None:
    assert "'y' has no value in any of 4 rows" in rejection(bench, rows([None] * 4))


def test_a_target_of_one_class_is_rejected(bench: Bench) -> None:
    assert "one class only, 'a'; two or more" in rejection(bench, rows(["a"] * 10))


def test_a_classifier_on_real_numbers_is_rejected_and_the_regressor_named(bench: Bench) -> None:
    message = rejection(bench, rows(list(np.linspace(0, 1, 20))))
    assert "'y' holds real numbers, but decision_tree is a classifier; use decision_tree_regressor" in message


def test_a_classifier_on_more_than_fifty_integers_is_rejected(bench: Bench) -> None:
    assert "holds 51 different integers" in rejection(bench, rows(list(range(51)) * 2))
    assert len(bench.train(request(), rows(list(range(50)) * 4)).classes) == 50


def test_whole_numbers_that_are_stored_as_floats_are_classes(bench: Bench) -> None:
    trained = bench.train(request(), rows([0.0, 1.0, 10.0] * 10 + [None]))
    assert trained.classes == ["0", "1", "10"]
    assert {(type(label), label) for label in bench.predict(trained, [{"x": 0.0}, {"x": 3.0}]).labels} <= {
        (int, 0), (int, 1), (int, 10),
    }  # fmt: skip
    assert "holds 51 different integers" in rejection(bench, rows([float(n) for n in range(51)] * 2))
    assert "holds real numbers" in rejection(bench, rows([0.0, 1.0, 0.5] * 10))
    assert "holds real numbers" in rejection(bench, rows([0.0, 2.0**53 + 2] * 10))


def test_a_target_of_dates_or_lists_is_rejected(bench: Bench) -> None:
    dates = rows([dt.date(2026, 1, 1), dt.date(2026, 1, 2)] * 5)
    for algorithm, instead in (("ridge", "numbers, such as days since"), ("decision_tree", "words, such as the month")):
        told = rejection(bench, dates, algorithm=algorithm)
        assert f"the target 'y' holds dates, which {algorithm} cannot predict; name another column" in told
        assert instead in told
    assert "neither words, nor integers" in rejection(bench, rows([[1], [2]] * 5, x=range(10)))


# Rules about features.


def test_columns_that_are_no_features_are_left_out_with_a_warning(bench: Bench) -> None:
    frame = rows(["a", "b"] * 10, x=range(20), empty=[None] * 20, key=[f"{n:024x}" for n in range(20)])
    trained = bench.train(request(), frame)
    assert trained.features == ["x"]
    assert any("'key' holds identifiers; name it in features to use it" in warning for warning in trained.warnings)
    assert bench.load(trained).manifest["dropped_columns"]["empty"] == "has no value"
    assert bench.train(request(features=("key", "x")), frame).features == ["key", "x"]


def test_a_dataset_without_a_usable_feature_is_rejected(bench: Bench) -> None:
    assert "no column to learn from ('x' has no value)" in rejection(bench, rows([0, 1] * 5, x=[None] * 10))
    assert "the target is the only one" in rejection(bench, pd.DataFrame({"y": [0, 1] * 5}))


def test_a_column_name_that_comes_twice_is_rejected(bench: Bench) -> None:
    import pyarrow as pa

    table = pa.table([pa.array([1, 2]), pa.array([3, 4]), pa.array([0, 1])], names=["x", "x", "y"])
    with pytest.raises(RejectedError, match="more than one column named x"):
        bench.train(request(), table)


def test_a_giveaway_is_named(bench: Bench) -> None:
    random = np.random.default_rng(0)
    labels = ["a", "b"] * 100
    numbers = rows(labels, noise=random.normal(size=200), score=[0.0, 1.0] * 100 + random.normal(scale=0.01, size=200))
    assert any(
        "column 'score' alone gives the target away" in said for said in bench.train(request(), numbers).warnings
    )
    words = rows(labels, noise=random.normal(size=200), code=["x", "y"] * 100)
    assert any("column 'code' alone gives the target away" in said for said in bench.train(request(), words).warnings)


@given(st.integers(0, 2**32 - 1), st.integers(2, 6), st.sampled_from([0.0, 0.05, 0.13, 0.15, 0.17, 0.3]))
def test_a_number_is_a_giveaway_if_classes_hardly_change_along_it(seed: int, classes: int, noise: float) -> None:
    random = np.random.default_rng(seed)
    codes = random.integers(0, classes, 1_500)
    values = np.round(codes + random.normal(scale=noise, size=1_500), random.integers(1, 6))
    values[random.random(1_500) < random.choice([0.0, 0.003, 0.008, 0.02])] = np.nan
    told = np.flatnonzero(~np.isnan(values))
    ordered = codes[told[np.lexsort((codes[told], values[told]))]]
    by_value = pd.crosstab(values[told], codes[told])
    hardly = np.count_nonzero(np.diff(ordered)) < 2 * classes
    pure = by_value.max(axis=1).sum() >= 0.99 * len(told)
    asked = SimpleNamespace(
        rows=np.column_stack([random.normal(size=1_500), values]),
        columns=[Column("noise", Role.NUMERIC, "double"), Column("same", Role.NUMERIC, "double")],
        classes=np.arange(classes),
        codes=codes,
    )
    expected = "same" if len(told) >= 0.99 * 1_500 and hardly and pure else None
    assert giveaway(asked, np.arange(1_500)) == expected  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("column", "target"),
    [
        (lambda n: n, lambda n: np.exp(-n / 100)),
        (lambda n: n, lambda n: np.sin(n / 100)),
        (lambda n: pd.Timestamp("2020-01-01") + pd.to_timedelta(n, "h"), lambda n: np.sin(n / 100)),
        (lambda n: n * 7_919 % 40, lambda n: np.cos(n % 40 * 7.0)),
        (lambda n: [f"w{one % 40}" for one in n], lambda n: np.cos(n % 40 * 7.0)),
        (lambda n: n % 2 == 0, lambda n: n % 2),
    ],
    ids=["rank", "neighbour", "date", "code", "word", "boolean"],
)
def test_a_giveaway_of_numbers_is_named(bench: Bench, column: Any, target: Any) -> None:
    random = np.random.default_rng(0)
    numbers = random.permutation(1_000)
    frame = rows(target(numbers), noise=random.normal(size=1_000), same=column(numbers))
    said = bench.train(request("random_forest_regressor"), frame).warnings
    assert any("column 'same' alone gives the target away" in one for one in said)


def test_a_giveaway_of_numbers_is_named_in_few_rows_too(bench: Bench) -> None:
    numbers = np.arange(24.0)
    said = bench.train(request("linear_regression"), rows(2 * numbers + numbers % 2, same=numbers)).warnings
    assert any("column 'same' alone gives the target away" in one for one in said)


def test_a_score_of_numbers_above_099_without_a_giveaway_is_still_suspicious(bench: Bench) -> None:
    random = np.random.default_rng(0)
    a, b = random.integers(0, 5, 8_000), random.normal(size=8_000)
    frame = rows(a + b, a=a, b=b).sort_values("y", ignore_index=True)
    frame["at"] = range(8_000)  # in this order rows of one `a` rise with the target
    said = bench.train(
        request("linear_regression", target_column="y", time_column="at", features=("a", "b")), frame
    ).warnings
    assert [one for one in said if "suspicious" in one] == [
        "a test r2 of 1.000 is suspicious: no single column gives the target away; "
        "do several together, or are rows repeated?"
    ]


def test_a_score_above_099_without_a_giveaway_is_still_suspicious(bench: Bench) -> None:
    a, b = (np.repeat([0.0, 1.0], 100), np.tile([0.0, 1.0], 100))
    trained = bench.train(request(), rows((a == b).tolist(), a=a, b=b))
    assert trained.metrics["test_accuracy"] == 1.0
    assert any("no single column gives the target away" in said for said in trained.warnings)


def test_a_model_that_has_learned_nothing_says_so(bench: Bench) -> None:
    noise = np.random.default_rng(0).normal(size=200)
    said = bench.train(request("svm"), rows((["no"] * 3 + ["yes"]) * 50, noise=noise)).warnings
    assert any("no better than always giving the most frequent class" in one for one in said)
    said = bench.train(request("linear_regression"), rows(noise[::-1].copy(), noise=noise)).warnings
    assert any("no better than always giving the mean" in one for one in said)


def test_words_that_no_two_rows_share_are_told_of(bench: Bench) -> None:
    codes = [f"A{number:05}" for number in range(40)]
    said = bench.train(request(), rows(["a", "b"] * 20, order_id=codes, town=["Ulm", "Graz"] * 20)).warnings
    assert [one for one in said if "a different value in each row" in one] == [
        "column 'order_id' has a different value in each row: if it is an identifier, leave it out (features)"
    ]
    nearly = [f"A{max(1, number):05}" for number in range(200)]
    said = bench.train(request(), rows(["a", "b"] * 100, order_id=nearly, town=["Ulm", "Graz"] * 100)).warnings
    assert any("column 'order_id' has a different value in nearly each row" in one for one in said)


# Rules about the split.


def test_integers_that_differ_in_every_row_are_told_of_where_they_are_learned_from(bench: Bench) -> None:
    text = "\n".join(["id,x,y", *(f"{n},{n % 7},{n % 2}" for n in range(60))])
    table = canonical(table_from(text.encode()))
    said = "column 'id': differs in every row: if it is an id, leave it out (--type NAME=id at import, or features)"
    assert said in bench.train(request(), table).warnings
    assert said not in bench.train(request(features=("x",)), table).warnings
    assert said not in bench.train(request("linear_regression", target_column="id"), table).warnings


def test_the_split_is_stratified_by_class(bench: Bench) -> None:
    details = bench.load(bench.train(request(test_size=0.3))).evaluation
    assert [entry["support"] for entry in details["per_class"].values()] == [15, 15, 15]


def test_a_class_of_one_row_goes_to_training_with_a_warning(bench: Bench) -> None:
    trained = bench.train(request(), rows(["a", "b"] * 10 + ["lone"]))
    assert any("1 classes have one row only" in said and "'lone'" in said for said in trained.warnings)
    assert trained.classes == ["a", "b", "lone"]
    assert bench.load(trained).evaluation["per_class"]["lone"]["support"] == 0


def test_a_target_whose_every_value_is_another_is_rejected(bench: Bench) -> None:
    assert "every class has one row only" in rejection(bench, rows(["a", "b", "c", "d"]))


def test_groups_are_in_one_part_only(bench: Bench) -> None:
    frame = rows(["a", "b"] * 20, x=range(40), person=np.repeat(range(10), 4))
    trained = bench.train(request(group_column="person", test_size=0.3, cv=3), frame)
    tested = frame["person"].iloc[bench.load(trained).evaluation["test_predictions"]["row"]]
    assert tested.value_counts().tolist() == [4, 4, 4]
    assert trained.split_summary == SplitSummary("group", 28, 12, "person")
    assert "one group only" in rejection(bench, frame.assign(person=1)[["x", "person", "y"]], group_column="person")


def test_the_last_rows_by_time_are_the_test(bench: Bench) -> None:
    moments = pd.Series(pd.date_range("2026-01-01", periods=40)).sample(frac=1, random_state=0).tolist()
    frame = rows(["a", "b"] * 20, x=range(40), when=moments)
    details = bench.load(bench.train(request(time_column="when", cv=3), frame)).evaluation
    assert frame["when"].iloc[details["test_predictions"]["row"]].min() == pd.Timestamp("2026-02-02")
    texts = frame.assign(when=[moment.isoformat() for moment in moments])[["x", "when", "y"]]
    assert bench.train(request(time_column="when"), texts).split_summary == SplitSummary(
        "time", 32, 8, "when", 0, "2026-02-01", "2026-02-02"
    )


def test_a_time_gap_leaves_out_the_rows_between_training_and_test_and_between_the_parts_of_folds(bench: Bench) -> None:
    frame = rows(["a", "b"] * 20, x=range(40), day=np.arange(40)[::-1])
    asked = request(time_column="day", time_gap=3, cv=3)
    trained = bench.train(asked, frame)
    assert trained.split_summary == SplitSummary("time", 29, 8, "day", 3, 28, 32)
    assert sorted(frame["day"].iloc[bench.load(trained).evaluation["test_predictions"]["row"]]) == list(range(32, 40))
    data = examples(asked, frame, "y", catalogue()["decision_tree"])
    cut = [(frame["day"].iloc[fit], frame["day"].iloc[score]) for fit, score in _folds(data, asked)]
    assert [(fit.min(), fit.max(), score.min(), score.max()) for fit, score in cut] == [
        (0, 4, 8, 14), (0, 11, 15, 21), (0, 18, 22, 28),
    ]  # fmt: skip
    assert "a time_gap of 32 rows leaves none of 40 rows" in rejection(bench, frame, time_column="day", time_gap=32)


def _folds(data: Examples, asked: TrainingRequest) -> Iterator[tuple[Any, Any]]:
    return folds(data, asked.evaluation, split(data, asked.evaluation, asked.seed).train, asked.seed)


def test_the_column_that_rows_are_split_by_is_a_feature_unless_the_request_names_others(bench: Bench) -> None:
    frame = rows(["a", "b"] * 20, x=range(40), person=np.repeat(range(10), 4), day=range(40))
    unknown = "column 'person' is a feature too, and the test part has none of the groups that training has"
    for split_by in ({"time_column": "day"}, {"group_column": "person"}):
        trained = bench.train(request(**split_by), frame)
        assert trained.features == ["x", "person", "day"]
        assert any(unknown in said for said in trained.warnings) == ("group_column" in split_by)
        assert bench.train(request(features=("x",), **split_by), frame).features == ["x"]
    named = bench.train(request(features=("person",), group_column="person"), frame)
    assert not any(unknown in said for said in named.warnings)


def test_a_series_that_is_split_at_random_has_a_warning(bench: Bench) -> None:
    days = pd.date_range("2026-01-01", periods=40)
    series = rows(["a", "b"] * 20, x=range(40), day=days)
    told = "the rows are in order of 'day', like a series"

    def warned(frame: pd.DataFrame, **changes: Any) -> bool:
        return any(told in said for said in bench.train(request(**changes), frame).warnings)

    assert warned(series)
    assert warned(series[::-1])
    assert not warned(series, time_column="day")
    assert not warned(series.sample(frac=1, random_state=0))
    assert not warned(series.assign(day=np.repeat(days[:10], 4)))
    assert not warned(series.assign(day=days.where(days > days[0])))


def test_rows_of_one_moment_are_in_one_part(bench: Bench) -> None:
    days = [f"2026-01-{n // 10 + 1:02}" for n in range(95)]
    text = "\n".join(["day,x,y", *(f"{day},{n % 7},{'ab'[n % 2]}" for n, day in enumerate(days))])
    trained = bench.train(request(time_column="day"), canonical(table_from(text.encode())))
    parts = trained.split_summary
    assert (parts.train_rows, parts.test_rows) == (70, 25)
    assert (parts.train_until, parts.test_from) == ("2026-01-07", "2026-01-08")
    asked = request(time_column="day", cv=3)
    frame = frame_of(canonical(table_from(text.encode())))
    data = examples(asked, frame, "y", catalogue()[asked.algorithm])
    train = split(data, asked.evaluation, 1).train
    assert data.times is not None
    moments = [
        (data.times[fit].max(), data.times[score].min()) for fit, score in folds(data, asked.evaluation, train, 1)
    ]
    assert all(last < first for last, first in moments)
    assert len(moments) == 3


def test_rows_without_a_group_are_told_of(bench: Bench) -> None:
    frame = rows(["a", "b"] * 20, x=range(40), group=[None, "u", "v", "w"] * 10)
    said = bench.train(request(group_column="group", features=("x",)), frame).warnings
    assert "10 rows have no 'group', and count as one group" in said


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"time_column": "note"}, "time_column 'note' holds neither dates nor numbers"),
        ({"time_column": "gap"}, "time_column 'gap' is missing in 1 rows"),
        ({"time_column": "day"}, "has no column 'day'"),
        ({"group_column": "y"}, "the target 'y' cannot be the group_column or time_column too"),
        ({"time_column": "x"}, "the training part would hold one class only, 'a'"),
        ({"time_column": "x", "test_size": 0.99}, "leaves none of 20 rows for training"),
        ({"group_column": "half", "test_size": 0.9}, "too few groups to split"),
    ],
)
def test_a_split_that_cannot_be_made_is_rejected(bench: Bench, changes: dict[str, Any], message: str) -> None:
    frame = rows(["a"] * 18 + ["b"] * 2, x=range(20), note=["n"] * 20, gap=[None, *range(19)], half=[0, 1] * 10)
    assert message in rejection(bench, frame, **changes)


def test_folds_that_cannot_be_cut_are_rejected(bench: Bench) -> None:
    assert "of 2 folds would be fitted on a single class" in rejection(bench, rows(["a", "b"] * 2), cv=2, test_size=0.5)
    assert "cannot be cut into 20 folds" in rejection(bench, rows(["a", "b"] * 5), cv=20)


def test_a_dataset_of_one_row_is_rejected(bench: Bench) -> None:
    assert rejection(bench, rows(["a"]))


def test_a_plain_shuffle_where_asked_for(bench: Bench) -> None:
    trained = bench.train(request(stratify=False, cv=3), rows(["a", "b"] * 20))
    assert trained.metrics["accuracy"] > 0.5


def test_quick_hyperparameters_are_of_algorithms_that_exist() -> None:
    assert set(QUICK) <= set(catalogue())
    assert replace(request(), seed=1).seed == 1


def test_what_reading_decided_is_among_the_warnings_and_rows_to_predict_are_read_the_same(bench: Bench) -> None:
    days = [f"{n % 28 + 1}.{n % 12 + 1}.2012" for n in range(40)]
    text = "\n".join(["day;x;unused;y", *(f"{day};{n},5;1,5;{'ab'[n % 2]}" for n, day in enumerate(days)), "?;;;a"])
    trained = bench.train(request(features=("day", "x")), canonical(table_from(text.encode())))
    assert "column 'day': is read as dates d.m.y" in trained.warnings
    assert any(warning.startswith("column 'x': is read as numbers with decimal comma") for warning in trained.warnings)
    assert not any("unused" in warning for warning in trained.warnings)
    model = bench.load(trained)
    read: list[dict[str, Any]] = [{"day": dt.datetime(2012, 2, 7), "x": 17.5}, {"day": None, "x": None}]  # noqa: DTZ001
    written: list[dict[str, Any]] = [{"day": "7.2.2012", "x": "17,5"}, {"day": "?", "x": ""}]
    assert model.predict(written).labels == model.predict(read).labels
    with pytest.raises(
        RejectedError, match=r"column 'x'.*: row 2 has '17.5', which is not a number; write it like 1234,5"
    ):
        model.predict([written[0], {"day": None, "x": "17.5"}])


@pytest.mark.parametrize("form", FORMS)
def test_rows_in_every_form_are_predicted_as_they_were_trained(bench: Bench, form: str) -> None:
    texts = pa.table(
        {
            "day": [f"{n % 28 + 1}.{n % 12 + 1}.2012" for n in range(60)],
            "price": [f"{n % 7 + 1}.234,5 €" for n in range(60)],
            "code": [f"{n % 3:03}" for n in range(60)],
            "paid": ["true", "false"] * 30,
            "y": ["a", "b", "b"] * 20,
        }
    )
    model = bench.load(bench.train(request("logistic_regression"), canonical(FORMS["csv"](texts))))
    wanted = model.predict(frame_of(canonical(FORMS["csv"](texts)))).probabilities
    read = FORMS[form](texts) if form == "collection" else FORMS[form](texts, options=ReadOptions(keep_texts=True))
    for rows in (frame_of(read), texts.to_pylist(), pd.DataFrame(texts.to_pydict())):
        assert np.array_equal(np.asarray(model.predict(rows).probabilities), np.asarray(wanted))


def test_a_time_without_a_zone_is_taken_for_utc(bench: Bench) -> None:
    text = "\n".join(
        ["t,y", *(f"2022-03-{n % 28 + 1:02}T{n % 24:02}:00:00+02:00,{'ab'[n % 24 > 11]}" for n in range(400))]
    )
    model = bench.load(bench.train(request(), canonical(table_from(text.encode()))))
    evening: list[dict[str, Any]] = [{"t": "2022-03-07T11:00:00+02:00"}, {"t": "2022-03-07 09:00"}]
    later: list[dict[str, Any]] = [{"t": "2022-03-07T12:00:00+02:00"}, {"t": "2022-03-07 10:00"}]
    assert (model.predict(evening).labels, model.predict(later).labels) == (["a", "a"], ["b", "b"])


@pytest.mark.parametrize("quote", ["", '"'])
def test_na_in_rows_to_predict_is_what_it_was_in_the_file(bench: Bench, quote: str) -> None:
    pairs = [("NA", "a"), ("NC", "b"), ("ND", "b")] * 10
    text = "\n".join(["c,y", *(f"{quote}{country}{quote},{label}" for country, label in pairs)])
    table = canonical(table_from(text.encode()))
    assert table["c"].null_count == (0 if quote else 10)
    predicted = bench.load(bench.train(request(), table)).predict([{"c": "NA"}])
    assert predicted.labels == ["a"]
    assert predicted.unseen == {}
