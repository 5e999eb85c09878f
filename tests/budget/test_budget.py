"""A job may not cost more than is recorded; what counts, and what compares."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from consumer.threads.batching import Pace
from pipeline.artifacts.keys import path_of
from tests.budget import figures
from tests.budget.counting import CALLS, OWN_CALLS, calls
from tests.services.mongodb import MongoDB
from tests.services.s3 import S3


def test_a_job_costs_what_is_recorded(mongodb: MongoDB, s3: S3) -> None:
    counted = figures.figures_of(figures.count(mongodb, s3))
    if complaint := figures.complaint(counted):
        pytest.fail(complaint, pytrace=False)


@pytest.mark.parametrize(
    ("was", "is_", "said"),
    [
        (100.0, 105.0, ""),
        (100.0, 105.01, "100 recorded, 105.01 now (+5.0%)"),
        (100.0, 95.0, ""),
        (100.0, 94.99, "100 recorded, 94.99 now (-5.0%)"),
        (1885.0, 2092.0, "1,885 recorded, 2,092 now (+11.0%)"),
        (0.25, 0.3, "0.25 recorded, 0.3 now (+20.0%)"),
        (0.0, 0.0, ""),
        (0.0, 0.01, "0 recorded, 0.01 now"),
        (1.0, 0.0, "1 recorded, 0 now (-100.0%)"),
    ],
)
def test_a_figure_may_be_five_percent_off_either_way(was: float, is_: float, said: str) -> None:
    lines = figures.changed({"alone": {"calls": was, "same": 1.0}}, {"alone": {"calls": is_, "same": 1.0}})
    assert lines == ([f"  alone, calls: {said}"] if said else [])


def test_a_figure_that_is_not_recorded_or_not_counted_any_more_is_named() -> None:
    assert figures.changed({"alone": {"gone": 1.0}}, {"alone": {"new": 2.0}}) == [
        "  alone, gone: 1 recorded, nothing now",
        "  alone, new: nothing recorded, 2 now",
    ]


def test_who_is_told_of_a_change_is_told_of_other_versions_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(figures, "RECORD", tmp_path / "figures.json")
    figures.record({"alone": {"calls": 1.0}})
    assert figures.complaint({"alone": {"calls": 1.0}}) == ""
    assert "versions" not in figures.complaint({"alone": {"calls": 2.0}})
    known = json.loads(figures.RECORD.read_text())
    figures.RECORD.write_text(json.dumps({**known, "versions": {**known["versions"], "numpy": "0.1"}}))
    assert figures.complaint({"alone": {"calls": 1.0}}) == ""
    assert "(recorded: 0.1)" in figures.complaint({"alone": {"calls": 2.0}})


@pytest.mark.parametrize(
    ("act", "own", "of_libraries"),
    [
        (lambda: Pace(1.0).wait_s(0.0, busy=True), 1, False),
        (lambda: path_of("project/a model"), 10, True),
        (lambda: json.dumps({"not": "ours"}, indent=1), 0, False),
        (lambda: _in_a_thread(Pace(1.0).wait_s, 0.0, True), 1, False),
    ],
    ids=["ours", "a library that ours calls", "a library that others call", "ours in a thread"],
)
def test_our_function_calls_count_and_those_of_the_libraries_that_we_call(
    act: Callable[[], object], own: int, of_libraries: bool
) -> None:
    counts: Counter[str] = Counter()
    files: Counter[str] = Counter()
    with calls(counts, "worker", files):
        act()
    assert counts[f"worker: {OWN_CALLS}"] == own
    assert (counts[f"worker: {CALLS}"] > own) is of_libraries
    assert sum(files.values()) == counts[f"worker: {CALLS}"]


def _in_a_thread(do: Callable[..., object], *arguments: object) -> None:
    thread = threading.Thread(target=do, args=arguments)
    thread.start()
    thread.join()
