"""One contract for every source of datasets: a directory and MongoDB; then what is each one's own."""

from __future__ import annotations

import io
import subprocess
import sys
import threading
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Protocol
from uuid import UUID

import bson
import orjson
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from bson import Binary, Decimal128, ObjectId
from gridfs import GridFSBucket
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pymongo.database import Database
from pymongo.errors import NetworkTimeout, PyMongoError

from pipeline.databases.mongodb import connect
from pipeline.datasets import DatasetStore, DatasetSummary, Origin
from pipeline.datasets.directory import DirectorySource
from pipeline.datasets.mongodb import MongoSource
from pipeline.datasets.sink import Sink
from pipeline.datasets.versions import told_before
from pipeline.errors import RejectedError, TransientError
from pipeline.reading import rows
from pipeline.reading.options import ReadOptions
from pipeline.reading.tables import canonical, fingerprint
from pipeline.reading.typed import notes_of
from tests.rows import table_from
from tests.services.mongodb import MongoDB

CSV = b"height,colour,tall\n1.5,red,no\n2.5,,yes\n,blue,no\n"
ROWS: dict[str, list[Any]] = {"height": [1.5, 2.5, None], "colour": ["red", None, "blue"], "tall": ["no", "yes", "no"]}
Mongo = Database[dict[str, Any]]


class Seeded(Protocol):
    """A source, and how people put files into it without us."""

    source: DatasetStore

    def put(self, name: str, content: bytes, file_name: str, target_column: str | None = None) -> None: ...


class SeededDirectory:
    def __init__(self, root: Path) -> None:
        self.root = root
        self.source: DatasetStore = DirectorySource(root)

    def put(self, name: str, content: bytes, file_name: str, target_column: str | None = None) -> None:
        self.root.mkdir(exist_ok=True)
        (self.root / f"{name}{Path(file_name).suffix}").write_bytes(content)
        if target_column is not None:
            (self.root / f"{name}.json").write_bytes(orjson.dumps({"target_column": target_column}))


class SeededMongo:
    def __init__(self, database: Mongo) -> None:
        self.database = database
        self.source: DatasetStore = MongoSource(database)

    def put(self, name: str, content: bytes, file_name: str, target_column: str | None = None) -> None:
        file_id = GridFSBucket(self.database).upload_from_stream(file_name, content)
        document = {"name": name, "file_id": file_id}
        if target_column is not None:
            document["target_column"] = target_column
        self.database["datasets"].replace_one({"name": name}, document, upsert=True)


@pytest.fixture(params=["directory", pytest.param("mongodb", marks=pytest.mark.services)])
def seeded(request: pytest.FixtureRequest, tmp_path: Path) -> Seeded:
    if request.param == "directory":
        return SeededDirectory(tmp_path / "datasets")
    return SeededMongo(request.getfixturevalue("mongo_database"))


@pytest.fixture
def source(seeded: Seeded) -> DatasetStore:
    return seeded.source


def _parquet(table: pa.Table | pd.DataFrame) -> bytes:
    file = io.BytesIO()
    (table.to_pandas() if isinstance(table, pa.Table) else table).to_parquet(file)
    return file.getvalue()


def _listed(source: DatasetStore) -> dict[str, DatasetSummary]:
    return {summary.name: summary for summary in source.list()}


def test_what_was_added_is_loaded(source: DatasetStore) -> None:
    source.add("people", pa.table(ROWS), "tall")
    loaded = source.load("people")
    assert loaded.table.to_pydict() == ROWS
    assert loaded.target_column == "tall"
    assert loaded.revision == source.revision("people")


def test_a_dataset_without_a_target_of_its_own_says_so(source: DatasetStore) -> None:
    source.add("people", pa.table(ROWS), None)
    assert source.load("people").target_column is None
    assert _listed(source)["people"].target == "tall"


def test_a_csv_file_is_read_with_its_types_and_missing_values(seeded: Seeded) -> None:
    seeded.put("people", CSV, "people.csv", "tall")
    loaded = seeded.source.load("people")
    assert loaded.table.to_pydict() == ROWS
    assert (loaded.target_column, loaded.revision) == ("tall", seeded.source.revision("people"))


def test_a_parquet_file_is_read(seeded: Seeded) -> None:
    seeded.put("people", _parquet(pd.DataFrame(ROWS, index=[7, 8, 9])), "people.parquet")
    assert seeded.source.load("people").table.to_pydict() == ROWS


def test_lines_of_json_are_read(seeded: Seeded) -> None:
    lines = b'{"height": 1.5, "colour": "red", "tall": "no"}\n{"height": 2.5, "tall": "yes"}\n\n'
    seeded.put("people", lines + b'{"colour": "blue", "tall": "no"}', "people.jsonl")
    assert seeded.source.load("people").table.to_pydict() == ROWS


def test_equal_content_has_an_equal_fingerprint_whatever_it_was_read_from(seeded: Seeded) -> None:
    frame = pd.DataFrame(ROWS)
    seeded.put("csv", CSV, "x.csv")
    seeded.put("parquet", _parquet(frame), "x.parquet")
    seeded.put("json", frame.to_json(orient="records", lines=True).encode(), "x.jsonl")
    seeded.source.add("added", pa.table(ROWS), None)
    names = ("csv", "parquet", "json", "added")
    assert len({fingerprint(seeded.source.load(name).table) for name in names}) == 1


def test_a_replaced_dataset_has_another_revision_and_the_new_rows(source: DatasetStore) -> None:
    source.add("people", pa.table(ROWS), "tall")
    before = source.revision("people")
    assert source.revision("people") == before
    source.add("people", pa.table({"x": [1], "y": [2]}), None)
    assert source.revision("people") != before
    loaded = source.load("people")
    assert (loaded.table.to_pydict(), loaded.target_column) == ({"x": [1], "y": [2]}, None)
    assert [summary.name for summary in source.list()] == ["people"]


def test_an_added_dataset_replaces_a_file_that_somebody_put_there(seeded: Seeded) -> None:
    seeded.put("people", CSV, "people.csv", "tall")
    seeded.source.add("people", pa.table({"x": [1], "y": [2]}), None)
    loaded = seeded.source.load("people")
    assert (loaded.table.to_pydict(), loaded.target_column) == ({"x": [1], "y": [2]}, None)


