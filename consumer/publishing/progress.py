"""Sends progress events of running jobs as they happen, without waiting for their delivery.

Progress may be lost: an event that Kafka does not take is dropped and counted. The terminal event, sent in the
transaction, says how a request ended; progress is flushed before it.
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
    """The worker's thread calls `publish`, the committer's thread calls `flush`."""

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
        """Wait until all that was published is on the topic, before a terminal event follows.

        Raises TransientError if Kafka does not acknowledge it in FLUSH_TIMEOUT_S.
        """
        if left := self._producer.flush(FLUSH_TIMEOUT_S):
            raise TransientError("kafka", f"{left} progress events are not acknowledged")

    def _delivered(self, error: KafkaError | None, _: object) -> None:
        if error is not None:
            self._drop(error.str())

    def _drop(self, why: str) -> None:
        self.dropped += 1
        log.debug("progress event dropped", reason=why)
