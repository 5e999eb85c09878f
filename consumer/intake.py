"""The one thread that touches the Kafka consumer: it polls, and never waits for anything else.

What it reads goes to the worker together with the *membership* as it was right after the poll: which partitions we
own, in which assignment epoch, and the group metadata that proves it. The broker accepts offsets for a partition that
a living member has lost, so only this pair, taken together, keeps us from committing for somebody else.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, NamedTuple, cast

import structlog
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from consumer.failures import ThreadFailed
from consumer.metrics import Metrics
from consumer.offsets import Commit, Progress, read_metadata

log = structlog.get_logger(__name__)

POLL_S = 0.1
BATCH = 500
COMMITTED_TIMEOUT_S = 2.0


class Partition(NamedTuple):
    topic: str
    number: int


@dataclass(frozen=True, slots=True, eq=False)
class Record:
    """A record of the requests topic, as delivered in one assignment of its partition.

    `epoch` counts our assignments: a partition that is lost and regained has another one, and nothing that belongs to
    the former epoch may be committed any more.
    """

    partition: Partition
    epoch: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes | None]]
    timestamp_ms: int


@dataclass(frozen=True, slots=True)
class Membership:
    """What we own, and the proof of it, taken together right after a poll.

    Attributes:
        epochs: of every partition that we own.
        positions: the next offset to be delivered, of the partitions that have delivered anything.
        ends: the end of the log of those, as last heard from the broker.
        proof: the consumer group metadata, opaque; None until we have joined.
    """

    epochs: Mapping[Partition, int] = field(default_factory=lambda: MappingProxyType({}))
    positions: Mapping[Partition, int] = field(default_factory=lambda: MappingProxyType({}))
    ends: Mapping[Partition, int] = field(default_factory=lambda: MappingProxyType({}))
    proof: Any = None


@dataclass(frozen=True, slots=True)
class Polled:
    """One turn of the poll loop. `opened` has what was committed before, for partitions at their first record."""

    records: Sequence[Record]
    opened: Mapping[Partition, Progress]
    membership: Membership


class Intake(threading.Thread):
    """Owns the consumer from the first poll to close()."""

    def __init__(
        self,
        consumer: Consumer,
        topic: str,
        deliver: Callable[[Polled | ThreadFailed], None],
        metrics: Metrics,
        *,
        poll_s: float = POLL_S,
    ) -> None:
        super().__init__(name="intake", daemon=True)
        self._consumer = consumer
        self._topic = topic
        self._deliver = deliver
        self._metrics = metrics
        self._poll_s = poll_s
        self._orders: deque[Callable[[], None]] = deque()
        self._leaving = threading.Event()
        self._allowed = 0
        self._delivered = 0
        self._crowded: frozenset[Partition] = frozenset()
        self._held: set[Partition] = set()
        """Partitions that are paused right now."""
        self._epoch = 0
        self._epochs: dict[Partition, int] = {}
        self._unopened: dict[Partition, list[Record]] = {}
        """Records whose partition has not told yet what was committed before."""
        self._opened: set[Partition] = set()
        self.turned_at = time.monotonic()
        """When the loop last went round, for /livez."""

    def allow(self, records: int, crowded: frozenset[Partition] = frozenset()) -> None:
        """Read until this many records were delivered since the start, and none of the crowded partitions."""
        self._allowed, self._crowded = records, crowded

    def commit(self, offsets: Mapping[Partition, tuple[int, Commit]]) -> Future[bool]:
        """Commit outside a transaction; False if a partition is not ours any more in that epoch (the first value)."""
        done: Future[bool] = Future()

        def apply() -> None:
            if any(self._epochs.get(partition) != epoch for partition, (epoch, _) in offsets.items()):
                done.set_result(False)
                return
            try:
                self._consumer.commit(
                    offsets=kafka_offsets({p: c for p, (_, c) in offsets.items()}), asynchronous=False
                )
            except KafkaException as error:
                done.set_exception(error)
            else:
                done.set_result(True)

        self._orders.append(apply)
        return done

    def leave(self) -> None:
        """Leave the group and end; join() waits for it."""
        self._leaving.set()

    def run(self) -> None:
        try:
            self._consumer.subscribe(
                [self._topic], on_assign=self._assigned, on_revoke=self._revoked, on_lost=self._lost
            )
            while not self._leaving.is_set():
                self._turn()
            self._obey()
            self._consumer.close()
            self._deliver(Polled((), {}, Membership()))
        except Exception as error:  # noqa: BLE001 - handed to the worker, which ends
            self._deliver(ThreadFailed(self.name, error))

    def _turn(self) -> None:
        self._obey()
        self._hold()
        room = self._room()
        message = self._consumer.poll(self._poll_s)
        messages = [] if message is None else [message, *self._consumer.consume(max(0, min(BATCH, room) - 1), 0)]
        records = [record for message in messages if (record := self._record(message)) is not None]
        opened: dict[Partition, Progress] = {}
        records = [*self._open(records, opened)]
        membership = self._membership()
        self.turned_at = time.monotonic()
        self._deliver(Polled(records, opened, membership))

    def _room(self) -> int:
        """How many more records may be read; those whose partition has not opened will be delivered too."""
        return max(0, self._allowed - self._delivered - sum(len(waiting) for waiting in self._unopened.values()))

    def _obey(self) -> None:
        while self._orders:
            self._orders.popleft()()

    def _record(self, message: Message) -> Record | None:
        error = message.error()
        if error is not None:
            self._complain(error)
            return None
        partition = Partition(cast(str, message.topic()), cast(int, message.partition()))
        epoch = self._epochs.get(partition)
        if epoch is None:
            return None
        headers = cast(Sequence[tuple[str, bytes | None]], message.headers() or ())
        _, timestamp_ms = message.timestamp()
        return Record(
            partition, epoch, cast(int, message.offset()), message.key(), message.value(), headers, timestamp_ms
        )

    def _complain(self, error: KafkaError) -> None:
        if error.fatal() or error.code() in (KafkaError.FENCED_INSTANCE_ID, KafkaError._FATAL):
            raise KafkaException(error)
        if error.code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
            log.error("topic missing", topic=self._topic, remedy="tensorfleet topics create")
        elif error.code() == KafkaError._MAX_POLL_EXCEEDED:
            log.error("evicted from the group: the poll loop stood still", error=error.str())
        else:
            log.warning("kafka", code=error.name(), error=error.str())

    def _open(self, records: Sequence[Record], opened: dict[Partition, Progress]) -> list[Record]:
        """Records of open partitions; a partition opens once it is known what was committed there before."""
        ready: list[Record] = []
        for record in records:
            if record.partition in self._opened:
                ready.append(record)
            else:
                self._unopened.setdefault(record.partition, []).append(record)
        for partition, waiting in self._unopened.items():
            self._unopened[partition] = [r for r in waiting if r.epoch == self._epochs.get(partition)]
        self._unopened = {partition: waiting for partition, waiting in self._unopened.items() if waiting}
        for partition, before in self._committed().items():
            opened[partition] = before
            self._opened.add(partition)
            ready.extend(self._unopened.pop(partition))
        self._delivered += len(ready)
        return ready

    def _committed(self) -> dict[Partition, Progress]:
        """What was committed before in the unopened partitions, of those where the broker tells in time."""
        if not self._unopened:
            return {}
        wanted = [TopicPartition(*partition) for partition in self._unopened]
        try:
            found = self._consumer.committed(wanted, timeout=COMMITTED_TIMEOUT_S)
        except KafkaException as error:
            log.warning("committed offsets not known yet", error=str(error))
            return {}
        before = {}
        for one in found:
            partition = Partition(one.topic, one.partition)
            first = self._unopened[partition][0].offset
            if one.error is not None:
                log.warning("committed offset not known yet", partition=one.partition, error=str(one.error))
            elif one.offset < 0:
                before[partition] = Progress(first, (), "")
            else:
                self._check_loss(partition, one.offset, first)
                before[partition] = read_metadata(one.offset, one.metadata)
        return before

    def _check_loss(self, partition: Partition, committed: int, first: int) -> None:
        if first <= committed:
            return
        start, _ = self._consumer.get_watermark_offsets(TopicPartition(*partition), cached=True)
        if start > committed:
            log.error(
                "requests expired unread: the log starts beyond the committed offset",
                partition=partition.number,
                committed=committed,
                log_start=start,
            )

    def _membership(self) -> Membership:
        if not self._epochs or not self._consumer.memberid():
            return Membership(MappingProxyType(dict(self._epochs)))
        positions, ends = {}, {}
        owned = [TopicPartition(*partition) for partition in self._opened if partition not in self._unopened]
        for found in self._consumer.position(owned) if owned else ():
            if found.offset >= 0:
                partition = Partition(found.topic, found.partition)
                positions[partition] = found.offset
                _, ends[partition] = self._consumer.get_watermark_offsets(found, cached=True)
        return Membership(
            MappingProxyType(dict(self._epochs)),
            MappingProxyType(positions),
            MappingProxyType(ends),
            self._consumer.consumer_group_metadata(),
        )

    def _assigned(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        consumer.incremental_assign(partitions)
        self._epoch += 1
        for found in partitions:
            partition = Partition(found.topic, found.partition)
            self._forget(partition)
            self._epochs[partition] = self._epoch
        # A partition that was paused when it was taken away comes back paused.
        if partitions:
            consumer.resume([TopicPartition(found.topic, found.partition) for found in partitions])
        self._metrics.rebalances.labels("assigned").inc()
        log.info("partitions assigned", partitions=sorted(found.partition for found in partitions))
        self._hold()

    def _revoked(self, _: Consumer, partitions: list[TopicPartition]) -> None:
        self._give_up(partitions, "revoked")

    def _lost(self, _: Consumer, partitions: list[TopicPartition]) -> None:
        self._give_up(partitions, "lost")

    def _give_up(self, partitions: list[TopicPartition], how: str) -> None:
        for found in partitions:
            self._forget(Partition(found.topic, found.partition))
        self._metrics.rebalances.labels(how).inc()
        log.info(f"partitions {how}", partitions=sorted(found.partition for found in partitions))

    def _forget(self, partition: Partition) -> None:
        self._epochs.pop(partition, None)
        self._opened.discard(partition)
        self._unopened.pop(partition, None)
        self._held.discard(partition)

    def _hold(self) -> None:
        """Make what is paused what should be paused. Pausing drops what was fetched ahead, so only changes are made."""
        owned = set(self._epochs)
        wanted = owned & (self._crowded | set(self._unopened)) if self._room() else owned
        stop, go = wanted - self._held, self._held - wanted
        if stop:
            self._consumer.pause([TopicPartition(*partition) for partition in stop])
        if go:
            self._consumer.resume([TopicPartition(*partition) for partition in go])
        self._held = wanted


def kafka_offsets(commits: Mapping[Partition, Commit]) -> list[TopicPartition]:
    """As confluent-kafka takes them."""
    return [
        TopicPartition(partition.topic, partition.number, commit.offset, commit.metadata)
        for partition, commit in commits.items()
    ]
