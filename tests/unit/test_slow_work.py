"""Slow work: it never takes all threads, nor does one cause, and what is put off is done."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

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
            threads.submit(slow.do, cause, works.one(cause))
            _await(lambda number=number: len(works.begun) + slow.put_off == number)
        assert sorted(works.begun) == ["a", "a", "b"]
        assert slow.put_off == 4
        works.let_go()
    assert sorted(works.begun) == ["a", "a", "a", "a", "b", "b", "c"]
    assert slow.put_off == 0


def test_what_waits_is_done_by_causes_in_turn() -> None:
    slow, done = SlowWork(at_once=1, of_one_cause=1), list[str]()

    def first() -> None:
        for cause in ("a", "a", "b", "c"):
            slow.do(cause, lambda cause=cause: done.append(cause))
        assert (done, slow.put_off) == ([], 4)

    slow.do("a", first)
    assert done == ["a", "b", "c", "a"]
