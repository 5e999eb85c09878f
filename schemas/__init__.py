"""The Avro schemas of all Kafka messages, and the AsyncAPI document that assigns them to topics.

Package data, read on first use.  Readers never change it: treat what is returned as read-only.  The schema of a record
is the file of its topic.  A release that changes one moves the former text to `earlier/`, where readers still find it.
Record names and the namespace never change, and every later field is `["null", T]` with default null.
"""

from __future__ import annotations

import json
from enum import StrEnum
from functools import cache
from importlib.resources import files
from typing import Any

NAMESPACE = "io.tensorfleet.v1"


class RecordType(StrEnum):
    """The record names, each the value type of one topic."""

    TRAINING_REQUEST = "TrainingRequest"
    TRAINING_CONTROL = "TrainingControl"
    TRAINING_PROGRESS = "TrainingProgress"
    MODEL_REGISTERED = "ModelRegistered"
    MODEL_ALIAS_CHANGED = "ModelAliasChanged"

    @property
    def full_name(self) -> str:
        return f"{NAMESPACE}.{self.value}"

    @property
    def topic(self) -> str:
        """The topic, without TOPIC_PREFIX; the schema's file has the same name."""
        return _TOPICS[self]


_TOPICS = {
    RecordType.TRAINING_REQUEST: "training-requests",
    RecordType.TRAINING_CONTROL: "training-control",
    RecordType.TRAINING_PROGRESS: "training-progress",
    RecordType.MODEL_REGISTERED: "model-registered",
    RecordType.MODEL_ALIAS_CHANGED: "model-aliases",
}


@cache
def text(record: RecordType) -> str:
    """The schema's text, including comments for people."""
    return (files(__name__) / f"{record.topic}.avsc").read_text("utf-8")


@cache
def schema(record: RecordType) -> dict[str, Any]:
    """The schema that this release writes, and reads into."""
    loaded: dict[str, Any] = json.loads(text(record))
    return loaded


@cache
def released(record: RecordType) -> tuple[dict[str, Any], ...]:
    """Every released schema of this record, the current one first."""
    earlier = files(__name__) / "earlier"
    names = sorted(f.name for f in earlier.iterdir()) if earlier.is_dir() else []
    former = [json.loads((earlier / name).read_text("utf-8")) for name in names if name.endswith(".avsc")]
    return (schema(record), *(one for one in former if one["name"] == record.value))


@cache
def asyncapi() -> str:
    """The AsyncAPI 3.0 document (YAML) of all topics, keys, headers and messages."""
    return (files(__name__) / "asyncapi.yaml").read_text("utf-8")
