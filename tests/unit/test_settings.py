"""Settings, and what librdkafka makes of them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer, Producer
from confluent_kafka.admin import AdminClient
from pydantic import SecretStr, ValidationError

from consumer.kafka.config import (
    consumer_config,
    kafka_client_config,
    producer_config,
    progress_producer_config,
    tail_config,
    transactional_producer_config,
)
from consumer.settings import Settings, SettingsError, duration_s, load_settings, settings_table, size_bytes
from consumer.system.machine import available_memory_bytes

ROOT = Path(__file__).parents[2]
NEEDED = {"MONGODB_URL": "mongodb://u:hunter2@mongo:27017", "KAFKA_BOOTSTRAP_SERVERS": "kafka:9092"}


def load(**environ: str) -> Settings:
    return load_settings({**NEEDED, **environ}, env_file=None)


def wrong(**environ: str) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        load(**environ)
    return str(caught.value).splitlines()


def test_a_worker_needs_two_settings_and_has_a_default_for_every_other() -> None:
    settings = load()
    assert (settings.port, settings.mongodb_db, settings.log_level) == (8000, "tensorfleet", "INFO")
    assert (settings.max_training_time, settings.model_registry_collection) == (300, "model_registry")
    assert (settings.kafka_group_id, settings.minio_bucket) == ("ml-worker", "models")
    assert (settings.max_attempts, settings.max_worker_losses, settings.look_ahead) == (3, 10, 10_000)
    assert (settings.ledger_retention, settings.delivery) == (90 * 86400, "exactly-once")
    assert settings.worker_id
    assert settings.worker_concurrency >= 1
    assert 0 < settings.max_training_memory * settings.worker_concurrency <= available_memory_bytes()


def test_what_is_missing_is_named_one_a_line() -> None:
    with pytest.raises(SettingsError) as caught:
        load_settings({}, env_file=None)
    assert [line.split()[0] for line in str(caught.value).splitlines()] == ["MONGODB_URL", "KAFKA_BOOTSTRAP_SERVERS"]


def test_the_embedded_worker_needs_nothing() -> None:
    assert load_settings({}, env_file=None, needs=()).data_dir == Path("tensorfleet-data")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PORT", "http"),
        ("PORT", "65536"),
        ("LOG_LEVEL", "LOUD"),
        ("KAFKA_BOOTSTRAP_SERVERS", "kafka"),
        ("KAFKA_BOOTSTRAP_SERVERS", "kafka://kafka:9092"),
        ("KAFKA_GROUP_PROTOCOL", "kip-848"),
        ("KAFKA_MAX_POLL_INTERVAL_MS", "9999"),
        ("KAFKA_SESSION_TIMEOUT_MS", "400000"),
        ("TOPIC_PREFIX", "a b"),
        ("SCHEMA_REGISTRY_URL", "registry:8081"),
        ("MINIO_SECURE", "perhaps"),
        ("MINIO_BUCKET", "A"),
        ("WORKER_ID", "a/b"),
        ("WORKER_CONCURRENCY", "0"),
        ("MAX_TRAINING_TIME", "0"),
        ("MAX_TRAINING_TIME", "soon"),
        ("MAX_TRAINING_TIME", "nan"),
        ("MAX_TRAINING_TIME", "inf"),
        ("MAX_TRAINING_MEMORY", "lots"),
        ("MAX_TRAINING_MEMORY", "1MiB"),
        ("LEDGER_RETENTION", "1s"),
        ("DELIVERY", "at-most-once"),
        ("ARTIFACT_GRIDFS_LIMIT", "-1"),
        ("LOOK_AHEAD", "1e4"),
        ("SEARCH_BACKEND", "ray"),
        ("DASK_SCHEDULER", "http://dask:8787"),
        ("DASK_SCHEDULER", "dask"),
    ],
)
def test_a_wrong_setting_costs_one_line_that_names_it_and_what_it_takes(name: str, value: str) -> None:
    (line,) = wrong(**{name: value})
    assert line.startswith(f"{name} takes ")


def test_every_wrong_setting_is_named_at_once() -> None:
    lines = wrong(PORT="x", MAX_ATTEMPTS="0", CPUS_PER_TRAINING="two")
    assert [line.split()[0] for line in lines] == ["PORT", "CPUS_PER_TRAINING", "MAX_ATTEMPTS"]


def test_what_minio_and_sasl_need_is_needed_only_with_them() -> None:
    assert [line.split()[0] for line in wrong(MINIO_ENDPOINT="minio:9000")] == ["MINIO_ACCESS_KEY", "MINIO_SECRET_KEY"]
    assert [line.split()[0] for line in wrong(KAFKA_SECURITY_PROTOCOL="sasl_ssl")] == [
        "KAFKA_SASL_MECHANISM",
        "KAFKA_SASL_USERNAME",
        "KAFKA_SASL_PASSWORD",
    ]


def test_a_search_on_dask_needs_a_scheduler_and_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    (line,) = wrong(SEARCH_BACKEND="dask")
    assert line.startswith("DASK_SCHEDULER is not set; SEARCH_BACKEND=dask needs it; it takes host:port")
    for address in ("dask:8786", "tcp://dask:8786", "tls://[::1]:8786"):
        assert load(SEARCH_BACKEND="dask", DASK_SCHEDULER=address).dask_scheduler == address
    monkeypatch.setattr("consumer.settings.find_spec", lambda _: None)
    assert wrong(SEARCH_BACKEND="dask", DASK_SCHEDULER="dask:8786") == [
        "SEARCH_BACKEND=dask needs a worker with the extra dask; local needs nothing"
    ]
    assert load(DASK_SCHEDULER="dask:8786").search_backend == "local"


def test_secrets_show_neither_in_settings_nor_in_errors() -> None:
    settings = load(
        KAFKA_SASL_PASSWORD="hunter2",
        MINIO_SECRET_KEY="hunter2",
        MINIO_ACCESS_KEY="hunter2",
        SCHEMA_REGISTRY_URL="http://u:hunter2@registry",
    )
    assert "hunter2" not in f"{settings!r} {settings}"
    assert "hunter2" not in "\n".join(wrong(MONGODB_URL="postgres://u:hunter2@db", PORT="x"))
    assert "hunter2" not in "\n".join(wrong(MONGODB_URL="postgres://u:hunter2@db"))


def test_the_environment_comes_before_the_file_and_an_empty_value_is_none(tmp_path: Path) -> None:
    file = tmp_path / ".env"
    file.write_text("PORT=1234\nMONGODB_DB=from_file\nLOG_LEVEL=\nUNRELATED=1\nMONGODB_URL=mongodb://db\n")
    settings = load_settings({"PORT": "99", "MONGODB_DB": ""}, env_file=file, needs=("MONGODB_URL",))
    assert (settings.port, settings.mongodb_db, settings.log_level) == (99, "from_file", "INFO")


def test_what_the_caller_says_comes_before_everything() -> None:
    assert load_settings({**NEEDED, "PORT": "99"}, None, port=7).port == 7


def test_the_process_environment_is_read_unless_another_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PORT", "99")
    assert load_settings(env_file=None, needs=()).port == 99
    assert load().port == 8000
    assert Settings().port == 8000


def test_settings_do_not_change() -> None:
    with pytest.raises(ValidationError):
        load().port = 1


@pytest.mark.parametrize(
    ("text", "expected"),
    [("512MiB", 512 * 2**20), ("2GB", 2 * 10**9), ("1.5 GiB", 3 * 2**29), ("4096", 4096), ("2G", 2**31), ("1Mi", 2**20),
     ("10kb", 10_000), ("0", 0), ("1XB", "1XB"), ("-1", "-1"), ("", ""), (7, 7)],
)  # fmt: skip
def test_sizes_are_read_as_people_write_them(text: object, expected: object) -> None:
    assert size_bytes(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [("90d", 90 * 86400), ("10m", 600), ("1h30m", 5400), ("45", 45), ("0.5", 0.5), ("500ms", 0.5), ("2 h", 7200),
     ("1h30", "1h30"), ("5y", "5y"), ("", ""), (300, 300)],
)  # fmt: skip
def test_durations_are_read_as_people_write_them(text: object, expected: object) -> None:
    assert duration_s(text) == expected


def test_defaults_follow_from_other_settings() -> None:
    settings = load(WORKER_ID="w-1", MAX_TRAINING_TIME="4h", WORKER_CONCURRENCY="2", CPUS_PER_TRAINING="9999")
    assert settings.drain_timeout == 4 * 3600 + 30
    assert settings.spool_dir.name == "spool"
    assert settings.max_training_memory == available_memory_bytes() * 8 // 10 // 2
    assert load(CPUS_PER_TRAINING="9999").worker_concurrency == 1


def test_nothing_is_read_at_import() -> None:
    modules = ("settings", "kafka.config", "telemetry.logs", "telemetry.metrics", "port.http")
    script = "".join(f"import consumer.{module}\n" for module in modules)
    environ = {**os.environ, "PORT": "not a port", "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", script], check=True, env=environ, cwd=ROOT)


def test_the_documentation_shows_every_setting() -> None:
    text = (ROOT / "docs/settings.md").read_text()
    shown = text.split("<!-- settings -->")[1].split("<!-- /settings -->")[0].strip()
    assert shown == settings_table(), "renew it with: python -m consumer.settings"


def any_client(settings: Settings) -> list[dict[str, Any]]:
    return [
        kafka_client_config(settings),
        consumer_config(settings),
        tail_config(settings),
        producer_config(settings),
        transactional_producer_config(settings),
    ]


@pytest.mark.parametrize("protocol", ["classic", "consumer"])
def test_librdkafka_takes_every_configuration(protocol: str) -> None:
    settings = load(KAFKA_BOOTSTRAP_SERVERS="127.0.0.1:1", KAFKA_GROUP_PROTOCOL=protocol)
    quiet = {"log_level": 0}
    AdminClient({**kafka_client_config(settings), **quiet})
    Consumer({**consumer_config(settings), **quiet}).close()
    Consumer({**tail_config(settings), **quiet}).close()
    Producer({**producer_config(settings), **quiet})
    Producer({**transactional_producer_config(settings), **quiet})


def test_with_kip_848_the_broker_keeps_session_heartbeat_and_assignor() -> None:
    config = consumer_config(load(KAFKA_GROUP_PROTOCOL="consumer"))
    assert config["group.protocol"] == "consumer"
    assert not {"session.timeout.ms", "heartbeat.interval.ms", "partition.assignment.strategy"} & set(config)


def test_a_static_member_has_the_workers_name_in_classic_groups_only() -> None:
    assert "group.instance.id" not in consumer_config(load())
    config = consumer_config(load(KAFKA_STATIC_MEMBERSHIP="true", WORKER_ID="w-1"))
    assert config["group.instance.id"] == "w-1"
    Consumer({**config, "log_level": 0}).close()
    assert wrong(KAFKA_STATIC_MEMBERSHIP="true", KAFKA_GROUP_PROTOCOL="consumer") == [
        "KAFKA_STATIC_MEMBERSHIP takes false with KAFKA_GROUP_PROTOCOL=consumer"
    ]


def test_a_member_reads_committed_records_and_commits_nothing_by_itself() -> None:
    config = consumer_config(load())
    assert config["isolation.level"] == "read_committed"
    assert config["enable.auto.commit"] is False
    assert config["auto.offset.reset"] == "earliest"
    assert config["partition.assignment.strategy"] == "cooperative-sticky"
    assert consumer_config(load(), "ml-worker-control")["group.id"] == "ml-worker-control"


def test_a_restarted_worker_has_the_transactional_id_of_the_one_before() -> None:
    config = transactional_producer_config(load(WORKER_ID="w-1"))
    assert config["transactional.id"] == "ml-worker-w-1"
    assert config["transaction.timeout.ms"] == 10_000


def test_producers_choose_partitions_as_java_does() -> None:
    assert producer_config(load())["partitioner"] == "murmur2_random"


def test_what_is_sent_cannot_overtake_itself() -> None:
    """To a partition that was created a moment ago the first of two requests would be lost (KAFKA-15591)."""
    for config in (producer_config(load()), progress_producer_config(load()), transactional_producer_config(load())):
        assert (config["enable.idempotence"], config["max.in.flight.requests.per.connection"]) == (True, 1)


def test_sasl_and_trust_reach_every_client(tmp_path: Path) -> None:
    settings = load(
        KAFKA_SECURITY_PROTOCOL="SASL_SSL",
        KAFKA_SASL_MECHANISM="scram-sha-512",
        KAFKA_SASL_USERNAME="u",
        KAFKA_SASL_PASSWORD="p",
        KAFKA_SSL_CA_LOCATION=str(tmp_path / "ca.pem"),
    )
    for config in any_client(settings):
        assert config["security.protocol"] == "SASL_SSL"
        assert (config["sasl.mechanism"], config["sasl.username"], config["sasl.password"]) == (
            "SCRAM-SHA-512",
            "u",
            "p",
        )
        assert config["ssl.ca.location"] == str(tmp_path / "ca.pem")


def test_without_sasl_no_password_is_sent() -> None:
    settings = Settings(kafka_bootstrap_servers="kafka:9092", kafka_sasl_password=SecretStr("p"))
    assert not any(key.startswith("sasl") for config in any_client(settings) for key in config)
