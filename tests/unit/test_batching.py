"""Groups gather while every lane is busy, and go at once while one is free."""

from consumer.threads.batching import Batching, Pace


def test_a_group_goes_at_once_while_a_lane_is_free() -> None:
    pace = Pace(0.1)
    pace.went(5.0)
    assert pace.wait_s(5.0, busy=False) == 0


def test_while_every_lane_is_busy_a_group_waits_for_its_turn_and_no_longer() -> None:
    pace = Pace(0.1)
    assert pace.wait_s(5.0, busy=True) == 0, "the first one need not wait"
    pace.went(5.0)
    assert 0.05 < pace.wait_s(5.04, busy=True) < 0.07
    assert pace.wait_s(5.2, busy=True) == 0


def test_a_group_waits_for_the_answer_to_the_one_before_and_has_at_most_its_limit() -> None:
    gathering: Batching[int] = Batching(Pace(0.1), limit=3)
    assert gathering.next_group(0.0, busy=False) == []
    for number in range(5):
        gathering.add(number)
    assert gathering.next_group(0.0, busy=False) == [0, 1, 2]
    assert gathering.next_group(9.0, busy=False) == [], "the first one is not answered"
    assert gathering.wait_s(9.0, busy=False) == float("inf")
    gathering.answered()
    assert gathering.next_group(9.0, busy=False) == [3, 4]


def test_a_gathering_keeps_its_pace_only_while_every_lane_is_busy() -> None:
    gathering: Batching[int] = Batching(Pace(0.1), limit=3)
    gathering.add(1)
    assert gathering.next_group(5.0, busy=True) == [1]
    gathering.answered()
    gathering.add(2)
    assert gathering.next_group(5.05, busy=True) == []
    assert 0 < gathering.wait_s(5.05, busy=True) < 0.06
    assert gathering.next_group(5.06, busy=False) == [2]


def test_at_the_end_everything_goes() -> None:
    gathering: Batching[int] = Batching(Pace(0.1), limit=2)
    for number in range(5):
        gathering.add(number)
    gathering.next_group(0.0, busy=True)
    assert list(gathering.rest()) == [[2, 3], [4]]
