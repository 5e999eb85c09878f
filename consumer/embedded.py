"""Runs the embedded fleet of `tensorfleet dev` and `demo`: a broker in this process, a worker in another.

`DATA_DIR/dev.json` has the broker's address and process id, so that other commands find it; all its other files are in
DATA_DIR too. The broker is librdkafka's mock cluster: real clients can use it, it has no transactions, keeps at most
5 MB per partition, and loses everything when its process ends.

`python -m consumer.embedded PID` is the worker: it reads its settings from standard input and ends with process PID.
"""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
from pydantic import SecretStr

from consumer.settings import Settings, SettingsError, load_settings
from consumer.system.processes import die_with_parent

if TYPE_CHECKING:
    from consumer.stores import Stores

NOTE = "dev.json"
LOCK = ".lock"
WORKER_ID = "embedded"
SESSION_MS = 6_000
"""After kill -9, the next worker gets the partitions when this session time-out of the dead one is over."""
TIMEOUT_S = 10.0
ITS_OWN = {
    "kafka_security_protocol": "PLAINTEXT",
    "delivery": "at-least-once",
    "mongodb_url": SecretStr(""),
    "schema_registry_url": None,
}
"""Settings of the embedded fleet, whatever the environment says."""
NO_STORES = (
    "MONGODB_URL is not set; it takes mongodb://… or mongodb+srv://…, "
    "or run `tensorfleet dev`, whose stores lie in DATA_DIR"
)


@dataclass(frozen=True, slots=True)
class Dev:
    """A running `tensorfleet dev`: the address of its broker, and its process id."""

    kafka_bootstrap_servers: str
    pid: int


def resolve(settings: Settings) -> Settings:
    """The settings unchanged if they name a Kafka, else those of the running `tensorfleet dev` in their DATA_DIR.

    The embedded fleet has its stores in DATA_DIR and no transactions, whatever services the environment names.
    Raises SettingsError if there is neither.
    """
    if settings.kafka_bootstrap_servers:
        return settings
    dev = find(settings.data_dir)
    if dev is None:
        raise SettingsError(
            f"no `tensorfleet dev` runs in {settings.data_dir}, and KAFKA_BOOTSTRAP_SERVERS is not set: start the "
            "one in another terminal, or set KAFKA_BOOTSTRAP_SERVERS to host:port (several with commas between)"
        )
    return settings.model_copy(update={"kafka_bootstrap_servers": dev.kafka_bootstrap_servers, **ITS_OWN})


def named_settings(**named: Any) -> Settings:
    """The settings of a program: `named` ones have precedence over the environment.

    Raises SettingsError for an unknown name, and for a service that a running `tensorfleet dev` would not use.
    """
    settings = load_settings(needs=(), **named)
    lost = ", ".join(sorted(named.keys() & ITS_OWN.keys()))
    if lost and not settings.kafka_bootstrap_servers and find(settings.data_dir):
        raise SettingsError(f"the `tensorfleet dev` of this folder has no {lost}: name kafka_bootstrap_servers too")
    return settings


def with_stores(settings: Settings) -> Settings:
    """Settings that name stores, those in the DATA_DIR of a `tensorfleet dev` included, running or not.

    Raises SettingsError if there are none, or if the named Kafka is not the fleet of DATA_DIR.
    """
    dev, kafka = find(settings.data_dir), settings.kafka_bootstrap_servers
    if not kafka and dev is not None:
        return resolve(settings)
    elsewhere = bool(kafka) and (dev is None or kafka != dev.kafka_bootstrap_servers)
    if settings.embedded and (elsewhere or not settings.data_dir.is_dir()):
        raise SettingsError(NO_STORES)
    return settings


def find(data_dir: Path) -> Dev | None:
    """The `tensorfleet dev` that runs in this folder, or None."""
    try:
        note = orjson.loads((data_dir / NOTE).read_bytes())
        dev = Dev(str(note["kafka_bootstrap_servers"]), int(note["pid"]))
    except (OSError, orjson.JSONDecodeError, KeyError, TypeError, ValueError):
        return None
    return dev if _alive(dev.pid) else None


def announce(data_dir: Path, dev: Dev) -> None:
    """Write dev.json atomically, for `find`."""
    data_dir.mkdir(parents=True, exist_ok=True)
    incoming = data_dir / f".{NOTE}.{dev.pid}"
    incoming.write_bytes(orjson.dumps(asdict(dev)))
    incoming.replace(data_dir / NOTE)


def withdraw(data_dir: Path, dev: Dev) -> None:
    """Delete dev.json, unless another process has written it by now."""
    if find(data_dir) == dev:
        (data_dir / NOTE).unlink(missing_ok=True)


