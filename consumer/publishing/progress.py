"""Sends progress events of running jobs as they happen, and never waits for them.

They are news, not state: when Kafka does not take them they are dropped and counted, and the terminal event, which
goes with the transaction, is what tells how a request ended. A job's earlier progress is flushed before it.
"""

from __future__ import annotations

import structlog
from confluent_kafka import KafkaError, KafkaException, Producer

from consumer.events.codec import Codec
from consumer.events.messages import message
from consumer.events.topics import Topics
from pipeline.errors import ProducerLostError, TransientError
from schemas import RecordType

log = structlog.get_logger(__name__)

FLUSH_TIMEOUT_S = 5.0


class Progress:
    """`publish` is called by the worker's thread; `flush` by the committer's."""

    def __init__(self, producer: Producer, codec: Codec, topics: Topics) -> None:
        self._producer = producer
        self._codec = codec
        self._topics = topics
        self.dropped = 0

    def publish(self, event: dict[str, object], traceparent: str | None) -> None:
        """Send one TrainingProgress event."""
        sent = message(self._codec, self._topics, RecordType.TRAINING_PROGRESS, event, traceparent)
        try:
            self._producer.produce(
                sent.topic, key=sent.key, value=sent.value, headers=list(sent.headers), on_delivery=self._delivered
            )
        except BufferError:
            self._drop("the queue to Kafka is full")
        except KafkaException as error:
            if error.args[0].fatal():
                raise ProducerLostError from error
            self._drop(str(error))
        self._producer.poll(0)

    def flush(self) -> None:
        """Wait until what was published is on the topic, so that it stands before a terminal event.

        Raises TransientError if Kafka does not take it in time.
        """
        if left := self._producer.flush(FLUSH_TIMEOUT_S):
            raise TransientError("kafka", f"{left} progress events are not acknowledged")

    def _delivered(self, error: KafkaError | None, _: object) -> None:
        if error is not None:
            self._drop(error.str())

    def _drop(self, why: str) -> None:
        self.dropped += 1
        log.debug("progress event dropped", reason=why)
