"""Polls the Kafka consumer in the only thread that uses it, and waits for nothing else.

The records go to the worker with the *membership* as it was right after the poll: which partitions we own, in which
assignment epoch, and the group metadata that proves it. The broker accepts offsets for a partition that a live member
has lost. Only ownership and proof taken together keep us from committing offsets of another worker's partition.

Once the worker holds enough of a project, that project is *sated*: its further records are passed over, so that reading
continues to those of other projects behind them. Of a passed-over record the worker gets only the offset; when there is
room, it rewinds the partition to the first such offset. Until then all later records of that project in that partition
are passed over too, which keeps the order within its models.
"""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from types import MappingProxyType
from typing import cast

import structlog
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from consumer import failpoints
from consumer.partitions.offsets import Commit, CommittedProgress, read_metadata
from consumer.partitions.records import (
    Membership,
    Partition,
    PassedOver,
    Polled,
    Reading,
    Record,
    kafka_offsets,
    project_of,
)
from consumer.threads.neighbour import Polling, Surroundings
from pipeline.errors import SupersededError

log = structlog.get_logger(__name__)

POLL_S = 0.1
"""How long a poll waits for a record: orders are carried out, and the membership is told, between two polls."""
IDLE_POLL_S = 0.5
"""The same while the worker is idle: the only order is then to leave, and nothing needs the membership as a proof."""
IDLE_AFTER_S = 1.0
"""How long after a record polls stay short: the worker may not have said yet that it has it."""
BATCH = 500
COMMITTED_TIMEOUT_S = 2.0
PATIENCE_S = 0.25
"""How long to wait for room before pausing: a pause drops what was fetched ahead."""
FENCED = KafkaError(KafkaError.FENCED_INSTANCE_ID).str()
"""Looked for in the text of a fatal error, whose code says only that it is fatal."""


