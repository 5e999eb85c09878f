"""What commands work with: settings, the client, the stores.  Imported at use, since `--help` needs none of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from consumer.client import Client
    from consumer.settings import Settings
    from consumer.stores import Stores

TIMEOUT_S = 10.0
"""How long a service may take to answer a command."""

NO_STORES = (
    "MONGODB_URL is not set; it takes mongodb://… or mongodb+srv://…, "
    "or run `tensorfleet dev`, whose stores lie in DATA_DIR"
)


def kafka_settings() -> Settings:
    """Settings that name a Kafka, the one of a running `tensorfleet dev` included."""
    from consumer.embedded import resolve

    return resolve(any_settings())


def store_settings() -> Settings:
    """Settings that name stores, those that a `tensorfleet dev` has left included."""
    from consumer.embedded import find, resolve
    from consumer.settings import SettingsError

    settings = any_settings()
    if not settings.kafka_bootstrap_servers and find(settings.data_dir):
        return resolve(settings)
    if not settings.mongodb_url.get_secret_value() and not settings.data_dir.is_dir():
        raise SettingsError(NO_STORES)
    return settings


def worker_settings() -> Settings:
    """Settings that a worker can run with."""
    from consumer.embedded import resolve
    from consumer.settings import load_settings

    settings = any_settings()
    return load_settings() if settings.kafka_bootstrap_servers else resolve(settings)


def client(settings: Settings | None = None) -> Client:
    from consumer.client import Client

    return Client(settings or kafka_settings(), timeout_s=TIMEOUT_S)


def stores(settings: Settings | None = None) -> Stores:
    """The stores; the embedded ones are made if they are not there.  Raises TransientError if they do not answer."""
    from consumer.stores import open_stores

    settings = settings or store_settings()
    opened = open_stores(settings)
    if settings.mongodb_url.get_secret_value():
        opened.ledger.read(("",))  # lists and uploads may take long, so they would wait long for a server that is away
    else:
        opened.prepare()
    return opened


def any_settings() -> Settings:
    import logging

    from consumer.settings import load_settings

    logging.basicConfig(level=logging.ERROR, format="%(message)s")
    return load_settings(needs=())
