"""Single promises of a worker, each on the real services."""

from __future__ import annotations

import os
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pytest
from pymongo.database import Database

from consumer.events.codec import Codec
from consumer.events.schema_registry import SchemaRegistry
from pipeline.aliases.mongodb import MongoAliases
from pipeline.datasets.mongodb import MongoSource
from pipeline.jobs import TrainingRequest
from pipeline.promotion import promote, rollback
from pipeline.registry.mongodb import MongoRegistry
from schemas import Record
from tests.end_to_end.fleet import Fleet
from tests.end_to_end.test_fleet import request
from tests.end_to_end.verdict import Verdict, decode, read_topic
from tests.services.mongodb import MongoDB
from tests.services.schema_registry import SchemaRegistry as SchemaRegistryServer
from tests.services.server import free_ports

LONG_S = float(os.environ.get("TENSORFLEET_TEST_LONG_S", "25"))
"""How long the long training takes; the poll interval is 10 s."""


def trouble(request_id: str, mode: str, seconds: float = 1, path: str = "", **more: Any) -> TrainingRequest:
    hyperparameters = {"mode": mode, "seconds": seconds, "path": path}
    return request(request_id, request_id, "troublesome", "iris", hyperparameters=hyperparameters, **more)


def outcome(database: Database[dict[str, Any]], request_id: str) -> dict[str, Any] | None:
    return database["training_outcomes"].find_one({"request_id": request_id})


def progress(fleet: Fleet, request_id: str) -> list[dict[str, Any]]:
    topic = fleet.topics.training_progress
    records = read_topic(fleet.environment["KAFKA_BOOTSTRAP_SERVERS"], topic)
    events = [decode(record.value(), Record.TRAINING_PROGRESS) for record in records]
    return [event for event in events if event["request_id"] == request_id]


@pytest.mark.timeout(LONG_S + 240)
def test_a_long_training_is_neither_evicted_nor_repeated_when_a_worker_joins_and_leaves(
    fleet: Fleet, verdict: Callable[..., Verdict], mongo_database: Database[dict[str, Any]]
) -> None:
    fleet.create_topics(partitions=4)
    fleet.start("w0")
    fleet.submit(trouble("long", "hang", LONG_S, max_training_time_s=LONG_S + 60))
    fleet.await_log(["training started", '"long"'])
    fleet.start("w1")
    fleet.submit(*(request(f"short-{n}", f"m{n}", "decision_tree", "iris") for n in range(12)))
    fleet.until(lambda: mongo_database["model_registry"].count_documents({}) == 12, 120)
    fleet.until(lambda: any('"partitions":[' in line for line in fleet.workers[1].lines()), 60)
    assert fleet.workers[1].drain() == 0
    fleet.start("w2")
    fleet.await_lag(0, within_s=LONG_S + 120)
    found = verdict()
    assert found.violations == [], str(found)
    assert (found.models, found.trainings_repeated) == (13, 0)
    assert outcome(mongo_database, "long")["worker_id"] == "w0"  # type: ignore[index]
    assert not any("evicted" in line for worker in fleet.workers for line in worker.lines())


@pytest.mark.timeout(240)
def test_trainings_that_exceed_a_limit_or_crash_end_and_the_worker_goes_on(
    fleet: Fleet, verdict: Callable[..., Verdict], mongo_database: Database[dict[str, Any]]
) -> None:
    fleet.create_topics()
    fleet.start("w", MAX_TRAINING_MEMORY="600MiB")
    fleet.submit(
        trouble("slow", "hang", 60, max_training_time_s=2),
        trouble("fat", "swell"),
        trouble("fat-outside", "swell_outside"),
        trouble("crash", "segfault"),
        trouble("error", "raise"),
        request("after", "after", "decision_tree", "iris"),
    )
    fleet.await_lag(0, within_s=120)
    found = verdict()
    assert found.violations == [], str(found)
    kinds = {
        d["request_id"]: (d["kind"], (d["error"] or {}).get("kind")) for d in mongo_database["training_outcomes"].find()
    }
    assert kinds == {
        "slow": ("TIMED_OUT", "TIME_LIMIT"),
        "fat": ("FAILED", "OUT_OF_MEMORY"),
        "fat-outside": ("FAILED", "OUT_OF_MEMORY"),
        "crash": ("FAILED", "TRAINER_CRASHED"),
        "error": ("FAILED", "TRAINING_ERROR"),
        "after": ("REGISTERED", None),
    }
    events = {event["state"]: event["occurred_at"] for event in progress(fleet, "slow")}
    overshoot_s = (events["TIMED_OUT"] - events["STARTED"]).total_seconds() - 2
    assert 0 <= overshoot_s < 2, overshoot_s
    assert outcome(mongo_database, "crash")["attempt"] == 3  # type: ignore[index]
    assert [e["state"] for e in progress(fleet, "crash")].count("RETRYING") == 2


