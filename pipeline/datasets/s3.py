"""Datasets that stay in S3: lists and fetches the Parquet objects that a url names."""

from __future__ import annotations

import hashlib
import re
import tarfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Any, Self
from xml.etree.ElementTree import ParseError

from minio import Minio
from minio.error import S3Error

from pipeline.databases.s3 import connect, transient
from pipeline.datasets import Fetched
from pipeline.datasets.sink import Sink
from pipeline.errors import RejectedError, TransientError
from pipeline.reading.options import NOTHING_SAID, ReadOptions
from pipeline.reading.tables import about

SERVICE = "dataset bucket"
SCHEME = "s3://"
SUFFIX = ".parquet"
BUCKET = re.compile(r"(?!\d+\.\d+\.\d+\.\d+$)(?=.{3,63}$)[a-z0-9]+(-+[a-z0-9]+)*(\.[a-z0-9]+(-+[a-z0-9]+)*)*")
LONGEST_KEY_BYTES = 1_024
MOST_OBJECTS = 10_000
"""Most objects below a prefix, Parquet or not: each job lists them, a thousand a call."""
TRIES = 2
"""How often objects that change while they are fetched are fetched."""
READ_TIMEOUT_S = 10.0
CONNECTIONS = 4
PIECE_BYTES = 256 * 1024
PACE_BYTES = 1024 * 1024
PACE_S = 60.0
"""A store that takes longer for PACE_BYTES does not answer."""
REFUSALS = {
    "NoSuchBucket": "there is no such bucket; create it, or import the dataset from another one",
    "NoSuchKey": "there is no such object; store it again, or import the dataset from another url",
    "AccessDenied": "the workers' MINIO_ACCESS_KEY may not read it; it needs s3:GetBucketLocation, s3:ListBucket "
    "and s3:GetObject there",
    "InvalidObjectState": "it is archived; restore it, or import the dataset from another url",
}


@dataclass(frozen=True, slots=True)
class Pointer:
    """A dataset that stays in S3: where, and what was told about it."""

    url: str
    target_column: str | None
    options: ReadOptions = NOTHING_SAID

    @classmethod
    def of(cls, description: Mapping[str, Any]) -> Self:
        """As it is stored."""
        options = ReadOptions.from_document(description.get("options") or {})
        return cls(description["s3_url"], description.get("target_column"), options)


