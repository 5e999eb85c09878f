"""The port, over real connections."""

from __future__ import annotations

import errno
import json
import os
import resource
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST
from structlog.testing import capture_logs

from consumer.port import http
from consumer.port.http import Health, HttpServer
from consumer.telemetry.metrics import Metrics
from consumer.threads.watch import Watch

HEALTHY = Health(
    mongodb_connected=True,
    kafka_connected=True,
    artifacts_connected=True,
    active_jobs=2,
    models_trained=7,
    assigned_partitions=3,
    services={"mongodb": "closed", "minio": "open"},
)
NOON = datetime(2026, 1, 31, 12, 0, 0, 5000, tzinfo=UTC)


class Worker:
    """What the server asks."""

    def __init__(self) -> None:
        self.health = HEALTHY
        self.stuck: dict[str, float] = {}
        self.metrics = Metrics()
        self.watch = Watch()
        self.server = HttpServer(
            0,
            lambda: self.health,
            lambda: self.stuck,
            self.metrics,
            self.watch,
            host="127.0.0.1",
            clock=lambda: NOON,
        )
        self.port = self.server.start()

    def ask(self, path: str, method: str = "GET") -> tuple[int, str, bytes]:
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", method=method)
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                return answer.status, answer.headers["Content-Type"], answer.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.headers["Content-Type"], error.read()


@pytest.fixture
def worker() -> Iterator[Worker]:
    worker = Worker()
    yield worker
    worker.server.stop()


def test_a_healthy_worker_says_so_with_exactly_the_promised_fields(worker: Worker) -> None:
    status, content_type, body = worker.ask("/health")
    assert (status, content_type) == (200, "application/json")
    answer = json.loads(body)
    assert isinstance(answer.pop("version"), str)
    assert answer == {
        "status": "healthy",
        "service": "ml-worker",
        "mongodb_connected": True,
        "kafka_connected": True,
        "artifacts_connected": True,
        "timestamp": "2026-01-31T12:00:00.005+00:00",
        "active_jobs": 2,
        "models_trained": 7,
        "assigned_partitions": 3,
        "services": {"mongodb": "closed", "minio": "open"},
    }


@pytest.mark.parametrize("service", ["mongodb_connected", "kafka_connected", "artifacts_connected"])
def test_a_worker_without_one_of_its_services_is_not_ready_but_alive(worker: Worker, service: str) -> None:
    away: dict[str, Any] = {service: False}
    worker.health = replace(HEALTHY, **away)
    status, _, body = worker.ask("/health")
    assert status == 503
    assert json.loads(body)["status"] == "unhealthy"
    assert json.loads(body)[service] is False
    assert worker.ask("/livez")[0] == 200


def test_a_worker_that_waits_for_partitions_is_healthy(worker: Worker) -> None:
    worker.health = replace(HEALTHY, assigned_partitions=0)
    assert worker.ask("/health")[0] == 200


def test_a_worker_one_of_whose_threads_stands_still_is_not_alive_and_says_which(worker: Worker) -> None:
    status, content_type, body = worker.ask("/livez")
    assert (status, content_type, json.loads(body)) == (200, "application/json", {"status": "alive"})
    worker.stuck = {"intake": 61.25}
    status, content_type, body = worker.ask("/livez")
    assert (status, content_type) == (503, "application/json")
    assert json.loads(body) == {"status": "stuck", "threads": {"intake": 61.2}}


def test_the_servers_own_thread_is_watched(worker: Worker) -> None:
    worker.ask("/livez")
    assert 0 < worker.watch.busy_s()["http"] < 30
    worker.server.stop()
    assert worker.watch.busy_s()["http"] == 0


def test_the_metrics_show_every_thread_and_what_it_may_take(worker: Worker) -> None:
    worker.watch.turn("registrar", 600.0).begin()
    _, _, body = worker.ask("/metrics")
    samples = dict(line.rsplit(" ", 1) for line in body.decode().splitlines() if line[0] != "#")
    assert 0 < float(samples['ml_worker_thread_busy_seconds{thread="registrar"}']) < 30
    assert float(samples['ml_worker_thread_limit_seconds{thread="registrar"}']) == 600
    assert float(samples['ml_worker_thread_busy_seconds{thread="interpreter"}']) == 0


def test_metrics_are_shown_in_prometheus_own_words(worker: Worker) -> None:
    worker.metrics.models_trained.labels("random_forest").inc()
    status, content_type, body = worker.ask("/metrics")
    assert (status, content_type) == (200, CONTENT_TYPE_LATEST)
    assert b'ml_worker_models_trained_total{algorithm="random_forest"} 1.0' in body


@pytest.mark.parametrize("path", ["/", "/health/", "/train", "/metrics/x", "/../health"])
def test_anything_else_is_not_found(worker: Worker, path: str) -> None:
    assert worker.ask(path)[0] == 404


@pytest.mark.parametrize("path", ["/health", "/livez", "/metrics"])
@pytest.mark.parametrize("method", ["HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"])
def test_no_verb_but_get_is_taken(worker: Worker, path: str, method: str) -> None:
    assert worker.ask(path, method)[0] == 405


