"""One suite for every way to a broker: what intake delivers, and what announcing makes of it.

Over Kafka's classic and KIP-848 groups, exactly-once and at-least-once, and over the embedded mock cluster.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic
from pydantic import SecretStr

from consumer import failpoints
from consumer.app import is_alone
from consumer.events.messages import Message
from consumer.kafka import config as kafka_config
from consumer.kafka.topic_reader import partition_of
from consumer.partitions.assignment import Offsets, Verdict
from consumer.partitions.intake import Intake
from consumer.partitions.offsets import Commit, CommittedProgress, write_metadata
from consumer.partitions.records import Membership, Partition, PassedOver, Polled, Reading, Record
from consumer.publishing import transactions
from consumer.publishing.transactions import Announcer, AtLeastOnce, ExactlyOnce
from consumer.settings import Settings
from consumer.threads.neighbour import Surroundings, ThreadFailed
from pipeline.errors import SupersededError, TransientError
from tests.end_to_end.evidence import read_topic


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
        tap = Tap(self, Intake(consumer, self.requests, around=Surroundings(deliver)), intake_box, failures)
        tap.intake.read(Reading(allowed))
        tap.intake.start()
        self.taps.append(tap)
        return tap

    def announcer(
        self,
        intake: Intake,
        worker_id: str = "w",
        confirm_life: Callable[[], object] = lambda: None,
        config: Mapping[str, int] | None = None,
    ) -> Announcer:
        settings = self.settings.model_copy(update={"worker_id": worker_id})
        if self.exactly_once:
            producer = kafka_config.transactional_producer_config(settings) | dict(config or {})
            return ExactlyOnce(producer, kafka_config.offsets_config(settings), confirm_life)
        return AtLeastOnce(kafka_config.producer_config(settings), intake.commit)

    def put(self, *values: bytes, partition: int = 0, key: bytes | None = None) -> None:
        producer = Producer(kafka_config.producer_config(self.settings))
        for value in values:
            producer.produce(self.requests, value, key, partition=partition)
        assert producer.flush(30) == 0

    def holds_up_readers(self) -> bool:
        """Whether readers of committed events wait for the end of a transaction."""
        partitions = [TopicPartition(self.events, number) for number in range(2)]
        ends = []
        for level in ("read_committed", "read_uncommitted"):
            reader = Consumer({**kafka_config.offsets_config(self.settings), "isolation.level": level})
            ends.append([reader.get_watermark_offsets(partition, timeout=10)[1] for partition in partitions])
            reader.close()
        return ends[0] != ends[1]

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
        return [record for polled in list(self.polled) for record in polled.records if isinstance(record, Record)]

    @property
    def passed(self) -> list[int]:
        found = (one for polled in list(self.polled) for one in polled.records if isinstance(one, PassedOver))
        return [offset for one in found for offset in one.offsets]

    @property
    def membership(self) -> Membership:
        return self.polled[-1].membership if self.polled else Membership()

    def opened(self, partition: Partition) -> CommittedProgress:
        return next(polled.opened[partition] for polled in self.polled if partition in polled.opened)

    def until(self, condition: Callable[[], object], within_s: float = 60) -> None:
        deadline = time.monotonic() + within_s
        while not condition():
            assert not self.failures, self.failures
            assert time.monotonic() < deadline, (self.membership, len(self.records))
            time.sleep(0.05)

    def until_read(self, count: int) -> None:
        self.until(lambda: len(self.records) >= count)

    def until_owner_of(self, count: int) -> None:
        self.until(lambda: len(self.membership.epochs) == count)

    def turn(self, more_than: int) -> None:
        """Until it has polled more often than that, from now on."""
        polled = len(self.polled)
        self.until(lambda: len(self.polled) > polled + more_than)

    def leave(self) -> None:
        self.intake.leave()
        self.intake.join(30)


WAYS: dict[str, tuple[Literal["classic", "consumer"], bool]] = {
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
        mongodb_url=SecretStr(""),
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
    fits, huge = Message(way.events, b"k", b"fits", []), Message(way.events, b"huge", os.urandom(3 * 2**20), [])
    assert partition_of(b"k", 2) != partition_of(b"huge", 2), "what fits reaches the broker"
    assert announcer.announce([fits, huge], offsets(tap, partition, end, "1.1")) is Verdict.REFUSED
    tap.until(lambda: not way.holds_up_readers(), within_s=5)
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
        tap.intake.read(Reading(allowed))
        tap.until_read(allowed)
        tap.turn(10)
        assert len(tap.records) == allowed
    assert len({(record.partition, record.offset) for record in tap.records}) == 1000


def test_what_an_intake_passes_over_it_reads_again_when_it_is_told_to(way: Way) -> None:
    partition = Partition(way.requests, 0)
    way.put(*(b"big" for _ in range(10)), key=b"big/m")
    tap = way.tap(allowed=10)
    tap.until(lambda: len(tap.records) == 10)
    tap.intake.read(Reading(20, sated=frozenset({b"big"})))
    way.put(*(b"big" for _ in range(2_000)), key=b"big/m")
    way.put(b"small", key=b"small/m")
    tap.until(lambda: len(tap.records) == 11)
    start = tap.records[0].offset
    assert tap.records[-1].value == b"small"
    assert tap.passed == list(range(start + 10, start + 2_010))
    tap.intake.read(Reading(10**6))
    tap.intake.rewind(partition, tap.membership.epochs[partition], start + 10)
    tap.until(lambda: len(tap.records) == 11 + 2_001)
    assert [record.offset for record in tap.records[11:]] == list(range(start + 10, start + 2_011))
    assert [polled.rewound for polled in tap.polled if polled.rewound] == [{partition: start + 10}]
    assert tap.membership.positions[partition] == start + 2_011


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


def test_of_two_static_members_with_one_name_the_older_is_superseded(way: Way) -> None:
    if way.name not in ("kafka", "kafka-at-least-once"):
        return  # the mock cluster fences nobody, and KIP-848 has its own way
    way.settings = way.settings.model_copy(update={"kafka_static_membership": True})
    older = way.tap()
    older.until(lambda: older.membership.epochs)
    newer = way.tap()
    newer.until(lambda: len(newer.membership.epochs) == 2)
    newer.until(lambda: older.failures)
    assert isinstance(older.failures[0].error, SupersededError)


def test_a_producer_that_is_fenced_asks_whether_a_newer_life_has_its_name(way: Way) -> None:
    if not way.exactly_once:
        return

    def superseded() -> None:
        raise SupersededError("a newer life")

    way.put(b"a", partition=0)
    tap = way.tap()
    tap.until(lambda: tap.records)
    older = way.announcer(tap.intake, confirm_life=superseded)
    older.prepare()
    way.announcer(tap.intake).prepare()
    group = offsets(tap, Partition(way.requests, 0), 1, "1.1")
    with pytest.raises(TransientError):
        older.announce([Message(way.events, b"k", b"x", [])], group)
    with pytest.raises(SupersededError):
        older.announce([Message(way.events, b"k", b"x", [])], group)


def test_a_transaction_that_was_open_for_too_long_is_made_again_by_the_same_life(way: Way) -> None:
    """The broker says the same then as of a newer producer."""
    if way.name != "kafka":
        return
    way.put(b"a", partition=0)
    tap = way.tap()
    tap.until(lambda: tap.records)
    confirmed: list[bool] = []
    announcer = way.announcer(
        tap.intake,
        confirm_life=lambda: confirmed.append(True),
        config={"transaction.timeout.ms": 1_000, "socket.timeout.ms": 1_000},
    )
    group = offsets(tap, Partition(way.requests, 0), 1, "1.1")
    failpoints.arm("before_commit=delay(15)::1")  # the broker looks for such transactions every 10 s
    try:
        with pytest.raises(TransientError):
            announcer.announce([Message(way.events, b"k", b"x", [])], group)
    finally:
        failpoints.arm("")
    assert announcer.announce([Message(way.events, b"k", b"x", [])], group) is Verdict.COMMITTED
    assert confirmed == [True]
    assert way.seen() == [b"x"]


def test_a_call_that_never_returns_is_left_behind_and_the_group_announced_afresh(
    way: Way, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As librdkafka's send_offsets_to_transaction where the group's coordinator has died (#5511)."""
    if way.name != "kafka":
        return
    goes_on, ended = threading.Event(), threading.Event()

    class Hanging(Producer):
        made = 0

        def __init__(self, config: dict[str, Any]) -> None:
            super().__init__(config)
            Hanging.made += 1
            self.hangs = Hanging.made == 1

        def send_offsets_to_transaction(self, *arguments: Any) -> None:
            if not self.hangs:
                return super().send_offsets_to_transaction(*arguments)
            goes_on.wait(60)
            try:
                super().send_offsets_to_transaction(*arguments)
            finally:
                ended.set()

    monkeypatch.setattr(transactions, "Producer", Hanging)
    monkeypatch.setattr(transactions, "CALL_TIMEOUT_S", 2.0)
    way.put(b"a", partition=0)
    tap = way.tap()
    tap.until(lambda: tap.records)
    announcer = way.announcer(tap.intake)
    group = offsets(tap, Partition(way.requests, 0), 1, "1.1")
    with pytest.raises(TransientError, match="coordinator"):
        announcer.announce([Message(way.events, b"k", b"x", [])], group)
    assert announcer.announce([Message(way.events, b"k", b"x", [])], group) is Verdict.COMMITTED
    goes_on.set()
    assert ended.wait(60)
    assert announcer.announce([Message(way.events, b"k", b"y", [])], group) is Verdict.COMMITTED
    assert way.seen() == [b"x", b"y"]


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


def test_a_member_knows_whether_it_is_alone(way: Way) -> None:
    if way.name == "mock":
        pytest.skip("the mock cluster cannot tell")
    settings = way.settings
    admin = AdminClient(kafka_config.kafka_client_config(settings))
    taps = []
    for alone in (True, False):
        taps.append(way.tap())
        for tap in taps:
            tap.until_owner_of(2 // len(taps))
        assert is_alone(admin, settings.kafka_group_id, settings.kafka_group_protocol) is alone
