"""50,000 cases of everything that people can send; and that the fuzzer finds what there is to be found."""

from __future__ import annotations

import ctypes
import random
import time
from collections.abc import Callable

import pytest

from tests.fuzz.__main__ import cases, fuzz, main
from tests.fuzz.case import End, Kind, run_case
from tests.fuzz.kinds import KINDS, shared
from tests.fuzz.pool import run_all

CASES = 50_000


@pytest.mark.timeout(900)
def test_fifty_thousand_cases_of_all_kinds_end_accepted_or_refused() -> None:
    report = fuzz(1, shared(CASES))
    assert report.finds == 0, "\n".join(report.lines())
    for name, tally in report.kinds.items():
        assert tally.ends[End.ACCEPTED], f"no case of {name} was accepted: it does not get far"
    assert report.kinds.keys() == KINDS.keys()


def raises(_: random.Random) -> None:
    raise KeyError("by nobody named")


def refuses(_: random.Random) -> None:
    raise ValueError("as it may")


def loops(_: random.Random) -> None:
    while True:
        pass


def grows(_: random.Random) -> None:
    assert bytearray(300 * 2**20)


def crashes(_: random.Random) -> None:
    ctypes.string_at(8)


def holds_the_interpreter(_: random.Random) -> None:
    class Whole(int):
        """Not an int to `in range`, which then walks."""

    assert Whole(-1) not in range(2**62)


def accepts(chosen: random.Random) -> float:
    return chosen.random()


def waits(_: random.Random) -> None:
    time.sleep(1.5)


PLANTED = {
    run.__name__: Kind(run.__name__, 1, run, (ValueError,))
    for run in (raises, refuses, loops, grows, crashes, holds_the_interpreter, accepts, waits)
}


@pytest.mark.parametrize(
    ("run", "end", "what"),
    [
        (raises, End.FIND, "KeyError at tests/fuzz/test_fuzz.py"),
        (loops, End.FIND, "time at tests/fuzz/test_fuzz.py"),
        (grows, End.FIND, "memory"),
        (refuses, End.REFUSED, ""),
        (accepts, End.ACCEPTED, ""),
        (waits, End.ACCEPTED, ""),
    ],
)
def test_a_case_is_judged_by_how_it_ends(run: Callable[[random.Random], object], end: End, what: str) -> None:
    result = run_case(PLANTED[run.__name__], "1/1")
    assert result.end is end
    assert result.what.startswith(what)


def test_a_case_that_takes_its_process_with_it_is_a_find_and_the_others_are_tried_all_the_same() -> None:
    sent = [("accepts", "1/1"), ("crashes", "1/2"), ("holds_the_interpreter", "1/3"), ("accepts", "1/4")]
    found = dict(run_all(iter(sent), 1, PLANTED))
    assert [found[case].end for case in sent] == [End.ACCEPTED, End.FIND, End.FIND, End.ACCEPTED]
    assert found["crashes", "1/2"].what.startswith("crash 11")
    assert "holds_the_interpreter" in found["holds_the_interpreter", "1/3"].why


def test_a_crash_of_a_parser_that_runs_in_a_process_of_its_own_is_no_find() -> None:
    kinds = {"crashes": Kind("crashes", 1, crashes, (), contained=True)}
    ((_, result),) = run_all(iter([("crashes", "1/1")]), 1, kinds)
    assert result.end is End.CONTAINED


def test_a_case_is_made_by_its_seed_alone(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert len({*cases(1, shared(100))}) == len([*cases(1, shared(100))])
    for _ in range(2):
        monkeypatch.setattr("sys.argv", ["fuzz", "--replay", "control:1/3"])
        assert main() == 0
    first, second = (line.partition(",")[0] for line in capsys.readouterr().out.splitlines() if line)
    assert first == second
