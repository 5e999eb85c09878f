"""The schemas keep the rules that let other languages and other releases read them, and old bytes stay readable."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from consumer.events.codec import Codec
from consumer.events.framing import fingerprint_of
from consumer.events.messages import CONTENT_TYPE
from consumer.events.topics import Topics
from schemas import RecordType, asyncapi, released, schema, text

GOLDEN = sorted((Path(__file__).parent.parent / "golden").glob("v*/*.bin"))
ASYNCAPI_SCHEMA = Path(__file__).parent / "data" / "asyncapi-3.0.0.json"
INCOMING = (RecordType.TRAINING_REQUEST, RecordType.TRAINING_CONTROL)


def types_in(node: Any) -> Iterator[dict[str, Any]]:
    if isinstance(node, dict):
        yield node
        node = list(node.values())
    if isinstance(node, list):
        for part in node:
            yield from types_in(part)


def fields_of(record: RecordType) -> list[dict[str, Any]]:
    return [field for part in types_in(schema(record)) if part.get("type") == "record" for field in part["fields"]]


def expected(golden: Path) -> tuple[RecordType, dict[str, Any], str]:
    document = json.loads(golden.with_suffix(".json").read_text("utf-8"))
    value = {
        name: datetime.fromisoformat(field) if name.endswith("_at") and field is not None else field
        for name, field in document["value"].items()
    }
    return RecordType(document["record"]), value, document["fingerprint"]


def without_later_fields(decoded: Any, written: Any) -> Any:
    """What was decoded without the fields that the writer did not know, which are null, in records within it too."""
    if isinstance(decoded, dict) and isinstance(written, dict):
        assert all(decoded[name] is None for name in decoded.keys() - written.keys())
        return {name: without_later_fields(decoded[name], written[name]) for name in written}
    if isinstance(decoded, list) and isinstance(written, list) and len(decoded) == len(written):
        return [without_later_fields(*pair) for pair in zip(decoded, written, strict=True)]
    return decoded


@pytest.mark.parametrize("golden", GOLDEN, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_bytes_of_every_release_are_still_read(golden: Path) -> None:
    record, value, _ = expected(golden)
    assert without_later_fields(Codec().decode(golden.read_bytes(), record), value) == value


@pytest.mark.parametrize("golden", GOLDEN, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_what_this_release_writes_is_what_is_kept_as_golden(golden: Path) -> None:
    record, value, fingerprint = expected(golden)
    if f"{fingerprint_of(schema(record)).number:016x}" == fingerprint:
        assert Codec().encode(record, value) == golden.read_bytes()


@pytest.mark.parametrize("record", RecordType)
def test_golden_bytes_are_kept_of_every_released_schema(record: RecordType) -> None:
    kept = {expected(golden)[2] for golden in GOLDEN}
    assert {f"{fingerprint_of(one).number:016x}" for one in released(record)} <= kept


@pytest.mark.parametrize("record", RecordType)
def test_names_never_change(record: RecordType) -> None:
    assert schema(record)["name"] == record.value
    assert f"{schema(record)['namespace']}.{record.value}" == record.full_name == f"io.tensorfleet.v1.{record.value}"


@pytest.mark.parametrize("record", RecordType)
def test_every_record_enum_and_field_is_explained(record: RecordType) -> None:
    named = [part for part in types_in(schema(record)) if part.get("type") in ("record", "enum")]
    assert all(part.get("doc") for part in [*named, *fields_of(record)])


@pytest.mark.parametrize("record", RecordType)
def test_nullable_fields_are_null_first_with_default_null(record: RecordType) -> None:
    for field in fields_of(record):
        if isinstance(field["type"], list):
            assert field["type"][0] == "null", field["name"]
            assert field["default"] is None, field["name"]
            assert len(field["type"]) == 2, field["name"]


@pytest.mark.parametrize("record", RecordType)
def test_enums_exist_only_in_outgoing_events_and_know_unknown(record: RecordType) -> None:
    enums = [part for part in types_in(schema(record)) if part.get("type") == "enum"]
    assert not (enums and record in INCOMING)
    assert all(one["default"] == "UNKNOWN" and "UNKNOWN" in one["symbols"] for one in enums)


@pytest.mark.parametrize("record", RecordType)
def test_timestamps_are_milliseconds_and_there_is_no_other_logical_type(record: RecordType) -> None:
    logical = {part["logicalType"] for part in types_in(schema(record)) if "logicalType" in part}
    assert logical == {"timestamp-millis"}


def test_a_text_is_what_its_schema_was_read_from() -> None:
    assert all(json.loads(text(record)) == schema(record) for record in RecordType)


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(asyncapi())
    return loaded


def test_the_asyncapi_document_is_valid(document: dict[str, Any]) -> None:
    jsonschema.Draft7Validator(json.loads(ASYNCAPI_SCHEMA.read_text("utf-8"))).validate(document)


def test_the_asyncapi_document_names_every_record_and_its_schema(document: dict[str, Any]) -> None:
    messages = document["components"]["messages"]
    assert set(messages) == {*RecordType, "DeadLetter"}
    for record in RecordType:
        assert messages[record]["name"] == record.full_name
        assert messages[record]["payload"]["schema"]["$ref"] == f"./{record.topic}.avsc"
        assert messages[record]["contentType"] == CONTENT_TYPE == document["defaultContentType"]


def test_the_asyncapi_document_says_of_topics_what_topics_create_does(document: dict[str, Any]) -> None:
    channels = {channel["address"]: channel for channel in document["channels"].values()}
    topics = {topic.name: topic for topic in Topics().all()}
    assert channels.keys() == topics.keys()
    for name, topic in topics.items():
        bindings = channels[name]["bindings"]["kafka"]
        told = {
            key: ",".join(value) if isinstance(value, list) else str(value)
            for key, value in bindings["topicConfiguration"].items()
        }
        assert (bindings["topic"], bindings["partitions"], told) == (name, topic.partitions, dict(topic.config))
        assert list(channels[name]["messages"]) == [topic.record or "DeadLetter"]


def test_every_channel_has_one_operation(document: dict[str, Any]) -> None:
    used = [operation["channel"]["$ref"].rsplit("/", 1)[1] for operation in document["operations"].values()]
    assert sorted(used) == sorted(document["channels"])
    actions = {one["channel"]["$ref"].rsplit("/", 1)[1]: one["action"] for one in document["operations"].values()}
    assert {channel for channel, action in actions.items() if action == "receive"} == {
        "trainingRequests",
        "trainingControl",
    }


def test_every_reference_inside_the_document_leads_somewhere(document: dict[str, Any]) -> None:
    for reference in (part["$ref"] for part in types_in(document) if "$ref" in part):
        node: Any = document
        if reference.startswith("#/"):
            for name in reference[2:].split("/"):
                node = node[name]


def test_names_of_topics_begin_with_the_prefix() -> None:
    topics = Topics("staging.")
    assert topics.dead_letters == "staging.training-requests.dlq"
    assert {topic.name for topic in topics.all()} == {
        topics.training_requests,
        topics.training_control,
        topics.training_progress,
        topics.model_registered,
        topics.model_aliases,
        topics.dead_letters,
    }
    assert all(topic.record is None or topics.of(topic.record) == topic.name for topic in topics.all())


def test_a_request_that_its_topic_takes_fits_into_the_dead_letters() -> None:
    limits = {topic.name: int(topic.config.get("max.message.bytes", 0)) for topic in Topics().all()}
    assert 1024 * 1024 < limits["training-requests"] < limits["training-requests.dlq"]
