"""Frames that the client stores, as a trainer reads them again."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from pydantic import SecretStr
from pymongo.database import Database

from consumer import embedded
from consumer.client import Client
from consumer.settings import Settings, SettingsError
from consumer.stores import open_cache, open_stores
from examples.import_frame import orders
from pipeline.datasets import reading
from pipeline.errors import RejectedError
from pipeline.features.columns import Reading, Role, describe
from pipeline.features.columns import read as values_of
from pipeline.features.frames import read_frame

NOBODY = "127.0.0.1:1"


@pytest.fixture(params=["directory", pytest.param("mongodb", marks=pytest.mark.services)])
def settings(request: pytest.FixtureRequest, tmp_path: Path) -> Settings:
    named: dict[str, Any] = {"kafka_bootstrap_servers": NOBODY, "dataset_cache_dir": tmp_path / "cache"}
    if request.param == "directory":
        embedded.announce(tmp_path / "data", embedded.Dev(NOBODY, os.getpid()))
        return Settings(data_dir=tmp_path / "data", **named)
    database: Database[dict[str, object]] = request.getfixturevalue("mongo_database")
    host, port = database.client.address or ("", 0)
    url = SecretStr(f"mongodb://{host}:{port}/?directConnection=true")
    return Settings(mongodb_url=url, mongodb_db=database.name, **named)


@pytest.fixture
def fleet(settings: Settings) -> Iterator[Client]:
    with Client(settings, timeout_s=0.1) as client:
        yield client


def _read(settings: Settings, name: str) -> tuple[pd.DataFrame, str | None]:
    dataset = open_cache(settings, open_stores(settings).datasets, reading.read).ensure(name)
    return read_frame(dataset), dataset.target_column


def test_a_frame_is_read_again_with_its_types_and_gaps(fleet: Client, settings: Settings) -> None:
    frame = pd.DataFrame(
        {
            "category": pd.Categorical(["b", None, "a"], categories=["c", "b", "a"], ordered=True),
            "number_category": pd.Categorical([3, 1, 3]),
            "gap": pd.array([2**60 + 1, None, -1], dtype="Int64"),
            "whole": [1, 2, 3],
            "real": [0.5, float("nan"), 1.0],
            "when": pd.to_datetime(pd.Index(["2026-01-31", None, "2026-02-01"])),
            "zoned": pd.to_datetime(["2026-01-31T10:00+02:00"] * 3),
            "truth": [True, False, True],
            "maybe": pd.array([True, None, False], dtype="boolean"),
            "text": ["x", None, "y"],
        },
        index=["r1", "r2", "r3"],
    )
    stored = fleet.import_dataset("things", frame, "text")
    found, target = _read(settings, "things")
    assert (stored.number, stored.rows, stored.columns, target) == (1, 3, 10, "text")
    assert list(found.columns) == list(frame.columns)
    assert {name: str(found[name].dtype) for name in found if name not in ("category", "number_category", "text")} == {
        "gap": "Int64",
        "whole": "int64",
        "real": "float64",
        "when": "datetime64[us]",
        "zoned": "datetime64[us]",
        "truth": "bool",
        "maybe": "boolean",
    }
    for name in ("category", "text"):
        assert found[name].dropna().tolist() == frame[name].dropna().tolist()
        assert found[name].isna().tolist() == [False, True, False]
    assert found["number_category"].tolist() == ["3", "1", "3"]
    assert found["gap"].tolist() == [2**60 + 1, pd.NA, -1]
    assert found["maybe"].tolist() == [True, pd.NA, False]
    assert found["when"].isna().tolist() == [False, True, False]
    assert found["zoned"].tolist() == [pd.Timestamp("2026-01-31T08:00")] * 3


def test_the_example_frame_is_stored_with_the_roles_that_its_columns_play(fleet: Client, settings: Settings) -> None:
    first = fleet.import_dataset("orders", orders(50), "returned", user="ada")
    assert fleet.import_dataset("orders", orders(60), "returned").number == 2
    assert fleet.import_dataset("orders", orders(50), "returned") == first
    found, _ = _read(settings, "orders.v1")
    roles = {name: describe(found[name], name).role for name in map(str, found)}
    assert roles == {
        "size": Role.CATEGORICAL,
        "items": Role.NUMERIC,
        "gift": Role.BOOLEAN,
        "ordered": Role.DATE,
        "returned": Role.CATEGORICAL,
    }
    assert first.origin.user == "ada"


@pytest.mark.parametrize(
    ("frame", "says"),
    [
        (pd.Series([1, 2], name="x"), "dataset 'bad': a dataset is made of a DataFrame, not of a Series"),
        (pd.DataFrame({"x": [1j, 2j]}), "dataset 'bad': column 'x' holds"),
        (pd.DataFrame([[1, 2]], columns=["x", "x"]), "dataset 'bad': column 'x' comes 2 times"),
        (pd.DataFrame({"x": [{"a": 1}]}), "dataset 'bad': column 'x' holds values of type struct"),
        (pd.DataFrame({"x": []}), "dataset 'bad': it has no rows"),
        (pd.DataFrame({"x": [1]}, index=pd.Index([2], name="x")), "the index and a column are both named 'x'; rename"),
    ],
)
def test_a_frame_that_is_no_table_is_rejected_by_its_column(fleet: Client, frame: pd.DataFrame, says: str) -> None:
    with pytest.raises(RejectedError, match=says):
        fleet.import_dataset("bad", frame)


def test_what_frames_hold_beside_plain_values_is_stored_as_people_mean_it(fleet: Client, settings: Settings) -> None:
    numbers = pd.Series(range(6), dtype=float)
    frame = pd.DataFrame(
        {
            "interval": pd.cut(numbers, 3),
            "mixed": pd.Series([1, "2.5", None, 4.0, "x" * 3, True], dtype=object),
            "texts": pd.Series([1, "2.5", None, 4, "?", 6], dtype=object),
            "month": pd.period_range("2026-01", periods=6, freq="M"),
            "code": pd.Categorical([10, 20, None, 10, 20, 10]),
            "day": ["1.2.2026", "13.2.2026"] * 3,
        }
    )
    frame.index = pd.Index([f"c{n}" for n in range(6)], name="customer")
    fleet.import_dataset("odd", frame, "code")
    found, _ = _read(settings, "odd")
    assert list(found.columns) == ["customer", *frame.columns]
    assert found["interval"][0] == "(-0.005, 1.667]"
    assert found["mixed"].dropna().tolist() == ["1", "2.5", "4", "xxx", "true"]
    assert found["texts"].dropna().tolist() == [1, 2.5, 4, 6]
    assert found["month"].dt.month.tolist() == [1, 2, 3, 4, 5, 6]
    assert found["code"].dropna().tolist() == ["10", "20", "10", "20", "10"]
    assert found["day"].dt.day.tolist() == [1, 13] * 3
    read = Reading.of(found)
    assert read.told == {"interval": "category", "code": "category"}
    column = describe(found["code"], "code", told="category")
    assert values_of(pd.Series([10.0, None, 20.0]), column).tolist()[::2] == ["10", "20"], "as training had them"


def test_a_file_is_imported_with_what_is_told_which_the_next_import_remembers(
    fleet: Client, settings: Settings, tmp_path: Path
) -> None:
    file = tmp_path / "sales.csv"
    file.write_bytes("größe;shop;when\n1.500;7;01/02/2026\n2.500;8;02/02/2026\n-;9;03/02/2026\n".encode("cp1250"))
    types = {"shop": "category", "when": "date:d/m/y"}
    first = fleet.import_dataset("sales", file, "größe", encoding="cp1250", decimal=",", types=types)
    assert "column 'when': is read as dates d/m/y" in first.notes
    assert first.options.to_document() == {"encoding": "cp1250", "decimal": ",", "types": types}
    found, _ = _read(settings, "sales")
    assert found["größe"].tolist() == [1500, 2500, pd.NA]
    assert (found["shop"].tolist(), found["when"].dt.month.tolist()) == (["7", "8", "9"], [2, 2, 2])
    file.write_bytes(file.read_bytes() + b"3.500;0x;04/02/2026\n")
    again = fleet.import_dataset("sales", file, missing=["0x"], types={"shop": "id"})
    assert (again.number, again.options.types) == (2, {"shop": "id", "when": "date:d/m/y"})
    found, _ = _read(settings, "sales")
    assert found["shop"].tolist()[:3] == ["7", "8", "9"]
    assert found["shop"].isna().tolist() == [False, False, False, True]
    assert found["größe"].tolist()[3] == 3500
    assert fleet.import_dataset("sales", file, forget=True, encoding="cp1250").options.types == {}


def test_without_stores_it_says_which_setting_names_them(tmp_path: Path) -> None:
    settings = Settings(kafka_bootstrap_servers=NOBODY, data_dir=tmp_path / "nothing")
    with Client(settings) as fleet, pytest.raises(SettingsError, match="MONGODB_URL is not set"):
        fleet.import_dataset("x", pd.DataFrame({"x": [1]}))
