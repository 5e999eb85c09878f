"""What the broker refuses, and who waits for it."""

from __future__ import annotations

from collections.abc import Callable, Collection

from hypothesis import given
from hypothesis import strategies as st

from consumer.partitions.announcements import GROUP_LIMIT, REFUSED_PAUSE_S, Announcement, Announcements
from consumer.partitions.records import Partition, Record


def plain(offset: int) -> Announcement:
    return Announcement(Record(Partition("t", 0), 1, offset, None, b"", (), 0))


def letter(offset: int) -> Announcement:
    return Announcement(Record(Partition("t", 0), 1, offset, None, b"", (), 0), dead_letter=("UNREADABLE", "why"))


class Broker:
    """Takes a group at a time, all of it or nothing; `now` moves on when there is nothing to try."""

    def __init__(self, refuses: Callable[[Announcement], bool]) -> None:
        self.announcements = Announcements()
        self.refuses = refuses
        self.taken: list[Announcement] = []
        self.attempts = self.refusals = 0
        self.now = 100.0

    def once(self) -> bool:
        group = self.announcements.take(self.now)
        if not group:
            return False
        self.attempts += 1
        if any(map(self.refuses, group)):
            self.refusals += 1
            self.announcements.refused(group, self.now)
        else:
            self.announcements.taken()
            self.taken += group
        return True

    def for_s(self, seconds: float) -> None:
        until = self.now + seconds
        while self.now < until:
            if not self.once():
                self.now += 0.5

    def offsets(self) -> Collection[int]:
        return {announcement.record.offset for announcement in self.taken}


def test_all_others_of_a_refused_group_go_on_with_the_next_one() -> None:
    broker = Broker(lambda one: one.has_dead_letter)
    for offset in range(400):
        broker.announcements.add(letter(offset) if offset % 2 else plain(offset))
    while len(broker.taken) < 200:
        broker.once()
    assert broker.attempts <= 3
    assert broker.offsets() == set(range(0, 400, 2))


def test_a_dead_letter_topic_that_takes_nothing_costs_one_refusal_in_a_while() -> None:
    broker = Broker(lambda one: one.has_dead_letter)
    for offset in range(1_000):
        broker.announcements.add(letter(offset) if offset % 2 else plain(offset))
        if offset % 10 == 0:
            broker.once()
    broker.for_s(60)
    assert broker.offsets() == set(range(0, 1_000, 2))
    assert broker.announcements.quarantined == 500
    assert broker.announcements.stuck
    assert broker.refusals <= 60 / REFUSED_PAUSE_S + 10


def test_once_the_topic_takes_them_again_all_dead_letters_go_out_at_once() -> None:
    broker = Broker(lambda one: one.has_dead_letter)
    for offset in range(600):
        broker.announcements.add(letter(offset))
    broker.for_s(30)
    broker.refuses = lambda one: False
    before = broker.attempts
    broker.for_s(REFUSED_PAUSE_S + 1)
    assert len(broker.taken) == 600
    assert broker.attempts - before <= 10
    assert not broker.announcements.quarantined


def test_one_dead_letter_that_is_too_large_holds_back_no_other() -> None:
    broker = Broker(lambda one: one.record.offset == 123)
    for offset in range(GROUP_LIMIT):
        broker.announcements.add(letter(offset))
    broker.for_s(2 * REFUSED_PAUSE_S)
    assert broker.offsets() == set(range(GROUP_LIMIT)) - {123}
    broker.announcements.add(letter(GROUP_LIMIT))
    broker.for_s(2 * REFUSED_PAUSE_S)
    assert GROUP_LIMIT in broker.offsets()


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 3)), max_size=60), st.sets(st.integers(0, 59), max_size=5))
def test_whatever_is_refused_everything_else_is_announced_once(
    added: list[tuple[bool, int]], refused: set[int]
) -> None:
    broker = Broker(lambda one: one.record.offset in refused)
    for offset, (dead_lettered, attempts) in enumerate(added):
        broker.announcements.add(letter(offset) if dead_lettered else plain(offset))
        for _ in range(attempts):
            broker.once()
    broker.for_s(600)
    assert sorted(one.record.offset for one in broker.taken) == sorted(set(range(len(added))) - refused)
    assert broker.announcements.quarantined == len(refused & set(range(len(added))))
