"""What the servers need is installed once, and what is missing is told in one line."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.services.install import installed, run, tool
from tests.services.server import UnavailableError

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TENSORFLEET_SERVICES_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_what_is_asked_for_by_many_at_once_is_built_once() -> None:
    """Locked by file descriptor, so threads and processes alike."""
    builds: list[Path] = []

    def build(folder: Path) -> None:
        builds.append(folder)
        (folder / "jar").touch()

    with ThreadPoolExecutor(8) as threads:
        folders = {*threads.map(lambda _: installed("thing", build), range(8))}
    assert len(builds) == len(folders) == 1
    assert (folders.pop() / "jar").exists()


def test_a_build_that_failed_is_begun_anew(own_cache: Path) -> None:
    """Nothing half-done is taken for the whole."""

    def fail(folder: Path) -> None:
        (folder / "half").touch()
        raise UnavailableError("no network")

    with pytest.raises(UnavailableError, match="no network"):
        installed("thing", fail)
    folder = installed("thing", lambda folder: (folder / "jar").touch())
    assert [path.name for path in folder.iterdir()] == ["jar"]
    assert folder.parent == own_cache


def test_a_changed_input_is_built_anew(tmp_path: Path) -> None:
    """A new version in a pom is a new folder."""
    pom = tmp_path / "pom.xml"
    folders = set()
    for version in ("1", "2"):
        pom.write_text(version)
        folders.add(installed("thing", lambda folder: None, pom))
    assert len(folders) == 2


def test_a_missing_or_old_program_is_named() -> None:
    """With what it is for."""
    with pytest.raises(UnavailableError, match=r"^Kafka needs javva 17 or later, which is not installed$"):
        tool("javva", "Kafka", at_least=17)
    with pytest.raises(UnavailableError, match=r"^a test needs bash 99 or later; here is [0-9]+$"):
        tool("bash", "a test", at_least=99)


def test_a_failed_installer_is_told_in_one_line(tmp_path: Path) -> None:
    """The first one that looks like the reason."""
    script = "echo Downloading; echo '[ERROR] no such artifact'; echo see the log; exit 1"
    with pytest.raises(UnavailableError, match=r"^Kafka cannot be installed: sh: \[ERROR\] no such artifact$"):
        run([tool("sh", "a test"), "-c", script], tmp_path, "Kafka")


@pytest.mark.parametrize(("ci", "outcome", "code"), [("", "1 skipped", 0), ("true", "1 error", 1)])
def test_without_a_server_its_tests_are_skipped_and_fail_in_ci(ci: str, outcome: str, code: int) -> None:
    """With the reason."""
    test = "tests/services/test_services.py::test_a_schema_that_breaks_readers_is_refused"
    given = {name: value for name, value in os.environ.items() if not name.startswith("TENSORFLEET_TEST_")}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--no-cov", test],
        env={**given, "CI": ci, "PATH": "/nowhere"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "the schema registry needs java, which is not installed" in done.stdout
    assert outcome in done.stdout.splitlines()[-1]
    assert done.returncode == code
