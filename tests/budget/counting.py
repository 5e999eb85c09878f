"""Counts what this process does: function calls, round trips to MongoDB, requests to S3, bytes written.

A function call counts if it is ours, or a library's that we have called. What the clients of MongoDB and S3 and the
modules of threads call by themselves is left out, as it depends on when answers come: their round trips count.
"""

from __future__ import annotations

import concurrent.futures
import gc
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from types import FrameType
from typing import Any
from unittest.mock import patch

import bson
import gridfs
import minio
import pymongo
import urllib3
from pymongo.monitoring import CommandFailedEvent, CommandListener, CommandStartedEvent, CommandSucceededEvent

ROUND_TRIPS = "MongoDB: round trips"
KAFKA_RECORDS = "Kafka: records sent"
KAFKA_BYTES = "Kafka: bytes of keys, values and headers sent"
KAFKA_TRANSACTIONS = "Kafka: transactions"
S3_REQUESTS = "S3: requests"
WRITTEN = "disk: bytes written, without the log"
CALLS = "function calls, with those of the libraries it calls"
OWN_CALLS = "function calls in own code"
FIGURES = (
    *(ROUND_TRIPS, KAFKA_RECORDS, KAFKA_BYTES, KAFKA_TRANSACTIONS, S3_REQUESTS, WRITTEN),
    *(f"{part}: {figure}" for part in ("worker", "trainer") for figure in (CALLS, OWN_CALLS)),
)

ROOT = Path(__file__).parents[2]
OURS = tuple(f"{ROOT / package}/" for package in ("consumer", "pipeline", "schemas", "tensorfleet"))
_CLIENTS = (bson, gridfs, minio, pymongo, urllib3, concurrent.futures)
LEFT_OUT = (f"{ROOT / 'tests'}/", *(str(Path(str(one.__file__)).parent) for one in _CLIENTS), str(threading.__file__))


@contextmanager
def calls(counts: Counter[str], of: str, files: Counter[str]) -> Iterator[None]:
    """Count the function calls of this thread, and of threads that it starts, as those `of` a part; in `files` by file.

    A generator counts each time that it goes on. Garbage is not collected meanwhile: when it is depends on what was
    done before.
    """

    def told(frame: FrameType, event: str, _: object) -> None:
        if event == "call" and _is_counted(frame):
            counts[f"{of}: {CALLS}"] += 1
            counts[f"{of}: {OWN_CALLS}"] += bool(_is_ours(frame.f_code.co_filename))
            files[frame.f_code.co_filename] += 1

    gc.disable()
    threading.setprofile(told)
    sys.setprofile(told)
    try:
        yield
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
        gc.enable()


def _is_counted(frame: FrameType | None) -> bool:
    """Whether the innermost function that is ours or left out is ours."""
    while frame is not None:
        if (ours := _is_ours(frame.f_code.co_filename)) is not None:
            return ours
        frame = frame.f_back
    return False


@cache
def _is_ours(file: str) -> bool | None:
    """Whether the file is ours or, False, left out; None for all other libraries."""
    return True if file.startswith(OURS) else False if file.startswith(LEFT_OUT) else None


class RoundTrips(CommandListener):
    """Counts the commands of all clients of MongoDB that are made after `pymongo.monitoring.register` has it."""

    def __init__(self, counts: Counter[str]) -> None:
        self._counts = counts

    def started(self, _: CommandStartedEvent) -> None:
        self._counts[ROUND_TRIPS] += 1

    def succeeded(self, _: CommandSucceededEvent) -> None:
        pass

    def failed(self, _: CommandFailedEvent) -> None:
        pass


@contextmanager
def s3_requests(counts: Counter[str]) -> Iterator[None]:
    """Count the requests over HTTP; only S3 is asked this way."""
    send = urllib3.PoolManager.urlopen

    def counted(*args: Any, **kwargs: Any) -> Any:
        counts[S3_REQUESTS] += 1
        return send(*args, **kwargs)

    with patch.object(urllib3.PoolManager, "urlopen", counted):
        yield


def bytes_written() -> int:
    """All that this process has given to write(2): files, and 8 bytes for each message to a worker's inbox."""
    lines = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return int(lines["wchar"])
