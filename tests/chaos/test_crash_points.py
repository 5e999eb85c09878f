"""Whoever goes down at any crash point of the protocol: nothing is lost, doubled or out of order."""

from __future__ import annotations

import pytest

from tests.chaos import crash_points, protections
from tests.chaos.places import Servers
from tests.services.kafka import Kafka
from tests.services.mongodb import MongoDB
from tests.services.s3 import S3

pytestmark = pytest.mark.chaos

DECIDING = {
    "after_claim", "after_artifact", "after_closing", "after_outcome", "after_document", "before_commit",
    "after_commit", "after_revoke",
}  # fmt: skip
"""Points between two writes that must not be torn apart; `python -m tests.chaos.crash_points` tries all others too."""


@pytest.fixture
def servers(kafka: Kafka, mongodb: MongoDB, s3: S3) -> Servers:
    return Servers(kafka, mongodb, s3, forks=True)


@pytest.mark.timeout(1200)
def test_a_worker_killed_between_two_writes_costs_nothing(servers: Servers) -> None:
    plays = [play for play in crash_points.plays(["kill"], ["exactly-once"]) if play.point in DECIDING]
    results = crash_points.run(servers, plays)
    assert [str(result) for result in results if not result.passed] == []


@pytest.mark.proof(
    "tests/chaos/crash_points.py",
    "tests/chaos/places.py",
    "tests/chaos/protections.py",
    "tests/chaos/without.py",
    "tests/end_to_end/evidence.py",
    "tests/end_to_end/fleet.py",
    "tests/end_to_end/verdict.py",
    "consumer/failpoints.py",
    "consumer/jobs/claims.py",
    "consumer/jobs/lease.py",
    "consumer/partitions/assignment.py",
    "consumer/publishing/transactions.py",
    "pipeline/ledger/mongodb.py",
    "pipeline/registry/mongodb.py",
)
@pytest.mark.timeout(1200)
def test_the_checker_finds_what_a_worker_without_one_protection_does(servers: Servers) -> None:
    results = protections.run(servers, protections.SCENES)
    assert [str(result) for result in results if not result.proven] == []
