"""Announces a group to Kafka, exactly once or at least once, under one contract.

`ExactlyOnce` puts terminal events and input offsets into one Kafka transaction. `AtLeastOnce` flushes the events and
then commits the offsets, for brokers without transactions. Only the committer's thread calls either.

The end of a transaction is *in doubt* if the broker did not answer the commit in time. Calling commit again is not safe
(librdkafka has no client side of KIP-890). Instead a new producer with the same transactional.id makes the broker
finish or abort the transaction, and the tag in the committed metadata tells which.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from typing import Any, NamedTuple, Protocol, cast

import structlog
from confluent_kafka import (
    Consumer,
    KafkaError,
    KafkaException,
    Producer,
    TopicPartition,
)

from consumer import failpoints
from consumer.events.messages import Message
from consumer.partitions.assignment import Offsets, Verdict
from consumer.partitions.offsets import Commit, read_metadata
from consumer.partitions.records import Partition, kafka_offsets
from pipeline.errors import SupersededError, TransientError

log = structlog.get_logger(__name__)

CALL_TIMEOUT_S = 10.0
INIT_TIMEOUT_S = 30.0
REPORTS_TIMEOUT_S = 1.0

_STALE = (
    KafkaError.ILLEGAL_GENERATION,
    KafkaError.UNKNOWN_MEMBER_ID,
    KafkaError.REBALANCE_IN_PROGRESS,
    KafkaError.STALE_MEMBER_EPOCH,
)
_FENCED = (
    KafkaError._FENCED,
    KafkaError.PRODUCER_FENCED,
    KafkaError.INVALID_PRODUCER_EPOCH,
)
_REFUSED = (
    KafkaError.MSG_SIZE_TOO_LARGE,
    KafkaError.INVALID_MSG,
    KafkaError.UNKNOWN_TOPIC_OR_PART,
    KafkaError._UNKNOWN_TOPIC,
    KafkaError._UNKNOWN_PARTITION,
    KafkaError.TOPIC_AUTHORIZATION_FAILED,
    KafkaError.POLICY_VIOLATION,
    KafkaError.INVALID_RECORD,
)


class Refusal(NamedTuple):
    """Why a record that was handed to librdkafka did not reach its topic."""

    topic: str
    error: KafkaError


class UnsendableError(Exception):
    """librdkafka did not accept one of the records for sending: nothing was committed."""


class Announcer(Protocol):
    def prepare(self) -> None:
        """Get a producer ready; may raise TransientError or SupersededError."""
        ...

    def announce(self, records: Sequence[Message], offsets: Offsets) -> Verdict:
        """Make the records visible and commit the offsets.

        Raises TransientError if the broker did not answer: make the same call again. In `ExactlyOnce` the offsets may
        be committed already; the next call finds out.
        Raises UnsendableError if librdkafka does not accept one of the records.
        Raises SupersededError if another process has taken our place.
        """
        ...

    def close(self) -> None: ...


class ExactlyOnce:
    """Owned by the committer's thread.

    The broker fences our producer in two cases: a newer process of our name has started, or our transaction was open
    too long because we were stopped or cut off. `confirm_life` tells them apart: it raises SupersededError in the first
    case, returns in the second, and raises TransientError if it does not know yet.
    """

    def __init__(
        self,
        producer_config: Mapping[str, Any],
        offsets_config: Mapping[str, Any],
        confirm_life: Callable[[], object],
    ) -> None:
        self._config = dict(producer_config)
        self._offsets_config = dict(offsets_config)
        self._confirm_life = confirm_life
        self._producer: Producer | None = None
        self._doubtful: Offsets | None = None
        self._fenced = False

    def prepare(self) -> None:
        if self._producer is not None:
            return
        if self._fenced:
            self._confirm_life()
            self._fenced = False
        producer = Producer(self._config)
        try:
            producer.init_transactions(INIT_TIMEOUT_S)
        except KafkaException as error:
            self._raise_if_fenced(error)
            raise TransientError("kafka", f"init_transactions: {error}") from error
        self._producer = producer

    def announce(self, records: Sequence[Message], offsets: Offsets) -> Verdict:
        self.prepare()
        if self._doubtful is not None and self._was_committed(self._doubtful):
            happened, self._doubtful = self._doubtful, None
            if happened.tag == offsets.tag:
                return Verdict.COMMITTED
        self._doubtful = None
        producer = cast(Producer, self._producer)
        refused: list[Refusal] = []
        try:
            producer.begin_transaction()
            for record in records:
                produce(producer, record, refused)
            failpoints.reach("in_transaction", _no_answer)
            if offsets.commits:
                self._send_offsets(producer, offsets)
            producer.flush(CALL_TIMEOUT_S)
        except KafkaException as error:
            return self._give_up(error, refused)
        except UnsendableError:
            self._abandon()
            raise
        if refused:
            return self._give_up(KafkaException(refused[0].error), refused)
        return self._end(producer, offsets, refused)

    def close(self) -> None:
        self._producer = None

    def _abandon(self) -> None:
        """Drop the producer and abort its transaction; if that fails, the next producer aborts it."""
        producer, self._producer = self._producer, None
        if producer is not None:
            with suppress(KafkaException, SystemError):
                producer.abort_transaction(CALL_TIMEOUT_S)

    def _send_offsets(self, producer: Producer, offsets: Offsets) -> None:
        """Send the offsets in a thread of their own: the call may exceed its timeout, and may never return once the
        group's coordinator has died (librdkafka #5456, #5511). In that case thread and producer are abandoned.
        """
        answers: queue.SimpleQueue[Exception | None] = queue.SimpleQueue()
        positions = kafka_offsets(offsets.commits)

        def send() -> None:
            try:
                producer.send_offsets_to_transaction(positions, offsets.membership.proof, CALL_TIMEOUT_S)
            except Exception as error:  # noqa: BLE001 - raised where it was asked for
                answers.put(error)
            else:
                answers.put(None)

        threading.Thread(target=send, name="offsets", daemon=True).start()
        try:
            error = answers.get(timeout=CALL_TIMEOUT_S)
        except queue.Empty:
            self._producer = None
            log.warning("the group's coordinator took no offsets in time; a new producer begins afresh")
            raise TransientError("kafka", "the group's coordinator took no offsets in time") from None
        if error is not None:
            raise error

    def _end(self, producer: Producer, offsets: Offsets, refused: Sequence[Refusal]) -> Verdict:
        try:
            failpoints.reach("before_commit", _no_answer)
            producer.commit_transaction(CALL_TIMEOUT_S)
            failpoints.reach("after_commit", _no_answer)
        except KafkaException as error:
            kafka = _kafka_error(error)
            if kafka.txn_requires_abort():
                return self._give_up(error, refused)
            self._doubtful, self._producer = offsets, None
            log.info("the end of a transaction is in doubt", error=kafka.str(), code=kafka.name())
            self._raise_if_fenced(error)
            raise TransientError("kafka", f"the end of a transaction is in doubt: {kafka.str()}") from error
        return Verdict.COMMITTED

    def _give_up(self, error: KafkaException, refused: Sequence[Refusal]) -> Verdict:
        """Abort the transaction, of which nothing was committed, and return the verdict.

        Left open, it would block read_committed readers and the next owner's read of the committed offsets. If the
        abort fails, or the error has no verdict (TransientError), the next producer aborts. The producer is replaced in
        any case: librdkafka can purge records of the transaction even after an abort.
        """
        kafka = _kafka_error(error)
        log.info("transaction aborted", error=kafka.str(), code=kafka.name())
        producer, self._producer = cast(Producer, self._producer), None
        self._raise_if_fenced(error)
        # The refused record may be another one of the group, whose delivery report is still to come.
        producer.flush(REPORTS_TIMEOUT_S)
        verdict = _verdict(kafka, refused)
        if verdict is None:
            raise TransientError("kafka", f"transaction: {kafka.str()}") from error
        if verdict is Verdict.REFUSED:
            _tell(kafka, refused)
        try:
            producer.abort_transaction(CALL_TIMEOUT_S)
        except KafkaException as failed:
            log.info("abort did not go through; the next producer will do it", error=str(failed))
        return verdict

    def _raise_if_fenced(self, error: KafkaException) -> None:
        """Raises SupersededError for a fenced group member: a newer process has our name.

        Raises TransientError for a fenced producer; `prepare` then calls `confirm_life` before the next attempt.
        """
        code = _kafka_error(error).code()
        if code == KafkaError.FENCED_INSTANCE_ID:
            raise SupersededError(f"another process has joined the group as this WORKER_ID: {error}") from error
        if code in _FENCED:
            self._fenced = True
            raise TransientError(
                "kafka", f"fenced by a newer process of this WORKER_ID, or by a time-out: {error}"
            ) from error

    def _was_committed(self, offsets: Offsets) -> bool:
        """Whether these offsets were committed; the broker has decided since init_transactions."""
        wanted = [TopicPartition(*partition) for partition in offsets.commits]
        reader = Consumer(self._offsets_config)
        try:
            found = reader.committed(wanted, timeout=CALL_TIMEOUT_S)
        except KafkaException as error:
            raise TransientError("kafka", f"committed offsets: {error}") from error
        finally:
            reader.close()
        for part in found:
            if part.error is not None:
                raise TransientError("kafka", f"committed offset of {part.topic} [{part.partition}]: {part.error}")
        tags = {read_metadata(part.offset, part.metadata).tag for part in found}
        log.info("transaction was in doubt", took_place=offsets.tag in tags)
        return offsets.tag in tags


class AtLeastOnce:
    """Owned by the committer's thread; `commit` commits in the thread that owns the consumer."""

    def __init__(
        self,
        producer_config: Mapping[str, Any],
        commit: Callable[[Mapping[Partition, tuple[int, Commit]]], Future[bool]],
    ) -> None:
        self._config = dict(producer_config)
        self._commit = commit
        self._producer: Producer | None = None
        self._said: set[tuple[object, ...]] = set()
        """Records that are on their topics although their offsets are not committed; they are not sent again."""

    def prepare(self) -> None:
        if self._producer is None:
            self._producer = Producer(self._config)

    def announce(self, records: Sequence[Message], offsets: Offsets) -> Verdict:
        self.prepare()
        producer = cast(Producer, self._producer)
        refused: list[Refusal] = []
        try:
            for record in records:
                if _identity(record) not in self._said:
                    produce(producer, record, refused)
            failpoints.reach("in_transaction", _no_answer)
            left = producer.flush(CALL_TIMEOUT_S)
            if refused and all(one.error.code() in _REFUSED for one in refused):
                _tell(refused[0].error, refused)
                return Verdict.REFUSED
            if left or refused:
                producer.purge()
                raise TransientError(
                    "kafka", refused[0].error.str() if refused else f"{left} events were not acknowledged"
                )
            self._said.update(map(_identity, records))
            failpoints.reach("before_commit", _no_answer)
            owned = {partition: (offsets.membership.epochs[partition], c) for partition, c in offsets.commits.items()}
            if not self._commit(owned).result(INIT_TIMEOUT_S):
                return Verdict.STALE
            failpoints.reach("after_commit", _no_answer)
            self._said.clear()
            return Verdict.COMMITTED
        except KafkaException as error:
            kafka = _kafka_error(error)
            if kafka.code() in _STALE:
                return Verdict.STALE
            if kafka.code() in _REFUSED:
                return Verdict.REFUSED
            raise TransientError("kafka", kafka.str()) from error
        except TimeoutError as error:
            raise TransientError("kafka", "the offsets were not committed in time") from error

    def close(self) -> None:
        if self._producer is not None:
            self._producer.flush(CALL_TIMEOUT_S)
        self._producer = None


