"""MongoDB as the worker uses it: durable writes, majority reads, time limits, classified errors."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC
from typing import Any, TypeVar

import pymongo
from bson.codec_options import CodecOptions
from bson.dbref import DBRef
from pymongo import MongoClient, ReadPreference, WriteConcern
from pymongo.collection import Collection
from pymongo.database import Database
from pymongo.errors import BulkWriteError, ConnectionFailure, DuplicateKeyError, OperationFailure, PyMongoError
from pymongo.monitoring import CommandListener
from pymongo.read_concern import ReadConcern

from pipeline.errors import AccessDeniedError, TransientError

Document = dict[str, Any]
Answer = TypeVar("Answer")

DUPLICATE_KEY = 11000
TRANSIENT_CODES = frozenset(
    {
        *(6, 7, 89, 9001),  # host unreachable or unknown, network timeout, socket error
        *(91, 189, 10058, 10107, 11600, 11602, 13435, 13436),  # shutting down, stepping down, not primary
        *(24, 46, 112, 262),  # locks, conflicting writes
        *(43, 50, 136, 175, 237, 290),  # a cursor or operation that was interrupted
        *(64, 79, 100, 133, 134),  # write or read concern that cannot be satisfied at present
        *(14031, 365),  # no space left
    }
)


INDEXING_S = 3_600.0
NOT_AUTHORIZED = 13
ACCESS_CODES = frozenset({NOT_AUTHORIZED, 18})
"""Not authorized; authentication failed."""


def connect(
    url: str,
    *,
    app: str = "tensorfleet",
    timeout_s: float = 5.0,
    selection_timeout_s: float = 3.0,
    listeners: Sequence[CommandListener] = (),
) -> MongoClient[Document]:
    """A client whose operations, including the driver's retries, each end within `timeout_s` unless they ask for more.

    Nothing is sent yet.  The URL decides on the driver's retries (on by default); the driver makes none if the server
    has no sessions.  Raises ValueError, without credentials, if this is not a URL of MongoDB.
    """
    try:
        return MongoClient(
            url,
            appname=app,
            tz_aware=True,
            tzinfo=UTC,
            w="majority",
            journal=True,
            readConcernLevel="majority",
            timeoutMS=round(timeout_s * 1000),
            connectTimeoutMS=round(selection_timeout_s * 1000),
            serverSelectionTimeoutMS=round(selection_timeout_s * 1000),
            event_listeners=list(listeners),
        )
    except (PyMongoError, ValueError) as error:
        raise ValueError(f"not a MongoDB URL: {_without_credentials(str(error), url)}") from None


def durable(database: Database[Document]) -> Database[Document]:
    """The database with majority-written, journalled writes, majority reads and aware datetimes in UTC."""
    return database.with_options(
        codec_options=CodecOptions(tz_aware=True, tzinfo=UTC),
        read_preference=ReadPreference.PRIMARY,
        write_concern=WriteConcern("majority", j=True),
        read_concern=ReadConcern("majority"),
    )


@contextmanager
def transient(doing: str) -> Iterator[None]:
    """Turn errors that may pass with time into TransientError, and wrong access rights into AccessDeniedError.

    Other errors, such as duplicate keys and bugs, pass through.  Also a decorator.
    """
    try:
        yield
    except PyMongoError as error:
        if isinstance(error, OperationFailure) and error.code in ACCESS_CODES:
            raise AccessDeniedError("mongodb", f"{doing}: {_short(error)}") from error
        if not waiting_helps(error):
            raise
        raise TransientError("mongodb", f"{doing}: {type(error).__name__}: {_short(error)}") from error


def create_index(collection: Collection[Document], keys: Any, **options: Any) -> None:
    """Create the index unless it exists; on a large collection this takes minutes, and up to INDEXING_S.

    The server drops a half-built index when its client gives up, so that no number of short attempts would build it.
    """
    collection.database.command("ping")  # fails fast: a client looks for a server as long as a call may take
    with pymongo.timeout(INDEXING_S):
        collection.create_index(keys, **options)


def insert_new(collection: Collection[Document], documents: Sequence[Document]) -> frozenset[int]:
    """Insert in one unordered call; return the positions of documents whose unique key exists already.

    Raises TransientError after any other error: which documents were written is then unknown, and the caller reads
    back.
    """
    try:
        collection.insert_many(documents, ordered=False)
    except BulkWriteError as error:
        refused: Sequence[Mapping[str, Any]] = error.details["writeErrors"]
        others = [e for e in (*refused, *error.details["writeConcernErrors"]) if e.get("code") != DUPLICATE_KEY]
        if others:
            why = f"{others[0].get('code')}: {str(others[0].get('errmsg'))[:300]}"
            raise TransientError("mongodb", f"{len(others)} inserts into {collection.name} failed: {why}") from error
        return frozenset(e["index"] for e in refused)
    return frozenset()


def upserted(write: Callable[[], Answer]) -> Answer:
    """Run an upsert, twice if another writer inserted the document between its query and its insert.

    A DuplicateKeyError from it then means that the document exists and the query excludes it.
    """
    try:
        return write()
    except DuplicateKeyError:
        return write()


def plain(document: Mapping[str, Any]) -> Document:
    """The document with dicts only; the driver reads a dict with the keys `$ref` and `$id` as a DBRef."""
    return {key: value.as_doc() if isinstance(value, DBRef) else value for key, value in document.items()}


def waiting_helps(error: PyMongoError) -> bool:
    """Whether the same call may succeed later."""
    if isinstance(error, ConnectionFailure) or error.timeout:
        return True
    if isinstance(error, BulkWriteError):
        failed = (*error.details["writeErrors"], *error.details["writeConcernErrors"])
        return any(e.get("code") in TRANSIENT_CODES for e in failed)
    return isinstance(error, OperationFailure) and (
        error.code in TRANSIENT_CODES or error.has_error_label("RetryableWriteError")
    )


def _short(error: PyMongoError) -> str:
    return str(error).partition(" (configured timeouts:")[0].partition(", Timeout: ")[0][:300]


def _without_credentials(message: str, url: str) -> str:
    """The message with *** in place of the URL's user and password."""
    secret, at, _ = url.partition("://")[2].rpartition("@")
    if not at:
        return message
    for part in sorted(filter(None, {secret, *re.split(r"[:@/]", secret)}), key=len, reverse=True):
        message = message.replace(part, "***")
    return message