def test_a_file_that_somebody_changed_has_another_revision(seeded: Seeded) -> None:
    seeded.put("people", CSV, "people.csv")
    first = seeded.source.revision("people")
    seeded.put("people", CSV + b"3,red,yes\n", "people.csv")
    second = seeded.source.revision("people")
    seeded.put("people", CSV + b"3,red,yes\n", "people.csv", "colour")
    third = seeded.source.revision("people")
    assert len({first, second, third}) == 3


def test_the_list_shows_rows_columns_target_and_classes(seeded: Seeded) -> None:
    seeded.source.add("added", pa.table(ROWS), "tall")
    seeded.source.add("heights", pa.table(ROWS), "height")
    seeded.put("seeded", CSV, "seeded.csv")
    assert list(_listed(seeded.source)) == ["added", "heights", "seeded"]
    added, heights, made = seeded.source.list()
    assert (added.rows, added.columns, added.target, added.classes) == (3, 3, "tall", ["no", "yes"])
    assert (heights.target, heights.classes) == ("height", None)
    assert (made.rows, made.columns, made.target, made.classes) == (3, 3, "tall", ["no", "yes"])


def test_a_file_that_cannot_be_read_is_listed_with_what_is_known(seeded: Seeded) -> None:
    seeded.put("broken", b"PAR1 and nothing", "broken.parquet", "y")
    listed = _listed(seeded.source)["broken"]
    assert (listed.rows, listed.columns, listed.classes) == (None, None, None)


def test_a_source_without_datasets_lists_none(source: DatasetStore) -> None:
    assert list(source.list()) == []


def test_an_unknown_name_is_rejected_with_the_names_that_are_near(source: DatasetStore) -> None:
    source.add("customers", pa.table(ROWS), None)
    for call in (source.revision, source.load):
        with pytest.raises(RejectedError, match="there is no dataset 'custmers'; did you mean customers"):
            call("custmers")
        with pytest.raises(RejectedError, match="did you mean iris"):
            call("Iris")
        with pytest.raises(RejectedError, match=r"there are breast_cancer, customers, diabetes"):
            call("zzzz")


@pytest.mark.parametrize("name", ["../people", "a/b", "", "a\0", "a b", "$where", "x" * 129])
def test_a_name_that_is_none_is_rejected(source: DatasetStore, name: str) -> None:
    for call in (source.revision, source.load, lambda name: source.add(name, pa.table(ROWS), None)):
        with pytest.raises(RejectedError, match="a name has 1 to 128"):
            call(name)


@pytest.mark.parametrize("name", [".", "..", ".hidden", "a.csv", "a.json", "-", "datasets"])
def test_a_strange_but_good_name_is_a_name(source: DatasetStore, name: str, tmp_path: Path) -> None:
    source.add(name, pa.table(ROWS), "tall")
    assert source.load(name).table.to_pydict() == ROWS
    assert [summary.name for summary in source.list()] == [name]
    assert not [path for path in tmp_path.iterdir() if path.is_file()]


def test_a_built_in_is_not_replaced(source: DatasetStore) -> None:
    with pytest.raises(RejectedError, match="'iris' is built in"):
        source.add("iris", pa.table(ROWS), None)


def test_an_added_target_must_be_a_column(source: DatasetStore) -> None:
    with pytest.raises(RejectedError, match=r"'people': it has no column 'size'\. Its columns are height, colour"):
        source.add("people", pa.table(ROWS), "size")


def test_a_tensor_column_is_kept(source: DatasetStore) -> None:
    images = pa.FixedSizeListArray.from_arrays(pa.array([float(n) for n in range(8)]), 4)
    source.add("images", pa.table({"pixels": images, "digit": [1, 2]}), "digit")
    kind = source.load("images").table.schema.field("pixels").type
    assert (kind.list_size, kind.value_type) == (4, pa.float64())


LINES = [b'{"x": [[1, 2], [3, 4]], "y": 1}', b'{"x": null, "y": 2}']


def test_equal_lists_in_lines_of_json_are_a_tensor_as_in_parquet(seeded: Seeded) -> None:
    seeded.put("lines", b"\n".join(LINES), "x.jsonl")
    images = [[[1, 2], [3, 4]], None]
    seeded.put("parquet", _parquet(pd.DataFrame({"x": images, "y": [1, 2]})), "x.parquet")
    seeded.source.add("added", pa.table({"x": images, "y": [1, 2]}), None)
    found = {name: seeded.source.load(name).table for name in ("lines", "parquet", "added")}
    assert len({fingerprint(table) for table in found.values()}) == 1
    assert found["lines"].column("x").to_pylist() == images
    assert {one.target for one in seeded.source.list()} == {"y"}


