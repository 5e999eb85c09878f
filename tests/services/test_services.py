"""Each server does what the worker needs of it, and comes back as itself after a kill -9."""

import http.client
import io
import json
import os
import time
from typing import Any
from urllib.parse import urlsplit

import gridfs
import pytest
from confluent_kafka import Consumer, Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic
from minio.error import S3Error
from pymongo import MongoClient, WriteConcern
from pymongo.database import Database
from pymongo.errors import BulkWriteError, DuplicateKeyError, ServerSelectionTimeoutError

from tests.services.kafka import Kafka
from tests.services.mongodb import MongoDB
from tests.services.proxy import WELL, Network
from tests.services.s3 import S3
from tests.services.schema_registry import SchemaRegistry
from tests.services.server import accepts

Documents = Database[dict[str, Any]]
RECORD_V1 = {"type": "record", "name": "R", "fields": [{"name": "a", "type": "string"}]}
RECORD_V2_WITH_DEFAULT = {
    **RECORD_V1,
    "fields": [*RECORD_V1["fields"], {"name": "b", "type": ["null", "int"], "default": None}],
}
RECORD_V2_WITHOUT_DEFAULT = {**RECORD_V1, "fields": [*RECORD_V1["fields"], {"name": "b", "type": "int"}]}


# Kafka


def test_only_committed_transactions_are_read(kafka: Kafka, topic_prefix: str) -> None:
    """A read_committed consumer sees the committed records and none of the aborted ones."""
    topic = _create_topic(kafka, topic_prefix + "events")
    producer = _transactional_producer(kafka, topic_prefix)
    for end, value in ((producer.abort_transaction, b"aborted"), (producer.commit_transaction, b"committed")):
        producer.begin_transaction()
        producer.produce(topic, value)
        producer.flush(10)
        end(10)
    consumer = _consumer(kafka, topic_prefix + "readers")
    consumer.subscribe([topic])
    assert [message.value() for message in _take(consumer, 1)] == [b"committed"]
    consumer.close()


def test_offsets_are_committed_with_the_records_of_a_transaction(kafka: Kafka, topic_prefix: str) -> None:
    """Hundred transactions that send offsets take far less than the 105 ms each of librdkafka's default backoff."""
    requests = _create_topic(kafka, topic_prefix + "requests")
    events = _create_topic(kafka, topic_prefix + "events")
    plain = Producer({"bootstrap.servers": kafka.bootstrap_servers})
    for number in range(100):
        plain.produce(requests, str(number).encode())
    plain.flush(10)
    consumer = _consumer(kafka, topic_prefix + "workers")
    consumer.subscribe([requests])
    producer = _transactional_producer(kafka, topic_prefix)
    messages = _take(consumer, 100)
    started = time.perf_counter()
    for message in messages:
        producer.begin_transaction()
        producer.produce(events, message.value())
        done = TopicPartition(requests, 0, _offset(message) + 1)
        producer.send_offsets_to_transaction([done], consumer.consumer_group_metadata(), 10)
        producer.commit_transaction(10)
    took_s = time.perf_counter() - started
    assert consumer.committed([TopicPartition(requests, 0)], timeout=10)[0].offset == 100
    assert took_s < 100 * 0.105
    consumer.close()


def test_a_consumer_group_of_the_new_protocol_consumes(kafka: Kafka, topic_prefix: str) -> None:
    """KIP-848: the broker assigns."""
    topic = _create_topic(kafka, topic_prefix + "requests", partitions=3)
    producer = Producer({"bootstrap.servers": kafka.bootstrap_servers})
    for number in range(9):
        producer.produce(topic, str(number).encode(), partition=number % 3)
    producer.flush(10)
    consumer = _consumer(kafka, topic_prefix + "workers", **{"group.protocol": "consumer"})
    consumer.subscribe([topic])
    assert sorted(int(message.value() or b"") for message in _take(consumer, 9)) == list(range(9))
    consumer.close()


