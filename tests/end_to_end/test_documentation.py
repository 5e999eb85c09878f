"""The documentation, as somebody would follow it: its commands and programs are run in one folder, as they stand."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from consumer import embedded
from consumer.settings import Settings

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"```(sh|python)([^\n]*)\n(.*?)```", re.DOTALL)
START_S, STEP_S = 60.0, 240.0


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where a `tensorfleet dev` runs."""
    folder = tmp_path_factory.mktemp("documentation")
    with (folder / "worker.log").open("wb") as log:
        fleet = subprocess.Popen(["tensorfleet", "dev"], cwd=folder, env=_environment(), stderr=log)
    try:
        deadline = time.monotonic() + START_S
        while embedded.find(folder / "tensorfleet-data") is None:
            assert fleet.poll() is None, "it has ended"
            assert time.monotonic() < deadline
            time.sleep(0.05)
        yield folder
        fleet.send_signal(signal.SIGINT)
        try:
            assert fleet.wait(START_S) == 0
        except subprocess.TimeoutExpired:
            pytest.fail(f"it does not end; its worker's log:\n{(folder / 'worker.log').read_text()[-4_000:]}")
    finally:
        fleet.kill()
        fleet.wait()


def test_the_readme_trains_and_predicts_without_servers(folder: Path) -> None:
    section = _section("README.md", "## Try it without servers")
    commands = [line for line in section[0].splitlines() if not re.match(r"make demo|\S*tensorfleet dev", line)]
    told = _run(folder, "sh", "\n".join(commands).replace(".venv/bin/", ""))
    assert "REGISTERED" in told
    assert "setosa" in told
    told = _run(folder, "python", _section("README.md", "## From Python")[0])
    assert "REGISTERED v2" in told
    assert "setosa" in told


def test_the_tutorial_goes_from_a_csv_to_predictions(folder: Path) -> None:
    told = ""
    for language, title, block in BLOCK.findall((ROOT / "docs/tutorial.md").read_text()):
        if "first terminal" not in title:
            told += _run(folder, language, block)
    assert "plan\tstring" in told
    assert told.count("REGISTERED") == 2
    assert (folder / "churn.html").stat().st_size > 10_000
    labels = re.findall(r"^(yes|no)\t0\.\d+\t", told, re.MULTILINE)
    assert labels == ["yes", "no"]
    assert (
        (folder / "predictions.csv")
        .read_text()
        .startswith("customer,prediction,probability_no,probability_yes\n17,yes,")
    )


def test_the_client_is_used_as_its_page_says(folder: Path) -> None:
    assert "REGISTERED" in _run(folder, "python", _section("docs/using.md", "## From Python")[0])


def _section(page: str, heading: str) -> list[str]:
    """The blocks under a heading."""
    text = (ROOT / page).read_text().partition(f"\n{heading}\n")[2].partition("\n## ")[0]
    return [block for _, _, block in BLOCK.findall(text)]


def _run(folder: Path, language: str, text: str) -> str:
    command = ["bash", "-euo", "pipefail", "-c", text] if language == "sh" else [sys.executable, "-c", text]
    done = subprocess.run(command, cwd=folder, env=_environment(), capture_output=True, text=True, timeout=STEP_S)
    assert done.returncode == 0, f"{text}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def _environment() -> dict[str, str]:
    command = shutil.which("tensorfleet", path=str(Path(sys.executable).parent))
    assert command is not None, "the command is not installed beside this Python"
    others = {name: value for name, value in os.environ.items() if name.lower() not in Settings.model_fields}
    return {**others, "PATH": f"{Path(command).parent}{os.pathsep}{os.environ['PATH']}", "PORT": "0"}
