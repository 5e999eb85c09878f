"""Chooses the adapter of each store: MongoDB and S3 in production, SQLite and folders when embedded.

An adapter is imported, with its libraries, when its store is first asked for: few commands need all.
"""

from __future__ import annotations

import atexit
from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cache, cached_property
from typing import TYPE_CHECKING

from consumer.settings import Settings

if TYPE_CHECKING:
    from pymongo.monitoring import CommandListener

    from consumer.loaders.loaders import Loaders
    from pipeline.aliases import AliasStore
    from pipeline.artifacts import ArtifactStore
    from pipeline.datasets import DatasetStore, Read
    from pipeline.datasets.cache import DatasetCache
    from pipeline.datasets.s3 import S3Objects
    from pipeline.ledger import Ledger
    from pipeline.registry import Registry

MOST_LOADS = 4
"""The most datasets that a worker fetches and reads at once: trainings have priority, and a load may take as much
memory as one."""


class Stores(ABC):
    """Each store is opened when it is first asked for; that calls no service yet.

    Datasets that are read without a cache are read by a loader of this process.
    """

    @property
    @abstractmethod
    def ledger(self) -> Ledger: ...

    @property
    @abstractmethod
    def registry(self) -> Registry: ...

    @property
    @abstractmethod
    def aliases(self) -> AliasStore: ...

    @property
    @abstractmethod
    def artifacts(self) -> ArtifactStore: ...

    @property
    @abstractmethod
    def datasets(self) -> DatasetStore: ...

    def prepare(self) -> None:
        """Create missing tables, indexes and folders; raises TransientError while a service is away."""
        self.ledger.prepare()
        self.registry.prepare()
        self.aliases.prepare()
        self.artifacts.prepare()

    @abstractmethod
    def close(self) -> None:
        """Close the stores' connections, for a program that goes on without them."""


class _OfServers(Stores):
    """In MongoDB, and large artifacts in S3 if it is named."""

    def __init__(self, settings: Settings, listeners: Sequence[CommandListener]) -> None:
        from pipeline.databases import mongodb

        self._settings = settings
        self._client = mongodb.connect(settings.mongodb_url.get_secret_value(), listeners=listeners)
        self._database = self._client[settings.mongodb_db]

    @cached_property
    def ledger(self) -> Ledger:
        from pipeline.ledger.mongodb import MongoLedger

        return MongoLedger(self._database, self._settings.ledger_retention)

    @cached_property
    def registry(self) -> Registry:
        from pipeline.registry.mongodb import MongoRegistry

        return MongoRegistry(self._database, self._settings.model_registry_collection)

    @cached_property
    def aliases(self) -> AliasStore:
        from pipeline.aliases.mongodb import MongoAliases

        return MongoAliases(self._database)

    @cached_property
    def artifacts(self) -> ArtifactStore:
        from pipeline.artifacts.gridfs import GridFSStore

        settings = self._settings
        if not (settings.minio_endpoint and settings.minio_access_key and settings.minio_secret_key):
            return GridFSStore(self._database)
        from pipeline.artifacts.hybrid import HybridStore
        from pipeline.artifacts.s3 import S3Store

        large = S3Store(
            settings.minio_endpoint,
            settings.minio_access_key.get_secret_value(),
            settings.minio_secret_key.get_secret_value(),
            settings.minio_bucket,
            settings.minio_secure,
        )
        return HybridStore(GridFSStore(self._database), large, settings.artifact_gridfs_limit)

    @cached_property
    def datasets(self) -> DatasetStore:
        from pipeline.datasets.mongodb import OWN_COLLECTIONS, MongoSource

        settings = self._settings
        return MongoSource(
            self._database,
            OWN_COLLECTIONS | {settings.model_registry_collection},
            max_bytes=settings.dataset_cache_bytes,
            read=loader(settings),
            objects=_objects(settings),
        )

    def close(self) -> None:
        self._client.close()


class _OfFiles(Stores):
    """In SQLite and folders in DATA_DIR."""

    def __init__(self, settings: Settings) -> None:
        settings.data_dir.mkdir(parents=True, exist_ok=True)
        self._settings = settings
        self._folder = settings.data_dir

    @cached_property
    def ledger(self) -> Ledger:
        from pipeline.ledger.sqlite import SqliteLedger

        return SqliteLedger(self._folder / "ledger.sqlite", retention_s=self._settings.ledger_retention)

    @cached_property
    def registry(self) -> Registry:
        from pipeline.registry.sqlite import SqliteRegistry

        return SqliteRegistry(self._folder / "registry.sqlite")

    @cached_property
    def aliases(self) -> AliasStore:
        from pipeline.aliases.sqlite import SqliteAliases

        return SqliteAliases(self._folder / "registry.sqlite")

    @cached_property
    def artifacts(self) -> ArtifactStore:
        from pipeline.artifacts.directory import DirectoryStore

        return DirectoryStore(self._folder / "artifacts")

    @cached_property
    def datasets(self) -> DatasetStore:
        from pipeline.datasets.directory import DirectorySource

        return DirectorySource(
            self._folder / "datasets",
            max_bytes=self._settings.dataset_cache_bytes,
            read=loader(self._settings),
            objects=_objects(self._settings),
        )

    def close(self) -> None:
        """There is none."""


def open_stores(settings: Settings, listeners: Sequence[CommandListener] = ()) -> Stores:
    """The stores that the settings name; the embedded ones if MONGODB_URL is not set.

    Raises ValueError, without credentials, if that is not a URL of MongoDB.
    """
    return _OfFiles(settings) if settings.embedded else _OfServers(settings, listeners)


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


def open_cache(settings: Settings, source: DatasetStore, read: Read) -> DatasetCache:
    """The dataset cache of this machine, shared by all its workers."""
    from pipeline.datasets.cache import DatasetCache

    return DatasetCache(settings.dataset_cache_dir, settings.dataset_cache_bytes, source, read=read, fetches=MOST_LOADS)


def open_loaders(settings: Settings) -> Loaders:
    """The loaders of a worker."""
    from consumer.loaders.loaders import Loaders

    count = min(MOST_LOADS, settings.worker_concurrency + 1)
    return Loaders(count, settings.dataset_load_time, settings.max_training_memory)


def loader(settings: Settings) -> Read:
    """Reads datasets for commands and the client, one at a time; its process starts when it is first needed."""
    return _loader(settings.dataset_load_time, settings.max_training_memory).load


@cache
def _loader(max_time_s: float, max_memory_bytes: int) -> Loaders:
    """The loaders of this process, which end with it."""
    from consumer.loaders.loaders import Loaders

    loaders = Loaders(1, max_time_s, max_memory_bytes)
    atexit.register(loaders.stop)
    return loaders


def _objects(settings: Settings) -> S3Objects:
    """Reads datasets that stay in S3: the server of the artifacts, in any bucket."""
    from pipeline.datasets.s3 import S3Objects

    if not (settings.minio_endpoint and settings.minio_access_key and settings.minio_secret_key):
        return S3Objects()
    return S3Objects(
        settings.minio_endpoint,
        settings.minio_access_key.get_secret_value(),
        settings.minio_secret_key.get_secret_value(),
        secure=settings.minio_secure,
    )
