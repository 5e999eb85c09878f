"""One contract for every registry: SQLite and MongoDB."""

from __future__ import annotations

import itertools
import multiprocessing
import random
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from bson import ObjectId
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from pymongo.database import Database
from pymongo.errors import DuplicateKeyError

from pipeline.databases.mongodb import connect
from pipeline.errors import NotFoundError, RejectedError
from pipeline.jobs import Outcome, RegisteredModel, SplitSummary
from pipeline.registry import Registry, Usage
from pipeline.registry.mongodb import MongoRegistry
from tests.contract.stores import ADAPTERS, AT, Place, failed, patiently, place_for, refused_when, registered
from tests.services.mongodb import MongoDB


@pytest.fixture(params=ADAPTERS)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    place = place_for(request.param, request, tmp_path)
    with place.registry() as registry:
        registry.prepare()
    return place


@pytest.fixture
def registry(place: Place) -> Iterator[Registry]:
    with place.registry() as registry:
        yield registry


def versions(models: dict[str, RegisteredModel]) -> dict[str, int]:
    return {request_id: model.version_number for request_id, model in models.items()}


def test_versions_count_from_one_for_each_model_of_each_project(registry: Registry) -> None:
    assert versions(dict(registry.register([registered("r-1")]))) == {"r-1": 1}
    group = [registered("r-2"), registered("r-3", "other"), registered("r-4", project="p"), registered("r-5")]
    assert versions(dict(registry.register(group))) == {"r-2": 2, "r-3": 1, "r-4": 1, "r-5": 3}
    assert versions(dict(registry.register([registered("r-6", "other")]))) == {"r-6": 2}


def test_outcomes_of_one_model_get_their_versions_in_the_order_given(registry: Registry) -> None:
    ids = [f"r-{n}" for n in range(20)]
    random.Random(7).shuffle(ids)
    models = registry.register([registered(i) for i in ids])
    assert sorted(ids, key=lambda i: models[i].version_number) == ids


def test_a_request_that_has_a_document_keeps_it(registry: Registry) -> None:
    first = registry.register([registered("r-1"), registered("r-2")])
    again = registry.register([registered("r-3"), registered("r-1"), registered("r-4"), registered("r-2")])
    assert again["r-1"] == first["r-1"]
    assert again["r-2"] == first["r-2"]
    assert versions(dict(again)) == {"r-1": 1, "r-2": 2, "r-3": 3, "r-4": 4}
    assert registry.count() == 4


def test_a_document_never_changes(registry: Registry) -> None:
    first = registry.register([registered("r-1")])
    assert registry.register([registered("r-1", algorithm="svm")]) == first
    assert registry.register([registered("r-1", "another_model")]) == first
    assert registry.find(["r-1"]) == first
    assert registry.count() == 1
    assert versions(dict(registry.register([registered("r-2", "another_model")]))) == {"r-2": 1}


def test_a_document_is_read_back_as_it_was_written(place: Place) -> None:
    trap = {"$ref": "models", "$id": "7"}  # what MongoDB's drivers take for a reference
    outcomes = [
        registered("r-1"),
        registered("r-2", tags=trap, metrics={"$id": 1.0, "$ref": -0.5}, hyperparameters={"a": [1, 2.0, None]}),
        registered("r-3", hyperparameters={}, features=(), tags={}, warnings=("one", "two"), file_id=None),
        registered("r-4", split_summary=SplitSummary("time", 7, 2, "day", 1, "2026-01-31", "2026-02-02")),
    ]
    with place.registry() as registry:
        written = registry.register(outcomes)
    for outcome in outcomes:
        assert written[outcome.request_id] == RegisteredModel.of(outcome, written[outcome.request_id].version_number)
    with place.registry() as registry:
        assert registry.find([outcome.request_id for outcome in outcomes]) == written
        assert {model.request_id: model for model in registry.list()} == written
        assert registry.get("default", "churn", 2) == written["r-2"]