def test_a_snapshot_that_cannot_be_had_is_an_error_and_not_the_end(worker: Worker) -> None:
    worker.health = None  # type: ignore[assignment]
    assert worker.ask("/health")[0] == 500
    worker.health = HEALTHY
    assert worker.ask("/health")[0] == 200


def test_a_port_that_is_taken_raises(worker: Worker) -> None:
    second = HttpServer(worker.port, lambda: HEALTHY, dict, Metrics(), Watch(), host="127.0.0.1")
    with pytest.raises(OSError, match="in use"):
        second.start()


def test_stopping_closes_the_port_and_ends_the_thread(worker: Worker) -> None:
    worker.ask("/health")
    worker.server.stop()
    worker.server.stop()
    assert "http" not in [thread.name for thread in threading.enumerate()]
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", worker.port), timeout=5)


def test_a_client_that_says_nothing_does_not_hold_up_the_stop(worker: Worker) -> None:
    with socket.create_connection(("127.0.0.1", worker.port)):
        worker.server.stop()


def test_clients_that_say_nothing_keep_nobody_from_an_answer_and_the_oldest_of_too_many_is_closed(
    worker: Worker,
) -> None:
    with ExitStack() as clients:
        silent = [
            clients.enter_context(socket.create_connection(("127.0.0.1", worker.port), timeout=5))
            for _ in range(2 * http.MOST_CONNECTIONS)
        ]
        assert worker.ask("/livez")[0] == 200
        assert silent[0].recv(1) == b""
        silent[-1].sendall(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
        assert silent[-1].recv(12) == b"HTTP/1.1 200"


def test_a_port_for_whose_connections_there_are_no_descriptors_says_so_once_and_answers_when_there_are(
    worker: Worker,
) -> None:
    worker.ask("/livez")
    with ExitStack() as clients, capture_logs() as lines:
        silent = [clients.enter_context(socket.socket()) for _ in range(3)]
        with no_descriptors_left():
            for client in silent:
                client.connect(("127.0.0.1", worker.port))
            time.sleep(3 * http.RETRY_S)
        assert worker.ask("/livez")[0] == 200
    assert [(line["event"], line["exc_info"].errno) for line in lines] == [
        ("connections cannot be accepted", errno.EMFILE)
    ]


@contextmanager
def no_descriptors_left() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    first_free = os.dup(0)
    os.close(first_free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (first_free, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_an_error_of_our_own_about_a_connection_is_logged_and_ends_no_other(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    met = threading.Event()

    def broken(_: web.Server) -> None:
        met.set()
        raise ValueError("our own")

    with capture_logs() as lines:
        with monkeypatch.context() as patch, socket.socket() as client:
            patch.setattr(web.Server, "__call__", broken)
            client.connect(("127.0.0.1", worker.port))
            assert met.wait(5)
        assert worker.ask("/livez")[0] == 200
    assert [str(line["exc_info"]) for line in lines] == ["our own"]


@pytest.mark.parametrize(
    "said", [b"", b"GET /livez", b"GET /livez HTTP/1.1\r\nX: y\r\n"], ids=["none", "line", "headers"]
)
def test_a_connection_lasts_a_while_and_no_longer(worker: Worker, said: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "CONNECTION_S", 0.1)
    with socket.create_connection(("127.0.0.1", worker.port), timeout=5) as client:
        client.sendall(said)
        with suppress(ConnectionResetError):
            assert client.recv(1) == b""


@pytest.mark.parametrize("path", ["/livez", "/metrics", "/nothing"])
def test_a_connection_has_one_answer(worker: Worker, path: str) -> None:
    with socket.create_connection(("127.0.0.1", worker.port), timeout=5) as client:
        client.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode() * 2)
        answer = b""
        while part := client.recv(65_536):
            answer += part
    assert answer.count(b"HTTP/1.1 ") == 1
    assert b"Connection: close" in answer


def test_a_body_that_does_not_end_is_not_waited_for(worker: Worker) -> None:
    with socket.create_connection(("127.0.0.1", worker.port), timeout=5) as client:
        client.sendall(b"POST /health HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n")
        assert client.recv(12) == b"HTTP/1.1 405"
        with suppress(ConnectionResetError):
            while client.recv(65_536):
                pass


def test_bytes_that_are_no_http_are_refused_and_do_not_fill_the_log(
    worker: Worker, caplog: pytest.LogCaptureFixture
) -> None:
    with socket.create_connection(("127.0.0.1", worker.port), timeout=5) as client:
        client.sendall(b"GET /livez HTTP/9.9 " + b"G" * 60_000 + b"\r\n\r\n")
        assert client.recv(12) == b"HTTP/1.0 400"
    assert not caplog.records
    worker.health = None  # type: ignore[assignment]
    assert worker.ask("/health")[0] == 500
    assert [record.name for record in caplog.records] == ["aiohttp.server"], "what is our own fault is logged"


def test_without_a_host_all_interfaces_are_served() -> None:
    server = HttpServer(0, lambda: HEALTHY, dict, Metrics(), Watch())
    port = server.start()
    try:
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
    finally:
        server.stop()
