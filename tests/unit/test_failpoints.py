"""Failpoints do what their rule says, as often as it says, and nothing when nothing is armed."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from consumer import failpoints
from pipeline.errors import TransientError

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def disarmed() -> Iterator[None]:
    yield
    failpoints.arm("")


def failures(rule: str, times: int) -> int:
    """How often a raising rule was due."""
    failpoints.arm(rule)
    count = 0
    for _ in range(times):
        try:
            failpoints.reach("after_poll")
        except RuntimeError:
            count += 1
    return count


def test_nothing_happens_unarmed_or_elsewhere() -> None:
    assert failures("", 10) == 0
    assert failures("after_claim=raise", 10) == 0
    assert failpoints.after("after_document", "mongodb", 7) == 7


def test_probability_and_count_bound_how_often_and_the_seed_decides_when() -> None:
    assert failures("after_poll=raise", 10) == 10
    assert failures("after_poll=raise::3", 10) == 3
    assert failures("after_poll=raise:0", 100) == 0
    assert 5 < failures("after_poll=raise:0.2,seed=1", 100) < 40
    assert failures("after_poll=raise:0.2,seed=1", 100) == failures("seed=1,after_poll=raise:0.2", 100)


def test_a_lost_answer_is_the_error_of_the_service() -> None:
    failpoints.arm("after_document=raise")
    with pytest.raises(TransientError, match="mongodb") as caught:
        failpoints.after("after_document", "mongodb", 7)
    assert caught.value.service == "mongodb"


@pytest.mark.parametrize("text", ["after_pol=kill", "after_poll=explode", "after_poll", "after_poll=kill:often"])
def test_what_is_no_rule_is_refused_with_the_points_there_are(text: str) -> None:
    with pytest.raises(ValueError, match="after_document"):
        failpoints.arm(text)


def run(rule: str) -> subprocess.Popen[bytes]:
    program = "from consumer import failpoints as f; import sys; f.arm(sys.argv[1]); f.reach('after_poll'); print('on')"
    return subprocess.Popen([sys.executable, "-c", program, rule], stdout=subprocess.PIPE, cwd=ROOT)


def test_kill_ends_the_process_as_kill_9_does() -> None:
    with run("after_poll=kill") as process:
        assert process.wait(30) == -signal.SIGKILL


def test_stop_freezes_the_process_and_continues_it_in_time() -> None:
    begun = time.monotonic()
    with run("after_poll=stop(1)") as process:
        _, status = os.waitpid(process.pid, os.WUNTRACED)
        assert os.WIFSTOPPED(status)
        assert process.stdout is not None
        assert b"on" in process.stdout.read()
        assert time.monotonic() - begun >= 1
        assert process.wait(30) == 0


def test_every_point_is_reached_in_the_code_once_and_no_other() -> None:
    code = "\n".join(path.read_text() for path in (ROOT / "consumer").rglob("*.py") if path.name != "failpoints.py")
    reached = re.findall(r"failpoints\.(?:reach|after)\(\s*\"(\w+)\"", code)
    assert set(reached) == set(failpoints.POINTS)
