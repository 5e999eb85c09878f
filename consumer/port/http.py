"""Serves /health, /livez and /metrics over HTTP, in a thread of its own.

A connection gets one answer, and is closed after CONNECTION_S.  At most MOST_CONNECTIONS are open: one more closes the
oldest, so that silent or slow clients do not block /livez for the others.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version

import orjson
import structlog
from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from consumer.telemetry.metrics import Metrics
from consumer.threads.stamps import HTTP, Turn
from consumer.threads.watch import Watch

log = structlog.get_logger(__name__)

SERVICE = "ml-worker"
BEAT_S = 1.0
STANDSTILL_S = 60.0
"""How long the server's thread may go without a turn of its loop."""
CONNECTION_S = 20.0
MOST_CONNECTIONS = 100
SWEEP_S = 1.0
RETRY_S = 0.1
"""The pause after a connection could not be accepted, for instance for lack of descriptors."""
TELL_S = 60.0
"""The least time between two log lines about that."""


@dataclass(frozen=True, slots=True)
class Health:
    """The worker's state at one moment, read without calling any service.

    Attributes:
        models_trained: by this process, since it started.
        assigned_partitions: how many of training-requests it owns; 0 is healthy, as other workers may own all.
        services: the breaker of each service, `open` or `closed`.
    """

    mongodb_connected: bool
    kafka_connected: bool
    artifacts_connected: bool
    active_jobs: int
    models_trained: int
    assigned_partitions: int
    services: Mapping[str, str] = field(default_factory=dict)

    @property
    def healthy(self) -> bool:
        return self.mongodb_connected and self.kafka_connected and self.artifacts_connected


