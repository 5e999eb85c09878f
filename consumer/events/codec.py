"""Encodes records to bytes and decodes them, in either framing.

Uses fastavro's schemaless reader and writer on schemas parsed once: about 1 µs a field.  A message written with another
version of a schema is resolved to this release's version, as the Avro specification says.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Mapping
from io import BytesIO
from typing import Any

from cachetools import FIFOCache
from fastavro import schemaless_reader, schemaless_writer
from fastavro.read import SchemaResolutionError
from fastavro.validation import validate

from consumer.events.errors import UndecodableError, UnknownSchemaIdError
from consumer.events.framing import Fingerprint, SchemaId, SchemaReference, fingerprint_of, header, reference_in
from consumer.events.schema_registry import SchemaRegistry
from consumer.events.writer_schema import UnusableSchemaError, WriterSchema
from schemas import RecordType, released, schema

MAX_MESSAGE_BYTES = 1024 * 1024
UNKNOWN_S = 1.0
"""The pause before the registry is asked again for an unknown id, which may be registered by then."""
MOST_REFUSED = 500
"""The most ids remembered as unknown or unusable; beyond that the oldest is forgotten."""

# What reading foreign bytes raises; _UNFITTING if the bytes may be complete but do not fit our schema.
_UNREADABLE = (EOFError, ValueError, TypeError, LookupError, OverflowError, SchemaResolutionError)
_UNFITTING = (OverflowError, SchemaResolutionError)


class Codec:
    """Encodes in the Confluent wire format with a registry, else in single-object encoding; decodes both.

    Any thread may use it once `prepare()` has returned.
    """

    def __init__(
        self,
        registry: SchemaRegistry | None = None,
        topic_prefix: str = "",
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.registry = registry
        self._topic_prefix = topic_prefix
        self._clock = clock
        self._refused: FIFOCache[SchemaId, tuple[str, float]] = FIFOCache(
            MOST_REFUSED
        )  # why, and until when the registry is not asked again
        self._refusing = threading.Lock()
        self._writers: dict[SchemaReference, WriterSchema] = {
            fingerprint_of(one): WriterSchema.of(one) for record in RecordType for one in released(record)
        }
        current = {record: fingerprint_of(schema(record)) for record in RecordType}
        self._readers = {record: self._writers[reference].parsed for record, reference in current.items()}
        self._headers = {record: header(reference) for record, reference in current.items()}
        self._prepared = registry is None

    def prepare(self) -> None:
        """Publish our schemas to the registry and learn their ids; safe to call again.

        Raises TransientError, and IncompatibleSchemaError if the registry refuses a schema.
        """
        if self.registry is None:
            return
        for record in RecordType:
            reference = SchemaId(self.registry.publish(self.subject(record), schema(record)))
            self._headers[record] = header(reference)
            self._writers[reference] = self._writers[fingerprint_of(schema(record))]
        self._prepared = True

    def subject(self, record: RecordType) -> str:
        """The registry's subject for a record: `<topic>-value`, topic prefix included."""
        return f"{self._topic_prefix}{record.topic}-value"

    def encode(self, record: RecordType, value: Mapping[str, Any]) -> bytes:
        """The framed bytes of a record; fields with a default may be left out.

        Raises ValueError or TypeError if the value does not fit the schema.
        """
        if not self._prepared:
            raise RuntimeError("Codec.prepare() comes first: ids of the schema registry are not known yet")
        buffer = BytesIO()
        buffer.write(self._headers[record])
        schemaless_writer(buffer, self._readers[record], value, strict_allow_default=True, disable_tuple_notation=True)
        return buffer.getvalue()

    def decode(self, value: bytes | None, record: RecordType) -> dict[str, Any]:
        """The record in these bytes, in this release's schema, with timestamps as aware datetimes.

        Raises UndecodableError if they hold no such record, TransientError if the registry is needed and down.
        """
        if value is None:
            raise UndecodableError("the value is null")
        if len(value) > MAX_MESSAGE_BYTES:
            raise UndecodableError(f"the value has {len(value):,} bytes; at most {MAX_MESSAGE_BYTES:,} are read")
        reference = reference_in(value)
        writer = self._writer(reference)
        if writer.name != record.full_name:
            raise UndecodableError(f"{reference} is a {writer.name[:100]}; expected {record.full_name}")
        return self._resolved(value, reference, writer, self._readers[record])

    def _writer(self, reference: SchemaReference) -> WriterSchema:
        writer = self._writers.get(reference)
        if writer is not None:
            return writer
        if isinstance(reference, Fingerprint):
            known = ", ".join(f"{one.number:016x} ({self._writers[one].name})" for one in self._fingerprints())
            raise UndecodableError(f"unknown schema {reference}; known are {known}")
        if self.registry is None:
            raise UndecodableError(f"{reference} cannot be looked up: SCHEMA_REGISTRY_URL is not set")
        return self._asked_for(reference, self.registry)

    def _asked_for(self, reference: SchemaId, registry: SchemaRegistry) -> WriterSchema:
        """The schema with this id, fetched and parsed once for all messages; a refusal is remembered too."""
        with self._refusing:
            reason, until = self._refused.get(reference, ("", -math.inf))
        if self._clock() >= until:
            try:
                return self._writers.setdefault(reference, WriterSchema.of(registry.schema_by_id(reference.number)))
            except UnknownSchemaIdError as error:
                reason, until = str(error), self._clock() + UNKNOWN_S
            except UndecodableError as error:
                reason, until = str(error), math.inf
            except UnusableSchemaError as error:
                reason, until = f"{reference} is not usable: {error}", math.inf
            self._refuse(reference, reason, until)
        raise UndecodableError(reason)

    def _refuse(self, reference: SchemaId, reason: str, until: float) -> None:
        with self._refusing:
            self._refused[reference] = (reason, until)

    def _fingerprints(self) -> list[Fingerprint]:
        return [reference for reference in self._writers if isinstance(reference, Fingerprint)]

    def _resolved(
        self, value: bytes, reference: SchemaReference, writer: WriterSchema, reader: dict[str, Any]
    ) -> dict[str, Any]:
        try:
            record = _read(value, reference.header_bytes, writer.parsed, reader)
        except _UNREADABLE as error:
            written = self._as_written(value, reference, writer) if isinstance(error, _UNFITTING) else None
            raise UndecodableError(f"not a {writer.name} by {reference}: {_reason(error)}", written) from error
        if writer.parsed is not reader and not validate(record, reader, raise_errors=False):
            # fastavro resolves by the underlying types alone: a decimal, which is bytes, to a string
            raise UndecodableError(f"{reference} gives a field another logical type than {writer.name} has")
        return record

    def _as_written(self, value: bytes, reference: SchemaReference, writer: WriterSchema) -> dict[str, Any] | None:
        try:
            return _read(value, reference.header_bytes, writer.plain, None)
        except _UNREADABLE:
            return None


def _read(value: bytes, start: int, writer: Any, reader: Any) -> dict[str, Any]:
    buffer = BytesIO(value)
    buffer.seek(start)
    record: Any = schemaless_reader(buffer, writer, None if reader is writer else reader)
    if rest := len(value) - buffer.tell():
        raise ValueError(f"{rest} bytes are left over behind the record")
    return dict(record)


def _reason(error: BaseException) -> str:
    if isinstance(error, EOFError):
        return "it ends in the middle of the record"
    if isinstance(error, OverflowError):
        return f"a value is out of range ({error})"
    if isinstance(error, UnicodeDecodeError):
        return "a string is not UTF-8"
    if isinstance(error, IndexError):
        return "a union or enum has no such branch or symbol"
    return str(error)[:500] or type(error).__name__
