"""Checkpoints: what a training has come to outlives the worker, and goes when the request has its outcome."""

import hashlib
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from zipfile import ZIP_DEFLATED, ZIP_STORED, ZipFile

import pytest

from consumer.jobs.checkpoints import Checkpoints
from consumer.threads.neighbour import Surroundings
from pipeline.artifacts import NewArtifact, checkpoints_of
from pipeline.artifacts.directory import DirectoryStore
from pipeline.training.trained import EPOCH_STATE, SEARCH_NOTES


class Machine:
    def __init__(self, folder: Path, store: DirectoryStore) -> None:
        self.folder = folder
        folder.mkdir()
        self.store = store
        self.checkpoints = Checkpoints(store, folder, around=Surroundings(print), every_s=0.02)
        self.checkpoints.start()

    def training(self, request_id: str) -> Path:
        notes = self.folder / request_id / SEARCH_NOTES
        notes.parent.mkdir()
        self.checkpoints.keep(request_id, notes.parent)
        return notes

    def until_stored(self, request_id: str, notes: bytes, **others: bytes) -> None:
        content = {SEARCH_NOTES: notes, **others}
        deadline = time.monotonic() + 60
        while (found := self.checkpoints.restore(request_id)) is None or files(found) != content:
            assert time.monotonic() < deadline
            time.sleep(0.01)


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def store(tmp_path: Path) -> DirectoryStore:
    store = DirectoryStore(tmp_path / "store")
    store.prepare()
    return store


@pytest.fixture
def machine(tmp_path: Path, store: DirectoryStore) -> Iterator[Machine]:
    machine = Machine(tmp_path / "one", store)
    yield machine
    machine.checkpoints.finish()
    machine.checkpoints.join(10)


def test_the_newest_is_found_on_another_machine_and_the_older_ones_are_gone(
    machine: Machine, store: DirectoryStore, tmp_path: Path
) -> None:
    notes = machine.training("r-1")
    notes.write_bytes(b"one\n")
    machine.until_stored("r-1", b"one\n")
    notes.write_bytes(b"one\ntwo\n")
    machine.until_stored("r-1", b"one\ntwo\n")
    other = Machine(tmp_path / "other", store)
    found = other.checkpoints.restore("r-1")
    other.checkpoints.finish()
    assert found is not None
    assert files(found) == {SEARCH_NOTES: b"one\ntwo\n"}
    deadline = time.monotonic() + 60
    while len(store.list("~checkpoints/")) > 1:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_request_with_an_outcome_leaves_none(machine: Machine, store: DirectoryStore) -> None:
    machine.training("r").write_bytes(b"one\n")
    machine.until_stored("r", b"one\n")
    (machine.folder / "r" / SEARCH_NOTES).unlink()
    machine.checkpoints.drop("r")
    deadline = time.monotonic() + 60
    while store.list("~checkpoints/"):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert machine.checkpoints.restore("r") is None


def test_what_is_over_when_the_worker_stops_leaves_none_either(tmp_path: Path, store: DirectoryStore) -> None:
    machine = Machine(tmp_path / "one", store)
    machine.training("r").write_bytes(b"one\n")
    machine.until_stored("r", b"one\n")
    (machine.folder / "r" / SEARCH_NOTES).unlink()
    machine.checkpoints.finish()
    machine.checkpoints.drop("r")
    machine.checkpoints.join(10)
    assert store.list("~checkpoints/") == []


