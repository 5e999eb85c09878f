"""Schema registries that somebody else holds: writer schemas, what is read by them, and answers of any bytes."""

from __future__ import annotations

import copy
import json
import socket
import threading
from collections.abc import Callable, Mapping
from functools import cache
from random import Random
from typing import Any

from consumer.events.codec import Codec
from consumer.events.errors import UndecodableError
from consumer.events.framing import SchemaId, header
from consumer.events.requests import read_request
from consumer.events.schema_registry import MOST_BYTES, IncompatibleSchemaError, SchemaRegistry
from pipeline.errors import RejectedError, TransientError
from schemas import RecordType, schema
from tests.fuzz import records, values
from tests.fuzz.mutation import mutated, noise, varint
from tests.fuzz.targets.requests import check_message

SCHEMA_REFUSALS = (RejectedError,)
ANSWER_REFUSALS = (RejectedError, TransientError, IncompatibleSchemaError)
HOSTILE = 1_000
"""The id of a schema that no one of ours has."""


def run_schemas(random: Random) -> None:
    """A request written by a schema that a producer has put into the registry."""
    codec, registry = _codec()
    codec._writers.pop(SchemaId(HOSTILE), None)
    codec._refused.clear()
    text = json.dumps(_schema(random), default=str)
    if len(text) > MOST_BYTES:
        raise UndecodableError("the client of the registry reads no more")
    registry.known[HOSTILE] = json.loads(text)
    try:
        read_request(codec, header(SchemaId(HOSTILE)) + _body(random), headers=(), timestamp_ms=0)
    except UndecodableError as error:
        check_message(str(error))
        raise


@cache
def _codec() -> tuple[Codec, records.LocalRegistry]:
    registry = records.LocalRegistry()
    codec = Codec(registry)
    codec.prepare()
    return codec, registry


def _schema(random: Random) -> dict[str, Any]:
    ours = copy.deepcopy(dict(schema(RecordType.TRAINING_REQUEST)))
    fields = ours["fields"]
    roll = random.random()
    if roll < 0.1:
        return {"type": values.nested(random, 4)}
    if roll < 0.75:
        for _ in range(random.choice((1, 1, 3))):
            place = random.choice([*fields, ours] if random.random() < 0.1 else fields)
            place[random.choice(_KEYS)] = _type(random)
        return ours
    more = [{"name": f"f{n}", "type": _type(random)} for n in range(random.randint(0, 4))]
    kept = [field for field in fields if field["name"] == "request_id" or random.random() < 0.5]
    random.shuffle(kept)
    return {**ours, "fields": [*kept, *more]}


_KEYS = (
    "type",
    "type",
    "type",
    "type",
    "default",
    "aliases",
    "name",
    "namespace",
    "fields",
    "logicalType",
    "doc",
    "order",
)


def _type(random: Random, depth: int = 3) -> Any:
    roll = random.random()
    if roll < 0.4 or depth == 0:
        return random.choice(_PLAIN)
    if roll < 0.5:
        return values.nested(random)
    if roll < 0.53:
        return _deep(random)
    inner = _type(random, depth - 1)
    return random.choice(_WRAPPED)(random, inner)


_PLAIN: tuple[Any, ...] = (
    *(
        "null",
        "boolean",
        "int",
        "long",
        "float",
        "double",
        "bytes",
        "string",
        "TrainingRequest",
        "Nothing",
        "",
        "a.b.c",
    ),
    {"type": "long", "logicalType": "timestamp-micros"},
    {"type": "int", "logicalType": "date"},
    {"type": "int", "logicalType": "time-millis"},
    {"type": "string", "logicalType": "uuid"},
    {"type": "bytes", "logicalType": "decimal", "precision": 4, "scale": 2},
    {"type": "bytes", "logicalType": "decimal", "precision": 2**31, "scale": 2**31 - 1},
    {"type": "bytes", "logicalType": "decimal", "precision": -1, "scale": "x"},
    {"type": "fixed", "name": "F", "size": 0},
    {"type": "fixed", "name": "F", "size": -1},
    {"type": "fixed", "name": "F", "size": 2**62},
    {"type": "fixed", "name": "D", "size": 12, "logicalType": "duration"},
    {"type": "enum", "name": "E", "symbols": ["a", "b"]},
    {"type": "enum", "name": "E", "symbols": [], "default": "c"},
    {"type": "enum", "name": "E" * 20_000, "symbols": ["x" * 20_000]},
    {"type": "record", "name": "R", "fields": [{"name": "r", "type": ["null", "R"]}]},
    {"type": "record", "name": "R", "fields": [{"name": "r", "type": "R"}]},
    {"type": "record", "name": "N", "fields": []},
    {"type": "error", "name": "X", "fields": [{"name": "n", "type": "null"}]},
    {"type": "string", "avro.java.string": "String", "logicalType": ["x"]},
)
_WRAPPED: tuple[Callable[[Random, Any], Any], ...] = (
    lambda random, inner: {"type": "array", "items": inner},
    lambda random, inner: {"type": "map", "values": inner},
    lambda random, inner: ["null", inner],
    lambda random, inner: [inner] * 3,
    lambda random, inner: {"type": inner},
    lambda random, inner: {"type": {"type": "array", "items": inner}, "default": [1]},
    lambda random, inner: {
        "type": "record",
        "name": random.choice(("A", "B", "io.tensorfleet.v1.TrainingRequest", "é", "1", "")),
        "aliases": ["A", "B", "TrainingRequest"],
        "fields": [{"name": f"f{n}", "type": inner, "default": None} for n in range(random.choice((1, 2, 20)))],
    },
    lambda random, inner: _doubling(random.choice((5, 20, 60)), inner),
)


