"""Both framings, over a real schema registry."""

from __future__ import annotations

import copy
import json
import uuid
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import urllib3

from consumer.events.codec import Codec
from consumer.events.errors import UndecodableError
from consumer.events.framing import Fingerprint, SchemaId, reference_in
from consumer.events.requests import Received, read_request
from consumer.events.schema_registry import COMPATIBILITY, IncompatibleSchemaError, SchemaRegistry
from pipeline.errors import TransientError
from schemas import RecordType, schema
from tests.services.schema_registry import SchemaRegistry as RunningRegistry

REQUEST = {
    "request_id": "r-1",
    "job_name": "churn",
    "algorithm": "random_forest",
    "dataset_name": "iris",
    "hyperparameters": {"n_estimators": 200, "max_depth": None, "class_weight": "balanced", "ccp_alpha": 0.5},
}


@pytest.fixture
def registry(schema_registry: RunningRegistry) -> SchemaRegistry:
    return SchemaRegistry(schema_registry.url)


@pytest.fixture
def prefix() -> str:
    return f"t{uuid.uuid4().hex[:12]}."


@pytest.fixture
def codec(registry: SchemaRegistry, prefix: str) -> Codec:
    codec = Codec(registry, prefix)
    codec.prepare()
    return codec


@pytest.fixture(params=["Confluent wire format", "single-object encoding"])
def writer(request: pytest.FixtureRequest, codec: Codec) -> Codec:
    return codec if request.param == "Confluent wire format" else Codec()


def with_field(name: str, kind: Any, **more: Any) -> dict[str, Any]:
    evolved = copy.deepcopy(schema(RecordType.TRAINING_REQUEST))
    evolved["fields"].append({"name": name, "type": kind, "doc": "Of a later release.", **more})
    return evolved


def test_a_codec_with_a_registry_reads_both_framings(writer: Codec, codec: Codec) -> None:
    value = writer.encode(RecordType.TRAINING_REQUEST, REQUEST)
    assert codec.decode(value, RecordType.TRAINING_REQUEST)["hyperparameters"] == REQUEST["hyperparameters"]


def test_a_codec_writes_ids_with_a_registry_and_fingerprints_without(codec: Codec) -> None:
    assert isinstance(reference_in(codec.encode(RecordType.TRAINING_REQUEST, REQUEST)), SchemaId)
    assert isinstance(reference_in(Codec().encode(RecordType.TRAINING_REQUEST, REQUEST)), Fingerprint)


def test_a_request_has_one_content_whatever_its_framing(writer: Codec, codec: Codec) -> None:
    received = read_request(codec, writer.encode(RecordType.TRAINING_REQUEST, REQUEST), headers=None, timestamp_ms=1)
    plain = read_request(Codec(), Codec().encode(RecordType.TRAINING_REQUEST, REQUEST), headers=None, timestamp_ms=2)
    assert isinstance(received, Received)
    assert isinstance(plain, Received)
    assert received.sha256 == plain.sha256


def test_a_worker_that_did_not_write_an_id_looks_it_up(codec: Codec, registry: SchemaRegistry) -> None:
    value = codec.encode(RecordType.TRAINING_REQUEST, REQUEST)
    assert Codec(registry).decode(value, RecordType.TRAINING_REQUEST)["request_id"] == "r-1"


def test_every_subject_is_full_transitive(codec: Codec, registry: SchemaRegistry) -> None:
    assert {registry.compatibility(codec.subject(record)) for record in RecordType} == {COMPATIBILITY}


def test_a_subject_left_without_its_rule_gets_it(codec: Codec, registry: SchemaRegistry) -> None:
    """A worker may have died between registering the schema and setting the rule."""
    registry.set_compatibility(codec.subject(RecordType.TRAINING_REQUEST), "BACKWARD")
    codec.prepare()
    assert registry.compatibility(codec.subject(RecordType.TRAINING_REQUEST)) == COMPATIBILITY


def test_preparing_again_changes_nothing(codec: Codec, registry: SchemaRegistry, prefix: str) -> None:
    again = Codec(registry, prefix)
    again.prepare()
    for record in RecordType:
        assert registry.versions(codec.subject(record)) == [1]
    assert again.encode(RecordType.TRAINING_REQUEST, REQUEST) == codec.encode(RecordType.TRAINING_REQUEST, REQUEST)


