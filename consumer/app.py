"""Builds the worker from its settings, runs it, and stops its parts in order."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path

import structlog
from confluent_kafka import Consumer, KafkaException, Producer
from confluent_kafka.admin import AdminClient

from consumer.events.codec import Codec
from consumer.events.errors import MissingTopicsError
from consumer.events.schema_registry import SchemaRegistry
from consumer.events.topics import Topics
from consumer.jobs.cancellation import ControlGroup, ControlTail
from consumer.jobs.checkpoints import Checkpoints
from consumer.jobs.claims import Claims
from consumer.jobs.lease import LEASE_S, Heartbeat, Steady, begin_life
from consumer.jobs.readiness import Readiness
from consumer.jobs.registrar import Registrar
from consumer.jobs.spools import Spools
from consumer.kafka import config as kafka_config
from consumer.loaders.loaders import Loaders
from consumer.partitions.intake import Intake
from consumer.port.health import Prober, service_probes
from consumer.port.http import Health, HttpServer
from consumer.publishing.alias_events import AliasNews
from consumer.publishing.committer import Committer
from consumer.publishing.progress import Progress
from consumer.publishing.transactions import Announcer, AtLeastOnce, ExactlyOnce
from consumer.settings import Settings
from consumer.stores import Stores, open_cache, open_loaders, open_stores
from consumer.system import disk
from consumer.system.machine import gpus
from consumer.telemetry.metrics import Metrics, MongoCommandCount
from consumer.telemetry.mongodb_log import MongoCommandLog
from consumer.threads.containment import UncontainedError
from consumer.threads.inbox import Inbox
from consumer.threads.neighbour import Neighbour, Surroundings
from consumer.threads.retrying import Breakers, Stopped, until_answered
from consumer.threads.watch import Watch
from consumer.trainers.lanes import Lanes
from consumer.worker.feeding import Limits
from consumer.worker.job_events import JobEvents
from consumer.worker.shared import Neighbours
from consumer.worker.worker import Worker
from pipeline.errors import SupersededError, TransientError
from pipeline.ledger import Owner
from pipeline.registry.quotas import Quotas

log = structlog.get_logger(__name__)

JOIN_S = 10.0
"""Twice this, and a few seconds for the rest, fit into the 30 s that containers get beyond DRAIN_TIMEOUT."""
EXIT_SUPERSEDED = 75


def run(settings: Settings, lanes: Lanes) -> None:
    """Run a worker with these lanes, which have been started; see `launch.run_worker`."""
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    try:
        parts = _build(settings, lanes, stop)
    except Stopped:
        lanes.stop()
        return
    except BaseException:
        lanes.stop()
        raise
    threading.Thread(target=_drain_when, args=(stop, parts.worker), name="signals", daemon=True).start()
    try:
        parts.run()
    except SupersededError as error:
        # Certain: a newer process has our name. Nothing that we still do may count, so end at once.
        log.critical("superseded", why=str(error))
        os._exit(EXIT_SUPERSEDED)
    _end()


def _drain_when(stop: threading.Event, worker: Worker) -> None:
    stop.wait()
    worker.drain()


@dataclass(slots=True)
class _Parts:
    """Everything that a worker consists of."""

    me: Owner
    stores: Stores
    watch: Watch
    limits: Limits
    worker: Worker
    neighbours: Neighbours
    loaders: Loaders
    heartbeat: Heartbeat
    control: tuple[ControlGroup, ControlTail]
    news: AliasNews
    prober: Prober
    http: HttpServer

    def run(self) -> None:
        """Start all parts, run the worker, and stop all parts; if we are superseded, stop nothing, as it could act."""
        self.http.start()
        self.watch.start(self.http.listening)
        for thread in self._threads:
            thread.start()
        log.info("worker started", worker_id=self.me.worker_id, boot=self.me.boot)
        try:
            self.worker.run()
        except SupersededError:
            raise
        except UncontainedError as error:
            self._blame(error.request_ids)
            self._stop()
            raise
        except BaseException:
            self._stop()
            raise
        self._stop()

    @property
    def _threads(self) -> Sequence[Neighbour]:
        """In the order of starting: the sinks first, the source last."""
        near = self.neighbours
        stores = (self.prober, near.claims, near.readiness, near.registrar, near.committer, near.checkpoints)
        return (*stores, self.heartbeat, self.news, *self.control, near.intake)

    def _blame(self, request_ids: Collection[str]) -> None:
        """Count half of the allowed worker losses for these requests, so that they end at most two workers this way."""
        try:
            self.stores.ledger.blame(self.me, request_ids, ceil(self.limits.worker_losses / 2))
        except Exception:
            log.exception("not written down who was to blame", request_ids=sorted(request_ids))

    def _stop(self) -> None:
        """Stop the source first, the sinks last; abandon what does not end in time, as all of it can be done again."""
        near = self.neighbours
        near.intake.leave()
        for source in (near.readiness, *self.control):
            source.give_up()
        near.lanes.stop()
        near.claims.finish()
        near.registrar.finish()
        _join(near.claims, near.registrar, near.intake)
        for thread in self._threads:
            thread.give_up()
        threading.Thread(target=self.loaders.stop, name="loaders end", daemon=True).start()
        _join(near.committer, near.checkpoints, self.news, self.heartbeat, *self.control)
        try:
            self.stores.ledger.leave(self.me)
        except TransientError as error:
            log.info("the lease is left to run out", why=str(error))
        self.watch.stop()  # before http, as the watcher has the port open too
        self.http.stop()
        log.info("worker stopped", worker_id=self.me.worker_id)


def _join(*neighbours: Neighbour) -> None:
    """Wait for all of them, JOIN_S together."""
    deadline = time.monotonic() + JOIN_S
    for one in neighbours:
        one.join(max(0.0, deadline - time.monotonic()))


def _end() -> None:
    """End the process. A normal exit of the interpreter would wait for calls that a service does not answer."""
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(0)


def _build(settings: Settings, lanes: Lanes, stop: threading.Event) -> _Parts:
    metrics = Metrics()
    metrics.lanes.set(settings.worker_concurrency)
    breakers = Breakers(metrics, services=_services(settings))
    steady = Steady()
    topics = Topics(settings.topic_prefix)
    registry_url = settings.schema_registry_url
    codec = Codec(SchemaRegistry(registry_url) if registry_url else None, settings.topic_prefix)
    stores = open_stores(settings, [MongoCommandLog(), MongoCommandCount(metrics)])
    admin = AdminClient(kafka_config.kafka_client_config(settings))

    def wait_for(operation: Callable[[], object]) -> None:
        until_answered(operation, breakers=breakers, stop=stop)

    wait_for(lambda: require_topics(admin, topics))
    wait_for(stores.prepare)
    wait_for(codec.prepare)
    me = until_answered(lambda: begin_life(settings.worker_id, stores.ledger), breakers=breakers, stop=stop)
    spools = Spools(_own_spool(settings.spool_dir, me))

    inbox, watch, limits = Inbox(), Watch(me.worker_id), _limits(settings)
    around = Surroundings(inbox.put, breakers, metrics, watch)
    intake = Intake(Consumer(kafka_config.consumer_config(settings)), topics.training_requests, around=around)
    progress = Progress(Producer(kafka_config.progress_producer_config(settings)), codec, topics)
    claims = Claims(me, stores.ledger, codec, steady=steady, around=around)
    quotas = Quotas.of(settings.project_quotas)
    checkpoints = Checkpoints(stores.artifacts, spools.root, around=around)
    loaders = open_loaders(settings)
    readiness = Readiness(
        me,
        stores.ledger,
        open_cache(settings, stores.datasets, loaders.load),
        checkpoints.restore,
        quotas=quotas,
        registry=stores.registry,
        machine={"threads": str(settings.cpus_per_training), "gpu": "yes" if gpus() else "no"},
        training_memory_bytes=settings.max_training_memory,
        spool=spools.root,
        is_alone=lambda: is_alone(admin, settings.kafka_group_id, settings.kafka_group_protocol),
        steady=steady,
        around=around,
    )
    registrar = Registrar(
        me, stores.ledger, stores.registry, stores.artifacts, codec, topics, spools=spools, steady=steady, around=around
    )
    announcer = _announcer(settings, intake, lambda: stores.ledger.heartbeat(me, LEASE_S, ()))
    committer = Committer(announcer, progress, codec, topics, around=around)
    job_events = JobEvents(me.worker_id, progress, metrics)
    neighbours = Neighbours(
        intake=intake,
        claims=claims,
        readiness=readiness,
        lanes=lanes,
        registrar=registrar,
        committer=committer,
        checkpoints=checkpoints,
    )
    worker = Worker(
        me,
        inbox,
        neighbours,
        job_events=job_events,
        breakers=breakers,
        metrics=metrics,
        limits=limits,
        quotas=quotas,
        watch=watch,
        spools=spools,
        dask_scheduler=settings.dask_scheduler if settings.search_backend == "dask" else None,
    )
    heartbeat = Heartbeat(me, stores.ledger, watched=worker.watched, steady=steady, around=around)
    metrics.heartbeat_age_s.set_function(lambda: time.monotonic() - heartbeat.beat_at)
    group_consumer = Consumer(kafka_config.consumer_config(settings, f"{settings.kafka_group_id}-control"))
    tail_consumer = Consumer(kafka_config.tail_config(settings))
    control = (
        ControlGroup(group_consumer, topics.training_control, codec, stores.ledger, around=around),
        ControlTail(tail_consumer, topics.training_control, codec, around=around),
    )
    alias_producer = Producer(kafka_config.producer_config(settings))
    news = AliasNews(stores.aliases, alias_producer, codec, topics, around=around)
    prober = Prober(service_probes(admin, stores.ledger, stores.artifacts), around)

    def health() -> Health:
        return Health(
            mongodb_connected=prober.connected["mongodb"],
            kafka_connected=prober.connected["kafka"],
            artifacts_connected=prober.connected["artifacts"],
            active_jobs=worker.active,
            models_trained=job_events.trained,
            assigned_partitions=len(worker.membership.epochs),
            services=breakers.states(),
        )

    def stuck() -> Mapping[str, float]:
        return watch.stuck() if lanes.alive else {**watch.stuck(), "lanes": 0.0}

    http = HttpServer(settings.port, health, stuck, metrics, watch)
    return _Parts(
        me,
        stores,
        watch,
        limits,
        worker,
        neighbours,
        loaders,
        heartbeat,
        control,
        news,
        prober,
        http,
    )


def _services(settings: Settings) -> list[str]:
    """The services that the worker needs, by the names in errors and metrics."""
    return [
        "kafka",
        "sqlite" if settings.embedded else "mongodb",
        *(["minio"] if settings.minio_endpoint and not settings.embedded else []),
        *(["schema registry"] if settings.schema_registry_url else []),
    ]


def _own_spool(folder: Path, me: Owner) -> Path:
    """A new folder for this life of the worker alone, as an earlier, stopped one may resume; its folder is deleted."""
    disk.remove(folder / me.worker_id)
    spool = folder / me.worker_id / str(me.boot)
    spool.mkdir(parents=True)
    return spool


def _announcer(settings: Settings, intake: Intake, confirm_life: Callable[[], object]) -> Announcer:
    if settings.delivery == "exactly-once":
        config = kafka_config.transactional_producer_config(settings)
        return ExactlyOnce(config, kafka_config.offsets_config(settings), confirm_life)
    return AtLeastOnce(kafka_config.producer_config(settings), intake.commit)


def _limits(settings: Settings) -> Limits:
    return Limits(
        training_time_s=settings.max_training_time,
        training_memory_bytes=settings.max_training_memory,
        attempts=settings.max_attempts,
        worker_losses=settings.max_worker_losses,
        look_ahead=settings.look_ahead,
        drain_timeout_s=settings.drain_timeout,
    )


def require_topics(admin: AdminClient, topics: Topics) -> None:
    """Raises MissingTopicsError if a topic is missing, TransientError if no broker answers."""
    try:
        present = admin.list_topics(timeout=5).topics
    except KafkaException as error:
        raise TransientError("kafka", str(error)) from error
    missing = [topic.name for topic in topics.all() if topic.name not in present]
    if missing:
        raise MissingTopicsError(f"topics are missing: {', '.join(missing)}; run `tensorfleet topics create`")


def is_alone(admin: AdminClient, group_id: str, protocol: str) -> bool:
    """Whether the group has at most one member; True if that cannot be found out.

    For a classic group this uses the old, deprecated call. The new call is the only one for KIP-848 groups, but aborts
    the process if the broker comes back after longer than the time-out (librdkafka 2.16, rd_kafka_enq_once).
    """
    try:
        if protocol == "classic":
            members = [member for group in admin.list_groups(group_id, 5) for member in group.members]
        else:
            members = admin.describe_consumer_groups([group_id], request_timeout=5)[group_id].result().members
    except KafkaException as error:
        log.info("Kafka did not say who is in the group", why=str(error))
        return True
    return len(members) <= 1
