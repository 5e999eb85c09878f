"""What MongoDB does for each call of a store: it reads by an index, and reads about what it answers with.

Every public method of a store's protocol is called, on collections of thousands of documents of which few match, and
the server explains each command that it sends. Promotion, archiving and collecting garbage are made of these calls.
SQLite, which serves one machine, may read more.
"""

from __future__ import annotations

import inspect
import sqlite3
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pymongo.database import Database
from pymongo.monitoring import CommandListener, CommandStartedEvent

from pipeline.aliases import Alias, AliasStore
from pipeline.aliases.mongodb import MongoAliases
from pipeline.aliases.sqlite import SqliteAliases
from pipeline.artifacts import ArtifactStore, NewArtifact
from pipeline.artifacts.directory import DirectoryStore
from pipeline.artifacts.gridfs import GridFSStore
from pipeline.databases.mongodb import Document, connect
from pipeline.datasets import DatasetStore
from pipeline.datasets.directory import DirectorySource
from pipeline.datasets.mongodb import MongoSource
from pipeline.datasets.sink import Sink
from pipeline.errors import NotFoundError, RejectedError
from pipeline.ledger import Ledger, Owner
from pipeline.ledger.mongodb import MongoLedger
from pipeline.ledger.sqlite import SqliteLedger
from pipeline.registry import Registry
from pipeline.registry.mongodb import MongoRegistry
from pipeline.registry.sqlite import SqliteRegistry
from tests.contract.stores import AT, failed, registered
from tests.contract.test_aliases import change
from tests.contract.test_ledger import CANCEL, claim_of, new
from tests.services.mongodb import MongoDB

MANY = 2_000
FEW = 5
SLACK = 20
"""Documents that a command may read beyond twice those that it answers with."""
ME = Owner("w-1", 1)
SECOND = timedelta(seconds=1)
ROWS = pa.table({"height": [1.5, 2.5], "tall": ["no", "yes"]})
IDS = [f"r-{n}" for n in range(FEW)]
RARE = [f"rare-{n}" for n in range(FEW)]
FILE = "p1/m1/r-1/" + "ab" * 32 + ".zip"

FILTERS: Sequence[Mapping[str, Any]] = [
    {},
    {"project": "default"},
    {"project": "rare"},
    {"project": "p1"},
    {"model_name": "rare"},
    {"model_name": "m1"},
    {"dataset_name": "rare"},
    {"dataset_name": "d1"},
    {"project": "p1", "model_name": "rare"},
    {"project": "p1", "dataset_name": "rare"},
]
"""What lists are asked for: what many documents have, what few have, and what none has of many."""


@dataclass(frozen=True, slots=True)
class Opened:
    ledger: Ledger
    registry: Registry
    aliases: AliasStore
    artifacts: ArtifactStore
    datasets: DatasetStore

    def prepare(self) -> None:
        for store in (self.ledger, self.registry, self.aliases, self.artifacts):
            store.prepare()


def _said(by: Mapping[str, Any]) -> str:
    return " ".join(f"{name}={text}" for name, text in by.items())


def _requests(by: Mapping[str, Any], stores: Opened, _: Path) -> object:
    return stores.ledger.requests(**by, limit=10)


def _list(by: Mapping[str, Any], stores: Opened, _: Path) -> object:
    return stores.registry.list(**by, limit=10)


