"""Progress events: a state is published once it has lasted long enough, and the numbers have no gaps."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any, cast

import pytest

from consumer.jobs.claims import Asked
from consumer.jobs.event_numbers import EventNumbers, Last
from consumer.jobs.job import Job
from consumer.jobs.places import Place
from consumer.publishing.progress import Progress
from consumer.telemetry.metrics import Metrics
from consumer.trainers.protocol import End, Reported
from consumer.worker.job_events import WORTH_SAYING_S, JobEvents
from tests.training_data import request

LATER_S = 2 * WORTH_SAYING_S


class Published(list[dict[str, Any]]):
    def publish(self, event: dict[str, Any], _: str | None) -> None:
        self.append(event)

    @property
    def states(self) -> list[str]:
        return [event["state"] for event in self]


@pytest.fixture
def published() -> Published:
    return Published()


@pytest.fixture
def events(published: Published) -> JobEvents:
    return JobEvents("w", cast(Progress, published), Metrics())


@pytest.fixture
def job() -> Job:
    return Job(Asked(cast(Any, None), request(), "", None), None, Place.TRAINING)


def _reported(stage: str, fraction: float | None = None) -> Reported:
    return Reported("r", stage, fraction, "", 0.1, 1)


def test_what_lasts_less_is_not_said_and_leaves_no_gap(events: JobEvents, published: Published, job: Job) -> None:
    events.accepted(job)
    events.started(job)
    events.reported(job, _reported("LOADING"))
    began = time.time()
    events.reported(job, _reported("TRAINING"))
    events.say_held(time.monotonic())
    assert not published
    assert 0 < events.wait_s(time.monotonic()) <= WORTH_SAYING_S
    events.say_held(time.monotonic() + LATER_S)
    assert published.states == ["STARTED", "TRAINING"]
    assert abs(published[1]["occurred_at"].timestamp() - began) < WORTH_SAYING_S  # when it began, not when it was said
    assert [event["sequence"] for event in published] == [1, 2]
    assert events.wait_s(time.monotonic()) == float("inf")


def test_reports_within_a_state_that_is_said_go_at_once(events: JobEvents, published: Published, job: Job) -> None:
    events.reported(job, _reported("TRAINING", 0.1))
    events.reported(job, _reported("TRAINING", 0.2))
    events.say_held(time.monotonic() + LATER_S)
    events.reported(job, _reported("TRAINING", 0.3))
    assert [event["fraction"] for event in published] == [0.2, 0.3]


@pytest.mark.parametrize("place", [Place.RELEASED, Place.STORED, Place.PARKED])
def test_nothing_is_said_of_a_job_that_is_over_or_not_ours(
    events: JobEvents, published: Published, job: Job, place: Place
) -> None:
    events.accepted(job)
    job.place = place
    events.say_held(time.monotonic() + LATER_S)
    assert not published


def test_a_training_that_is_over_at_once_has_its_start_announced_with_its_end(
    events: JobEvents, published: Published, job: Job
) -> None:
    began = time.time()
    events.started(job)
    events.reported(job, _reported("LOADING"))
    events.ending(job)
    events.registering(job)
    last = job.numbers.last()
    assert last == job.numbers.last()
    assert last.sequence == 2
    assert last.started_at is not None
    assert abs(last.started_at.timestamp() - began) < WORTH_SAYING_S
    events.say_held(time.monotonic() + LATER_S)
    assert not published


def test_a_start_is_published_before_a_storing_that_lasts(events: JobEvents, published: Published, job: Job) -> None:
    events.started(job)
    events.ending(job)
    events.registering(job)
    events.say_held(time.monotonic() + LATER_S)
    assert [(event["state"], event["sequence"]) for event in published] == [("STARTED", 1), ("REGISTERING", 2)]
    assert job.numbers.last() == Last(3)


@pytest.mark.parametrize("end", [End.CRASHED, End.TIMED_OUT])
def test_a_start_is_published_once_and_before_what_follows_it(
    events: JobEvents, published: Published, job: Job, end: End
) -> None:
    events.started(job)
    events.killed(job, end)
    assert published.states == ["STARTED"]
    events.retrying(job, "again")
    events.started(job)
    events.say_held(time.monotonic() + LATER_S)
    events.ending(job)
    assert published.states == ["STARTED", "RETRYING", "STARTED"]
    assert job.numbers.last() == Last(4)


def test_nothing_follows_the_terminal_event(events: JobEvents, published: Published, job: Job) -> None:
    events.started(job)
    events.ending(job)
    events.registering(job)
    assert job.numbers.last().sequence == 2
    events.say_held(time.monotonic() + LATER_S)
    assert not published
    job.numbers.reopen()  # the outcome is void
    events.retrying(job, "again")
    assert [event["sequence"] for event in published] == [2]


def test_the_last_number_is_the_last_whichever_thread_is_first() -> None:
    for _ in range(200):
        numbers, begin = EventNumbers(), threading.Barrier(2)

        def taken(numbers: EventNumbers = numbers, begin: threading.Barrier = begin) -> list[int]:
            begin.wait()
            return [number for _ in range(20) if (number := numbers.following()) is not None]

        with ThreadPoolExecutor(1) as thread:
            given = thread.submit(taken)
            begin.wait()
            last = numbers.last()
        assert given.result() == [*range(1, last.sequence)]
        assert numbers.last() == last
