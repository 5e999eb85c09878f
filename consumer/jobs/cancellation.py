"""Reads cancels from the control topic twice: in a group, to miss none, and at the topic's end, for speed.

`ControlGroup`, one consumer group for all workers, writes each cancel into the ledger as a flag on the claim, or on a
stub if the request is not known yet; heartbeats and claims read the flag. `ControlTail`, in every worker, reads the end
of the topic and tells its own worker at once.
"""

from __future__ import annotations

import time
from abc import abstractmethod
from dataclasses import dataclass

import structlog
from confluent_kafka import OFFSET_END, Consumer, KafkaException, Message, TopicPartition

from consumer import failpoints
from consumer.events.codec import Codec
from consumer.events.control import CancelRequest, read_control
from consumer.events.errors import UndecodableError
from consumer.threads.containment import contained
from consumer.threads.neighbour import Polling, Surroundings
from pipeline.errors import TransientError
from pipeline.ledger import Cancel, Ledger

log = structlog.get_logger(__name__)

POLL_S = 0.5
"""How long a poll waits for a record; the thread ends between two."""
METADATA_TIMEOUT_S = 5.0
REFRESH_S = 300.0
"""How often the tail looks for partitions that were added."""


@dataclass(frozen=True, slots=True)
class CancelSeen:
    request_id: str
    cancel: Cancel


class _ControlReader(Polling):
    """Owns one consumer of the control topic."""

    def __init__(self, name: str, consumer: Consumer, topic: str, codec: Codec, around: Surroundings) -> None:
        super().__init__(name, around)
        self._consumer = consumer
        self._topic = topic
        self._codec = codec

    def close(self) -> None:
        self._consumer.close()

    def step(self) -> bool:
        message = self._consumer.poll(POLL_S)
        if message is None or message.error() is not None:
            return False
        with contained(self._metrics, "cancel", partition=message.partition(), offset=message.offset()):
            wanted = self._read(message)
            if wanted is not None:
                self._act(wanted)
        self._done(message)
        return True

    @abstractmethod
    def _act(self, wanted: CancelRequest) -> None:
        """Carry out a cancel."""

    def _done(self, message: Message) -> None:
        """Called once a record is handled, whether it held a cancel or not."""

    def _read(self, message: Message) -> CancelRequest | None:
        """The cancel in a record; None, with a log line, if there is none, since nobody waits for an answer."""
        try:
            return self.answered(
                lambda: read_control(self._codec, message.value(), timestamp_ms=message.timestamp()[1])
            )
        except UndecodableError as error:
            log.warning("control record ignored", offset=message.offset(), why=str(error))
            return None


class ControlGroup(_ControlReader):
    """Writes cancels into the ledger, and commits the offset after that."""

    def __init__(self, consumer: Consumer, topic: str, codec: Codec, ledger: Ledger, *, around: Surroundings) -> None:
        super().__init__("control-group", consumer, topic, codec, around)
        self._ledger = ledger

    def open(self) -> None:
        self._consumer.subscribe([self._topic])

    def _act(self, wanted: CancelRequest) -> None:
        noted = self.answered(
            lambda: failpoints.after("after_cancel", "mongodb", self._ledger.cancel(wanted.request_id, wanted.cancel))
        )
        if noted:
            log.info("cancel noted", request_id=wanted.request_id)
        else:
            self._say_why_not(wanted.request_id)

    def _done(self, message: Message) -> None:
        try:
            self._consumer.commit(message=message, asynchronous=False)
        except KafkaException as error:
            log.info("a cancel may be noted again", error=str(error))

    def _say_why_not(self, request_id: str) -> None:
        outcome = self.answered(lambda: self._ledger.read((request_id,)))[request_id].outcome
        if outcome is not None:
            ended = {"ended": outcome.kind.value, "at": outcome.at.isoformat(timespec="milliseconds")}
            log.info("cancel came too late", request_id=request_id, **ended)


class ControlTail(_ControlReader):
    """Tells the worker of cancels as they are published; one that it misses comes with the next heartbeat."""

    def __init__(self, consumer: Consumer, topic: str, codec: Codec, *, around: Surroundings) -> None:
        super().__init__("control-tail", consumer, topic, codec, around)
        self._partitions = 0
        self._refresh_at = 0.0

    def step(self) -> bool:
        self._refresh()
        return super().step()

    def _act(self, wanted: CancelRequest) -> None:
        self._deliver(CancelSeen(wanted.request_id, wanted.cancel))

    def _refresh(self) -> None:
        """Read all partitions from their end, those added later too."""
        if time.monotonic() < self._refresh_at:
            return
        count = self.answered(self._count_partitions)
        if count > self._partitions:
            fresh = [TopicPartition(self._topic, number, OFFSET_END) for number in range(self._partitions, count)]
            self._consumer.incremental_assign(fresh)
            self._partitions = count
        self._refresh_at = time.monotonic() + REFRESH_S

    def _count_partitions(self) -> int:
        try:
            known = self._consumer.list_topics(self._topic, timeout=METADATA_TIMEOUT_S).topics[self._topic]
        except KafkaException as error:
            raise TransientError("kafka", f"topic {self._topic}: {error}") from error
        if not known.partitions:
            raise TransientError("kafka", f"topic {self._topic} is missing")
        return len(known.partitions)
