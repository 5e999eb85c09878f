"""Opens what commands use: settings, client, stores.  Imports them late, as `--help` needs none."""

from __future__ import annotations

import os
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from consumer.client import Client
    from consumer.settings import Settings
    from consumer.stores import Stores
    from pipeline.datasets import Loaded
    from pipeline.jobs import RegisteredModel
    from pipeline.reading.options import ReadOptions

TIMEOUT_S = 10.0
"""How long a service may take to answer a command."""


def kafka_settings() -> Settings:
    """Settings that name a Kafka, which may be that of a running `tensorfleet dev`."""
    from consumer.embedded import resolve

    return resolve(any_settings())


def worker_settings() -> Settings:
    """Settings that a worker can run with."""
    from consumer.embedded import resolve
    from consumer.settings import load_settings

    settings = any_settings()
    return load_settings() if settings.kafka_bootstrap_servers else resolve(settings)


def scope(project: str | None) -> str | None:
    """The project that a command is limited to: the one named, else TENSORFLEET_PROJECT; None means all."""
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
    """The stores that the settings name, or those of a `tensorfleet dev`; see `open_ready`."""
    from consumer.embedded import with_stores
    from consumer.stores import open_ready

    return open_ready(settings or with_stores(any_settings()))


def registered(model: str, project: str | None) -> tuple[Stores, RegisteredModel]:
    """The stores, and the version that `NAME`, `NAME@v3` or `NAME@alias` refers to.

    Raises NotFoundError, which lists what exists.
    """
    from pipeline.lifecycle.references import find_model, model_reference

    reference = model_reference(model, scope(project))
    opened = stores()
    return opened, find_model(opened.registry, opened.aliases, reference)


def loaded(name: str, file: str, options: ReadOptions) -> Loaded:
    """A file (`-`: standard input), read by a loader as a dataset of this name.

    Raises RejectedError, which says what is wrong with the file.
    """
    from consumer.cli.values import content_of
    from consumer.stores import loader
    from pipeline.datasets import Fetched, reading

    with TemporaryDirectory(prefix="tensorfleet-") as folder:
        path = Path(file).absolute()
        if file == "-" or not path.is_file() or not os.access(path, os.R_OK):
            path = Path(folder, "input")
            path.write_bytes(content_of(file))
        fetched = Fetched(name, path, "" if file == "-" else file, target_column=None, revision="", options=options)
        return reading.loaded(fetched, loader(any_settings()), max_bytes=None)


def any_settings() -> Settings:
    import logging

    from consumer.settings import load_settings

    logging.basicConfig(level=logging.ERROR, format="%(message)s")
    return load_settings(needs=())