def test_the_target_is_the_last_column_that_is_no_tensor(source: DatasetStore) -> None:
    source.add("images", pa.table({"digit": [0, 1], "pixels": [[1, 2], [3, 4]]}), None)
    assert (_listed(source)["images"].target, _listed(source)["images"].classes) == ("digit", ["0", "1"])


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        ([b'{"x": [1]}', b'{"x": [1, 2, 3]}'], "column 'x' holds lists of 1 to 3 values; a tensor column takes lists"),
        ([b'{"x": [[1], [2]]}', b'{"x": [[1], [2, 3]]}'], "column 'x' holds lists of 1 to 2 values"),
        ([b'{"x": [[1], null]}'], "column 'x' holds lists in which 1 inner lists are missing"),
        ([b'{"x": [1, "a"]}'], "column 'x' holds lists that are not all of numbers"),
        ([b'{"x": ["a", "b"]}'], "column 'x' holds values of type list"),
        ([b'{"x": [1]}', b'{"x": 1}'], "column 'x' holds values of type list"),
        ([b'{"x": [1]}', b'{"x": [[1]]}'], "column 'x' holds lists"),
        (
            [b'{"x": []}'],
            "column 'x' holds lists of 0 numbers, each of which becomes a column; a list may have 1 to 16,384",
        ),
        (
            [b'{"x": [1, 2], "x_1": 3}'],
            "column 'x' holds lists, whose numbers become columns; one would be named 'x_1'",
        ),
        ([b'{"x": %s}' % str([0] * 16_385).encode()], "column 'x' holds lists of 16,385 numbers"),
    ],
)
@pytest.mark.parametrize("batch_rows", [1, 5_000])
def test_lists_that_are_no_tensor_are_rejected_with_the_figures(
    seeded: Seeded, lines: list[bytes], says: str, batch_rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rows, "BATCH_ROWS", batch_rows)
    seeded.put("bad", b"\n".join(lines), "bad.jsonl")
    with pytest.raises(RejectedError, match=says if batch_rows > 1 else "column 'x' holds"):
        seeded.source.load("bad")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "dataset 'people': the file is empty"),
        (b" \n \n", "the file is empty"),
        (b"a,b\n", "it has no rows"),
        (b"a,b\n1,2\n3\n4,5,6\n", "line 3 of the CSV file has 1 values where the header has 2: '3'"),
        (b'a,b\n1,"two\nlines"\n4,5,6\n', "row 3 of the CSV file has 3 values where the header has 2: '4,5,6'"),
        (b"a,b,a\n1,2,3\n", "column 'a' comes 2 times"),
        ("a,b\nä,2\nö,3\n".encode() + b"3,\xff\n", "line 4 is not UTF-8 .byte 0xff., as the rest of the file is"),
        (b"\xe4,b\n1,\0\n", "the file is no text"),
        (b"PK\x03\x04...", "the compressed file cannot be unpacked: File is not a zip file"),
        (b"\x1f\x8b...", "the compressed file cannot be unpacked"),
    ],
)
def test_a_file_that_is_no_table_is_rejected_with_the_place(seeded: Seeded, content: bytes, says: str) -> None:
    seeded.put("people", content, "people.csv")
    assert seeded.source.revision("people") is not None
    with pytest.raises(RejectedError, match=says):
        seeded.source.load("people")


@pytest.mark.parametrize(
    ("table", "says"),
    [
        (pa.table({"a": [{"b": 1}]}), "column 'a' holds values of type struct<b: int64>"),
        (pa.table({"a": [[1], [1, 2]]}), "column 'a' holds lists of 1 to 2 values"),
        (pa.table({"a": [["x"], ["y"]]}), "column 'a' holds values of type"),
        (pa.table({"a": [b"\xff"]}), "column 'a' of type binary cannot be read"),
        (pa.table({"a": pa.array([], pa.int64())}), "it has no rows"),
        (pa.table([pa.array([1]), pa.array([2])], names=["a", "a"]), "column 'a' comes 2 times"),
    ],
)
def test_columns_that_are_no_features_are_rejected_by_name(source: DatasetStore, table: pa.Table, says: str) -> None:
    with pytest.raises(RejectedError, match=says):
        source.add("bad", table, None)
    assert list(source.list()) == []


def test_whoever_reads_while_a_dataset_is_replaced_gets_one_or_the_other(source: DatasetStore) -> None:
    versions = [pa.table({"x": [n] * 2_000, "y": range(2_000)}) for n in range(2)]
    source.add("people", versions[0], None)
    done = threading.Event()

    def replace() -> None:
        try:
            for n in range(1, 21):
                source.add("people", versions[n % 2], None)
        finally:
            done.set()

    replacing = threading.Thread(target=replace)
    replacing.start()
    while not done.is_set():
        column = source.load("people").table.column("x").to_pylist()
        assert len(column) == 2_000
        assert len(set(column)) == 1
    replacing.join()
    assert source.load("people").table.equals(canonical(versions[0]))


# Versions

OTHER: dict[str, list[Any]] = {"x": [1], "y": [2]}


def _numbers(source: DatasetStore, name: str) -> list[tuple[int, bool]]:
    return [(one.number, one.current) for one in source.versions(name)]


def test_what_is_replaced_stays_as_a_version_with_who_and_what_it_came_from(source: DatasetStore) -> None:
    before = datetime.now(UTC) - timedelta(seconds=1)
    first = source.add("people", pa.table(ROWS), "tall", Origin("ada", "people.csv"))
    second = source.add("people", pa.table(OTHER), None)
    assert (first.is_new, second.is_new) == (True, True)
    old, new = source.versions("people")
    assert (old, new) == (replace(first.version, current=False), second.version)
    assert (old.number, old.rows, old.columns, old.target_column) == (1, 3, 3, "tall")
    assert (old.origin, old.fingerprint) == (Origin("ada", "people.csv"), fingerprint(canonical(pa.table(ROWS))))
    assert (new.number, new.rows, new.current, new.origin) == (2, 1, True, Origin())
    assert old.imported_at is not None
    assert before < old.imported_at < datetime.now(UTC)
    assert _listed(source)["people"].version == 2


def test_what_an_import_was_told_about_its_file_stays_with_the_version(source: DatasetStore) -> None:
    told = ReadOptions(delimiter=";", header=False, missing=("-9",), types={"size": "number", "tall": "id"})
    assert told_before(source, "people")[0] == ReadOptions()
    added = source.add("people", pa.table(ROWS), "tall", options=told)
    assert added.version.options == told_before(source, "people")[0] == told
    source.add("people", pa.table(OTHER), None)
    assert [one.options for one in source.versions("people")] == [told, ReadOptions()]
    assert source.restore("people", 1).options == told_before(source, "people")[0] == told
    forgotten = source.add("people", pa.table(ROWS), "tall")
    assert (forgotten.is_new, forgotten.version.number, told_before(source, "people")[0]) == (True, 3, ReadOptions())
    assert source.add("people", pa.table(ROWS), "tall", options=told).version.number == 1


def test_every_version_is_a_dataset_by_its_own_name(source: DatasetStore) -> None:
    source.add("people", pa.table(ROWS), "tall")
    first = source.revision("people.v1")
    source.add("people", pa.table(OTHER), None)
    for name, content, target in (("people.v1", ROWS, "tall"), ("people.v2", OTHER, None), ("people", OTHER, None)):
        loaded = source.load(name)
        assert (loaded.table.to_pydict(), loaded.target_column) == (content, target)
        assert loaded.revision == source.revision(name)
    assert first is not None
    assert len({source.revision(name) for name in ("people.v1", "people.v2")}) == 2
    assert [one.number for one in source.versions("people.v1")] == [1]
    assert list(_listed(source)) == ["people"]


