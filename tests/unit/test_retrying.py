"""Waiting for services, on a clock that only the test moves."""

from __future__ import annotations

import random
import threading
from contextlib import suppress

import pytest
from structlog.testing import capture_logs

from consumer.telemetry.metrics import Metrics
from consumer.threads.retrying import LONGEST_WAIT_S, Breakers, ServiceAwayError, Stopped, until_answered
from pipeline.errors import RejectedError, TransientError


class Clock:
    def __init__(self) -> None:
        self.now_s = 1000.0
        self.waits_s: list[float] = []

    def __call__(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        self.waits_s.append(seconds)
        self.now_s += seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture
def breakers(clock: Clock, metrics: Metrics) -> Breakers:
    return Breakers(metrics, threshold=3, pause_s=2.0, clock=clock)


class Service:
    """Does not answer its first `failures` calls."""

    def __init__(self, failures: int, name: str = "mongodb") -> None:
        self.failures = failures
        self.name = name
        self.calls = 0

    def __call__(self) -> str:
        self.calls += 1
        if self.calls <= self.failures:
            raise TransientError(self.name, "no answer")
        return "done"


def fail(breakers: Breakers, times: int, name: str = "mongodb") -> None:
    for _ in range(times):
        with pytest.raises(TransientError):
            breakers.call(Service(1, name), name)


def test_an_answer_is_returned_without_waiting(breakers: Breakers, clock: Clock) -> None:
    assert until_answered(Service(0), breakers=breakers, sleep=clock.sleep) == "done"
    assert clock.waits_s == []


def test_a_service_that_comes_back_costs_waiting_and_nothing_else(breakers: Breakers, clock: Clock) -> None:
    assert until_answered(Service(25), breakers=breakers, sleep=clock.sleep) == "done"
    assert len(clock.waits_s) >= 25


def test_waits_double_up_to_five_seconds_and_are_cut_at_random(breakers: Breakers, clock: Clock) -> None:
    until_answered(Service(12), breakers=breakers, sleep=clock.sleep, uniform=random.Random(7).uniform)
    assert 0.025 <= clock.waits_s[0] <= 0.05
    assert 0.05 <= clock.waits_s[1] <= 0.1
    assert all(LONGEST_WAIT_S / 2 <= wait <= LONGEST_WAIT_S for wait in clock.waits_s[8:])
    assert len(set(clock.waits_s)) == len(clock.waits_s)


def test_an_outage_of_a_day_overflows_nothing(clock: Clock) -> None:
    breakers = Breakers(clock=clock)
    assert until_answered(Service(20_000), breakers=breakers, sleep=clock.sleep) == "done"


@pytest.mark.parametrize("error", [RejectedError("wrong"), ValueError("a bug")])
def test_any_other_error_is_passed_on_at_once(breakers: Breakers, clock: Clock, error: Exception) -> None:
    def operation() -> None:
        raise error

    with pytest.raises(type(error)):
        until_answered(operation, breakers=breakers, service="mongodb", sleep=clock.sleep)
    assert clock.waits_s == []
    assert not breakers.any_open()


def test_a_stopped_wait_raises_stopped(breakers: Breakers, clock: Clock) -> None:
    stop = threading.Event()
    service = Service(10**9)

    def stop_after_three(_: TransientError) -> None:
        if service.calls == 3:
            stop.set()

    with pytest.raises(Stopped):
        until_answered(service, breakers=breakers, stop=stop, sleep=clock.sleep, on_retry=stop_after_three)
    assert service.calls == 3


def test_a_stop_that_is_already_set_still_allows_one_try(breakers: Breakers) -> None:
    stop = threading.Event()
    stop.set()
    assert until_answered(Service(0), breakers=breakers, stop=stop) == "done"
    with pytest.raises(Stopped):
        until_answered(Service(1), breakers=breakers, stop=stop)


def test_each_wait_tells_its_error(breakers: Breakers, clock: Clock) -> None:
    told: list[TransientError] = []
    until_answered(Service(2), breakers=breakers, sleep=clock.sleep, on_retry=told.append)
    assert [str(error) for error in told] == ["mongodb: no answer"] * 2


def test_an_outage_is_logged_once_when_it_begins_and_once_when_it_ends(breakers: Breakers, clock: Clock) -> None:
    with capture_logs() as logs:
        until_answered(Service(10), breakers=breakers, sleep=clock.sleep)
    loud = [entry for entry in logs if entry["log_level"] != "debug"]
    assert [(entry["event"], entry["service"]) for entry in loud] == [
        ("service away", "mongodb"),
        ("service back", "mongodb"),
    ]
    assert loud[1]["away_s"] > 10


def test_a_single_failure_is_not_an_outage(breakers: Breakers, clock: Clock) -> None:
    with capture_logs() as logs:
        until_answered(Service(1), breakers=breakers, sleep=clock.sleep)
    assert [entry for entry in logs if entry["log_level"] != "debug"] == []
    assert breakers.states() == {"mongodb": "closed"}


def test_retries_are_counted_by_service_and_held_back_calls_are_not(
    breakers: Breakers, clock: Clock, metrics: Metrics
) -> None:
    until_answered(Service(7, "minio"), breakers=breakers, sleep=clock.sleep)
    assert metrics.registry.get_sample_value("ml_worker_retries_total", {"service": "minio"}) == 7


def test_failures_in_a_row_open_the_breaker_and_the_first_answer_closes_it(
    breakers: Breakers, clock: Clock, metrics: Metrics
) -> None:
    def shown() -> float | None:
        return metrics.registry.get_sample_value("ml_worker_breaker_open", {"service": "mongodb"})

    fail(breakers, 2)
    assert not breakers.any_open()
    fail(breakers, 1)
    assert breakers.any_open()
    assert breakers.states() == {"mongodb": "open"}
    assert shown() == 1
    clock.sleep(2.0)
    assert breakers.call(Service(0), "mongodb") == "done"
    assert not breakers.any_open()
    assert shown() == 0
    changes = [
        metrics.registry.get_sample_value("ml_worker_breaker_changes_total", {"service": "mongodb", "event": event})
        for event in ("opened", "closed")
    ]
    assert changes == [1, 1]


def test_services_are_shown_before_anything_is_asked_of_them(metrics: Metrics) -> None:
    breakers = Breakers(metrics, services=["kafka", "minio"])
    assert breakers.states() == {"kafka": "closed", "minio": "closed"}
    assert metrics.registry.get_sample_value("ml_worker_breaker_open", {"service": "minio"}) == 0


def test_an_answer_between_failures_keeps_the_breaker_closed(breakers: Breakers) -> None:
    for _ in range(5):
        fail(breakers, 2)
        breakers.call(Service(0), "mongodb")
    assert not breakers.any_open()


def test_an_open_breaker_keeps_calls_away_until_its_pause_is_over(breakers: Breakers, clock: Clock) -> None:
    fail(breakers, 3)
    service = Service(0)
    clock.sleep(1.9)
    with pytest.raises(ServiceAwayError):
        breakers.call(service, "mongodb")
    assert service.calls == 0
    clock.sleep(0.2)
    fail(breakers, 1)
    with pytest.raises(ServiceAwayError):
        breakers.call(service, "mongodb")


def test_an_open_breaker_holds_back_no_other_service(breakers: Breakers) -> None:
    fail(breakers, 3, "minio")
    assert breakers.call(Service(0), "mongodb") == "done"
    assert breakers.states() == {"minio": "open", "mongodb": "closed"}


def test_a_breaker_that_nobody_tries_any_more_does_not_stay_open(breakers: Breakers, clock: Clock) -> None:
    fail(breakers, 3)
    clock.sleep(Breakers.STALE_S)
    assert not breakers.any_open()


def test_threads_share_what_they_found_out(breakers: Breakers) -> None:
    ended: list[str] = []

    def hammer(failures: int) -> None:
        for _ in range(300):
            with suppress(TransientError):
                breakers.call(Service(failures), "mongodb")
        ended.append("well")

    threads = [threading.Thread(target=hammer, args=(n % 2,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert ended == ["well"] * 8


def test_what_some_requests_wait_for_holds_up_no_other(breakers: Breakers) -> None:
    fail(breakers, 10, "dataset cache")
    assert breakers.is_open("dataset cache")
    assert not breakers.any_open()
    fail(breakers, 10, "mongodb")
    assert breakers.any_open()
