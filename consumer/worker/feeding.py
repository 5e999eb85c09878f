"""Builds what a trainer gets with a job: the request, its dataset, a folder to write to, and its limits."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from consumer.jobs.job import Job
from consumer.trainers.protocol import JOB_LIMIT_BYTES, Spec, Work
from pipeline.algorithms import framework_of
from pipeline.errors import RejectedError


@dataclass(frozen=True, slots=True)
class Limits:
    """The settings that limit a request or the worker. Times in seconds, sizes in bytes."""

    training_time_s: float
    training_memory_bytes: int
    attempts: int
    worker_losses: int
    look_ahead: int
    drain_timeout_s: float


def spec_of(job: Job, spool: Path, limits: Limits, dask_scheduler: str | None) -> Spec:
    """The job as a trainer gets it. Its checkpoint, if any, becomes the folder that the trainer writes to.

    Raises RejectedError if the request does not fit a datagram of JOB_LIMIT_BYTES.
    """
    request, dataset = job.request, job.dataset
    assert dataset is not None
    allowed = limits.training_memory_bytes
    memory_bytes = min(request.max_memory_bytes or allowed, allowed)
    payload = Work(request, dataset, spool, memory_bytes, dask_scheduler).to_datagram()
    if len(payload) > JOB_LIMIT_BYTES:
        raise RejectedError(
            f"the request has {len(payload):,} bytes as JSON; at most {JOB_LIMIT_BYTES:,} can be trained"
        )
    if job.checkpoint is not None:
        job.checkpoint.replace(spool)
        job.checkpoint = None
    job.spool = spool
    time_s = request.max_training_time_s or limits.training_time_s
    return Spec(job.request_id, payload, time_s, memory_bytes, framework_of(request.algorithm))
