"""The embedded fleet: its note, its broker, and what it makes of an earlier one."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from pydantic import SecretStr

from consumer import embedded
from consumer.events.topics import Topics
from consumer.kafka import config as kafka_config
from consumer.settings import Settings, SettingsError
from consumer.stores import Stores, open_stores
from pipeline.jobs import Model, Outcome, OutcomeKind
from pipeline.ledger import Cancel, Home, NewClaim

NOW = datetime(2026, 1, 31, 14, 15, tzinfo=UTC)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(data_dir=tmp_path / "data")


def ended_pid() -> int:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    return ended.pid


# The note -------------------------------------------------------------------------------------------------------------


def test_a_running_fleet_is_found_until_its_note_is_withdrawn(tmp_path: Path) -> None:
    dev = embedded.Dev("127.0.0.1:9", os.getpid())
    assert embedded.find(tmp_path / "data") is None
    embedded.announce(tmp_path / "data", dev)
    assert embedded.find(tmp_path / "data") == dev
    embedded.withdraw(tmp_path / "data", dev)
    assert embedded.find(tmp_path / "data") is None
    assert [*(tmp_path / "data").iterdir()] == []


def test_the_note_of_a_process_that_has_ended_is_not_found(tmp_path: Path) -> None:
    embedded.announce(tmp_path, embedded.Dev("127.0.0.1:9", ended_pid()))
    assert embedded.find(tmp_path) is None


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"kafka_bootstrap_servers": "a:1", "pid": "x"}'])
def test_a_note_that_nobody_can_read_is_not_found(tmp_path: Path, content: str) -> None:
    (tmp_path / embedded.NOTE).write_text(content)
    assert embedded.find(tmp_path) is None


def test_the_note_of_a_successor_is_left_alone(tmp_path: Path) -> None:
    successor = embedded.Dev("127.0.0.1:8", os.getpid())
    embedded.announce(tmp_path, successor)
    embedded.withdraw(tmp_path, embedded.Dev("127.0.0.1:9", os.getpid()))
    assert embedded.find(tmp_path) == successor


# The broker -----------------------------------------------------------------------------------------------------------


def test_a_broker_is_found_while_it_runs_and_has_all_topics(settings: Settings) -> None:
    with embedded.broker(settings) as own:
        found = embedded.resolve(settings)
        assert found.kafka_bootstrap_servers == own.kafka_bootstrap_servers
        assert found.delivery == own.delivery == "at-least-once"
        present = Producer(kafka_config.kafka_client_config(found)).list_topics(timeout=10).topics
        assert {topic.name for topic in Topics().all()} <= present.keys()
    with pytest.raises(SettingsError, match="set KAFKA_BOOTSTRAP_SERVERS"):
        embedded.resolve(settings)


def test_settings_that_name_servers_are_left_alone(tmp_path: Path) -> None:
    named = Settings(data_dir=tmp_path, kafka_bootstrap_servers="kafka:9092", mongodb_url=SecretStr("mongodb://mongo"))
    with embedded.broker(named) as own:
        assert own.kafka_bootstrap_servers.startswith("127.0.0.1:")
        assert not own.mongodb_url.get_secret_value()


def test_the_worker_gets_the_settings_of_s3_with_their_secrets(settings: Settings) -> None:
    keys = {"minio_access_key": SecretStr("key"), "minio_secret_key": SecretStr("secret")}
    with embedded.broker(settings.model_copy(update={"minio_endpoint": "minio:9000", **keys})) as own:
        told = Settings.model_validate_json(embedded._with_secrets(own))
    assert told == own
    assert told.minio_secret_key == SecretStr("secret")


def test_a_folder_has_one_fleet(settings: Settings) -> None:
    with (
        embedded.broker(settings),
        pytest.raises(SettingsError, match=f"already .process {os.getpid()}.*DATA_DIR"),
        embedded.broker(settings),
    ):
        pass
    with embedded.broker(settings):
        pass


def test_the_note_of_a_fleet_that_was_killed_is_no_obstacle(settings: Settings) -> None:
    embedded.announce(settings.data_dir, embedded.Dev("127.0.0.1:9", ended_pid()))
    with embedded.broker(settings):
        found = embedded.find(settings.data_dir)
        assert found is not None
        assert found.pid == os.getpid()


def test_what_is_produced_is_consumed_and_what_is_committed_stays_with_its_metadata(settings: Settings) -> None:
    with embedded.broker(settings) as own:
        topic = Topics().training_requests
        producer = Producer(kafka_config.producer_config(own))
        for number in range(20):
            producer.produce(topic, key=str(number).encode(), value=b"%d" % number)
        assert producer.flush(10) == 0

        consumer = Consumer(kafka_config.consumer_config(own))
        consumer.subscribe([topic])
        delivered: dict[bytes, TopicPartition] = {}
        deadline = time.monotonic() + 60
        while len(delivered) < 20 and time.monotonic() < deadline:
            message = consumer.poll(0.2)
            if message is not None and message.error() is None:
                place = TopicPartition(topic, message.partition() or 0, (message.offset() or 0) + 1, "1;tag;AQE")
                delivered[message.value() or b""] = place
        assert sorted(delivered) == sorted(b"%d" % number for number in range(20))

        last = [*delivered.values()][-1]
        consumer.commit(offsets=[last], asynchronous=False)
        (committed,) = consumer.committed([TopicPartition(topic, last.partition)], timeout=10)
        assert (committed.offset, committed.metadata) == (last.offset, "1;tag;AQE")
        consumer.close()


# What an earlier fleet has left ---------------------------------------------------------------------------------------


@pytest.fixture
def stores(settings: Settings) -> Stores:
    stores = open_stores(settings)
    stores.prepare()
    return stores


def claimed(stores: Stores, *request_ids: str) -> None:
    summary = {"project": "p", "model_name": "m", "correlation_id": "c"}
    me = stores.ledger.boot("w")
    stores.ledger.claim(me, [NewClaim(one, "sha", Home("t", 0, at), summary) for at, one in enumerate(request_ids)])


def registered(request_id: str) -> Outcome:
    model = Model(
        model_id="i", name="n", project="p", user="", model_name="m", algorithm="svm", model_type="SVC",
        hyperparameters={}, metrics={}, dataset_name="iris", dataset_fingerprint="f", features=(), target_column="t",
        classes=(), artifact_uri="file:///a", artifact_format="f", artifact_sha256="s", artifact_bytes=1, file_id=None,
        training_time=1.0, created_at=NOW, tags={}, seed=1, signature=(), environment={}, warnings=(),
    )  # fmt: skip
    return Outcome(request_id, OutcomeKind.REGISTERED, NOW, "c", "p", "m", "w", model=model)


def test_a_request_that_was_lost_with_its_broker_is_failed_once(stores: Stores) -> None:
    claimed(stores, "done", "lost")
    stores.ledger.insert_outcomes([registered("done")])
    assert embedded.settle_past(stores) == 1
    outcome = stores.ledger.read(["lost"])["lost"].outcome
    assert outcome is not None
    assert outcome.kind is OutcomeKind.FAILED
    assert outcome.error is not None
    assert "submit it again" in outcome.error.message
    assert embedded.settle_past(stores) == 0


def test_a_model_that_was_decided_on_is_registered_once(stores: Stores) -> None:
    claimed(stores, "done")
    stores.ledger.insert_outcomes([registered("done")])
    for _ in range(2):
        embedded.settle_past(stores)
        assert [one.request_id for one in stores.registry.list()] == ["done"]


def test_a_cancel_without_its_request_is_no_lost_request(stores: Stores) -> None:
    stores.ledger.cancel("unknown", Cancel("why", "who", NOW))
    assert embedded.settle_past(stores) == 0


# The worker -----------------------------------------------------------------------------------------------------------


def test_a_worker_whose_parent_has_gone_does_not_start() -> None:
    worker = subprocess.run(
        [sys.executable, "-m", "consumer.embedded", str(ended_pid())], stdin=subprocess.DEVNULL, timeout=60, check=False
    )
    assert worker.returncode == 0