@pytest.mark.timeout(240)
def test_a_dataset_that_no_training_can_hold_is_rejected_before_a_trainer_is_fed(
    fleet: Fleet, verdict: Callable[..., Verdict], mongo_database: Database[dict[str, Any]]
) -> None:
    rows = 20_000
    columns = {f"x{n}": np.random.default_rng(n).random(rows) for n in range(50)}
    MongoSource(mongo_database).add("wide", pa.table({**columns, "y": np.arange(rows) % 2}), "y")
    fleet.create_topics()
    fleet.start("w")
    fleet.submit(
        request("small-limit", "a", "naive_bayes", "wide", max_memory_bytes=2**24),
        request("enough", "b", "naive_bayes", "wide"),
    )
    fleet.await_lag(0, within_s=120)
    found = verdict()
    assert found.violations == [], str(found)
    rejected = outcome(mongo_database, "small-limit") or {}
    assert (rejected["kind"], rejected["error"]["kind"]) == ("REJECTED", "INVALID_REQUEST")
    assert "20,000 rows and 7.8 MiB in memory" in rejected["error"]["message"]
    assert "it may use 16.0 MiB (max_memory_bytes)" in rejected["error"]["message"]
    assert (outcome(mongo_database, "enough") or {})["kind"] == "REGISTERED"
    assert "STARTED" not in {event["state"] for event in progress(fleet, "small-limit")}


@pytest.mark.timeout(240)
def test_a_cancel_ends_a_training_in_c_code_within_a_second_and_one_that_waits(
    fleet: Fleet, verdict: Callable[..., Verdict], mongo_database: Database[dict[str, Any]]
) -> None:
    fleet.create_topics()
    worker = fleet.start("w", WORKER_CONCURRENCY="1")
    fleet.submit(trouble("runs", "hang", 600))
    fleet.await_log(["training started", '"runs"'])
    fleet.submit(*(trouble(f"waits-{n}", "hang", 600) for n in range(3)))
    fleet.await_log(["request accepted", '"waits-2"'])
    for request_id in ("waits-0", "waits-1", "waits-2"):
        fleet.cancel(request_id)
        fleet.until(lambda request_id=request_id: outcome(mongo_database, request_id), 10)
    begun = time.monotonic()
    fleet.cancel("runs")
    fleet.until(lambda: outcome(mongo_database, "runs"), 10)
    took_s = time.monotonic() - begun
    worker.kill()
    fleet.cancel("unknown-yet")
    fleet.submit(trouble("unknown-yet", "none"))
    again = fleet.start("w")
    fleet.await_lag(0)
    found = verdict()
    assert found.violations == [], str(found)
    assert outcome(mongo_database, "runs")["error"]["message"] == "cancelled by ann: not needed"  # type: ignore[index]
    assert took_s < 2, took_s
    assert again.drain() == 0


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
        fleet.until(lambda worker=worker: any("partitions assigned" in line for line in worker.lines()), 60)
    fleet.submit(*(request(f"r{n}", f"m{n % 4}", "decision_tree", "iris") for n in range(40)))
    fleet.submit(request("bad", "m", "nothing", "iris"))
    fleet.await_lag(0)
    assert [worker.drain() for worker in fleet.workers] == [0, 0]
    found = verdict()
    assert found.violations == [], str(found)
    assert (found.models, found.dead_letters, found.trainings_repeated) == (40, 1, 0)


@pytest.mark.timeout(240)
def test_a_drained_workers_running_training_is_finished_by_it_and_announced_by_the_others(
    fleet: Fleet, verdict: Callable[..., Verdict], mongo_database: Database[dict[str, Any]], tmp_path: Path
) -> None:
    fleet.create_topics(partitions=2)
    first = fleet.start("w0", WORKER_CONCURRENCY="1")
    fleet.submit(trouble("runs", "until", path=str(tmp_path / "flag")))
    fleet.await_log(["training started", '"runs"'])
    fleet.submit(*(request(f"waits-{n}", f"m{n}", "decision_tree", "iris") for n in range(10)))
    fleet.await_log(["request accepted", '"waits-9"'])
    fleet.start("w1")
    fleet.await_log(["partitions assigned"], 30)
    fleet.until(lambda: any("partitions assigned" in line for line in fleet.workers[1].lines()), 30)
    first.process.terminate()
    fleet.until(lambda: outcome(mongo_database, "waits-9"), 60)
    assert first.process.poll() is None
    (tmp_path / "flag.go").touch()
    assert first.process.wait(30) == 0
    fleet.await_lag(0)
    found = verdict()
    assert found.violations == [], str(found)
    assert (found.models, found.trainings_repeated) == (11, 0)
    assert outcome(mongo_database, "runs")["worker_id"] == "w0"  # type: ignore[index]
    assert outcome(mongo_database, "waits-9")["worker_id"] == "w1"  # type: ignore[index]
    assert all(claim.get("worker_losses", 0) == 0 for claim in mongo_database["training_requests"].find())