def test_a_document_of_a_release_without_split_summary_is_read() -> None:
    model = RegisteredModel.of(registered("r-1"), 1)
    document = model.to_document()
    del document["split_summary"]
    assert RegisteredModel.from_document(document) == model


def test_an_outcome_without_a_model_is_a_bug_and_nothing_is_written(registry: Registry) -> None:
    with pytest.raises(ValueError, match="r-2 ended FAILED"):
        registry.register([registered("r-1"), failed("r-2")])
    assert registry.count() == 0


def test_find_knows_the_requests_that_have_a_document(registry: Registry) -> None:
    models = registry.register([registered("r-1"), registered("r-2", "other")])
    assert registry.find(["r-1", "r-2", "r-3"]) == models
    assert registry.find([]) == {}
    assert registry.register([]) == {}


def test_get_gives_the_newest_version_or_the_one_named(registry: Registry) -> None:
    models = registry.register([registered(f"r-{n}") for n in range(12)])
    assert registry.get("default", "churn") == models["r-11"]
    assert registry.get("default", "churn", 3) == models["r-2"]


def test_what_does_not_exist_is_answered_with_what_there_is(registry: Registry) -> None:
    with pytest.raises(NotFoundError, match="project default has no model churn; it has no models"):
        registry.get("default", "churn")
    registry.register([registered("r-1"), registered("r-2"), registered("r-3", "iris"), registered("r-4", project="p")])
    with pytest.raises(NotFoundError, match="default/churn has no version v9; there is v1 to v2"):
        registry.get("default", "churn", 9)
    with pytest.raises(NotFoundError, match="default/iris has no version v2; there is only v1"):
        registry.get("default", "iris", 2)
    with pytest.raises(NotFoundError, match=r"project default has no model chrun; there is churn$"):
        registry.get("default", "chrun")
    with pytest.raises(NotFoundError, match="project default has no model x; there is churn, iris"):
        registry.get("default", "x", 1)
    with pytest.raises(NotFoundError, match="project nobody has no model churn; it has no models"):
        registry.get("nobody", "churn")


def test_the_newest_are_listed_first(registry: Registry) -> None:
    days = {"r-1": 2, "r-2": 0, "r-3": 1, "r-4": 1, "r-5": 3}
    outcomes = [registered(i, created_at=AT + timedelta(days=day)) for i, day in days.items()]
    outcomes.append(registered("r-6", "other", "p"))
    registry.register(outcomes)
    assert [model.request_id for model in registry.list(project="default")] == ["r-5", "r-1", "r-4", "r-3", "r-2"]
    assert [model.request_id for model in registry.list(limit=2)] == ["r-5", "r-1"]
    assert [model.request_id for model in registry.list(model_name="other")] == ["r-6"]
    assert list(registry.list(project="p", model_name="churn")) == []
    assert len(registry.list()) == 6


def test_an_equal_training_of_the_project_is_found_by_its_recipe(registry: Registry) -> None:
    outcomes = [
        registered("r-1", reuse_key="one"),
        registered("r-2", reuse_key="one", created_at=AT + timedelta(days=1)),
        registered("r-3", reuse_key="one", project="p", created_at=AT + timedelta(days=2)),
        registered("r-4"),
    ]
    models = registry.register(outcomes)
    assert registry.same("default", "one") == models["r-2"]
    assert registry.same("p", "one") == models["r-3"]
    assert registry.same("default", "other") is None
    assert registry.same("default", "") is None
    registry.archive("default", "churn", 2, AT)
    assert registry.same("default", "one") == models["r-1"]


def test_prepare_may_be_called_again_and_at_once(place: Place) -> None:
    def prepare(_: int) -> None:
        with place.registry() as registry:
            registry.prepare()

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(prepare, range(8)))


PROCESSES, THREADS, EACH, SHARED = 4, 2, 50, 10


