"""MongoDB's engine (9.0 alpha, WiredTiger) behind a TCP port: no sessions, transactions, change streams or auth."""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pymongo import MongoClient
from pymongo.errors import PyMongoError

from tests.services import glibc
from tests.services.install import DATA, installed, run, tool
from tests.services.server import Server, Service, accepts, data_directory, free_ports

PURPOSE = "MongoDB's engine"
PACKAGE = DATA / "mongodb"


@dataclass(frozen=True)
class MongoDB(Service):
    url: str

    def client(self) -> MongoClient[dict[str, Any]]:
        """A new client that gives up within seconds; the caller closes it."""
        return MongoClient(self.url, serverSelectionTimeoutMS=5_000)

    @property
    def exports(self) -> dict[str, str]:
        return {"MONGODB_URL": self.url}


def start(*, detached: bool = False) -> MongoDB:
    given = os.environ.get("TENSORFLEET_TEST_MONGODB")
    if given and not detached:
        return MongoDB(None, given)
    node, modules = tool("node", PURPOSE), install()
    directory = data_directory("mongodb")
    (port,) = free_ports(1)
    url = f"mongodb://127.0.0.1:{port}/?directConnection=true"
    server = Server(
        PURPOSE,
        [*glibc.loader(), node, PACKAGE / "server.js", directory / "data", str(port)],
        directory,
        lambda: accepts(port) and _answers(url),
        working_directory=modules,
        detached=detached,
    )
    return MongoDB(server.launch(), url)


def install() -> Path:
    manifest, lock = PACKAGE / "package.json", PACKAGE / "package-lock.json"

    def build(folder: Path) -> None:
        tool("node", PURPOSE, at_least=20)
        shutil.copy(manifest, folder)
        shutil.copy(lock, folder)
        run([tool("npm", PURPOSE), "ci", "--ignore-scripts", "--no-audit", "--no-fund"], folder, PURPOSE)

    glibc.loader()
    return installed("mongodb", build, manifest, lock)


def _answers(url: str) -> bool:
    try:
        with MongoClient[dict[str, Any]](url, serverSelectionTimeoutMS=1_000) as client:
            client.admin.command("ping")
    except PyMongoError:
        return False
    return True
