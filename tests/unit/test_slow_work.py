"""Slow work: it never takes all threads, nor does one cause, and what is put off is done."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest

from consumer.threads.slow_work import SlowWork


class Works:
    """Pieces of work that last until they are let go."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self._go = threading.Event()

    def one(self, cause: str) -> Callable[[], None]:
        def work() -> None:
            self.begun.append(cause)
            self._go.wait(30)

        return work

    def until_begun(self, count: int) -> None:
        _await(lambda: len(self.begun) == count)

    def let_go(self) -> None:
        self._go.set()


def _await(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def test_so_many_at_once_and_few_of_one_cause_and_the_others_in_turn() -> None:
    slow, works = SlowWork(at_once=3, of_one_cause=2), Works()
    with ThreadPoolExecutor(8) as threads:
        for number, cause in enumerate("aaaabbc", start=1):
            threads.submit(slow.do, "p", cause, works.one(cause))
            works.until_begun(min(number, 2) + (number > 4))
        works.let_go()
    assert sorted(works.begun) == ["a", "a", "a", "a", "b", "b", "c"]


def test_what_waits_is_done_by_parties_in_turn_and_by_causes_in_turn() -> None:
    slow, done = SlowWork(at_once=1, of_one_cause=1), list[str]()

    def first() -> None:
        for party, cause in ("pa", "pa", "pb", "qa", "qa", "rc"):
            slow.do(party, cause, partial(done.append, party + cause))
        assert done == []

    slow.do("p", "a", first)
    assert done == ["pa", "qa", "rc", "pb", "qa", "pa"]


def test_nothing_is_kept_of_what_was_done_or_of_an_error() -> None:
    slow = SlowWork(at_once=2, of_one_cause=1)
    for number in range(100):
        slow.do(f"p{number}", f"c{number}", str)
        with pytest.raises(ZeroDivisionError):
            slow.do("p", "c", lambda: 1 / 0)
    assert (slow._waiting, slow._doing) == ({}, {})