CALLS: Mapping[str, Callable[[Opened, Path], object]] = {
    "Ledger.prepare": lambda s, _: s.ledger.prepare(),
    "Ledger.boot": lambda s, _: s.ledger.boot("w-9"),
    "Ledger.heartbeat": lambda s, _: s.ledger.heartbeat(ME, 10, [f"r-{n}" for n in range(MANY)]),
    "Ledger.leave": lambda s, _: s.ledger.leave(ME),
    "Ledger.claim": lambda s, _: s.ledger.claim(ME, [new("new-1")]),
    "Ledger.read": lambda s, _: s.ledger.read(IDS),
    "Ledger.fill_stub": lambda s, _: s.ledger.fill_stub(ME, new("stub")),
    "Ledger.take_over": lambda s, _: s.ledger.take_over(ME, claim_of(s.ledger, "r-1"), lost_worker=True, blame=True),
    "Ledger.start": lambda s, _: s.ledger.start(ME, "r-1"),
    "Ledger.crashed": lambda s, _: s.ledger.crashed(ME, "r-1"),
    "Ledger.blame": lambda s, _: s.ledger.blame(ME, IDS, 1),
    "Ledger.close": lambda s, _: s.ledger.close(ME, [failed("r-1"), failed("r-1", "of another kind")]),
    "Ledger.insert_outcomes": lambda s, _: s.ledger.insert_outcomes([failed("r-1"), failed("new-1")]),
    "Ledger.release": lambda s, _: s.ledger.release(ME, ["r-1", "r-2"]),
    "Ledger.cancel": lambda s, _: s.ledger.cancel("stub", CANCEL),
    "Ledger.cancel of what has ended": lambda s, _: s.ledger.cancel("r-1", CANCEL),
    **{f"Ledger.requests {_said(by)}": partial(_requests, by) for by in FILTERS if "dataset_name" not in by},
    "Ledger.requests unfinished": lambda s, _: s.ledger.requests(unfinished=True),
    "Registry.prepare": lambda s, _: s.registry.prepare(),
    "Registry.register": lambda s, _: s.registry.register([registered("new-1", "m1", "p1"), registered("r-1")]),
    "Registry.find": lambda s, _: s.registry.find(IDS),
    "Registry.get": lambda s, _: s.registry.get("p1", "m1"),
    "Registry.get a version": lambda s, _: s.registry.get("p1", "m1", 3),
    "Registry.get no such version": lambda s, _: s.registry.get("p1", "m1", 300),
    "Registry.get no such model": lambda s, _: s.registry.get("p1", "nothing"),
    "Registry.get a legacy document": lambda s, _: s.registry.get("default", "legacy1"),
    "Registry.get a legacy version": lambda s, _: s.registry.get("default", "legacy1", 1_700_000_001),
    **{f"Registry.list {_said(by)}": partial(_list, by) for by in FILTERS},
    "Registry.list with archived ones": lambda s, _: s.registry.list(archived=True),
    "Registry.list where all are archived": lambda s, _: s.registry.list(project="old"),
    "Registry.list with a tag": lambda s, _: s.registry.list(tags={"rare": "yes"}),
    "Registry.archive": lambda s, _: s.registry.archive("p1", "m1", 1, AT),
    "Registry.archive again": lambda s, _: s.registry.archive("p1", "m1", 1, AT),
    "Registry.same": lambda s, _: s.registry.same("p1", "key-1"),
    "Registry.usage": lambda s, _: s.registry.usage("p1"),
    "Registry.usage where all are archived": lambda s, _: s.registry.usage("old"),
    "Registry.count": lambda s, _: s.registry.count(),
    "AliasStore.prepare": lambda s, _: s.aliases.prepare(),
    "AliasStore.get": lambda s, _: s.aliases.get("p1", "m1", "a1"),
    "AliasStore.list": lambda s, _: s.aliases.list(),
    "AliasStore.list of a project": lambda s, _: s.aliases.list(project="rare"),
    "AliasStore.list of a model": lambda s, _: s.aliases.list(model_name="rare"),
    "AliasStore.list of a project's model": lambda s, _: s.aliases.list(project="p1", model_name="m1"),
    "AliasStore.change": lambda s, _: s.aliases.change("p1", "m1", "a1", change(2)),
    "AliasStore.change that comes again": lambda s, _: s.aliases.change("p1", "m1", "a1", change(1)),
    "AliasStore.unannounced": lambda s, _: s.aliases.unannounced(),
    "AliasStore.announced": lambda s, _: s.aliases.announced(_there(s.aliases.get("rare", "rare", "rare"))),
    "ArtifactStore.prepare": lambda s, _: s.artifacts.prepare(),
    "ArtifactStore.put": lambda s, folder: s.artifacts.put([_file(folder, "p1/m1/new-1/1.zip")]),
    "ArtifactStore.fetch": lambda s, folder: s.artifacts.fetch(s.artifacts.list(FILE)[0], folder / "fetched"),
    "ArtifactStore.delete": lambda s, _: s.artifacts.delete(s.artifacts.list("p1/m2/")[0]),
    "ArtifactStore.list": lambda s, _: s.artifacts.list("p1/m1/r-1/"),
    "ArtifactStore.listing": lambda s, _: s.artifacts.listing(),
    "DatasetStore.revision": lambda s, _: s.datasets.revision("d1"),
    "DatasetStore.revision of a version": lambda s, _: s.datasets.revision("sizes.v1"),
    "DatasetStore.revision of nothing": lambda s, _: s.datasets.revision("nothing"),
    "DatasetStore.load": lambda s, _: s.datasets.load("sizes"),
    "DatasetStore.fetch": lambda s, folder: s.datasets.fetch("sizes", Sink(folder / "sizes", None)),
    "DatasetStore.list": lambda s, _: s.datasets.list(),
    "DatasetStore.add": lambda s, _: s.datasets.add("more", ROWS, "tall"),
    "DatasetStore.versions": lambda s, _: s.datasets.versions("sizes"),
    "DatasetStore.restore": lambda s, _: s.datasets.restore("sizes", 1),
    "DatasetStore.prune": lambda s, _: s.datasets.prune("sizes", 1),
}
ELSEWHERE = {"DatasetStore.point": "sends what add does, and needs S3"}
MORE_THAN_IT_ANSWERS = {
    "Ledger.requests unfinished": "whether a request has ended is in another collection; its docstring says so",
    "Registry.list with a tag": "no index has tags, which are free text: the newest are read until enough match",
    "Registry.usage": "adds up the entries of what is in use in an index, and reads no document",
    "Registry.count": "counts the entries of an index",
    "AliasStore.list of a model": "for people, of all projects: reads the entries of all aliases in an index",
    "DatasetStore.prune": "looks for the file in all documents of datasets; there are few",
}
READ_WHOLE_IN_SQLITE = {
    "Ledger.prepare": "old stubs, once at the start",
    "Ledger.read": "the workers of one machine",
    "Ledger.take_over": "as read, which comes before it here",
    "Ledger.requests": "for people: the newest are read until enough match",
    "Registry.list": "for people: the newest are read until enough match",
    "Registry.count": "counts the entries of an index",
    "AliasStore.list": "there are few",
    "AliasStore.unannounced": "there are few",
}

