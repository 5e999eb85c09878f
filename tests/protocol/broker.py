"""Kafka as the protocol sees it: a log, a group with generations, transactions with their epochs; no thread, no clock.

`Producer` and `Consumer` stand in for confluent-kafka's, so that the real `ExactlyOnce` runs against it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from confluent_kafka import KafkaError, KafkaException, TopicPartition

from consumer.events.messages import Message
from consumer.partitions.offsets import Commit, CommittedProgress, read_metadata
from consumer.partitions.records import Partition


class Killed(BaseException):
    """The process died at this very point."""


class Proof(NamedTuple):
    """Consumer group metadata."""

    member: object
    generation: int


@dataclass
class Transaction:
    messages: Sequence[Message]
    offsets: Sequence[TopicPartition]
    ending: bool = False


@dataclass
class Broker:
    """`endings`: how the next orders to commit fare, by transactional.id; see Producer.commit_transaction."""

    log: dict[Partition, Sequence[bytes]]
    committed: dict[Partition, Commit] = field(default_factory=dict)
    visible: list[Message] = field(default_factory=list)
    generation: int = 1
    members: set[object] = field(default_factory=set)
    open: dict[str, Transaction] = field(default_factory=dict)
    epochs: dict[str, int] = field(default_factory=dict)
    endings: dict[str, str] = field(default_factory=dict)

    def read(self, partition: Partition) -> CommittedProgress | None:
        """What is committed, as require_stable tells: None while a transaction on it is open."""
        if any(Partition(one.topic, one.partition) == partition for t in self.open.values() for one in t.offsets):
            return None
        commit = self.committed.get(partition)
        return CommittedProgress(0, (), "") if commit is None else read_metadata(commit.offset, commit.metadata)

    def commit(self, name: str) -> None:
        transaction = self.open.pop(name)
        self.visible += transaction.messages
        for one in transaction.offsets:
            assert one.metadata is not None
            self.committed[Partition(one.topic, one.partition)] = Commit(one.offset, one.metadata)

    def accounted(self) -> bool:
        """Whether every record is committed."""
        return all(
            partition in self.committed and self.committed[partition].offset >= len(records)
            for partition, records in self.log.items()
        )


class Producer:
    """One life of a transactional producer."""

    def __init__(self, config: dict[str, Any]) -> None:
        self._broker: Broker = config["broker"]
        self._name: str = config["transactional.id"]
        self._messages: list[Message] = []
        self._epoch = 0

    def init_transactions(self, _: float) -> None:
        self._broker.open.pop(self._name, None)
        self._epoch = self._broker.epochs[self._name] = self._broker.epochs.get(self._name, 0) + 1

    def begin_transaction(self) -> None:
        self._messages = []

    def produce(
        self, topic: str, key: bytes, value: bytes, headers: Sequence[Any], on_delivery: Callable[..., None]
    ) -> None:
        self._messages.append(Message(topic, key, value, headers))
        on_delivery(None, None)

    def send_offsets_to_transaction(self, offsets: Sequence[TopicPartition], proof: Proof, _: float) -> None:
        """As the broker does, it asks for a member and its generation, never for what it owns."""
        self._fenced()
        if proof.member not in self._broker.members:
            raise KafkaException(KafkaError(KafkaError.UNKNOWN_MEMBER_ID))
        if proof.generation != self._broker.generation:
            raise KafkaException(KafkaError(KafkaError.ILLEGAL_GENERATION))
        self._broker.open[self._name] = Transaction(tuple(self._messages), tuple(offsets))

    def flush(self, _: float) -> int:
        return 0

    def commit_transaction(self, _: float) -> None:
        """It goes well, or is "lost", "done" and not answered, "late", or the process is "killed before" or "after"."""
        self._fenced()
        if self._name not in self._broker.open:
            raise KafkaException(KafkaError(KafkaError._FENCED))
        ending = self._broker.endings.pop(self._name, "")
        self._broker.open[self._name].ending = ending == "late"
        if ending == "killed before":
            raise Killed
        if ending not in ("lost", "late"):
            self._broker.commit(self._name)
        if ending == "killed after":
            raise Killed
        if ending:
            raise KafkaException(KafkaError(KafkaError._TIMED_OUT, retriable=True))

    def abort_transaction(self, _: float) -> None:
        self._broker.open.pop(self._name, None)

    def _fenced(self) -> None:
        if self._broker.epochs[self._name] != self._epoch:
            raise KafkaException(KafkaError(KafkaError._FENCED))


class Consumer:
    """Reads committed offsets."""

    def __init__(self, config: dict[str, Any]) -> None:
        self._broker: Broker = config["broker"]

    def committed(self, wanted: Sequence[TopicPartition], timeout: float) -> list[TopicPartition]:
        found = []
        for one in wanted:
            partition = Partition(one.topic, one.partition)
            if self._broker.read(partition) is None:
                raise KafkaException(KafkaError(KafkaError._TIMED_OUT))
            commit = self._broker.committed.get(partition, Commit(-1001, ""))
            found.append(TopicPartition(*partition, commit.offset, commit.metadata))
        return found

    def close(self) -> None:
        pass
