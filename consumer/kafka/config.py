"""Configures librdkafka for each kind of client.  The numbers were measured on Kafka 4.3."""

from __future__ import annotations

from typing import Any

from consumer.settings import Settings
from consumer.telemetry.kafka_log import kafka_callbacks

Config = dict[str, Any]


def kafka_client_config(settings: Settings) -> Config:
    """The configuration of every client: brokers, security, retries, time-outs, logging."""
    config: Config = {
        "bootstrap.servers": settings.kafka_bootstrap_servers,
        "client.id": settings.worker_id,
        "security.protocol": settings.kafka_security_protocol,
        # A broker that comes back is found within half a second instead of ten.
        "reconnect.backoff.max.ms": 500,
        # Unanswered requests fail after this; with the default a transaction would wait for a minute.
        "socket.timeout.ms": 5000,
        "socket.keepalive.enable": True,
        "statistics.interval.ms": 0,
        # Brokers close idle connections; that is not worth a log line.
        "log.connection.close": False,
        **kafka_callbacks(),
    }
    if settings.kafka_security_protocol.startswith("SASL") and settings.kafka_sasl_password is not None:
        config["sasl.mechanism"] = settings.kafka_sasl_mechanism
        config["sasl.username"] = settings.kafka_sasl_username
        config["sasl.password"] = settings.kafka_sasl_password.get_secret_value()
    if settings.kafka_security_protocol.endswith("SSL") and settings.kafka_ssl_ca_location is not None:
        config["ssl.ca.location"] = str(settings.kafka_ssl_ca_location)
    return config


def consumer_config(settings: Settings, group_id: str | None = None) -> Config:
    """A member of the group `group_id` (default KAFKA_GROUP_ID) that commits only on request."""
    return {
        **kafka_client_config(settings),
        **_reading(),
        "group.id": group_id or settings.kafka_group_id,
        "auto.offset.reset": "earliest",
        "max.poll.interval.ms": settings.kafka_max_poll_interval_ms,
        **_membership(settings),
    }


def tail_config(settings: Settings) -> Config:
    """A reader that assigns itself partitions from their end, joins no group and never commits."""
    return {
        **kafka_client_config(settings),
        **_reading(),
        "group.id": f"{settings.kafka_group_id}-tail-{settings.worker_id}",
        "auto.offset.reset": "latest",
    }


def offsets_config(settings: Settings) -> Config:
    """A reader of the group's committed offsets that does not join it; it waits for offsets in an open transaction.

    Not an admin client: that crashes the process when it has to retry the query (librdkafka 2.16, rd_kafka_cgrp_op
    without a group).
    """
    return {**kafka_client_config(settings), **_reading(), "group.id": settings.kafka_group_id}


def producer_config(settings: Settings) -> Config:
    """A producer without transactions: idempotent, in order, acknowledged by all replicas."""
    return {**kafka_client_config(settings), **_writing()}


def progress_producer_config(settings: Settings) -> Config:
    """The producer of progress events, batched for 50 ms; the flush before a terminal event does not wait for that."""
    return {**producer_config(settings), "linger.ms": 50}


def transactional_producer_config(settings: Settings) -> Config:
    """The producer with transactions: it keeps its id across restarts, so that its predecessor is fenced at once."""
    return {
        **kafka_client_config(settings),
        **_writing(),
        "transactional.id": f"{settings.kafka_group_id}-{settings.worker_id}",
        # A killed worker's open transaction blocks read_committed readers this long, unless the worker restarts sooner.
        "transaction.timeout.ms": 10_000,
        # The next transaction meets CONCURRENT_TRANSACTIONS and waits this long: 105 ms a transaction by default.
        "retry.backoff.ms": 3,
        "linger.ms": 0,
    }


def _reading() -> Config:
    return {
        "isolation.level": "read_committed",
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        "check.crcs": True,
        # Bounds the memory for records fetched ahead, however many wait on the topic.
        "queued.min.messages": 1000,
        "queued.max.messages.kbytes": 16 * 1024,
        "fetch.queue.backoff.ms": 50,
    }


def _membership(settings: Settings) -> Config:
    if settings.kafka_group_protocol == "consumer":
        # KIP-848: the broker sets session, heartbeat and assignor; librdkafka refuses them here.
        return {"group.protocol": "consumer"}
    session_ms = settings.kafka_session_timeout_ms
    instance = {"group.instance.id": settings.worker_id} if settings.kafka_static_membership else {}
    return {
        **instance,
        "group.protocol": "classic",
        "partition.assignment.strategy": "cooperative-sticky",
        "session.timeout.ms": session_ms,
        # Members learn of a rebalance, and so of a death among them, with their next heartbeat.
        "heartbeat.interval.ms": min(3000, session_ms // 10),
    }


def _writing() -> Config:
    return {
        "enable.idempotence": True,
        "acks": "all",
        # Of two requests in flight to a partition that is being created, the broker can refuse the first and accept the
        # second. The first is then reported as delivered but lost, in transactions too (KAFKA-15591, Kafka up to 4.4).
        "max.in.flight.requests.per.connection": 1,
        # A deleted topic is reported as such before its records time out, which would look like no broker answering.
        "topic.metadata.propagation.max.ms": 3_000,
        # As in Java's producers, so that a key maps to the same partition in every client.
        "partitioner": "murmur2_random",
        "compression.type": "lz4",
        # A dead letter has its original bytes, however many; the topic's limit is the broker's to enforce.
        "message.max.bytes": 100 * 2**20,
        "linger.ms": 5,
    }