def register_much(place: Place, process: int) -> dict[str, int]:
    """In a process of its own: each thread registers requests of its own, and some that all others register too."""
    got: dict[str, int] = {}

    def act(thread: int) -> None:
        own = [f"own-{process}-{thread}-{n}" for n in range(EACH - SHARED)]
        ids = own + [f"shared-{n}" for n in range(SHARED)]
        random.Random(f"{process} {thread}").shuffle(ids)
        with place.registry() as registry:
            while ids:
                group, ids = ids[:3], ids[3:]
                models = registry.register([registered(i) for i in group])
                assert set(models) == set(group)
                got.update({i: model.version_number for i, model in models.items()})

    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(act, range(THREADS)))
    return got


def test_four_processes_that_register_one_model_leave_no_gap_and_collide_nowhere(place: Place) -> None:
    with ProcessPoolExecutor(PROCESSES, multiprocessing.get_context("spawn")) as pool:
        answers = list(pool.map(register_much, itertools.repeat(place), range(PROCESSES)))
    expected = PROCESSES * THREADS * (EACH - SHARED) + SHARED
    agreed: dict[str, set[int]] = defaultdict(set)
    for answer in answers:
        for request_id, version in answer.items():
            agreed[request_id].add(version)
    assert all(len(numbers) == 1 for numbers in agreed.values())
    assert sorted(n for numbers in agreed.values() for n in numbers) == list(range(1, expected + 1))
    with place.registry() as registry:
        stored = registry.list(limit=10_000)
        assert {model.request_id: {model.version_number} for model in stored} == agreed


def test_an_archived_version_is_found_only_where_it_is_named(registry: Registry) -> None:
    models = registry.register([registered("r-1"), registered("r-2"), registered("r-3", "iris")])
    archived = registry.archive("default", "churn", 2, AT)
    assert archived == replace(models["r-2"], archived_at=AT)
    assert registry.get("default", "churn", 2) == archived
    assert registry.find(["r-2"]) == {"r-2": archived}
    assert registry.get("default", "churn") == models["r-1"]
    assert {one.request_id for one in registry.list()} == {"r-1", "r-3"}
    assert {one.request_id for one in registry.list(archived=True)} == {"r-1", "r-2", "r-3"}
    assert [one.request_id for one in registry.list(model_name="churn", archived=True, limit=1)] == ["r-2"]
    assert registry.count() == 3


def test_archiving_changes_nothing_else_and_can_be_undone(registry: Registry) -> None:
    models = registry.register([registered("r-1"), registered("r-2", project="p")])
    registry.archive("default", "churn", 1, AT)
    assert registry.archive("default", "churn", 1, AT + timedelta(days=1)).archived_at == AT, "the first moment stands"
    assert registry.register([registered("r-1")])["r-1"] == replace(models["r-1"], archived_at=AT)
    assert registry.get("p", "churn") == models["r-2"]
    for _ in range(2):
        assert registry.archive("default", "churn", 1, None) == models["r-1"]
    assert registry.get("default", "churn") == models["r-1"]


def test_archived_versions_count_in_versioning(place: Place) -> None:
    with place.registry() as registry:
        registry.register([registered("r-1"), registered("r-2")])
        for number in (1, 2):
            registry.archive("default", "churn", number, AT)
        assert versions(dict(registry.register([registered("r-3")]))) == {"r-3": 3}
        registry.archive("default", "churn", 3, AT)
    with place.registry() as registry:  # one that remembers nothing
        assert versions(dict(registry.register([registered("r-4")]))) == {"r-4": 4}
        assert registry.get("default", "churn").request_id == "r-4"


