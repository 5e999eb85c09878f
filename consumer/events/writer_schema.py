"""Parses and checks the schema that a message was written with: ours, or one from the registry."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from fastavro import parse_schema
from fastavro.schema import SchemaParseException, UnknownType

MAX_NODES = 10_000
"""The most types in a schema with every name expanded; ours have under 100."""
MOST_TYPES_OF_AN_ITEM = 200
"""The most types in an item of an array or map: a message may have an item per byte, and each type costs time."""
MAX_PARTS = 100_000
"""The most values in a schema's JSON: parsing more would take seconds."""


class UnusableSchemaError(Exception):
    """A schema that is not valid Avro, or with which a few bytes could cause endless work."""


@dataclass(frozen=True, slots=True)
class WriterSchema:
    """A schema parsed once: `parsed` as it is, `plain` without logical types, which can read an invalid date."""

    name: str
    parsed: Any
    plain: Any

    @classmethod
    def of(cls, written: Mapping[str, Any]) -> WriterSchema:
        """Parse a schema.  Raises UnusableSchemaError."""
        _check_size(written)
        try:
            parsed: Any = parse_schema(dict(written))
            plain = parse_schema(_without_logical_types(written))
        except _INVALID as error:
            raise UnusableSchemaError(f"it is not valid Avro: {str(error)[:500] or type(error).__name__}") from error
        if "fields" not in parsed:
            raise UnusableSchemaError("it is not a record")
        for count, _ in enumerate(_types(parsed, parsed["__named_schemas"], ())):
            if count == MAX_NODES:
                raise UnusableSchemaError(f"it has more than {MAX_NODES:,} types")
        return cls(str(parsed["name"]), parsed, plain)


_INVALID = (
    *(SchemaParseException, UnknownType, ValueError, TypeError, LookupError, AttributeError, RecursionError),
    OverflowError,
)
"""What parsing a foreign schema raises."""


def _check_size(written: Any) -> None:
    level, count = [written], 0
    while level:
        count += len(level)
        if count > MAX_PARTS:
            raise UnusableSchemaError(f"its JSON has more than {MAX_PARTS:,} values")
        level = [part for one in level if isinstance(one, list | dict) for part in _parts(one)]


def _parts(node: list[Any] | dict[str, Any]) -> list[Any]:
    return node if isinstance(node, list) else list(node.values())


def _without_logical_types(node: Any) -> Any:
    if isinstance(node, Mapping):
        return {key: _without_logical_types(value) for key, value in node.items() if key != "logicalType"}
    if isinstance(node, list):
        return [_without_logical_types(one) for one in node]
    return node


def _types(node: Any, named: Mapping[str, Any], enclosing: tuple[str, ...]) -> Iterator[None]:
    """One item per type in this one, following names; refuses recursion, and arrays whose items take no bytes."""
    yield
    if isinstance(node, list):
        for branch in node:
            yield from _types(branch, named, enclosing)
    elif isinstance(node, str) and node in named:
        if node in enclosing:
            raise UnusableSchemaError(f"it is recursive in {node}")
        yield from _types(named[node], named, enclosing)
    elif isinstance(node, Mapping):
        if "fields" in node:
            for field in node["fields"]:
                if not isinstance(field["name"], str):
                    raise UnusableSchemaError("it has a field whose name is not text")
                yield from _types(field["type"], named, (*enclosing, node["name"]))
        elif node["type"] == "array":
            yield from _few(_types(node["items"], named, enclosing))
            if _takes_no_bytes(node["items"], named):
                raise UnusableSchemaError("it has an array whose items take no bytes")
        elif node["type"] == "map":
            yield from _few(_types(node["values"], named, enclosing))
        elif not isinstance(node["type"], str):
            yield from _types(node["type"], named, enclosing)


def _few(types: Iterator[None]) -> Iterator[None]:
    """The same types, at most MOST_TYPES_OF_AN_ITEM, for the items of an array or the values of a map."""
    for number, one in enumerate(types):
        if number >= MOST_TYPES_OF_AN_ITEM:
            raise UnusableSchemaError(f"it has an array or a map whose items are of more than {number} types")
        yield one


def _takes_no_bytes(node: Any, named: Mapping[str, Any]) -> bool:
    """Whether a value of this type may take zero bytes; a name inside itself counts as taking none."""
    if isinstance(node, str):
        return node == "null" or (node in named and _takes_no_bytes(named[node], {**named, node: "null"}))
    if not isinstance(node, Mapping):
        return False
    if "fields" in node:
        return all(_takes_no_bytes(field["type"], named) for field in node["fields"])
    if node["type"] == "fixed":
        return bool(node["size"] <= 0)
    return _takes_no_bytes(node["type"], named)
