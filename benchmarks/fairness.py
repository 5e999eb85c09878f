"""How long a project's single request waits behind a hundred thousand of another project, and how long in a queue."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

from benchmarks.fleet import CONCURRENCY, Fleet, Servers, Subscriber
from benchmarks.workloads import TINY
from consumer.events.messages import Message
from consumer.events.requests import to_avro
from pipeline.jobs import milliseconds
from schemas import RecordType

TARGET_JOBS = 100.0
"""Where requests wait in one queue this is as many as were sent before."""


@dataclass(frozen=True, slots=True)
class Single:
    """A request of the other project, seconds from its submission.

    Attributes:
        in_front: requests of the flood that had not ended when it was sent.
        meanwhile: how many of them ended before it did.
        queue_s: what it would have waited for its start in a queue: `in_front` at the rate of this run.
    """

    to_start_s: float
    to_end_s: float
    in_front: int
    meanwhile: int
    queue_s: float


@dataclass(frozen=True, slots=True)
class Fairness:
    """`mean_job_s` is how long one of the flood keeps a lane."""

    flood: int
    jobs_per_s: float
    mean_job_s: float
    target_jobs: float
    singles: Sequence[Single]

    @property
    def worst(self) -> Single:
        return max(self.singles, key=lambda one: one.to_start_s)

    @property
    def median_to_start_s(self) -> float:
        return statistics.median(one.to_start_s for one in self.singles)

    @property
    def worst_in_jobs(self) -> float:
        """The longest wait, in times that a lane takes for a job of the flood."""
        return self.worst.to_start_s / self.mean_job_s


def measure(servers: Servers, folder: Path, flood: int, singles: int) -> Fairness:
    """The flood is on its topic, spread over all partitions, before the first single request is sent."""
    with Fleet(servers, folder) as fleet, closing(Subscriber(fleet, RecordType.TRAINING_PROGRESS)) as events:
        series = f"flood-{uuid4().hex[:6]}"
        fleet.send([fleet.message(TINY, series, number) for number in range(flood)])
        begun, course = time.monotonic(), _Course(fleet, events)
        found = [course.follow(f"single-{number}") for number in range(singles)]
        rate = course.ended / (time.monotonic() - begun)
        timed = [
            Single(to_start_s, to_end_s, flood - before, meanwhile, (flood - before) / rate)
            for to_start_s, to_end_s, before, meanwhile in found
        ]
        return Fairness(flood, rate, CONCURRENCY / rate, TARGET_JOBS, timed)


class _Course:
    """Reads all progress, and counts the flood's ends."""

    def __init__(self, fleet: Fleet, events: Subscriber) -> None:
        self._fleet = fleet
        self._events = events
        self.ended = 0

    def follow(self, request_id: str) -> tuple[float, float, int, int]:
        """Send a request; seconds to its start and to its end, and the flood's ends before it and meanwhile."""
        for seen in self._events.poll(0.0):
            self._note(seen.value)
        before, sent, wall = self.ended, time.monotonic(), time.time()
        self._fleet.send([_single(self._fleet, request_id)])
        to_start_s = 0.0
        while True:
            for seen in self._events.take(1):
                event = self._note(seen.value)
                if event["request_id"] == request_id and event["state"] == "STARTED":
                    to_start_s = event["occurred_at"].timestamp() - wall
                if event["request_id"] == request_id and event["state"] == "REGISTERED":
                    return to_start_s, seen.at - sent, before, self.ended - before

    def _note(self, value: bytes) -> dict[str, Any]:
        event = self._fleet.decode(RecordType.TRAINING_PROGRESS, value)
        self.ended += event["project"] == "benchmark" and event["state"] == "REGISTERED"
        return event


def _single(fleet: Fleet, request_id: str) -> Message:
    request = replace(
        TINY.request("single", 0),
        request_id=request_id,
        correlation_id=request_id,
        project="other",
        requested_at=milliseconds(datetime.now(UTC)),
    )
    return fleet.encoded(RecordType.TRAINING_REQUEST, to_avro(request))
