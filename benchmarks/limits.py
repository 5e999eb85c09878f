"""How soon a cancel has stopped a training in C code, and how far a training gets beyond its time limit."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

from benchmarks.fleet import Fleet, Seen, Servers, Subscriber
from benchmarks.latency import p50_p99
from benchmarks.workloads import HANG
from consumer.events.control import cancel_command
from consumer.events.requests import to_avro
from pipeline.jobs import milliseconds
from schemas import RecordType

TARGET_CANCEL_P99_S = 1.0
TARGET_OVERSHOOT_P99_S = 2.0
LIMIT_S = 0.5
LOOK_S = 0.002
GONE_WITHIN_S = 30.0
PLUGINS = Path(__file__).parents[1] / "tests" / "plugins"


@dataclass(frozen=True, slots=True)
class Limits:
    """Seconds. Until a training's processes are gone, and until its terminal event has come.

    Attributes:
        cancels: how many, from before the command is produced.
        limits: how many, from when the training may last no longer.
    """

    cancels: int
    target_cancel_p99_s: float
    gone_p50_s: float
    gone_p99_s: float
    told_p50_s: float
    told_p99_s: float
    limits: int
    target_overshoot_p99_s: float
    overshoot_p50_s: float
    overshoot_p99_s: float
    late_p50_s: float
    late_p99_s: float


def measure(servers: Servers, folder: Path, times: int) -> Limits:
    """One hanging training at a time, beside an idle lane."""
    series = f"limits-{uuid4().hex[:6]}"
    with (
        Fleet(servers, folder, {"PYTHONPATH": str(PLUGINS)}) as fleet,
        closing(Subscriber(fleet, RecordType.TRAINING_PROGRESS)) as progress,
    ):
        cancels = [_cancelled(fleet, progress, f"{series}-cancel-{number}") for number in range(times)]
        limits = [_timed_out(fleet, progress, f"{series}-limit-{number}") for number in range(times)]
    gone, told = zip(*cancels, strict=True)
    over, late = zip(*limits, strict=True)
    return Limits(
        times,
        TARGET_CANCEL_P99_S,
        *p50_p99(gone),
        *p50_p99(told),
        times,
        TARGET_OVERSHOOT_P99_S,
        *p50_p99(over),
        *p50_p99(late),
    )


def _cancelled(fleet: Fleet, progress: Subscriber, request_id: str) -> tuple[float, float]:
    """Seconds from the command to the end of the trainer and to the terminal event."""
    _start(fleet, progress, request_id, 600.0)
    trainers = fleet.trainers()
    # The pause is uneven, so that no timer of the worker is always met at the same moment.
    time.sleep(random.uniform(0.1, 0.4))
    command = cancel_command(request_id, reason="", user="", requested_at=milliseconds(datetime.now(UTC)))
    begun = time.monotonic()
    fleet.send([fleet.encoded(RecordType.TRAINING_CONTROL, command)])
    gone = _await_gone(fleet, trainers)
    return gone - begun, _await(fleet, progress, request_id, "CANCELLED")[0].at - begun


def _timed_out(fleet: Fleet, progress: Subscriber, request_id: str) -> tuple[float, float]:
    """Seconds from the limit to the end of the trainer and to the terminal event."""
    started = _start(fleet, progress, request_id, LIMIT_S)
    over = time.monotonic() + LIMIT_S - (time.time() - started["occurred_at"].timestamp())
    gone = _await_gone(fleet, fleet.trainers())
    return gone - over, _await(fleet, progress, request_id, "TIMED_OUT")[0].at - over


def _start(fleet: Fleet, progress: Subscriber, request_id: str, limit_s: float) -> dict[str, Any]:
    """The event that tells that it trains."""
    request = replace(HANG.request(request_id, 0), request_id=request_id, max_training_time_s=limit_s)
    fleet.send([fleet.encoded(RecordType.TRAINING_REQUEST, to_avro(request))])
    return _await(fleet, progress, request_id, "STARTED")[1]


def _await(fleet: Fleet, progress: Subscriber, request_id: str, state: str) -> tuple[Seen, dict[str, Any]]:
    while True:
        (seen,) = progress.take(1)
        event = fleet.decode(RecordType.TRAINING_PROGRESS, seen.value)
        if (event["request_id"], event["state"]) == (request_id, state):
            return seen, event


def _await_gone(fleet: Fleet, trainers: Sequence[int]) -> float:
    """When the first of these processes is not there any more, by the monotonic clock."""
    deadline = time.monotonic() + GONE_WITHIN_S
    while set(trainers) <= set(fleet.trainers()):
        if time.monotonic() > deadline:
            raise fleet.fail("a training was not stopped")
        time.sleep(LOOK_S)
    return time.monotonic()