def test_workers_that_start_at_once_publish_their_schemas_side_by_side(
    schema_registry: RunningRegistry, registry: SchemaRegistry, prefix: str
) -> None:
    for number in range(5):
        codecs = [Codec(SchemaRegistry(schema_registry.url), f"{prefix}{number}.") for _ in range(8)]
        with ThreadPoolExecutor(len(codecs)) as threads:
            list(threads.map(Codec.prepare, codecs))
        written = {codec.encode(RecordType.TRAINING_REQUEST, REQUEST) for codec in codecs}
        assert len(written) == 1
        assert {registry.compatibility(codecs[0].subject(record)) for record in RecordType} == {COMPATIBILITY}


def test_a_nullable_field_with_default_null_may_be_added(codec: Codec, registry: SchemaRegistry) -> None:
    subject = codec.subject(RecordType.TRAINING_REQUEST)
    evolved = with_field("priority", ["null", "int"], default=None)
    assert registry.incompatibilities(subject, evolved) == []
    registry.publish(subject, evolved)
    assert registry.versions(subject) == [1, 2]


@pytest.mark.parametrize(
    "evolved",
    [
        with_field("priority", "int"),
        {**schema(RecordType.TRAINING_REQUEST), "fields": schema(RecordType.TRAINING_REQUEST)["fields"][1:]},
    ],
    ids=["a field without default", "a field without default is gone"],
)
def test_an_incompatible_change_is_refused(codec: Codec, registry: SchemaRegistry, evolved: dict[str, Any]) -> None:
    subject = codec.subject(RecordType.TRAINING_REQUEST)
    assert registry.incompatibilities(subject, evolved)
    with pytest.raises(IncompatibleSchemaError, match=subject):
        registry.publish(subject, evolved)
    assert registry.versions(subject) == [1]


def test_a_request_of_a_later_release_is_read(codec: Codec, registry: SchemaRegistry) -> None:
    evolved = with_field("priority", ["null", "int"], default=None)
    number = registry.publish(codec.subject(RecordType.TRAINING_REQUEST), evolved)
    ours = codec.encode(RecordType.TRAINING_REQUEST, REQUEST)
    theirs = b"\0" + number.to_bytes(4, "big") + ours[5:] + b"\x02\x0e"
    assert codec.decode(theirs, RecordType.TRAINING_REQUEST) == codec.decode(ours, RecordType.TRAINING_REQUEST)


def test_an_unknown_schema_id_is_undecodable(codec: Codec) -> None:
    with pytest.raises(UndecodableError, match="knows no schema id 2000000000"):
        codec.decode(b"\0" + (2_000_000_000).to_bytes(4, "big") + b"x", RecordType.TRAINING_REQUEST)


def test_an_apicurio_8_byte_id_is_explained(codec: Codec) -> None:
    with pytest.raises(UndecodableError, match="4-byte"):
        codec.decode(b"\0" + (7).to_bytes(8, "big") + b"x", RecordType.TRAINING_REQUEST)


def test_another_record_under_the_id_is_named(codec: Codec) -> None:
    value = codec.encode(RecordType.TRAINING_CONTROL, {"command": "CANCEL", "request_id": "r-1"})
    with pytest.raises(UndecodableError, match=r"is a io\.tensorfleet\.v1\.TrainingControl; expected .*Request"):
        codec.decode(value, RecordType.TRAINING_REQUEST)


def test_json_schemas_are_no_avro(codec: Codec, schema_registry: RunningRegistry, prefix: str) -> None:
    answer = urllib3.request(
        "POST",
        f"{schema_registry.url}/subjects/{prefix}json-value/versions",
        json={
            "schemaType": "JSON",
            "schema": json.dumps({"$schema": "http://json-schema.org/draft-07/schema#", "type": "object"}),
        },
        headers={"Content-Type": "application/vnd.schemaregistry.v1+json"},
    )
    assert answer.status == 200, answer.data
    number = answer.json()["id"]
    with pytest.raises(UndecodableError, match="not an Avro schema"):
        codec.decode(b"\0" + number.to_bytes(4, "big") + b"{}", RecordType.TRAINING_REQUEST)


def test_a_subject_that_is_not_there_has_neither_versions_nor_rules(registry: SchemaRegistry, prefix: str) -> None:
    subject = f"{prefix}nothing-value"
    assert registry.versions(subject) == []
    assert registry.lookup(subject, schema(RecordType.TRAINING_REQUEST)) is None
    assert registry.compatibility(subject) is None
    assert registry.incompatibilities(subject, schema(RecordType.TRAINING_REQUEST)) == []


def test_a_wrong_path_waits_instead_of_losing_requests(schema_registry: RunningRegistry) -> None:
    wrong = SchemaRegistry(schema_registry.url.replace("ccompat", "nothing"))
    with pytest.raises(TransientError, match="schema registry"):
        wrong.schema_by_id(1)
