"""A worker whose wall clock is wrong."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.chaos import clock
from tests.end_to_end.fleet import Fleet
from tests.end_to_end.test_fleet import request
from tests.end_to_end.verdict import Verdict


@pytest.mark.parametrize("ahead_s", [86_400, -86_400], ids=["a day ahead", "a day behind"])
def test_a_worker_whose_clock_is_wrong_trains_and_announces_all_the_same(
    fleet: Fleet, verdict: Callable[..., Verdict], tmp_path: Path, ahead_s: int
) -> None:
    """Kafka takes no record that its producer has stamped an hour ahead, unless the topic is stamped by the broker."""
    library = clock.build(tmp_path)
    if library is None:
        pytest.skip("there is no C compiler")
    wrong = clock.Clock(tmp_path, "w", library)
    wrong.set(ahead_s)
    fleet.create_topics()
    fleet.start("w", MINIO_ENDPOINT="", **wrong.environment)  # S3 takes no request of a clock that is so wrong
    fleet.submit(request("good", "model", "decision_tree", "iris"), request("bad", "model", "nonsense", "iris"))
    fleet.await_lag(0, within_s=60)
    found = verdict()
    assert found.violations == [], str(found)
    assert (found.models, found.dead_letters) == (1, 1)
