"""Reads and builds the commands of the topic training-control."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from consumer.events.codec import Codec
from consumer.events.errors import UndecodableError
from consumer.events.requests import check_request_id, moment
from pipeline.ledger import Cancel
from schemas import RecordType

CANCEL = "CANCEL"
MAX_TEXT_CHARACTERS = 1_000


@dataclass(frozen=True, slots=True)
class CancelRequest:
    """A command to stop this request."""

    request_id: str
    cancel: Cancel


def read_control(codec: Codec, value: bytes | None, *, timestamp_ms: int) -> CancelRequest | None:
    """The command in a record of the topic; None for a tombstone, which compaction may leave.

    Raises UndecodableError, and TransientError if the schema registry is needed and down.
    """
    if value is None:
        return None
    record = codec.decode(value, RecordType.TRAINING_CONTROL)
    check_request_id(record["request_id"])
    if record["command"] != CANCEL:
        raise UndecodableError(f"unknown command {record['command'][:100]!r}; the only one is {CANCEL}")
    cancel = Cancel(
        reason=record["reason"][:MAX_TEXT_CHARACTERS],
        user=record["user"][:MAX_TEXT_CHARACTERS],
        requested_at=record["requested_at"] or moment(timestamp_ms),
    )
    return CancelRequest(record["request_id"], cancel)


def cancel_command(request_id: str, *, reason: str, user: str, requested_at: datetime) -> dict[str, Any]:
    """The record of a command to stop a request."""
    return {
        "command": CANCEL,
        "request_id": request_id,
        "reason": reason,
        "user": user,
        "requested_at": requested_at,
    }
