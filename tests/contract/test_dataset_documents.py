"""What people write into the collection `datasets`, and how they call collections, on a real MongoDB."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from bson import Binary, Code, DBRef, Decimal128, Int64, MinKey, ObjectId, Regex, Timestamp
from bson.datetime_ms import DatetimeMS
from gridfs import GridFSBucket
from pymongo.database import Database

from pipeline.datasets import DatasetSource
from pipeline.datasets.directory import DirectorySource
from pipeline.datasets.documents import checked
from pipeline.datasets.mongodb import MongoSource
from pipeline.errors import RejectedError

Mongo = Database[dict[str, Any]]
CSV = b"x,y\n1,2\n3,4\n"
ODD: list[Any] = [
    7, 7.5, True, "", "word", [], ["y"], {}, {"$gt": ""}, {"$where": "1"}, b"", Binary(b"1", 5), Regex(""), Code("1"),
    DBRef("x", 1), MinKey(), Int64(7), Decimal128("7"), Timestamp(1, 1), ObjectId(), datetime(2020, 1, 1, tzinfo=UTC),
    DatetimeMS(2**62), None,
]  # fmt: skip
FIELDS = (
    "file_id",
    "s3_url",
    "target_column",
    "version",
    "versions",
    "profile",
    "fingerprint",
    "imported_at",
    "user",
    "file",
)


@pytest.fixture
def file_id(mongo_database: Mongo) -> Any:
    return GridFSBucket(mongo_database).upload_from_stream("people.csv", CSV)


def _calls(source: DatasetSource, name: str = "people") -> list[Any]:
    return [lambda: source.revision(name), lambda: source.load(name), lambda: source.versions(name)]


def _said_by(call: Callable[[], object]) -> str:
    """What it is rejected with; empty if it is not."""
    try:
        call()
    except RejectedError as error:
        return str(error)
    return ""


def _without_hosts(message: str) -> bool:
    return not re.search(r"MongoClient|Database\(|Collection\(|localhost|127\.0\.0\.1|:\d{4,5}|Error\b", message)


@pytest.mark.services
@pytest.mark.parametrize("field", FIELDS)
def test_a_field_of_any_type_is_read_or_rejected_by_its_name(mongo_database: Mongo, file_id: Any, field: str) -> None:
    source = MongoSource(mongo_database)
    for value in ODD:
        mongo_database["datasets"].replace_one(
            {"name": "people"}, {"name": "people", "file_id": file_id, field: value}, upsert=True
        )
        for call in (*_calls(source), lambda: source.prune("people", 1), lambda: source.restore("people", 1)):
            said = _said_by(call)
            assert not said or re.search(rf"dataset 'people'.*({field}|no column|no version|GridFS|no versions)", said)
            assert _without_hosts(said)
        assert [one.name for one in source.list()] == ["people"]


@pytest.mark.parametrize(
    ("document", "says"),
    [
        ({"name": ["people"]}, r"name takes text, not \['people'\]"),
        ({"name": "people", "target_column": 7}, "target_column takes the name of a column, .*, not 7"),
        ({"name": "people", "target_column": "y" * 1_001}, "target_column takes the name of a column"),
        ({"name": "people", "file_id": ["x"]}, r"file_id takes the _id of a file in GridFS .*, not \['x'\]"),
        ({"name": "people", "file_id": {"$gt": ""}}, "file_id takes the _id"),
        ({"name": "people", "versions": "v1"}, "versions takes a list, not 'v1'"),
        ({"name": "people", "versions": [1]}, r"versions\[0\] takes an object with version and file_id, not 1"),
        ({"name": "people", "versions": [{"version": 1}]}, r"versions\[0\] lacks file_id"),
        ({"name": "people", "versions": [{}]}, r"versions\[0\] lacks version and file_id"),
        ({"name": "people", "versions": [{"version": "1", "file_id": 1}]}, r"versions\[0\].version takes the number"),
        (
            {"name": "people", "versions": [{"version": 1, "file_id": 1}, {"version": 1, "file_id": 2}]},
            r"versions\[1\].version repeats 1",
        ),
        ({"name": "people", "profile": "wide"}, "profile takes what tensorfleet writes there"),
        ({"name": "people", "profile": {"rows": 1}}, "profile takes what tensorfleet writes there"),
    ],
)
def test_a_document_is_rejected_with_its_field_and_what_that_takes(document: dict[str, Any], says: str) -> None:
    with pytest.raises(RejectedError, match=rf"^dataset .*people.*: in its document in the collection datasets {says}"):
        checked(document)


def test_an_empty_target_is_none_and_what_is_right_stays_as_it_is() -> None:
    profile = {"rows": 1, "columns": 2, "target": "y", "classes": None}
    entry = {"version": 1, "file_id": ObjectId(), "profile": profile, "user": None}
    document = {"name": "people", **entry, "versions": [entry], "format": "csv", "imported_at": datetime.now(UTC)}
    assert checked({**document, "target_column": ""}) == {**document, "target_column": None}


@pytest.mark.services
@pytest.mark.parametrize("file_id", [ObjectId(), "none", 7, Int64(7), Binary(b"0" * 16, 4)])
def test_a_file_that_is_not_there_is_told_by_its_id_without_the_client(mongo_database: Mongo, file_id: Any) -> None:
    mongo_database["datasets"].insert_one({"name": "people", "file_id": file_id})
    with pytest.raises(
        RejectedError, match=r"^dataset 'people': its file in GridFS cannot be read: there is none"
    ) as e:
        MongoSource(mongo_database).load("people")
    assert _without_hosts(str(e.value))
    assert str(file_id)[:10].strip("b'") in str(e.value)


@pytest.mark.services
@pytest.mark.parametrize("change", [{"$set": {"data": b"x"}}, {"$set": {"n": 7}}, None])
def test_a_file_with_a_chunk_missing_or_cut_is_told_without_the_client(
    mongo_database: Mongo, file_id: Any, change: Any
) -> None:
    mongo_database["datasets"].insert_one({"name": "people", "file_id": file_id})
    chunks = mongo_database["fs.chunks"]
    if change is None:
        chunks.delete_many({"files_id": file_id})
    else:
        chunks.update_one({"files_id": file_id}, change)
    with pytest.raises(RejectedError, match=r"^dataset 'people': its file in GridFS cannot be read: parts") as e:
        MongoSource(mongo_database).load("people")
    assert _without_hosts(str(e.value))


NAMES = [
    ".", "..", "...", "a..b", ".a", "a.", ".a.", "-", "--", "_", "a.b", "a.b.c", "system", "system.x", "system.views",
    "system.buckets.x", "system.", "a.system.b", "fs", "fs.files", "x.chunks", "admin", "local", "oplog.rs",
    "datasets", "workers", ".lock", "versions", "people.v0", "people.v1", "people.v999999999", ".v1", "..v1",
    ".parquet", "a.parquet", ".json", "x" * 128, "." * 128, "x." * 64, "0", "NUL", "con", "nan",
]  # fmt: skip


@pytest.fixture(params=["directory", pytest.param("mongodb", marks=pytest.mark.services)])
def source(request: pytest.FixtureRequest, tmp_path: Path) -> DatasetSource:
    if request.param == "directory":
        source: DatasetSource = DirectorySource(tmp_path / "datasets")
    else:
        source = MongoSource(request.getfixturevalue("mongo_database"))
    source.add("people", pa.table({"x": [1], "y": [2]}), None)
    source.add("people", pa.table({"x": [3], "y": [4]}), None)
    return source


@pytest.mark.parametrize("name", NAMES)
def test_an_odd_name_that_is_no_dataset_is_rejected_as_one(source: DatasetSource, name: str) -> None:
    for call in _calls(source, name):
        if name == "people.v1":
            call()
            continue
        with pytest.raises(RejectedError, match=r"^there is no dataset") as error:
            call()
        assert _without_hosts(str(error.value))
    assert [one.name for one in source.list()] == ["people"]


@pytest.mark.parametrize("name", [name for name in NAMES if not re.search(r"\.v[1-9]", name)])
def test_an_odd_name_can_be_that_of_an_import(source: DatasetSource, name: str) -> None:
    source.add(name, pa.table({"z": [5]}), None)
    assert source.load(name).table.to_pydict() == {"z": [5]}
    assert [one.number for one in source.versions(name)] == [1]
    assert sorted(one.name for one in source.list()) == sorted(["people", name])
    assert source.load("people").table.to_pydict() == {"x": [3], "y": [4]}


@pytest.mark.services
def test_a_document_without_a_file_or_a_collection_says_so(mongo_database: Mongo) -> None:
    mongo_database["datasets"].insert_one({"name": "people"})
    source = MongoSource(mongo_database)
    for call in (source.load, source.revision):
        with pytest.raises(RejectedError, match=r"^dataset 'people': its document has no file_id, and there is no"):
            call("people")


@pytest.mark.services
def test_a_name_in_a_list_of_names_hides_no_list_and_no_other_name(mongo_database: Mongo) -> None:
    mongo_database["datasets"].insert_many([{"name": ["people", 7]}, {"name": 7}, {}, {"name": None}])
    source = MongoSource(mongo_database)
    assert list(source.list()) == []
    with pytest.raises(RejectedError, match="name takes text"):
        source.load("people")
    with pytest.raises(RejectedError, match="there is no dataset 'cities'"):
        source.load("cities")


@pytest.mark.services
def test_a_view_that_fails_is_rejected_and_stops_no_list(mongo_database: Mongo) -> None:
    mongo_database["rows"].insert_one({"x": 1})
    mongo_database.command("create", "broken", viewOn="rows", pipeline=[{"$project": {"y": {"$divide": ["$x", 0]}}}])
    source = MongoSource(mongo_database)
    with pytest.raises(RejectedError, match=r"^dataset 'broken': MongoDB cannot read it: .*divide by zero") as error:
        source.load("broken")
    assert _without_hosts(str(error.value))
    assert [one.name for one in source.list()] == ["broken", "rows"]


@pytest.mark.services
def test_a_date_beyond_the_calendar_is_rejected_by_its_column_and_stops_no_list(mongo_database: Mongo) -> None:
    mongo_database["far"].insert_one({"x": DatetimeMS(2**62), "y": 1})
    source = MongoSource(mongo_database)
    with pytest.raises(RejectedError, match=r"^dataset 'far': column 'x' holds a date before the year 1 or after 9999"):
        source.load("far")
    assert [one.name for one in source.list()] == ["far"]
