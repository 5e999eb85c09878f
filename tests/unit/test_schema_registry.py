"""The registry's client where the registry misbehaves; the well-behaved one is in tests/contract/test_framings.py."""

from __future__ import annotations

import base64
import gzip
import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from consumer.events.errors import UndecodableError
from consumer.events.schema_registry import MOST_BYTES, SchemaRegistry
from pipeline.errors import TransientError


class Misbehaving:
    """A server that gives one answer to everything, and remembers what it was asked."""

    def __init__(self) -> None:
        self.status, self.body = 200, b"{}"
        self.seen: list[tuple[str, str | None]] = []
        outer = self

        class Answer(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.seen.append((self.path, self.headers["Authorization"]))
                self.send_response(outer.status)
                self.send_header("Content-Length", str(len(outer.body)))
                self.end_headers()
                self.wfile.write(outer.body)

            do_POST = do_GET  # noqa: N815 - as http.server calls it

            def log_message(self, *_: object) -> None:
                """Nothing on stderr."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
        self.port = self._server.server_port
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def server() -> Iterator[Misbehaving]:
    server = Misbehaving()
    yield server
    server.stop()


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (500, b"{}"),
        (503, b"<html>"),
        (429, b"{}"),
        (401, b"{}"),
        (403, b"{}"),
        (200, b"<html>a proxy's page</html>"),
        (200, b'{"no": "schema"}'),
        (200, b"[]"),
        (404, b'{"error": "no such path"}'),
        (404, b"{}"),
        (302, b"{}"),
    ],
)
def test_an_answer_that_says_nothing_about_the_id_is_waited_out(server: Misbehaving, status: int, body: bytes) -> None:
    server.status, server.body = status, body
    with pytest.raises(TransientError, match=r"^schema registry: ") as caught:
        SchemaRegistry(f"http://127.0.0.1:{server.port}").schema_by_id(7)
    assert caught.value.service == "schema registry"


def test_only_the_registrys_own_word_makes_an_id_unknown(server: Misbehaving) -> None:
    server.status, server.body = 404, b'{"error_code": 40403, "message": "Schema 7 not found"}'
    with pytest.raises(UndecodableError, match="knows no schema id 7"):
        SchemaRegistry(f"http://127.0.0.1:{server.port}").schema_by_id(7)


@pytest.mark.parametrize(
    "answer",
    [{"schema": "{", "x": 1}, {"schema": "{}", "schemaType": "PROTOBUF"}, {"schema": "{}", "references": [{}]}],
    ids=str,
)
def test_a_schema_that_is_no_avro_in_one_piece_is_undecodable(server: Misbehaving, answer: dict[str, object]) -> None:
    server.body = json.dumps(answer).encode()
    with pytest.raises(UndecodableError, match="schema id 7"):
        SchemaRegistry(f"http://127.0.0.1:{server.port}").schema_by_id(7)


@pytest.mark.parametrize("text", [5, None, [], {"type": "string"}, "[" * 100_000], ids=lambda text: str(text)[:9])
def test_a_schema_that_is_no_text_or_endlessly_deep_is_undecodable(server: Misbehaving, text: object) -> None:
    server.body = json.dumps({"schema": text}).encode()
    with pytest.raises(UndecodableError, match="schema id 7 is not valid JSON"):
        SchemaRegistry(f"http://127.0.0.1:{server.port}").schema_by_id(7)


@pytest.mark.parametrize("number", ["x", "1", None, [], -1, 2**32, 1.5, True], ids=str)
def test_an_id_that_is_none_is_an_answer_not_expected(server: Misbehaving, number: object) -> None:
    server.body = json.dumps({"id": number}).encode()
    with pytest.raises(TransientError, match="gave an answer not expected"):
        SchemaRegistry(f"http://127.0.0.1:{server.port}").lookup("a-value", {})


@pytest.mark.parametrize("body", [b'{"a": 1}', b'"x"', b"null", b'["x"]', b"[null]"])
def test_versions_that_are_no_numbers_are_an_answer_not_expected(server: Misbehaving, body: bytes) -> None:
    server.body = body
    with pytest.raises(TransientError, match="gave an answer not expected"):
        SchemaRegistry(f"http://127.0.0.1:{server.port}").versions("a-value")


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (b"[" * 100_000, "and no JSON"),
        (b'"' + b"x" * MOST_BYTES + b'"', "an answer of more than 4,194,304 bytes"),
    ],
    ids=["deep", "large"],
)
def test_an_answer_has_bounds(server: Misbehaving, body: bytes, told: str) -> None:
    server.body = body
    with pytest.raises(TransientError, match=told):
        SchemaRegistry(f"http://127.0.0.1:{server.port}").schema_by_id(7)


def answering(parts: Iterator[bytes]) -> tuple[str, threading.Thread]:
    """A server of one connection, which sends these parts until nobody hears them."""
    listening = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        connection, _ = listening.accept()
        with listening, connection, suppress(OSError):
            connection.recv(65_536)
            for part in parts:
                connection.sendall(part)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    return f"http://127.0.0.1:{listening.getsockname()[1]}", thread


def slowly(begin: bytes, more: bytes) -> Iterator[bytes]:
    yield begin
    while True:
        time.sleep(0.05)  # each byte well within the time that one may take
        yield more


@pytest.mark.parametrize(
    ("begin", "more"),
    [
        (b"HTTP/1.1 200 OK\r\nX: ", b"y"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n", b" "),
        (b"HTTP/1.1 200 OK\r\n\r\n" + b'{"schema": "{}"}', b" "),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\n \r\n"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"0"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n", b"x"),
    ],
    ids=["head", "body", "body of no length", "chunks", "size of a chunk", "trailer"],
)
def test_an_answer_that_trickles_in_is_cut_off(begin: bytes, more: bytes) -> None:
    url, thread = answering(slowly(begin, more))
    begun = time.monotonic()
    with pytest.raises(TransientError, match=r"^schema registry: "):
        SchemaRegistry(url, answer_s=0.5).schema_by_id(7)
    assert time.monotonic() - begun < 3
    thread.join(10)
    assert not thread.is_alive()


@pytest.mark.parametrize("size", [b"f" * 16, b"f" * 40, b"-1", b"x"], ids=["2^64", "2^160", "negative", "none"])
def test_a_chunk_of_an_impossible_size_is_no_answer(size: bytes) -> None:
    url, _ = answering(iter([b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + size + b"\r\n{}\r\n"]))
    with pytest.raises(TransientError, match="no answer from"):
        SchemaRegistry(url).schema_by_id(7)


def test_a_compressed_answer_is_refused_and_not_unpacked() -> None:
    packed = gzip.compress(b" " * 10**7)
    url, _ = answering(iter([b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nConnection: close\r\n\r\n" + packed]))
    with pytest.raises(TransientError, match="compressed"):
        SchemaRegistry(url).schema_by_id(7)


def test_a_schema_is_asked_for_below_the_path_of_the_url(server: Misbehaving) -> None:
    server.body = b'{"schema": "\\"string\\""}'
    assert SchemaRegistry(f"http://127.0.0.1:{server.port}/apis/ccompat/v7/").schema_by_id(7) == {"type": "string"}
    assert server.seen == [("/apis/ccompat/v7/schemas/ids/7", None)]


def test_credentials_are_sent_and_never_shown(server: Misbehaving) -> None:
    registry = SchemaRegistry(f"http://ada:s%40crt@127.0.0.1:{server.port}/base")
    server.status = 503
    with pytest.raises(TransientError) as caught:
        registry.schema_by_id(7)
    assert server.seen == [("/base/schemas/ids/7", "Basic " + base64.b64encode(b"ada:s@crt").decode())]
    for shown in (registry.url, repr(registry), str(caught.value), str(caught.value.__cause__)):
        assert "crt" not in shown
        assert "ada" not in shown


def test_a_registry_that_is_not_there_is_waited_for() -> None:
    with pytest.raises(TransientError, match=r"no answer from http://127\.0\.0\.1:1"):
        SchemaRegistry("http://ada:secret@127.0.0.1:1").versions("a-value")


@pytest.mark.parametrize("url", ["", "registry:8081", "ftp://registry", "http://", "ada:secret@registry"])
def test_a_url_that_is_none_is_told_without_showing_it(url: str) -> None:
    with pytest.raises(ValueError, match="SCHEMA_REGISTRY_URL: expected") as caught:
        SchemaRegistry(url)
    assert "secret" not in str(caught.value)