def test_a_model_with_archived_versions_alone_says_so(registry: Registry) -> None:
    registry.register([registered("r-1"), registered("r-2"), registered("r-3", "iris")])
    for name, number in (("churn", 1), ("churn", 2), ("iris", 1)):
        registry.archive("default", name, number, AT)
    with pytest.raises(NotFoundError, match=r"default/churn has no version that is not archived \(v1 to v2 all are\)"):
        registry.get("default", "churn")
    with pytest.raises(NotFoundError, match=r"default/iris has no version that is not archived \(v1 is\)"):
        registry.get("default", "iris")
    with pytest.raises(NotFoundError, match="default/churn has no version v9; there is v1 to v2"):
        registry.archive("default", "churn", 9, AT)
    with pytest.raises(NotFoundError, match="project default has no model x; there is churn, iris"):
        registry.archive("default", "x", 1, None)


def test_what_a_project_takes_is_that_of_its_versions_in_use(registry: Registry) -> None:
    assert registry.usage("default") == Usage(0, 0)
    sizes = {"r-1": 10, "r-2": 5_000_000_000, "r-3": 300}
    registry.register([registered(i, artifact_bytes=size) for i, size in sizes.items()])
    registry.register([registered("r-4", "other", artifact_bytes=7), registered("r-5", project="p", artifact_bytes=9)])
    assert registry.usage("default") == Usage(4, 5_000_000_317)
    registry.archive("default", "churn", 2, AT)
    assert registry.usage("default") == Usage(3, 317)
    assert registry.usage("p") == Usage(1, 9)
    registry.archive("default", "churn", 2, None)
    assert registry.usage("default").models == 4


class RegistryMachine(RuleBasedStateMachine):
    """Two registries over one store, each remembering what it likes, against a dict; models of each run are its own."""

    registries: tuple[Registry, Registry]
    runs = 0

    @initialize()
    def begin(self) -> None:
        type(self).runs += 1
        self.model: dict[str, RegisteredModel] = {}

    def outcome(self, request: str) -> Outcome:
        """A request belongs to one model, as its first letter says."""
        return registered(f"{self.runs}/{request}", request[0], f"p{self.runs}")

    @rule(
        which=st.integers(0, 1),
        requests=st.lists(st.builds("{}{}".format, st.sampled_from("abc"), st.integers(0, 7)), unique=True, max_size=8),
    )
    def register(self, which: int, requests: list[str]) -> None:
        outcomes = [self.outcome(request) for request in requests]
        for outcome in outcomes:
            if outcome.request_id not in self.model:
                version = 1 + sum(m.model.model_name == outcome.model_name for m in self.model.values())
                self.model[outcome.request_id] = RegisteredModel.of(outcome, version)
        expected = {outcome.request_id: self.model[outcome.request_id] for outcome in outcomes}
        assert self.registries[which].register(outcomes) == expected

    @rule(which=st.integers(0, 1), data=st.data(), undo=st.booleans())
    def archive(self, which: int, data: st.DataObject, undo: bool) -> None:
        if self.model:
            request_id = data.draw(st.sampled_from(sorted(self.model)))
            one = self.model[request_id]
            self.model[request_id] = replace(one, archived_at=None if undo else AT)
            version = (one.model.project, one.model.model_name, one.version_number)
            archived = self.registries[which].archive(*version, None if undo else AT)
            assert archived == self.model[request_id]

    @invariant()
    def the_store_holds_what_the_dict_holds(self) -> None:
        for registry in self.registries:
            stored = registry.list(project=f"p{self.runs}", archived=True)
            shown = registry.list(project=f"p{self.runs}")
            in_use = {model.request_id for model in self.model.values() if model.archived_at is None}
            assert {model.request_id for model in shown} == in_use
            assert {model.request_id: model for model in stored} == self.model
            assert registry.find([model.request_id for model in stored]) == self.model
            for name in "abc":
                of_name = [m for m in self.model.values() if m.model.model_name == name]
                numbers = [m.version_number for m in of_name if m.archived_at is None]
                if numbers:
                    assert registry.get(f"p{self.runs}", name).version_number == max(numbers)


