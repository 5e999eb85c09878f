"""Builds topic, key, value and headers of a record (CloudEvents 1.0, Kafka binding, binary mode)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from consumer.events.codec import Codec
from consumer.events.topics import Topics
from schemas import RecordType

CONTENT_TYPE = "application/avro"

_KEYS = {
    RecordType.TRAINING_REQUEST: ("project", "model_name"),
    RecordType.TRAINING_CONTROL: ("request_id",),
    RecordType.TRAINING_PROGRESS: ("request_id",),
    RecordType.MODEL_REGISTERED: ("project", "model_name"),
    RecordType.MODEL_ALIAS_CHANGED: ("project", "model_name", "alias"),
}
_TIMES = {
    RecordType.TRAINING_REQUEST: "requested_at",
    RecordType.TRAINING_CONTROL: "requested_at",
    RecordType.TRAINING_PROGRESS: "occurred_at",
    RecordType.MODEL_REGISTERED: "created_at",
    RecordType.MODEL_ALIAS_CHANGED: "occurred_at",
}


@dataclass(frozen=True, slots=True)
class Message:
    """One record to produce."""

    topic: str
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes | None]]


def message(
    codec: Codec, topics: Topics, record: RecordType, event: Mapping[str, Any], traceparent: str | None = None
) -> Message:
    """The message of an event; the same event gives the same message."""
    return Message(
        topics.of(record),
        key_of(record, event),
        codec.encode(record, event),
        cloud_event_headers(record, event, traceparent),
    )


def key_of(record: RecordType, event: Mapping[str, Any]) -> bytes:
    """The key: plain UTF-8, parts joined by `/`; a request without model_name has its job_name there."""
    parts = {**event, "model_name": event.get("model_name") or event.get("job_name")}
    return "/".join(str(parts[name]) for name in _KEYS[record]).encode()


def cloud_event_headers(
    record: RecordType, event: Mapping[str, Any], traceparent: str | None = None
) -> list[tuple[str, bytes | None]]:
    """CloudEvents attributes of an event, and the ids that tie it to its request.

    ce_source does not name the worker: another worker may announce the event again, and must send the same bytes.
    """
    identity = event.get("event_id") or event["request_id"]
    headers = {
        "ce_specversion": "1.0",
        "ce_id": f"{identity}/{event['command']}" if record is RecordType.TRAINING_CONTROL else identity,
        "ce_type": record.full_name,
        "ce_source": f"/tensorfleet/{event['project']}" if "project" in event else "/tensorfleet",
        "ce_time": _rfc3339(event.get(_TIMES[record])),
        "content-type": CONTENT_TYPE,
        "correlation_id": event.get("correlation_id") or identity,
        "traceparent": traceparent,
    }
    return [(name, value.encode()) for name, value in headers.items() if value]


def _rfc3339(moment: datetime | None) -> str | None:
    if moment is None:
        return None
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