@pytest.mark.timeout(240)
def test_a_mongodb_outage_costs_waiting_and_no_job(
    fleet: Fleet, verdict: Callable[..., Verdict], mongodb: MongoDB
) -> None:
    fleet.create_topics(partitions=4)
    fleet.start("w")
    fleet.submit(*(request(f"r{n}", f"m{n % 4}", "random_forest", "wine") for n in range(30)))
    fleet.await_log(["model registered"])
    mongodb.pause()  # killed, this engine loses writes that it has acknowledged: see test_services
    time.sleep(6)  # an outage has a length
    mongodb.resume()
    fleet.await_lag(0, within_s=120)
    found = verdict()
    assert found.violations == [], str(found)
    assert (found.models, found.trainings_repeated) == (30, 0)


@pytest.mark.timeout(240)
def test_huge_and_null_values_are_dead_letters_with_their_original_bytes(
    fleet: Fleet, verdict: Callable[..., Verdict]
) -> None:
    fleet.create_topics(**{"max.message.bytes": str(32 * 2**20)})
    fleet.start("w")
    fleet.put(b"big", os.urandom(20 * 2**20))
    fleet.put(b"null", None)
    fleet.flush()
    fleet.submit(request("after", "m", "decision_tree", "iris"))
    fleet.await_lag(0)
    found = verdict(unreadable=2)
    assert found.violations == [], str(found)
    assert (found.models, found.dead_letters) == (1, 2)


def gauge(port: int, name: str) -> float:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
        lines = answer.read().decode().splitlines()
    return float(next(line.split()[1] for line in lines if line.startswith(f"{name} ")))


@pytest.mark.timeout(240)
def test_no_more_than_look_ahead_is_read_and_all_of_it_is_done_in_the_end(
    fleet: Fleet, verdict: Callable[..., Verdict], mongo_database: Database[dict[str, Any]], tmp_path: Path
) -> None:
    """However much waits, what a worker holds is bounded, in the ledger as well."""
    fleet.create_topics()
    (port,) = free_ports(1)
    gate = tmp_path / "gate"
    fleet.submit(*(trouble(f"held-{n}", "until", path=str(gate), max_training_time_s=200) for n in range(2)))
    fleet.submit(*(request(f"r-{n}", f"m{n % 40}", "decision_tree", "iris") for n in range(200)))
    fleet.start("w", PORT=str(port), LOOK_AHEAD="50")
    claims = mongo_database["training_requests"]
    fleet.until(lambda: claims.count_documents({}) >= 50, 60)
    fleet.until(lambda: gauge(port, "ml_worker_intake_paused") == 1, 60)
    assert claims.count_documents({}) == 50
    (tmp_path / "gate.go").touch()
    held = 0.0
    while mongo_database["training_outcomes"].count_documents({}) < 202:
        held = max(held, gauge(port, "ml_worker_unfinished_requests"))
        time.sleep(0.2)
    fleet.await_lag(0)
    assert 10 < held <= 50
    found = verdict()
    assert (found.violations, found.models) == ([], 202), str(found)


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
    events = [decode(record.value(), Record.MODEL_ALIAS_CHANGED) for record in read_topic(servers, topic)]
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
        "active_jobs", "models_trained", "assigned_partitions", "version",
    }  # fmt: skip
    assert (health["status"], health["service"], health["models_trained"]) == ("healthy", "ml-worker", 1)
    assert health["assigned_partitions"] == 12
    assert get("/livez")[0] == 200
    assert get("/nothing")[0] == 404
    assert get("/health", "POST")[0] == 405
    metrics = get("/metrics")[1].decode()
    for line in (
        'ml_worker_models_trained_total{algorithm="decision_tree"} 1.0',
        'ml_worker_outcomes_total{kind="REGISTERED"} 1.0',
        "ml_worker_training_duration_seconds_count 1.0",
        'ml_worker_model_accuracy_count{model_type="classification"} 1.0',
    ):
        assert line in metrics, line
    fleet.until(lambda: "ml_worker_active_training_jobs 0.0" in get("/metrics")[1].decode(), 10)
    story = [entry["event"] for entry in map(orjson.loads, worker.lines()) if entry.get("correlation_id") == "order-66"]
    assert story == ["request accepted", "training started", "model registered"]
    assert [event["state"] for event in progress(fleet, "r")] == [
        "ACCEPTED", "STARTED", "LOADING", "TRAINING", "EVALUATING", "REGISTERING", "REGISTERED",
    ]  # fmt: skip


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
    decoded = [fleet.codec.decode(value, Record.MODEL_REGISTERED) for value in events]
    assert sorted(event["request_id"] for event in decoded) == ["framed", "plain"]