SENT_ASIDE = frozenset({"lsid", "readConcern", "writeConcern", "maxTimeMS", "txnNumber"})
WRITES = {"update": "updates", "delete": "deletes"}
SQLITE_QUERIES = ("SELECT", "UPDATE", "DELETE")
WITHOUT_PLAN = frozenset(
    {"ping", "insert", "getMore", "killCursors", "createIndexes", "listIndexes", "listCollections"}
)


@dataclass
class Sent(CommandListener):
    """The commands that a client sends and that have a plan, each as `explain` takes it."""

    commands: list[Document] = field(default_factory=list)

    def started(self, event: CommandStartedEvent) -> None:
        name = event.command_name
        command = {k: v for k, v in event.command.items() if k not in SENT_ASIDE and not k.startswith("$")}
        if name in WRITES:
            self.commands += [{**command, WRITES[name]: [one]} for one in command[WRITES[name]]]
        elif name not in WITHOUT_PLAN:
            self.commands.append(command)

    def succeeded(self, event: object) -> None:
        pass

    def failed(self, event: object) -> None:
        pass


@dataclass(frozen=True)
class Plan:
    """How the server runs one command.

    Attributes:
        scans: whether it reads a whole collection.
        sorts: whether it sorts without a limit, in memory.
        examined: entries of indexes or documents, whichever are more.
        documents: how many it examines.
    """

    command: Document
    scans: bool
    sorts: bool
    indexes: frozenset[str]
    answered: int
    examined: int
    documents: int

    @property
    def is_bounded(self) -> bool:
        if self.examined <= SLACK:
            return True
        return self.examined <= 2 * self.answered + SLACK and not self.scans and not self.sorts