class HttpServer:
    """Serves until stopped.

    Args:
        port: 0 takes a free one.
        health: called for each GET /health in the server's thread; must not block.
        stuck: the stuck threads with their seconds; called likewise for each GET /livez. Empty means alive.
        metrics: shown at GET /metrics.
        watch: watches the server's thread too; its threads' times are among the metrics.
        host: None for all interfaces, IPv4 and IPv6.
        clock: gives the time that /health reports.
    """

    def __init__(
        self,
        port: int,
        health: Callable[[], Health],
        stuck: Callable[[], Mapping[str, float]],
        metrics: Metrics,
        watch: Watch,
        *,
        host: str | None = None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._port = port
        self._host = host
        self._health = health
        self._stuck = stuck
        self._metrics = metrics
        self._watch = watch
        self._clock = clock
        self._version = _version()
        self._thread = threading.Thread(target=self._run, name="http", daemon=True)
        self._ready: Future[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = Future()

    def start(self) -> int:
        """Open the port and serve; returns the port.  Raises OSError if it is taken."""
        self.listening = _listen(self._host, self._port)
        self._thread.start()
        self._ready.result()
        return int(self.listening.getsockname()[1])

    def stop(self) -> None:
        """Close the port and end the thread.  May be called twice, and without `start`."""
        if self._thread.is_alive():
            loop, stopping = self._ready.result()
            with suppress(RuntimeError):  # the loop has closed meanwhile
                loop.call_soon_threadsafe(stopping.set)
            self._thread.join()

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except Exception as error:
            if self._ready.done():
                raise
            self._ready.set_exception(error)

    async def _serve(self) -> None:
        app = web.Application(middlewares=[_one_answer])
        app.router.add_get("/health", self._get_health, allow_head=False)
        app.router.add_get("/livez", self._get_livez, allow_head=False)
        app.router.add_get("/metrics", self._get_metrics, allow_head=False)
        runner = web.AppRunner(app, access_log=None, logger=_log(), shutdown_timeout=1.0, lingering_time=0)
        stopping = asyncio.Event()
        await runner.setup()
        connections = _Connections(runner.server)
        turn = self._watch.turn(HTTP, STANDSTILL_S)
        tasks = [
            asyncio.create_task(forever)
            for forever in (connections.accept(self.listening), connections.close_in_time(), _beat(turn))
        ]
        try:
            self._ready.set_result((asyncio.get_running_loop(), stopping))
            await stopping.wait()
        finally:
            for task in tasks:
                task.cancel()
            self.listening.close()
            await runner.cleanup()
            turn.rest()

    async def _get_health(self, _: web.Request) -> web.Response:
        health = self._health()
        body = {
            "status": "healthy" if health.healthy else "unhealthy",
            "service": SERVICE,
            "mongodb_connected": health.mongodb_connected,
            "kafka_connected": health.kafka_connected,
            "artifacts_connected": health.artifacts_connected,
            "timestamp": self._clock().isoformat(timespec="milliseconds"),
            "active_jobs": health.active_jobs,
            "models_trained": health.models_trained,
            "assigned_partitions": health.assigned_partitions,
            "version": self._version,
            "services": dict(health.services),
        }
        return _json(200 if health.healthy else 503, body)

    async def _get_livez(self, _: web.Request) -> web.Response:
        stuck = {name: round(busy_s, 1) for name, busy_s in self._stuck().items()}
        return _json(503, {"status": "stuck", "threads": stuck}) if stuck else _json(200, {"status": "alive"})

    async def _get_metrics(self, _: web.Request) -> web.Response:
        self._metrics.show_threads(self._watch.busy_s(), self._watch.limits_s())
        text = generate_latest(self._metrics.registry)
        return web.Response(body=text, headers={"Content-Type": CONTENT_TYPE_LATEST})


class _Connections:
    """The open connections, the oldest first.  Owned by the server's loop.

    aiohttp waits without limit for a connection's first bytes, so this closes the transport from outside.
    """

    def __init__(self, protocol: Callable[[], asyncio.Protocol] | None) -> None:
        if protocol is None:
            raise RuntimeError("the server is not set up")
        self._protocol = protocol
        self._open: deque[tuple[float, asyncio.Transport]] = deque()

    async def accept(self, listening: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        listening.setblocking(False)
        tell_at = 0.0
        while True:
            try:
                client, _ = await loop.sock_accept(listening)
                transport, _ = await loop.connect_accepted_socket(self._protocol, client)
            except Exception as error:  # whatever it is, go on to the next connection
                if loop.time() >= tell_at:
                    log.error("connections cannot be accepted", exc_info=error)
                    tell_at = loop.time() + TELL_S
                await asyncio.sleep(RETRY_S)
                continue
            self._open = deque(one for one in self._open if not one[1].is_closing())
            self._open.append((loop.time() + CONNECTION_S, transport))
            if len(self._open) > MOST_CONNECTIONS:
                self._close_oldest()

    async def close_in_time(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_S)
            while self._open and self._open[0][0] <= asyncio.get_running_loop().time():
                self._close_oldest()

    def _close_oldest(self) -> None:
        self._open.popleft()[1].abort()


@web.middleware
async def _one_answer(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    try:
        response = await handler(request)
    except web.HTTPException as error:
        error.force_close()
        raise
    response.force_close()
    return response


def _log() -> logging.Logger:
    """aiohttp's logger, without the many lines about clients that do not speak HTTP."""
    log = logging.getLogger("aiohttp.server")
    log.addFilter(_not_the_clients)
    return log


def _not_the_clients(record: logging.LogRecord) -> bool:
    return not (record.exc_info and isinstance(record.exc_info[1], HttpProcessingError))


async def _beat(turn: Turn) -> None:
    while True:
        turn.begin()
        await asyncio.sleep(BEAT_S)


def _listen(host: str | None, port: int) -> socket.socket:
    if host is not None:
        return socket.create_server((host, port))
    if socket.has_dualstack_ipv6():
        return socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True)
    return socket.create_server(("", port))


def _version() -> str:
    try:
        return version("tensorfleet-worker")
    except PackageNotFoundError:
        return "unknown"


def _json(status: int, body: Mapping[str, object]) -> web.Response:
    return web.Response(status=status, body=orjson.dumps(body), content_type="application/json")
