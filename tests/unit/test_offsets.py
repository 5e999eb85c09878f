"""The offsets tracker against a plain set, and the metadata it commits."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer.partitions.offsets import CommittedProgress, OffsetTracker, read_metadata, write_metadata

NOTHING = CommittedProgress(0, (), "")


def test_nothing_unfinished_commits_the_position() -> None:
    tracker = OffsetTracker(NOTHING)
    for offset in (3, 4, 9):
        assert tracker.deliver(offset)
    commit = tracker.commit((3, 4, 9), position=11, tag="t")
    assert commit.offset == 11


def test_a_slow_record_holds_the_offset_and_the_metadata_lists_the_rest() -> None:
    tracker = OffsetTracker(NOTHING)
    for offset in range(5):
        tracker.deliver(offset)
    tracker.finish((1, 2))
    commit = tracker.commit((4,), position=5, tag="a.1")
    assert commit.offset == 0
    before = read_metadata(commit.offset, commit.metadata)
    assert [before.has(offset) for offset in range(6)] == [False, True, True, False, True, False]
    assert before.tag == "a.1"


def test_a_commit_that_fails_changes_nothing() -> None:
    tracker = OffsetTracker(NOTHING)
    tracker.deliver(0)
    assert tracker.commit((0,), 1, "t").offset == 1
    assert tracker.commit((), 1, "t").offset == 0


def test_what_an_earlier_life_finished_is_not_work() -> None:
    tracker = OffsetTracker(CommittedProgress(10, ((12, 15),), ""))
    assert [tracker.deliver(offset) for offset in range(10, 16)] == [True, True, False, False, False, True]
    assert tracker.unfinished == 3


def test_a_record_delivered_twice_is_work_once() -> None:
    tracker = OffsetTracker(NOTHING)
    assert tracker.deliver(7)
    assert not tracker.deliver(7)
    assert not tracker.deliver(6)


def test_finishing_what_was_not_delivered_is_a_bug() -> None:
    tracker = OffsetTracker(NOTHING)
    tracker.deliver(1)
    with pytest.raises(LookupError):
        tracker.finish((2,))


@pytest.mark.parametrize("metadata", [None, "", "x", "1;", "1;t;!!!", "2;t;AAAA", "1;t;A"])
def test_foreign_metadata_lists_nothing(metadata: str | None) -> None:
    assert not any(read_metadata(5, metadata).has(offset) for offset in range(20))


def test_memory_stays_flat_over_a_long_assignment() -> None:
    tracker = OffsetTracker(NOTHING)
    for offset in range(50_000):
        tracker.deliver(offset)
        if offset % 2:
            tracker.finish((offset, offset - 1))
    assert len(tracker._delivered) < 10_000
    assert tracker.commit((), 50_000, "t").offset == 50_000


@given(
    gaps=st.lists(st.integers(1, 5), min_size=1, max_size=60),
    order=st.randoms(use_true_random=False),
    upto=st.floats(0, 1),
)
def test_a_restart_sees_exactly_what_was_finished(gaps: list[int], order: Random, upto: float) -> None:
    offsets = [sum(gaps[: i + 1]) for i in range(len(gaps))]
    finishing = offsets[:]
    order.shuffle(finishing)
    finishing = finishing[: round(upto * len(finishing))]
    tracker = OffsetTracker(NOTHING)
    for offset in offsets:
        tracker.deliver(offset)
    finished, pending = set(finishing[: len(finishing) // 2]), set(finishing[len(finishing) // 2 :])
    tracker.finish(finished)
    commit = tracker.commit(pending, position=offsets[-1] + 1, tag="t")
    done = finished | pending
    unfinished = [offset for offset in offsets if offset not in done]
    assert commit.offset == (unfinished[0] if unfinished else offsets[-1] + 1)
    assert tracker.unfinished == len(offsets) - len(finished)

    again = OffsetTracker(read_metadata(commit.offset, commit.metadata))
    work = [offset for offset in offsets if offset >= commit.offset and again.deliver(offset)]
    assert work == unfinished


@given(st.lists(st.tuples(st.integers(1, 10**9), st.integers(1, 10**6)), max_size=50), st.integers(0, 2**62))
def test_metadata_comes_back_as_written(lengths: list[tuple[int, int]], offset: int) -> None:
    stretches, at = [], offset
    for gap, run in lengths:
        stretches.append((at + gap, at + gap + run))
        at += gap + run
    before = read_metadata(offset, write_metadata(offset, stretches, "b.7"))
    assert list(before.finished) == stretches
