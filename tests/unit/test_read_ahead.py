"""What is read, and of whom: the intake, the assignment and the read-ahead together, on a topic in memory."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
from confluent_kafka import TopicPartition
from hypothesis import given, settings
from hypothesis import strategies as st

from consumer.partitions import intake
from consumer.partitions.announcements import Announcement
from consumer.partitions.assignment import Assignment, Verdict
from consumer.partitions.intake import BATCH, Intake
from consumer.partitions.read_ahead import ReadAhead
from consumer.partitions.records import Partition, PassedOver, Polled, Record
from consumer.telemetry.metrics import Metrics
from consumer.threads.neighbour import Surroundings

TOPIC = "requests"


@dataclass
class Delivered:
    """A message as confluent-kafka hands it over."""

    number: int
    at: int
    named: bytes | None

    def error(self) -> None:
        return None

    def topic(self) -> str:
        return TOPIC

    def partition(self) -> int:
        return self.number

    def offset(self) -> int:
        return self.at

    def key(self) -> bytes | None:
        return self.named

    def value(self) -> bytes:
        return b"value"

    def headers(self) -> None:
        return None

    def timestamp(self) -> tuple[int, int]:
        return 1, 0


class Topic:
    """A consumer of a topic in memory: keys by partition. Offsets below `starts` have expired."""

    def __init__(self, *partitions: Sequence[bytes | None]) -> None:
        self.partitions = [list(keys) for keys in partitions]
        self.starts = [0] * len(partitions)
        self.positions = [0] * len(partitions)
        self.paused: set[int] = set()
        self._assigned: Callable[[Any, list[TopicPartition]], None] | None = None
        self._turn = 0
        self.waits: list[float] = []
        """The time-outs of the polls."""

    def subscribe(self, _: list[str], on_assign: Any, **__: Any) -> None:
        self._assigned = on_assign

    def poll(self, timeout: float) -> Delivered | None:
        self.waits.append(timeout)
        if self._assigned is not None:
            assigned, self._assigned = self._assigned, None
            assigned(self, [TopicPartition(TOPIC, number) for number in range(len(self.partitions))])
        return next(iter(self.consume(1, 0)), None)

    def consume(self, count: int, _: float) -> list[Delivered]:
        """From the partitions in turns, a few records from each."""
        found: list[Delivered] = []
        for _ in range(len(self.partitions)):
            self._turn = (self._turn + 1) % len(self.partitions)
            number, keys = self._turn, self.partitions[self._turn]
            for _ in range(7):
                at = max(self.positions[number], self.starts[number])
                if number in self.paused or at >= len(keys) or len(found) == count:
                    break
                found.append(Delivered(number, at, keys[at]))
                self.positions[number] = at + 1
        return found

    def seek(self, to: TopicPartition) -> None:
        self.positions[to.partition] = to.offset

    def pause(self, partitions: list[TopicPartition]) -> None:
        self.paused |= {one.partition for one in partitions}

    def resume(self, partitions: list[TopicPartition]) -> None:
        self.paused -= {one.partition for one in partitions}

    def position(self, partitions: list[TopicPartition]) -> list[TopicPartition]:
        return [TopicPartition(TOPIC, one.partition, self.positions[one.partition]) for one in partitions]

    def committed(self, partitions: list[TopicPartition], timeout: float) -> list[TopicPartition]:
        return [TopicPartition(TOPIC, one.partition, -1001) for one in partitions]

    def get_watermark_offsets(self, one: TopicPartition, **_: Any) -> tuple[int, int]:
        return self.starts[one.partition], len(self.partitions[one.partition])

    def incremental_assign(self, partitions: list[TopicPartition]) -> None: ...

    def memberid(self) -> str:
        return "member"

    def consumer_group_metadata(self) -> str:
        return "metadata"


class Reading:
    """The part of a worker that reads; a test finishes what it holds."""

    def __init__(self, topic: Topic, look_ahead: int, passed_limit: int = 100_000) -> None:
        self.metrics = Metrics()
        self.assignment = Assignment(1)
        self.read_ahead = ReadAhead(look_ahead, passed_limit=passed_limit)
        self.work: list[Record] = []
        """Everything that ever became work."""
        self.held: list[Record] = []
        self._topic = topic
        self._polled: list[Any] = []
        self.intake = Intake(
            topic,  # type: ignore[arg-type]
            TOPIC,
            around=Surroundings(self._polled.append, metrics=self.metrics),
            poll_s=0,
            patience_s=0,
        )
        topic.subscribe([TOPIC], on_assign=self.intake._assigned)

    def turn(self) -> None:
        self.intake.read(self.read_ahead.reading(self.assignment, 0, halted=False))
        if not self.read_ahead.full:
            for partition in self.assignment.rewind():
                self.intake.rewind(*partition)
        self.intake.step()
        polled: Polled = self._polled.pop()
        self.assignment.update(polled)
        for one in polled.records:
            if isinstance(one, PassedOver):
                self.assignment.pass_over(one)
                continue
            self.read_ahead.received += 1
            if self.assignment.deliver(one):
                self.work.append(one)
                self.held.append(one)

    def until_still(self) -> None:
        """Go on until nothing more is read."""
        still, before = 0, None
        while still < 5:
            self.turn()
            now = (len(self.work), list(self._topic.positions))
            still, before = still + 1 if now == before else 0, now

    def finish(self, record: Record) -> None:
        self.held.remove(record)
        self.assignment.announce(Announcement(record))
        group = self.assignment.next_group(0.0)
        assert group is not None
        self.assignment.apply(group, Verdict.COMMITTED, 0.0)

    def committed(self) -> dict[int, int]:
        return {p.number: owned.committed.offset for p, owned in self.assignment._owned.items() if owned.committed}


def test_one_request_behind_thousands_of_another_project_is_taken_in_before_any_of_them_has_ended() -> None:
    topic = Topic([b"big/m%d" % (n % 50) for n in range(5_000)] + [b"small/m"])
    reading = Reading(topic, 100)
    reading.until_still()
    assert [record.offset for record in reading.work] == [*range(100), 5_000]
    assert reading.assignment.passed == 4_900


def test_what_was_passed_over_is_read_again_in_order_once_there_is_room() -> None:
    reading = Reading(Topic([b"big/m"] * 1_000 + [b"small/m"] + [b"big/m"] * 10), 100)
    reading.until_still()
    while reading.held:
        reading.finish(reading.held[0])
        reading.until_still()
    assert sorted(record.offset for record in reading.work) == list(range(1_011))
    assert [record.offset for record in reading.work if record.project == b"big"] == [
        *range(1_000),
        *range(1_001, 1_011),
    ]
    assert reading.committed() == {0: 1_011}


def test_what_has_expired_before_it_was_read_again_holds_nothing_up() -> None:
    topic = Topic([b"big/m"] * 500)
    reading = Reading(topic, 100)
    reading.until_still()
    topic.starts[0] = 300
    while reading.held:
        reading.finish(reading.held[0])
        reading.until_still()
    assert [record.offset for record in reading.work] == [*range(100), *range(300, 500)]
    assert reading.committed() == {0: 500}


def test_a_partition_that_opens_while_the_worker_is_full_is_passed_over_from_its_first_record_on() -> None:
    topic = Topic([b"big/m"] * 200, [])
    reading = Reading(topic, 50)
    reading.until_still()
    topic.partitions[1] += [b"big/m"] * 20
    reading.until_still()
    assert len(reading.work) == 50
    assert reading.assignment.passed == 170


def test_no_more_is_passed_over_than_there_is_memory_for() -> None:
    reading = Reading(Topic([b"big/m"] * 5_000, [b"big/m"] * 5_000), 100, passed_limit=1_000)
    reading.until_still()
    assert 1_000 <= reading.assignment.passed < 1_000 + 2 * BATCH


def test_polls_are_long_only_while_nothing_is_in_hand_and_no_record_has_just_come(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Else a commit, which waits for the end of a poll, could wait long."""
    monkeypatch.setattr(intake, "IDLE_AFTER_S", 3_600.0)
    topic = Topic([b"a/m"])
    reading, short = Reading(topic, 100), 0.0
    for _ in range(2):
        reading.turn()
    reading.finish(reading.held[0])
    reading.turn()
    assert topic.waits == [intake.IDLE_POLL_S, short, short]
    monkeypatch.setattr(intake, "IDLE_AFTER_S", 0.0)
    reading.turn()
    assert topic.waits[-1] == intake.IDLE_POLL_S


