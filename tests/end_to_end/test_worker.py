"""Single promises of a worker, each on the real services."""

from __future__ import annotations

import time
import urllib.error
import urllib.request
from collections.abc import Callable
from functools import partial
from typing import Any

import orjson
import pytest
from pymongo.database import Database

from consumer.events.codec import Codec
from consumer.events.schema_registry import SchemaRegistry
from pipeline.aliases.mongodb import MongoAliases
from pipeline.lifecycle.promotion import promote, rollback
from pipeline.registry.mongodb import MongoRegistry
from schemas import RecordType
from tests.end_to_end.evidence import decode, read_topic
from tests.end_to_end.fleet import Fleet
from tests.end_to_end.test_fleet import request
from tests.end_to_end.troubles import progress
from tests.end_to_end.verdict import Verdict
from tests.services.mongodb import MongoDB
from tests.services.schema_registry import SchemaRegistry as SchemaRegistryServer
from tests.services.server import free_ports


@pytest.mark.parametrize(
    "variant",
    [
        {"KAFKA_GROUP_PROTOCOL": "consumer"},
        {"DELIVERY": "at-least-once"},
        {"DELIVERY": "at-least-once", "KAFKA_GROUP_PROTOCOL": "consumer"},
    ],
    ids=["kip-848", "at-least-once", "kip-848-at-least-once"],
)
@pytest.mark.timeout(240)
def test_the_other_group_protocol_and_the_other_delivery_keep_the_promises(
    fleet: Fleet, verdict: Callable[..., Verdict], variant: dict[str, str]
) -> None:
    fleet.create_topics(partitions=4)
    for number in range(2):
        fleet.start(f"w{number}", **variant)
    # A rebalance between events and offsets is where at-least-once repeats.
    for worker in fleet.workers:
        fleet.until(partial(worker.has_said, "partitions assigned"), 60)
    fleet.submit(*(request(f"r{n}", f"m{n % 4}", "decision_tree", "iris") for n in range(40)))
    fleet.submit(request("bad", "m", "nothing", "iris"))
    fleet.await_lag(0)
    assert [worker.drain() for worker in fleet.workers] == [0, 0]
    found = verdict()
    assert found.violations == [], str(found)
    assert (found.models, found.dead_letters, found.trainings_repeated) == (40, 1, 0)


@pytest.mark.timeout(240)
def test_a_mongodb_outage_costs_waiting_and_no_job(
    fleet: Fleet, verdict: Callable[..., Verdict], mongodb: MongoDB
) -> None:
    fleet.create_topics(partitions=4)
    fleet.start("w")
    fleet.submit(*(request(f"r{n}", f"m{n % 4}", "random_forest", "wine") for n in range(30)))
    fleet.await_log(["model registered"])
    mongodb.kill()
    time.sleep(6)  # an outage has a length
    mongodb.restart()
    fleet.await_lag(0, within_s=120)
    found = verdict()
    assert found.violations == [], str(found)
    assert (found.models, found.trainings_repeated) == (30, 0)


@pytest.mark.timeout(240)
def test_a_worker_announces_what_whoever_changed_an_alias_could_not(
    fleet: Fleet, mongo_database: Database[dict[str, Any]]
) -> None:
    """Between the change and its event that one may die."""
    fleet.create_topics()
    fleet.start("w")
    fleet.submit(*(request(f"r-{n}", "m", "decision_tree", "iris", seed=n) for n in range(2)))
    fleet.await_lag(0)
    registry, aliases = MongoRegistry(mongo_database), MongoAliases(mongo_database)
    for number in (1, 2):
        promote(registry, aliases, registry.get("default", "m", number), force=True, user="ann")
    rollback(registry, aliases, "default", "m", user="bob")
    fleet.until(lambda: not aliases.unannounced(), 60)
    servers, topic = fleet.environment["KAFKA_BOOTSTRAP_SERVERS"], fleet.topics.model_aliases
    events = [decode(record.value(), RecordType.MODEL_ALIAS_CHANGED) for record in read_topic(servers, topic)]
    assert [(e["sequence"], e["version"], e["previous_version"], e["reason"], e["user"]) for e in events] == [
        (1, "v1", None, "PROMOTED", "ann"), (2, "v2", "v1", "PROMOTED", "ann"), (3, "v1", "v2", "ROLLED_BACK", "bob"),
    ]  # fmt: skip
    (key,) = {record.key() for record in read_topic(servers, topic)}
    assert key == b"default/m/production"


