"""Pointers to Parquet in S3: one contract for both stores of datasets, on a real server."""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Protocol

import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from pymongo.database import Database

from consumer.cli import main
from consumer.loaders.loaders import Loaders
from consumer.settings import Settings
from consumer.stores import open_stores
from consumer.threads.retrying import FOR_SOME
from pipeline.datasets import DatasetStore, DatasetVersion, Fetched, LoadAbandoned, Origin, s3
from pipeline.datasets.cache import DatasetCache
from pipeline.datasets.directory import DirectorySource
from pipeline.datasets.mongodb import MongoSource
from pipeline.datasets.s3 import Pointer, S3Objects
from pipeline.datasets.sink import Sink
from pipeline.datasets.versions import told_before
from pipeline.errors import RejectedError, TransientError
from pipeline.reading.options import ReadOptions
from pipeline.reading.tables import canonical, fingerprint
from tests.command import Answer, Run
from tests.services.proxy import WELL, Network, Proxy
from tests.services.s3 import S3
from tests.services.server import free_ports

ROWS = pa.table({"height": [1.5, 2.5], "tall": ["no", "yes"]})
MORE = pa.table({"height": [3, 4], "tall": ["yes", "no"]})
BOTH = {"height": [1.5, 2.5, 3.0, 4.0], "tall": ["no", "yes", "yes", "no"]}


@dataclass(frozen=True)
class Bucket:
    """A bucket of one's own."""

    server: S3
    name: str

    def put(self, key: str, content: pa.Table | bytes) -> None:
        file = io.BytesIO()
        if isinstance(content, bytes):
            file.write(content)
        else:
            pq.write_table(content, file, store_schema=False)
        size = file.tell()
        file.seek(0)
        self.server.client().put_object(self.name, key, file, size)

    def remove(self, key: str) -> None:
        self.server.client().remove_object(self.name, key)

    def url(self, key: str) -> str:
        return f"s3://{self.name}/{key}"

    def objects(self, endpoint: str = "") -> S3Objects:
        return S3Objects(endpoint or self.server.endpoint, self.server.access_key, self.server.secret_key)


class Stored(Protocol):
    """The store of one test, opened with these objects."""

    def __call__(self, objects: S3Objects | None = None, **options: Any) -> DatasetStore: ...


@pytest.fixture
def bucket(s3: S3, s3_bucket: str) -> Bucket:
    return Bucket(s3, s3_bucket)


@pytest.fixture(params=["directory", pytest.param("mongodb", marks=pytest.mark.services)])
def stored(request: pytest.FixtureRequest, tmp_path: Path) -> Stored:
    if request.param == "directory":
        return lambda objects=None, **options: DirectorySource(tmp_path / "datasets", objects=objects, **options)
    database = request.getfixturevalue("mongo_database")
    return lambda objects=None, **options: MongoSource(database, objects=objects, **options)


@pytest.fixture
def source(stored: Stored, bucket: Bucket) -> DatasetStore:
    return stored(bucket.objects())


@pytest.fixture
def proxy(bucket: Bucket) -> Iterator[Proxy]:
    with Proxy(free_ports(1)[0], int(bucket.server.endpoint.rpartition(":")[2])) as proxy:
        yield proxy


def _numbers(source: DatasetStore, name: str) -> list[tuple[int, bool]]:
    return [(one.number, one.current) for one in source.versions(name)]


def _rows(source: DatasetStore, name: str) -> dict[str, list[Any]]:
    return dict(source.load(name).table.to_pydict())


def test_a_pointer_is_read_where_it_points(source: DatasetStore, bucket: Bucket) -> None:
    bucket.put("rows.parquet", ROWS)
    added, table = source.point("people", bucket.url("rows.parquet"), "tall", Origin("ada", "x"))
    assert table.to_pydict() == ROWS.to_pydict()
    assert added.is_new
    assert source.versions("people") == [added.version]
    version = added.version
    assert (version.number, version.rows, version.columns, version.current) == (1, 2, 2, True)
    assert (version.target_column, version.origin) == ("tall", Origin("ada", "x"))
    assert (version.fingerprint, version.s3_url) == (fingerprint(canonical(ROWS)), bucket.url("rows.parquet"))
    loaded = source.load("people")
    assert (loaded.table.to_pydict(), loaded.target_column) == (ROWS.to_pydict(), "tall")
    assert loaded.revision == source.revision("people")
    assert source.revision("people", at_once=True) is None