def plan_of(database: Database[Document], command: Document) -> Plan:
    explained = database.command({"explain": command, "verbosity": "executionStats"})
    first, *further = explained.get("stages", [explained])
    ran = first.get("$cursor", first)["executionStats"]
    stages, lookups = [*_stages(ran["executionStages"])], [stage for stage in further if "$lookup" in stage]
    answered: int = (further or [ran])[-1]["nReturned"]
    if "distinct" in command:
        answered = len(database.command(command)["values"])
    return Plan(
        command,
        any(stage["stage"] == "COLLSCAN" for stage in stages) or any(one["collectionScans"] for one in lookups),
        any(stage["stage"] == "SORT" and not stage.get("limitAmount") for stage in stages)
        or any("limit" not in stage["$sort"] for stage in further if "$sort" in stage),
        frozenset(stage["indexName"] for stage in stages if "indexName" in stage).union(
            *(one["indexesUsed"] for one in lookups)
        ),
        answered,
        sum(max(part["totalKeysExamined"], part["totalDocsExamined"]) for part in (ran, *lookups)),
        sum(part["totalDocsExamined"] for part in (ran, *lookups)),
    )


def _stages(stage: Document) -> Iterator[Document]:
    yield stage
    for below in (*stage.get("inputStages", ()), *([stage["inputStage"]] if "inputStage" in stage else ())):
        yield from _stages(below)