def test_a_topic_may_allow_large_records(kafka: Kafka, topic_prefix: str) -> None:
    """25 MB, where the topic says so."""
    topic = _create_topic(kafka, topic_prefix + "large", settings={"max.message.bytes": "26214400"})
    producer = Producer({"bootstrap.servers": kafka.bootstrap_servers, "message.max.bytes": 26_214_400})
    producer.produce(topic, bytes(20_000_000))
    assert producer.flush(20) == 0
    consumer = _consumer(kafka, topic_prefix + "readers")
    consumer.subscribe([topic])
    (message,) = _take(consumer, 1)
    assert len(message.value() or b"") == 20_000_000
    consumer.close()


def test_what_is_sent_into_a_cut_network_arrives_when_it_is_healed(kafka: Kafka, topic_prefix: str) -> None:
    """The clients that come through the proxy stay behind it, and the others notice nothing."""
    topic = _create_topic(kafka, topic_prefix + "events")
    beside = Producer({"bootstrap.servers": kafka.bootstrap_servers})
    with kafka.proxy() as proxy:
        behind = Producer({"bootstrap.servers": proxy.address, "socket.timeout.ms": 60_000})
        behind.produce(topic, b"whole")
        assert behind.flush(10) == 0
        proxy.become(Network(silent=True))
        behind.produce(topic, b"cut")
        assert behind.flush(2) == 1
        beside.produce(topic, b"beside")
        assert beside.flush(10) == 0
        proxy.become(WELL)
        assert behind.flush(10) == 0
    consumer = _consumer(kafka, topic_prefix + "readers")
    consumer.subscribe([topic])
    assert [message.value() for message in _take(consumer, 3)] == [b"whole", b"beside", b"cut"]
    consumer.close()


# MongoDB


def test_a_unique_index_refuses_the_duplicate(mongo_database: Documents) -> None:
    """E11000, with the key that was there."""
    mongo_database.requests.create_index("request_id", unique=True)
    mongo_database.requests.insert_one({"request_id": "r1"})
    with pytest.raises(DuplicateKeyError) as refused:
        mongo_database.requests.insert_one({"request_id": "r1"})
    assert refused.value.code == 11000
    assert (refused.value.details or {})["keyValue"] == {"request_id": "r1"}


def test_an_unordered_insert_stores_all_but_the_duplicates(mongo_database: Documents) -> None:
    """And says which ones those were."""
    mongo_database.requests.create_index("request_id", unique=True)
    mongo_database.requests.insert_one({"request_id": 3})
    with pytest.raises(BulkWriteError) as refused:
        mongo_database.requests.insert_many([{"request_id": number} for number in range(6)], ordered=False)
    assert refused.value.details["nInserted"] == 5
    assert [error["index"] for error in refused.value.details["writeErrors"]] == [3]


def test_an_update_pipeline_reads_the_clock_of_the_store(mongo_database: Documents) -> None:
    """$$NOW, on an upsert too, and nothing but a date can come of it."""
    alive_until = {"$dateAdd": {"startDate": "$$NOW", "unit": "second", "amount": 10}}
    mongo_database.workers.update_one({"_id": "w1"}, [{"$set": {"alive_until": alive_until}}], upsert=True)
    living = {"$expr": {"$gt": ["$alive_until", "$$NOW"]}}
    assert mongo_database.workers.count_documents(living) == 1


def test_gridfs_returns_what_it_was_given(mongo_database: Documents) -> None:
    """A file above one document's 16 MB."""
    content = os.urandom(17_000_000)
    bucket = gridfs.GridFSBucket(mongo_database)
    assert bucket.open_download_stream(bucket.upload_from_stream("model.skops", content)).read() == content


# S3


def test_an_object_is_stored_read_and_removed(s3: S3, s3_bucket: str) -> None:
    """Two of them, below and above the 4 MB at which the store cuts files up."""
    client = s3.client()
    for name, size in (("small", 20_000), ("large", 9_000_000)):
        content = os.urandom(size)
        client.put_object(s3_bucket, f"models/{name}", io.BytesIO(content), size)
        assert client.get_object(s3_bucket, f"models/{name}").data == content
        client.remove_object(s3_bucket, f"models/{name}")
        with pytest.raises(S3Error, match="NoSuchKey"):
            client.stat_object(s3_bucket, f"models/{name}")


