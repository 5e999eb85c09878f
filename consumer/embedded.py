"""The embedded fleet of `tensorfleet dev`: where a running one is noted, and how other commands find it.

`DATA_DIR/dev.json` says where its broker listens and which process it is; everything else of it lies in DATA_DIR too.
"""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from pathlib import Path

import orjson
from pydantic import SecretStr

from consumer.settings import Settings, SettingsError

NOTE = "dev.json"


@dataclass(frozen=True, slots=True)
class Dev:
    """A running `tensorfleet dev`: the address of its broker, and its process."""

    kafka_bootstrap_servers: str
    pid: int


def resolve(settings: Settings) -> Settings:
    """The settings of what there is: the Kafka that they name, else the running `tensorfleet dev` of their DATA_DIR.

    The embedded fleet has its stores in DATA_DIR and no transactions, whatever the environment says of services.
    Raises SettingsError if there is neither.
    """
    if settings.kafka_bootstrap_servers:
        return settings
    dev = find(settings.data_dir)
    if dev is None:
        raise SettingsError(
            "KAFKA_BOOTSTRAP_SERVERS is not set; it takes host:port, several with commas between, "
            f"or run `tensorfleet dev` beside this (none runs in {settings.data_dir})"
        )
    return settings.model_copy(
        update={
            "kafka_bootstrap_servers": dev.kafka_bootstrap_servers,
            "kafka_security_protocol": "PLAINTEXT",
            "delivery": "at-least-once",
            "mongodb_url": SecretStr(""),
            "schema_registry_url": None,
        }
    )


def find(data_dir: Path) -> Dev | None:
    """The `tensorfleet dev` that runs in this folder."""
    try:
        note = orjson.loads((data_dir / NOTE).read_bytes())
        dev = Dev(str(note["kafka_bootstrap_servers"]), int(note["pid"]))
    except (OSError, orjson.JSONDecodeError, KeyError, TypeError, ValueError):
        return None
    return dev if _alive(dev.pid) else None


def announce(data_dir: Path, dev: Dev) -> None:
    """Note that it runs, in one step, for `find`."""
    data_dir.mkdir(parents=True, exist_ok=True)
    incoming = data_dir / f".{NOTE}.{dev.pid}"
    incoming.write_bytes(orjson.dumps(asdict(dev)))
    incoming.replace(data_dir / NOTE)


def withdraw(data_dir: Path, dev: Dev) -> None:
    """Take the note away, unless by now it is another's."""
    if find(data_dir) == dev:
        (data_dir / NOTE).unlink(missing_ok=True)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