@pytest.fixture(scope="module")
def stores(mongodb: MongoDB, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Opened, Sent, Database[Any]]]:
    """Opened with MANY of everything, of which FEW are rare and the oldest; and what they send from here on."""
    sent = Sent()
    with connect(mongodb.url, listeners=[sent]) as client, mongodb.client() as other:
        database = client[f"t{uuid.uuid4().hex[:12]}"]
        stores = Opened(
            MongoLedger(database),
            MongoRegistry(database),
            MongoAliases(database),
            GridFSStore(database),
            MongoSource(database),
        )
        stores.prepare()
        _fill(stores, tmp_path_factory.mktemp("files"), MANY)
        stores.registry.register([registered(f"old-{n}", f"m{n}", "old") for n in range(MANY // 10)])
        database["model_registry"].update_many({"project": "old"}, {"$set": {"archived_at": AT}})
        legacy = {"version": "v1700000001", "created_at": AT - SECOND}
        database["model_registry"].insert_many([{"model_name": f"legacy{n}", **legacy} for n in range(MANY // 4)])
        sizes = database["datasets"].find_one({"name": "sizes"}, {"_id": 0}) or {}
        database["datasets"].insert_many([{**sizes, "name": f"d{n}", "versions": []} for n in range(MANY // 10)])
        yield stores, sent, other[database.name]
        other.drop_database(database.name)


@pytest.fixture(scope="module")
def plans(
    stores: tuple[Opened, Sent, Database[Any]], tmp_path_factory: pytest.TempPathFactory
) -> Mapping[str, Sequence[Plan]]:
    """The plans of all commands that each call sends, explained right after it."""
    opened, sent, database = stores
    found = {}
    for name, call in CALLS.items():
        sent.commands.clear()
        with suppress(NotFoundError, RejectedError):
            call(opened, tmp_path_factory.mktemp("call"))
        commands = sent.commands.copy()
        found[name] = [plan_of(database, command) for command in commands]
    return found


def _fill(stores: Opened, folder: Path, many: int) -> None:
    file, sha256 = folder / "file", "ab" * 32
    file.write_bytes(b"a model")
    stores.ledger.boot("w-1")
    rare: dict[str, Any] = {"project": "rare", "model_name": "rare"}
    stores.ledger.claim(ME, [new(i, **rare) for i in RARE])
    stores.registry.register([registered(i, **rare, dataset_name="rare", created_at=AT - SECOND) for i in RARE])
    stores.aliases.change("rare", "rare", "rare", change(1))
    models = {f"r-{n}": (f"m{n % 99}", f"p{n % 4}") for n in range(many)}
    stores.ledger.claim(ME, [new(i, model_name=name, project=project) for i, (name, project) in models.items()])
    stores.ledger.insert_outcomes([failed(i) for i in models])
    stores.registry.register(
        [
            registered(i, *model, dataset_name=f"d{n % 3}", reuse_key=f"key-{n % 7}", created_at=AT + n * SECOND)
            for n, (i, model) in enumerate(models.items())
        ]
    )
    stores.artifacts.put(
        [NewArtifact(f"{project}/{name}/{i}/{sha256}.zip", file, sha256, 7) for i, (name, project) in models.items()]
    )
    for n in range(many // 10):
        stores.aliases.announced(_there(stores.aliases.change(f"p{n % 4}", f"m{n % 99}", f"a{n}", change(1))))
    for height in range(FEW):
        stores.datasets.add("sizes", ROWS.set_column(0, "height", [[float(height), 2.0]]), "tall")


def _file(folder: Path, key: str) -> NewArtifact:
    path = folder / "file"
    path.write_bytes(b"another model")
    return NewArtifact(key, path, "cd" * 32, 13)


def _there(found: Alias | None) -> Alias:
    assert found is not None
    return found


def test_every_method_of_every_store_is_called() -> None:
    protocols = (Ledger, Registry, AliasStore, ArtifactStore, DatasetStore)
    methods = {f"{one.__name__}.{name}" for one in protocols for name in dir(one) if not name.startswith("_")}
    assert {name.partition(" ")[0] for name in CALLS} | ELSEWHERE.keys() == methods
    filters = inspect.signature(Registry.list).parameters.keys() - {"self", "tags", "archived", "limit"}
    assert {name for by in FILTERS for name in by} == filters


@pytest.mark.parametrize("name", [name for name in CALLS if name not in MORE_THAN_IT_ANSWERS])
def test_a_call_reads_about_what_it_answers_with_by_an_index(name: str, plans: Mapping[str, Sequence[Plan]]) -> None:
    assert [plan for plan in plans[name] if not plan.is_bounded] == []


@pytest.mark.parametrize("name", MORE_THAN_IT_ANSWERS)
def test_what_is_said_to_read_more_does(name: str, plans: Mapping[str, Sequence[Plan]]) -> None:
    assert any(not plan.is_bounded for plan in plans[name])


def test_an_index_covers_what_a_quota_is_compared_with(plans: Mapping[str, Sequence[Plan]]) -> None:
    assert [plan.documents for plan in plans["Registry.usage"]] == [0]


def test_every_index_is_one_that_a_command_reads_by_or_that_refuses_or_expires_documents(
    plans: Mapping[str, Sequence[Plan]], stores: tuple[Opened, Sent, Database[Any]]
) -> None:
    _, _, database = stores
    used = {
        (next(iter(plan.command.values())), index) for one in plans.values() for plan in one for index in plan.indexes
    }
    unused = {
        (collection, name)
        for collection in database.list_collection_names()
        for name, index in database[collection].index_information().items()
        if name != "_id_" and not index.get("unique") and "expireAfterSeconds" not in index
    } - used
    assert unused == set()


def test_in_sqlite_only_what_is_said_to_reads_whole_tables_or_sorts_them(tmp_path: Path) -> None:
    path, sent, reading_whole = tmp_path / "stores.sqlite", list[str](), set()
    ledger, registry, aliases = SqliteLedger(path), SqliteRegistry(path), SqliteAliases(path)
    artifacts, datasets = DirectoryStore(tmp_path / "artifacts"), DirectorySource(tmp_path / "datasets")
    stores = Opened(ledger, registry, aliases, artifacts, datasets)
    stores.prepare()
    _fill(stores, tmp_path, FEW)
    for store in (ledger, registry, aliases):
        with store._file.reading() as connection:
            connection.set_trace_callback(sent.append)
    with closing(sqlite3.connect(path)) as other:
        for name in [name for name in CALLS if name.startswith(("Ledger", "Registry", "AliasStore"))]:
            sent.clear()
            with suppress(NotFoundError, RejectedError):
                CALLS[name](stores, tmp_path)
            plans = [other.execute(f"EXPLAIN QUERY PLAN {one}") for one in sent if one.startswith(SQLITE_QUERIES)]
            if any(step.startswith(("SCAN", "USE TEMP B-TREE FOR ORDER BY")) for plan in plans for *_, step in plan):
                reading_whole.add(name.partition(" ")[0])
    assert reading_whole == READ_WHOLE_IN_SQLITE.keys()
    for store in (ledger, registry, aliases):
        store.disconnect()
