"""A client of Confluent-compatible schema registries (Confluent, Apicurio's ccompat, Redpanda, Karapace).

Calls block for at most TIMEOUT, are not repeated here, and raise TransientError when the registry cannot answer:
the caller waits and calls again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, unquote

import urllib3

from consumer.events.errors import UndecodableError
from pipeline.errors import TransientError

SERVICE = "schema registry"
COMPATIBILITY = "FULL_TRANSITIVE"
TIMEOUT = urllib3.Timeout(connect=2.0, read=5.0)
_CONTENT_TYPE = "application/vnd.schemaregistry.v1+json"
_UNKNOWN_SUBJECT, _UNKNOWN_VERSION, _UNKNOWN_SCHEMA = 40401, 40402, 40403
_NO_CONFIG_OF_ITS_OWN = 40408


class IncompatibleSchemaError(Exception):
    """The registry refuses a schema: readers and writers that run with an earlier version would break."""


class SchemaRegistry:
    """One registry at `url`, which may carry `user:password@` and a context path such as `/apis/ccompat/v7`.

    Safe to use from several threads.  Credentials are never shown: `url` and repr leave them out.
    """

    def __init__(self, url: str) -> None:
        parsed = urllib3.util.parse_url(url)
        if parsed.scheme not in ("http", "https") or not parsed.host:
            raise ValueError("SCHEMA_REGISTRY_URL: expected http(s)://[user:password@]host[:port][/path]")
        self.url = parsed._replace(auth=None, query=None, fragment=None).url.rstrip("/")
        self._headers = {"Accept": f"{_CONTENT_TYPE}, application/json", "Content-Type": _CONTENT_TYPE}
        if parsed.auth:
            self._headers |= urllib3.util.make_headers(basic_auth=unquote(parsed.auth))
        self._http = urllib3.PoolManager(timeout=TIMEOUT, retries=False, maxsize=2)
        self._schemas: dict[int, dict[str, Any]] = {}

    def __repr__(self) -> str:
        return f"SchemaRegistry({self.url!r})"

    def publish(self, subject: str, schema: Mapping[str, Any]) -> int:
        """Make sure the subject holds this schema and is FULL_TRANSITIVE; returns the schema's id.

        Writes nothing if all is so already, so that a worker may have read-only credentials where
        `tensorfleet schemas register` ran before it.  Raises IncompatibleSchemaError.
        """
        number = self.lookup(subject, schema)
        if number is None:
            if self.versions(subject):
                self._hold_to_compatibility(subject)
            number = self.register(subject, schema)
        self._hold_to_compatibility(subject)  # after it, since Apicurio has no rules for a subject without versions
        return number

    def register(self, subject: str, schema: Mapping[str, Any]) -> int:
        """Add a version to the subject, unless it has this schema; returns the schema's id."""
        status, answer = self._call("POST", f"/subjects/{_path(subject)}/versions", {"schema": json.dumps(schema)})
        if status == 409:
            raise IncompatibleSchemaError(f"{subject}: {_message(answer)}")
        return int(self._expect(status, answer, "id"))

    def lookup(self, subject: str, schema: Mapping[str, Any]) -> int | None:
        """The id of this schema under the subject, None if it is not there."""
        status, answer = self._call("POST", f"/subjects/{_path(subject)}", {"schema": json.dumps(schema)})
        if _code(status, answer) in (_UNKNOWN_SUBJECT, _UNKNOWN_SCHEMA):
            return None
        return int(self._expect(status, answer, "id"))

    def versions(self, subject: str) -> list[int]:
        """The versions of the subject, none if it does not exist."""
        status, answer = self._call("GET", f"/subjects/{_path(subject)}/versions")
        if _code(status, answer) == _UNKNOWN_SUBJECT:
            return []
        return [int(version) for version in self._expect(status, answer)]

    def schema_by_id(self, number: int) -> dict[str, Any]:
        """The schema with this id, remembered for ever since ids never change; raises UndecodableError if unknown."""
        if number not in self._schemas:
            self._schemas[number] = self._fetch(number)
        return self._schemas[number]

    def incompatibilities(self, subject: str, schema: Mapping[str, Any]) -> list[str]:
        """Why the subject would refuse this schema; empty if it would take it, or does not exist."""
        path = f"/compatibility/subjects/{_path(subject)}/versions/latest?verbose=true"
        status, answer = self._call("POST", path, {"schema": json.dumps(schema)})
        if _code(status, answer) in (_UNKNOWN_SUBJECT, _UNKNOWN_VERSION):
            return []
        if self._expect(status, answer, "is_compatible"):
            return []
        return [str(message) for message in answer.get("messages") or ["the registry gives no reason"]]

    def compatibility(self, subject: str) -> str | None:
        """The level set for the subject itself, None if it has none."""
        status, answer = self._call("GET", f"/config/{_path(subject)}")
        if _code(status, answer) in (_UNKNOWN_SUBJECT, _NO_CONFIG_OF_ITS_OWN):
            return None
        return str(self._expect(status, answer, "compatibilityLevel"))

    def set_compatibility(self, subject: str, level: str = COMPATIBILITY) -> None:
        status, answer = self._call("PUT", f"/config/{_path(subject)}", {"compatibility": level})
        self._expect(status, answer)

    def _hold_to_compatibility(self, subject: str) -> None:
        if self.compatibility(subject) != COMPATIBILITY:
            self.set_compatibility(subject)

    def _fetch(self, number: int) -> dict[str, Any]:
        status, answer = self._call("GET", f"/schemas/ids/{number}")
        if _code(status, answer) == _UNKNOWN_SCHEMA:
            hint = "" if number else ": an Apicurio serializer must be told to write 4-byte (Confluent) ids"
            raise UndecodableError(f"the schema registry knows no schema id {number}{hint}")
        text = self._expect(status, answer, "schema")
        kind = answer.get("schemaType", "AVRO")
        if kind != "AVRO" or answer.get("references"):
            raise UndecodableError(f"schema id {number} is not an Avro schema in one piece, but {kind} or in several")
        try:
            schema = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise UndecodableError(f"schema id {number} is no JSON: {error}") from error
        return schema if isinstance(schema, dict) else {"type": schema}

    def _call(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> tuple[int, Any]:
        try:
            response = self._http.request(method, self.url + path, headers=self._headers, body=_encoded(body))
        except urllib3.exceptions.HTTPError as error:
            raise TransientError(SERVICE, f"no answer from {self.url}: {type(error).__name__}") from error
        if response.status in (401, 403):
            raise TransientError(SERVICE, f"{self.url} refuses our credentials for {method} {path}")
        if response.status >= 500 or response.status in (408, 429):
            raise TransientError(SERVICE, f"{self.url} answered {response.status} to {method} {path}")
        try:
            return response.status, json.loads(response.data)
        except ValueError as error:
            what = f"{self.url} answered {response.status} and no JSON to {method} {path}: is it a schema registry?"
            raise TransientError(SERVICE, what) from error

    def _expect(self, status: int, answer: Any, key: str | None = None) -> Any:
        if status != 200 or (key is not None and (not isinstance(answer, dict) or key not in answer)):
            raise TransientError(SERVICE, f"{self.url} gave an answer not expected, {status}: {_message(answer)}")
        return answer if key is None else answer[key]


def _path(subject: str) -> str:
    return quote(subject, safe="")


def _encoded(body: Mapping[str, Any] | None) -> bytes | None:
    return None if body is None else json.dumps(body).encode()


def _code(status: int, answer: Any) -> int | None:
    """The registry's own error code; None where a 404 is not from a registry but from a wrong path or a proxy."""
    if status != 404 or not isinstance(answer, dict):
        return None
    code = answer.get("error_code")
    return code if isinstance(code, int) else None


def _message(answer: Any) -> str:
    message = answer.get("message") if isinstance(answer, dict) else answer
    return str(message)[:500]
