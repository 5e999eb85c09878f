"""Checkpoints: what a training has come to outlives the worker, and goes when the request has its outcome."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from consumer.checkpoints import Checkpoints
from consumer.waiting import Breakers
from pipeline.artifacts.directory import DirectoryStore


class Machine:
    def __init__(self, folder: Path, store: DirectoryStore) -> None:
        self.folder = folder
        folder.mkdir()
        self.store = store
        self.checkpoints = Checkpoints(store, folder, breakers=Breakers(), deliver=lambda failed: None, every_s=0.02)
        self.checkpoints.start()

    def training(self, request_id: str) -> Path:
        notes = self.folder / request_id / "notes"
        notes.parent.mkdir()
        self.checkpoints.keep(request_id, notes)
        return notes

    def until_stored(self, request_id: str, content: bytes) -> None:
        deadline = time.monotonic() + 10
        while (found := self.checkpoints.restore(request_id)) is None or found.read_bytes() != content:
            assert time.monotonic() < deadline
            time.sleep(0.01)


@pytest.fixture
def store(tmp_path: Path) -> DirectoryStore:
    store = DirectoryStore(tmp_path / "store")
    store.prepare()
    return store


@pytest.fixture
def machine(tmp_path: Path, store: DirectoryStore) -> Iterator[Machine]:
    machine = Machine(tmp_path / "one", store)
    yield machine
    machine.checkpoints.stop()
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
    other.checkpoints.stop()
    assert found is not None
    assert found.read_bytes() == b"one\ntwo\n"
    deadline = time.monotonic() + 10
    while len(store.list("checkpoints/")) > 1:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_request_with_an_outcome_leaves_none(machine: Machine, store: DirectoryStore) -> None:
    machine.training("r").write_bytes(b"one\n")
    machine.until_stored("r", b"one\n")
    (machine.folder / "r" / "notes").unlink()
    machine.checkpoints.drop("r")
    deadline = time.monotonic() + 10
    while store.list("checkpoints/"):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert machine.checkpoints.restore("r") is None


def test_what_is_over_when_the_worker_stops_leaves_none_either(tmp_path: Path, store: DirectoryStore) -> None:
    machine = Machine(tmp_path / "one", store)
    machine.training("r").write_bytes(b"one\n")
    machine.until_stored("r", b"one\n")
    (machine.folder / "r" / "notes").unlink()
    machine.checkpoints.stop()
    machine.checkpoints.drop("r")
    machine.checkpoints.join(10)
    assert store.list("checkpoints/") == []


def test_a_request_never_finds_anothers(machine: Machine) -> None:
    machine.training("r-10").write_bytes(b"one\n")
    machine.until_stored("r-10", b"one\n")
    (machine.folder / "a").mkdir()
    machine.training("a/b").write_bytes(b"two\n")
    machine.until_stored("a/b", b"two\n")
    for other in ("r-1", "r", "a", "a/b/", "a%2Fb"):
        assert machine.checkpoints.restore(other) is None, other