def test_equal_content_is_no_new_version(source: DatasetStore) -> None:
    source.add("people", pa.table(ROWS), "tall")
    again = source.add("people", pa.table(ROWS), "tall", Origin("bob", "copy.csv"))
    assert (again.is_new, again.version.number) == (False, 1)
    assert _numbers(source, "people") == [(1, True)]
    assert source.add("people", pa.table(ROWS), "colour").is_new, "with another target"


def test_content_that_comes_back_makes_its_version_current_again(source: DatasetStore) -> None:
    source.add("people", pa.table(ROWS), "tall")
    source.add("people", pa.table(OTHER), None)
    again = source.add("people", pa.table(ROWS), "tall")
    assert (again.is_new, again.version.number, again.version.current) == (False, 1, True)
    assert _numbers(source, "people") == [(1, True), (2, False)]
    assert source.load("people").table.to_pydict() == ROWS


def test_a_restored_version_is_current_and_the_next_one_gets_the_next_number(source: DatasetStore) -> None:
    source.add("people", pa.table(ROWS), "tall")
    source.add("people", pa.table(OTHER), None)
    before = source.revision("people")
    assert source.restore("people", 1).current
    assert source.restore("people", 1).number == 1
    assert source.revision("people") != before
    assert (source.load("people").table.to_pydict(), source.load("people").target_column) == (ROWS, "tall")
    assert source.load("people.v2").table.to_pydict() == OTHER
    assert _listed(source)["people"].target == "tall"
    source.add("people", pa.table({"z": [1]}), None)
    assert _numbers(source, "people") == [(1, False), (2, False), (3, True)]


def test_a_version_that_is_not_there_is_rejected_with_those_there_are(source: DatasetStore) -> None:
    source.add("people", pa.table(ROWS), "tall")
    with pytest.raises(RejectedError, match="dataset 'people' has no version v7; it has v1"):
        source.restore("people", 7)
    for call in (source.load, source.revision, source.versions, lambda name: source.restore(name, 1)):
        with pytest.raises(RejectedError, match="there is no dataset 'peple"):
            call("peple")
    with pytest.raises(RejectedError, match=r"there is no dataset 'people\.v2'"):
        source.load("people.v2")


def test_nothing_is_stored_under_the_name_of_a_version(source: DatasetStore) -> None:
    source.add("people", pa.table(ROWS), None)
    for call in (
        lambda: source.add("people.v1", pa.table(OTHER), None),
        lambda: source.restore("people.v1", 1),
        lambda: source.prune("people.v1", 1),
    ):
        with pytest.raises(RejectedError, match=r"'people\.v1': that is what version 1 of people is called"):
            call()


def test_a_file_of_somebody_else_becomes_a_version_when_it_is_replaced(seeded: Seeded) -> None:
    seeded.put("people", CSV, "people.csv", "tall")
    assert _numbers(seeded.source, "people") == [(1, True)]
    assert not seeded.source.add("people", pa.table(ROWS), "tall").is_new
    seeded.source.add("people", pa.table(OTHER), None)
    old, _ = seeded.source.versions("people")
    assert (old.fingerprint, old.rows, old.imported_at) == (fingerprint(canonical(pa.table(ROWS))), 3, None)
    assert seeded.source.load("people.v1").table.to_pydict() == ROWS
    assert seeded.source.load("people.v1").target_column == "tall"


def test_a_file_that_cannot_be_read_can_be_replaced(seeded: Seeded) -> None:
    seeded.put("people", b"PAR1 and nothing", "people.parquet")
    seeded.source.add("people", pa.table(ROWS), None)
    assert seeded.source.load("people").table.to_pydict() == ROWS


def test_pruning_keeps_the_newest_versions_and_the_current_one(source: DatasetStore) -> None:
    for n in range(5):
        source.add("people", pa.table({"x": [n]}), None)
    source.restore("people", 2)
    assert [one.number for one in source.prune("people", 2)] == [1, 3]
    assert _numbers(source, "people") == [(2, True), (4, False), (5, False)]
    assert source.load("people.v4").table.to_pydict() == {"x": [3]}
    assert source.load("people").table.to_pydict() == {"x": [1]}
    with pytest.raises(RejectedError):
        source.load("people.v3")
    assert list(source.prune("people", 2)) == []


