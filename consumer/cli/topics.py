"""`tensorfleet topics create`: creates missing topics, and reports how the others differ."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from consumer.cli import context
from consumer.cli.output import Document, Json, TableColumn, column, show_rows

if TYPE_CHECKING:
    from confluent_kafka.admin import AdminClient

    from consumer.events.topics import Topic
    from consumer.settings import Settings

TIMEOUT_S = 15.0
PAUSE_S = 0.1
BROKERS_DEFAULT = -1

app = typer.Typer(help="The topics.", no_args_is_help=True)


@app.command()
def create(
    partitions: Annotated[
        int | None, typer.Option(min=1, help="Partitions of every topic.  [default: each topic's own number]")
    ] = None,
    replication_factor: Annotated[
        int | None, typer.Option(min=1, help="Replicas of every partition.  [default: the brokers']")
    ] = None,
    as_json: Json = False,
) -> None:
    """Create the topics that are missing, and say how the others differ from what they would be.

    Existing topics are never changed.
    """
    settings = context.kafka_settings()
    columns = (
        column("TOPIC", "topic"),
        TableColumn("", lambda found: "created" if found["created"] else "exists", style=_style),
        column("PARTITIONS", "partitions", right=True),
        TableColumn("DIFFERENT", lambda found: "; ".join(map(_words, found["differences"])), fold=True, style="yellow"),
    )
    show_rows(created(settings, partitions, replication_factor or BROKERS_DEFAULT), columns, as_json=as_json)


def created(settings: Settings, partitions: int | None, replication_factor: int) -> Iterator[dict[str, Any]]:
    """Create missing topics; returns for each topic: topic, created, partitions, differences."""
    from confluent_kafka import KafkaError, KafkaException
    from confluent_kafka.cimpl import NewTopic

    from consumer.events.topics import Topics

    admin = admin_client(settings)
    present = present_topics(admin, settings.kafka_bootstrap_servers)
    for topic in Topics(settings.topic_prefix).all():
        number = partitions or topic.partitions
        made = topic.name not in present
        if made:
            new = NewTopic(topic.name, number, replication_factor, config=dict(topic.config))
            try:
                admin.create_topics([new], operation_timeout=TIMEOUT_S)[topic.name].result()
            except KafkaException as error:
                if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                    raise refused(topic.name, error) from error
                made = False
            present = _with(topic.name, admin, settings.kafka_bootstrap_servers)
            _await_leaders(settings, topic.name, present.get(topic.name, 0))
        there = present.get(topic.name, number)
        different = [] if made else differences(admin, topic, there, number)
        yield {"topic": topic.name, "created": made, "partitions": there, "differences": different}


def _with(topic: str, admin: AdminClient, servers: str) -> Mapping[str, int]:
    """The topics, once this one is among them: brokers list a topic a moment after its creation."""
    deadline = time.monotonic() + TIMEOUT_S
    while topic not in (present := present_topics(admin, servers)) and time.monotonic() < deadline:
        time.sleep(PAUSE_S)
    return present


def _await_leaders(settings: Settings, topic: str, partitions: int) -> None:
    """Wait until the topic has leaders: until then, brokers list it but may lose records (KAFKA-15591)."""
    from confluent_kafka import Consumer, KafkaException, TopicPartition

    from consumer.kafka import config as kafka_config
    from consumer.kafka.topic_reader import quiet
    from pipeline.errors import TransientError

    deadline = time.monotonic() + TIMEOUT_S
    waiting = list(range(partitions))
    reader = Consumer({**kafka_config.tail_config(settings), **quiet()})
    try:
        while waiting:
            try:
                reader.get_watermark_offsets(TopicPartition(topic, waiting[-1]), TIMEOUT_S)
                waiting.pop()
            except KafkaException as error:
                if time.monotonic() > deadline:
                    why = f"topic {topic} was created, but takes no records yet: {error.args[0].str()}"
                    raise TransientError("kafka", why) from error
                time.sleep(PAUSE_S)
    finally:
        reader.close()


def admin_client(settings: Settings) -> AdminClient:
    from confluent_kafka.admin import AdminClient

    from consumer.kafka import config as kafka_config

    config: dict[str, Any] = {**kafka_config.kafka_client_config(settings), "log_level": 0, "error_cb": lambda _: None}
    return AdminClient(config)


def present_topics(admin: AdminClient, servers: str) -> Mapping[str, int]:
    """The number of partitions of every topic; raises TransientError if no broker answers."""
    from confluent_kafka import KafkaException

    from pipeline.errors import TransientError

    try:
        return {
            name: len(topic.partitions) for name, topic in admin.list_topics(timeout=context.TIMEOUT_S).topics.items()
        }
    except KafkaException as error:
        why = error.args[0].str().removeprefix("Failed to get metadata: ")
        raise TransientError("kafka", f"no broker answers at {servers}: {why}") from error


def differences(admin: AdminClient, topic: Topic, partitions: int, wanted: int) -> list[dict[str, str]]:
    """How an existing topic differs from the one that `create` would make: {name, is, should_be}."""
    from confluent_kafka import KafkaException
    from confluent_kafka.admin._config import ConfigResource
    from confluent_kafka.admin._resource import ResourceType

    found = [] if partitions == wanted else [_difference("partitions", partitions, wanted)]
    resource = ConfigResource(ResourceType.TOPIC, topic.name)
    try:
        config = admin.describe_configs([resource], request_timeout=TIMEOUT_S)[resource].result()
    except KafkaException:  # not allowed, or the embedded broker, which has no configuration
        return found
    for name, value in topic.config.items():
        is_now = config[name].value if name in config else None
        if is_now is not None and set(is_now.split(",")) != set(value.split(",")):
            found.append(_difference(name, is_now, value))
    return found


def refused(topic: str, error: Any) -> Exception:
    from confluent_kafka import KafkaError

    from consumer.cli.output import Stop
    from pipeline.errors import TransientError

    cause = error.args[0]
    if cause.code() in (KafkaError._TIMED_OUT, KafkaError._TRANSPORT, KafkaError._ALL_BROKERS_DOWN):
        return TransientError("kafka", cause.str())
    return Stop(f"topic {topic} cannot be created: {cause.str()}", 2)


def _difference(name: str, is_now: object, should_be: object) -> dict[str, str]:
    return {"name": name, "is": str(is_now), "should_be": str(should_be)}


def _words(difference: Mapping[str, str]) -> str:
    return f"{difference['name']} is {difference['is']}, would be {difference['should_be']}"


def _style(found: Document) -> str:
    return "green" if found["created"] else "dim"