def test_a_prefix_means_all_parquet_below_it_in_the_order_of_keys(source: DatasetStore, bucket: Bucket) -> None:
    bucket.put("a/2 ü/1.parquet", MORE)
    bucket.put("a/1.parquet", ROWS)
    bucket.put("a/_SUCCESS", b"")
    bucket.put("a/notes.txt", b"x")
    bucket.put("ab.parquet", MORE)
    source.point("people", bucket.url("a/"), None)
    assert _rows(source, "people") == BOTH
    assert source.load("people").target_column is None
    source.point("all", f"s3://{bucket.name}/", None)
    assert source.load("all").table.num_rows == 6


def test_a_pointer_is_a_version_beside_others(source: DatasetStore, bucket: Bucket) -> None:
    bucket.put("rows.parquet", ROWS)
    url = bucket.url("rows.parquet")
    source.add("people", MORE, "tall")
    assert source.point("people", url, "tall")[0].version.number == 2
    assert source.add("people", ROWS, "tall").version.number == 3, "rows of its own, though they are equal"
    for name, rows in (("people.v1", MORE), ("people.v2", ROWS), ("people.v3", ROWS)):
        assert _rows(source, name) == rows.to_pydict()
    bucket.put("rows.parquet", MORE)
    assert _rows(source, "people.v2") == MORE.to_pydict()
    assert source.revision("people.v2") == source.load("people.v2").revision
    assert [one.number for one in source.versions("people.v2")] == [2]
    assert source.restore("people", 2).s3_url == url
    assert _rows(source, "people") == MORE.to_pydict()
    assert _rows(source, "people.v3") == ROWS.to_pydict()
    assert _numbers(source, "people") == [(1, False), (2, True), (3, False)]
    assert source.restore("people", 3).s3_url is None
    assert _rows(source, "people") == ROWS.to_pydict()
    assert [one.number for one in source.prune("people", 1)] == [1, 2]
    with pytest.raises(RejectedError, match=r"there is no dataset 'people\.v2'"):
        source.load("people.v2")


def test_the_same_pointer_is_no_new_version_and_is_described_anew(source: DatasetStore, bucket: Bucket) -> None:
    bucket.put("a/1.parquet", ROWS)
    source.point("people", bucket.url("a/"), None)
    source.add("people", MORE, None)
    bucket.put("a/2.parquet", MORE)
    again, _ = source.point("people", bucket.url("a/"), None)
    assert (again.is_new, again.version.number, again.version.rows) == (False, 1, 4)
    assert _numbers(source, "people") == [(1, True), (2, False)]
    source.add("people", MORE, None)
    assert [one.rows for one in source.versions("people")] == [4, 2]
    assert source.point("people", bucket.url("a/"), "height")[0].version.number == 3, "with another target"
    assert [one.target_column for one in source.versions("people")] == [None, None, "height"]
    assert [one.current for one in source.versions("people")] == [False, False, True]


def test_what_is_told_about_a_pointer_holds_for_each_reading(source: DatasetStore, bucket: Bucket) -> None:
    bucket.put("a/1.parquet", pa.table({"code": [1, -9], "day": ["1/2/2026", "3/4/2026"]}))
    told = ReadOptions(types={"code": "category", "day": "date:m/d/y"}, missing=("-9",))
    added, table = source.point("people", bucket.url("a/"), None, options=told)
    assert table["code"].to_pylist() == ["1", None]
    assert added.version.options == told_before(source, "people")[0] == told
    before = source.revision("people")
    bucket.put("a/2.parquet", pa.table({"code": [2], "day": ["5/6/2026"]}))
    loaded = source.load("people").table
    assert loaded["code"].to_pylist() == ["1", None, "2"]
    assert pc.month(loaded["day"]).to_pylist() == [1, 3, 5]
    assert source.point("people", bucket.url("a/"), None)[0].version.number == 2, "told otherwise"
    assert source.revision("people") != before
    assert source.load("people").table["code"].to_pylist() == [1, -9, 2]


