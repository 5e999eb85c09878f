"""A program that is forked behaves as one that is executed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryFile

import pytest

from tests.launcher import Launched, Launcher, Process, _launcher, launcher_for

PROGRAM = """
import os, signal, sys, time

if sys.argv[1] == "tell":
    print(sys.argv[1:], os.environ["WORD"], len(os.environ), os.getcwd(), os.getsid(0) == os.getpid(), sys.path[:2])
    print(signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGCHLD), __name__, sys.stdin.read())
    print("wrong", file=sys.stderr)
    sys.exit(int(sys.argv[2]))
print("ready", flush=True)
time.sleep(60)
"""


def forking() -> Launcher:
    found = launcher_for({})
    assert found is not None
    return found


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    (tmp_path / "program.py").write_text(PROGRAM)
    return {"WORD": "word", "PYTHONPATH": str(tmp_path), "LC_CTYPE": "C.UTF-8"}


@pytest.mark.parametrize("code", [0, 3])
def test_it_has_what_an_executed_one_has_and_ends_with_its_code(environment: dict[str, str], code: int) -> None:
    said = []
    arguments = ["tell", str(code)]
    for forked in (True, False):
        with TemporaryFile() as output, TemporaryFile() as errors:
            process: Process
            if forked:
                process = forking().start("program", arguments, environment, output, errors)
            else:
                process = subprocess.Popen(
                    [sys.executable, "-m", "program", *arguments],
                    env=environment,
                    cwd=Path(__file__).parents[2],
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=errors,
                    start_new_session=True,
                )
            assert process.wait(30) == code
            assert process.returncode == process.poll() == code
            for file in (output, errors):
                file.seek(0)
            said.append((output.read(), errors.read()))
    assert said[0] == said[1]


def sleeping(environment: dict[str, str], folder: Path, mine: Launcher | None = None) -> Launched:
    with (folder / "output").open("wb") as output:
        return (mine or forking()).start("program", ["sleep"], environment, output, output)


def test_a_signal_ends_it_and_is_told(environment: dict[str, str], tmp_path: Path) -> None:
    first, second = (sleeping(environment, tmp_path) for _ in range(2))
    with pytest.raises(subprocess.TimeoutExpired):
        first.wait(0.1)
    assert first.poll() is None
    first.terminate()
    assert first.wait(30) == -signal.SIGTERM
    second.kill()
    assert second.wait(30) == -signal.SIGKILL
    second.kill()  # to one that has ended nothing happens


def test_it_ends_with_the_launcher(environment: dict[str, str], tmp_path: Path) -> None:
    mine = _launcher.__wrapped__("", "")
    process = sleeping(environment, tmp_path, mine)
    mine.control.close()
    assert mine.process.wait(30) == 0
    assert process.wait(30) == -signal.SIGKILL
    deadline = time.monotonic() + 30
    while Path(f"/proc/{process.pid}/cwd").exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_what_acts_on_the_start_of_a_process_has_a_launcher_of_its_own(tmp_path: Path) -> None:
    assert launcher_for({**os.environ, "COVERAGE_PROCESS_CONFIG": "", "CHAOS_CLOCK": ""}) is forking()
    assert launcher_for({"CHAOS_CLOCK": str(tmp_path / "clock")}) is not forking()
    assert launcher_for({"COVERAGE_PROCESS_CONFIG": "{}"}) is None
