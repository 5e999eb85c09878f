"""Order within a model, fairness among projects."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from consumer.dispatch import Dispatch


@dataclass(eq=False)
class Entry:
    project: str
    model: str
    number: int

    @property
    def line(self) -> tuple[str, str]:
        return self.project, self.model


def test_the_next_of_a_model_starts_when_the_one_before_has_left() -> None:
    dispatch: Dispatch[Entry] = Dispatch()
    first, second = Entry("a", "m", 1), Entry("a", "m", 2)
    dispatch.join(first, waiting=True)
    dispatch.join(second, waiting=True)
    assert dispatch.take() is first
    assert dispatch.take() is None
    dispatch.leave(first)
    assert dispatch.take() is second


def test_a_parked_head_holds_its_model_and_no_other() -> None:
    dispatch: Dispatch[Entry] = Dispatch()
    parked, behind, other = Entry("a", "m", 1), Entry("a", "m", 2), Entry("a", "n", 3)
    dispatch.join(parked, waiting=False)
    dispatch.join(behind, waiting=True)
    dispatch.join(other, waiting=True)
    assert dispatch.take() is other
    assert dispatch.take() is None
    dispatch.wait(parked)
    assert dispatch.take() is parked


def test_a_cancelled_one_leaves_the_middle_of_its_line() -> None:
    dispatch: Dispatch[Entry] = Dispatch()
    entries = [Entry("a", "m", number) for number in range(3)]
    for entry in entries:
        dispatch.join(entry, waiting=True)
    dispatch.leave(entries[1])
    assert dispatch.take() is entries[0]
    dispatch.leave(entries[0])
    assert dispatch.take() is entries[2]


def test_a_project_with_one_request_waits_for_one_of_the_others() -> None:
    dispatch: Dispatch[Entry] = Dispatch()
    for number in range(100):
        dispatch.join(Entry("busy", f"m{number}", number), waiting=True)
    dispatch.take()
    single = Entry("quiet", "m", 0)
    dispatch.join(single, waiting=True)
    assert single in (dispatch.take(), dispatch.take())


@given(
    st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from("mn")), max_size=40), st.randoms(use_true_random=False)
)
def test_every_entry_is_taken_once_and_in_its_lines_order(joined: list[tuple[str, str]], random: object) -> None:
    dispatch: Dispatch[Entry] = Dispatch()
    entries = [Entry(project, model, number) for number, (project, model) in enumerate(joined)]
    pending, running, taken = entries[:], [], []
    while pending or running or dispatch:
        step = random.randrange(3)  # type: ignore[attr-defined]
        if step == 0 and pending:
            dispatch.join(pending.pop(0), waiting=True)
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
