"""Logs, as the process's standard error shows them."""

from __future__ import annotations

import io
import json
import logging
import threading
import warnings
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
import structlog
from pydantic import SecretStr
from pymongo.monitoring import CommandFailedEvent, CommandStartedEvent, CommandSucceededEvent

from consumer.telemetry import logs
from consumer.telemetry.kafka_log import Repeats, kafka_callbacks
from consumer.telemetry.mongodb_log import MongoCommandLog


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level, excepthook = root.handlers[:], root.level, threading.excepthook
    yield
    root.handlers, threading.excepthook = handlers, excepthook
    root.setLevel(level)
    logging.captureWarnings(False)
    structlog.reset_defaults()


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def configured(level: str = "INFO") -> io.StringIO:
    stream = io.StringIO()
    logs.configure(level, "json", stream)
    return stream


def test_a_line_is_one_json_object_with_time_level_logger_and_event_first() -> None:
    stream = configured()
    structlog.get_logger("consumer.partitions.intake").info("assigned", partitions=[0, 1])
    (line,) = lines(stream)
    assert list(line) == ["timestamp", "level", "logger", "event", "partitions"]
    assert (line["level"], line["logger"], line["event"]) == ("info", "consumer.partitions.intake", "assigned")
    assert line["timestamp"].endswith("Z")


def test_the_ids_of_a_job_are_in_every_line_of_its_thread_libraries_included() -> None:
    stream = configured()
    with logs.bound(request_id="r-1", correlation_id="c-1"):
        structlog.get_logger("consumer").info("ours")
        logging.getLogger("some.library").warning("theirs %s", 7)
        thread = threading.Thread(target=structlog.get_logger("consumer").info, args=("another thread",))
        thread.start()
        thread.join()
    structlog.get_logger("consumer").info("after")
    assert [(line["event"], line.get("request_id"), line.get("correlation_id")) for line in lines(stream)] == [
        ("ours", "r-1", "c-1"),
        ("theirs 7", "r-1", "c-1"),
        ("another thread", None, None),
        ("after", None, None),
    ]


def test_an_exception_stays_on_its_line() -> None:
    stream = configured()
    try:
        raise ValueError("over\ntwo lines")
    except ValueError:
        structlog.get_logger("consumer").exception("failed")
        logging.getLogger("some.library").exception("failed too")
    assert ["ValueError: over\ntwo lines" in line["exception"] for line in lines(stream)] == [True, True]


def test_what_json_does_not_know_is_stream_as_text() -> None:
    stream = configured()
    structlog.get_logger("consumer").info("odd", big=2**70, broken="\ud800", when=timedelta(1), by={1: "a"})
    (line,) = lines(stream)
    assert (line["big"], line["broken"], line["when"], line["by"]) == (2**70, "\ud800", "1 day, 0:00:00", {"1": "a"})


def test_a_secret_shows_as_stars() -> None:
    stream = configured()
    structlog.get_logger("consumer").info("settings", password=SecretStr("hunter2"))
    assert "hunter2" not in stream.getvalue()


def test_lines_below_the_level_are_not_stream() -> None:
    stream = configured("WARNING")
    structlog.get_logger("consumer").info("no")
    logging.getLogger("some.library").info("no")
    structlog.get_logger("consumer").warning("yes")
    assert [line["event"] for line in lines(stream)] == ["yes"]


@pytest.mark.parametrize(
    ("stream", "fmt", "readable"),
    [
        (io.StringIO(), "auto", False),
        (Terminal(), "auto", True),
        (io.StringIO(), "console", True),
        (Terminal(), "json", False),
    ],
)
def test_a_terminal_gets_text_and_anything_else_json(stream: io.StringIO, fmt: Any, readable: bool) -> None:
    logs.configure("INFO", fmt, stream)
    structlog.get_logger("consumer").info("assigned", partition=3)
    assert stream.getvalue().startswith("{") is not readable
    assert "assigned" in stream.getvalue()


def test_configuring_again_writes_no_line_twice() -> None:
    first, second = configured(), configured()
    structlog.get_logger("consumer").info("once")
    assert first.getvalue() == ""
    assert len(lines(second)) == 1


def test_a_warning_of_python_is_a_line() -> None:
    stream = configured()
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("old", stacklevel=1)
    assert "old" in lines(stream)[0]["event"]


def test_an_exception_that_ends_a_thread_is_a_line() -> None:
    stream = configured()
    logs.log_uncaught()

    def broken() -> None:
        raise RuntimeError("a bug")

    thread = threading.Thread(target=broken)
    thread.start()
    thread.join()
    (line,) = lines(stream)
    assert line["level"] == "critical"
    assert "RuntimeError: a bug" in line["exception"]


def run_command(log: MongoCommandLog, command: dict[str, Any], failure: dict[str, Any] | None = None) -> None:
    name = next(iter(command))
    address = ("localhost", 27017)
    log.started(CommandStartedEvent(command, "tensorfleet", 7, address, 7))
    took = timedelta(milliseconds=2.5)
    if failure is None:
        log.succeeded(CommandSucceededEvent(took, {"ok": 1}, name, 7, address, 7, database_name="tensorfleet"))
    else:
        log.failed(CommandFailedEvent(took, failure, name, 7, address, 7, database_name="tensorfleet"))


def test_a_mongodb_command_is_logged_at_debug_with_its_time_and_no_values() -> None:
    stream = configured("DEBUG")
    log = MongoCommandLog()
    run_command(log, {"insert": "model_registry", "documents": [{"name": "hidden"}]})
    run_command(log, {"getMore": 99, "collection": "datasets"})
    run_command(log, {"insert": "model_registry"}, {"code": 11000, "errmsg": "dup key: hidden"})
    shown = [(line["command"], line["collection"], line["duration_ms"], line.get("code")) for line in lines(stream)]
    assert shown == [
        ("insert", "model_registry", 2.5, None),
        ("getMore", "datasets", 2.5, None),
        ("insert", "model_registry", 2.5, 11000),
    ]
    assert "hidden" not in stream.getvalue()


def test_mongodb_commands_are_silent_above_debug() -> None:
    stream = configured("INFO")
    run_command(MongoCommandLog(), {"insert": "model_registry"})
    assert stream.getvalue() == ""


def test_what_librdkafka_logs_is_a_line() -> None:
    from confluent_kafka import Producer

    stream = configured("DEBUG")
    config = {"bootstrap.servers": "127.0.0.1:1", "reconnect.backoff.ms": 50, **kafka_callbacks()}
    producer = Producer(config)
    for _ in range(50):
        producer.poll(0.1)
        if "refused" in stream.getvalue():
            break
    assert {line["logger"] for line in lines(stream)} <= {"librdkafka", "kafka"}
    assert "Connection refused" in stream.getvalue()


def test_a_broker_that_is_away_does_not_fill_the_log() -> None:
    now_s = 0.0
    repeats = Repeats(pause_s=30, clock=lambda: now_s)

    def passes(message: str) -> logging.LogRecord | None:
        record = logging.LogRecord("librdkafka", logging.ERROR, "", 0, message, (), None)
        return record if repeats.filter(record) else None

    assert passes("FAIL [w1#consumer-1] [thrd:a]: refused (after 0ms)")
    assert [passes(f"FAIL [w1#consumer-1] [thrd:a]: refused (after {n}ms)") for n in (1, 2, 3)] == [None] * 3
    assert passes("FAIL [w1#producer-2] [thrd:a]: refused")
    now_s = 31.0
    record = passes("FAIL [w1#consumer-1] [thrd:a]: refused (after 4ms)")
    assert record is not None
    assert vars(record)["repeated"] == 3
