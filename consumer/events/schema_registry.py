"""Calls Confluent-compatible schema registries (Confluent, Apicurio's ccompat, Redpanda, Karapace).

Calls are not retried here: they raise TransientError if the registry does not answer, and the caller tries again.  A
call takes at most ANSWER_S to the last byte of the answer, however slowly the bytes come; an answer has at most
MOST_BYTES.
"""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from typing import Any
from urllib.parse import quote, unquote

import urllib3

from consumer.events.errors import UndecodableError, UnknownSchemaIdError
from pipeline.errors import TransientError

SERVICE = "schema registry"
COMPATIBILITY = "FULL_TRANSITIVE"
TIMEOUT = urllib3.Timeout(connect=2.0, read=5.0)
"""For each address that is tried, and for each read."""
ANSWER_S = 10.0
MOST_BYTES = 4 * 2**20
"""The largest answer; a schema of 10,000 types (consumer.events.writer_schema) takes 1 MB."""
_CONTENT_TYPE = "application/vnd.schemaregistry.v1+json"
_UNKNOWN_SUBJECT, _UNKNOWN_VERSION, _UNKNOWN_SCHEMA = 40401, 40402, 40403
_NO_CONFIG_OF_ITS_OWN = 40408
IDS = range(2**32)


class IncompatibleSchemaError(Exception):
    """The registry refuses a schema: readers and writers with an earlier version would break."""


