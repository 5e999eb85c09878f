"""Defines the topics' names, and the configuration that `tensorfleet topics create` gives them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from consumer.events.codec import MAX_MESSAGE_BYTES
from schemas import RecordType

_DAY_MS = 24 * 60 * 60 * 1000
_ROOM_FOR_HEADERS_BYTES = 64 * 1024

DEAD_LETTERS = "training-requests.dlq"


@dataclass(frozen=True, slots=True)
class Topic:
    """A topic to create: `name` with its prefix, `config` with Kafka's keys, and the type of its records.

    `record` is None if the values are another topic's original bytes.
    """

    name: str
    record: RecordType | None
    partitions: int
    config: Mapping[str, str]


class Topics:
    """The names of all topics, each with TOPIC_PREFIX before it."""

    def __init__(self, prefix: str = "") -> None:
        self.prefix = prefix
        self.training_requests = prefix + RecordType.TRAINING_REQUEST.topic
        self.training_control = prefix + RecordType.TRAINING_CONTROL.topic
        self.training_progress = prefix + RecordType.TRAINING_PROGRESS.topic
        self.model_registered = prefix + RecordType.MODEL_REGISTERED.topic
        self.model_aliases = prefix + RecordType.MODEL_ALIAS_CHANGED.topic
        self.dead_letters = prefix + DEAD_LETTERS

    def of(self, record: RecordType) -> str:
        """The topic whose values are these records."""
        return self.prefix + record.topic

    def all(self) -> tuple[Topic, ...]:
        """Every topic with its default partitions and configuration."""
        return tuple(
            Topic(self.prefix + name, record, partitions, MappingProxyType(config))
            for name, record, partitions, config in _TOPICS
        )


def _deleted_after(days: int) -> dict[str, str]:
    return {"cleanup.policy": "delete", "retention.ms": str(days * _DAY_MS)}


_STAMPED = {"message.timestamp.type": "LogAppendTime"}
"""The broker stamps what workers write. Kafka refuses records stamped an hour ahead of it, so a worker with such a
clock could announce nothing; and a wrong clock must not decide when a record is deleted."""
LARGEST_DEAD_LETTER_BYTES = 32 * 1024 * 1024
"""Someone else may have created the requests topic with a higher limit; its records must fit into the dead letters."""

_TOPICS: tuple[tuple[str, RecordType | None, int, dict[str, str]], ...] = (
    (
        RecordType.TRAINING_REQUEST.topic,
        RecordType.TRAINING_REQUEST,
        12,
        _deleted_after(30) | {"max.message.bytes": str(MAX_MESSAGE_BYTES + _ROOM_FOR_HEADERS_BYTES)},
    ),
    (
        RecordType.TRAINING_CONTROL.topic,
        RecordType.TRAINING_CONTROL,
        3,
        {"cleanup.policy": "compact,delete", "retention.ms": str(7 * _DAY_MS)},
    ),
    (RecordType.TRAINING_PROGRESS.topic, RecordType.TRAINING_PROGRESS, 12, _deleted_after(7) | _STAMPED),
    (
        RecordType.MODEL_REGISTERED.topic,
        RecordType.MODEL_REGISTERED,
        6,
        {"cleanup.policy": "delete", "retention.ms": "-1", "retention.bytes": "-1"} | _STAMPED,
    ),
    (RecordType.MODEL_ALIAS_CHANGED.topic, RecordType.MODEL_ALIAS_CHANGED, 3, {"cleanup.policy": "compact"} | _STAMPED),
    (
        DEAD_LETTERS,
        None,
        3,
        _deleted_after(30) | _STAMPED | {"max.message.bytes": str(LARGEST_DEAD_LETTER_BYTES)},
    ),
)
