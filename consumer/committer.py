"""Makes groups of announcements visible, one at a time; while one is on its way the next gathers.

Every message is built from stored documents alone, so announcing again says the same.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

import structlog

from consumer import failpoints
from consumer.announcements import Announcement
from consumer.assignment import Group
from consumer.dead_letters import dead_letter
from consumer.events.codec import Codec
from consumer.events.messages import Message, message
from consumer.events.outgoing import registered_event, terminal_progress
from consumer.events.topics import Topics
from consumer.failures import ThreadFailed
from consumer.metrics import Metrics
from consumer.progress import Progress
from consumer.transactions import Announcer, Verdict
from consumer.waiting import Breakers, Stopped, until_answered
from pipeline.jobs import Outcome, RegisteredModel
from schemas import Record as Schema

log = structlog.get_logger(__name__)

T = TypeVar("T")


_RESULTS = {Verdict.COMMITTED: "committed", Verdict.STALE: "aborted", Verdict.REFUSED: "refused"}


@dataclass(frozen=True, slots=True)
class GroupSettled:
    group: Group
    verdict: Verdict


class Committer(threading.Thread):
    """Owns the announcer and its producer."""

    def __init__(
        self,
        announcer: Announcer,
        progress: Progress,
        codec: Codec,
        topics: Topics,
        *,
        breakers: Breakers,
        metrics: Metrics,
        deliver: Callable[[GroupSettled | ThreadFailed], None],
    ) -> None:
        super().__init__(name="committer", daemon=True)
        self._announcer = announcer
        self._progress = progress
        self._codec = codec
        self._topics = topics
        self._breakers = breakers
        self._metrics = metrics
        self._deliver = deliver
        self._groups: queue.SimpleQueue[Group | None] = queue.SimpleQueue()
        self._stop_waiting = threading.Event()

    def submit(self, group: Group) -> None:
        self._groups.put(group)

    def stop(self) -> None:
        """End after the group in hand; join() waits for it."""
        self._stop_waiting.set()
        self._groups.put(None)

    def run(self) -> None:
        try:
            self._wait_for(self._announcer.prepare)
            while (group := self._groups.get()) is not None:
                self._deliver(GroupSettled(group, self._announce(group)))
        except Stopped:
            log.info("stopped before the last group was announced; the partitions' next owner does it")
        except Exception as error:  # noqa: BLE001 - handed to the worker, which ends
            self._deliver(ThreadFailed(self.name, error))
        finally:
            self._announcer.close()

    def _announce(self, group: Group) -> Verdict:
        messages = [m for announcement in group.announcements for m in self._messages(announcement)]
        if messages:
            self._wait_for(self._progress.flush)
        if any(message.topic == self._topics.dead_letters for message in messages):
            failpoints.reach("while_dead_lettering")
        begun = time.perf_counter()
        verdict = self._wait_for(lambda: self._announcer.announce(messages, group.offsets))
        self._metrics.transactions.labels(_RESULTS[verdict]).inc()
        self._metrics.transaction_s.observe(time.perf_counter() - begun)
        self._metrics.group_size.observe(len(group.announcements))
        return verdict

    def _wait_for(self, operation: Callable[[], T]) -> T:
        return until_answered(operation, breakers=self._breakers, stop=self._stop_waiting, service="kafka")

    def _messages(self, announcement: Announcement) -> Iterator[Message]:
        outcome, record = announcement.outcome, announcement.record
        if announcement.dead_letter is not None:
            yield dead_letter(self._topics.dead_letters, record, *announcement.dead_letter)
        if outcome is None:
            return
        yield from outcome_messages(self._codec, self._topics, outcome, announcement.registered)
        if outcome.dead_lettered and outcome.error is not None:
            yield dead_letter(self._topics.dead_letters, record, outcome.error.kind, outcome.error.message)


def outcome_messages(
    codec: Codec, topics: Topics, outcome: Outcome, registered: RegisteredModel | None
) -> Iterator[Message]:
    """The terminal progress event of an outcome, and with a model its model-registered event."""
    terminal = terminal_progress(outcome, registered)
    yield message(codec, topics, Schema.TRAINING_PROGRESS, terminal, outcome.traceparent)
    if registered is not None:
        event = registered_event(registered)
        yield message(codec, topics, Schema.MODEL_REGISTERED, event, registered.traceparent)
