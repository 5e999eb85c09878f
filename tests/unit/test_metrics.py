"""The metrics' names, and the page that explains them."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import pytest
from prometheus_client import generate_latest
from pymongo.monitoring import CommandFailedEvent, CommandStartedEvent, CommandSucceededEvent

from consumer.jobs.claims import Asked
from consumer.jobs.job import Job
from consumer.jobs.places import Place
from consumer.jobs.registrar import Stored
from consumer.telemetry.metrics import Metrics, MongoCommandCount, metrics_table
from consumer.worker.job_events import JobEvents
from pipeline.jobs import TrainingRequest
from tests.contract.stores import MODEL, registered

ROOT = Path(__file__).parents[2]
# Names that dashboards of the replaced worker use: they stay.
PROMISED = {
    "ml_worker_models_trained_total": ("counter", ("algorithm",)),
    "ml_worker_training_duration_seconds": ("histogram", ()),
    "ml_worker_model_accuracy": ("gauge", ("model_type",)),
    "ml_worker_active_training_jobs": ("gauge", ()),
    "ml_worker_mongodb_operations_total": ("counter", ("operation",)),
}


def test_the_promised_names_are_there() -> None:
    vocabulary = {doc.name: (doc.kind, doc.labels) for doc in Metrics().vocabulary}
    assert {name: vocabulary.get(name) for name in PROMISED} == PROMISED


def test_what_is_scraped_has_the_documented_names_and_meanings() -> None:
    metrics = Metrics()
    text = generate_latest(metrics.registry).decode()
    for doc in metrics.vocabulary:
        assert f"# TYPE {doc.name} {doc.kind}\n" in text
        assert f"# HELP {doc.name} {doc.meaning}\n" in text


def test_no_label_can_hold_a_request_a_model_or_a_user() -> None:
    labels = {label for doc in Metrics().vocabulary for label in doc.labels}
    assert labels <= {
        "algorithm", "model_type", "kind", "stage", "cause", "result", "partition", "event", "reason", "service",
        "operation", "store", "thread",
    }  # fmt: skip


def test_two_workers_in_one_process_count_apart() -> None:
    first, second = Metrics(), Metrics()
    first.takeovers.inc()
    assert second.registry.get_sample_value("ml_worker_takeovers_total") == 0


def test_the_process_itself_is_measured() -> None:
    assert (Metrics().registry.get_sample_value("process_resident_memory_bytes") or 0) > 0


def test_the_documentation_shows_every_metric() -> None:
    text = (ROOT / "docs/metrics.md").read_text()
    shown = text.split("<!-- metrics -->")[1].split("<!-- /metrics -->")[0].strip()
    assert shown == metrics_table(), "renew it with: python -m consumer.telemetry.metrics"


@pytest.mark.parametrize(("command", "counted"), [("insert", "insert"), ("whatIsThis", "other")])
def test_mongodb_commands_are_counted_by_a_fixed_set_of_names(command: str, counted: str) -> None:
    metrics = Metrics()
    count = MongoCommandCount(metrics)
    address, took = ("localhost", 27017), timedelta(milliseconds=2)
    count.started(CommandStartedEvent({command: "datasets"}, "tensorfleet", 1, address, 1))
    count.succeeded(CommandSucceededEvent(took, {"ok": 1}, command, 1, address, 1))
    count.started(CommandStartedEvent({command: "datasets"}, "tensorfleet", 2, address, 2))
    count.failed(CommandFailedEvent(took, {"code": 1}, command, 2, address, 2))
    sample = metrics.registry.get_sample_value
    assert sample("ml_worker_mongodb_operations_total", {"operation": counted}) == 2
    assert sample("ml_worker_mongodb_operation_duration_seconds_count", {"operation": counted}) == 2


def test_the_accuracy_is_that_of_the_last_model_and_the_distribution_has_them_all() -> None:
    metrics, unused = Metrics(), cast(Any, None)
    job_events = JobEvents("w", unused, metrics)
    job = Job(
        Asked(unused, TrainingRequest("r", "job", "decision_tree", "iris"), "", None),
        None,
        Place.STORED,
        finished_at=1.0,
    )
    for accuracy in (0.5, 0.75):
        job_events.stored(job, Stored(registered("r", metrics={"test_accuracy": accuracy}), None))
    sample, labels = metrics.registry.get_sample_value, {"model_type": MODEL.model_type}
    assert sample("ml_worker_model_accuracy", labels) == 0.75
    assert sample("ml_worker_model_accuracy_distribution_sum", labels) == 1.25
