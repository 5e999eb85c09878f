"""Chooses the adapter of each store: MongoDB and S3 in production, SQLite and folders when embedded."""

from __future__ import annotations

import atexit
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

from pymongo.monitoring import CommandListener

from consumer.loaders.loaders import Loaders
from consumer.settings import Settings
from pipeline.aliases import AliasStore
from pipeline.aliases.mongodb import MongoAliases
from pipeline.aliases.sqlite import SqliteAliases
from pipeline.artifacts import ArtifactStore
from pipeline.artifacts.directory import DirectoryStore
from pipeline.artifacts.gridfs import GridFSStore
from pipeline.artifacts.hybrid import HybridStore
from pipeline.artifacts.s3 import S3Store
from pipeline.databases import mongodb
from pipeline.datasets import DatasetStore, Read, reading
from pipeline.datasets.cache import DatasetCache
from pipeline.datasets.directory import DirectorySource
from pipeline.datasets.mongodb import OWN_COLLECTIONS, MongoSource
from pipeline.datasets.s3 import S3Objects
from pipeline.ledger import Ledger
from pipeline.ledger.mongodb import MongoLedger
from pipeline.ledger.sqlite import SqliteLedger
from pipeline.registry import Registry
from pipeline.registry.mongodb import MongoRegistry
from pipeline.registry.sqlite import SqliteRegistry

MOST_LOADS = 4
"""The most datasets that a worker fetches and reads at once: trainings have priority, and a load may take as much
memory as one."""


@dataclass(frozen=True, slots=True)
class Stores:
    ledger: Ledger
    registry: Registry
    aliases: AliasStore
    artifacts: ArtifactStore
    datasets: DatasetStore
    close: Callable[[], None] = lambda: None
    """Closes the stores' connections, for a program that goes on without them."""

    def prepare(self) -> None:
        """Create missing tables, indexes and folders; raises TransientError while a service is away."""
        self.ledger.prepare()
        self.registry.prepare()
        self.aliases.prepare()
        self.artifacts.prepare()


def open_stores(settings: Settings, listeners: Sequence[CommandListener] = ()) -> Stores:
    """The stores that the settings name, without calling them yet; the embedded ones if MONGODB_URL is not set.

    Datasets that are read without a cache are read by a loader of this process.
    """
    if settings.embedded:
        return _embedded(settings)
    client = mongodb.connect(settings.mongodb_url.get_secret_value(), listeners=listeners)
    database = client[settings.mongodb_db]
    artifacts: ArtifactStore = GridFSStore(database)
    if settings.minio_endpoint and settings.minio_access_key and settings.minio_secret_key:
        large = S3Store(
            settings.minio_endpoint,
            settings.minio_access_key.get_secret_value(),
            settings.minio_secret_key.get_secret_value(),
            settings.minio_bucket,
            settings.minio_secure,
        )
        artifacts = HybridStore(GridFSStore(database), large, settings.artifact_gridfs_limit)
    return Stores(
        MongoLedger(database, settings.ledger_retention),
        MongoRegistry(database, settings.model_registry_collection),
        MongoAliases(database),
        artifacts,
        MongoSource(
            database,
            OWN_COLLECTIONS | {settings.model_registry_collection},
            max_bytes=settings.dataset_cache_bytes,
            read=loader(settings),
            objects=_objects(settings),
        ),
        client.close,
    )


def open_ready(settings: Settings) -> Stores:
    """The stores for a command or a program, once they answer; missing embedded ones are created.

    Raises TransientError if they do not answer.
    """
    opened = open_stores(settings)
    if settings.embedded:
        opened.prepare()
    else:
        opened.ledger.read(("",))  # fails fast: lists and uploads have long time-outs
    return opened


def open_cache(settings: Settings, source: DatasetStore, read: Read = reading.read) -> DatasetCache:
    """The dataset cache of this machine, shared by all its workers."""
    return DatasetCache(settings.dataset_cache_dir, settings.dataset_cache_bytes, source, read=read, fetches=MOST_LOADS)


def open_loaders(settings: Settings) -> Loaders:
    """The loaders of a worker."""
    count = min(MOST_LOADS, settings.worker_concurrency + 1)
    return Loaders(count, settings.dataset_load_time, settings.max_training_memory)


def loader(settings: Settings) -> Read:
    """Reads datasets for commands and the client, one at a time; its process starts when it is first needed."""
    return _loader(settings.dataset_load_time, settings.max_training_memory).load


@cache
def _loader(max_time_s: float, max_memory_bytes: int) -> Loaders:
    """The loaders of this process, which end with it."""
    loaders = Loaders(1, max_time_s, max_memory_bytes)
    atexit.register(loaders.stop)
    return loaders


def _embedded(settings: Settings) -> Stores:
    folder = settings.data_dir
    folder.mkdir(parents=True, exist_ok=True)
    return Stores(
        SqliteLedger(folder / "ledger.sqlite", retention_s=settings.ledger_retention),
        SqliteRegistry(folder / "registry.sqlite"),
        SqliteAliases(folder / "registry.sqlite"),
        DirectoryStore(folder / "artifacts"),
        DirectorySource(
            folder / "datasets",
            max_bytes=settings.dataset_cache_bytes,
            read=loader(settings),
            objects=_objects(settings),
        ),
    )


def _objects(settings: Settings) -> S3Objects:
    """Reads datasets that stay in S3: the server of the artifacts, in any bucket."""
    if not (settings.minio_endpoint and settings.minio_access_key and settings.minio_secret_key):
        return S3Objects()
    return S3Objects(
        settings.minio_endpoint,
        settings.minio_access_key.get_secret_value(),
        settings.minio_secret_key.get_secret_value(),
        secure=settings.minio_secure,
    )
