"""A broker of three nodes loses one of them while a fleet works."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from pymongo.database import Database

from tests.end_to_end.fleet import GROUP, Fleet
from tests.end_to_end.test_fleet import good_requests, seed_people
from tests.end_to_end.verdict import Verdict
from tests.services.kafka import Kafka, KafkaCluster

ROLES: dict[str, Callable[[KafkaCluster, Fleet], Kafka]] = {
    "requests": lambda kafka, fleet: kafka.leader(fleet.topics.training_requests),
    "group": lambda kafka, fleet: kafka.group_coordinator(fleet.prefix + GROUP),
    "transactions": lambda kafka, fleet: kafka.transaction_coordinator(f"{fleet.prefix}{GROUP}-w0"),
}


@pytest.fixture
def kafka(kafka_cluster: KafkaCluster) -> KafkaCluster:
    """What `fleet` and `verdict` use."""
    return kafka_cluster


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.timeout(300)
@pytest.mark.chaos
def test_a_dead_node_costs_no_job_and_no_standstill(
    fleet: Fleet,
    verdict: Callable[..., Verdict],
    kafka: KafkaCluster,
    mongo_database: Database[dict[str, Any]],
    role: str,
) -> None:
    """kill -9 of the node that leads requests, keeps the group or keeps a worker's transactions."""
    seed_people(mongo_database)
    fleet.create_topics(partitions=4)
    for number in range(2):
        fleet.start(f"w{number}")
    fleet.submit(*good_requests(60, models=8, seed=3))
    fleet.await_lag(45)
    node = ROLES[role](kafka, fleet)
    node.kill()
    fleet.await_lag(20, within_s=120)
    node.restart()
    fleet.await_lag(0)
    found = verdict()
    assert found.violations == [], str(found)
    assert found.outcomes == {"REGISTERED": 60}
    assert found.trainings_repeated == 0
