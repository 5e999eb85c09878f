"""Builds dead letters: the original bytes, with headers that say what was wrong, as Kafka Connect writes them.

The headers depend on the record and the reason alone, so a dead letter that is sent again is the same message.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from consumer.events.errors import UNREADABLE
from consumer.events.messages import Message

if TYPE_CHECKING:
    from consumer.partitions.records import Record

PREFIX = "__connect.errors."


def dead_letter(topic: str, record: Record, reason: str, message: str) -> Message:
    """The message for the dead-letter topic; `reason` is a word to filter by, `message` is for people."""
    ours = {
        "topic": record.partition.topic,
        "partition": str(record.partition.number),
        "offset": str(record.offset),
        "connector.name": "tensorfleet-worker",
        "task.id": "0",
        "stage": "VALUE_CONVERTER" if reason == UNREADABLE else "TASK_PUT",
        "class.name": "tensorfleet",
        "exception.class.name": reason,
        "exception.message": message,
    }
    kept = [(name, value) for name, value in record.headers if not name.startswith(PREFIX)]
    headers = [*kept, *((PREFIX + name, value.encode()) for name, value in ours.items())]
    return Message(topic, record.key, record.value, headers)
