"""All servers, kept running by hand: `python -m tests.services up | down | exports | install`.

`up` starts them and prints the worker's settings to paste into a shell; `exports` prints those again; `down` ends
exactly the processes that `up` started. `install` only downloads what is missing, as the fixtures would.
"""

import contextlib
import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.services import kafka, mongodb, s3, schema_registry
from tests.services.install import cache, locked
from tests.services.server import Service, UnavailableError

STARTS: tuple[Callable[..., Service], ...] = (kafka.start, mongodb.start, s3.start, schema_registry.start)
INSTALLS: tuple[Callable[[], Path], ...] = (kafka.install, mongodb.install, s3.install, schema_registry.install)


@dataclass(frozen=True)
class Running:
    """A process that `up` started. Its id alone could be another's by now: only with the start time it is the same."""

    name: str
    pid: int
    started: str
    directory: str
    exports: dict[str, str]

    @property
    def alive(self) -> bool:
        return _start_time(self.pid) == self.started


def main(arguments: list[str]) -> int:
    commands = {"up": up, "down": down, "exports": exports, "install": install}
    if len(arguments) != 1 or arguments[0] not in commands:
        sys.stderr.write(f"usage: python -m tests.services {' | '.join(commands)}\n")
        return 2
    try:
        commands[arguments[0]]()
    except UnavailableError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


def up() -> None:
    """Start what does not run yet."""
    with locked("run"):
        running = _read()
        if not running or not all(one.alive for one in running):
            _end(running)
            _state().write_text(json.dumps([asdict(one) for one in _start_all()], indent=2) + "\n")
    exports()


def down() -> None:
    with locked("run"):
        _end(_read())
        _state().unlink(missing_ok=True)


def exports() -> None:
    running = [one for one in _read() if one.alive]
    if not running:
        raise UnavailableError("no servers run; start them with make services-up")
    for one in running:
        for name, value in one.exports.items():
            sys.stdout.write(f"export {name}='{value}'\n")


def install() -> None:
    """Download all that is missing. What cannot be had is told, and fails only under CI=true, as tests do."""
    missing = []
    for one in INSTALLS:
        try:
            one()
        except UnavailableError as error:
            missing.append(str(error))
    if missing and os.environ.get("CI") == "true":
        raise UnavailableError("\n".join(missing))
    for line in missing:
        sys.stderr.write(f"{line}; its tests will be skipped\n")


def _start_all() -> list[Running]:
    """All four at once, or none: where one cannot be had or somebody interrupts, the others are ended."""
    starting: list[Future[Service]] = []
    try:
        with ThreadPoolExecutor() as threads:
            starting.extend(threads.submit(start, detached=True) for start in STARTS)
        return [_running(one.result()) for one in starting]
    except BaseException:
        for one in starting:
            if one.exception() is None:
                one.result().close()
        raise


def _running(service: Service) -> Running:
    server = service.server
    assert server is not None
    started = _start_time(server.pid)
    if started is None:
        raise UnavailableError(f"{server.name} ended again")
    return Running(server.name, server.pid, started, str(server.directory), service.exports)


def _end(processes: list[Running]) -> None:
    """kill -9, for their data goes with them."""
    for one in processes:
        with contextlib.suppress(ProcessLookupError):
            if one.alive:
                os.kill(one.pid, signal.SIGKILL)
    for one in processes:
        while one.alive:
            time.sleep(0.01)
        shutil.rmtree(one.directory, ignore_errors=True)


def _start_time(pid: int) -> str | None:
    """When a process started, in clock ticks since boot; None where none runs (or only its remains do)."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] == "Z" else fields[19]


def _state() -> Path:
    return cache() / "run.json"


def _read() -> list[Running]:
    if not _state().exists():
        return []
    return [Running(**fields) for fields in json.loads(_state().read_text())]
