"""Dates that stand for "never" and "open" are dates: from the file to the prediction, in any year."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from pipeline.datasets.profiles import profile_columns
from pipeline.errors import RejectedError
from pipeline.features.dates import DateFeatures, moments_of
from pipeline.reading.moments import MOMENT
from pipeline.reading.tables import canonical
from pipeline.reading.writers import parquet_of
from tests.rows import table_from
from tests.training_data import Bench, request

FIRST, LAST = datetime.fromisoformat("0001-01-01"), datetime.fromisoformat("9999-12-31T23:59:59.999999")
SENTINELS = {"text": "0001-01-01", "zone": "9999-12-31T23:59:59Z", "first": FIRST, "last": LAST, "day": date(1, 1, 1)}


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def _rows(rows: int = 60) -> pa.Table:
    random, codes = np.random.default_rng(0), np.arange(rows) % 2
    seen = [FIRST if n % 7 == 0 else LAST if n % 5 == 0 else FIRST + timedelta(days=737_000 + n) for n in range(rows)]
    size, label = pa.array(codes + random.normal(size=rows)), pa.array(codes)
    return canonical(pa.table({"seen": pa.array(seen, MOMENT), "size": size, "label": label}))


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (["0001-01-01", "9999-12-31"], [FIRST, datetime.fromisoformat("9999-12-31")]),
        (["2020-02-03 04:05:06", "9999-12-31 23:59:59"], ["2020-02-03T04:05:06", "9999-12-31T23:59:59"]),
        (["2020-02-03 04:05:06.5", "9999-12-31 23:59:59.997"], ["2020-02-03T04:05:06.5", "9999-12-31T23:59:59.997"]),
        (["2020-02-03T04:05:06.5Z", "9999-12-31T23:59:59.5Z"], ["2020-02-03T04:05:06.5", "9999-12-31T23:59:59.5"]),
        (["2020-02-03T04:05:06.5+02:00", "9999-12-31T00:00:00.5Z"], ["2020-02-03T02:05:06.5", "9999-12-31T00:00:00.5"]),
    ],
)
def test_a_sentinel_in_csv_leaves_its_column_one_of_dates(lines: list[str], expected: list[Any]) -> None:
    column = canonical(table_from("\n".join(["seen", *lines, '""']).encode(), "x.csv")).column("seen")
    moments = [one if isinstance(one, datetime) else datetime.fromisoformat(one) for one in expected]
    assert column.to_pylist() == [*moments, None]


@pytest.mark.parametrize("lines", [["2020 was good", "2021 too"], ["2020-01-01 10:00:00.5", "open"], ["2020", "x"]])
def test_text_that_begins_like_a_date_is_text(lines: list[str]) -> None:
    assert table_from("\n".join(["seen", *lines]).encode(), "x.csv").column("seen").to_pylist() == lines


def test_a_sentinel_in_parquet_comes_back_and_is_shown() -> None:
    table = table_from(parquet_of(_rows()), "x.parquet")
    assert table.equals(_rows())
    seen = profile_columns(table)[0]
    assert (seen.low, seen.high) == (FIRST, LAST)


@pytest.mark.parametrize(
    "asked",
    [{}, {"report": True, "cv": 3}, {"time_column": "seen"}, {"group_column": "seen"}, {"target_column": "size"}],
)
def test_a_column_with_sentinels_trains_splits_and_predicts(bench: Bench, asked: dict[str, Any]) -> None:
    algorithm = "decision_tree_regressor" if "target_column" in asked else "logistic_regression"
    model = bench.load(bench.train(request(algorithm, **asked), _rows()))
    if "seen" not in [column.name for column in model.columns]:
        return
    for value in (*SENTINELS.values(), None):
        assert len(model.predict([{**model.example[0], "seen": value}]).labels) == 1


def test_days_are_counted_from_the_first_date_to_the_last() -> None:
    frame = pd.DataFrame({"seen": ["9999-12-31", "0001-01-01", None]})
    years, _, _, _, days = DateFeatures().fit_transform(frame).T
    assert years[:2].tolist() == [9999, 1]
    assert days[:2].tolist() == [(date(9999, 12, 31) - date(1, 1, 1)).days, 0]
    assert np.isnan(days[2])


def test_dates_of_every_kind_are_microseconds_in_utc() -> None:
    aware = LAST.replace(tzinfo=UTC)
    values = pd.Series([*SENTINELS.values(), aware, pd.Timestamp(2020, 1, 2), None], dtype=object)
    assert moments_of(values).astype("O").tolist() == [
        FIRST, LAST.replace(microsecond=0), FIRST, LAST, FIRST, LAST, datetime.fromisoformat("2020-01-02"), None,
    ]  # fmt: skip
    assert moments_of(pd.Series(["9999-12-31T23:59:59.999999999Z"])).astype("O").tolist() == [LAST]
    for unit in ("s", "ms", "us"):
        assert moments_of(pd.Series(np.array(["9999-12-31"], f"M8[{unit}]"))).dtype == "M8[us]"


@pytest.mark.parametrize("value", ["10000-01-01", "never", 7, True, np.datetime64(2**60, "s")])
def test_what_is_no_date_to_predict_from_is_rejected_with_its_column(bench: Bench, value: Any) -> None:
    model = bench.load(bench.train(request(), _rows()))
    with pytest.raises(RejectedError, match=r"^column 'seen' takes date values \(datetime\): [^\n]*$"):
        model.predict(pd.DataFrame({"seen": [value], "size": [1.0]}))
