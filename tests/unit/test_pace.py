"""Groups gather while every lane is busy, and go at once while one is free."""

from consumer.pace import Pace


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
