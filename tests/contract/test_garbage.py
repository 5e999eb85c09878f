"""Collecting garbage beside registrations, on the embedded stores and on MongoDB with GridFS."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.artifacts import ArtifactStore, NewArtifact, checkpoints_of
from pipeline.artifacts.directory import DirectoryStore
from pipeline.artifacts.gridfs import GridFSStore
from pipeline.jobs import Outcome
from pipeline.ledger import Home, Ledger, NewClaim
from pipeline.lifecycle.garbage import FORGOTTEN_SOON_S, Collector
from pipeline.registry import Registry
from pipeline.registry.sqlite import SqliteRegistry
from tests.contract.dict_ledger import DictLedger
from tests.contract.stores import ADAPTERS, failed, place_for, registered

DAY_S = 86_400.0
RETENTION_S = 90 * DAY_S


@dataclass
class Site:
    """The stores of a fleet, and the steps of its registrations."""

    ledger: Ledger
    registry: Registry
    artifacts: ArtifactStore
    folder: Path
    now: datetime

    def claim(self, request_id: str) -> None:
        me = self.ledger.boot("w-1")
        self.ledger.claim(me, [NewClaim(request_id, "sha", Home("t", 0, 1), {})])

    def put(self, request_id: str, content: bytes = b"model", project: str = "default") -> str:
        digest = hashlib.sha256(content).hexdigest()
        return self._stored(f"{project}/churn/{request_id}/{digest}.zip", content)

    def put_notes(self, request_id: str, content: bytes = b"notes") -> str:
        return self._stored(
            f"{checkpoints_of(request_id)}{len(content):09d}-{hashlib.sha256(content).hexdigest()}", content
        )

    def outcome(self, request_id: str, content: bytes = b"model", project: str = "default") -> Outcome:
        digest = hashlib.sha256(content).hexdigest()
        named = registered(request_id, project=project, artifact_sha256=digest, artifact_bytes=len(content))
        return replace(named, at=self.now)

    def registered(self, request_id: str, content: bytes = b"model", project: str = "default") -> str:
        self.claim(request_id)
        uri = self.put(request_id, content, project)
        self.registry.register([*self.ledger.insert_outcomes([self.outcome(request_id, content, project)]).values()])
        return uri

    def collector(self, **more: Any) -> Collector:
        given = {"older_than_s": 0.0, "retention_s": RETENTION_S, "clock": lambda: self.now, **more}
        return Collector(self.artifacts, self.ledger, self.registry, **given)

    def gc(self, *, dry_run: bool = False, **more: Any) -> dict[str, str]:
        """What became of each artifact, by its uri."""
        return {one.piece.artifact.uri: one.fate for one in self.collector(**more).collect(dry_run=dry_run)}

    def left(self) -> set[str]:
        return set(self.artifacts.list())

    def _stored(self, key: str, content: bytes) -> str:
        file = self.folder / hashlib.sha256(content).hexdigest()
        file.write_bytes(content)
        return self.artifacts.put([NewArtifact(key, file, file.name, len(content))])[key].uri


@pytest.fixture(params=ADAPTERS)
def site(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Site]:
    place = place_for(request.param, request, tmp_path)
    artifacts: ArtifactStore
    if request.param == "sqlite":
        artifacts = DirectoryStore(tmp_path / "artifacts")
    else:
        artifacts = GridFSStore(request.getfixturevalue("mongo_database"))
    with place.ledger() as ledger, place.registry() as registry:
        for store in (ledger, registry, artifacts):
            store.prepare()
        yield Site(ledger, registry, artifacts, tmp_path, datetime.now(UTC) + timedelta(hours=1))


def test_what_a_training_that_lost_has_left_goes_and_what_won_stays(site: Site) -> None:
    won = site.registered("r-1", b"won")
    lost = site.put("r-1", b"lost")
    assert site.gc(dry_run=True) == {won: "named", lost: "garbage"}
    assert site.left() == {won, lost}
    assert site.gc() == {won: "named", lost: "garbage"}
    assert site.left() == {won}


def test_nothing_of_a_request_without_an_outcome_goes_however_old(site: Site) -> None:
    site.claim("r-1")
    kept = {site.put("r-1"), site.put_notes("r-1")}
    site.now += timedelta(days=365)
    assert site.gc() == dict.fromkeys(kept, "unfinished")
    assert site.left() == kept


def test_an_outcome_keeps_its_file_before_there_is_a_document(site: Site) -> None:
    site.claim("r-1")
    uri = site.put("r-1")
    site.ledger.insert_outcomes([site.outcome("r-1")])
    assert site.gc() == {uri: "named"}
    site.registry.register([site.outcome("r-1")])
    assert site.gc() == {uri: "named"}
    assert site.left() == {uri}


def test_a_request_that_failed_keeps_nothing(site: Site) -> None:
    site.claim("r-1")
    uri, notes = site.put("r-1"), site.put_notes("r-1")
    site.ledger.insert_outcomes([replace(failed("r-1"), at=site.now)])
    assert site.gc() == {uri: "garbage", notes: "garbage"}
    assert site.left() == set()


def test_the_notes_of_a_finished_search_go_and_its_model_stays(site: Site) -> None:
    for request_id in ("r-1", "a/b ü\n.."):
        site.registered(request_id, request_id.encode())
    models = site.left()
    notes = {site.put_notes(request_id, b"n" * size) for request_id in ("r-1", "a/b ü\n..") for size in (5, 9)}
    assert {uri for uri, fate in site.gc().items() if fate == "garbage"} == notes
    assert site.left() == models


def test_an_archived_version_keeps_its_file(site: Site) -> None:
    uri = site.registered("r-1")
    site.registry.archive("default", "churn", 1, site.now)
    assert site.gc() == {uri: "named"}


def test_what_is_younger_is_left_for_another_time(site: Site) -> None:
    won, lost = site.registered("r-1", b"won"), site.put("r-1", b"lost")
    assert site.gc(older_than_s=DAY_S) == {won: "named", lost: "young"}
    site.now += timedelta(days=1)
    assert site.gc(older_than_s=DAY_S)[lost] == "garbage"


def test_what_the_ledger_does_not_know_or_will_soon_forget_is_kept(site: Site) -> None:
    unknown = {site.put("of another fleet"), site.put_notes("of another fleet")}
    site.registered("r-1", b"won")
    lost = site.put("r-1", b"lost")
    site.now += timedelta(seconds=RETENTION_S - FORGOTTEN_SOON_S + 1)
    assert {uri for uri, fate in site.gc().items() if fate == "unknown"} == {*unknown, lost}
    assert {*unknown, lost} < site.left()


def test_a_document_keeps_its_file_whatever_the_ledger_says_of_a_later_life_of_its_request(site: Site) -> None:
    first = site.put("r-1", b"first")
    site.registry.register([site.outcome("r-1", b"first")])
    second = site.registered("r-1", b"second")
    assert site.gc() == {first: "named", second: "named"}


def test_files_that_are_not_ours_are_never_looked_at(site: Site) -> None:
    site.claim("r-1")
    site.ledger.insert_outcomes([replace(failed("r-1"), at=site.now)])
    digest = "ab" * 32
    foreign = {
        site._stored(key, b"x")
        for key in (
            f"r-1/{digest}.zip",
            "default/churn/r-1/notes.zip",
            f"default/ch urn/r-1/{digest}.zip",
            "~checkpoints/r-1",
        )
    }
    assert site.gc() == {}
    assert site.left() == foreign


def test_with_a_project_nothing_of_another_is_looked_at(site: Site) -> None:
    for project in ("mine", "theirs"):
        site.registered(project, project.encode(), project)
    lost = {site.put("mine", b"lost", "mine"), site.put_notes("mine")}
    kept = {site.put("theirs", b"lost", "theirs"), site.put_notes("theirs")}
    found = site.gc(project="mine")
    assert {uri for uri, fate in found.items() if fate == "garbage"} == lost
    assert not kept & found.keys()
    assert kept < site.left()


class Between:
    """A store before whose every call somebody else may act."""

    def __init__(self, store: Any, act: Callable[[], None]) -> None:
        self._store, self._act = store, act

    def __getattr__(self, name: str) -> Any:
        def called(*args: Any, **kwargs: Any) -> Any:
            self._act()
            return getattr(self._store, name)(*args, **kwargs)

        return called


class Attempts:
    """Attempts at a few requests, each a generator of its steps; what has an outcome is not begun again."""

    CONTENTS = (b"one", b"two")

    def __init__(self, site: Site) -> None:
        self._site = site
        self._running: list[Iterator[None]] = []
        self.begun: list[str] = []
        self.wanted: dict[str, str] = {}
        """The uri that the outcome which stands names."""

    def begin(self, request_id: str, content: bytes) -> None:
        self.begun.append(request_id)
        self._running.append(self._attempt(request_id, content))

    def step(self, which: int) -> None:
        if self._running:
            attempt = self._running[which % len(self._running)]
            if next(attempt, self) is self:
                self._running.remove(attempt)

    def finish(self) -> None:
        turn = 0
        while self._running:
            self.step(turn := turn + 1)

    def _attempt(self, request_id: str, content: bytes) -> Iterator[None]:
        """As consumer/jobs/registrar.py does it; every yield is a place to be overtaken, or to die at."""
        site, project = self._site, "default"
        if site.ledger.read([request_id])[request_id].outcome is not None:
            return
        site.claim(request_id)
        yield
        site.put_notes(request_id, content)
        yield
        uri = site.put(request_id, content, project)
        yield
        new = replace(site.outcome(request_id, content), worker_id=uri)
        standing = site.ledger.insert_outcomes([new])[request_id]
        self.wanted[request_id] = standing.worker_id
        yield
        site.registry.register([standing])
        yield
        site.put_notes(request_id, content)  # a checkpoint that was on its way


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_no_order_of_registrations_and_collections_takes_a_file_that_an_outcome_names(data: st.DataObject) -> None:
    with TemporaryDirectory() as directory:
        folder = Path(directory)
        registry, artifacts = SqliteRegistry(folder / "registry.sqlite"), DirectoryStore(folder / "artifacts")
        for store in (registry, artifacts):
            store.prepare()
        now = datetime.now(UTC) + timedelta(hours=1)
        site = Site(DictLedger(), registry, artifacts, folder, now)
        attempts = Attempts(site)
        acting = False

        def act() -> None:
            nonlocal acting
            if acting:
                return
            acting = True
            for _ in range(data.draw(st.integers(0, 4))):
                if len(attempts.begun) < 5 and data.draw(st.booleans()):
                    content = data.draw(st.sampled_from(Attempts.CONTENTS))
                    attempts.begin(data.draw(st.sampled_from(["r-1", "r-2"])), content)
                attempts.step(data.draw(st.integers(0, 5)))
            acting = False

        stores = [Between(store, act) for store in (artifacts, site.ledger, registry)]
        for _ in range(5):
            list(Collector(*stores, older_than_s=0.0, retention_s=RETENTION_S, clock=lambda: now).collect())
            assert set(attempts.wanted.values()) <= site.left()
        attempts.finish()
        assert set(attempts.wanted.values()) <= site.left()
        registry.disconnect()


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["r-1", "r-2"]), st.sampled_from(Attempts.CONTENTS)), min_size=1, max_size=6))
def test_when_all_has_ended_exactly_what_is_named_is_left(tried: list[tuple[str, bytes]]) -> None:
    with TemporaryDirectory() as directory:
        folder = Path(directory)
        registry, artifacts = SqliteRegistry(folder / "registry.sqlite"), DirectoryStore(folder / "artifacts")
        for store in (registry, artifacts):
            store.prepare()
        site = Site(DictLedger(), registry, artifacts, folder, datetime.now(UTC) + timedelta(hours=1))
        attempts = Attempts(site)
        for request_id, content in tried:
            attempts.begin(request_id, content)
        attempts.finish()
        site.gc()
        assert site.left() == set(attempts.wanted.values())
        registry.disconnect()
