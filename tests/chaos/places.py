"""Places where fleets play: topics, a database and a bucket of their own on shared servers, many side by side."""

from __future__ import annotations

import tempfile
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import tests.services.kafka
import tests.services.mongodb
import tests.services.s3
from tests.end_to_end.evidence import collect
from tests.end_to_end.fleet import Fleet
from tests.end_to_end.verdict import Verdict, judge
from tests.services.kafka import Kafka
from tests.services.mongodb import MongoDB
from tests.services.s3 import S3


@dataclass(frozen=True)
class Servers:
    """The real ones, which all places share."""

    kafka: Kafka
    mongodb: MongoDB
    s3: S3
    forks: bool = False
    """Whether workers may be forked, see tests.launcher."""

    @classmethod
    @contextmanager
    def started(cls) -> Iterator[Servers]:
        """For use outside of pytest, whose fixtures start them too."""
        with ExitStack() as ending:
            yield cls(
                ending.enter_context(closing(tests.services.kafka.start())),
                ending.enter_context(closing(tests.services.mongodb.start())),
                ending.enter_context(closing(tests.services.s3.start())),
            )


@dataclass(frozen=True)
class Place:
    """One fleet, and the judgement of all that it was sent."""

    fleet: Fleet
    servers: Servers
    database: str

    def judge(self, *, at_least_once: bool = False) -> Verdict:
        with self.servers.mongodb.client() as client:
            evidence = collect(
                self.servers.kafka.bootstrap_servers,
                self.fleet.prefix,
                client[self.database],
                self.servers.s3.client(),
            )
        return judge(evidence, may_repeat=at_least_once)


@contextmanager
def place(servers: Servers, partitions: int) -> Iterator[Place]:
    """All of it is gone afterwards."""
    name = f"t{uuid.uuid4().hex[:12]}"
    environment = {
        "KAFKA_BOOTSTRAP_SERVERS": servers.kafka.bootstrap_servers,
        "MONGODB_URL": servers.mongodb.url,
        "MONGODB_DB": name,
        "MINIO_ENDPOINT": servers.s3.endpoint,
        "MINIO_ACCESS_KEY": servers.s3.access_key,
        "MINIO_SECRET_KEY": servers.s3.secret_key,
        "MINIO_BUCKET": name,
        "MINIO_SECURE": "false",
        # Most is small: MongoDB and S3 shall both be used.
        "ARTIFACT_GRIDFS_LIMIT": "16KiB",
    }
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder, ExitStack() as ending:
        servers.s3.client().make_bucket(name)
        ending.callback(servers.s3.remove_bucket, name)
        client = ending.enter_context(servers.mongodb.client())
        ending.callback(client.drop_database, name)
        fleet = Fleet(environment, Path(folder), f"{name}.", forks=servers.forks)
        ending.callback(servers.kafka.delete_topics, fleet.prefix)
        ending.callback(fleet.end)
        fleet.create_topics(partitions)
        yield Place(fleet, servers, name)
