"""Order within a model, fairness among projects."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from consumer.jobs.dispatch import Dispatch


@dataclass(eq=False)
class Entry:
    project: str
    model: str
    number: int
    running: bool = False
    orphaned: bool = False

    @property
    def line(self) -> tuple[str, str]:
        return self.project, self.model


def stand(dispatch: Dispatch[Entry], entry: Entry) -> None:
    """In its line, waiting."""
    dispatch.join(entry)
    dispatch.wait(entry)


def test_the_next_of_a_model_starts_when_the_one_before_has_left() -> None:
    dispatch: Dispatch[Entry] = Dispatch()
    first, second = Entry("a", "m", 1), Entry("a", "m", 2)
    stand(dispatch, first)
    stand(dispatch, second)
    assert dispatch.take() is first
    assert dispatch.take() is None
    dispatch.leave(first)
    assert dispatch.take() is second


def test_a_parked_head_holds_its_model_and_no_other() -> None:
    dispatch: Dispatch[Entry] = Dispatch()
    parked, behind, other = Entry("a", "m", 1), Entry("a", "m", 2), Entry("a", "n", 3)
    dispatch.join(parked)
    stand(dispatch, behind)
    stand(dispatch, other)
    assert dispatch.take() is other
    assert dispatch.take() is None
    dispatch.wait(parked)
    assert dispatch.take() is parked


def test_what_a_dead_worker_had_in_hand_goes_first_in_its_project_and_in_its_order() -> None:
    dispatch: Dispatch[Entry] = Dispatch()
    waits, other = Entry("a", "m", 1), Entry("b", "m", 2)
    orphaned = [Entry("a", f"n{number}", number, orphaned=True) for number in range(3)]
    for entry in (waits, other, *orphaned):
        stand(dispatch, entry)
    dispatch.leave(orphaned[1])
    assert [dispatch.take() for _ in range(4)] == [orphaned[0], other, orphaned[2], waits]
    assert not dispatch


def test_a_cancelled_one_leaves_the_middle_of_its_line() -> None:
    dispatch: Dispatch[Entry] = Dispatch()
    entries = [Entry("a", "m", number) for number in range(3)]
    for entry in entries:
        stand(dispatch, entry)
    dispatch.leave(entries[1])
    assert dispatch.take() is entries[0]
    dispatch.leave(entries[0])
    assert dispatch.take() is entries[2]


def test_a_project_with_one_request_waits_for_one_of_the_others() -> None:
    dispatch: Dispatch[Entry] = Dispatch()
    for number in range(100):
        stand(dispatch, Entry("busy", f"m{number}", number))
    dispatch.take()
    single = Entry("quiet", "m", 0)
    stand(dispatch, single)
    assert single in (dispatch.take(), dispatch.take())


def test_a_project_at_its_limit_waits_and_holds_no_other_back() -> None:
    dispatch: Dispatch[Entry] = Dispatch({"busy": 2}.get)
    for number in range(5):
        stand(dispatch, Entry("busy", f"m{number}", number))
    for number in range(5, 8):
        stand(dispatch, Entry("quiet", f"m{number}", number))
    taken = []
    while (entry := dispatch.take()) is not None:
        entry.running = True
        taken.append(entry)
    assert [entry.project for entry in taken] == ["busy", "quiet", "busy", "quiet", "quiet"]
    assert dispatch, "three wait"
    taken[0].running = False
    following = dispatch.take()
    assert following is not None
    assert following.number == 2
    following.running = True
    assert dispatch.take() is None


def test_one_that_was_taken_and_waits_again_counts_once() -> None:
    dispatch: Dispatch[Entry] = Dispatch(lambda _: 1)
    first, second = Entry("a", "m", 1), Entry("a", "n", 2)
    for entry in (first, second):
        stand(dispatch, entry)
    assert dispatch.take() is first
    first.running = True
    first.running = False  # another worker has it
    assert dispatch.take() is second
    second.running = True
    dispatch.wait(first)
    assert dispatch.take() is None
    second.running = False
    assert dispatch.take() is first


@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 2)), max_size=40), st.randoms(use_true_random=False))
def test_never_more_of_a_project_run_than_it_may_and_every_one_does_in_the_end(
    joined: list[tuple[str, int]], random: Random
) -> None:
    limits = {"a": 2}
    dispatch: Dispatch[Entry] = Dispatch(limits.get)
    pending = [Entry(project, f"m{model}", number) for number, (project, model) in enumerate(joined)]
    running: list[Entry] = []
    taken = 0
    while pending or running or dispatch:
        for _ in range(min(len(pending), random.randrange(5))):
            stand(dispatch, pending.pop())
        while (entry := dispatch.take()) is not None:
            entry.running = True
            running.append(entry)
            taken += 1
        assert sum(entry.project == "a" for entry in running) <= 2
        if running:
            ended = running.pop(random.randrange(len(running)))
            ended.running = False
            dispatch.leave(ended)
    assert taken == len(joined)


@given(
    st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from("mn")), max_size=40), st.randoms(use_true_random=False)
)
def test_every_entry_is_taken_once_and_in_its_lines_order(joined: list[tuple[str, str]], random: Random) -> None:
    dispatch: Dispatch[Entry] = Dispatch()
    entries = [Entry(project, model, number) for number, (project, model) in enumerate(joined)]
    pending = entries[:]
    running: list[Entry] = []
    taken: list[Entry] = []
    while pending or running or dispatch:
        step = random.randrange(3)
        if step == 0 and pending:
            stand(dispatch, pending.pop(0))
        elif step == 1 and (entry := dispatch.take()) is not None:
            assert all(other.line != entry.line for other in running)
            running.append(entry)
            taken.append(entry)
        elif running:
            dispatch.leave(running.pop(0))
    assert sorted(entry.number for entry in taken) == list(range(len(entries)))
    for line in {entry.line for entry in entries}:
        numbers = [entry.number for entry in taken if entry.line == line]
        assert numbers == sorted(numbers)