def test_imports_at_the_same_time_each_get_a_number_of_their_own(source: DatasetStore) -> None:
    def add(first: int) -> None:
        for n in range(first, first + 5):
            source.add("people", pa.table({"x": [n]}), None)

    threads = [threading.Thread(target=add, args=(first,)) for first in (0, 10, 20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    versions = source.versions("people")
    assert [one.number for one in versions] == list(range(1, 16))
    contents = [source.load(f"people.v{one.number}").table.to_pydict()["x"][0] for one in versions]
    assert sorted(contents) == [*range(5), *range(10, 15), *range(20, 25)]


IMPORT = """
import sys, time
from pathlib import Path
import pyarrow as pa
from pymongo import MongoClient
from pipeline.datasets.directory import DirectorySource
from pipeline.datasets.mongodb import MongoSource

def stop(*_):
    print("there", flush=True)
    time.sleep(60)

if sys.argv[1] == "directory":
    source = DirectorySource(Path(sys.argv[2]))
    DirectorySource._put = stop
else:
    source = MongoSource(MongoClient(sys.argv[2])[sys.argv[3]])
    MongoSource._change = stop
source.add("people", pa.table({"x": [1], "y": [2]}), None)
"""


def test_an_import_that_is_killed_leaves_the_version_before_it_current(seeded: Seeded) -> None:
    source = seeded.source
    source.add("people", pa.table(ROWS), "tall")
    if isinstance(seeded, SeededMongo):
        host, port = seeded.database.client.address or ("", 0)
        where = ["mongodb", f"mongodb://{host}:{port}/?directConnection=true", seeded.database.name]
    else:
        assert isinstance(seeded, SeededDirectory)
        where = ["directory", str(seeded.root)]
    with subprocess.Popen([sys.executable, "-c", IMPORT, *where], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "there\n"
        process.kill()
    assert _numbers(source, "people") == [(1, True)]
    assert (source.load("people").table.to_pydict(), source.load("people").target_column) == (ROWS, "tall")
    assert source.add("people", pa.table(OTHER), None).is_new
    assert _numbers(source, "people") == [(1, False), (2, True)]
    assert source.load("people.v1").table.to_pydict() == ROWS


# CSV, whatever it is stored in


def _naive(*parts: int) -> datetime:
    return datetime(*parts, tzinfo=UTC).replace(tzinfo=None)  # type: ignore[misc, arg-type]


def _read(text: str) -> dict[str, list[Any]]:
    return canonical(table_from(text.encode(), "x.csv")).to_pydict()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a;b\n1;x\n", {"a": [1], "b": ["x"]}),
        ("a\tb\n1\tx\n", {"a": [1], "b": ["x"]}),
        ("a|b\r\n1|x\r\n", {"a": [1], "b": ["x"]}),
        ("\ufeffa, b \n1,x\n", {"a": [1], "b": ["x"]}),
        (",a\n0,x\n1,y\n", {"a": ["x", "y"]}),
        (",a\n5,x\n1,y\n", {"a": ["x", "y"]}),
        (",a\n5,x\n5,y\n", {"column_1": [5, 5], "a": ["x", "y"]}),
        ("a,b\nNA,null\n1,x\n", {"a": [None, 1], "b": [None, "x"]}),
        ("a,b\n,1\n,2\n", {"a": [None, None], "b": [1, 2]}),
        ("a,b\ntrue,1\nfalse,0\n", {"a": [True, False], "b": [1, 0]}),
        ("a\n1\n2.5\n", {"a": [1.0, 2.5]}),
        ("a\n1\nx\n", {"a": ["1", "x"]}),
        ("a\n2020-01-31\n", {"a": [_naive(2020, 1, 31)]}),
        ("a\n2020-01-31T10:00:00+02:00\n", {"a": [_naive(2020, 1, 31, 8)]}),
        ('a,b\n"x\ny",1\n', {"a": ["x\ny"], "b": [1]}),
        ("a\n99999999999999999999\n1\n", {"a": ["99999999999999999999", "1"]}),
    ],
)
def test_a_csv_column_has_the_type_that_all_its_values_have(text: str, expected: dict[str, list[Any]]) -> None:
    assert _read(text) == expected


def test_the_type_of_a_csv_column_is_found_from_all_of_a_large_file() -> None:
    table = canonical(table_from(b"a,b,c\n" + b"1,2,3\n" * 1_000_000 + b"x,2.5,3\n" + b"1,2,y\n" * 60_000, "x.csv"))
    assert [str(field.type) for field in table.schema] == ["int64", "double", "large_string"]
    found = [(note.column, note.row, note.example) for note in notes_of(table)]
    assert found == [("a", 1_000_001, "x"), ("c", 1_000_002, "y")]


def test_a_parquet_file_that_unpacks_to_more_than_the_limit_is_not_unpacked() -> None:
    content = _parquet(pa.table({"a": ["the same text"] * 1_000_000}))
    assert len(content) < 100_000
    with pytest.raises(RejectedError, match=r"unpacked it has more bytes than the dataset cache of 1,000,000 bytes"):
        table_from(content, "x.parquet", max_bytes=1_000_000)


VALUES = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats() | st.text(max_size=3)
DOCUMENTS = st.lists(st.dictionaries(st.sampled_from("abc"), VALUES), min_size=1, max_size=12)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(documents=DOCUMENTS, size=st.integers(1, 12))
def test_rows_make_the_same_table_however_they_fall_into_batches(
    documents: Sequence[dict[str, Any]], size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = rows.table_of(documents)
    with monkeypatch.context() as patch:
        patch.setattr(rows, "BATCH_ROWS", size)
        parts = rows.table_of(documents)
    assert whole.column_names == parts.column_names
    if whole.num_columns:
        assert fingerprint(canonical(whole)) == fingerprint(canonical(parts))


@pytest.mark.parametrize("size", [1, 3])
def test_integers_of_64_bits_stay_exact_and_larger_ones_become_floats(
    size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rows, "BATCH_ROWS", size)
    least, most = -(2**63), 2**63 - 1
    table = rows.table_of([{"x": least, "y": 1, "z": most}, {"x": most, "y": 2**63, "z": "text"}, {"y": 0.5}])
    assert table.to_pydict() == {"x": [least, most, None], "y": [1.0, 2.0**63, 0.5], "z": [str(most), "text", None]}


# Only in a directory


def test_a_wrong_file_beside_a_dataset_is_rejected_by_its_name(tmp_path: Path) -> None:
    (tmp_path / "people.csv").write_bytes(CSV)
    for content in (b"{", b"[]", b'{"target_column": 3}'):
        (tmp_path / "people.json").write_bytes(content)
        with pytest.raises(RejectedError, match=r"dataset 'people': people\.json"):
            DirectorySource(tmp_path).load("people")


def test_an_empty_target_in_a_file_beside_a_dataset_is_none(tmp_path: Path) -> None:
    (tmp_path / "people.csv").write_bytes(CSV)
    (tmp_path / "people.json").write_bytes(b'{"target_column": ""}')
    source = DirectorySource(tmp_path)
    assert source.load("people").target_column is None
    assert [one.target for one in source.list()] == ["tall"]
    assert [one.target_column for one in source.versions("people")] == [None]


OWN = {
    "version": 7,
    "target_column": "tall",
    "profile": {"rows": 9, "columns": 9, "target": "tall", "classes": None},
    "fingerprint": "f",
    "imported_at": "2020-01-31T10:00:00+00:00",
    "user": "ada",
    "file": "people.csv",
}
NOT_OURS = [
    b"",
    b"{",
    b"7",
    b"[]",
    b"{}",
    b'"' * 300,
    *(orjson.dumps({key: value for key, value in OWN.items() if key != gone}) for gone in OWN if "_" not in gone),
    *(orjson.dumps({**OWN, field: [7]}) for field in OWN),
    *(orjson.dumps({**OWN, "version": number}) for number in (0, -1, 1.5, True, "7", 10**9)),
    *(
        orjson.dumps({**OWN, "imported_at": at})
        for at in ("", "today", "2020-01-31T10:00:00", "0001-01-01T00:00:00+14:00", 7)
    ),
    *(orjson.dumps({**OWN, "profile": profile}) for profile in ({}, {"rows": 1}, {**OWN, "more": 1}, None)),
]


def _with_own(content: bytes) -> bytes:
    return _parquet_of(pa.table(ROWS).replace_schema_metadata({"tensorfleet": content}))


def _parquet_of(table: pa.Table) -> bytes:
    file = io.BytesIO()
    pq.write_table(table, file)
    return file.getvalue()


@pytest.mark.parametrize("own", NOT_OURS)
def test_a_parquet_file_that_only_seems_to_be_ours_is_one_of_somebody_else(tmp_path: Path, own: bytes) -> None:
    source = DirectorySource(tmp_path)
    source.add("good", pa.table(OTHER), None)
    (tmp_path / "odd.parquet").write_bytes(_with_own(own))
    assert [(one.name, one.rows, one.version) for one in source.list()] == [("good", 1, 1), ("odd", 3, None)]
    assert _numbers(source, "odd") == [(1, True)]
    assert source.load("odd").target_column is None
    source.add("odd", pa.table(OTHER), None)
    assert next((one.number, one.rows, one.imported_at) for one in source.versions("odd")) == (1, 3, None)
    assert source.load("odd.v1").table.to_pydict() == ROWS


def test_a_parquet_file_with_all_that_we_write_is_ours(tmp_path: Path) -> None:
    (tmp_path / "people.parquet").write_bytes(_with_own(orjson.dumps(OWN)))
    (one,) = DirectorySource(tmp_path).versions("people")
    assert (one.number, one.rows, one.origin) == (7, 9, Origin("ada", "people.csv"))


def test_a_version_that_somebody_else_has_put_there_has_the_number_in_its_name(tmp_path: Path) -> None:
    source = DirectorySource(tmp_path)
    source.add("people", pa.table(OTHER), None)
    (tmp_path / "versions").mkdir()
    (tmp_path / "versions" / "people.v7.parquet").write_bytes(_with_own(b"{}"))
    assert _numbers(source, "people") == [(1, True), (7, False)]
    assert [(one.number, one.rows) for one in source.versions("people.v7")] == [(7, None)]


def test_what_is_no_file_stops_no_list(tmp_path: Path) -> None:
    source = DirectorySource(tmp_path)
    source.add("good", pa.table(OTHER), None)
    (tmp_path / "folder.csv").mkdir()
    (tmp_path / "dangling.csv").symlink_to(tmp_path / "nowhere")
    (tmp_path / "people.csv").write_bytes(CSV)
    (tmp_path / "people.json").mkdir()
    assert [(one.name, one.rows) for one in source.list()] == [("good", 1), ("people", None)]


# Only in MongoDB


@pytest.fixture
def put(mongo_database: Mongo) -> Callable[..., DatasetStore]:
    """Makes the collection `people` of these documents."""

    def make(*documents: dict[str, Any]) -> DatasetStore:
        mongo_database["people"].insert_many(documents)
        return MongoSource(mongo_database)

    return make


Put = Callable[..., DatasetStore]


def test_a_collection_is_a_dataset_of_its_documents_in_the_order_of_their_ids(put: Put) -> None:
    source = put({"_id": 2, "x": 2, "y": "b"}, {"_id": 1, "x": 1, "y": "a"}, {"_id": 3, "y": "c", "z": True})
    loaded = source.load("people")
    assert loaded.table.to_pydict() == {"x": [1, 2, None], "y": ["a", "b", "c"], "z": [None, None, True]}
    assert source.revision("people") is None
    assert source.load("people").revision == loaded.revision
    assert loaded.target_column is None


def test_a_collection_has_the_fingerprint_of_a_file_with_the_same_rows(put: Put) -> None:
    names = list(ROWS)
    source = put(*(dict(zip(names, values, strict=True)) for values in zip(*ROWS.values(), strict=True)))
    assert fingerprint(source.load("people").table) == fingerprint(canonical(table_from(CSV, "x.csv")))


def test_the_types_of_mongodb_become_types_of_columns(put: Put) -> None:
    moment, identity = datetime(2020, 1, 31, 10, tzinfo=UTC), UUID(int=7)
    source = put(
        {
            "id": ObjectId("65f000000000000000000001"),
            "uuid": Binary.from_uuid(identity),
            "price": Decimal128("12.50"),
            "when": moment,
            "number": 1,
            "mixed": 1,
            "flag": True,
            "nothing": None,
            "nan": float("nan"),
        },
        {"number": 2.5, "mixed": "one"},
    )
    assert source.load("people").table.to_pydict() == {
        "id": ["65f000000000000000000001", None],
        "uuid": [str(identity), None],
        "price": [12.5, None],
        "when": [_naive(2020, 1, 31, 10), None],
        "number": [1.0, 2.5],
        "mixed": ["1", "one"],
        "flag": [True, None],
        "nothing": [None, None],
        "nan": [None, None],
    }


def test_a_collection_is_not_decoded_by_whoever_fetches_it(put: Put, tmp_path: Path) -> None:
    source = put({"_id": 1, "x": 1}, {"_id": 2, "y": "a"})
    with Sink(tmp_path / "fetched", None) as sink:
        fetched = source.fetch("people", sink)
    assert fetched.path.read_bytes() == bson.encode({"x": 1}) + bson.encode({"y": "a"})
    assert fetched.file_name is None


def test_a_collection_has_another_revision_when_a_document_or_the_target_changes(
    put: Put, mongo_database: Mongo
) -> None:
    source = put({"_id": 1, "x": 1, "y": 1})
    revisions = [source.load("people").revision]
    mongo_database["people"].update_one({"_id": 1}, {"$set": {"x": 2}})
    revisions.append(source.load("people").revision)
    mongo_database["datasets"].insert_one({"name": "people", "target_column": "x"})
    revisions.append(source.load("people").revision)
    assert len(set(revisions)) == 3


@pytest.mark.parametrize("name", [".", "..", "a..b", ".a", "a.", "-x"])
def test_a_name_that_no_collection_can_have_is_no_dataset(mongo_database: Mongo, name: str) -> None:
    source = MongoSource(mongo_database)
    for call in (source.revision, source.load, source.versions):
        with pytest.raises(RejectedError, match="there is no dataset"):
            call(name)


@pytest.mark.parametrize(
    ("collection", "change"),
    [
        ("fs.files", {"length": "many"}),
        ("fs.files", {"length": None}),
        ("fs.files", {"chunkSize": 0}),
        ("fs.files", {"chunkSize": "x"}),
        ("fs.files", {"length": 10**6}),
        ("fs.chunks", {"data": "text"}),
        ("fs.chunks", {"data": 7}),
        ("fs.chunks", {"n": 3}),
    ],
)
def test_a_file_whose_entries_in_gridfs_are_wrong_is_rejected_without_the_clients_address(
    mongo_database: Mongo, collection: str, change: dict[str, Any]
) -> None:
    file_id = GridFSBucket(mongo_database).upload_from_stream("x.csv", CSV)
    mongo_database["datasets"].insert_one({"name": "people", "file_id": file_id})
    mongo_database[collection].update_one({}, {"$set": change})
    with pytest.raises(RejectedError, match=r"^dataset 'people': its file in GridFS cannot be read") as rejected:
        MongoSource(mongo_database).load("people")
    assert "MongoClient" not in str(rejected.value)


@pytest.mark.parametrize("value", [{"city": "Rome"}, ["a", "b"], [{"x": 1}], b"bytes"])
def test_nested_values_in_a_collection_are_rejected_by_the_name_of_their_column(put: Put, value: object) -> None:
    source = put({"x": 1, "address": None}, {"x": 2, "address": value})
    with pytest.raises(RejectedError, match="dataset 'people': column 'address' holds values of type"):
        source.load("people")


def test_lists_of_numbers_in_a_collection_are_tensors(put: Put, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "BATCH_ROWS", 1)
    source = put({"x": [1, 2], "y": [[1], [2]]}, {"x": None, "y": None}, {"x": [0.5, None], "y": [[3], [4]]})
    table = source.load("people").table
    assert [str(field.type).replace("item", "element") for field in table.schema] == [
        "fixed_size_list<element: double>[2]",
        "fixed_size_list<element: fixed_size_list<element: int64>[1]>[2]",
    ]
    assert table.to_pydict() == {"x": [[1.0, 2.0], None, [0.5, None]], "y": [[[1], [2]], None, [[3], [4]]]}


def test_a_collection_is_listed_with_its_rows_and_columns(put: Put) -> None:
    (listed,) = put({"x": 1, "y": "a"}, {"x": 2, "y": "b"}).list()
    assert listed == DatasetSummary("people", 2, 2, "y", ["a", "b"], "mongodb")


def test_a_document_without_a_file_gives_a_collection_its_target(put: Put, mongo_database: Mongo) -> None:
    source = put({"x": 1, "y": "a"}, {"x": 2, "y": "b"})
    mongo_database["datasets"].insert_one({"name": "people", "target_column": "x"})
    assert source.load("people").target_column == "x"
    assert source.revision("people") is None
    assert [(listed.name, listed.target) for listed in source.list()] == [("people", "x")]


def test_collections_that_are_not_rows_are_no_datasets(mongo_database: Mongo) -> None:
    own = ("training_requests", "training_outcomes", "workers", "model_registry", "datasets", "fs.files", "fs.chunks")
    for name in own:
        mongo_database[name].insert_one({"x": 1})
    source = MongoSource(mongo_database)
    assert list(source.list()) == []
    for name in (*own, "system.views"):
        with pytest.raises(RejectedError, match="there is no dataset"):
            source.load(name)


@pytest.fixture
def slow_view(mongodb: MongoDB, mongo_database: Mongo) -> Iterator[MongoSource]:
    """Dataset `slow` computes for some seconds, and all that a client does ends after 1 s unless it asks for more."""
    numbers = {"input": {"$range": [0, 100_000]}, "initialValue": "$x", "in": {"$max": ["$$value", "$$this"]}}
    mongo_database["people"].insert_many([{"x": 200_000 + n} for n in range(100)])
    mongo_database.create_collection("slow", viewOn="people", pipeline=[{"$set": {"x": {"$reduce": numbers}}}])
    with connect(mongodb.url, timeout_s=1.0) as client:
        yield MongoSource(client[mongo_database.name])


def test_a_view_may_take_longer_than_other_calls(slow_view: MongoSource, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.datasets.mongodb.BATCH_ROWS", 20)
    with pytest.raises(PyMongoError):
        list(slow_view._database["slow"].find())
    assert slow_view.load("slow").table.num_rows == 100


def test_a_view_that_takes_too_long_is_rejected_and_not_taken_for_mongodb_being_away(
    slow_view: MongoSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.datasets.mongodb.ROWS_TIMEOUT_S", 0.5)
    with pytest.raises(RejectedError, match=r"dataset 'slow': MongoDB takes more than 0.5 s to read its rows"):
        slow_view.load("slow")
    listed = _listed(slow_view)
    assert (listed["slow"].rows, listed["people"].rows) == (None, 100)


@pytest.mark.parametrize(("failures", "ends"), [(1, None), (2, RejectedError)])
def test_of_a_view_one_answer_may_be_lost_as_when_the_primary_changes(
    mongo_database: Mongo, monkeypatch: pytest.MonkeyPatch, failures: int, ends: type[Exception] | None
) -> None:
    mongo_database["people"].insert_many([{"x": n} for n in range(10)])
    mongo_database.create_collection("view", viewOn="people", pipeline=[])
    source, left = MongoSource(mongo_database), [NetworkTimeout("no answer")] * failures
    monkeypatch.setattr("pipeline.datasets.mongodb.BATCH_ROWS", 3)
    next_batch = source._next_batch

    def lossy(cursor: Any) -> bytes:
        batch = next_batch(cursor)
        if left:
            raise left.pop()
        return batch

    monkeypatch.setattr(source, "_next_batch", lossy)
    with pytest.raises(ends) if ends else nullcontext():
        assert source.load("view").table.num_rows == 10


def test_the_id_of_a_file_may_be_written_as_text(mongo_database: Mongo) -> None:
    file_id = GridFSBucket(mongo_database).upload_from_stream("without a suffix", CSV)
    mongo_database["datasets"].insert_one({"name": "people", "file_id": str(file_id), "format": "csv"})
    assert MongoSource(mongo_database).load("people").table.to_pydict() == ROWS


def test_a_document_whose_file_is_gone_is_rejected(mongo_database: Mongo) -> None:
    mongo_database["datasets"].insert_one({"name": "people", "file_id": ObjectId()})
    with pytest.raises(RejectedError, match="dataset 'people': its file in GridFS cannot be read"):
        MongoSource(mongo_database).load("people")


def test_the_file_of_a_pruned_version_is_removed_unless_another_one_shares_it(mongo_database: Mongo) -> None:
    source = MongoSource(mongo_database)
    for n in range(3):
        source.add("people", pa.table({"x": [n]}), None)
    source.prune("people", 1)
    assert mongo_database["fs.files"].count_documents({}) == 1
    document = mongo_database["datasets"].find_one({"name": "people"}) or {}
    mongo_database["datasets"].insert_one({"name": "alias", "file_id": document["file_id"]})
    source.add("people", pa.table({"x": [3]}), None)
    source.prune("people", 1)
    assert source.load("alias").table.to_pydict() == {"x": [2]}


def test_readers_of_the_replaced_systems_documents_find_the_current_file(mongo_database: Mongo) -> None:
    source = MongoSource(mongo_database)
    source.add("people", pa.table(ROWS), "tall")
    source.add("people", pa.table({"x": [1], "y": [2]}), None)
    source.restore("people", 1)
    (document,) = mongo_database["datasets"].find({"name": "people"})
    content = GridFSBucket(mongo_database).open_download_stream(document["file_id"]).read()
    assert pq.read_table(io.BytesIO(content)).to_pydict() == ROWS
    assert document["target_column"] == "tall"


def test_a_collection_of_the_name_that_a_version_has_comes_first(put: Put, mongo_database: Mongo) -> None:
    source = put({"x": 1})
    source.add("plants", pa.table({"y": [1]}), None)
    mongo_database["plants.v1"].insert_one({"z": 3})
    assert source.load("plants.v1").table.to_pydict() == {"z": [3]}
    assert list(source.versions("people")) == []
    with pytest.raises(RejectedError, match="dataset 'people' has no versions"):
        source.prune("people", 1)


def test_a_dataset_larger_than_the_limit_is_rejected_before_it_is_read_whole(mongo_database: Mongo) -> None:
    source = MongoSource(mongo_database, max_bytes=1_000)
    GridFSBucket(mongo_database).upload_from_stream_with_id(1, "large.csv", CSV * 100)
    mongo_database["datasets"].insert_one({"name": "file", "file_id": 1})
    mongo_database["rows"].insert_many([{"x": n} for n in range(6_000)])
    with pytest.raises(RejectedError, match="its file of 4,800 bytes is larger than the dataset cache of 1,000 bytes"):
        source.load("file")
    with pytest.raises(RejectedError, match="it is larger than the dataset cache of 1,000 bytes"):
        source.load("rows")


def test_reading_a_collection_holds_a_batch_of_its_documents_whatever_their_number(mongo_database: Mongo) -> None:
    source = MongoSource(mongo_database)
    peaks = {}
    for number in (10_000, 40_000):
        mongo_database[f"rows{number}"].insert_many(
            [{"x": n / 3, "y": f"some words {n}", "z": n} for n in range(number)]
        )
        tracemalloc.start()
        assert source.load(f"rows{number}").table.num_rows == number
        peaks[number] = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peaks[40_000] < 1.2 * peaks[10_000]


def test_a_mongodb_that_is_not_there_is_an_error_that_waiting_may_heal() -> None:
    with connect("mongodb://127.0.0.1:9", timeout_s=0.2, selection_timeout_s=0.1) as client:
        source = MongoSource(client["tensorfleet"])
        for call in (
            source.list,
            lambda: source.load("people"),
            lambda: source.revision("people"),
            lambda: source.add("people", pa.table(ROWS), None),
        ):
            with pytest.raises(TransientError, match="mongodb"):
                call()


@pytest.mark.parametrize("documents", [[{"x": [None, None], "y": 1}], [{"x": [None, None]}, {"x": [1.0, 2.0]}]])
def test_lists_of_nothing_stop_nobody(documents: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    """In one batch, or in one before those with numbers."""
    monkeypatch.setattr(rows, "BATCH_ROWS", 1)
    assert rows.table_of(documents)["x"].to_pylist() == [one["x"] for one in documents]


def test_what_cannot_be_read_is_kept_as_it_is(tmp_path: Path) -> None:
    source = DirectorySource(tmp_path)
    content = b"a,b\n1,2,3\n"
    (tmp_path / "sales.csv").write_bytes(content)
    source.add("sales", pa.table({"a": [1, 2], "b": [3, 4]}), None)
    assert source.load("sales").table["a"].to_pylist() == [1, 2]
    assert [file.read_bytes() for file in tmp_path.rglob("*.unreadable")] == [content]


def test_a_dataset_that_is_called_like_a_version_stays_itself(tmp_path: Path) -> None:
    source = DirectorySource(tmp_path)
    (tmp_path / "churn.v2.csv").write_text("a,b\n9,9\n")
    for number in (1, 2):
        source.add("churn", pa.table({"a": [number, 2], "b": [3, 4]}), None)
    assert source.load("churn.v2").table["a"].to_pylist() == [9]
    assert [one.number for one in source.versions("churn")] == [1, 3]