class SchemaRegistry:
    """One registry at `url`, which may carry `user:password@` and a context path such as `/apis/ccompat/v7`.

    Safe to use from several threads.  Credentials are never shown: `url` and repr leave them out.
    """

    def __init__(self, url: str, *, answer_s: float = ANSWER_S) -> None:
        parsed = urllib3.util.parse_url(url)
        if parsed.scheme not in ("http", "https") or not parsed.host:
            raise ValueError("SCHEMA_REGISTRY_URL: expected http(s)://[user:password@]host[:port][/path]")
        self.url = parsed._replace(auth=None, query=None, fragment=None).url.rstrip("/")
        self._headers = {"Accept": f"{_CONTENT_TYPE}, application/json", "Content-Type": _CONTENT_TYPE}
        if parsed.auth:
            self._headers |= urllib3.util.make_headers(basic_auth=unquote(parsed.auth))
        self._answer_s = answer_s
        self._http = urllib3.PoolManager(timeout=TIMEOUT, retries=False, maxsize=2)
        self._http.pool_classes_by_scheme = _POOLS

    def __repr__(self) -> str:
        return f"SchemaRegistry({self.url!r})"

    def publish(self, subject: str, schema: Mapping[str, Any]) -> int:
        """Make sure the subject holds this schema and is FULL_TRANSITIVE; returns the schema's id.

        Writes nothing if that is the case already: a worker may have read-only credentials once `tensorfleet schemas
        register` has run.  Raises IncompatibleSchemaError.
        """
        number = self.lookup(subject, schema)
        if number is None:
            if self.versions(subject):
                self._hold_to_compatibility(subject)
            number = self.register(subject, schema)
        self._hold_to_compatibility(subject)  # after registering: Apicurio has no rules for a subject without versions
        return number

    def register(self, subject: str, schema: Mapping[str, Any]) -> int:
        """Add a version to the subject, unless it has this schema; returns the schema's id.

        Raises IncompatibleSchemaError.
        """
        path, body = f"/subjects/{_path(subject)}/versions", {"schema": json.dumps(schema)}
        status, answer = self._call("POST", path, body)
        if status == 409:  # Apicurio also says so to one of two that create a subject at once
            if (number := self.lookup(subject, schema)) is not None:
                return number
            status, answer = self._call("POST", path, body)
        if status == 409:
            raise IncompatibleSchemaError(f"{subject}: {_message(answer)}")
        return self._number(status, answer)

    def lookup(self, subject: str, schema: Mapping[str, Any]) -> int | None:
        """The id of this schema under the subject, None if it is not there."""
        status, answer = self._call("POST", f"/subjects/{_path(subject)}", {"schema": json.dumps(schema)})
        if _code(status, answer) in (_UNKNOWN_SUBJECT, _UNKNOWN_SCHEMA):
            return None
        return self._number(status, answer)

    def versions(self, subject: str) -> list[int]:
        """The versions of the subject, none if it does not exist."""
        status, answer = self._call("GET", f"/subjects/{_path(subject)}/versions")
        if _code(status, answer) == _UNKNOWN_SUBJECT:
            return []
        versions = self._expect(status, answer)
        if not isinstance(versions, list) or not all(isinstance(version, int) for version in versions):
            raise self._unexpected(status, answer)
        return versions

    def schema_by_id(self, number: int) -> dict[str, Any]:
        """The schema with this id, which never changes.

        Raises UnknownSchemaIdError, and UndecodableError if it is not Avro or references other schemas.
        """
        status, answer = self._call("GET", f"/schemas/ids/{number}")
        if _code(status, answer) == _UNKNOWN_SCHEMA:
            hint = "" if number else ": an Apicurio serializer must be told to write 4-byte (Confluent) ids"
            raise UnknownSchemaIdError(f"the schema registry knows no schema id {number}{hint}")
        text = self._expect(status, answer, "schema")
        kind = answer.get("schemaType", "AVRO")
        if kind != "AVRO" or answer.get("references"):
            what = f"{str(kind)[:50]} or in several"
            raise UndecodableError(f"schema id {number} is not an Avro schema in one piece, but {what}")
        try:
            schema = json.loads(text)
        except (ValueError, TypeError, RecursionError) as error:
            raise UndecodableError(f"schema id {number} is not valid JSON: {error}") from error
        return schema if isinstance(schema, dict) else {"type": schema}

    def incompatibilities(self, subject: str, schema: Mapping[str, Any]) -> list[str]:
        """Why the subject would refuse this schema; empty if it would accept it, or does not exist."""
        path = f"/compatibility/subjects/{_path(subject)}/versions/latest?verbose=true"
        status, answer = self._call("POST", path, {"schema": json.dumps(schema)})
        if _code(status, answer) in (_UNKNOWN_SUBJECT, _UNKNOWN_VERSION):
            return []
        if self._expect(status, answer, "is_compatible"):
            return []
        messages = answer.get("messages")
        return [str(one) for one in messages] if messages and isinstance(messages, list) else ["it gives no reason"]

    def compatibility(self, subject: str) -> str | None:
        """The level set for the subject itself, None if it has none."""
        status, answer = self._call("GET", f"/config/{_path(subject)}")
        if _code(status, answer) in (_UNKNOWN_SUBJECT, _NO_CONFIG_OF_ITS_OWN):
            return None
        return str(self._expect(status, answer, "compatibilityLevel"))

    def set_compatibility(self, subject: str, level: str = COMPATIBILITY) -> None:
        path, body = f"/config/{_path(subject)}", {"compatibility": level}
        status, answer = self._call("PUT", path, body)
        if status == 409:  # Apicurio: of two that set the first level at once, one is refused
            status, answer = self._call("PUT", path, body)
        self._expect(status, answer)

    def _hold_to_compatibility(self, subject: str) -> None:
        if self.compatibility(subject) != COMPATIBILITY:
            self.set_compatibility(subject)

    def _call(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> tuple[int, Any]:
        until = time.monotonic() + self._answer_s
        try:
            with (
                _cut_off_at(until),
                self._http.request(
                    method, self.url + path, headers=self._headers, body=_encoded(body), preload_content=False
                ) as response,
            ):
                self._check_status(response.status, method, path)
                data = self._read(response, until)
        except (urllib3.exceptions.HTTPError, OSError, OverflowError) as error:  # the last of a chunk of 2^64 bytes
            raise TransientError(SERVICE, f"no answer from {self.url}: {type(error).__name__}") from error
        try:
            return response.status, json.loads(data)
        except (ValueError, RecursionError) as error:
            what = f"{self.url} answered {response.status} and no JSON to {method} {path}: is it a schema registry?"
            raise TransientError(SERVICE, what) from error

    def _read(self, response: urllib3.BaseHTTPResponse, until: float) -> bytes:
        """The body. A compressed one is refused, since a few bytes could expand to any number."""
        if response.headers.get("Content-Encoding", "identity") != "identity":
            raise TransientError(SERVICE, f"{self.url} gave a compressed answer, which was not asked for")
        body = bytearray()
        while part := response.read1(65_536, decode_content=False):
            body += part
            if len(body) > MOST_BYTES:
                raise TransientError(SERVICE, f"{self.url} gave an answer of more than {MOST_BYTES:,} bytes")
        if time.monotonic() >= until:  # without a length, a cut-off answer looks complete
            raise TransientError(SERVICE, f"{self.url} gave an answer that did not end in {self._answer_s:g} s")
        return bytes(body)

    def _check_status(self, status: int, method: str, path: str) -> None:
        if status in (401, 403):
            raise TransientError(SERVICE, f"{self.url} refuses our credentials for {method} {path}")
        if status >= 500 or status in (408, 429):
            raise TransientError(SERVICE, f"{self.url} answered {status} to {method} {path}")

    def _expect(self, status: int, answer: Any, key: str | None = None) -> Any:
        if status != 200 or (key is not None and (not isinstance(answer, dict) or key not in answer)):
            raise self._unexpected(status, answer)
        return answer if key is None else answer[key]

    def _number(self, status: int, answer: Any) -> int:
        number = self._expect(status, answer, "id")
        if isinstance(number, bool) or not isinstance(number, int) or number not in IDS:
            raise self._unexpected(status, answer)
        return number

    def _unexpected(self, status: int, answer: Any) -> TransientError:
        return TransientError(SERVICE, f"{self.url} gave an answer not expected, {status}: {_message(answer)}")


_call = threading.local()
"""This thread's call: its deadline `until` (monotonic seconds), and the callbacks to run at its `end`."""


@contextmanager
def _cut_off_at(until: float) -> Iterator[None]:
    with ExitStack() as end:
        _call.until, _call.end = until, end
        yield


class _CutOff:
    """Shuts a connection at its call's deadline, as http.client's timeout starts anew with each read."""

    sock: socket.socket | None

    def getresponse(self) -> Any:
        timer = threading.Timer(max(0.0, _call.until - time.monotonic()), _shut, [self.sock])
        timer.daemon = True
        timer.start()
        _call.end.callback(timer.cancel)
        return super().getresponse()  # type: ignore[misc]  # of the connection that this is mixed into


class _Http(_CutOff, urllib3.connection.HTTPConnection):
    pass


class _Https(_CutOff, urllib3.connection.HTTPSConnection):
    pass


class _HttpPool(urllib3.HTTPConnectionPool):
    ConnectionCls = _Http


class _HttpsPool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _Https


_POOLS = {"http": _HttpPool, "https": _HttpsPool}


def _shut(connection: socket.socket | None) -> None:
    with suppress(OSError):
        if connection is not None:
            socket.socket.shutdown(connection, socket.SHUT_RDWR)  # TLS's own drops the reader's state


def _path(subject: str) -> str:
    return quote(subject, safe="")


def _encoded(body: Mapping[str, Any] | None) -> bytes | None:
    return None if body is None else json.dumps(body).encode()


def _code(status: int, answer: Any) -> int | None:
    """The registry's own error code; None if a 404 comes from a wrong path or a proxy instead."""
    if status != 404 or not isinstance(answer, dict):
        return None
    code = answer.get("error_code")
    return code if isinstance(code, int) else None


def _message(answer: Any) -> str:
    message = answer.get("message") if isinstance(answer, dict) else answer
    return str(message)[:500]
