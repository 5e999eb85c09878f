"""An attack on a worker: what people can send and store at its worst, among what is good."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from random import Random
from typing import Any

import pytest
from confluent_kafka import KafkaException
from pymongo.database import Database

from consumer.events.codec import Codec
from consumer.events.errors import UndecodableError
from consumer.events.requests import read_request
from schemas import RecordType
from tests.end_to_end.evidence import decode, read_topic
from tests.end_to_end.fleet import Fleet, WorkerProcess
from tests.end_to_end.hostile import ODD_NAMES, hostile_records, store_datasets
from tests.end_to_end.test_fleet import request
from tests.end_to_end.verdict import TERMINAL

HOSTILE, GOOD = 3_000, 300
MOST_GROWN_MIB = 50.0
INTERNAL = re.compile(
    r"\b\w+(?:Error|Exception)\b|Traceback|object at 0x|MongoClient|mongodb://|localhost|127\.0\.0\.1|GridOut|/(?:tmp|home|root|usr|var)/"
)
LIMIT = {"max.message.bytes": str(32 * 2**20)}


@pytest.mark.timeout(300)
def test_three_thousand_hostile_records_among_three_hundred_good_ones_stop_nothing(
    fleet: Fleet, mongo_database: Database[dict[str, Any]]
) -> None:
    fleet.create_topics(6, LIMIT)
    sent = [*hostile_records(HOSTILE)]
    places = {*Random(1).sample(range(HOSTILE), GOOD)}
    good = 0
    for number, record in enumerate(sent):
        fleet.put(record.key, record.value, headers=record.headers)
        if number in places:
            made = fleet.encode(request(f"good-{good}", f"m{good % 10}", "decision_tree", "iris", project="good"))
            fleet.put(made.key, made.value, headers=made.headers)
            good += 1
    fleet.flush()
    worker = fleet.start("w")
    memory = Memory(worker, in_all=HOSTILE + GOOD)
    fleet.until(lambda: memory.sample(_lag(fleet)) == 0, 240, lambda: f"{memory.samples[-1:]}")

    outcomes = {one["request_id"]: one["kind"] for one in mongo_database["training_outcomes"].find()}
    readable, unreadable = _sorted_out(fleet)
    assert {name for name, kind in outcomes.items() if kind == "REGISTERED"} >= {f"good-{n}" for n in range(GOOD)}
    assert outcomes.keys() == readable, "every request that can be answered has one outcome, and nobody else has"
    ended = Counter(event["request_id"] for event in _events(fleet) if event["state"] in TERMINAL)
    assert ended.keys() == readable
    assert set(ended.values()) == {1}
    letters = _dead_letters(fleet)
    assert max(letters.values()) == 1, "a record has one dead letter at most"
    assert letters.keys() >= unreadable, "what nobody can be answered about is a dead letter"
    assert worker.process.poll() is None
    assert memory.grown_mib() <= MOST_GROWN_MIB, memory.samples


@pytest.mark.timeout(300)
def test_datasets_that_nobody_should_have_stored_end_their_requests_and_nothing_else(
    fleet: Fleet, mongo_database: Database[dict[str, Any]], tmp_path: Path
) -> None:
    names = [*store_datasets(mongo_database), *ODD_NAMES]
    assert len(names) >= 60
    fleet.create_topics(partitions=4)
    worker = fleet.start("w")
    fleet.submit(*(request(f"d-{n}", f"m-{n}", "decision_tree", name) for n, name in enumerate(names)))
    fleet.submit(*(request(f"good-{n}", "m", "decision_tree", "iris") for n in range(5)))
    fleet.await_lag(0, within_s=240)
    outcomes = {one["request_id"]: one for one in mongo_database["training_outcomes"].find()}
    by_name = {name: outcomes[f"d-{n}"] for n, name in enumerate(names)}
    telling = {
        name: one["error"]["message"]
        for name, one in by_name.items()
        if one["error"] is not None
        and (INTERNAL.search(one["error"]["message"]) or str(tmp_path) in one["error"]["message"])
    }
    assert telling == {}
    kinds = Counter(one["kind"] for one in by_name.values())
    assert kinds.keys() <= {"REGISTERED", "REJECTED"}, {
        n: o["error"] for n, o in by_name.items() if o["kind"] == "FAILED"
    }
    assert all(outcomes[f"good-{n}"]["kind"] == "REGISTERED" for n in range(5))
    assert worker.process.poll() is None


def _lag(fleet: Fleet) -> int:
    try:
        return fleet.lag()
    except KafkaException:
        return HOSTILE + GOOD  # the group has no coordinator yet


class Memory:
    """What the worker's own process holds, by how much of the topic it has done."""

    def __init__(self, worker: WorkerProcess, in_all: int) -> None:
        self._status = Path(f"/proc/{worker.process.pid}/status")
        self._in_all = in_all
        self.samples: list[tuple[float, float]] = []

    def sample(self, lag: int) -> int:
        """Returns the lag; a sample is the share that is done, and MiB."""
        found = re.search(r"VmRSS:\s+(\d+) kB", self._status.read_text())
        if found is not None:
            self.samples.append((1 - lag / self._in_all, int(found[1]) / 1024))
        return lag

    def grown_mib(self) -> float:
        """From the end of the first third to the last: the first fills caches and loads libraries."""
        first = [mib for done, mib in self.samples if done <= 1 / 3]
        last = [mib for done, mib in self.samples if done > 2 / 3]
        return max(last) - max(first)


def _sorted_out(fleet: Fleet) -> tuple[set[str], set[str]]:
    """The request_ids that can be read on the topic, and the places of records that have none."""
    codec, readable, unreadable = Codec(), set[str](), set[str]()
    for record in read_topic(fleet.environment["KAFKA_BOOTSTRAP_SERVERS"], fleet.topics.training_requests):
        try:
            readable.add(read_request(codec, record.value(), headers=(), timestamp_ms=0).request.request_id)
        except UndecodableError:
            unreadable.add(f"{record.partition()}:{record.offset()}")
    return readable, unreadable


def _events(fleet: Fleet) -> list[dict[str, Any]]:
    topic = fleet.topics.training_progress
    records = read_topic(fleet.environment["KAFKA_BOOTSTRAP_SERVERS"], topic)
    return [decode(record.value(), RecordType.TRAINING_PROGRESS) for record in records]


def _dead_letters(fleet: Fleet) -> Counter[str]:
    """By the place of the record that each was."""
    found: Counter[str] = Counter()
    for letter in read_topic(fleet.environment["KAFKA_BOOTSTRAP_SERVERS"], fleet.topics.dead_letters):
        headers = {name: value.decode("utf-8", "replace") for name, value in letter.headers() if value is not None}
        found[f"{headers['__connect.errors.partition']}:{headers['__connect.errors.offset']}"] += 1
    return found
