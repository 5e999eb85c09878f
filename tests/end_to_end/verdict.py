"""What really happened, read from topics, ledger, registry and artifacts without any code of the worker.

Only schemas, fastavro, pymongo, minio and hashlib are used here: a mistake of the worker cannot hide itself.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from io import BytesIO
from typing import Any

from confluent_kafka import Consumer, TopicPartition
from fastavro import parse_schema, schemaless_reader
from gridfs import GridFSBucket
from minio import Minio
from pymongo.database import Database

from pipeline.jobs import TrainingRequest
from schemas import Record, schema


@dataclass(frozen=True)
class Sent:
    """A record on the requests topic. `request` is None for bytes that are none."""

    partition: int
    offset: int
    value: bytes | None
    request: TrainingRequest | None


TERMINAL = {"REGISTERED", "REJECTED", "FAILED", "TIMED_OUT", "CANCELLED"}


@dataclass
class Verdict:
    """Counts for the reader; `violations` is empty if every promise was kept."""

    requests: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    dead_letters: int = 0
    models: int = 0
    trainings_repeated: int = 0
    violations: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        kinds = ", ".join(f"{kind} {count}" for kind, count in sorted(self.outcomes.items()))
        broken = "\n".join(self.violations) or "none"
        return (
            f"requests {self.requests}, outcomes: {kinds}; models {self.models}, dead letters {self.dead_letters}, "
            f"repeated {self.trainings_repeated}; violations: {broken}"
        )


def read_topic(bootstrap_servers: str, topic: str) -> list[Any]:
    """All records that a read_committed consumer sees, partition by partition, in order."""
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap_servers,
            "group.id": "verdict",
            "isolation.level": "read_committed",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "auto.offset.reset": "earliest",
            "fetch.message.max.bytes": 64 * 2**20,
        }
    )
    try:
        numbers = list(consumer.list_topics(topic, timeout=10).topics[topic].partitions)
        consumer.assign([TopicPartition(topic, number, 0) for number in numbers])
        records, ended = [], 0
        while ended < len(numbers):
            record = consumer.poll(20)
            assert record is not None, f"{topic} stands still"
            if record.error() is None:
                records.append(record)
            else:
                assert record.error().name() == "_PARTITION_EOF", record.error()
                ended += 1
    finally:
        consumer.close()
    return sorted(records, key=lambda record: (record.partition(), record.offset()))


def decode(value: bytes, record: Record) -> dict[str, Any]:
    """Single-object encoding, by the released schema."""
    assert value[:2] == b"\xc3\x01"
    body = BytesIO(value)
    body.seek(10)
    decoded = schemaless_reader(body, parse_schema(dict(schema(record))), None)
    assert isinstance(decoded, dict)
    return decoded


def judge(
    bootstrap_servers: str,
    prefix: str,
    database: Database[dict[str, Any]],
    s3: Minio | None,
    requests: Mapping[bytes, TrainingRequest],
    *,
    unreadable: int = 0,
) -> Verdict:
    """Compare everything that is on the requests topic with everything that is to be seen."""
    verdict = Verdict()
    sent = [
        Sent(r.partition(), r.offset(), r.value(), requests.get(r.value() or b""))
        for r in read_topic(bootstrap_servers, f"{prefix}training-requests")
    ]
    progress = [
        decode(r.value(), Record.TRAINING_PROGRESS) for r in read_topic(bootstrap_servers, f"{prefix}training-progress")
    ]
    registered = [
        decode(r.value(), Record.MODEL_REGISTERED) for r in read_topic(bootstrap_servers, f"{prefix}model-registered")
    ]
    dead = read_topic(bootstrap_servers, f"{prefix}training-requests.dlq")
    outcomes = {document["request_id"]: document for document in database["training_outcomes"].find()}
    models = {document["request_id"]: document for document in database["model_registry"].find()}
    homes = _homes(sent)
    verdict.requests, verdict.models, verdict.dead_letters = len(homes), len(models), len(dead)
    verdict.outcomes.update(document["kind"] for document in outcomes.values())
    _check_outcomes(verdict, homes, outcomes, progress)
    _check_models(verdict, outcomes, models, registered)
    _check_versions(verdict, homes, models)
    _check_dead_letters(verdict, sent, outcomes, dead, unreadable)
    for document in models.values():
        _check_artifact(verdict, database, s3, document)
    started = Counter(event["request_id"] for event in progress if event["state"] == "STARTED")
    verdict.trainings_repeated = sum(count - 1 for count in started.values())
    return verdict


def _homes(sent: Sequence[Sent]) -> dict[str, Sent]:
    """The first record of each request_id in the topic's order of partitions."""
    homes: dict[str, Sent] = {}
    for one in sorted(sent, key=lambda s: (s.partition, s.offset)):
        if one.request is not None:
            homes.setdefault(one.request.request_id, one)
    return homes


