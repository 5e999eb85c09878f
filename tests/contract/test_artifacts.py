"""One contract for every artifact store: a directory, GridFS, S3, and the two of them together."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import gridfs
import pytest
from bson import ObjectId
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from pymongo.database import Database

from pipeline.artifacts import ArtifactStore, NewArtifact
from pipeline.artifacts.directory import DirectoryStore
from pipeline.artifacts.gridfs import CALL_BYTES, CHUNK_BYTES, GridFSStore
from pipeline.artifacts.hybrid import HybridStore
from pipeline.artifacts.keys import folder_of, key_of, path_of
from pipeline.artifacts.s3 import S3Store
from pipeline.databases.mongodb import connect
from pipeline.errors import CorruptArtifactError, NotFoundError, RejectedError, TransientError

LIMIT = 1_000
ID = "65f000000000000000000000"
MONGO = pytest.mark.services
WORDS = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
PARTS = st.sampled_from(["", ".", "..", ".zip", "a", "a.zip", "é", "x" * 199, "y" * 300, "%2E", "%"]) | WORDS
KEYS = st.lists(PARTS, min_size=1, max_size=4).map("/".join)


def _s3(request: pytest.FixtureRequest) -> S3Store:
    s3 = request.getfixturevalue("s3")
    bucket: str = request.getfixturevalue("s3_bucket")
    return S3Store(s3.endpoint, s3.access_key, s3.secret_key, bucket, secure=False)


def _made(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> ArtifactStore:
    makers: dict[str, Callable[[], ArtifactStore]] = {
        "directory": lambda: DirectoryStore(tmp_path / "store"),
        "gridfs": lambda: GridFSStore(request.getfixturevalue("mongo_database")),
        "s3": lambda: _s3(request),
        "hybrid": lambda: HybridStore(
            GridFSStore(request.getfixturevalue("mongo_database")), _s3(request), limit_bytes=LIMIT
        ),
    }
    made = makers[kind]()
    made.prepare()
    return made


KINDS = ["directory", *(pytest.param(kind, marks=MONGO) for kind in ("gridfs", "s3", "hybrid"))]


@pytest.fixture(params=KINDS)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ArtifactStore:
    return _made(request.param, request, tmp_path)


@pytest.fixture
def new(tmp_path: Path) -> Callable[..., NewArtifact]:
    """Makes a file to be stored; its key names its content, as the real keys do."""

    def make(content: bytes = b"a model", folder: str = "default/iris/r-1") -> NewArtifact:
        return _written(tmp_path, content, folder)

    return make


def _written(directory: Path, content: bytes, folder: str) -> NewArtifact:
    sha256 = hashlib.sha256(content).hexdigest()
    path = directory / sha256
    path.write_bytes(content)
    return NewArtifact(f"{folder}/{sha256}.zip", path, sha256, len(content))


def _fetched(store: ArtifactStore, uri: str, tmp_path: Path) -> bytes:
    target = tmp_path / "fetched"
    store.fetch(uri, target)
    return target.read_bytes()


New = Callable[..., NewArtifact]


@pytest.mark.parametrize("size", [0, 1, LIMIT, LIMIT + 1, CHUNK_BYTES, CHUNK_BYTES + 1, 3 * CHUNK_BYTES])
def test_what_was_put_is_fetched_byte_for_byte(store: ArtifactStore, new: New, tmp_path: Path, size: int) -> None:
    artifact = new(os.urandom(size))
    stored = store.put([artifact])[artifact.key]
    assert (stored.sha256, stored.size_bytes) == (artifact.sha256, size)
    assert _fetched(store, stored.uri, tmp_path) == artifact.path.read_bytes()


def test_a_group_is_stored_as_a_whole_and_each_key_is_answered(store: ArtifactStore, new: New, tmp_path: Path) -> None:
    group = [new(os.urandom(size), f"default/iris/r-{size}") for size in (10, LIMIT + 1, 20, CHUNK_BYTES + 7)]
    stored = store.put(group)
    assert set(stored) == {artifact.key for artifact in group}
    for artifact in group:
        assert _fetched(store, stored[artifact.key].uri, tmp_path) == artifact.path.read_bytes()


def test_an_empty_group_is_no_work(store: ArtifactStore) -> None:
    assert store.put([]) == {}
    assert list(store.list()) == []


def test_putting_the_same_key_again_changes_nothing(store: ArtifactStore, new: New, tmp_path: Path) -> None:
    artifact, other = new(os.urandom(CHUNK_BYTES + 1)), new(b"other", "default/iris/r-2")
    first = store.put([artifact])
    assert store.put([other, artifact])[artifact.key] == first[artifact.key]
    assert len(store.list()) == 2
    assert _fetched(store, first[artifact.key].uri, tmp_path) == artifact.path.read_bytes()


def test_a_put_that_was_cut_short_is_completed_by_the_next(store: ArtifactStore, new: New, tmp_path: Path) -> None:
    artifact, gone = new(b"one"), new(b"gone", "default/iris/r-2")
    gone.path.unlink()
    with pytest.raises(FileNotFoundError):
        store.put([artifact, gone])
    stored = store.put([artifact])[artifact.key]
    assert _fetched(store, stored.uri, tmp_path) == b"one"


def test_a_deleted_artifact_is_gone_and_deleting_it_again_is_no_error(
    store: ArtifactStore, new: New, tmp_path: Path
) -> None:
    kept, deleted = new(b"kept"), new(b"deleted")
    stored = store.put([kept, deleted])
    for _ in range(2):
        store.delete(stored[deleted.key].uri)
    with pytest.raises(NotFoundError):
        store.fetch(stored[deleted.key].uri, tmp_path / "fetched")
    assert not (tmp_path / "fetched").exists()
    assert list(store.list()) == [stored[kept.key].uri]
    assert _fetched(store, stored[kept.key].uri, tmp_path) == b"kept"


def test_a_deleted_artifact_can_be_stored_again(store: ArtifactStore, new: New, tmp_path: Path) -> None:
    artifact = new(b"again")
    uri = store.put([artifact])[artifact.key].uri
    store.delete(uri)
    assert store.put([artifact])[artifact.key].uri == uri
    assert _fetched(store, uri, tmp_path) == b"again"


def test_uris_are_listed_by_the_beginning_of_their_keys(store: ArtifactStore, new: New) -> None:
    folders = ["default/iris/r-1", "default/iris/r-10", "default/iris2/r-1", "checkpoints/r-1", "other/iris/r_1"]
    group = {folder: new(folder.encode(), folder) for folder in folders}
    stored = store.put(list(group.values()))

    def listed(*folders: str) -> set[str]:
        return {stored[group[folder].key].uri for folder in folders}

    assert set(store.list()) == listed(*folders)
    assert set(store.list("default/iris/")) == listed("default/iris/r-1", "default/iris/r-10")
    assert set(store.list("default/iris")) == listed("default/iris/r-1", "default/iris/r-10", "default/iris2/r-1")
    assert set(store.list("default/iris/r-1/")) == listed("default/iris/r-1")
    assert set(store.list("checkpoints/")) == listed("checkpoints/r-1")
    assert set(store.list(group["other/iris/r_1"].key)) == listed("other/iris/r_1")
    assert set(store.list("nothing/")) == set()


def test_a_listing_tells_the_key_the_size_and_when_it_was_stored(store: ArtifactStore, new: New) -> None:
    began = datetime.now(UTC)
    group = [new(b"s" * 10), new(b"l" * (LIMIT + 1), "p/m/a//b ü\n"), new(b"c", "checkpoints/r-1")]
    stored = store.put(group)
    listed = {one.key: one for one in store.listing()}
    assert {key: (one.uri, one.size_bytes) for key, one in listed.items()} == {
        artifact.key: (stored[artifact.key].uri, artifact.size_bytes) for artifact in group
    }
    for one in listed.values():
        assert abs(one.stored_at - began) < timedelta(minutes=5), "by the store's clock, to the second"
    assert [one.key for one in store.listing("p/m/")] == [group[1].key]
    assert [one.uri for one in store.listing("checkpoints/")] == list(store.list("checkpoints/"))
    store.delete(stored[group[0].key].uri)
    assert group[0].key not in {one.key for one in store.listing()}


@pytest.mark.parametrize("request_id", ["..", "../../etc", "/root", "a/./b", "", "x" * 120, "ü☃ \n\t'\"$&", "%2E%2E"])
def test_a_request_id_is_free_text_and_its_artifact_is_its_own(
    store: ArtifactStore, new: New, tmp_path: Path, request_id: str
) -> None:
    neighbour = new(b"neighbour", "default/iris/r-1")
    artifact = new(b"free text", f"default/iris/{request_id}")
    stored = store.put([neighbour, artifact])
    assert _fetched(store, stored[artifact.key].uri, tmp_path) == b"free text"
    assert _fetched(store, stored[neighbour.key].uri, tmp_path) == b"neighbour"
    assert list(store.list(f"default/iris/{request_id}/")) == [stored[artifact.key].uri]


def test_a_request_id_that_is_another_ones_artifact_key_takes_nothing_from_it(
    store: ArtifactStore, new: New, tmp_path: Path
) -> None:
    first = new(b"first")
    second = new(b"second", f"{first.key}/r-2")
    stored = {**store.put([first]), **store.put([second])}
    assert _fetched(store, stored[first.key].uri, tmp_path) == b"first"
    assert _fetched(store, stored[second.key].uri, tmp_path) == b"second"


@pytest.mark.parametrize(
    "uri",
    [
        "http://example.org/model.zip",
        "s3://other-bucket/x",
        "s3://",
        "gridfs://other/65f000000000000000000000",
        "gridfs://fs/no-id",
        "file:///etc/x",
        "file://etc/x",
        "model.zip",
        "",
    ],
)
def test_a_uri_of_another_store_is_rejected(store: ArtifactStore, tmp_path: Path, uri: str) -> None:
    with pytest.raises(RejectedError):
        store.fetch(uri, tmp_path / "fetched")
    with pytest.raises(RejectedError):
        store.delete(uri)


def test_preparing_again_keeps_what_is_stored(store: ArtifactStore, new: New) -> None:
    store.put([new()])
    store.prepare()
    assert len(store.list()) == 1


class StoreMachine(RuleBasedStateMachine):
    """A store does what a dict does."""

    store: ArtifactStore
    directory: Path
    contents = st.binary(max_size=2 * LIMIT)
    folders = st.sampled_from(["p/m/r-1", "p/m/r-2", "p/m2/r-1", "checkpoints/r-1", "p/m/r-1/../x"])

    @initialize()
    def begin(self) -> None:
        for uri in self.store.list():
            self.store.delete(uri)
        self.model: dict[str, bytes] = {}
        self.uris: dict[str, str] = {}

    @rule(group=st.lists(st.tuples(contents, folders), max_size=4))
    def put(self, group: list[tuple[bytes, str]]) -> None:
        new = [_written(self.directory, content, folder) for content, folder in group]
        stored = self.store.put(new)
        assert set(stored) == {artifact.key for artifact in new}
        for artifact, (content, _) in zip(new, group, strict=True):
            self.model[artifact.key] = content
            uri = stored[artifact.key].uri
            assert self.uris.setdefault(artifact.key, uri) == uri

    @rule(data=st.data())
    def delete(self, data: st.DataObject) -> None:
        if self.uris:
            key = data.draw(st.sampled_from(sorted(self.uris)))
            self.store.delete(self.uris[key])
            self.model.pop(key, None)

    @rule(data=st.data())
    def fetch(self, data: st.DataObject) -> None:
        if self.uris:
            key = data.draw(st.sampled_from(sorted(self.uris)))
            if key in self.model:
                assert _fetched(self.store, self.uris[key], self.directory) == self.model[key]
            else:
                with pytest.raises(NotFoundError):
                    self.store.fetch(self.uris[key], self.directory / "fetched")

    @rule(prefix=st.sampled_from(["", "p", "p/", "p/m", "p/m/", "p/m/r-1", "p/m/r-1/", "checkpoints/", "q"]))
    def list_some(self, prefix: str) -> None:
        expected = sorted(self.uris[key] for key in self.model if key.startswith(prefix))
        assert sorted(self.store.list(prefix)) == expected

    @invariant()
    def all_is_listed(self) -> None:
        if hasattr(self, "model"):
            assert len(self.store.list()) == len(self.model)


def test_a_store_does_what_a_dict_does(store: ArtifactStore, tmp_path: Path) -> None:
    machine = type("Machine", (StoreMachine,), {"store": store, "directory": tmp_path})
    examples = 60 if isinstance(store, DirectoryStore) else 8
    run_state_machine_as_test(machine, settings=settings(max_examples=examples, stateful_step_count=12, deadline=None))


@settings(max_examples=500, deadline=None)
@given(KEYS)
def test_a_key_and_its_path_name_each_other(key: str) -> None:
    path = path_of(key)
    *folders, file = path.split("/")
    assert key_of(path) == key
    assert file.endswith(".zip")
    for part in (*folders, file):
        assert 0 < len(part.encode()) <= 255
        assert not part.startswith(".")
    assert not any(folder.endswith(".zip") for folder in folders)
    assert all(path.startswith(folder_of(key[:end])) for end in range(len(key)))


def test_files_of_ordinary_names_lie_where_one_looks_for_them(tmp_path: Path, new: New) -> None:
    store = DirectoryStore(tmp_path / "store")
    store.prepare()
    artifact = new(b"found", "default/churn-v1.2/r-1")
    uri = store.put([artifact])[artifact.key].uri
    assert uri == (tmp_path / "store" / artifact.key).as_uri()
    assert (tmp_path / "store" / artifact.key).read_bytes() == b"found"


def test_a_directory_store_follows_no_uri_out_of_its_root(tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path / "store")
    store.prepare()
    (tmp_path / "secret").write_text("secret")
    root = (tmp_path / "store").as_uri()
    for uri in (f"{root}/../secret", f"{root}/%2E%2E/secret", f"{root}/a/../../secret", root, f"{root}/.incoming/x"):
        with pytest.raises(RejectedError):
            store.fetch(uri, tmp_path / "fetched")
        with pytest.raises(RejectedError):
            store.delete(uri)
    assert (tmp_path / "secret").read_text() == "secret"


def test_a_file_that_a_dead_writer_left_behind_is_never_listed_and_goes_after_a_day(tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path / "store")
    store.prepare()
    left, fresh = (tmp_path / "store" / ".incoming" / name for name in ("left", "fresh"))
    for file in (left, fresh):
        file.write_bytes(b"half")
    os.utime(left, (0, 0))
    assert list(store.list()) == []
    store.prepare()
    assert (left.exists(), fresh.exists()) == (False, True)


def test_any_gridfs_client_reads_what_is_stored(mongo_database: Database[dict[str, Any]], new: New) -> None:
    store = GridFSStore(mongo_database)
    store.prepare()
    artifact = new(os.urandom(2 * CHUNK_BYTES + 5))
    stored = store.put([artifact])[artifact.key]
    assert stored.file_id is not None
    assert stored.uri == f"gridfs://fs/{stored.file_id}"
    with gridfs.GridFSBucket(mongo_database).open_download_stream(ObjectId(stored.file_id)) as file:
        assert (file.filename, file.length, file.chunk_size) == (artifact.key, artifact.size_bytes, CHUNK_BYTES)
        assert file.metadata == {"sha256": artifact.sha256}
        assert file.upload_date is not None
        assert file.read() == artifact.path.read_bytes()
    assert gridfs.GridFS(mongo_database).get_last_version(artifact.key).read() == artifact.path.read_bytes()


def test_files_that_others_keep_in_the_bucket_are_not_listed(mongo_database: Database[dict[str, Any]]) -> None:
    store = GridFSStore(mongo_database)
    store.prepare()
    gridfs.GridFSBucket(mongo_database).upload_from_stream("iris.csv", b"a,b\n1,2\n")
    assert list(store.list()) == []


def test_the_indexes_are_those_of_a_gridfs_driver(mongo_database: Database[dict[str, Any]]) -> None:
    by_hand = {"key": {"files_id": 1.0, "n": 1.0}, "unique": True, "name": "by hand"}
    mongo_database.command("createIndexes", "fs.chunks", indexes=[by_hand])
    store = GridFSStore(mongo_database)
    for _ in range(2):
        store.prepare()
    files, chunks = (mongo_database[name].index_information() for name in ("fs.files", "fs.chunks"))
    assert [("filename", 1), ("uploadDate", 1)] in [index["key"] for index in files.values()]
    assert [index.get("unique") for index in chunks.values() if index["key"] == [("files_id", 1), ("n", 1)]] == [True]
    assert len(chunks) == 2


def test_a_group_larger_than_one_call_is_split(
    mongo_database: Database[dict[str, Any]], new: New, tmp_path: Path
) -> None:
    store = GridFSStore(mongo_database)
    store.prepare()
    group = [new(os.urandom(CALL_BYTES // 2 + 1000), f"p/m/r-{n}") for n in range(3)]
    stored = store.put(group)
    for artifact in group:
        assert _fetched(store, stored[artifact.key].uri, tmp_path) == artifact.path.read_bytes()


def test_a_file_that_lacks_a_chunk_is_corrupt(
    mongo_database: Database[dict[str, Any]], new: New, tmp_path: Path
) -> None:
    store = GridFSStore(mongo_database)
    artifact = new(os.urandom(2 * CHUNK_BYTES))
    uri = store.put([artifact])[artifact.key].uri
    mongo_database["fs.chunks"].delete_one({"n": 1})
    with pytest.raises(CorruptArtifactError):
        store.fetch(uri, tmp_path / "fetched")


def test_the_size_decides_which_store_of_two_takes_a_file(
    mongo_database: Database[dict[str, Any]], new: New, request: pytest.FixtureRequest
) -> None:
    store = _made("hybrid", request, Path())
    small, large = new(b"s" * LIMIT), new(b"l" * (LIMIT + 1))
    stored = store.put([small, large])
    assert stored[small.key].uri.startswith("gridfs://fs/")
    assert stored[large.key].uri.startswith("s3://")
    assert stored[large.key].file_id is None


def test_a_mongodb_that_is_not_there_is_an_error_that_waiting_may_heal(new: New) -> None:
    with connect("mongodb://127.0.0.1:9", timeout_s=0.2, selection_timeout_s=0.1) as client:
        store = GridFSStore(client["tensorfleet"])
        for call in (store.prepare, lambda: store.put([new()]), store.list, lambda: store.delete(f"gridfs://fs/{ID}")):
            with pytest.raises(TransientError, match="mongodb"):
                call()


def test_an_s3_server_that_is_not_there_is_an_error_that_waiting_may_heal(new: New) -> None:
    store = S3Store("127.0.0.1:9", "the-access-key", "the-secret-key", "models", secure=False)
    for call in (store.prepare, lambda: store.put([new()]), store.list, lambda: store.delete("s3://models/x")):
        with pytest.raises(TransientError, match=r"minio: .* models at 127\.0\.0\.1:9") as error:
            call()
        assert "the-" not in str(error.value)


@pytest.mark.services
def test_a_missing_bucket_or_a_wrong_secret_is_an_error_that_waiting_may_heal(s3: Any, new: New) -> None:
    for access_key, secret_key in ((s3.access_key, s3.secret_key), (s3.access_key, "wrong-secret")):
        store = S3Store(s3.endpoint, access_key, secret_key, "no-such-bucket", secure=False)
        with pytest.raises(TransientError, match="minio") as error:
            store.fetch("s3://no-such-bucket/x", Path("fetched"))
        assert secret_key not in str(error.value)