def test_listing_reads_nothing(source: DatasetStore, stored: Stored, bucket: Bucket) -> None:
    bucket.put("rows.parquet", ROWS)
    source.point("people", bucket.url("rows.parquet"), "tall")
    bucket.remove("rows.parquet")
    (listed,) = stored(S3Objects()).list()
    assert (listed.name, listed.rows, listed.columns, listed.target) == ("people", 2, 2, "tall")
    assert (listed.classes, listed.source, listed.version) == (["no", "yes"], "s3", 1)
    assert [one.rows for one in stored(S3Objects()).versions("people")] == [2]


def test_a_target_that_is_no_column_is_rejected_and_nothing_stored(source: DatasetStore, bucket: Bucket) -> None:
    bucket.put("rows.parquet", ROWS)
    with pytest.raises(
        RejectedError, match=r"dataset 'people': it has no column 'size'\. Its columns are height, tall"
    ):
        source.point("people", bucket.url("rows.parquet"), "size")
    for name in ("iris", "people.v1", "a b"):
        with pytest.raises(RejectedError, match="dataset '"):
            source.point(name, bucket.url("rows.parquet"), None)
    assert list(source.list()) == []


def test_parts_that_differ_are_rejected_by_their_names(source: DatasetStore, bucket: Bucket) -> None:
    bucket.put("a/1.parquet", ROWS)
    bucket.put("a/2.parquet", pa.table({"height": ["x"], "tall": ["no"]}))
    says = r"^dataset 'people': column 'height' is double in a/1.parquet and text in a/2.parquet"
    with pytest.raises(RejectedError, match=says):
        source.point("people", bucket.url("a/"), None)
    bucket.put("a/2.parquet", b"x,y\n1,2\n")
    with pytest.raises(RejectedError, match=r"^dataset 'people': a/2.parquet: the Parquet file cannot be read"):
        source.point("people", bucket.url("a/"), None)
    assert list(source.list()) == []


class Counted(S3Objects):
    """Counts what is fetched, and what happens between listing and fetching."""

    def __init__(self, server: S3) -> None:
        super().__init__(server.endpoint, server.access_key, server.secret_key)
        self.fetches = 0
        self.between: list[Callable[[], None]] = []

    def fetch(self, name: str, pointer: Pointer, sink: Sink) -> Fetched:
        self.fetches += 1
        return super().fetch(name, pointer, sink)

    def _found(self, url: str) -> Any:
        found = super()._found(url)
        if self.between:
            self.between.pop(0)()
        return found


@pytest.fixture
def counted(bucket: Bucket) -> Counted:
    return Counted(bucket.server)


def test_the_cache_fetches_again_what_was_changed_added_or_removed_and_nothing_else(
    stored: Stored, bucket: Bucket, counted: Counted, tmp_path: Path
) -> None:
    source = stored(counted)
    bucket.put("a/1.parquet", ROWS)
    source.point("people", bucket.url("a/"), None)
    cache = DatasetCache(tmp_path / "cache", 2**20, source)
    counted.fetches = 0

    def ensured(name: str = "people") -> str:
        dataset = cache.ensure(name)
        cache.release(dataset)
        assert dataset.path is not None
        assert cache.at_hand(name) is None, "S3 must be asked, which may take time"
        return dataset.fingerprint

    seen = [ensured()]
    assert (ensured(), counted.fetches) == (seen[0], 1)
    changes: list[Callable[[], None]] = [
        lambda: bucket.put("a/2.parquet", MORE),
        lambda: bucket.put("a/2.parquet", MORE.slice(1)),
        lambda: bucket.put("a/0.parquet", MORE),
        lambda: bucket.remove("a/1.parquet"),
    ]
    for number, change in enumerate(changes, 2):
        change()
        seen.append(ensured())
        assert (ensured(), counted.fetches) == (seen[-1], number)
    assert len(set(seen)) == 5
    bucket.remove("a/0.parquet")
    bucket.remove("a/2.parquet")
    with pytest.raises(RejectedError, match=r"dataset 'people': there is no object s3://\w+/a/\*\.parquet; store it"):
        ensured()
    bucket.put("a/1.parquet", ROWS)
    assert ensured() == seen[0]
    assert ensured("people.v1") == seen[0]


