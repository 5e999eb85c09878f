"""The wheel alone, in an empty environment outside the tree: what `pip install` gives is enough."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.chaos

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
MOST_MIB = 770
COMMIT = "0123456789ab"


def _run(*command: object, cwd: Path, within_s: float = 240.0) -> str:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV"))}
    kept |= {"TENSORFLEET_COMMIT": COMMIT, "UV_SYSTEM_CERTS": "true"}
    run = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env=kept,
        capture_output=True,
        text=True,
        timeout=within_s,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    return run.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The environment; its packages are those of requirements.txt."""
    folder = tmp_path_factory.mktemp("wheel")
    _run(
        BIN / "python", "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", folder, ROOT, cwd=folder
    )
    (wheel,) = folder.glob("*.whl")
    _run(BIN / "uv", "venv", "-q", "--python", BIN / "python", folder / "env", cwd=folder)
    python = folder / "env" / "bin" / "python"
    _run(BIN / "uv", "pip", "install", "-q", "--python", python, "-c", ROOT / "requirements.txt", wheel, cwd=folder)
    return folder / "env"


@pytest.mark.timeout(400)
def test_the_demo_runs_from_the_wheel(installed: Path, tmp_path: Path) -> None:
    told = _run(installed / "bin" / "tensorfleet", "demo", cwd=tmp_path)
    assert "flowers" in told or "iris" in told


def test_the_version_says_which_build_it_is(installed: Path, tmp_path: Path) -> None:
    told = _run(installed / "bin" / "tensorfleet", "--version", cwd=tmp_path)
    assert told.startswith(f"tensorfleet 0.1.0 ({COMMIT}), Python 3.")


def test_a_worker_takes_no_more_room_than_it_needs(installed: Path) -> None:
    sizes = {path: path.lstat().st_size for path in installed.rglob("*") if path.is_file()}
    assert sum(sizes.values()) / 2**20 <= MOST_MIB


def test_what_an_extra_brings_is_asked_for_in_one_line(installed: Path, tmp_path: Path) -> None:
    code = "from pipeline.deep.frameworks import FRAMEWORKS; FRAMEWORKS['torch'].networks()"
    run = subprocess.run(
        [installed / "bin" / "python", "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert "tensorfleet-worker[torch]" in run.stderr.splitlines()[-1]