def test_a_full_worker_pauses_once_for_each_fifth_of_what_it_holds() -> None:
    """Steady load at the limit: what comes is taken in in lots, and reading does not flap with each that ends."""
    count, look_ahead = 1_500, 100
    reading = Reading(Topic([b"p%d/m" % (n % 3) for n in range(count)]), look_ahead, passed_limit=0)
    reading.until_still()
    while reading.held:
        reading.finish(reading.held[0])
        for _ in range(4):
            reading.turn()
    assert len(reading.work) == count
    pauses = reading.metrics.registry.get_sample_value("ml_worker_intake_pauses_total") or 0
    assert pauses <= count / (look_ahead / 5) + 5, pauses


@settings(deadline=None, max_examples=40)
@given(
    st.lists(st.lists(st.sampled_from([b"a/m", b"a/n", b"b/m", b"c/m", None]), max_size=40), min_size=1, max_size=3),
    st.integers(1, 20),
    st.integers(0, 30),
    st.randoms(use_true_random=False),
)
def test_every_record_becomes_work_once_and_those_of_a_project_in_their_order(
    partitions: list[list[bytes | None]], look_ahead: int, passed_limit: int, chosen: random.Random
) -> None:
    # A hundred of one project in front make it likely that something is passed over.
    topic = Topic(*([*[b"a/m"] * 30, *keys] for keys in partitions))
    reading = Reading(topic, look_ahead, passed_limit)
    idle = 0
    while idle < 20:
        before = len(reading.work)
        reading.turn()
        assert len(reading.held) <= look_ahead + max(1, look_ahead // 10)
        if reading.held and chosen.random() < 0.5:
            reading.finish(chosen.choice(reading.held))
        idle = 0 if reading.held or len(reading.work) > before else idle + 1
    places = [(record.partition, record.offset) for record in reading.work]
    assert len(places) == len(set(places)) == sum(map(len, topic.partitions))
    offsets: dict[tuple[Partition, bytes], list[int]] = defaultdict(list)
    for record in reading.work:
        offsets[record.partition, record.project].append(record.offset)
    assert all(order == sorted(order) for order in offsets.values())
    assert reading.committed() == {number: len(keys) for number, keys in enumerate(topic.partitions)}
