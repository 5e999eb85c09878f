"""S3 as the stores use it: a client with time limits, and classified errors."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import urllib3
from minio import Minio
from minio.error import MinioException, S3Error
from urllib3.exceptions import HTTPError

from pipeline.errors import TransientError

CONNECT_TIMEOUT_S = 3.0


def connect(
    endpoint: str,
    access_key: str,
    secret_key: str,
    *,
    secure: bool,
    region: str | None = None,
    read_timeout_s: float,
    connections: int,
) -> Minio:
    """A client that does not call the server yet; thread-safe.

    A silent server costs at most two attempts; the caller decides whether to wait longer.
    """
    return Minio(
        endpoint,
        access_key=access_key,
        secret_key=secret_key,
        secure=secure,
        region=region,
        http_client=urllib3.PoolManager(
            maxsize=connections,
            timeout=urllib3.Timeout(connect=CONNECT_TIMEOUT_S, read=read_timeout_s),
            retries=urllib3.Retry(total=1, backoff_factor=0.1),  # for a kept connection that the server has closed
        ),
    )


@contextmanager
def transient(service: str, doing: str) -> Iterator[None]:
    """Turn errors into TransientError with their code only, since messages may quote headers and keys."""
    try:
        yield
    except S3Error as error:
        raise TransientError(service, f"{doing}: {error.code}") from error
    except (MinioException, HTTPError) as error:
        raise TransientError(service, f"{doing}: {type(error).__name__}") from error