def test_the_target_is_part_of_the_revision(source: DatasetStore, bucket: Bucket) -> None:
    bucket.put("rows.parquet", ROWS)
    for name, target in (("a", None), ("b", "tall")):
        source.point(name, bucket.url("rows.parquet"), target)
    assert source.revision("a") != source.revision("b")


@pytest.mark.parametrize("removed", [False, True])
def test_objects_that_change_while_they_are_fetched_are_fetched_once_more(
    stored: Stored, bucket: Bucket, counted: Counted, removed: bool
) -> None:
    source = stored(counted)
    bucket.put("a/1.parquet", ROWS)
    bucket.put("a/2.parquet", ROWS)
    source.point("people", bucket.url("a/"), None)

    def change(rows: pa.Table) -> Callable[[], None]:
        return lambda: bucket.remove("a/2.parquet") if removed else bucket.put("a/2.parquet", rows)

    counted.between = [change(MORE)]
    loaded = source.load("people")
    assert loaded.table.to_pydict() == (ROWS.to_pydict() if removed else BOTH)
    assert loaded.revision == source.revision("people")
    bucket.put("a/2.parquet", ROWS)
    counted.between = [change(MORE), lambda: bucket.put("a/1.parquet", MORE)]
    with pytest.raises(RejectedError, match=r"dataset 'people': s3://.*/a/ changes while it is read; send the request"):
        source.load("people")


def test_what_is_not_there_is_rejected_with_the_url(source: DatasetStore, bucket: Bucket) -> None:
    bucket.put("rows.parquet", ROWS)
    source.point("people", bucket.url("rows.parquet"), None)
    bucket.remove("rows.parquet")
    says = rf"^dataset 'people': s3://{bucket.name}/rows\.parquet cannot be read: there is no such object; store it"
    for call in (source.load, source.revision):
        with pytest.raises(RejectedError, match=says):
            call("people")
    with pytest.raises(RejectedError, match=r"s3://no-such-bucket/a/ cannot be read: there is no such bucket"):
        source.point("more", "s3://no-such-bucket/a/", None)


def test_what_may_not_be_read_is_rejected_with_the_right_that_is_needed(stored: Stored, bucket: Bucket) -> None:
    bucket.put("rows.parquet", ROWS)
    nobody = stored(S3Objects(bucket.server.endpoint))
    with pytest.raises(
        RejectedError, match=r"rows\.parquet cannot be read: .* needs s3:GetBucketLocation, s3:ListBucket and s3:Get"
    ):
        nobody.point("people", bucket.url("rows.parquet"), None)


def test_a_wrong_secret_is_an_error_that_waiting_may_heal(stored: Stored, bucket: Bucket) -> None:
    wrong = stored(S3Objects(bucket.server.endpoint, bucket.server.access_key, "the-wrong-secret"))
    for key in ("rows.parquet", "a/"):
        with pytest.raises(TransientError, match=f"{s3.SERVICE}: .* SignatureDoesNotMatch") as error:
            wrong.point("people", bucket.url(key), None)
        assert "the-wrong" not in str(error.value)


def test_without_s3_the_settings_are_named(stored: Stored, source: DatasetStore, bucket: Bucket) -> None:
    bucket.put("rows.parquet", ROWS)
    source.point("people", bucket.url("rows.parquet"), None)
    for call in (stored().load, stored().revision, lambda name: stored().point(name, bucket.url("a/"), None)):
        with pytest.raises(RejectedError, match="set MINIO_ENDPOINT, MINIO_ACCESS_KEY and MINIO_SECRET_KEY"):
            call("people")


