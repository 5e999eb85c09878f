"""Defines errors about bytes and topics, and the reasons in dead letters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipeline.errors import RejectedError
from pipeline.jobs import ErrorKind

UNREADABLE = "UNREADABLE"
"""Bytes without a readable request_id: they can get no outcome."""
CONFLICT = "CONFLICT"
"""A request_id used again with other content: the first request stands."""
REASONS = (*ErrorKind, UNREADABLE, CONFLICT)


class UndecodableError(RejectedError):
    """The bytes of a message cannot be read as the record expected: a dead letter, never retried.

    Attributes:
        written: the record by its writer's own schema, with timestamps as plain numbers, if all bytes could be read
            with that schema although this release's schema does not fit; else None.
    """

    def __init__(self, message: str, written: Mapping[str, Any] | None = None) -> None:
        super().__init__(message)
        self.written = written


class UnknownSchemaIdError(UndecodableError):
    """The registry has no schema with the id in the bytes; it may be registered later."""


class MissingTopicsError(Exception):
    """Topics that are needed do not exist; the message names them and the remedy."""
