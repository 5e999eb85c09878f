"""Dead letters on the real services: a topic that takes none, and sending them again."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from secrets import token_hex
from typing import Any

import orjson
import pytest
from confluent_kafka.admin._acl import AclBinding, AclBindingFilter, AclOperation, AclPermissionType
from confluent_kafka.admin._config import AlterConfigOpType, ConfigEntry, ConfigResource
from confluent_kafka.admin._resource import ResourcePatternType, ResourceType
from confluent_kafka.cimpl import NewTopic
from pymongo.database import Database

from consumer.kafka.topic_reader import partition_of
from schemas import RecordType
from tests.end_to_end.evidence import decode, read_topic
from tests.end_to_end.fleet import Fleet, metric
from tests.end_to_end.test_fleet import request, seed_people
from tests.end_to_end.verdict import Verdict
from tests.services.server import free_ports

PARTITIONS = 4


def model_in(partition: int, number: int = 0) -> str:
    """The name of a model whose requests go to this partition."""
    names = (f"m{n}" for n in range(1_000))
    return [name for name in names if partition_of(f"default/{name}".encode(), PARTITIONS) == partition][number]


class Missing:
    """The dead-letter topic is deleted, and made again."""

    def __init__(self, fleet: Fleet) -> None:
        self.fleet, self.topic = fleet, fleet.topics.dead_letters

    def begin(self) -> None:
        self.fleet.admin.delete_topics([self.topic])[self.topic].result(30)

    def end(self) -> None:
        config = {"max.message.bytes": str(32 * 2**20)}
        self.fleet.admin.create_topics([NewTopic(self.topic, 3, 1, config=config)])[self.topic].result(30)


class TooSmall(Missing):
    """It takes 2,000 bytes at most."""

    def begin(self) -> None:
        self._limit(2_000)

    def end(self) -> None:
        self._limit(2**20)

    def _limit(self, size: int) -> None:
        entry = ConfigEntry("max.message.bytes", str(size), incremental_operation=AlterConfigOpType.SET)
        resource = ConfigResource(ConfigResource.Type.TOPIC, self.topic, incremental_configs=[entry])
        self.fleet.admin.incremental_alter_configs([resource])[resource].result(30)


class Forbidden(Missing):
    """Nobody may write to it."""

    def _binding(self) -> tuple[Any, ...]:
        what = (ResourceType.TOPIC, self.topic, ResourcePatternType.LITERAL)
        return (*what, "User:ANONYMOUS", "*", AclOperation.WRITE, AclPermissionType.DENY)

    def begin(self) -> None:
        (made,) = self.fleet.admin.create_acls([AclBinding(*self._binding())]).values()
        made.result(30)

    def end(self) -> None:
        (gone,) = self.fleet.admin.delete_acls([AclBindingFilter(*self._binding())]).values()
        gone.result(30)


@pytest.mark.parametrize("trouble", [Missing, TooSmall, Forbidden])
@pytest.mark.timeout(300)
def test_a_dead_letter_topic_that_takes_nothing_blocks_its_letters_partitions_loudly_and_no_other_request(
    fleet: Fleet, verdict: Callable[..., Verdict], mongo_database: Database[dict[str, Any]], trouble: type[Missing]
) -> None:
    fleet.create_topics(partitions=PARTITIONS)
    (port,) = free_ports(1)
    fleet.start("w", PORT=str(port))
    fleet.submit(request("first", model_in(0), "decision_tree", "iris"))
    fleet.await_lag(0)
    outage = trouble(fleet)
    outage.begin()
    blocked, _ = fleet.offsets()[1]
    fleet.submit(request("bad", model_in(1), "no_such_algorithm", "iris", tags={"padding": token_hex(5_000)}))
    good = [request(f"good-{n}", model_in(n % PARTITIONS, n % 3), "decision_tree", "iris") for n in range(40)]
    fleet.submit(*good)

    def announced() -> int:
        return len(read_topic(fleet.environment["KAFKA_BOOTSTRAP_SERVERS"], fleet.topics.model_registered))

    fleet.until(lambda: announced() == 41, 60, lambda: f"{announced()} of 41 are announced")
    fleet.await_log(["announcement refused", '"bad"', "tensorfleet doctor"], 60)
    fleet.await_log(["the broker refuses a record", fleet.topics.dead_letters])
    fleet.until(lambda: metric(port, "ml_worker_refused_announcements") == 1)
    assert metric(port, 'ml_worker_transactions_total{result="refused"}') >= 1
    fleet.until(lambda: [n for n, (committed, end) in fleet.offsets().items() if committed < end] == [1])
    assert fleet.offsets()[1][0] == blocked
    outage.end()
    fleet.await_lag(0, within_s=60)
    fleet.until(lambda: metric(port, "ml_worker_refused_announcements") == 0)
    found = verdict()
    assert found.violations == [], str(found)
    assert (found.models, found.dead_letters, found.trainings_repeated) == (41, 1, 0)


@pytest.mark.timeout(240)
def test_huge_and_null_values_are_dead_letters_with_their_original_bytes(
    fleet: Fleet, verdict: Callable[..., Verdict]
) -> None:
    fleet.create_topics(config={"max.message.bytes": str(32 * 2**20)})
    fleet.start("w")
    fleet.put(b"big", os.urandom(20 * 2**20))
    fleet.put(b"null", None)
    fleet.flush()
    fleet.submit(request("after", "m", "decision_tree", "iris"))
    fleet.await_lag(0)
    found = verdict()
    assert found.violations == [], str(found)
    assert (found.models, found.dead_letters) == (1, 2)


def replay(fleet: Fleet, *arguments: str) -> subprocess.Popen[bytes]:
    """`tensorfleet dlq replay`, begun."""
    return subprocess.Popen(
        [sys.executable, "-m", "consumer.cli", "dlq", "replay", "--json", *arguments],
        env={**os.environ, **fleet.environment, "TOPIC_PREFIX": fleet.prefix},
        stdout=subprocess.PIPE,
        cwd=fleet.folder,
    )


def told(*replays: subprocess.Popen[bytes]) -> Sequence[dict[str, Any]]:
    """What they say they have done."""
    lines = [line for one in replays for line in one.communicate(timeout=60)[0].splitlines()]
    assert [one.returncode for one in replays] == [0] * len(replays)
    return [orjson.loads(line) for line in lines]


@pytest.mark.timeout(300)
def test_replaying_twice_and_from_two_processes_at_once_trains_everything_once(
    fleet: Fleet, mongo_database: Database[dict[str, Any]]
) -> None:
    """The dataset comes late: six requests are REJECTED for it, in two projects, and then replayed in every way."""
    fleet.create_topics(partitions=PARTITIONS)
    fleet.start("w")
    outcomes = mongo_database["training_outcomes"]
    for project in ("default", "risk"):
        fleet.submit(
            *(
                request(f"{project}-{n}", f"m{n}", "decision_tree", "people", project=project, correlation_id=f"c-{n}")
                for n in range(3)
            )
        )
    fleet.submit(request("wrong", "m9", "no_such_algorithm", "people", project="lab"))
    fleet.put(b"k", b"no avro")
    fleet.await_lag(0)
    seed_people(mongo_database)

    assert [one["replayed_as"] for one in told(replay(fleet, "default-0"))] == ["default-0.r1"]
    assert len(told(replay(fleet, "--reason", "INVALID_REQUEST", "--project", "risk"))) == 3
    fleet.await_lag(0)
    assert {one["request_id"] for one in outcomes.find({"kind": "REGISTERED"})} == {
        "default-0.r1", "risk-0.r1", "risk-1.r1", "risk-2.r1",
    }  # fmt: skip

    once = ("--all", "--since", "1h", "--project", "default")
    assert len(told(replay(fleet, *once), replay(fleet, *once))) == 6
    fleet.await_lag(0)
    told(replay(fleet, "--all"))
    fleet.await_lag(0)
    again = {one["request_id"]: one for one in told(replay(fleet, "--reason", "INVALID_REQUEST")) if one["request_id"]}
    assert {name for name, one in again.items() if one["sent"]} == {"wrong.r1"}, "only what was REJECTED again"
    assert again["wrong.r1"]["replayed_as"] == "wrong.r2"
    fleet.await_lag(0)

    requests = [
        decode(record.value(), RecordType.TRAINING_REQUEST)
        for record in read_topic(fleet.environment["KAFKA_BOOTSTRAP_SERVERS"], fleet.topics.training_requests)
        if record.value() != b"no avro"
    ]
    for one in requests:
        if one["request_id"].endswith(".r1") and not one["request_id"].startswith("wrong"):
            first_id = one["request_id"].removesuffix(".r1")
            assert one["tags"]["replay_of"] == first_id
            assert one["correlation_id"] == f"c-{first_id[-1]}"
    kinds = Counter(one["kind"] for one in outcomes.find({"request_id": {"$regex": r"\.r\d+$"}}))
    assert kinds == {"REGISTERED": 6, "REJECTED": 2}
    assert mongo_database["model_registry"].count_documents({}) == 6
    started = Counter(
        event["request_id"]
        for record in read_topic(fleet.environment["KAFKA_BOOTSTRAP_SERVERS"], fleet.topics.training_progress)
        if (event := decode(record.value(), RecordType.TRAINING_PROGRESS))["state"] == "STARTED"
    )
    assert set(started.values()) == {1}
    letters = read_topic(fleet.environment["KAFKA_BOOTSTRAP_SERVERS"], fleet.topics.dead_letters)
    undecodable = [record for record in letters if record.value() == b"no avro"]
    assert len(undecodable) == 2, "the first, and what its replay has become"
    told(replay(fleet, "--reason", "UNREADABLE"))
    fleet.await_lag(0)
    letters = read_topic(fleet.environment["KAFKA_BOOTSTRAP_SERVERS"], fleet.topics.dead_letters)
    assert sum(record.value() == b"no avro" for record in letters) == 3, "of all copies one is sent again"