@pytest.mark.parametrize(
    "url",
    [
        *("s3:/b/x.parquet", "S3://bucket/x.parquet", "s3://bucket/x.csv", "s3://bucket/x", "s3://bucket/a*.parquet/b"),
        *("s3:///x.parquet", "s3://b/x.parquet", "s3://Bucket/x.parquet", "s3://10.0.0.1/x.parquet", "s3://a..b/x/"),
        *("s3://bucket/../x.parquet", "s3://bucket/./", "s3://bucket/\0/", "s3://bucket/\ud800/", "x.parquet", ""),
        *(
            f"s3://bucket/{'x' * 1_017}.parquet",
            f"s3://{'b' * 64}/",
            "s3://user:word@bucket/x.parquet",
            "s3://x.parquet",
        ),
    ],
)
def test_what_is_no_url_of_parquet_is_rejected(url: str, tmp_path: Path) -> None:
    source = DirectorySource(tmp_path, objects=S3Objects("127.0.0.1:9", "key", "secret"))
    with pytest.raises(RejectedError, match=r"names no Parquet in S3: write s3://BUCKET/KEY\.parquet for one object"):
        source.point("people", url, None)


# A server that is away, silent, slow


@pytest.fixture
def through(stored: Stored, bucket: Bucket, proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> DatasetStore:
    """A store whose dataset `people`, of 2 MB, is read through the proxy."""
    monkeypatch.setattr(s3, "READ_TIMEOUT_S", 0.5)
    source = stored(bucket.objects(proxy.address))
    bucket.put("rows.parquet", pa.table({"x": [f"{n * 7919 % 100_003:0200d}" for n in range(100_000)]}))
    source.point("people", bucket.url("rows.parquet"), None)
    return source


@pytest.mark.parametrize("network", [Network(refuses=True), Network(silent=True), Network(cut_after=100)])
def test_a_server_that_does_not_answer_is_an_error_that_waiting_may_heal(
    through: DatasetStore, proxy: Proxy, network: Network
) -> None:
    assert s3.SERVICE in FOR_SOME, "requests for other datasets go on"
    proxy.become(network)
    began = time.monotonic()
    for call in (through.load, *(() if network.cut_after else (through.revision,))):
        with pytest.raises(TransientError, match=s3.SERVICE):
            call("people")
    assert time.monotonic() - began < 15
    proxy.become(WELL)
    assert through.load("people").table.num_rows == 100_000


class Garbage(BaseHTTPRequestHandler):
    """A server that is none of S3."""

    content = b""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(self.content)))
        self.end_headers()
        self.wfile.write(self.content)

    def log_message(self, *_: object) -> None:
        pass


@pytest.mark.parametrize("content", [b"", b"<html><p>", b"<html/>", b"\xff\xfe"])
def test_a_server_that_does_not_speak_s3_is_an_error_that_waiting_may_heal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes
) -> None:
    monkeypatch.setattr(Garbage, "content", content)
    with ThreadingHTTPServer(("127.0.0.1", 0), Garbage) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        source = DirectorySource(tmp_path, objects=S3Objects(f"127.0.0.1:{server.server_port}", "key", "secret"))
        with pytest.raises(
            TransientError, match=r"dataset bucket: reading s3://bucket/a/ at .*: the answer is not that"
        ):
            source.point("people", "s3://bucket/a/", None)
        server.shutdown()


def test_a_server_that_is_slow_for_ever_does_not_hold_its_thread(
    through: DatasetStore, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3, "PACE_S", 0.5)
    monkeypatch.setattr(s3, "PIECE_BYTES", 1_000)
    proxy.become(Network(bytes_per_s=300_000))
    with pytest.raises(TransientError, match=r"dataset bucket: sends less than 1,048,576 bytes in 0.5 s"):
        through.load("people")
    monkeypatch.setattr(s3, "PACE_S", 60.0)
    proxy.become(Network(bytes_per_s=3_000_000))
    assert through.load("people").table.num_rows == 100_000