@contextmanager
def broker(settings: Settings) -> Iterator[Settings]:
    """Run the broker of DATA_DIR in this process; yields the settings for its worker and for clients.

    Raises SettingsError if one runs there already.
    """
    folder = settings.data_dir.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / LOCK).open("wb") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            running = find(folder)
            who = f"process {running.pid}" if running else "another process"
            raise SettingsError(
                f"a fleet runs in {settings.data_dir} already ({who}); stop it, or name another folder in DATA_DIR"
            ) from None
        with _mock_cluster(settings) as address:
            dev = Dev(address, os.getpid())
            announce(folder, dev)
            try:
                yield _for_worker(settings, folder)
            finally:
                withdraw(folder, dev)


@contextmanager
def _mock_cluster(settings: Settings) -> Iterator[str]:
    """The address of a broker that has all topics, with 4 partitions each; querying a topic creates it."""
    from confluent_kafka.admin import AdminClient

    from consumer.events.topics import Topics

    cluster = AdminClient({"test.mock.num.brokers": 1, "log_level": 0})
    for topic in Topics(settings.topic_prefix).all():
        cluster.list_topics(topic.name, timeout=TIMEOUT_S)
    brokers = cluster.list_topics(timeout=TIMEOUT_S).brokers.values()
    yield ",".join(f"{one.host}:{one.port}" for one in brokers)
    del cluster


def _for_worker(settings: Settings, folder: Path) -> Settings:
    own = {
        "data_dir": folder,
        "kafka_bootstrap_servers": "",
        "kafka_group_protocol": "classic",
        "kafka_session_timeout_ms": SESSION_MS,
        "spool_dir": folder / ".spool",
        "worker_id": WORKER_ID,
    }
    return resolve(settings.model_copy(update=own))


def settle_past(stores: Stores) -> int:
    """Finish the requests of an earlier fleet in this folder; returns how many were lost with its broker.

    A model with an outcome in the ledger is registered. A request without one ends as FAILED: its record is gone.
    """
    from pipeline.jobs import ErrorKind, Failure, Outcome, OutcomeKind, milliseconds

    now = milliseconds(datetime.now(UTC))
    why = Failure(ErrorKind.WORKER_LOST, "the embedded broker ended, and this request with it; submit it again")
    lost = [
        Outcome(
            request_id=row.request_id,
            kind=OutcomeKind.FAILED,
            at=now,
            correlation_id=str(row.summary["correlation_id"]),
            project=str(row.summary["project"]),
            model_name=str(row.summary["model_name"]),
            worker_id=WORKER_ID,
            error=why,
        )
        for row in stores.ledger.requests(unfinished=True, limit=10**6)
        if row.summary
    ]
    stores.ledger.insert_outcomes(lost)
    newest = [row.outcome for row in stores.ledger.requests(limit=1_000) if row.outcome and row.outcome.model]
    registered = stores.registry.find([outcome.request_id for outcome in newest])
    stores.registry.register([outcome for outcome in reversed(newest) if outcome.request_id not in registered])
    return len(lost)


class WorkerProcess:
    """The worker of the embedded fleet. Start it in the main thread: it is killed when the thread that started it ends.

    It has a session of its own, so that Ctrl-C on the terminal reaches only this process. Its output is appended to
    `log`, or goes to our standard error.
    """

    def __init__(self, settings: Settings, log: Path | None = None) -> None:
        output = None if log is None else log.open("ab")
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "consumer.embedded", str(os.getpid())],
                stdin=subprocess.PIPE,
                stdout=sys.stderr if output is None else output,
                stderr=output,
                start_new_session=True,
            )
        finally:
            if output is not None:
                output.close()
        assert self._process.stdin is not None
        with suppress(BrokenPipeError), self._process.stdin as told:
            told.write(_with_secrets(settings))

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """None while it runs; minus the signal that killed it."""
        return self._process.poll()

    def wait(self, within_s: float) -> int | None:
        """Wait for its end; returns the exit code, None if it still runs after `within_s`."""
        with suppress(subprocess.TimeoutExpired):
            return self._process.wait(within_s)
        return None

    def kill(self) -> None:
        """Send SIGKILL, unless it has ended."""
        self._process.kill()
        self._process.wait()

    def drain(self, within_s: float) -> None:
        """Send SIGTERM, and SIGKILL if it has not ended after `within_s`."""
        self._process.terminate()
        if self.wait(within_s) is None:
            self.kill()


def _with_secrets(settings: Settings) -> bytes:
    """The settings as JSON, in which pydantic alone would hide the secrets."""
    secrets = {name: value.get_secret_value() for name, value in settings if isinstance(value, SecretStr)}
    return orjson.dumps({**settings.model_dump(mode="json"), **secrets})


def run_worker(parent: int) -> None:
    """Run a worker in this process until it drains, or until `parent`, which has started it, ends."""
    die_with_parent()
    if os.getppid() != parent:
        return
    settings = Settings.model_validate_json(sys.stdin.buffer.read())

    from consumer import launch

    launch.run_worker(settings)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


if __name__ == "__main__":
    run_worker(int(sys.argv[1]))
