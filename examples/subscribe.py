"""Print every model that is registered, once each, with confluent-kafka and fastavro alone.

    python examples/subscribe.py                     # all models so far, and those to come; Ctrl-C ends it

It reads KAFKA_BOOTSTRAP_SERVERS, TOPIC_PREFIX and SCHEMA_REGISTRY_URL from the environment; without the first it looks
for a `tensorfleet dev` in this folder. What it has seen it forgets when it ends: a real subscriber keeps the event_id
beside what it makes of the event, and commits after that.
"""

# ruff: noqa: T201 - it prints

import json
import os
import struct
import urllib.request
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any

from confluent_kafka import Consumer, KafkaException
from fastavro import parse_schema, schemaless_reader
from fastavro.schema import fingerprint, to_parsing_canonical_form

SCHEMA = json.loads((Path(__file__).parent.parent / "schemas" / "model-registered.avsc").read_text())
READER = parse_schema(SCHEMA)
FINGERPRINT = bytes.fromhex(fingerprint(to_parsing_canonical_form(SCHEMA), "CRC-64-AVRO"))


def main() -> None:
    topic = os.environ.get("TOPIC_PREFIX", "") + "model-registered"
    consumer = Consumer(
        {
            "bootstrap.servers": brokers(),
            "group.id": os.environ.get("GROUP_ID", "example-subscriber"),
            "auto.offset.reset": "earliest",
            # librdkafka's default; Java's is read_uncommitted. Without it, events of aborted transactions are seen.
            "isolation.level": "read_committed",
            "enable.auto.commit": False,
        }
    )
    consumer.subscribe([topic])
    seen: set[str] = set()
    try:
        while True:
            message = consumer.poll(1.0)
            if message is None:
                continue
            if message.error():
                raise KafkaException(message.error())
            event = decode(message.value() or b"")
            if event["event_id"] not in seen:
                seen.add(event["event_id"])
                accuracy = event["metrics"].get("test_accuracy")
                print(f"{event['project']}/{event['model_name']} {event['version']}: {event['algorithm']}", end=" ")
                print(f"on {event['dataset_name']}, test_accuracy {accuracy}, {event['artifact_uri']}", flush=True)
            consumer.commit(message=message, asynchronous=False)
    except KeyboardInterrupt:
        pass
    finally:
        consumer.close()


def brokers() -> str:
    """Of the environment, else of a `tensorfleet dev` that runs in this folder."""
    note = Path(os.environ.get("DATA_DIR", "tensorfleet-data"), "dev.json")
    if "KAFKA_BOOTSTRAP_SERVERS" not in os.environ and note.exists():
        return str(json.loads(note.read_text())["kafka_bootstrap_servers"])
    return os.environ.get("KAFKA_BOOTSTRAP_SERVERS", "localhost:29092")


def decode(value: bytes) -> dict[str, Any]:
    """The event in these bytes, in the fields of our schema, whichever framing its producer chose."""
    if value[:1] == b"\x00":  # Confluent wire format: a schema id of four bytes
        (number,) = struct.unpack(">I", value[1:5])
        return read(value[5:], written_with(number))
    if value[:2] == b"\xc3\x01" and value[2:10] == FINGERPRINT:  # single-object encoding, with the schema known here
        return read(value[10:], READER)
    raise ValueError(f"no known framing or schema: {value[:10].hex(' ')}; a later release may have a newer schema")


def read(body: bytes, writer: Any) -> dict[str, Any]:
    record: Any = schemaless_reader(BytesIO(body), writer, READER)
    return dict(record)


@cache
def written_with(number: int) -> Any:
    """The schema with this id; ids never change."""
    url = f"{os.environ['SCHEMA_REGISTRY_URL'].rstrip('/')}/schemas/ids/{number}"
    with urllib.request.urlopen(url, timeout=10) as answer:
        return parse_schema(json.loads(json.load(answer)["schema"]))


if __name__ == "__main__":
    main()
