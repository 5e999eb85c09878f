"""Preparation: which role a column plays, and what becomes of its values."""

from __future__ import annotations

import datetime as dt
import decimal
import uuid
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.base import clone
from sklearn.pipeline import Pipeline

from pipeline.errors import RejectedError
from pipeline.features.columns import Column, Role, UnusableColumnError, describe, read
from pipeline.features.dates import DateFeatures
from pipeline.features.frames import frame_of
from pipeline.features.preparation import WIDEST_DENSE, apply_steps, as_rows, fit_steps, preparation, take
from pipeline.model_files.skops_writer import dumps
from tests.training_data import mixed_rows

SENTENCES = [f"the quick brown fox jumps over {n} lazy dogs" for n in range(30)]


def column(values: Any) -> pd.Series[Any]:
    """As a trainer gets it: by way of Arrow."""
    return frame_of(pa.table({"c": values}))["c"]


def prepare(frame: pd.DataFrame, *, needs_dense: bool = False) -> tuple[Pipeline, Any]:
    columns = [describe(frame[name], name) for name in frame.columns]
    rows = as_rows([read(frame[c.name], c) for c in columns], columns)
    pipeline = Pipeline(preparation(columns, rows, needs_dense=needs_dense, algorithm="some algorithm"))
    return pipeline, pipeline.fit_transform(rows)


@pytest.mark.parametrize(
    ("values", "role", "kind"),
    [
        ([1, 2], Role.NUMERIC, "long"),
        ([1, None], Role.NUMERIC, "long"),
        ([1.5, None], Role.NUMERIC, "double"),
        ([decimal.Decimal("1.5"), None], Role.NUMERIC, "double"),
        ([dt.timedelta(1)], Role.NUMERIC, "double"),
        ([True, None], Role.BOOLEAN, "boolean"),
        (["a", None], Role.CATEGORICAL, "string"),
        (pa.array(["a", "b"]).dictionary_encode(), Role.CATEGORICAL, "string"),
        (SENTENCES, Role.TEXT, "string"),
        (SENTENCES[:2] * 20, Role.CATEGORICAL, "string"),
        ([dt.date(2026, 1, 31), None], Role.DATE, "datetime"),
        ([dt.datetime(2026, 1, 31, tzinfo=dt.UTC), None], Role.DATE, "datetime"),
    ],
)
def test_a_column_plays_the_role_of_its_type(values: Any, role: Role, kind: str) -> None:
    assert describe(column(values), "c") == Column("c", role, kind)


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ([None, None], "has no value"),
        ([float("nan"), float("inf")], "has no value"),
        ([b"x"], "not numbers, words or dates"),
        ([[1, 2]], "not numbers, words or dates"),
        ([{"a": 1}], "not numbers, words or dates"),
        (["507f1f77bcf86cd799439011", None], "identifiers"),
        ([str(uuid.UUID(int=n)) for n in range(3)], "identifiers"),
    ],
)
def test_a_column_that_is_no_feature_says_why(values: Any, reason: str) -> None:
    with pytest.raises(UnusableColumnError, match=reason):
        describe(column(values), "c")


def test_identifiers_that_the_request_names_are_categories() -> None:
    assert describe(column(["507f1f77bcf86cd799439011"]), "c", wanted=True).role is Role.CATEGORICAL


def test_numbers_are_imputed_by_the_median_and_standardised_and_infinity_is_missing() -> None:
    _, prepared = prepare(pd.DataFrame({"a": [1.0, 2.0, 6.0, np.nan, np.inf, -np.inf]}))
    expected = np.array([1.0, 2, 6, 2, 2, 2])
    assert prepared[:, 0] == pytest.approx((expected - expected.mean()) / expected.std())


@st.composite
def matrices(draw: st.DrawFn) -> Any:
    """Of any type of numbers, far from zero or near, with ties, constant columns, and gaps where the type has them."""
    shape = draw(st.tuples(st.integers(1, 700), st.one_of(st.integers(1, 5), st.integers(60, 135))))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    kind = draw(st.sampled_from(["uint8", "int16", "int64", "float32", "float64"]))
    scale = 20.0 if kind == "uint8" else 10.0 ** draw(st.integers(0, 4))
    away = draw(st.sampled_from([0.0, 3.0, 1e14 if kind == "float64" else 1.0]))
    matrix = random.normal(away * scale, scale, shape).astype(kind)
    matrix[:, random.random(shape[1]) < 0.1] = 0.1 if matrix.dtype.kind == "f" else 7
    if matrix.dtype.kind == "f" and draw(st.booleans()):
        gaps = random.random(shape) < draw(st.sampled_from([0.01, 0.5]))
        gaps[:, :-1] |= random.random(shape[1] - 1) < 0.05
        gaps[0, -1] = False  # scikit-learn refuses a matrix without a value
        matrix[gaps] = np.nan
    return matrix