@pytest.mark.parametrize(
    ("name", "compression"), [("../outside", ZIP_STORED), (SEARCH_NOTES, ZIP_DEFLATED), ("result.json", ZIP_STORED)]
)
def test_an_archive_that_is_no_checkpoint_of_ours_is_unpacked_nowhere(
    machine: Machine, store: DirectoryStore, tmp_path: Path, name: str, compression: int
) -> None:
    hostile = tmp_path / "hostile.zip"
    with ZipFile(hostile, "w", compression) as archive:
        archive.writestr(name, bytes(1_000))
    sha256 = hashlib.sha256(hostile.read_bytes()).hexdigest()
    key = f"{checkpoints_of('r')}{1:09d}-{sha256}"
    store.put([NewArtifact(key, hostile, sha256, hostile.stat().st_size)])
    before = {*machine.folder.iterdir()}
    assert machine.checkpoints.restore("r") is None
    assert {*machine.folder.iterdir()} == before


def test_a_request_never_finds_anothers(machine: Machine) -> None:
    machine.training("r-10").write_bytes(b"one\n")
    machine.until_stored("r-10", b"one\n")
    (machine.folder / "a").mkdir()
    machine.training("a/b").write_bytes(b"two\n")
    machine.until_stored("a/b", b"two\n")
    for other in ("r-1", "r", "a", "a/b/", "a%2Fb"):
        assert machine.checkpoints.restore(other) is None, other


def test_what_the_next_attempt_adds_is_newer_than_what_it_found(
    machine: Machine, store: DirectoryStore, tmp_path: Path
) -> None:
    notes = machine.training("r")
    for epoch in (b"1", b"2", b"3"):
        (notes.parent / EPOCH_STATE).write_bytes(epoch)
        notes.write_bytes(b"scored\n")
        machine.until_stored("r", b"scored\n", **{EPOCH_STATE: epoch})
    other = Machine(tmp_path / "other", store)
    assert other.checkpoints.restore("r") is not None
    elsewhere = other.training("r")
    (elsewhere.parent / EPOCH_STATE).write_bytes(b"4")
    elsewhere.write_bytes(b"scored\n")
    machine.until_stored("r", b"scored\n", **{EPOCH_STATE: b"4"})
    other.checkpoints.finish()
    other.checkpoints.join(10)


def test_what_cannot_be_read_is_no_checkpoint(machine: Machine, store: DirectoryStore, tmp_path: Path) -> None:
    machine.training("r").write_bytes(b"one\n")
    machine.until_stored("r", b"one\n")
    broken = tmp_path / "broken"
    broken.write_bytes(b"no archive")
    digest = hashlib.sha256(b"no archive").hexdigest()
    store.put([NewArtifact(f"{checkpoints_of('r')}000000099-{digest}", broken, digest, 10)])
    machine.until_stored("r", b"one\n")
    assert not list(machine.folder.glob("*.zip"))


def test_a_training_that_starts_over_while_a_checkpoint_is_stored_goes_on_counting(
    machine: Machine, store: DirectoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    there, goes_on = threading.Event(), threading.Event()
    put = store.put

    def put_slowly(new: Sequence[NewArtifact]) -> object:
        uris = put(new)
        there.set()
        assert goes_on.wait(60)
        return uris

    monkeypatch.setattr(store, "put", put_slowly)
    machine.training("r").write_bytes(b"one\n")
    assert there.wait(60)
    again = machine.folder / "again"
    again.mkdir()
    (again / SEARCH_NOTES).write_bytes(b"two\n")
    machine.checkpoints.keep("r", again)
    goes_on.set()
    machine.until_stored("r", b"two\n")
    deadline = time.monotonic() + 60
    while len(list(store.listing(checkpoints_of("r")))) > 1:  # the older one goes
        assert time.monotonic() < deadline
        time.sleep(0.01)
    machine.until_stored("r", b"two\n")


def test_a_training_that_starts_over_goes_on_counting(machine: Machine) -> None:
    """The same number for other content would be taken for what is there."""
    machine.training("r").write_bytes(b"one\n")
    machine.until_stored("r", b"one\n")
    again = machine.folder / "again"
    again.mkdir()
    (again / SEARCH_NOTES).write_bytes(b"two\n")
    machine.checkpoints.keep("r", again)
    machine.until_stored("r", b"two\n")
