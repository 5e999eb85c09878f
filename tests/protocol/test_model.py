"""The protocol holds within these bounds, which are explored completely; and each protection is there for a reason.

Larger bounds: `python -m tests.protocol --faults 2`.
"""

from __future__ import annotations

import pytest

from tests.protocol.exploration import STUCK, explore
from tests.protocol.world import PROTECTIONS, SCENARIOS, Bounds

pytestmark = pytest.mark.proof(*(f"tests/protocol/{name}.py" for name in ("exploration", "laws", "steps", "world")))

ONE, CANCELLED, RELEASED = "one request", "one request and its cancel", "one request, released before"
LINE, APART, REPEAT = "two of a model in line", "two of a model, apart", "a request and its repeat, apart"

WITHIN = [
    (ONE, "kill stop rebalance doubt late outage", 1),
    (ONE, "kill rebalance", 2),
    (ONE, "rebalance outage", 2),
    (ONE, "doubt rebalance", 2),
    (CANCELLED, "kill rebalance doubt outage", 1),
    (RELEASED, "rebalance late", 2),
    (LINE, "kill rebalance doubt", 1),
    (APART, "late doubt", 1),
    (REPEAT, "doubt outage", 1),
]

BROKEN = {
    "unique outcome": (ONE, "stop", 1, "an outcome has changed"),
    "home": (REPEAT, "", 0, "a request has two terminal events"),
    "line": (LINE, "", 0, "versions are out of the topic's order"),
    "closing": (ONE, "stop", 1, "a negative outcome came from somebody who does not own the claim"),
    "compare-and-set": (ONE, "rebalance", 2, "two workers that live train the same request"),
    "store's clock": (ONE, "rebalance", 1, "two workers that live train the same request"),
    "first beat": (ONE, "kill rebalance", 2, "two workers that live train the same request"),
    "steady": (ONE, "rebalance outage", 2, "two workers that live train the same request"),
    "unanswered": (RELEASED, "rebalance late", 2, STUCK),
    "unanswered again": (RELEASED, "rebalance late", 2, STUCK),
    "found": (ONE, "rebalance late", 2, STUCK),
    "taken together": (ONE, "rebalance", 1, "a request has two terminal events"),
    "dropped on revoke": (ONE, "rebalance", 2, "a request has two terminal events"),
    "unique version": (APART, "", 0, "the versions of a model are [1, 1]"),
    "look-up": (ONE, "kill", 1, STUCK),
    "require_stable": (ONE, "rebalance", 1, "a request has two terminal events"),
    "in doubt": (ONE, "doubt", 1, "a request has two terminal events"),
    "transaction": (ONE, "kill", 1, "a request has two terminal events"),
}
"""For each protection, what it takes to break which law without it."""


def bounds(scenario: str, faults: str, count: int, *without: str) -> Bounds:
    return Bounds(SCENARIOS[scenario], frozenset(faults.split()), count, frozenset(without))


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_without_faults_every_request_ends_once(scenario: str) -> None:
    found = explore(bounds(scenario, "", 0))
    assert found.broken is None, f"\n{found}"


@pytest.mark.parametrize(("scenario", "faults", "count"), WITHIN)
def test_all_laws_hold_whatever_goes_wrong(scenario: str, faults: str, count: int) -> None:
    found = explore(bounds(scenario, faults, count))
    assert found.broken is None, f"\n{found}"


@pytest.mark.parametrize("protection", PROTECTIONS)
def test_without_one_protection_a_law_can_be_broken(protection: str) -> None:
    scenario, faults, count, law = BROKEN[protection]
    found = explore(bounds(scenario, faults, count, protection))
    assert found.broken == law, f"\n{found}"
    assert found.trace