def test_a_wrong_secret_is_refused(s3: S3, s3_bucket: str) -> None:
    """Its keys are checked."""
    with pytest.raises(S3Error, match="SignatureDoesNotMatch"):
        S3(None, s3.endpoint, s3.access_key, "wrong").client().put_object(s3_bucket, "x", io.BytesIO(b"x"), 1)


# The schema registry


def test_a_schema_that_breaks_readers_is_refused(schema_registry: SchemaRegistry, topic_prefix: str) -> None:
    """FULL_TRANSITIVE takes a field with a default and refuses one without."""
    subject = f"{topic_prefix}events-value"
    versions = f"/subjects/{subject}/versions"
    status, registered = _ask(schema_registry, "POST", versions, {"schema": json.dumps(RECORD_V1)})
    assert status == 200
    assert _ask(schema_registry, "PUT", f"/config/{subject}", {"compatibility": "FULL_TRANSITIVE"})[0] == 200
    compatibility = f"/compatibility/subjects/{subject}/versions/latest"
    for schema, compatible in ((RECORD_V2_WITH_DEFAULT, True), (RECORD_V2_WITHOUT_DEFAULT, False)):
        answer = _ask(schema_registry, "POST", compatibility, {"schema": json.dumps(schema)})[1]
        assert answer["is_compatible"] is compatible
    assert _ask(schema_registry, "POST", versions, {"schema": json.dumps(RECORD_V2_WITHOUT_DEFAULT)})[0] == 409
    stored = _ask(schema_registry, "GET", f"/schemas/ids/{registered['id']}")[1]
    assert json.loads(stored["schema"]) == RECORD_V1


# Life and death


@pytest.mark.chaos
def test_kafka_keeps_its_records_over_kill_and_restart(kafka: Kafka, topic_prefix: str) -> None:
    """On the same address; the producer from before goes on."""
    topic = _create_topic(kafka, topic_prefix + "events")
    producer = Producer({"bootstrap.servers": kafka.bootstrap_servers, "reconnect.backoff.max.ms": 500})
    producer.produce(topic, b"before")
    assert producer.flush(10) == 0
    kafka.kill()
    kafka.restart()
    producer.produce(topic, b"after")
    assert producer.flush(30) == 0
    consumer = _consumer(kafka, topic_prefix + "readers")
    consumer.subscribe([topic])
    assert [message.value() for message in _take(consumer, 2)] == [b"before", b"after"]
    consumer.close()


@pytest.mark.chaos
def test_kafka_aborts_what_was_open_over_a_kill(kafka: Kafka, topic_prefix: str) -> None:
    """The topic says so too, not only the coordinator: the producer's next transaction does not commit it.

    Of these 20 Kafka 4.3.0 leaves some open (KAFKA-20734): it times them out while no partition has a leader yet.
    """
    topic = _create_topic(kafka, topic_prefix + "events", partitions=3)
    begun = [_begin(kafka, f"{topic_prefix}{n}.", topic, b"open", timeout_ms=1_000) for n in range(20)]
    kafka.kill()
    kafka.restart()
    del begun
    for n in range(20):
        _begin(kafka, f"{topic_prefix}{n}.", topic, b"committed").commit_transaction(10)
    consumer = _consumer(kafka, topic_prefix + "readers")
    consumer.subscribe([topic])
    assert {message.value() for message in _take(consumer, 60)} == {b"committed"}
    consumer.close()


@pytest.mark.chaos
def test_mongodb_keeps_journalled_writes_over_kill_and_restart(mongodb: MongoDB, mongo_database: Documents) -> None:
    """What was acknowledged with w:majority and j:true is there, if the kill follows at once, ten times of ten."""
    journalled = mongo_database.get_collection("outcomes", write_concern=WriteConcern("majority", j=True))
    for kills in range(10):
        for number in range(20):
            journalled.insert_one({"_id": kills * 20 + number})
        mongodb.kill()
        mongodb.restart()
        assert [document["_id"] for document in journalled.find().sort("_id")] == list(range((kills + 1) * 20))