def _doubling(depth: int, inner: Any) -> Any:
    """Each record twice in the next: few names that stand for 2^depth types."""
    node: dict[str, Any] = {"type": "record", "name": "D0", "fields": [{"name": "a", "type": inner}]}
    for number in range(1, depth):
        fields = [{"name": "a", "type": node}, {"name": "b", "type": f"D{number - 1}"}]
        node = {"type": "record", "name": f"D{number}", "fields": fields}
    return node


def _deep(random: Random) -> Any:
    node: Any = "int"
    for _ in range(random.choice((50, 100, 150, 200, 300, 450))):
        node = {"type": "array", "items": node} if random.random() < 0.5 else {"type": "map", "values": node}
    return node


def _body(random: Random) -> bytes:
    roll = random.random()
    if roll < 0.5:
        body = records.body(random, RecordType.TRAINING_REQUEST, "r")
        return body if random.random() < 0.5 else mutated(random, body)
    if roll < 0.8:
        counts = (2**31, 2**40, 2**62, -1, -(2**62), 1, 3, 1000)
        return b"".join(varint(random.choice(counts)) + random.randbytes(3) for _ in range(random.randint(1, 30)))
    return b"\x02" * random.choice((10, 1_000, 100_000)) + noise(random)


def run_answers(random: Random) -> None:
    """Calls of the client, whatever a server answers."""
    server = _server()
    server.answer = _answer(random)
    registry = SchemaRegistry(f"http://127.0.0.1:{server.port}")
    random.choice(_CALLS)(registry)


_CALLS: tuple[Callable[[SchemaRegistry], Any], ...] = (
    lambda registry: registry.schema_by_id(5),
    lambda registry: registry.schema_by_id(5),
    lambda registry: registry.publish("a-value", {"type": "string"}),
    lambda registry: registry.incompatibilities("a", {}),
    lambda registry: registry.compatibility("a/é"),
    lambda registry: registry.versions("a"),
    lambda registry: registry.lookup("a", {}),
)


def _answer(random: Random) -> bytes:
    """The whole answer, from its first line on."""
    roll = random.random()
    if roll < 0.1:
        return noise(random)
    status = random.choice((200, 200, 200, 200, 404, 404, 409, 422, 301, 204, 100, 99, 999, 500))
    body = _answer_body(random)
    head = f"HTTP/1.1 {status} x\r\n".encode()
    for name, value in random.sample(_HEADERS, random.randint(0, 3)):
        head += name + b": " + value + b"\r\n"
    length = random.choice((len(body), len(body), len(body), 0, 2**40, -1))
    if random.random() < 0.8:
        head += b"Content-Length: %d\r\n" % length
    data = head + b"Connection: close\r\n\r\n" + body
    return mutated(random, data) if random.random() < 0.2 else data


_HEADERS = (
    *((b"Location", b"http://127.0.0.1:1/"), (b"Content-Encoding", b"gzip"), (b"Transfer-Encoding", b"chunked")),
    *((b"Content-Type", b"text/html"), (b"X", b"y" * 70_000), (b"Retry-After", b"9" * 40), (b"Set-Cookie", b"\xff")),
)


def _answer_body(random: Random) -> bytes:
    roll = random.random()
    if roll < 0.1:
        return noise(random)
    if roll < 0.2:
        return b"[" * random.choice((10, 100_000)) + b"1"
    if roll < 0.202:
        return b'{"schema": "' + b" " * 20 * 2**20 + b'"}'
    if roll < 0.5:
        return json.dumps(values.nested(random), default=str).encode()
    written = random.choice((json.dumps(_schema(random), default=str), '"string"', "{", "[" * 100_000, 5, None, [1]))
    known: Mapping[str, Any] = {
        "schema": written,
        "schemaType": random.choice(("AVRO", "JSON", None, 7)),
        "references": random.choice(([], [{}], None, "x")),
        "id": random.choice((1, "1", "x", None, 1e300, -1, [], 2**70, True)),
        "error_code": random.choice((40401, 40403, "40403", None, [])),
        "is_compatible": random.choice((True, False, None, "x")),
        "messages": random.choice(([], ["a"], "a", 7, {"a": 1}, None)),
        "compatibilityLevel": random.choice(("FULL_TRANSITIVE", None, 5, [1])),
        "message": values.nested(random),
    }
    chosen = {name: value for name, value in known.items() if random.random() < 0.7}
    return json.dumps(chosen, default=str).encode()


class _Server:
    """Gives one answer to each connection, and closes it."""

    def __init__(self) -> None:
        self.answer = b""
        self._listening = socket.create_server(("127.0.0.1", 0), backlog=100)
        self.port = self._listening.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            connection, _ = self._listening.accept()
            with connection:
                connection.settimeout(1.0)
                try:
                    if connection.recv(65_536):
                        connection.sendall(self.answer)
                        connection.shutdown(socket.SHUT_WR)
                        connection.recv(65_536)
                except OSError:
                    continue  # the client has heard enough


@cache
def _server() -> _Server:
    return _Server()
