"""What the servers need, installed once into a cache: `.services/` here, or the folder TENSORFLEET_SERVICES_CACHE."""

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.services.server import UnavailableError

DATA = Path(__file__).with_name("data")
MAVEN_DEPENDENCY = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1"
INSTALL_WITHIN_S = 900
# For servers that live for minutes beside the tests: quick to start, and nothing in shared folders.
SMALL_JVM = ("-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-XX:-UsePerfData")


def cache() -> Path:
    folder = os.environ.get("TENSORFLEET_SERVICES_CACHE") or Path(__file__).parents[2] / ".services"
    return Path(folder).absolute()


def installed(name: str, build: Callable[[Path], None], *inputs: Path) -> Path:
    """The folder that `build` has filled, now or long ago; built anew when an input changes. Safe to call at once."""
    fingerprint = hashlib.sha256(b"".join(path.read_bytes() for path in inputs)).hexdigest()[:8]
    folder = cache() / f"{name}-{fingerprint}"
    if folder.exists():
        return folder
    with locked(name):
        if not folder.exists():
            unfinished = cache() / f"{name}.unfinished"
            shutil.rmtree(unfinished, ignore_errors=True)
            unfinished.mkdir()
            build(unfinished)
            unfinished.rename(folder)
    return folder


@contextmanager
def locked(name: str) -> Iterator[None]:
    """Alone among all processes that use the cache."""
    cache().mkdir(parents=True, exist_ok=True)
    with (cache() / f"{name}.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def tool(name: str, purpose: str, *, at_least: int = 0) -> str:
    """The path of a program; a missing or an old one is told in one line."""
    path = shutil.which(name)
    wanted = f"{name} {at_least} or later" if at_least else name
    if path is None:
        raise UnavailableError(f"{purpose} needs {wanted}, which is not installed")
    if at_least:
        option = "-version" if name == "java" else "--version"
        answer = subprocess.run([path, option], capture_output=True, text=True, check=False)
        version = re.search(r"\d+", answer.stdout + answer.stderr)
        if version is None or int(version[0]) < at_least:
            raise UnavailableError(f"{purpose} needs {wanted}; here is {version[0] if version else 'another'}")
    return path


def maven(goal: str, pom: Path, folder: Path, purpose: str) -> None:
    """Run a goal of the dependency plugin, its output in `folder`."""
    goal = f"{MAVEN_DEPENDENCY}:{goal}"
    run([tool("mvn", purpose), "-q", "-B", "-f", str(pom), goal, f"-DoutputDirectory={folder}"], folder, purpose)


def run(command: list[str], folder: Path, purpose: str, environment: dict[str, str] | None = None) -> str:
    """Run an installer and return what it prints; its failure is told in one line."""
    what = f"{purpose} cannot be installed: {Path(command[0]).name}"
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            env={**os.environ, **(environment or {})},
            capture_output=True,
            text=True,
            check=False,
            timeout=INSTALL_WITHIN_S,
        )
    except subprocess.TimeoutExpired:
        raise UnavailableError(f"{what} took longer than {INSTALL_WITHIN_S} s") from None
    if done.returncode != 0:
        lines = [line.strip() for line in (done.stderr + done.stdout).split("\n")]
        telling = [line for line in lines if re.search("error|cannot|could not|failed", line, re.IGNORECASE)]
        raise UnavailableError(f"{what}: {next(iter(telling or [*filter(None, lines)]), 'no output')}")
    return done.stdout