def test_what_nobody_waits_for_any_more_is_not_fetched(through: DatasetStore, proxy: Proxy, tmp_path: Path) -> None:
    proxy.become(Network(bytes_per_s=200_000))
    abandoned = threading.Event()
    with Sink(tmp_path / "fetched", None, abandoned) as sink:
        threading.Timer(0.5, abandoned.set).start()
        began = time.monotonic()
        with pytest.raises(LoadAbandoned):
            through.fetch("people", sink)
    assert time.monotonic() - began < 3


# Limits


def test_what_is_larger_than_the_limit_is_not_fetched(stored: Stored, bucket: Bucket, counted: Counted) -> None:
    for n in range(3):
        bucket.put(f"a/{n}.parquet", pa.table({"x": [f"{n * 7919 % 10_007:050d}" for n in range(10_000)]}))
    source = stored(counted, max_bytes=100_000)
    with pytest.raises(RejectedError, match=r"dataset 'people': its file of [\d,]+ bytes is larger than the dataset"):
        source.point("people", bucket.url("a/"), None)


def test_more_objects_than_a_dataset_takes_are_rejected_with_the_figure(
    stored: Stored, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = stored(bucket.objects())
    monkeypatch.setattr(s3, "MOST_OBJECTS", 2)
    for key in ("a/1.parquet", "a/2.parquet", "a/_SUCCESS"):
        bucket.put(key, ROWS)
    with pytest.raises(RejectedError, match=r"there are more than 2 objects below s3://\w+/a/: give the Parquet a"):
        source.point("people", bucket.url("a/"), None)
    bucket.remove("a/_SUCCESS")
    assert source.point("people", bucket.url("a/"), None)[0].version.rows == 4


def test_a_bomb_is_rejected_with_the_figure(bucket: Bucket, tmp_path: Path) -> None:
    texts = pa.DictionaryArray.from_arrays(pa.array([0] * 10_000, pa.int32()), pa.array(["x" * 2**20]))
    bucket.put("bomb.parquet", pa.table({"x": texts}))
    loaders = Loaders(1, 60, 400 * 2**20)
    try:
        source = DirectorySource(tmp_path / "datasets", read=loaders.load, objects=bucket.objects())
        says = r"its Parquet at s3://\w+/bomb.parquet \([\d,]+ bytes\) takes more than 400 MiB \(MAX_TRAINING_MEMORY\)"
        with pytest.raises(RejectedError, match=f"^dataset 'bomb': {says}"):
            source.point("bomb", bucket.url("bomb.parquet"), None)
        bucket.put("rows.parquet", ROWS)
        assert source.point("people", bucket.url("rows.parquet"), None)[1].to_pydict() == ROWS.to_pydict()
    finally:
        loaders.stop()


# What others write


def test_a_file_that_is_no_pointer_stops_no_list_and_is_rejected_by_its_name(tmp_path: Path, bucket: Bucket) -> None:
    bucket.put("rows.parquet", ROWS)
    source = DirectorySource(tmp_path, objects=bucket.objects())
    source.point("good", bucket.url("rows.parquet"), None)
    good = orjson.loads((tmp_path / "good.pointer").read_bytes())
    for content in (b"", b"{", b"[]", orjson.dumps({**good, "s3_url": 7}), orjson.dumps({**good, "version": "1"})):
        (tmp_path / "bad.pointer").write_bytes(content)
        assert [(one.name, one.rows) for one in source.list()] == [("bad", None), ("good", 2)]
        for call in (source.load, source.revision):
            with pytest.raises(RejectedError, match=r"dataset 'bad': bad\.pointer is not what `datasets import s3:"):
                call("bad")
    source.add("bad", ROWS, None)
    assert source.load("bad").table.num_rows == 2
    assert [one.name for one in (tmp_path / "versions").iterdir()] == ["bad.pointer.unreadable"]
    (tmp_path / "versions" / "bad.v7.pointer").write_bytes(b"{")
    assert [(one.number, one.rows) for one in source.versions("bad")] == [(2, 2), (7, None)]
    with pytest.raises(RejectedError, match=r"dataset 'bad\.v7': bad\.v7\.pointer is not what"):
        source.load("bad.v7")
    assert source.add("bad", MORE, None).version.number == 8


def test_a_document_that_somebody_else_wrote_may_point_too(
    mongo_database: Database[dict[str, Any]], bucket: Bucket
) -> None:
    bucket.put("rows.parquet", ROWS)
    url, documents = bucket.url("rows.parquet"), mongo_database["datasets"]
    documents.insert_one({"name": "people", "s3_url": url, "target_column": "tall"})
    source = MongoSource(mongo_database, objects=bucket.objects())
    assert (_rows(source, "people"), source.load("people").target_column) == (ROWS.to_pydict(), "tall")
    assert [(one.rows, one.target, one.source) for one in source.list()] == [(None, "tall", "s3")]
    bare = DatasetVersion(1, None, None, None, "tall", None, Origin(), current=True, s3_url=url)
    assert list(source.versions("people")) == [bare]
    source.add("people", MORE, None)
    assert _numbers(source, "people") == [(1, False), (2, True)]
    assert _rows(source, "people.v1") == ROWS.to_pydict()
    documents.insert_one({"name": "bad", "s3_url": "https://rows.parquet"})
    with pytest.raises(
        RejectedError, match="dataset 'bad': in its document in the collection datasets s3_url takes s3"
    ):
        source.load("bad")


# What the commands say


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """`tensorfleet` with embedded stores, these settings and nothing else of the environment."""
    monkeypatch.chdir(tmp_path)
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
    open_stores(Settings(data_dir=tmp_path / "tensorfleet-data")).prepare()

    def tensorfleet(*arguments: str, **settings: str) -> Answer:
        with monkeypatch.context() as patch:
            for name, value in settings.items():
                patch.setenv(name, value)
            code = main(arguments)
        return Answer(code, *capsys.readouterr())

    return tensorfleet


def test_the_commands_say_where_a_pointer_points_and_what_is_there(run: Run, bucket: Bucket) -> None:
    def put(*rows: int) -> None:
        bucket.put("plants/1.parquet", pa.table({"x": rows, "y": ["a"] * len(rows)}))

    put(1, 2)
    url, exports = bucket.url("plants/"), bucket.server.exports
    (imported,) = run("datasets", "import", url, "--json", **exports).objects
    assert (imported["name"], imported["rows"], imported["target"]) == ("plants", 2, "y")
    assert [(one["version"], one["file"]) for one in imported["versions"]] == [("v1", url)]
    put(1, 2, 3)
    again = run("datasets", "import", url, **exports)
    assert "x\tint64\t\t\t1, 2, 3" in again.out
    assert f"no new version: plants v1, the current one, points to {url} already" in again.error
    other = run("datasets", "import", url, "--target", "x", **exports)
    assert f"stored as plants v2: a pointer to {url}, which every training reads as it is then" in other.error
    put(1)
    assert run("datasets", "show", "plants.v1", "--json", **exports).objects[0]["rows"] == 1
    assert run("datasets", "export", "plants", "--version", "1", "--json", **exports).objects[0]["rows"] == 1
    (listed,) = [one for one in run("datasets", "list", "--json").objects if one["name"] == "plants"]
    assert (listed["rows"], listed["target"], listed["source"], listed["version"]) == (3, "x", "s3", "v2")
    shown = run("datasets", "show", "plants")
    assert (shown.code, shown.out) == (2, "")
    assert "set MINIO_ENDPOINT, MINIO_ACCESS_KEY and MINIO_SECRET_KEY" in shown.error
    away = run("datasets", "show", "plants", **{**exports, "MINIO_ENDPOINT": "127.0.0.1:9"})
    assert (away.code, away.out) == (3, "")
    assert f"dataset bucket: reading {url} at 127.0.0.1:9: " in away.error
    wrong = run("datasets", "import", url.removesuffix("/"), **exports)
    assert (wrong.code, wrong.out) == (2, "")
    assert "with a slash at its end" in wrong.error