@pytest.mark.parametrize("adapter", ADAPTERS)
def test_any_sequence_of_registrations_is_answered_as_by_a_dict(
    adapter: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    place = place_for(adapter, request, tmp_path)
    with place.registry() as one, place.registry() as two:
        one.prepare()
        machine = type("Machine", (RegistryMachine,), {"registries": (one, two)})
        run_state_machine_as_test(
            machine,
            settings=settings(
                max_examples=30,
                stateful_step_count=15,
                deadline=None,
                suppress_health_check=[HealthCheck.too_slow],
            ),
        )


class TestMongoDB:
    """What is MongoDB's alone."""

    @pytest.fixture
    def mongo_registry(self, mongo_database: Database[dict[str, Any]]) -> MongoRegistry:
        registry = MongoRegistry(mongo_database, "models")
        registry.prepare()
        return registry

    @pytest.fixture
    def legacy(self, mongo_database: Database[dict[str, Any]]) -> list[ObjectId]:
        """Two versions of a model, as the replaced worker wrote them; the ids of their documents."""
        document = {
            "name": "churn",
            "model_name": "churn",
            "algorithm": "svm",
            "hyperparameters": {"C": 1.0, "kernel": "rbf"},
            "metrics": {"train_accuracy": 1, "test_accuracy": 0.9, "training_time": float("nan"), "report": "…"},
            "dataset_name": "iris",
            "features": ["sepal length"],
            "target_column": "species",
            "file_id": ObjectId("65f000000000000000000000"),
            "training_time": 2,
        }
        seconds = [1_700_000_000, 1_700_000_060]
        return [
            mongo_database["models"]
            .insert_one({**document, "version": f"v{at}", "created_at": datetime.fromtimestamp(at, UTC)})
            .inserted_id
            for at in seconds
        ]

    def test_documents_of_the_replaced_worker_may_be_there_before_the_indexes(
        self, legacy: list[ObjectId], mongo_registry: MongoRegistry
    ) -> None:
        assert versions(dict(mongo_registry.register([registered("r-1")]))) == {"r-1": 1}
        assert mongo_registry.usage("default").models == 1
        assert mongo_registry.get("default", "churn").request_id == "r-1"
        assert mongo_registry.count() == 3

    def test_documents_of_the_replaced_worker_are_listed_with_blanks_for_what_they_do_not_say(
        self, legacy: list[ObjectId], mongo_registry: MongoRegistry
    ) -> None:
        mongo_registry.register([registered("r-1", project="p")])
        newest, oldest = mongo_registry.list(project="default")
        assert list(mongo_registry.list(model_name="churn"))[1:] == [newest, oldest]
        assert (newest.version, oldest.version) == ("v1700000060", "v1700000000")
        assert newest.request_id == newest.worker_id == newest.correlation_id == ""
        model = newest.model
        assert (model.name, model.model_name, model.algorithm) == ("churn", "churn", "svm")
        assert model.metrics == {"train_accuracy": 1.0, "test_accuracy": 0.9}
        assert (model.model_id, model.artifact_format) == (str(legacy[1]), "pickle")
        assert (model.artifact_uri, model.file_id) == (f"gridfs://fs/{'65f' + '0' * 21}", "65f" + "0" * 21)
        assert (model.artifact_sha256, model.artifact_bytes, model.signature) == ("", 0, ())
        assert model.created_at == datetime.fromtimestamp(1_700_000_060, UTC)

    def test_a_model_that_only_the_replaced_worker_trained_is_shown(
        self, legacy: list[ObjectId], mongo_registry: MongoRegistry
    ) -> None:
        assert mongo_registry.get("default", "churn").version == "v1700000060"
        assert mongo_registry.get("default", "churn", 1_700_000_000).model.model_id == str(legacy[0])
        with pytest.raises(NotFoundError, match="project default has no model chrun; there is churn"):
            mongo_registry.get("default", "chrun")
        with pytest.raises(NotFoundError):
            mongo_registry.get("p", "churn")
        mongo_registry.register([registered("r-1")])
        assert mongo_registry.get("default", "churn").version == "v1"
        assert mongo_registry.get("default", "churn", 1_700_000_000).model.model_id == str(legacy[0])

    def test_a_document_that_says_next_to_nothing_is_shown(
        self, mongo_registry: MongoRegistry, mongo_database: Database[dict[str, Any]]
    ) -> None:
        _id = mongo_database["models"].insert_one({"name": "old", "version": "latest"}).inserted_id
        (model,) = mongo_registry.list()
        assert (model.version_number, model.model.model_name) == (0, "old")
        assert model.model.created_at == _id.generation_time
        with pytest.raises(NotFoundError, match="project default has no model new; it has no models"):
            mongo_registry.get("default", "new")

    def test_a_document_of_the_replaced_worker_is_not_archived(
        self, legacy: list[ObjectId], mongo_registry: MongoRegistry, mongo_database: Database[dict[str, Any]]
    ) -> None:
        with pytest.raises(RejectedError, match="v1700000000 is of the replaced worker and never written"):
            mongo_registry.archive("default", "churn", 1_700_000_000, AT)
        assert "archived_at" not in (mongo_database["models"].find_one({"_id": legacy[0]}) or {})

    def test_documents_from_before_there_was_an_archive_are_in_use(
        self, mongo_registry: MongoRegistry, mongo_database: Database[dict[str, Any]]
    ) -> None:
        models = mongo_registry.register([registered("r-1")])
        mongo_database["models"].update_one({}, {"$unset": {"archived_at": ""}})
        assert mongo_registry.get("default", "churn") == models["r-1"]
        assert mongo_registry.archive("default", "churn", 1, AT).archived_at == AT
        assert mongo_registry.list() == []

    def test_the_indexes_refuse_a_version_or_a_request_twice(
        self, mongo_registry: MongoRegistry, mongo_database: Database[dict[str, Any]]
    ) -> None:
        stored = mongo_registry.register([registered("r-1")])["r-1"]
        for twin in (replace(stored, request_id="r-2"), replace(stored, version_number=2)):
            with pytest.raises(DuplicateKeyError):
                mongo_database["models"].insert_one(twin.to_document())

    def test_a_server_that_dies_in_the_middle_leaves_no_gap(
        self, mongodb: MongoDB, mongo_database: Database[dict[str, Any]]
    ) -> None:
        with connect(mongodb.url) as client:
            registry = MongoRegistry(client[mongo_database.name])
            registry.prepare()

            def group(n: int) -> list[Outcome]:
                return [registered(f"r-{n}-{m}", f"m-{m % 20}") for m in range(40)]

            n, _ = refused_when(mongodb.kill, lambda n: registry.register(group(n)))
            mongodb.restart()
            assert len(patiently(lambda: registry.register(group(n)))) == 40
            numbers: dict[str, list[int]] = defaultdict(list)
            for model in registry.list(limit=1_000_000):
                numbers[model.model.model_name].append(model.version_number)
            assert len(numbers) == 20
            for name in numbers:
                assert sorted(numbers[name]) == list(range(1, len(numbers[name]) + 1))


def test_models_are_found_by_dataset_and_tags(registry: Registry) -> None:
    registry.register(
        [
            registered("r-1", tags={"team.name": "churn", "$a": "x"}),
            registered("r-2", tags={"team.name": "other"}),
            registered("r-3", tags={"team.name": "churn"}, dataset_name="wine"),
        ]
    )

    def found(**wanted: Any) -> set[str]:
        return {one.request_id for one in registry.list(**wanted)}

    assert found(tags={"team.name": "churn"}) == {"r-1", "r-3"}
    assert found(tags={"team.name": "churn", "$a": "x"}) == {"r-1"}
    assert found(dataset_name="wine") == {"r-3"}
    assert found(dataset_name="iris", tags={"team.name": "$team"}) == set()
