"""What runs in a trainer: take a job, train it, say how it went; for as long as the worker lives."""

from __future__ import annotations

import logging
import os
import resource
import signal
import socket
import sys
import time
from pathlib import Path
from typing import Any

import orjson

from consumer.processes import die_with_parent
from consumer.trainers.protocol import JOB_LIMIT_BYTES, Work
from pipeline import training
from pipeline.deep import frameworks
from pipeline.errors import RejectedError, TrainingFailed
from pipeline.jobs import ErrorKind

MESSAGE_LIMIT = 4_000
"""Characters of an error or log message: enough to read, and it always fits a datagram."""
EXIT_OUT_OF_MEMORY = 71


def warm_up(framework: str) -> None:
    """Before the first fork: nothing but imports, since an operation could start threads that a fork loses."""
    for name in ("pipeline.preparation", "pipeline.evaluation", "pipeline.model_file", "sklearn.ensemble"):
        __import__(name)
    frameworks.warm_up(framework)


def run(inbox: socket.socket, outbox: socket.socket, gpu: str) -> int:
    """Train until the inbox closes; returns the exit code.  `gpu` is the one to be seen, or none."""
    os.environ["CUDA_VISIBLE_DEVICES"] = gpu
    os.setsid()
    die_with_parent()
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    reporter = Reporter(outbox)
    logging.basicConfig(handlers=[reporter], level=logging.WARNING, force=True)
    logging.captureWarnings(True)
    while job := inbox.recv(JOB_LIMIT_BYTES):
        if not _train(orjson.loads(job), reporter):
            return EXIT_OUT_OF_MEMORY
    return 0


def _train(job: dict[str, Any], reporter: Reporter) -> bool:
    """Train one job; False if this process had better be replaced."""
    reporter.take(job["id"])
    try:
        request, dataset, spool, max_memory_bytes, dask_scheduler = Work.from_message(job)
        spool.mkdir(parents=True, exist_ok=True)
        with _memory_limit(max_memory_bytes):
            trained = training.train(request, dataset, spool, reporter.progress, dask_scheduler)
        (spool / "result.json").write_bytes(trained.to_json())
    except RejectedError as error:
        reporter.send(rejected=job["id"], message=str(error)[:MESSAGE_LIMIT])
    except MemoryError as error:
        reporter.send(failed=job["id"], kind=ErrorKind.OUT_OF_MEMORY, message=_out_of_memory(job, error))
        return False
    except TrainingFailed as error:
        reporter.send(failed=job["id"], kind=ErrorKind.TRAINING_ERROR, message=str(error)[:MESSAGE_LIMIT])
    except Exception as error:  # noqa: BLE001 - whatever a library raises is the job's end, not the lane's
        message = f"{type(error).__name__}: {error}"[:MESSAGE_LIMIT]
        reporter.send(failed=job["id"], kind=ErrorKind.TRAINING_ERROR, message=message)
    else:
        reporter.send(trained=job["id"], **_usage())
    return True


class _memory_limit:  # noqa: N801 - reads as a statement
    """RLIMIT_DATA around one training: an allocation beyond it is a MemoryError, at once and without a kill."""

    def __init__(self, limit_bytes: int | None) -> None:
        self._limit_bytes = limit_bytes

    def __enter__(self) -> None:
        if self._limit_bytes is not None:
            resource.setrlimit(resource.RLIMIT_DATA, (self._limit_bytes, resource.RLIM_INFINITY))

    def __exit__(self, *_: object) -> None:
        if self._limit_bytes is not None:
            resource.setrlimit(resource.RLIMIT_DATA, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


def _out_of_memory(job: dict[str, Any], error: MemoryError) -> str:
    limit = job["max_memory_bytes"]
    bound = f"the training needs more than its memory limit of {limit / 2**20:,.0f} MiB" if limit else "out of memory"
    detail = str(error)[:500]
    return f"{bound} (max_memory_bytes){': ' + detail if detail else ''}"


def _usage() -> dict[str, float | int]:
    """CPU seconds of this process so far, and its resident bytes now."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    with Path("/proc/self/statm").open("rb") as statm:
        pages = int(statm.read().split()[1])
    return {"cpu_s": used.ru_utime + used.ru_stime, "rss_bytes": pages * resource.getpagesize()}


class Reporter(logging.Handler):
    """Sends datagrams to the worker; a message that repeats a stage is sent once a second at most."""

    def __init__(self, outbox: socket.socket) -> None:
        super().__init__()
        self._outbox = outbox
        self._job = ""
        self._stage = ""
        self._said_at = 0.0

    def take(self, job_id: str) -> None:
        self._job, self._stage = job_id, ""
        self.send(taken=job_id)

    def progress(self, stage: training.Stage, fraction: float | None, message: str) -> None:
        now = time.monotonic()
        if stage == self._stage and now - self._said_at < 1.0:
            return
        self._stage, self._said_at = stage, now
        self.send(progress=self._job, stage=stage, fraction=fraction, message=message[:MESSAGE_LIMIT], **_usage())

    def emit(self, record: logging.LogRecord) -> None:
        self.send(log=self._job, level=record.levelname.lower(), message=self.format(record)[:MESSAGE_LIMIT])

    def send(self, **message: object) -> None:
        try:
            self._outbox.send(orjson.dumps(message))
        except (BrokenPipeError, ConnectionResetError):
            sys.exit(0)
