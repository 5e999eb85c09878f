"""One suite for every way to a broker: what intake delivers, and what announcing makes of it.

Over Kafka's classic and KIP-848 groups, exactly-once and at-least-once, and over the embedded mock cluster.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from consumer import kafka_config
from consumer.events.messages import Message
from consumer.failures import ThreadFailed
from consumer.intake import Intake, Membership, Partition, Polled, Record
from consumer.metrics import Metrics
from consumer.offsets import Commit, Progress, write_metadata
from consumer.settings import Settings
from consumer.transactions import Announcer, AtLeastOnce, ExactlyOnce, Offsets, Verdict
from tests.end_to_end.verdict import read_topic


@dataclass
class Way:
    """One adapter under test, with topics of its own."""

    name: str
    settings: Settings
    requests: str
    events: str
    exactly_once: bool
    taps: list[Tap] = field(default_factory=list)

    def tap(self, allowed: int = 10**6) -> Tap:
        intake_box: list[Polled] = []
        failures: list[ThreadFailed] = []

        def deliver(message: Polled | ThreadFailed) -> None:
            (failures if isinstance(message, ThreadFailed) else intake_box).append(message)  # type: ignore[arg-type]

        consumer = Consumer(kafka_config.consumer_config(self.settings))
        tap = Tap(self, Intake(consumer, self.requests, deliver, Metrics()), intake_box, failures)
        tap.intake.allow(allowed)
        tap.intake.start()
        self.taps.append(tap)
        return tap

    def announcer(self, intake: Intake, worker_id: str = "w") -> Announcer:
        settings = self.settings.model_copy(update={"worker_id": worker_id})
        if self.exactly_once:
            config = kafka_config.transactional_producer_config(settings)
            return ExactlyOnce(config, kafka_config.offsets_config(settings))
        return AtLeastOnce(kafka_config.producer_config(settings), intake.commit)

    def put(self, *values: bytes, partition: int = 0) -> None:
        producer = Producer(kafka_config.producer_config(self.settings))
        for value in values:
            producer.produce(self.requests, value, partition=partition)
        assert producer.flush(30) == 0

    def seen(self) -> list[bytes]:
        return [record.value() for record in read_topic(self.settings.kafka_bootstrap_servers, self.events)]


@dataclass
class Tap:
    """An intake, and everything that it has delivered."""

    way: Way
    intake: Intake
    polled: list[Polled]
    failures: list[ThreadFailed]

    @property
    def records(self) -> list[Record]:
        return [record for polled in list(self.polled) for record in polled.records]

    @property
    def membership(self) -> Membership:
        return self.polled[-1].membership if self.polled else Membership()

    def opened(self, partition: Partition) -> Progress:
        return next(polled.opened[partition] for polled in self.polled if partition in polled.opened)

    def until(self, condition: Callable[[], object], within_s: float = 60) -> None:
        deadline = time.monotonic() + within_s
        while not condition():
            assert not self.failures, self.failures
            assert time.monotonic() < deadline, (self.membership, len(self.records))
            time.sleep(0.05)

    def leave(self) -> None:
        self.intake.leave()
        self.intake.join(30)


WAYS = {
    "mock": ("classic", False),
    "kafka": ("classic", True),
    "kafka-at-least-once": ("classic", False),
    "kip-848": ("consumer", True),
    "kip-848-at-least-once": ("consumer", False),
}


@pytest.fixture(params=[pytest.param(name, marks=() if name == "mock" else (pytest.mark.services,)) for name in WAYS])
def way(request: pytest.FixtureRequest, topic_prefix: str) -> Iterator[Way]:
    protocol, exactly_once = WAYS[request.param]
    mock = None
    if request.param == "mock":
        mock = Producer({"bootstrap.servers": "", "test.mock.num.brokers": 1})
        servers = ",".join(f"{broker.host}:{broker.port}" for broker in mock.list_topics(timeout=10).brokers.values())
    else:
        servers = request.getfixturevalue("kafka").bootstrap_servers
    settings = Settings(
        kafka_bootstrap_servers=servers,
        kafka_group_id=f"{topic_prefix}group",
        kafka_group_protocol=protocol,
        kafka_session_timeout_ms=6000,
        worker_id="w",
        mongodb_url="",
    )
    made = Way(request.param, settings, f"{topic_prefix}requests", f"{topic_prefix}events", exactly_once)
    _create(made, mock is not None)
    yield made
    for tap in made.taps:
        tap.leave()


def _create(way: Way, mock: bool) -> None:
    admin = AdminClient({"bootstrap.servers": way.settings.kafka_bootstrap_servers})
    topics = (way.requests, way.events)
    if mock:
        for topic in topics:
            admin.list_topics(topic, timeout=10)
        return
    for future in admin.create_topics([NewTopic(topic, 2, 1) for topic in topics]).values():
        future.result(30)


def offsets(
    tap: Tap, partition: Partition, offset: int, tag: str, finished: tuple[tuple[int, int], ...] = ()
) -> Offsets:
    commit = Commit(offset, write_metadata(offset, finished, tag))
    return Offsets({partition: commit}, tap.membership, tag)


def test_what_is_announced_is_seen_and_what_was_committed_is_known_to_the_next_owner(way: Way) -> None:
    partition = Partition(way.requests, 0)
    way.put(b"a", b"b", b"c", b"d")
    first = way.tap()
    first.until(lambda: len(first.records) == 4)
    assert [record.value for record in first.records] == [b"a", b"b", b"c", b"d"]
    assert first.membership.positions[partition] == first.records[-1].offset + 1
    start = first.records[0].offset
    announcer = way.announcer(first.intake)
    message = Message(way.events, b"k", b"event", [("h", b"v")])
    verdict = announcer.announce([message], offsets(first, partition, start, "1.1", ((start + 2, start + 3),)))
    assert verdict is Verdict.COMMITTED
    assert way.seen() == [b"event"]
    announcer.close()
    first.leave()
    second = way.tap()
    second.until(lambda: len(second.records) == 4)
    before = second.opened(partition)
    assert [before.has(start + n) for n in range(4)] == [False, False, True, False]
    assert (before.offset, before.tag) == (start, "1.1")


def test_a_record_that_the_broker_refuses_takes_the_whole_group_back(way: Way) -> None:
    if way.name == "mock":
        return  # it takes a record of any size
    partition = Partition(way.requests, 0)
    way.put(b"a")
    tap = way.tap()
    tap.until(lambda: tap.records)
    announcer = way.announcer(tap.intake)
    end = tap.records[0].offset + 1
    fits, huge = Message(way.events, b"k", b"fits", []), Message(way.events, b"k", os.urandom(3 * 2**20), [])
    assert announcer.announce([fits, huge], offsets(tap, partition, end, "1.1")) is Verdict.REFUSED
    once = way.seen()
    assert once == ([] if way.exactly_once else [b"fits"])
    assert announcer.announce([fits], offsets(tap, partition, end, "1.2")) is Verdict.COMMITTED
    assert way.seen() == [*once, b"fits"]
    announcer.close()


def test_a_membership_that_is_out_of_date_commits_nothing_and_repeats_no_event(way: Way) -> None:
    for number in (0, 1):
        way.put(b"a", b"b", partition=number)
    first = way.tap()
    first.until(lambda: len(first.records) == 4)
    old = first.membership
    second = way.tap()
    first.until(lambda: len(first.membership.epochs) < len(old.epochs) and second.membership.epochs)
    lost = next(partition for partition in old.epochs if partition not in first.membership.epochs)
    announcer = way.announcer(first.intake)
    stale = Offsets({lost: Commit(1, write_metadata(1, (), "1.1"))}, old, "1.1")
    message = Message(way.events, b"k", b"event", [])
    assert announcer.announce([message], stale) is Verdict.STALE
    kept = next(iter(first.membership.epochs))
    assert announcer.announce([message], offsets(first, kept, 0, "1.2")) is Verdict.COMMITTED
    assert way.seen() == [b"event"]
    announcer.close()


def test_an_intake_reads_what_it_is_allowed_stays_a_member_and_reads_on(way: Way) -> None:
    tap = way.tap(allowed=0)
    tap.until(lambda: tap.membership.epochs)
    way.put(*(b"%d" % number for number in range(1000)))
    for allowed in (0, 7, 600, 1000):
        tap.intake.allow(allowed)
        tap.until(lambda allowed=allowed: len(tap.records) >= allowed)
        turned = len(tap.polled)
        tap.until(lambda turned=turned: len(tap.polled) > turned + 10)
        assert len(tap.records) == allowed
    assert len({(record.partition, record.offset) for record in tap.records}) == 1000


def test_a_partition_that_is_lost_and_regained_has_another_epoch(way: Way) -> None:
    tap = way.tap()
    tap.until(lambda: tap.membership.epochs)
    before: dict[Any, int] = dict(tap.membership.epochs)
    other = way.tap()
    tap.until(lambda: len(tap.membership.epochs) < len(before))
    lost = before.keys() - tap.membership.epochs.keys()
    other.leave()
    tap.until(lambda: len(tap.membership.epochs) == len(before))
    for partition in before:
        changed = tap.membership.epochs[partition] != before[partition]
        assert changed == (partition in lost)


def test_the_committed_offset_is_what_the_broker_tells(way: Way) -> None:
    partition = Partition(way.requests, 1)
    way.put(b"a", b"b", partition=1)
    tap = way.tap()
    tap.until(lambda: len(tap.records) == 2)
    announcer = way.announcer(tap.intake)
    end = tap.records[-1].offset + 1
    assert announcer.announce([], offsets(tap, partition, end, "1.1")) is Verdict.COMMITTED
    announcer.close()
    tap.leave()
    reader = Consumer({**kafka_config.consumer_config(way.settings)})
    try:
        found = reader.committed([TopicPartition(*partition)], timeout=10)[0]
    finally:
        reader.close()
    assert found.offset == end
