"""Runs in a loader: reads files of bytes one at a time, and reports how each went.

It receives datagrams of JSON, one per load: `{"name", "path", "file_name", "is_typed", "is_archive",
"options", "into", "max_bytes", "max_memory_bytes"}`.
It sends `{"ready": private bytes}` once, then for each load any number of `{"log": text}` and one of `{"read": …}`,
`{"rejected": message}`, `{"full": errno}` (the disk) and `{"memory": true}`, with `"private_bytes"` and `"last"`:
whether this process is to be replaced.
"""

from __future__ import annotations

import faulthandler
import json
import logging
import os
import resource
import signal
import socket
import sys
import threading
from dataclasses import asdict
from importlib.abc import MetaPathFinder
from pathlib import Path
from typing import Any

import pyarrow as pa

from consumer.system.processes import adopt_orphans, die_with_parent, has_children, memory_limit, private_bytes
from pipeline.datasets import Fetched, reading
from pipeline.errors import RejectedError
from pipeline.reading.options import ReadOptions

NICENESS = 10
"""Gives trainings and the worker's own threads priority."""
MESSAGE_LIMIT = 4_000
"""The most characters of a message or stack: enough to read, and always fits a datagram."""
DATAGRAM_BYTES = 65_536
SLACK_BYTES = 1280 * 2**20
"""Added to the address space limit, as Arrow reserves a GiB at a time, and every thread a stack. The limit stops single
large allocations; the parent watches the memory in use."""


def forgo_pandas() -> None:
    """Keep Arrow from importing pandas, as it does at its first array: 0.15 s of CPU and 30 MB for types that no file
    holds.
    """
    sys.meta_path.insert(0, _NoPandas())


class _NoPandas(MetaPathFinder):
    def find_spec(self, fullname: str, path: object = None, target: object = None) -> None:
        if fullname == "pandas":
            raise ModuleNotFoundError("loaders do without it", name=fullname)


def main() -> None:
    """Read files until the parent closes its end.  argv[1] is the descriptor of our end, argv[2] the parent's pid."""
    die_with_parent()
    if os.getppid() != int(sys.argv[2]):  # the parent died before die_with_parent took effect
        return
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    adopt_orphans()
    os.nice(NICENESS)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    faulthandler.enable()
    forgo_pandas()
    pa.set_cpu_count(1)
    pa.set_io_thread_count(1)
    control = socket.socket(fileno=int(sys.argv[1]))
    logging.basicConfig(handlers=[_Telling(control)], level=logging.WARNING, force=True)
    logging.captureWarnings(True)
    _send(control, ready=private_bytes(os.getpid()))
    last = False
    while not last and (job := control.recv(DATAGRAM_BYTES)):
        threads = threading.active_count()
        answer = _read(json.loads(job))
        pa.default_memory_pool().release_unused()
        last = "memory" in answer or has_children() or threading.active_count() > threads
        _send(control, **answer, private_bytes=private_bytes(os.getpid()), last=last)


def _read(job: dict[str, Any]) -> dict[str, Any]:
    fetched = Fetched(
        job["name"],
        Path(job["path"]),
        job["file_name"],
        target_column=None,
        revision="",
        is_typed=job["is_typed"],
        is_archive=job["is_archive"],
        options=ReadOptions.from_document(job["options"]),
    )
    try:
        with memory_limit(_data_bytes() + job["max_memory_bytes"] + SLACK_BYTES):
            content = reading.read(fetched, Path(job["into"]), job["max_bytes"])
    except RejectedError as error:
        return {"rejected": str(error)[:MESSAGE_LIMIT]}
    except MemoryError:
        return {"memory": True}
    except OSError as error:
        return {"full": error.errno}
    return {"read": asdict(content)}


def _data_bytes() -> int:
    """This process's memory as RLIMIT_DATA counts it."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmData:"):
            return int(line.split()[1]) * 1024
    return 0


class _Telling(logging.Handler):
    """Sends log records to the parent."""

    def __init__(self, control: socket.socket) -> None:
        super().__init__()
        self._control = control

    def emit(self, record: logging.LogRecord) -> None:
        _send(self._control, log=self.format(record)[-MESSAGE_LIMIT:])


def _send(control: socket.socket, **message: object) -> None:
    try:
        control.send(json.dumps(message).encode())
    except (BrokenPipeError, ConnectionResetError):
        sys.exit(0)


if __name__ == "__main__":
    main()