@pytest.mark.filterwarnings("ignore:Skipping features")
@given(matrices(), st.integers(0, 9))
def test_numbers_are_prepared_bit_for_bit_as_scikit_learn_does_it(matrix: Any, seed: int) -> None:
    columns = [Column(f"x{place}", Role.NUMERIC, "double") for place in range(matrix.shape[1])]
    steps = preparation(columns, matrix, needs_dense=True, algorithm="some algorithm")
    places = np.random.default_rng(seed).permutation(len(matrix))
    plain = Pipeline(clone(Pipeline(steps)).steps)
    expected = plain.fit_transform(matrix[places].astype(np.float64))
    np.testing.assert_array_equal(fit_steps(steps, take(matrix, places), places), expected)
    assert dumps(Pipeline(steps)) == dumps(plain)
    np.testing.assert_array_equal(apply_steps(steps, take(matrix, places)), expected)


def test_only_training_rows_teach_preparation() -> None:
    pipeline, _ = prepare(pd.DataFrame({"a": [0.0, 2.0]}))
    assert pipeline.transform(np.array([[100.0]])).item() == pytest.approx(99.0)


def test_an_unknown_category_is_no_category_and_a_missing_one_its_own() -> None:
    pipeline, prepared = prepare(pd.DataFrame({"city": ["Ulm", "Bonn", None], "n": [1.0, 2.0, 3.0]}))
    assert prepared.shape == (3, 4)
    unknown, missing = pipeline.transform(pd.DataFrame({"city": ["Rom", np.nan], "n": [2.0, 2.0]}))
    assert unknown.tolist() == [0, 0, 0, 0]
    assert missing.sum() == 1


def test_at_most_a_hundred_categories_the_rest_in_one() -> None:
    names = [f"c{n}" for n in range(150)]
    _, prepared = prepare(pd.DataFrame({"city": [*names, *names[:99]]}))
    assert prepared.shape[1] == 100


def test_truths_are_one_hot() -> None:
    pipeline, prepared = prepare(pd.DataFrame({"b": pd.array([True, False, True, None], dtype="boolean")}))
    assert prepared.tolist() == [[0, 1], [1, 0], [0, 1], [0, 1]]
    assert pipeline.transform(pd.DataFrame({"b": [True]})).tolist() == [[0, 1]]


def test_dates_become_year_month_weekday_hour_and_days_since_the_training_minimum() -> None:
    days = pd.Index(["2026-01-31T06:00:00Z", "2026-01-30", None])
    seen = pd.DataFrame({"d": pd.to_datetime(days, utc=True, format="ISO8601")})
    features = DateFeatures().fit(seen)
    assert features.transform(seen)[:2].tolist() == [[2026, 1, 5, 6, 1.25], [2026, 1, 4, 0, 0]]
    assert np.isnan(features.transform(seen)[2]).all()
    assert features.transform(pd.DataFrame({"d": ["2025-01-30"]})).tolist() == [[2025, 1, 3, 0, -365]]
    assert list(features.get_feature_names_out())[-1] == "d_days"
    with pytest.raises(ValueError, match="1 date columns are needed, not 2"):
        features.transform(pd.DataFrame({"d": ["2025-01-30"], "e": ["2025-01-30"]}))


def test_a_date_column_without_a_date_in_training_does_no_harm() -> None:
    empty = pd.DataFrame({"d": pd.to_datetime(pd.Index([None, None]))})
    assert np.isnan(DateFeatures().fit(empty).transform(empty)).all()


def test_text_becomes_at_most_a_thousand_terms() -> None:
    texts = [" ".join(f"w{n + step}" for step in range(8)) for n in range(1500)]
    _, prepared = prepare(pd.DataFrame({"t": texts}))
    assert prepared.shape == (1500, 1000)


def test_a_missing_text_has_no_terms() -> None:
    pipeline, _ = prepare(pd.DataFrame({"t": SENTENCES}))
    assert pipeline.transform(pd.DataFrame({"t": [np.nan]})).sum() == 0


def test_beyond_two_thousand_columns_the_matrix_is_sparse() -> None:
    wide = pd.DataFrame({f"c{place}": [f"v{row}" for row in range(100)] for place in range(21)})
    _, prepared = prepare(wide)
    assert prepared.shape == (100, 2100)
    assert prepared.format == "csr"
    _, prepared = prepare(wide.iloc[:, :20])
    assert isinstance(prepared, np.ndarray)
    assert prepared.shape[1] == WIDEST_DENSE


def test_what_needs_a_dense_matrix_is_rejected_with_the_figure() -> None:
    wide = pd.DataFrame({f"c{place}": [f"v{row}" for row in range(100)] for place in range(21)})
    with pytest.raises(RejectedError, match=r"up to 2,100 columns .* and some algorithm takes at most 2,000"):
        prepare(wide, needs_dense=True)


def test_all_roles_go_together() -> None:
    frame = mixed_rows().drop(columns="label")
    pipeline, prepared = prepare(frame)
    assert len(prepared) == len(frame)
    assert np.isfinite(prepared).all()
    names = pipeline.get_feature_names_out()
    assert {"numeric__size", "boolean__paid_1.0", "date__seen_days", "categorical__city_Ulm"} <= set(names)


@pytest.mark.parametrize(
    ("values", "role", "message"),
    [
        (["1", "much"], Role.NUMERIC, r"column 'c' takes numeric values .*row 2 has 'much', which is not a number"),
        ([2], Role.BOOLEAN, "neither true nor false"),
        (["yesterday"], Role.DATE, "column 'c' takes date values"),
    ],
)
def test_a_value_that_cannot_be_read_names_its_column(values: list[Any], role: Role, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read(pd.Series(values), Column("c", role, "x"))