def _no_answer() -> KafkaException:
    return KafkaException(KafkaError(KafkaError._TIMED_OUT, "no answer (failpoint)"))


def _identity(record: Message) -> tuple[object, ...]:
    return record.topic, record.key, record.value, *record.headers


def produce(producer: Producer, record: Message, refused: list[Refusal]) -> None:
    """Hand a record to librdkafka, waiting while its queue is full; a failed delivery is added to `refused` later.

    Raises UnsendableError if librdkafka does not accept the record for sending.
    """

    def delivered(error: KafkaError | None, _: object) -> None:
        if error is not None:
            refused.append(Refusal(record.topic, error))

    while True:
        try:
            producer.produce(
                record.topic,
                key=record.key,
                value=record.value,
                headers=list(record.headers),
                on_delivery=delivered,
            )
        except BufferError:
            producer.poll(0.1)
        except (TypeError, ValueError, OverflowError, SystemError) as error:
            raise UnsendableError(f"a record for {record.topic} cannot be handed over: {error}") from error
        else:
            return


def _verdict(kafka: KafkaError, refused: Sequence[Refusal]) -> Verdict | None:
    if kafka.code() in _STALE:
        return Verdict.STALE
    if kafka.code() in _REFUSED or any(one.error.code() in _REFUSED for one in refused):
        return Verdict.REFUSED
    return None


def _tell(kafka: KafkaError, refused: Sequence[Refusal]) -> None:
    why = next((one for one in refused if one.error.code() in _REFUSED), Refusal("", kafka))
    log.error("the broker refuses a record", topic=why.topic, code=why.error.name(), error=why.error.str())


def _kafka_error(error: KafkaException) -> KafkaError:
    return cast(KafkaError, error.args[0])