def _check_outcomes(
    verdict: Verdict,
    homes: Mapping[str, Sent],
    outcomes: Mapping[str, dict[str, Any]],
    progress: Sequence[dict[str, Any]],
) -> None:
    terminal: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for event in progress:
        if event["state"] in TERMINAL:
            terminal[event["request_id"]].append(event)
    for request_id in homes.keys() - outcomes.keys():
        verdict.violations.append(f"lost: {request_id} has no outcome")
    for request_id in outcomes.keys() - homes.keys():
        verdict.violations.append(f"invented: {request_id}")
    for request_id, outcome in outcomes.items():
        events = terminal[request_id]
        if len(events) != 1:
            verdict.violations.append(f"{request_id} has {len(events)} terminal events")
        for event in events:
            if (event["state"], event["attempt"]) != (outcome["kind"], outcome["attempt"]):
                verdict.violations.append(f"event {event['state']} is not outcome {outcome['kind']}: {request_id}")
            error = outcome["error"]
            if (event["error"] or {}).get("message") != (error or {}).get("message"):
                verdict.violations.append(f"event's error is not the outcome's: {request_id}")


def _check_models(
    verdict: Verdict,
    outcomes: Mapping[str, dict[str, Any]],
    models: Mapping[str, dict[str, Any]],
    registered: Sequence[dict[str, Any]],
) -> None:
    events = Counter(event["request_id"] for event in registered)
    wanted = {request_id for request_id, outcome in outcomes.items() if outcome["kind"] == "REGISTERED"}
    if wanted != models.keys():
        verdict.violations.append(f"REGISTERED outcomes and documents differ: {wanted ^ models.keys()}")
    if events != Counter(wanted):
        verdict.violations.append(f"model-registered events differ from outcomes: {events - Counter(wanted)}")
    for event in registered:
        document = models.get(event["request_id"])
        if document is None:
            continue
        for name, value in event.items():
            if name == "event_id":
                continue
            stored = document[name]
            if name == "hyperparameters":
                value = {key: json.loads(text) for key, text in value.items()}
            if isinstance(value, datetime):
                stored = stored.replace(tzinfo=value.tzinfo)
            if value != stored:
                verdict.violations.append(f"event ≠ document in {name}: {value!r} ≠ {stored!r} ({event['request_id']})")


def _check_versions(verdict: Verdict, homes: Mapping[str, Sent], models: Mapping[str, dict[str, Any]]) -> None:
    by_model: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    for document in models.values():
        by_model[document["project"], document["model_name"]].append(document)
    for name, documents in by_model.items():
        documents.sort(key=lambda document: document["version_number"])
        numbers = [document["version_number"] for document in documents]
        if numbers != list(range(1, len(numbers) + 1)):
            verdict.violations.append(f"versions of {name} are {numbers}")
        if any(document["version"] != f"v{document['version_number']}" for document in documents):
            verdict.violations.append(f"version and version_number of {name} differ")
        offsets: dict[int, list[int]] = defaultdict(list)
        for document in documents:
            home = homes[document["request_id"]]
            offsets[home.partition].append(home.offset)
        if any(order != sorted(order) for order in offsets.values()):
            verdict.violations.append(f"versions of {name} are not in topic order: {dict(offsets)}")


def _check_dead_letters(
    verdict: Verdict,
    sent: Sequence[Sent],
    outcomes: Mapping[str, dict[str, Any]],
    dead: Sequence[Any],
    unreadable: int,
) -> None:
    originals = {(one.partition, one.offset): one.value for one in sent}
    places: Counter[tuple[int, int]] = Counter()
    for record in dead:
        headers = dict(record.headers())
        place = (int(headers["__connect.errors.partition"]), int(headers["__connect.errors.offset"]))
        places[place] += 1
        if record.value() != originals.get(place):
            verdict.violations.append(f"the dead letter of {place} does not have the original bytes")
        if not headers.get("__connect.errors.exception.message"):
            verdict.violations.append(f"the dead letter of {place} does not say why")
    if twice := [place for place, count in places.items() if count > 1]:
        verdict.violations.append(f"dead letters twice: {twice}")
    rejected = sum(outcome["kind"] == "REJECTED" for outcome in outcomes.values())
    crashed = sum((o["error"] or {}).get("kind") in ("TRAINER_CRASHED", "WORKER_LOST") for o in outcomes.values())
    if len(dead) != rejected + crashed + unreadable:
        verdict.violations.append(f"{len(dead)} dead letters; expected {rejected} + {crashed} + {unreadable}")


def _check_artifact(
    verdict: Verdict, database: Database[dict[str, Any]], s3: Minio | None, document: Mapping[str, Any]
) -> None:
    uri = document["artifact_uri"]
    if uri.startswith("s3://"):
        assert s3 is not None
        bucket, _, key = uri.removeprefix("s3://").partition("/")
        content = s3.get_object(bucket, key).read()
    else:
        files = list(database["fs.files"].find({"metadata.sha256": document["artifact_sha256"]}))
        content = GridFSBucket(database).open_download_stream(files[0]["_id"]).read() if files else b""
    if hashlib.sha256(content).hexdigest() != document["artifact_sha256"]:
        verdict.violations.append(f"the artifact {uri} does not have its sha256")
    if len(content) != document["artifact_bytes"]:
        verdict.violations.append(f"the artifact {uri} has {len(content)} bytes, not {document['artifact_bytes']}")
