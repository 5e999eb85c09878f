"""One run: servers and workers start, requests come while faults happen, everything heals, and the checker looks."""

from __future__ import annotations

import math
import random
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from confluent_kafka import KafkaException

from consumer.events.messages import message
from consumer.events.requests import to_avro
from schemas import RecordType
from tests.chaos.journal import Journal, Recovery, recovery
from tests.chaos.nemesis import Nemesis
from tests.chaos.workload import Plan, plan
from tests.chaos.world import WORKERS, OffsetSampler, World, reset_offsets, world
from tests.end_to_end.evidence import Evidence, collect
from tests.end_to_end.fleet import Fleet
from tests.end_to_end.test_fleet import seed_people
from tests.end_to_end.verdict import Verdict, Wrong, judge

PARTITIONS = 12
TURN_S = 0.1


@dataclass(frozen=True)
class Options:
    """Attributes:
    minutes: how long all of it may take on a machine that is not busy otherwise.
    longest_fault_s: kinds that always last longer are left out.
    reset: whether at the end the group's offsets are set to the beginning, and everything is announced again.
    delivery, group_protocol: as in the worker's settings DELIVERY and KAFKA_GROUP_PROTOCOL.
    brokers: nodes of Kafka, each with a copy of everything; one at a time is killed or stopped.
    forks: whether workers may be forked (tests.launcher) and not executed.
    """

    seed: int = 1
    requests: int = 5000
    faults: int = 200
    minutes: float = 12.0
    longest_fault_s: float = 60.0
    reset: bool = True
    delivery: str = "exactly-once"
    group_protocol: str = "classic"
    brokers: int = 1
    forks: bool = False

    @property
    def chaos_s(self) -> float:
        """The time in which requests are sent and faults inflicted."""
        return max(20.0, self.minutes * 60 * 0.8 - 20)

    @property
    def settle_s(self) -> float:
        """What is left after that: a run that needs longer has a problem of its own."""
        return max(240.0, self.minutes * 60 * 0.2)


@dataclass
class Report:
    """What came of a run."""

    options: Options
    verdict: Verdict
    recovery: Recovery
    journal: Journal
    plan: Plan
    left_out: list[str]
    took_s: dict[str, float] = field(default_factory=dict)
    samples: int = 0
    after_reset: Verdict | None = None

    @property
    def violations(self) -> list[str]:
        again = [] if self.after_reset is None else self.after_reset.violations
        return [*self.verdict.violations, *(f"after the reset of offsets: {what}" for what in again)]


def run(options: Options, folder: Path, say: Callable[[str], None]) -> Report:
    """Logs and the journal stay in the folder, and where a promise was broken what Kafka has on disk."""
    took_s: dict[str, float] = {}

    @contextmanager
    def timed(phase: str) -> Iterator[None]:
        say(phase)
        begun = time.monotonic()
        yield
        took_s[phase] = round(time.monotonic() - begun, 1)

    settings = {"DELIVERY": options.delivery, "KAFKA_GROUP_PROTOCOL": options.group_protocol}
    with world(folder, options.brokers, settings, forks=options.forks) as made, ThreadPoolExecutor() as threads:
        nemesis = Nemesis(made, random.Random(options.seed), threads)
        asked = plan(options.seed, options.requests, options.chaos_s)
        sampler = OffsetSampler(made.kafka.bootstrap_servers, made.fleet.topics.training_requests, PARTITIONS)
        try:
            with timed("workers start"):
                seed_people(made.database)
                _start_workers(made)
                sampler.start()
            with timed("chaos"):
                nemesis.plan(options.faults, options.chaos_s, options.longest_fault_s)
                _be_chaotic(made, nemesis, asked, options.chaos_s)
            with timed("settling"):
                nemesis.relent()
                _settle(made, nemesis, options.settle_s)
            with timed("judging"):
                sampler.stop()
                evidence = _collect(made)
                may_repeat = options.delivery == "at-least-once"
                verdict = judge(evidence, expected=asked.expected, may_repeat=may_repeat, all_news=False)
                for regression in sampler.regressions:
                    verdict.note(Wrong.OFFSET, regression)
            report = Report(
                options,
                verdict,
                recovery(made.journal.entries, evidence.progress),
                made.journal,
                asked,
                nemesis.left_out,
                took_s,
                sampler.samples,
            )
            say(str(verdict))
            if options.reset:
                with timed("offsets reset"):
                    report.after_reset = _announce_again(made, asked, options.settle_s)
            for ended in made.ended_unasked:
                verdict.note(Wrong.WORKER, ended)
            if report.violations:
                _keep_kafka_files(made, folder)
        finally:
            nemesis.relent()
            for one in nemesis.going_on:
                one.heal()
    return report


