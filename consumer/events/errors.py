"""Errors about bytes and topics, and the reasons that dead letters give."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipeline.errors import RejectedError
from pipeline.jobs import ErrorKind

UNREADABLE = "UNREADABLE"
"""Bytes without a request_id that could be read: there is nobody to answer to."""
CONFLICT = "CONFLICT"
"""A request_id used again with other content: the first request stands."""
REASONS = (*ErrorKind, UNREADABLE, CONFLICT)


class UndecodableError(RejectedError):
    """The bytes of a message cannot be read as the record expected: a dead letter, never tried again.

    Attributes:
        written: what the bytes say by their writer's own schema, with timestamps as plain numbers, where that could
            be read to the last byte although this release's schema does not fit; else None.
    """

    def __init__(self, message: str, written: Mapping[str, Any] | None = None) -> None:
        super().__init__(message)
        self.written = written


class UnknownSchemaIdError(UndecodableError):
    """The registry knows no schema by the id that the bytes name; it may be registered later."""


class MissingTopicsError(Exception):
    """Topics that are needed do not exist; the message names them and the remedy."""
