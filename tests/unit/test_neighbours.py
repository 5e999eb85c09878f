"""The contract of the worker's neighbours, and of errors that are contained."""

from __future__ import annotations

import errno
import queue
import threading
from collections.abc import Sequence
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer.telemetry.metrics import Metrics
from consumer.threads.containment import contain, contained, halved
from consumer.threads.neighbour import Ordered, Periodic, Surroundings, ThreadFailed
from consumer.threads.retrying import Breakers
from consumer.threads.watch import Watch
from pipeline.errors import SupersededError, TransientError


class Desk:
    def __init__(self) -> None:
        self.delivered: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.time = 0.0
        self.watch = Watch(clock=lambda: self.time)
        self.around = Surroundings(self.delivered.put, Breakers(), watch=self.watch)

    def ordered(self, threads: int = 1) -> Ordered:
        return Ordered("desk", self.around, threads=threads, busy_limit_s=10.0)

    def all_delivered(self) -> list[Any]:
        return [self.delivered.get_nowait() for _ in range(self.delivered.qsize())]


def test_a_step_carries_out_one_order_and_needs_no_thread() -> None:
    desk = Desk()
    neighbour = desk.ordered()
    for number in range(2):
        neighbour.order(partial(desk.delivered.put, number))
    assert neighbour.step()
    assert desk.all_delivered() == [0]
    assert neighbour.step()
    assert not neighbour.step()
    assert desk.all_delivered() == [1]


@pytest.mark.parametrize("threads", [1, 3])
def test_who_finishes_does_first_what_was_ordered(threads: int) -> None:
    desk = Desk()
    neighbour = desk.ordered(threads)
    for number in range(20):
        neighbour.order(partial(desk.delivered.put, number))
    neighbour.finish()
    neighbour.start()
    neighbour.join(60)
    assert not neighbour.is_alive()
    assert sorted(desk.all_delivered()) == list(range(20))


def test_who_gives_up_waits_for_no_service_and_drops_the_rest() -> None:
    desk, asked = Desk(), threading.Event()
    neighbour = desk.ordered()

    def away() -> None:
        asked.set()
        raise TransientError("mongodb", "no answer")

    neighbour.order(lambda: neighbour.answered(away))
    neighbour.order(lambda: desk.delivered.put("later"))
    neighbour.start()
    assert asked.wait(60)
    neighbour.give_up()
    neighbour.join(60)
    assert not neighbour.is_alive()
    assert desk.all_delivered() == []


def test_what_nobody_is_to_blame_for_is_delivered_and_ends_the_thread() -> None:
    desk, error = Desk(), ZeroDivisionError()

    def stumble() -> None:
        raise error

    neighbour = desk.ordered()
    neighbour.order(stumble)
    neighbour.start()
    neighbour.join(60)
    assert desk.all_delivered() == [ThreadFailed("desk", error)]


def test_an_order_that_is_not_answered_in_time_stands_still_and_waiting_for_a_service_does_not() -> None:
    desk = Desk()
    at_work, go_on = threading.Event(), threading.Event()
    tries = 0

    def work() -> None:
        at_work.set()
        assert go_on.wait(60)

    def third_time_lucky() -> None:
        nonlocal tries
        tries += 1
        desk.time += 9.0
        if tries < 3:
            raise TransientError("mongodb", "no answer")
        assert desk.watch.stuck() == {}

    neighbour = desk.ordered()
    neighbour.order(work)
    neighbour.order(lambda: neighbour.answered(third_time_lucky))
    neighbour.start()
    assert at_work.wait(60)
    assert desk.watch.stuck() == {}
    desk.time = 11.0
    assert set(desk.watch.stuck()) == {"desk"}
    go_on.set()
    neighbour.finish()
    neighbour.join(60)
    assert tries == 3
    assert desk.watch.stuck() == {}


class Counting(Periodic):
    def __init__(self, desk: Desk) -> None:
        super().__init__("counting", desk.around, 0.001)
        self.turns = 0
        self.ended = 0
        self.third = threading.Event()

    def work(self) -> None:
        self.turns += 1
        if self.turns == 1:
            raise TransientError("mongodb", "no answer")
        if self.turns == 3:
            self.third.set()

    def last_work(self) -> None:
        self.ended += 1


def test_a_turn_that_meets_a_service_which_is_away_is_followed_by_the_next() -> None:
    desk = Desk()
    counting = Counting(desk)
    counting.start()
    assert counting.third.wait(60)
    counting.finish()
    counting.join(60)
    assert counting.ended == 1
    assert desk.all_delivered() == []


@given(st.lists(st.integers(), max_size=40, unique=True), st.data())
def test_of_a_group_only_the_guilty_are_answered_for_alone_and_all_are_answered(items: list[int], data: Any) -> None:
    guilty = set(data.draw(st.lists(st.sampled_from(items), unique=True))) if items else set()

    def work(group: Sequence[int]) -> list[tuple[str, int]]:
        if guilty & set(group):
            raise LookupError
        return [("done", item) for item in group]

    answers = halved(items, work, lambda item, _: [("alone", item)])
    assert answers == [("alone" if item in guilty else "done", item) for item in items]


@pytest.mark.parametrize("error", [TransientError("mongodb", "away"), SupersededError()])
def test_an_error_of_a_service_or_of_the_worker_is_passed_on(error: Exception) -> None:
    def work(_: Sequence[int]) -> list[int]:
        raise error

    with pytest.raises(type(error)):
        halved([1, 2], work, lambda item, _: [item])
    with pytest.raises(type(error)), contained(Metrics(), "claim"):
        raise error


def test_what_is_contained_is_counted_and_tells_its_sender_nothing_of_ours() -> None:
    metrics = Metrics()
    failure = contain(metrics, "claim", LookupError("mongodb://user:secret@host"), request_id="r1")
    assert failure.kind == "INTERNAL_ERROR"
    assert "secret" not in failure.message
    assert "LookupError" not in failure.message
    assert metrics.contained_errors.labels("claim")._value.get() == 1


@pytest.mark.parametrize(
    "error", [MemoryError(), OSError(errno.EMFILE, "too many"), RuntimeError("can't start new thread")]
)
def test_what_the_worker_lacks_is_charged_to_no_request(error: Exception) -> None:
    metrics = Metrics()
    with pytest.raises(type(error)), contained(metrics, "store"):
        raise error
    assert metrics.contained_errors.labels("store")._value.get() == 0
