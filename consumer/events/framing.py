"""Reads and writes the bytes before an Avro body that name its writer's schema.

Confluent wire format: 0x00, then the registry's schema id, 4 bytes big-endian.
Avro single-object encoding: 0xC3 0x01, then the CRC-64-AVRO fingerprint of the schema's Parsing Canonical Form, 8
bytes little-endian (Avro specification 1.12, "Single-object encoding").  Readers tell them apart by the first byte.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fastavro.schema import fingerprint, to_parsing_canonical_form

from consumer.events.errors import UndecodableError

_CONFLUENT = struct.Struct(">BI")
_SINGLE_OBJECT = struct.Struct("<2sQ")
_SINGLE_OBJECT_MAGIC = b"\xc3\x01"


@dataclass(frozen=True, slots=True)
class SchemaId:
    """A schema by its number in a registry."""

    number: int

    header_bytes = _CONFLUENT.size

    def __str__(self) -> str:
        return f"schema id {self.number}"


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """A schema by its CRC-64-AVRO, an unsigned 64-bit number, shown as 16 hexadecimal digits as Java does."""

    number: int

    header_bytes = _SINGLE_OBJECT.size

    def __str__(self) -> str:
        return f"fingerprint {self.number:016x}"


SchemaReference = SchemaId | Fingerprint


def fingerprint_of(schema: Mapping[str, Any]) -> Fingerprint:
    """The fingerprint of a schema; documentation and defaults do not change it."""
    little_endian = fingerprint(to_parsing_canonical_form(dict(schema)), "CRC-64-AVRO")
    return Fingerprint(int.from_bytes(bytes.fromhex(little_endian), "little"))


def header(reference: SchemaReference) -> bytes:
    """The bytes before the Avro body."""
    if isinstance(reference, SchemaId):
        return _CONFLUENT.pack(0, reference.number)
    return _SINGLE_OBJECT.pack(_SINGLE_OBJECT_MAGIC, reference.number)


def reference_in(value: bytes) -> SchemaReference:
    """The schema that the first bytes name; the body begins at `header_bytes`.  Raises UndecodableError."""
    first = value[:1]
    if first == b"\x00":
        if len(value) < _CONFLUENT.size:
            raise UndecodableError(f"cut off inside the Confluent header: {len(value)} bytes, the header has 5")
        return SchemaId(_CONFLUENT.unpack_from(value)[1])
    if first == b"\xc3":
        if len(value) < _SINGLE_OBJECT.size:
            raise UndecodableError(f"cut off inside the single-object header: {len(value)} bytes, the header has 10")
        magic, number = _SINGLE_OBJECT.unpack_from(value)
        if magic == _SINGLE_OBJECT_MAGIC:
            return Fingerprint(number)
    raise UndecodableError(f"{_what_it_looks_like(value)}; {_WHAT_WOULD_BE_RIGHT}")


_WHAT_WOULD_BE_RIGHT = (
    "expected Avro in the Confluent wire format (first byte 00) or in single-object encoding (first bytes c3 01)"
)


def _what_it_looks_like(value: bytes) -> str:
    if not value:
        return "the value is empty"
    if value.lstrip()[:1] in (b"{", b"[", b'"'):
        return "the value looks like JSON"
    if value[:4] == b"Obj\x01":
        return "the value is an Avro container file"
    return f"the value begins with {value[:2].hex(' ')}, which is no framing known here"
