"""A fleet on the real services."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pymongo.database import Database

from tests.end_to_end.evidence import collect
from tests.end_to_end.fleet import Fleet
from tests.end_to_end.verdict import Verdict, judge
from tests.services.kafka import Kafka
from tests.services.mongodb import MongoDB
from tests.services.s3 import S3


@pytest.fixture
def fleet(
    kafka: Kafka,
    mongodb: MongoDB,
    s3: S3,
    mongo_database: Database[dict[str, Any]],
    s3_bucket: str,
    topic_prefix: str,
    tmp_path: Path,
) -> Iterator[Fleet]:
    environment = {
        "KAFKA_BOOTSTRAP_SERVERS": kafka.bootstrap_servers,
        "MONGODB_URL": mongodb.url,
        "MONGODB_DB": mongo_database.name,
        "MINIO_ENDPOINT": s3.endpoint,
        "MINIO_ACCESS_KEY": s3.access_key,
        "MINIO_SECRET_KEY": s3.secret_key,
        "MINIO_BUCKET": s3_bucket,
        "MINIO_SECURE": "false",
    }
    fleet = Fleet(environment, tmp_path, topic_prefix, forks=True)
    yield fleet
    fleet.end()


@pytest.fixture
def verdict(
    fleet: Fleet, kafka: Kafka, s3: S3, mongo_database: Database[dict[str, Any]], topic_prefix: str
) -> Callable[..., Verdict]:
    """Judge everything that the fleet was sent."""

    def ask(*, may_repeat: bool = False) -> Verdict:
        evidence = collect(kafka.bootstrap_servers, topic_prefix, mongo_database, s3.client())
        return judge(evidence, may_repeat=may_repeat)

    return ask
