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
from pipeline.errors import RejectedError
from pipeline.features.columns import Role, describe
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
    dataset = open_cache(settings, open_stores(settings).datasets).ensure(name)
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
    assert {name: str(found[name].dtype) for name in found if name not in ("category", "text")} == {
        "number_category": "int64",
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
    assert found["number_category"].tolist() == [3, 1, 3]
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
        (pd.DataFrame({"x": [1, "a"]}), "dataset 'bad': the frame cannot be read .* column x"),
        (pd.DataFrame([[1, 2]], columns=["x", "x"]), "dataset 'bad': .*[Dd]uplicate column names"),
        (pd.DataFrame({"x": [{"a": 1}]}), "dataset 'bad': column 'x' holds values of type struct"),
        (pd.DataFrame({"x": []}), "dataset 'bad': it has no rows"),
    ],
)
def test_a_frame_that_is_no_table_is_rejected_by_its_column(fleet: Client, frame: pd.DataFrame, says: str) -> None:
    with pytest.raises(RejectedError, match=says):
        fleet.import_dataset("bad", frame)


def test_without_stores_it_says_which_setting_names_them(tmp_path: Path) -> None:
    settings = Settings(kafka_bootstrap_servers=NOBODY, data_dir=tmp_path / "nothing")
    with Client(settings) as fleet, pytest.raises(SettingsError, match="MONGODB_URL is not set"):
        fleet.import_dataset("x", pd.DataFrame({"x": [1]}))
