"""A partition behind one request."""

from __future__ import annotations

from consumer.partitions.records import Partition
from consumer.partitions.standstills import TELL_S, Standstills

ONE, OTHER = Partition("t", 1), Partition("t", 2)


def test_a_standstill_is_as_old_as_its_first_unfinished_request_is_the_first() -> None:
    standstills = Standstills()
    assert [one.for_s for one in standstills.observe({ONE: (7, 3)}, 100.0)] == [0]
    (standstill,) = standstills.observe({ONE: (7, 9)}, 160.0)
    assert (standstill.partition, standstill.offset, standstill.finished_ahead) == (ONE, 7, 9)
    assert standstill.for_s == 60
    assert [one.for_s for one in standstills.observe({ONE: (8, 1)}, 170.0)] == [0]


def test_partitions_stand_still_apart_and_one_that_went_on_begins_anew() -> None:
    standstills = Standstills()
    standstills.observe({ONE: (7, 3), OTHER: (1, 1)}, 0.0)
    standstills.observe({OTHER: (1, 1)}, 10.0)
    assert {one.partition: one.for_s for one in standstills.observe({ONE: (7, 3), OTHER: (1, 1)}, 20.0)} == {
        ONE: 0,
        OTHER: 20,
    }


def test_a_standstill_is_told_once_in_a_while() -> None:
    standstills = Standstills()
    told = [
        second for second in range(0, 1_000) for one in standstills.observe({ONE: (7, 3)}, float(second)) if one.due
    ]
    assert told == [TELL_S, 2 * TELL_S, 3 * TELL_S]
