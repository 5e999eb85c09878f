"""What commands work with: settings, the client, the stores.  Imported at use, since `--help` needs none of it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow as pa

    from consumer.cli.values import ModelReference
    from consumer.client import Client
    from consumer.settings import Settings
    from consumer.stores import Stores
    from pipeline.jobs import RegisteredModel
    from pipeline.model_file import LoadedModel

TIMEOUT_S = 10.0
"""How long a service may take to answer a command."""


def kafka_settings() -> Settings:
    """Settings that name a Kafka, the one of a running `tensorfleet dev` included."""
    from consumer.embedded import resolve

    return resolve(any_settings())


def store_settings() -> Settings:
    """Settings that name stores, those that a `tensorfleet dev` has left included."""
    from consumer.embedded import find, resolve
    from consumer.stores import check_named

    settings = any_settings()
    if not settings.kafka_bootstrap_servers and find(settings.data_dir):
        return resolve(settings)
    check_named(settings)
    return settings


def worker_settings() -> Settings:
    """Settings that a worker can run with."""
    from consumer.embedded import resolve
    from consumer.settings import load_settings

    settings = any_settings()
    return load_settings() if settings.kafka_bootstrap_servers else resolve(settings)


def scope(project: str | None) -> str | None:
    """The project that a command keeps to: the one that is named, else TENSORFLEET_PROJECT; None is all of them."""
    from pipeline.errors import RejectedError
    from pipeline.jobs import NAME

    if project is None:
        return any_settings().tensorfleet_project
    if not NAME.fullmatch(project):
        raise RejectedError(f"--project takes 1 to 128 of the characters A-Z a-z 0-9 . _ -, not {project!r}")
    return project


def client(settings: Settings | None = None, project: str | None = None) -> Client:
    from consumer.client import Client

    return Client(settings or kafka_settings(), timeout_s=TIMEOUT_S, project=project)


def stores(settings: Settings | None = None) -> Stores:
    """The stores; the embedded ones are made if they are not there.  Raises TransientError if they do not answer."""
    from consumer.stores import open_stores

    settings = settings or store_settings()
    opened = open_stores(settings)
    if not settings.embedded:
        opened.ledger.read(("",))  # lists and uploads may take long, so they would wait long for a server that is away
    else:
        opened.prepare()
    return opened


def find_model(stores: Stores, reference: ModelReference) -> RegisteredModel:
    """The version that a reference means.  Raises NotFoundError with what there is."""
    from pipeline.errors import NotFoundError

    version_number = reference.version_number
    if reference.alias is not None:
        alias = stores.aliases.get(reference.project, reference.model_name, reference.alias)
        if alias is None or alias.version_number is None:
            known = stores.aliases.list(project=reference.project, model_name=reference.model_name)
            names = ", ".join(one.alias for one in known if one.version_number is not None) or "none"
            raise NotFoundError(f"{reference.model_name} has no alias {reference.alias}; there is {names}")
        version_number = alias.version_number
    return stores.registry.get(reference.project, reference.model_name, version_number)


@contextmanager
def loaded(stores: Stores, registered: RegisteredModel) -> Iterator[LoadedModel]:
    """Its model file, fetched, checked and read."""
    from pipeline import model_file

    with TemporaryDirectory(prefix="tensorfleet-") as folder:
        file = Path(folder, "model.zip")
        stores.artifacts.fetch(registered.model.artifact_uri, file)
        yield model_file.load(file, registered.model.artifact_sha256)


def table_of(name: str, file: str) -> pa.Table:
    """The rows of a file that somebody names, `-` for standard input, as the dataset of this name; read by a loader.

    Raises RejectedError that says what is wrong with it.
    """
    from consumer.cli.values import content_of
    from consumer.stores import loader
    from pipeline.datasets import Fetched, reading

    with TemporaryDirectory(prefix="tensorfleet-") as folder:
        path = Path(file).absolute()
        if file == "-" or not path.is_file() or not os.access(path, os.R_OK):
            path = Path(folder, "input")
            path.write_bytes(content_of(file))
        fetched = Fetched(name, path, "" if file == "-" else file, target_column=None, revision="")
        return reading.table_from(fetched, loader(any_settings()), max_bytes=None)


def any_settings() -> Settings:
    import logging

    from consumer.settings import load_settings

    logging.basicConfig(level=logging.ERROR, format="%(message)s")
    return load_settings(needs=())