class Intake(Polling):
    """Owns the consumer from the first poll to close()."""

    def __init__(
        self,
        consumer: Consumer,
        topic: str,
        *,
        around: Surroundings,
        poll_s: float = POLL_S,
        patience_s: float = PATIENCE_S,
    ) -> None:
        super().__init__("intake", around)
        self._consumer = consumer
        self._topic = topic
        self._poll_s = poll_s
        self._patience_s = patience_s
        self._orders: deque[Callable[[], None]] = deque()
        self._reading = Reading()
        self._wanted = threading.Event()
        self._delivered = 0
        self._behind: dict[Partition, set[bytes]] = {}
        """By partition, the projects of which a record was passed over; their later records are, too."""
        self._rewinding: dict[Partition, int] = {}
        """The offset that a partition was rewound to, until its first record has come."""
        self._held: set[Partition] = set()
        """The partitions that are paused."""
        self._epoch = 0
        self._epochs: dict[Partition, int] = {}
        self._unopened: dict[Partition, list[Record]] = {}
        """Records of partitions whose committed progress is not known yet."""
        self._opened: set[Partition] = set()
        self._read_at = -math.inf
        """When the last record was read."""
        self.turned_at = time.monotonic()
        """When the loop took its last turn (monotonic seconds), for /livez."""

    def read(self, reading: Reading) -> None:
        """Read as this says from now on."""
        self._reading = reading
        self._wanted.set()

    def rewind(self, partition: Partition, epoch: int, offset: int) -> None:
        """Read a partition again from this offset on; projects passed over so far are delivered unless sated then."""

        def apply() -> None:
            if self._epochs.get(partition) != epoch:
                return
            try:
                self._consumer.seek(TopicPartition(*partition, offset))
            except KafkaException as error:
                log.info("not rewound yet", partition=partition.number, error=str(error))
                self._orders.append(apply)
                return
            self._behind.pop(partition, None)
            self._rewinding[partition] = offset

        self._orders.append(apply)
        self._wanted.set()

    def commit(self, offsets: Mapping[Partition, tuple[int, Commit]]) -> Future[bool]:
        """Commit outside a transaction. `offsets` has (epoch, commit); False if an epoch is over."""
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
        self._wanted.set()
        return done

    def leave(self) -> None:
        """Leave the group and end the thread; join() waits for that."""
        self.finish()

    def open(self) -> None:
        self._consumer.subscribe([self._topic], on_assign=self._assigned, on_revoke=self._revoked, on_lost=self._lost)

    def _go_round(self) -> None:
        super()._go_round()
        self._obey()
        self._consumer.close()
        self._deliver(Polled((), {}, Membership()))

    def step(self) -> bool:
        self._await_room()
        self._obey()
        self._hold()
        room = self._room()
        message = self._consumer.poll(self._wait_s())
        messages = [] if message is None else [message, *self._consumer.consume(max(0, min(BATCH, room) - 1), 0)]
        rewound: dict[Partition, int] = {}
        read = self._read(messages, rewound)
        opened: dict[Partition, CommittedProgress] = {}
        records = self._open(read, opened)
        membership = self._membership()
        self.turned_at = time.monotonic()
        if read:
            self._read_at = self.turned_at
            failpoints.reach("after_poll")
        self._deliver(Polled(records, opened, membership, rewound))
        return bool(read)

    def _await_room(self) -> None:
        """Give the worker up to `patience_s` to make room, before all partitions are paused."""
        self._wanted.clear()
        if not self._room() and self._held != self._epochs.keys():
            self._wanted.wait(self._patience_s)

    def _room(self) -> int:
        """How many more records may be read, counting those that wait for their partition to open as delivered."""
        waiting = sum(len(waiting) for waiting in self._unopened.values())
        return max(0, self._reading.records - self._delivered - waiting)

    def _wait_s(self) -> float:
        """How long the next poll waits for a record."""
        rests = self._reading.idle and not self._unopened and time.monotonic() - self._read_at > IDLE_AFTER_S
        return IDLE_POLL_S if rests else self._poll_s

    def _obey(self) -> None:
        for _ in range(len(self._orders)):
            self._orders.popleft()()

    def _read(self, messages: Sequence[Message], rewound: dict[Partition, int]) -> list[Record | PassedOver]:
        """The polled records of our partitions; adds rewound partitions, with their first offset, to `rewound`."""
        read: list[Record | PassedOver] = []
        for message in messages:
            error = message.error()
            if error is not None:
                self._complain(error)
                continue
            partition = Partition(cast(str, message.topic()), cast(int, message.partition()))
            epoch, offset = self._epochs.get(partition), cast(int, message.offset())
            if epoch is None:
                continue
            if (asked := self._rewinding.pop(partition, None)) is not None:
                rewound[partition] = asked if offset == asked else self._log_start(partition, asked)
            if not self._passes(partition, message.key()):
                read.append(_record(message, partition, epoch))
            elif read and isinstance(read[-1], PassedOver) and read[-1].partition == partition:
                read[-1].offsets.append(offset)
            else:
                read.append(PassedOver(partition, epoch, [offset]))
        return read

    def _log_start(self, partition: Partition, asked: int) -> int:
        """The start of a partition's log, or the offset asked for if that is later."""
        try:
            start, _ = self._consumer.get_watermark_offsets(TopicPartition(*partition), timeout=COMMITTED_TIMEOUT_S)
        except KafkaException as error:
            log.warning("log start not known yet", partition=partition.number, error=str(error))
            return asked
        if start > asked:
            self._complain_of_loss(partition, asked, start)
        return max(start, asked)

    def _passes(self, partition: Partition, key: bytes | None) -> bool:
        """Whether a record with this key is passed over."""
        if partition not in self._opened:
            return False
        project, behind = project_of(key), self._behind.setdefault(partition, set())
        reading = self._reading
        passes = project in behind or project in reading.sated or (bool(behind) and partition in reading.in_order)
        if passes:
            behind.add(project)
        return passes

    def _complain(self, error: KafkaError) -> None:
        if error.code() == KafkaError.FENCED_INSTANCE_ID or FENCED in error.str():
            raise SupersededError(f"another process has joined the group as this WORKER_ID: {error.str()}")
        if error.fatal() or error.code() == KafkaError._FATAL:
            raise KafkaException(error)
        if error.code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
            log.error("topic missing", topic=self._topic, remedy="tensorfleet topics create")
        elif error.code() == KafkaError._MAX_POLL_EXCEEDED:
            log.error("removed from the group: the poll loop stood still for too long", error=error.str())
        else:
            log.warning("kafka", code=error.name(), error=error.str())

    def _open(
        self, records: Sequence[Record | PassedOver], opened: dict[Partition, CommittedProgress]
    ) -> list[Record | PassedOver]:
        """Records of open partitions. A partition opens once its committed progress is known; adds it to `opened`."""
        ready: list[Record | PassedOver] = []
        for record in records:
            if isinstance(record, PassedOver) or record.partition in self._opened:
                ready.append(record)
            else:
                self._unopened.setdefault(record.partition, []).append(record)
        for partition, waiting in self._unopened.items():
            self._unopened[partition] = [r for r in waiting if r.epoch == self._epochs.get(partition)]
        self._unopened = {partition: waiting for partition, waiting in self._unopened.items() if waiting}
        for partition, before in self._committed().items():
            opened[partition] = before
            self._opened.add(partition)
            for record in self._unopened.pop(partition):
                passes = self._passes(partition, record.key)
                ready.append(PassedOver(partition, record.epoch, [record.offset]) if passes else record)
        self._delivered += sum(isinstance(record, Record) for record in ready)
        return ready

    def _committed(self) -> dict[Partition, CommittedProgress]:
        """The committed progress of unopened partitions, as far as the broker answers in time."""
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
                before[partition] = CommittedProgress(first, (), "")
            else:
                self._check_loss(partition, one.offset, first)
                before[partition] = read_metadata(one.offset, one.metadata)
        return before

    def _check_loss(self, partition: Partition, committed: int, first: int) -> None:
        if first <= committed:
            return
        start, _ = self._consumer.get_watermark_offsets(TopicPartition(*partition), cached=True)
        if start > committed:
            self._complain_of_loss(partition, committed, start)

    def _complain_of_loss(self, partition: Partition, wanted: int, start: int) -> None:
        self._metrics.expired.inc()
        why = "requests expired unread: the log starts beyond the offset to go on from"
        log.error(why, partition=partition.number, wanted=wanted, log_start=start)

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
        log.info("partitions revoked", partitions=self._give_up(partitions, "revoked"))

    def _lost(self, _: Consumer, partitions: list[TopicPartition]) -> None:
        log.warning("partitions lost", partitions=self._give_up(partitions, "lost"))

    def _give_up(self, partitions: list[TopicPartition], how: str) -> list[int]:
        failpoints.reach("after_revoke")
        for found in partitions:
            self._forget(Partition(found.topic, found.partition))
        self._metrics.rebalances.labels(how).inc()
        return sorted(found.partition for found in partitions)

    def _forget(self, partition: Partition) -> None:
        self._epochs.pop(partition, None)
        self._opened.discard(partition)
        self._unopened.pop(partition, None)
        self._held.discard(partition)
        self._behind.pop(partition, None)
        self._rewinding.pop(partition, None)

    def _hold(self) -> None:
        """Pause and resume partitions, only where that changes something: a pause drops what was fetched ahead."""
        owned = set(self._epochs)
        wanted = owned & (self._reading.closed | set(self._unopened)) if self._room() else owned
        stop, go = wanted - self._held, self._held - wanted
        if stop:
            self._metrics.intake_pauses.inc(len(stop))
            self._consumer.pause([TopicPartition(*partition) for partition in stop])
        if go:
            self._consumer.resume([TopicPartition(*partition) for partition in go])
        self._held = wanted


def _record(message: Message, partition: Partition, epoch: int) -> Record:
    headers = _headers(message)
    _, timestamp_ms = message.timestamp()
    offset = cast(int, message.offset())
    return Record(partition, epoch, offset, message.key(), message.value(), headers, timestamp_ms)


def _headers(message: Message) -> Sequence[tuple[str, bytes | None]]:
    """The headers; empty if a name is not UTF-8, which confluent-kafka cannot return."""
    try:
        return cast(Sequence[tuple[str, bytes | None]], message.headers() or ())
    except UnicodeDecodeError:
        log.warning("headers ignored: a name is not UTF-8", partition=message.partition(), offset=message.offset())
        return ()
