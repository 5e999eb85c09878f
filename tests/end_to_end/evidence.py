"""What really happened, read from topics, ledger, registry and artifacts without any code of the worker.

Only schemas, fastavro, pymongo, minio and hashlib are used here: a mistake of the worker cannot hide itself.
`tests.end_to_end.verdict` judges it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from io import BytesIO
from typing import Any

from bson import ObjectId
from confluent_kafka import Consumer, TopicPartition
from fastavro import parse_schema, schemaless_reader
from fastavro.schema import fingerprint, to_parsing_canonical_form
from minio import Minio
from minio.error import S3Error
from pymongo.database import Database

from schemas import RecordType, schema

Document = dict[str, Any]
MARKER = b"\xc3\x01"
"""Avro single-object encoding; the fingerprint of the schema has the next eight bytes."""


@dataclass(frozen=True)
class Seen:
    """A record as a read_committed consumer sees it; `content` is what its value says, None if that cannot be read."""

    partition: int
    offset: int
    timestamp_ms: int
    value: bytes | None
    headers: Mapping[str, bytes] = field(default_factory=dict)
    content: Document | None = None

    @property
    def place(self) -> tuple[int, int]:
        return self.partition, self.offset


@dataclass(frozen=True)
class File:
    """What is stored under an artifact's address."""

    sha256: str
    size_bytes: int


@dataclass
class Evidence:
    """All that there is to be seen. Records are in the order of their partitions, documents in none."""

    requests: list[Seen] = field(default_factory=list)
    progress: list[Seen] = field(default_factory=list)
    registered: list[Seen] = field(default_factory=list)
    dead_letters: list[Seen] = field(default_factory=list)
    claims: list[Document] = field(default_factory=list)
    outcomes: list[Document] = field(default_factory=list)
    models: list[Document] = field(default_factory=list)
    files: dict[str, File] = field(default_factory=dict)
    """By address (`artifact_uri`); what is not there is not in here."""


def collect(bootstrap_servers: str, prefix: str, database: Database[Document], s3: Minio | None) -> Evidence:
    def topic(record: RecordType) -> list[Seen]:
        return _seen(read_topic(bootstrap_servers, prefix + record.topic), record)

    models = list(database["model_registry"].find({"request_id": {"$exists": True}}))
    return Evidence(
        requests=topic(RecordType.TRAINING_REQUEST),
        progress=topic(RecordType.TRAINING_PROGRESS),
        registered=topic(RecordType.MODEL_REGISTERED),
        dead_letters=_seen(
            read_topic(bootstrap_servers, f"{prefix}training-requests.dlq"), RecordType.TRAINING_REQUEST
        ),
        claims=list(database["training_requests"].find()),
        outcomes=list(database["training_outcomes"].find()),
        models=models,
        files=dict(_files(database, s3, {str(model["artifact_uri"]) for model in models})),
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
        records, ended = [], set[int]()
        while len(ended) < len(numbers):
            record = consumer.poll(20)
            assert record is not None, f"{topic} stands still"
            error, number = record.error(), record.partition()
            if error is None:
                records.append(record)
            else:
                assert error.name() == "_PARTITION_EOF", error
                assert number is not None
                ended.add(number)
    finally:
        consumer.close()
    return sorted(records, key=lambda record: (record.partition(), record.offset()))


def decode(value: bytes, record: RecordType) -> Document:
    """Single-object encoding, by the released schema; anything that is raised means that these bytes are none."""
    parsed, known = _parsed(record)
    assert value[:10] == MARKER + known
    body = BytesIO(value)
    body.seek(10)
    decoded = schemaless_reader(body, parsed, None)
    assert isinstance(decoded, dict)
    return decoded


@cache
def _parsed(record: RecordType) -> tuple[Any, bytes]:
    written = dict(schema(record))
    return parse_schema(written), bytes.fromhex(fingerprint(to_parsing_canonical_form(written), "CRC-64-AVRO"))


def _seen(records: Sequence[Any], record: RecordType) -> list[Seen]:
    return [
        Seen(
            one.partition(),
            one.offset(),
            one.timestamp()[1],
            one.value(),
            {name: value or b"" for name, value in one.headers() or ()},
            _content(one.value(), record),
        )
        for one in records
    ]


def _content(value: bytes | None, record: RecordType) -> Document | None:
    try:
        return decode(value or b"", record)
    except Exception:  # noqa: BLE001 - whatever is wrong with them, they cannot be read
        return None


def _files(database: Database[Document], s3: Minio | None, addresses: set[str]) -> Iterator[tuple[str, File]]:
    for address in addresses:
        content = _from_s3(s3, address) if address.startswith("s3://") else _from_gridfs(database, address)
        if content is not None:
            yield address, File(hashlib.sha256(content).hexdigest(), len(content))


def _from_s3(s3: Minio | None, address: str) -> bytes | None:
    assert s3 is not None
    bucket, _, key = address.removeprefix("s3://").partition("/")
    try:
        answer = s3.get_object(bucket, key)
    except S3Error:
        return None
    try:
        return answer.read()
    finally:
        answer.close()
        answer.release_conn()


def _from_gridfs(database: Database[Document], address: str) -> bytes | None:
    """GridFS by its published layout: a document in files, the bytes in chunks."""
    bucket, _, file_id = address.removeprefix("gridfs://").partition("/")
    if database[f"{bucket}.files"].find_one({"_id": ObjectId(file_id)}) is None:
        return None
    chunks = database[f"{bucket}.chunks"].find({"files_id": ObjectId(file_id)}).sort("n")
    return b"".join(bytes(chunk["data"]) for chunk in chunks)