@pytest.mark.timeout(240)
def test_health_metrics_and_the_log_tell_what_happened_to_a_request(fleet: Fleet) -> None:
    fleet.create_topics()
    (port,) = free_ports(1)
    worker = fleet.start("w", PORT=str(port))
    fleet.submit(request("r", "m", "decision_tree", "iris", correlation_id="order-66"))
    fleet.await_lag(0)

    def get(path: str, method: str = "GET") -> tuple[int, bytes]:
        call = urllib.request.Request(f"http://127.0.0.1:{port}{path}", method=method)
        try:
            with urllib.request.urlopen(call, timeout=5) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()

    fleet.until(lambda: get("/health")[0] == 200)
    health = orjson.loads(get("/health")[1])
    assert health.keys() == {
        "status", "service", "mongodb_connected", "kafka_connected", "artifacts_connected", "timestamp",
        "active_jobs", "models_trained", "assigned_partitions", "version", "services",
    }  # fmt: skip
    assert (health["status"], health["service"], health["models_trained"]) == ("healthy", "ml-worker", 1)
    assert health["assigned_partitions"] == 12
    assert health["services"] == {"kafka": "closed", "mongodb": "closed", "minio": "closed"}
    assert get("/livez")[0] == 200
    assert get("/nothing")[0] == 404
    assert get("/health", "POST")[0] == 405
    metrics = get("/metrics")[1].decode()
    for line in (
        'ml_worker_models_trained_total{algorithm="decision_tree"} 1.0',
        'ml_worker_outcomes_total{kind="REGISTERED"} 1.0',
        "ml_worker_training_duration_seconds_count 1.0",
        'ml_worker_model_accuracy{model_type="classification"}',
        'ml_worker_model_accuracy_distribution_count{model_type="classification"} 1.0',
    ):
        assert line in metrics, line
    fleet.until(lambda: "ml_worker_active_training_jobs 0.0" in get("/metrics")[1].decode(), 60)
    story = [entry["event"] for entry in map(orjson.loads, worker.lines()) if entry.get("correlation_id") == "order-66"]
    assert story in (["model registered"], ["training started", "model registered"])  # the second on a slow machine
    said = progress(fleet, "r")
    states = [event["state"] for event in said]
    every = ["ACCEPTED", "STARTED", "LOADING", "TRAINING", "EVALUATING", "REGISTERING", "REGISTERED"]
    assert states == [state for state in every if state in states]  # those that lasted long enough, in order
    assert {"STARTED", "REGISTERED"} <= set(states)
    assert [event["sequence"] for event in said] == [*range(1, len(said) + 1)]


@pytest.mark.timeout(240)
def test_with_a_schema_registry_both_framings_are_read_and_events_carry_its_ids(
    fleet: Fleet, schema_registry: SchemaRegistryServer
) -> None:
    fleet.create_topics()
    fleet.start("w", SCHEMA_REGISTRY_URL=schema_registry.url)
    fleet.submit(request("plain", "m1", "decision_tree", "iris"))
    fleet.codec = Codec(SchemaRegistry(schema_registry.url), fleet.prefix)
    fleet.codec.prepare()
    fleet.submit(request("framed", "m2", "decision_tree", "iris"))
    fleet.await_lag(0)
    events = [
        record.value()
        for record in read_topic(fleet.environment["KAFKA_BOOTSTRAP_SERVERS"], fleet.topics.model_registered)
    ]
    assert all(value[:1] == b"\x00" for value in events)
    decoded = [fleet.codec.decode(value, RecordType.MODEL_REGISTERED) for value in events]
    assert sorted(event["request_id"] for event in decoded) == ["framed", "plain"]
