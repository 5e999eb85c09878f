"""Announces groups, one at a time; while one is on its way, the worker gathers the next.

Every message is built from stored documents alone, so a group that is announced again has the same messages.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

from consumer import failpoints
from consumer.events.codec import Codec
from consumer.events.messages import Message
from consumer.events.outgoing import outcome_messages
from consumer.events.topics import Topics
from consumer.partitions.announcements import Announcement
from consumer.partitions.assignment import Group, Verdict
from consumer.publishing.dead_letters import dead_letter
from consumer.publishing.progress import Progress
from consumer.publishing.transactions import Announcer, UnsendableError
from consumer.threads.containment import contain
from consumer.threads.neighbour import Ordered, Surroundings

ANNOUNCING_LIMIT_S = 120.0
"""A new producer, a read of the committed offsets, and a transaction may each use up their time-outs."""
_RESULTS = {Verdict.COMMITTED: "committed", Verdict.STALE: "aborted", Verdict.REFUSED: "refused"}


@dataclass(frozen=True, slots=True)
class GroupAnswered:
    group: Group
    verdict: Verdict


class Committer(Ordered):
    """Owns the announcer and its producer."""

    def __init__(
        self, announcer: Announcer, progress: Progress, codec: Codec, topics: Topics, *, around: Surroundings
    ) -> None:
        super().__init__("committer", around, busy_limit_s=ANNOUNCING_LIMIT_S)
        self._announcer = announcer
        self._progress = progress
        self._codec = codec
        self._topics = topics

    def submit(self, group: Group) -> None:
        """Announce this; answered with a GroupAnswered. If we give up, the partitions' next owner announces it."""
        self.order(lambda: self._deliver(GroupAnswered(group, self._announce(group))))

    def open(self) -> None:
        self.answered(self._announcer.prepare, service="kafka")

    def close(self) -> None:
        self._announcer.close()

    def _announce(self, group: Group) -> Verdict:
        """Announce and measure. A group that cannot be sent counts as REFUSED, so that halving finds the bad record."""
        begun = time.perf_counter()
        verdict = self._say(group)
        self._metrics.transactions.labels(_RESULTS[verdict]).inc()
        self._metrics.transaction_s.observe(time.perf_counter() - begun)
        self._metrics.group_size.observe(len(group.announcements))
        return verdict

    def _say(self, group: Group) -> Verdict:
        try:
            messages = [m for announcement in group.announcements for m in self._messages(announcement)]
        except Exception as error:  # noqa: BLE001 - about one of the group
            return self._unsendable(group, error)
        if messages:
            self.answered(self._progress.flush, service="kafka")
        if any(message.topic == self._topics.dead_letters for message in messages):
            failpoints.reach("while_dead_lettering")
        try:
            return self.answered(lambda: self._announcer.announce(messages, group.offsets), service="kafka")
        except UnsendableError as error:
            return self._unsendable(group, error)

    def _unsendable(self, group: Group, error: Exception) -> Verdict:
        contain(self._metrics, "announce", error, request_ids=[one.request_id for one in group.announcements][:20])
        return Verdict.REFUSED

    def _messages(self, announcement: Announcement) -> Iterator[Message]:
        outcome, record = announcement.outcome, announcement.record
        if announcement.dead_letter is not None:
            yield dead_letter(self._topics.dead_letters, record, *announcement.dead_letter)
        if outcome is None:
            return
        yield from outcome_messages(self._codec, self._topics, outcome, announcement.registered)
        if outcome.dead_lettered and outcome.error is not None:
            yield dead_letter(self._topics.dead_letters, record, outcome.error.kind, outcome.error.message)
