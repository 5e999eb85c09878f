"""Runs in a trainer: takes jobs, trains them, and reports how each went, until the worker closes the inbox."""

from __future__ import annotations

import logging
import os
import resource
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson

from consumer import failpoints
from consumer.system.processes import adopt_orphans, die_with_parent, has_children, memory_limit
from consumer.trainers.protocol import JOB_LIMIT_BYTES, RESULT, RESULT_LIMIT_BYTES, Work
from pipeline.algorithms.classifiers import CLASSIFIERS
from pipeline.algorithms.regressors import REGRESSORS
from pipeline.datasets.cache import FULL
from pipeline.deep import frameworks
from pipeline.errors import RejectedError, TrainingFailed, said_by
from pipeline.jobs import ErrorKind
from pipeline.training import training

MESSAGE_LIMIT = 4_000
"""The most characters of an error or log message: enough to read, and always fits a datagram."""
MEASURED_EVERY_S = 0.05
MOST_LEFT_OPEN = 64
"""The most descriptors that trainings may leave open before their trainer is replaced."""


def warm_up(framework: str) -> None:
    """Import the libraries before the first fork, nothing more: operations could start threads, which a fork loses."""
    for name in (
        "pipeline.features.preparation",
        "pipeline.evaluation",
        "pipeline.model_files.model_file",
        "sklearn.datasets",
    ):
        __import__(name)
    for algorithm in (*CLASSIFIERS, *REGRESSORS):
        algorithm.estimator()
    frameworks.warm_up(framework)


def run(inbox: socket.socket, outbox: socket.socket, gpu: str) -> int:
    """Train until the inbox closes; returns the exit code.  `gpu` is the only GPU that it sees, empty for none."""
    os.environ["CUDA_VISIBLE_DEVICES"] = gpu
    os.setsid()
    die_with_parent()
    adopt_orphans()
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    failpoints.arm(os.environ.get(failpoints.VARIABLE, ""))
    reporter = Reporter(outbox)
    logging.basicConfig(handlers=[reporter], level=logging.WARNING, force=True)
    logging.captureWarnings(True)
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    leftovers = Leftovers()
    while job := inbox.recv(JOB_LIMIT_BYTES):
        if not _train(orjson.loads(job), reporter, leftovers):
            break
    return 0


class Leftovers:
    """Finds what trainings have left behind in this process, which could disturb the next one."""

    def __init__(self) -> None:
        self._descriptors = _descriptors()
        self._cpus = os.sched_getaffinity(0)

    def are_many(self) -> bool:
        """Whether this process is to be replaced: it has threads, children, open descriptors, or fewer CPUs left over.

        The worker restricts a training that takes too many CPUs to fewer of them.
        """
        running_on = threading.active_count() > 1 or has_children()
        kept_open = _descriptors() - self._descriptors
        return running_on or kept_open > MOST_LEFT_OPEN or os.sched_getaffinity(0) != self._cpus


def _descriptors() -> int:
    return len([*os.scandir("/proc/self/fd")])


def _train(job: dict[str, Any], reporter: Reporter, leftovers: Leftovers) -> bool:
    """Train one job and report how it went; False if this process is to be replaced."""
    reporter.take(job["id"])
    failpoints.reach("in_trainer")
    report = _how_it_went(job, reporter)
    last = report.get("kind") == ErrorKind.OUT_OF_MEMORY or leftovers.are_many()
    reporter.send(report.pop("result", b""), **report, stages=reporter.stages(), last=last)
    return not last


def _how_it_went(job: dict[str, Any], reporter: Reporter) -> dict[str, Any]:
    """Train; returns the message that reports how it went, and the result."""
    try:
        request, dataset, spool, max_memory_bytes, dask_scheduler = Work.from_message(job)
        spool.mkdir(parents=True, exist_ok=True)
        os.environ["TMPDIR"] = tempfile.tempdir = str(spool)  # temporary files are deleted with it
        with memory_limit(max_memory_bytes):
            trained = training.train(request, dataset, spool, reporter.progress, dask_scheduler)
        result = trained.to_json()
        if len(result) > RESULT_LIMIT_BYTES:
            (spool / RESULT).write_bytes(result)
            result = b""
    except RejectedError as error:
        return {"rejected": job["id"], "message": str(error)[:MESSAGE_LIMIT]}
    except MemoryError as error:
        return {"failed": job["id"], "kind": ErrorKind.OUT_OF_MEMORY, "message": _out_of_memory(job, error)}
    except Exception as error:  # noqa: BLE001 - whatever a library raises ends the job, not the trainer
        said = str(error) if isinstance(error, TrainingFailed) else f"the training stopped: {said_by(error)}"
        if _comes_of_a_full_disk(error):
            return {"full": job["id"], "message": said[:MESSAGE_LIMIT]}
        return {"failed": job["id"], "kind": ErrorKind.TRAINING_ERROR, "message": said[:MESSAGE_LIMIT]}
    return {"trained": job["id"], "result": result, **reporter.usage()}


def _comes_of_a_full_disk(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, OSError) and error.errno in FULL:
            return True
        error = error.__cause__ or error.__context__
    return False


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
    """Sends datagrams to the worker; progress within a stage at most once a second."""

    def __init__(self, outbox: socket.socket) -> None:
        super().__init__()
        self._outbox = outbox
        self._job = ""
        self._stage = ""
        self._stage_at = 0.0
        self._stages: dict[str, float] = {}
        self._said_at = 0.0
        self._measured_at = float("-inf")
        self._usage: Mapping[str, float | int] = {}

    def take(self, job_id: str) -> None:
        self._job, self._stage, self._stages = job_id, "", {}
        self.send(taken=job_id)

    def progress(self, stage: training.Stage, fraction: float | None, message: str) -> None:
        now = time.monotonic()
        if stage == self._stage and now - self._said_at < 1.0:
            return
        self._enter(stage.value, now)
        self._said_at = now
        self.send(progress=self._job, stage=stage, fraction=fraction, message=message[:MESSAGE_LIMIT], **self.usage())

    def stages(self) -> Mapping[str, float]:
        """How long each stage of the job took, in seconds; the last one ends now."""
        self._enter("", time.monotonic())
        return self._stages

    def _enter(self, stage: str, now: float) -> None:
        if stage == self._stage:
            return
        if self._stage:
            self._stages[self._stage] = self._stages.get(self._stage, 0.0) + now - self._stage_at
        self._stage, self._stage_at = stage, now

    def usage(self) -> Mapping[str, float | int]:
        """What `_usage` says, at most MEASURED_EVERY_S old: a training may take less time than a few looks."""
        now = time.monotonic()
        if now - self._measured_at > MEASURED_EVERY_S:
            self._measured_at, self._usage = now, _usage()
        return self._usage

    def emit(self, record: logging.LogRecord) -> None:
        self.send(log=self._job, level=record.levelname.lower(), message=self.format(record)[:MESSAGE_LIMIT])

    def send(self, behind: bytes = b"", /, **message: object) -> None:
        """Send a message, and what stands behind it in its datagram."""
        try:
            self._outbox.send(orjson.dumps(message) + b"\n" + behind)
        except (BrokenPipeError, ConnectionResetError):
            sys.exit(0)