def _keep_kafka_files(made: World, folder: Path) -> None:
    """Without indexes, which are large, and what a broker that lives removes meanwhile."""
    left_out = shutil.ignore_patterns("*.index", "*.timeindex", "*.tmp", "*.deleted")
    for number, node in enumerate(made.servers["kafka"], 1):
        assert node.server is not None
        with suppress(shutil.Error):
            shutil.copytree(node.server.directory, folder / f"kafka-{number}", ignore=left_out)


def _start_workers(made: World) -> None:
    for worker_id in WORKERS:
        made.start(worker_id)
    _until(made, lambda: all(made.ready(worker_id) for worker_id in WORKERS), 90)


def _be_chaotic(made: World, nemesis: Nemesis, asked: Plan, seconds: float) -> None:
    stopping = threading.Event()
    sender = threading.Thread(target=_send, args=(made.fleet, asked, stopping), name="sender", daemon=True)
    sender.start()
    until = time.monotonic() + seconds
    try:
        while sender.is_alive() or (not nemesis.done and time.monotonic() < until):
            made.look_after()
            nemesis.turn()
            time.sleep(TURN_S)
    finally:
        stopping.set()
        sender.join()


def _send(fleet: Fleet, asked: Plan, stopping: threading.Event) -> None:
    begun = time.monotonic()
    for step in asked.steps:
        wait_s = begun + step.at_s - time.monotonic()
        if wait_s > 0 and stopping.wait(wait_s):
            return
        if step.cancel:
            fleet.cancel(step.cancel, flush=False)
        elif step.request is not None:
            requested = to_avro(step.request) | {"requested_at": datetime.now(UTC)}
            sent = message(fleet.codec, fleet.topics, RecordType.TRAINING_REQUEST, requested)
            fleet.put(step.key or sent.key, sent.value, headers=sent.headers)
        else:
            fleet.put(step.key, step.raw)
    fleet.flush()


def _settle(made: World, nemesis: Nemesis, within_s: float) -> None:
    """Until everything is healed and every record is accounted for, or none more has been for so long."""
    nearest, deadline = math.inf, time.monotonic() + within_s
    while time.monotonic() < deadline:
        nemesis.turn()
        lag = _lag(made)
        if nemesis.done and lag == 0:
            return
        if lag < nearest:
            nearest, deadline = lag, time.monotonic() + within_s
        made.look_after()
        time.sleep(TURN_S)


def _announce_again(made: World, asked: Plan, within_s: float) -> Verdict:
    """The group's offsets are set to the beginning while no worker runs; one announces everything again."""
    for worker_id in tuple(made.running):
        made.drain(worker_id)
    _until(made, lambda: not made.leaving, 120)
    reset_offsets(made.kafka.bootstrap_servers, made.fleet.topics.training_requests, PARTITIONS)
    made.start(WORKERS[0])
    _until(made, lambda: _lag(made) == 0, within_s)
    return judge(_collect(made), expected=asked.expected, may_repeat=True, all_news=False)


def _lag(made: World) -> float:
    """The records that no committed offset accounts for; infinity while Kafka does not tell."""
    try:
        return made.fleet.lag()
    except KafkaException:
        return math.inf


def _until(made: World, condition: Callable[[], object], within_s: float) -> bool:
    deadline = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        made.look_after()
        time.sleep(TURN_S)
    return True


def _collect(made: World) -> Evidence:
    return collect(made.kafka.bootstrap_servers, made.fleet.prefix, made.database, made.s3.client())
