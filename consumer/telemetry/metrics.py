"""Defines all metrics in one place; `python -m consumer.telemetry.metrics` prints docs/metrics.md.

Label values come from fixed sets (or count partitions): never a request, a model or a user.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from pymongo.monitoring import CommandFailedEvent, CommandListener, CommandStartedEvent, CommandSucceededEvent

from consumer.events.errors import REASONS
from pipeline.jobs import OutcomeKind

# From a tiny fit to a training of hours.
_TRAINING_S = (0.005, 0.02, 0.1, 0.5, 1, 5, 15, 60, 300, 900, 3600, 14400)
# A service call or a transaction: from a millisecond to the longest time-out.
_CALL_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_WAIT_S = (0.01, 0.05, 0.25, 1, 5, 30, 120, 600, 3600, 6 * 3600, 24 * 3600)
_COUNT = (1, 2, 5, 10, 25, 50, 100, 250, 500)
_SHARE = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 0.98, 0.99, 1.0)


STAGES = ("claim", "prepare", "feed", "train", "store", "announce", "cancel", "checkpoint")
"""What a worker does with a request."""


@dataclass(frozen=True, slots=True)
class MetricDoc:
    """One line of the vocabulary, with the name as it is scraped."""

    name: str
    kind: str
    labels: tuple[str, ...]
    meaning: str


class Metrics:
    """All metrics of one worker, in a registry of their own.  Safe to use from any thread."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self.registry = registry if registry is not None else CollectorRegistry()
        self.vocabulary: list[MetricDoc] = []
        ProcessCollector(registry=self.registry)
        self._trainings()
        self._intake()
        self._commits()
        self._services()
        self._storage()
        self._threads()

    def show_threads(self, busy_s: Mapping[str, float], limits_s: Mapping[str, float]) -> None:
        """Set the threads' gauges before a scrape, from the values of the watch."""
        for thread, seconds in busy_s.items():
            self.thread_busy_s.labels(thread).set(seconds)
            self.thread_limit_s.labels(thread).set(limits_s[thread])

    def _trainings(self) -> None:
        self.models_trained = self._counter("models_trained_total", "Models trained and registered.", "algorithm")
        self.training_duration_s = self._histogram(
            "training_duration_seconds", "A training, from its start in the trainer to its result.", _TRAINING_S
        )
        self.model_accuracy = self._gauge(
            "model_accuracy", "Test accuracy of the last classifier that was registered.", "model_type"
        )
        self.model_accuracy_distribution = self._histogram(
            "model_accuracy_distribution", "Test accuracies of registered classifiers.", _SHARE, "model_type"
        )
        self.active_training_jobs = self._gauge("active_training_jobs", "Trainings that run now.")
        self.outcomes = self._counter(
            "outcomes_total",
            "Requests ended: REGISTERED, REJECTED, FAILED, TIMED_OUT, CANCELLED.",
            "kind",
            values=OutcomeKind,
        )
        self.stage_duration_s = self._histogram(
            "stage_duration_seconds",
            "A stage of a training: LOADING, TRAINING, EVALUATING, REGISTERING.",
            _TRAINING_S,
            "stage",
        )
        self.queue_wait_s = self._histogram(
            "queue_wait_seconds", "From a request's record in Kafka to the start of its training.", _WAIT_S
        )
        self.lanes_busy = self._gauge("lanes_busy", "Lanes that train.")
        self.lanes = self._gauge("lanes", "Lanes there are (WORKER_CONCURRENCY).")
        self.trainers_replaced = self._counter(
            "trainers_replaced_total",
            "Trainer processes replaced: cancelled, timed_out, memory, crashed.",
            "cause",
            values=("cancelled", "timed_out", "memory", "crashed"),
        )
        self.trainer_memory_bytes = self._gauge(
            "trainer_memory_bytes", "Resident memory of all trainer processes together."
        )
        self.cancels = self._counter(
            "cancels_total",
            "Cancel commands: stopped (a training), waiting (not started yet), late (already over).",
            "result",
        )
        self.contained_errors = self._counter(
            "contained_errors_total",
            "Errors of the worker's own that ended one request: claim, prepare, feed, train, store, announce, cancel, "
            "checkpoint.",
            "stage",
            values=STAGES,
        )

    def _intake(self) -> None:
        self.requests = self._counter(
            "requests_total", "Records read from training-requests: new, duplicate, adopted, undecodable.", "result"
        )
        self.lag = self._gauge("consumer_lag", "Requests behind the end of an owned partition.", "partition")
        self.oldest_unfinished_s = self._gauge(
            "oldest_unfinished_seconds", "Age of the oldest request that was delivered and is not finished."
        )
        self.unfinished = self._gauge("unfinished_requests", "Requests delivered and not finished.")
        self.standstill_s = self._gauge(
            "partition_standstill_seconds",
            "How long the same request has been the first unfinished one, while others behind it were finished.",
            "partition",
        )
        self.finished_ahead = self._gauge(
            "finished_ahead_requests", "Requests finished beyond the first unfinished one.", "partition"
        )
        self.assigned_partitions = self._gauge("assigned_partitions", "Partitions of training-requests owned.")
        self.intake_paused = self._gauge("intake_paused", "1 while no more requests are taken in than are held.")
        self.intake_pauses = self._counter("intake_pauses_total", "Times that a partition was paused.")
        self.passed_over = self._gauge(
            "passed_over_requests", "Requests read over, of projects that fill LOOK_AHEAD; they are read again later."
        )
        self.expired = self._counter(
            "requests_expired_total", "Times that a partition was found to begin beyond what was read of it."
        )
        self.rebalances = self._counter(
            "rebalances_total",
            "Rebalances: assigned, revoked, lost.",
            "event",
            values=("assigned", "revoked", "lost"),
        )
        self.takeovers = self._counter("takeovers_total", "Claims taken over from workers that died.")
        self.dead_letters = self._counter(
            "dead_letters_total",
            "Records sent to the dead-letter topic, by error kind, or UNREADABLE or CONFLICT.",
            "reason",
            values=REASONS,
        )

    def _commits(self) -> None:
        self.transactions = self._counter(
            "transactions_total",
            "Kafka transactions (or flush and commit): committed, aborted, refused.",
            "result",
            values=("committed", "aborted", "refused"),
        )
        self.refused = self._gauge(
            "refused_announcements", "Finished requests whose events or dead letters the broker does not take."
        )
        self.transaction_s = self._histogram("transaction_duration_seconds", "A transaction, begin to end.", _CALL_S)
        self.group_size = self._histogram("commit_group_size", "Finished requests that share a transaction.", _COUNT)

    def _services(self) -> None:
        self.retries = self._counter("retries_total", "Calls repeated because a service did not answer.", "service")
        self.breaker_open = self._gauge("breaker_open", "1 while a service does not answer.", "service")
        self.breaker_changes = self._counter("breaker_changes_total", "Breakers opened and closed.", "service", "event")
        self.mongodb_operations = self._counter("mongodb_operations_total", "MongoDB commands sent.", "operation")
        self.mongodb_operation_s = self._histogram(
            "mongodb_operation_duration_seconds", "A MongoDB command, to its answer.", _CALL_S, "operation"
        )
        self.heartbeat_age_s = self._gauge("lease_age_seconds", "Since the lease was last renewed; it ends at 10.")

    def _storage(self) -> None:
        self.cache_reads = self._counter("dataset_cache_reads_total", "Datasets asked for: hit, miss.", "result")
        self.artifact_bytes = self._counter("artifact_bytes_total", "Bytes of artifacts stored.", "store")

    def _threads(self) -> None:
        self.thread_busy_s = self._gauge(
            "thread_busy_seconds",
            "Since a thread of the worker took its order; 0 while it waits for one; interpreter: since none got on.",
            "thread",
        )
        self.thread_limit_s = self._gauge(
            "thread_limit_seconds", "How long it may take; beyond that /livez is 503.", "thread"
        )

    def _counter(self, name: str, meaning: str, *labels: str, values: Iterable[str] = ()) -> Counter:
        """`values` of its one label start at 0: Prometheus sees no increase in a series that appears with 1."""
        counter = Counter(self._documented(name, "counter", meaning, labels), meaning, labels, registry=self.registry)
        for value in values:
            counter.labels(value)
        return counter

    def _gauge(self, name: str, meaning: str, *labels: str) -> Gauge:
        return Gauge(self._documented(name, "gauge", meaning, labels), meaning, labels, registry=self.registry)

    def _histogram(self, name: str, meaning: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
        name = self._documented(name, "histogram", meaning, labels)
        return Histogram(name, meaning, labels, buckets=buckets, registry=self.registry)

    def _documented(self, name: str, kind: str, meaning: str, labels: tuple[str, ...]) -> str:
        name = f"ml_worker_{name}"
        self.vocabulary.append(MetricDoc(name, kind, labels, meaning))
        return name


# The commands that the worker, its stores and GridFS send; anything else counts as "other".
MONGODB_OPERATIONS = frozenset(
    {"find", "getMore", "insert", "update", "delete", "findAndModify", "aggregate", "count", "distinct",
     "createIndexes", "listIndexes", "listCollections", "hello", "ping", "endSessions"}
)  # fmt: skip


class MongoCommandCount(CommandListener):
    """Counts and times every command of the MongoClient that it is given to (`event_listeners=[…]`)."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def started(self, event: CommandStartedEvent) -> None:
        self._metrics.mongodb_operations.labels(_operation(event.command_name)).inc()

    def succeeded(self, event: CommandSucceededEvent) -> None:
        self._took(event.command_name, event.duration_micros)

    def failed(self, event: CommandFailedEvent) -> None:
        self._took(event.command_name, event.duration_micros)

    def _took(self, command: str, duration_micros: int) -> None:
        self._metrics.mongodb_operation_s.labels(_operation(command)).observe(duration_micros / 1e6)


def _operation(command: str) -> str:
    return command if command in MONGODB_OPERATIONS else "other"


def metrics_table() -> str:
    """All metrics as a Markdown table."""
    rows = ["| name | type | labels | meaning |", "|---|---|---|---|"]
    rows += [
        f"| `{doc.name}` | {doc.kind} | {', '.join(f'`{label}`' for label in doc.labels)} | {doc.meaning} |"
        for doc in Metrics().vocabulary
    ]
    return "\n".join(rows)


if __name__ == "__main__":
    sys.stdout.write(metrics_table() + "\n")
