"""The built-in datasets, under the names people know."""

from __future__ import annotations

import hashlib

import pandas as pd
import pytest

from pipeline.datasets.builtin import BUILTINS, Builtin, BuiltinSource, load_frame
from pipeline.errors import RejectedError
from pipeline.features.frames import frame_of


def test_iris_has_the_names_people_know() -> None:
    iris = load_frame("iris")
    assert list(iris.columns) == ["sepal length", "sepal width", "petal length", "petal width", "species"]
    assert list(iris["species"].unique()) == ["setosa", "versicolor", "virginica"]
    assert iris.shape == (150, 5)


def test_breast_cancer_tells_malignant_from_benign_as_scikit_learn_does() -> None:
    cancer = load_frame("breast_cancer")
    assert cancer["diagnosis"].value_counts().to_dict() == {"benign": 357, "malignant": 212}


def test_digits_have_pixels_and_an_integer() -> None:
    digits = load_frame("digits")
    assert digits.columns[0] == "pixel_0_0"
    assert list(digits.columns[-2:]) == ["pixel_7_7", "digit"]
    assert digits["digit"].dtype == "int64"


def test_diabetes_has_a_number_to_predict() -> None:
    assert load_frame("diabetes")["progression"].dtype == "float64"


@pytest.mark.parametrize("name", BUILTINS)
def test_what_is_known_without_loading_is_what_scikit_learn_ships(name: str) -> None:
    frame = load_frame(name)
    target = frame.iloc[:, -1]
    classes = None if target.dtype == "float64" else tuple(map(str, sorted(target.unique())))
    assert BUILTINS[name] == Builtin(str(target.name), *frame.shape, classes, fingerprint(frame))


def fingerprint(frame: pd.DataFrame) -> str:
    """Hexadecimal sha256 of names, types and values."""
    digest = hashlib.sha256()
    for column, values in frame.items():
        kind = values.dtype.kind
        digest.update(f"{column}\0{kind}\0".encode())
        digest.update("\0".join(values).encode() if kind == "O" else values.to_numpy().tobytes())
    return digest.hexdigest()


@pytest.mark.parametrize("name", BUILTINS)
def test_a_source_loads_the_frame_that_a_trainer_loads(name: str) -> None:
    loaded = BuiltinSource().load(name)
    assert frame_of(loaded.table).equals(load_frame(name))
    assert (loaded.target_column, loaded.revision) == (BUILTINS[name].target, BuiltinSource().revision(name))


def test_the_list_has_the_fields_of_the_replaced_worker() -> None:
    by_name = {summary.name: summary for summary in BuiltinSource().list()}
    assert list(by_name) == sorted(BUILTINS)
    iris = by_name["iris"]
    assert (iris.rows, iris.columns, iris.target, iris.source) == (150, 5, "species", "built-in")
    assert iris.classes == ("setosa", "versicolor", "virginica")
    assert by_name["diabetes"].classes is None


def test_the_names_are_reserved_and_others_unknown() -> None:
    source = BuiltinSource()
    with pytest.raises(RejectedError, match="cannot be changed"):
        source.add("iris", source.load("iris").table, None)
    with pytest.raises(RejectedError, match="no built-in dataset 'titanic'; there are breast_cancer"):
        source.revision("titanic")
