"""Fixtures over real servers, each started at its first use, once a test run.

Tests that use one get the marker `services` by themselves; a parameter that asks for one by `getfixturevalue` names
the marker in `pytest.param`. Whatever a test does to a server, it runs again for the next one.
"""

import os
import uuid
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import pytest
from pymongo.database import Database

import tests.services.kafka
import tests.services.mongodb
import tests.services.s3
import tests.services.schema_registry
from tests.services.kafka import Kafka, KafkaCluster
from tests.services.mongodb import MongoDB
from tests.services.s3 import S3
from tests.services.schema_registry import SchemaRegistry
from tests.services.server import Service, UnavailableError

SERVICES = frozenset({"kafka", "kafka_cluster", "mongodb", "s3", "schema_registry"})
AnyService = TypeVar("AnyService", bound=Service)
_started: list[Service] = []


@pytest.fixture(scope="session")
def kafka() -> Iterator[Kafka]:
    """`.bootstrap_servers`; topics must be created, take `topic_prefix` for their names."""
    yield from _started_once(tests.services.kafka.start)


@pytest.fixture(scope="module")
def kafka_cluster() -> Iterator[KafkaCluster]:
    """Three nodes, each to be killed by itself; a module's, because that is much memory to hold for a whole run."""
    yield from _started_once(tests.services.kafka.start_cluster)


@pytest.fixture(scope="session")
def mongodb() -> Iterator[MongoDB]:
    """`.url`, `.client()`; `mongo_database` is one's own."""
    yield from _started_once(tests.services.mongodb.start)


@pytest.fixture(scope="session")
def s3() -> Iterator[S3]:
    """`.endpoint`, `.access_key`, `.secret_key`, `.client()`; `s3_bucket` is one's own."""
    yield from _started_once(tests.services.s3.start)


@pytest.fixture(scope="session")
def schema_registry() -> Iterator[SchemaRegistry]:
    """`.url`, the root of the Confluent API; subjects are topic names, so take `topic_prefix`."""
    yield from _started_once(tests.services.schema_registry.start)


@pytest.fixture
def topic_prefix(request: pytest.FixtureRequest) -> Iterator[str]:
    """A unique beginning for topic and group names; with `kafka`, topics named so are deleted afterwards."""
    prefix = f"t{uuid.uuid4().hex[:12]}."
    yield prefix
    if "kafka" in request.fixturenames:
        request.getfixturevalue("kafka").delete_topics(prefix)


@pytest.fixture
def mongo_database(mongodb: MongoDB) -> Iterator[Database[dict[str, Any]]]:
    """A database of one's own, dropped afterwards."""
    with mongodb.client() as client:
        database = client[f"t{uuid.uuid4().hex[:12]}"]
        yield database
        client.drop_database(database)


@pytest.fixture
def s3_bucket(s3: S3) -> Iterator[str]:
    """The name of a bucket of one's own, removed afterwards with what is in it."""
    bucket = f"t{uuid.uuid4().hex[:12]}"
    s3.client().make_bucket(bucket)
    yield bucket
    s3.remove_bucket(bucket)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if SERVICES.intersection(getattr(item, "fixturenames", ())):
            item.add_marker("services")


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_teardown() -> None:
    """Before any fixture is torn down, which may need a server that the test has killed."""
    for service in _started:
        service.revive()


def _started_once(start: Callable[[], AnyService]) -> Iterator[AnyService]:
    try:
        service = start()
    except UnavailableError as error:
        if os.environ.get("CI") == "true":
            pytest.fail(str(error), pytrace=False)
        pytest.skip(str(error))
    _started.append(service)
    yield service
    _started.remove(service)
    service.close()