@pytest.mark.chaos
def test_s3_keeps_objects_over_kill_and_restart(s3: S3, s3_bucket: str) -> None:
    """With the same keys."""
    s3.client().put_object(s3_bucket, "model", io.BytesIO(b"model"), 5)
    s3.kill()
    s3.restart()
    assert s3.client().get_object(s3_bucket, "model").data == b"model"


@pytest.mark.chaos
def test_the_registry_keeps_schemas_over_kill_and_restart(schema_registry: SchemaRegistry, topic_prefix: str) -> None:
    """Under the same ids, also those of a moment before."""
    for number in range(5):
        schema = {"schema": json.dumps({**RECORD_V1, "name": f"R{number}"})}
        versions = f"/subjects/{topic_prefix}{number}-value/versions"
        registered = _ask(schema_registry, "POST", versions, schema)
    schema_registry.kill()
    schema_registry.restart()
    assert _ask(schema_registry, "POST", versions, schema) == registered


@pytest.mark.chaos
def test_a_paused_server_answers_nothing_until_it_is_resumed(mongodb: MongoDB) -> None:
    """Its port still accepts connections, as when a host hangs."""
    mongodb.pause()
    with MongoClient[dict[str, Any]](mongodb.url, serverSelectionTimeoutMS=300, connectTimeoutMS=300) as client:
        assert accepts(urlsplit(mongodb.url).port or 0)
        with pytest.raises(ServerSelectionTimeoutError):
            client.admin.command("ping")
    mongodb.resume()
    with mongodb.client() as client:
        client.admin.command("ping")


def _create_topic(kafka: Kafka, topic: str, partitions: int = 1, settings: dict[str, str] | None = None) -> str:
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap_servers})
    admin.create_topics([NewTopic(topic, partitions, 1, config=settings or {})])[topic].result(timeout=60)
    return topic


def _transactional_producer(kafka: Kafka, prefix: str, timeout_ms: int = 60_000) -> Producer:
    producer = Producer(
        {
            "bootstrap.servers": kafka.bootstrap_servers,
            "transactional.id": prefix + "w1",
            "transaction.timeout.ms": timeout_ms,
            "retry.backoff.ms": 2,
        }
    )
    producer.init_transactions(10)
    return producer


def _begin(kafka: Kafka, prefix: str, topic: str, value: bytes, timeout_ms: int = 60_000) -> Producer:
    """A transaction with a record in each of three partitions."""
    producer = _transactional_producer(kafka, prefix, timeout_ms)
    producer.begin_transaction()
    for partition in range(3):
        producer.produce(topic, value, partition=partition)
    assert producer.flush(10) == 0
    return producer


def _consumer(kafka: Kafka, group: str, **settings: str) -> Consumer:
    return Consumer(
        {
            "bootstrap.servers": kafka.bootstrap_servers,
            "group.id": group,
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
            "isolation.level": "read_committed",
            **settings,
        }
    )


def _take(consumer: Consumer, count: int, within_s: float = 120.0) -> list[Message]:
    """The next `count` records; fewer are a failure."""
    deadline = time.monotonic() + within_s
    messages: list[Message] = []
    while len(messages) < count:
        assert time.monotonic() < deadline, f"{len(messages)} of {count} records after {within_s} s"
        message = consumer.poll(0.5)
        if message is not None:
            assert message.error() is None, message.error()
            messages.append(message)
    return messages


def _offset(message: Message) -> int:
    offset = message.offset()
    assert offset is not None
    return offset


def _ask(registry: SchemaRegistry, method: str, path: str, body: object = None) -> tuple[int, Any]:
    address = urlsplit(registry.url)
    connection = http.client.HTTPConnection(address.netloc, timeout=10)
    headers = {"Content-Type": "application/vnd.schemaregistry.v1+json"}
    try:
        connection.request(method, address.path + path, json.dumps(body) if body else None, headers)
        response = connection.getresponse()
        return response.status, json.load(response)
    finally:
        connection.close()