class S3Objects:
    """Reads from one S3 server, in any bucket that the credentials may read; thread-safe.

    Without an endpoint there is no server: every call raises RejectedError, which names the settings.
    """

    def __init__(self, endpoint: str = "", access_key: str = "", secret_key: str = "", *, secure: bool = False) -> None:
        self._endpoint = endpoint
        self._server: Minio | None = None
        if endpoint:
            self._server = connect(
                endpoint,
                access_key,
                secret_key,
                secure=secure,
                read_timeout_s=READ_TIMEOUT_S,
                connections=CONNECTIONS,
            )

    def revision(self, name: str, pointer: Pointer) -> str:
        """A hash of the pointer, and the keys, etags and sizes of the objects as they are now."""
        with about(name):
            return self._revision(pointer, self._found(pointer.url))

    def fetch(self, name: str, pointer: Pointer, sink: Sink) -> Fetched:
        """Write the objects to the sink, as a tar archive in the order of their keys.

        Raises RejectedError if the url is wrong, nothing is there, it may not be read, or it changes while it is
        fetched; TransientError if the server does not answer, or too slowly; and what the sink raises.
        """
        url = pointer.url
        with about(name):
            for _ in range(TRIES):
                found = self._found(url)
                sink.begin(sum(one.size_bytes for one in found))
                if all(self._archived(url, one, sink) for one in found):
                    revision = self._revision(pointer, found)
                    target, options = pointer.target_column, pointer.options
                    return Fetched(name, sink.path, url, target, revision, options=options, is_archive=True)
            raise RejectedError(f"{url} changes while it is read; send the request once it is written")

    def _revision(self, pointer: Pointer, found: Sequence[_Object]) -> str:
        objects = [(one.key, one.etag, one.size_bytes) for one in found]
        told = pointer.options.to_document()
        return hashlib.sha256(
            repr((self._endpoint, pointer.url, pointer.target_column, told, objects)).encode()
        ).hexdigest()

    def _found(self, url: str) -> Sequence[_Object]:
        """The objects, in the order of their keys."""
        bucket, key = parsed(url)
        with self._reading(url) as server:
            if key.endswith(SUFFIX):
                return [_object(server.stat_object(bucket, key))]
            listed = server.list_objects(bucket, prefix=key, recursive=True)
            below = [_object(one) for one in islice(listed, MOST_OBJECTS + 1)]
        if len(below) > MOST_OBJECTS:
            raise RejectedError(
                f"there are more than {MOST_OBJECTS:,} objects below {url}: give the Parquet a prefix of its own, and "
                "write few and large files"
            )
        found = [one for one in below if one.key.endswith(SUFFIX)]
        if not found:
            raise RejectedError(f"there is no object {url}*{SUFFIX}; store it, or import the dataset from another url")
        return sorted(found, key=lambda one: one.key)

    def _archived(self, url: str, one: _Object, sink: Sink) -> bool:
        """Write one object to the sink; False if it is not the one that was found any more."""
        header = tarfile.TarInfo(one.key)
        header.size = one.size_bytes
        sink.write(header.tobuf(tarfile.PAX_FORMAT))
        with self._reading(url) as server:
            try:
                response = server.get_object(parsed(url)[0], one.key)
            except S3Error as error:
                if error.code == "NoSuchKey":
                    return False
                raise
            try:
                if _etag(response.headers.get("etag")) != one.etag:
                    return False
                for piece in _pieces(response, one.size_bytes):
                    sink.write(piece)
            finally:
                response.close()
                response.release_conn()
        sink.write(bytes(-one.size_bytes % tarfile.BLOCKSIZE))
        return True

    @contextmanager
    def _reading(self, url: str) -> Iterator[Minio]:
        """The server, whose errors are classified."""
        if self._server is None:
            raise RejectedError(
                f"{url} is in S3, which is not set up here: set MINIO_ENDPOINT, MINIO_ACCESS_KEY and MINIO_SECRET_KEY"
            )
        doing = f"reading {url} at {self._endpoint}"
        with transient(SERVICE, doing):
            try:
                yield self._server
            except S3Error as error:
                if error.code in REFUSALS:
                    raise RejectedError(f"{url} cannot be read: {REFUSALS[error.code]}") from error
                raise
            except (ParseError, ValueError) as error:  # of XML; minio-py passes them on
                raise TransientError(SERVICE, f"{doing}: the answer is not that of S3") from error


@dataclass(frozen=True, slots=True)
class _Object:
    key: str
    etag: str
    size_bytes: int


def parsed(url: str) -> tuple[str, str]:
    """The bucket, and the key of one object or the prefix of many.  Raises RejectedError if the url is neither."""
    bucket, _, key = url.removeprefix(SCHEME).partition("/")
    is_key = key.isprintable() and len(key.encode(errors="replace")) <= LONGEST_KEY_BYTES
    names_objects = key.endswith(SUFFIX) or url.endswith("/")
    if (
        not url.startswith(SCHEME)
        or not BUCKET.fullmatch(bucket)
        or not (is_key and names_objects)
        or {".", ".."} & set(key.split("/"))
    ):
        raise RejectedError(
            f"{url[:200]!r} names no Parquet in S3: write s3://BUCKET/KEY{SUFFIX} for one object, or "
            f"s3://BUCKET/PREFIX/, with a slash at its end, for all objects *{SUFFIX} below it"
        )
    return bucket, key


def is_url(value: Any) -> bool:
    """Whether this value, which anybody may have written, names Parquet in S3."""
    try:
        return isinstance(value, str) and bool(parsed(value))
    except RejectedError:
        return False


def _object(listed: Any) -> _Object:
    return _Object(str(listed.object_name), _etag(listed.etag), int(listed.size or 0))


def _etag(text: str | None) -> str:
    return (text or "").strip('"')


def _pieces(response: Any, size_bytes: int) -> Iterator[bytes]:
    """The bytes of an object as they come.  Raises TransientError if they come too slowly, or not all of them."""
    left, paced_bytes, since = size_bytes, 0, time.monotonic()
    while piece := response.read1(PIECE_BYTES, decode_content=False):
        yield piece
        left -= len(piece)
        paced_bytes += len(piece)
        if paced_bytes >= PACE_BYTES:
            paced_bytes, since = 0, time.monotonic()
        elif time.monotonic() - since > PACE_S:
            raise TransientError(SERVICE, f"sends less than {PACE_BYTES:,} bytes in {PACE_S:g} s")
    if left:
        raise TransientError(SERVICE, f"sent {size_bytes - left:,} of the {size_bytes:,} bytes of an object")
