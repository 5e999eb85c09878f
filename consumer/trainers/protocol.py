"""Defines the messages between worker and trainers, as datagrams of JSON.

The worker sends one datagram per job: `{"id", "request", "dataset", "spool", "max_memory_bytes", "dask_scheduler"}`.
The trainer answers with `{"taken": id}`, `{"progress": id, "stage", "fraction", "message", "cpu_s", "rss_bytes"}`,
`{"log": id, "level", "message"}`, and one of `{"trained": id, …}`, `{"rejected": id, …}`, `{"failed": id, …}`,
`{"full": id, …}` (the disk). These have `"last"`: whether the trainer ends now and is to be replaced, and `"stages"`:
how long each stage took. A progress report that another message has followed may not be looked at. A trainer that is
stopped while it sends never blocks the worker, since a datagram arrives whole or not at all. A line end and the
result itself stand behind `trained`; one of more than RESULT_LIMIT_BYTES is the file RESULT in the job's spool folder.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from pipeline.datasets import Dataset
from pipeline.jobs import TrainingRequest

JOB_LIMIT_BYTES = 131_072
"""The largest datagram; well under the kernel's default send buffer of 212,992 bytes."""

RESULT_LIMIT_BYTES = 98_304
RESULT = "result.json"


class Work(NamedTuple):
    """A job as the trainer reads it."""

    request: TrainingRequest
    dataset: Dataset
    spool: Path
    max_memory_bytes: int
    dask_scheduler: str | None = None

    def to_datagram(self) -> bytes:
        """The job as JSON; the caller checks that it has at most JOB_LIMIT_BYTES."""
        dataset = self.dataset
        return orjson.dumps(
            {
                "id": self.request.request_id,
                "request": self.request,
                "dataset": {
                    "name": dataset.name,
                    "fingerprint": dataset.fingerprint,
                    "path": dataset.path and str(dataset.path),
                    "target_column": dataset.target_column,
                },
                "spool": str(self.spool),
                "max_memory_bytes": self.max_memory_bytes,
                "dask_scheduler": self.dask_scheduler,
            }
        )

    @classmethod
    def from_message(cls, job: dict[str, Any]) -> Work:
        request = job["request"] | {"requested_at": datetime.fromisoformat(job["request"]["requested_at"])}
        dataset = job["dataset"] | {"path": job["dataset"]["path"] and Path(job["dataset"]["path"])}
        limits = (job["max_memory_bytes"], job.get("dask_scheduler"))
        return cls(TrainingRequest.from_document(request), Dataset(**dataset), Path(job["spool"]), *limits)


@dataclass(frozen=True, slots=True)
class Spec:
    """A job as a lane gets it. `payload` is its datagram; `framework` is what its trainer must have imported."""

    job_id: str
    payload: bytes
    max_time_s: float
    max_memory_bytes: int
    framework: str = ""


class End(Enum):
    """Why a trainer ended, or was killed, without a result."""

    TIMED_OUT = "TIMED_OUT"
    OUT_OF_MEMORY = "OUT_OF_MEMORY"
    CANCELLED = "CANCELLED"
    CRASHED = "CRASHED"


@dataclass(frozen=True, slots=True)
class Taken:
    job_id: str


@dataclass(frozen=True, slots=True)
class Reported:
    """Progress, as the trainer sends it."""

    job_id: str
    stage: str
    fraction: float | None
    message: str
    cpu_s: float
    rss_bytes: int


@dataclass(frozen=True, slots=True)
class Logged:
    job_id: str
    level: str
    message: str


@dataclass(frozen=True, slots=True)
class Done:
    """The trainer's own report: trained, rejected, failed with a kind, or full (no space on the disk).

    `stages` are seconds by stage. `result` is a `Trained` as JSON, empty if it is a file in the spool.
    """

    job_id: str
    how: str
    kind: str = ""
    message: str = ""
    cpu_s: float = 0.0
    rss_bytes: int = 0
    stages: Mapping[str, float] = field(default_factory=dict)
    result: bytes = b""


@dataclass(frozen=True, slots=True)
class Killed:
    job_id: str
    end: End
    message: str


@dataclass(frozen=True, slots=True)
class Returned:
    """The job's lane is gone before its trainer could train it: feed it again; it does not count as a crash."""

    job_id: str


LaneEvent = Taken | Reported | Logged | Done | Killed | Returned
