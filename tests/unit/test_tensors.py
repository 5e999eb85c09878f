"""Columns of lists: as many columns of numbers to train on, and one column of lists to predict from."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from numpy.typing import NDArray

from pipeline import algorithms
from pipeline.datasets.builtin import load_frame
from pipeline.errors import RejectedError
from pipeline.features.columns import Role
from pipeline.features.examples import Examples, examples
from pipeline.features.frames import frame_of, table_of
from pipeline.reading.tables import canonical, last_target
from tests.training_data import Bench, request

ROWS = 400


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def _pixels() -> NDArray[np.uint8]:
    return load_frame("digits").drop(columns="digit").to_numpy()[:ROWS].astype(np.uint8).reshape(-1, 8, 8)


def _images(**more: Sequence[Any]) -> pa.Table:
    """The digits as one column of images before the target."""
    pixels = pa.array(_pixels().tolist(), pa.list_(pa.list_(pa.uint8(), 8), 8))
    return canonical(pa.table({"pixels": pixels, **more, "digit": load_frame("digits")["digit"][:ROWS].tolist()}))


def _examples(table: pa.Table, **asked: Any) -> Examples:
    return examples(
        request(dataset="images", **asked), frame_of(table), last_target(table), algorithms.find("decision_tree")
    )


def test_an_image_becomes_columns_of_numbers_and_the_examples_know_its_shape() -> None:
    data = _examples(_images())
    assert [column.name for column in data.columns] == [f"pixels_{n}" for n in range(64)]
    assert {(column.role, column.type) for column in data.columns} == {(Role.NUMERIC, "long")}
    assert (data.shape, data.tensors, data.target_column) == ((8, 8), {"pixels": (8, 8)}, "digit")
    assert np.array_equal(np.asarray(data.rows).reshape(-1, 8, 8), _pixels())


def test_numbers_of_one_type_keep_it_and_others_are_float64() -> None:
    whole = _examples(_images(), features=("pixels",))
    assert np.asarray(whole.rows).dtype == np.uint8
    assert whole.size_bytes < 2 * ROWS * 64
    beside = _examples(_images(weight=[0.5] * ROWS))
    assert np.asarray(beside.rows).dtype == np.float64
    np.testing.assert_array_equal(np.asarray(beside.rows)[:, :64], whole.rows)
    gap = pa.array([[1, 2], None, [3, 4], [5, 6]], pa.list_(pa.uint8(), 2))
    infinite = pa.array([[1, 2], [np.inf, 1], [3, 4], [5, 6]], pa.list_(pa.float32(), 2))
    for lists in (gap, infinite):
        rows = np.asarray(_examples(canonical(pa.table({"x": lists, "y": [1, 2, 1, 2]}))).rows)
        assert rows.dtype == np.float64
        assert np.isnan(rows).any(axis=1).tolist() == [False, True, False, False]


def test_a_request_may_name_the_column_of_lists_or_some_of_its_numbers() -> None:
    table = _images(weight=[0.5] * ROWS)
    assert _examples(table).shape is None, "there is another column too"
    assert _examples(table).tensors == {"pixels": (8, 8)}
    assert _examples(table, features=("pixels",)).shape == (8, 8)
    some = _examples(table, features=("pixels_3", "weight"))
    assert ([column.name for column in some.columns], some.shape) == (["pixels_3", "weight"], None)
    assert some.tensors == {}
    with pytest.raises(RejectedError, match="the target 'pixels' holds lists of 8 x 8 numbers"):
        _examples(table, target_column="pixels")
    with pytest.raises(RejectedError, match=r"no column 'pixel' \(did you mean 'pixels_\d'\?\)"):
        _examples(table, features=("pixel",))


def test_the_target_is_the_last_column_that_holds_one_value() -> None:
    table = _images()
    assert _examples(table.select(["digit", "pixels"])).target_column == "digit"


def test_gaps_in_a_tensor_are_missing_numbers() -> None:
    lists = pa.array([[1, 2], None, [3, None], [5, 6]], pa.list_(pa.int64(), 2))
    frame = frame_of(canonical(pa.table({"x": lists.slice(0), "y": [1, 2, 1, 2]})).slice(1))
    assert frame["x_0"].tolist()[1:] == [3.0, 5.0]
    assert np.isnan(frame["x_0"].iloc[0])
    assert frame["x_1"].isna().tolist() == [True, True, False]
    truths = frame_of(canonical(pa.table({"t": [[True, False], [False, True]]})))
    assert truths.to_numpy().tolist() == [[1, 0], [0, 1]]


@pytest.mark.parametrize("rows", [[[None, None]], [[None, None], None], [[[None], [None]]]])
def test_lists_in_which_all_is_missing_are_a_column_without_values(rows: list[Any]) -> None:
    table = canonical(pa.table({"empty": rows, "label": list(range(len(rows)))}))
    assert table.schema.field("empty").type == pa.null()
    assert canonical(table).equals(table)


def test_a_frame_with_arrays_in_its_cells_is_a_tensor_too() -> None:
    frame = pd.DataFrame({"series": [np.array([1.0, 2.0]), np.array([3.0, 4.0])], "y": [0, 1]})
    assert frame_of(table_of(frame))[["series_0", "series_1"]].to_numpy().tolist() == [[1.0, 2.0], [3.0, 4.0]]


@pytest.mark.parametrize("algorithm", ["logistic_regression", "decision_tree"])
def test_a_model_of_images_equals_that_of_their_numbers_and_scores_raw_rows(bench: Bench, algorithm: str) -> None:
    trained = bench.train(request(algorithm), _images())
    flat = _pixels().reshape(-1, 64)
    spread = pd.DataFrame(flat, columns=[f"pixels_{n}" for n in range(64)])
    plain = bench.train(request(algorithm), spread.assign(digit=load_frame("digits")["digit"][:ROWS].tolist()))
    loaded = bench.load(trained)
    expected = bench.load(plain).predict(spread).labels
    for rows in (
        pd.DataFrame({"pixels": _pixels().tolist()}),
        [{"pixels": image, "unused": 1} for image in _pixels()],
        [{"pixels": row.tolist()} for row in flat],
        spread,
        frame_of(_images()),
    ):
        assert loaded.predict(rows).labels == expected
    assert loaded.predict([{"pixels": flat[0], "unused": 1}]).extra_columns == ("unused",)
    assert loaded.manifest["tensors"] == {"pixels": [8, 8]}
    assert "tensors" not in bench.load(plain).manifest
    assert loaded.example[0]["pixels"] == _pixels()[0].tolist()
    assert loaded.predict(loaded.example).labels == expected[:5]
    assert trained.metrics == plain.metrics


def test_rows_to_predict_that_have_no_such_list_are_rejected_with_what_is_wrong(bench: Bench) -> None:
    loaded = bench.load(bench.train(request(), _images()))
    image = _pixels()[0].tolist()
    for rows, says in (
        ([{"other": 1}], r"lack 64 of the model's columns: pixels \(lists of 8 x 8\)"),
        (pd.DataFrame({f"pixels_{n}": [0] for n in range(63)}), "lack 1 of the model's columns: pixels_63"),
        ([{"pixels": image}, {"pixels": image[1:]}], "takes lists of 8 x 8 numbers; row 2 has 7 x 8"),
        ([{"pixels": 3}], "takes lists of 8 x 8 numbers; row 1 has one"),
        ([{"pixels": "words"}], "takes lists of 8 x 8 numbers; row 1 has none"),
        ([{"pixels": [[1], [2, 3]]}], "takes lists of 8 x 8 numbers; row 1 has none"),
    ):
        with pytest.raises(RejectedError, match=says):
            loaded.predict(rows)
    assert len(loaded.predict([{"pixels": None}, {"pixels": image}]).labels) == 2
