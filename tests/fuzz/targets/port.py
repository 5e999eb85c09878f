"""The port of the worker, over raw connections: whatever is sent, /livez answers meanwhile and nothing stays behind."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from functools import cache
from pathlib import Path
from random import Random

from consumer.port.http import Health, HttpServer
from consumer.telemetry.metrics import Metrics
from consumer.threads.watch import Watch
from tests.fuzz.mutation import mutated, noise

HEALTHY = Health(True, True, True, 0, 0, 0)
WITHIN_S = 20.0
MOST_DESCRIPTORS = 400
PATHS = (b"/health", b"/livez", b"/metrics", b"/", b"/../etc", b"*", b"/%00", b"/" + b"a" * 100_000, b"http://x/livez")
METHODS = (b"GET", b"GET", b"GET", b"POST", b"HEAD", b"OPTIONS", b"CONNECT", b"PRI", b"\xff", b"G" * 10_000)


def run(random: Random) -> None:
    port = _port()
    with ExitStack() as open_ones:
        for _ in range(random.choice((1, 1, 1, 5, 40))):
            client = open_ones.enter_context(socket.create_connection(("127.0.0.1", port), WITHIN_S))
            with suppress(ConnectionError, TimeoutError):
                for part in random.choice(_TALKS)(random):
                    client.sendall(part)
        assert livez(port), "/livez does not answer"
        assert len([*Path("/proc/self/fd").iterdir()]) < MOST_DESCRIPTORS, "connections stay open"


def livez(port: int) -> bool:
    with socket.create_connection(("127.0.0.1", port), WITHIN_S) as client:
        client.sendall(b"GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        return client.recv(65_536).startswith(b"HTTP/1.1 200")


def _request(random: Random) -> bytes:
    lines = [random.choice(METHODS) + b" " + random.choice(PATHS) + random.choice((b" HTTP/1.1", b" HTTP/9.9", b""))]
    lines += random.sample(_HEADERS, random.randint(0, 4))
    return b"\r\n".join(lines) + b"\r\n\r\n"


_HEADERS = (
    *(b"Host: x", b"Connection: close", b"Connection: Upgrade\r\nUpgrade: websocket", b"Expect: 100-continue"),
    *(b"Content-Length: 5", b"Content-Length: -1", b"Content-Length: 99999999999", b"Transfer-Encoding: chunked"),
    *(b"Transfer-Encoding: chunked, chunked", b"Content-Length: 5\r\nContent-Length: 6", b": x", b"X: " + b"y" * 9_000),
    *(
        b"Cookie: " + b"a=b;" * 1_000,
        b"Range: bytes=0-",
        b"Content-Encoding: gzip",
        b"X-\xff: \xfe",
        b"X:\0",
        b" folded",
    ),
)


def _one(random: Random) -> Iterator[bytes]:
    yield _request(random)


def _spoiled(random: Random) -> Iterator[bytes]:
    yield mutated(random, _request(random))


def _pipelined(random: Random) -> Iterator[bytes]:
    yield b"".join(_request(random) for _ in range(random.choice((2, 50)))) + noise(random)


def _noise(random: Random) -> Iterator[bytes]:
    yield noise(random, 10_000)


def _silence(_: Random) -> Iterator[bytes]:
    yield b""


def _begun(random: Random) -> Iterator[bytes]:
    yield _request(random)[: random.randint(1, 20)]


def _slow(random: Random) -> Iterator[bytes]:
    for place in range(min(30, len(request := _request(random)))):
        yield request[place : place + 1]


def _endless_headers(random: Random) -> Iterator[bytes]:
    yield b"GET /livez HTTP/1.1\r\n"
    for number in range(random.choice((100, 2_000))):
        yield b"X-%d: %s\r\n" % (number, b"y" * 100)


def _endless_line(_: Random) -> Iterator[bytes]:
    for _times in range(30):
        yield b"G" * 65_536


def _chunks(random: Random) -> Iterator[bytes]:
    yield b"POST /livez HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    for _ in range(random.choice((1, 50))):
        yield b"1\r\nx\r\n" * 1_000
    yield random.choice((b"0\r\n\r\n", b"ffffffffffffffff\r\n", b"-1\r\n", b"1;" + b"e" * 70_000 + b"\r\nx\r\n"))


def _body(random: Random) -> Iterator[bytes]:
    yield b"POST /health HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\n"
    for _ in range(random.choice((1, 30))):
        yield b"x" * 65_536


_TALKS: tuple[Callable[[Random], Iterator[bytes]], ...] = (
    *(_one, _spoiled, _spoiled, _pipelined, _noise, _silence, _begun, _slow),
    *(_endless_headers, _endless_line, _chunks, _body),
)


@cache
def _port() -> int:
    return HttpServer(0, lambda: HEALTHY, dict, Metrics(), Watch(), host="127.0.0.1").start()
