"""Batches announcements, so that one record that Kafka refuses does not block the others.

If Kafka refuses a group, the dead letters in it (all of it, if it has none) are *quarantined*: they are sent in groups
of their own, whose size halves after a refusal and doubles after a commit. One that is refused alone is tried again
after REFUSED_PAUSE_S, behind the other quarantined ones. While there are any, every new dead letter joins them: so a
dead-letter topic that takes nothing costs one refused transaction per pause.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from consumer.partitions.records import Record
from pipeline.jobs import Outcome, RegisteredModel

GROUP_LIMIT = 500
"""The most announcements in one transaction."""
REFUSED_PAUSE_S = 5.0


@dataclass(frozen=True, slots=True, eq=False)
class Announcement:
    """A finished record, and what to announce about it.

    For a duplicate of a finished request that is nothing. `dead_letter` is (reason, message) for a record that has no
    outcome of its own.
    """

    record: Record
    outcome: Outcome | None = None
    registered: RegisteredModel | None = None
    dead_letter: tuple[str, str] | None = None

    @property
    def request_id(self) -> str | None:
        return None if self.outcome is None else self.outcome.request_id

    @property
    def has_dead_letter(self) -> bool:
        """Whether the record's bytes go to the dead-letter topic."""
        return self.dead_letter is not None or (self.outcome is not None and self.outcome.dead_lettered)


class Announcements:
    """The announcements that wait. One group at a time is out; it comes back if it was not committed.

    Owned by the worker's thread.
    """

    def __init__(self) -> None:
        self._waiting: deque[Announcement] = deque()
        self._quarantined: deque[Announcement] = deque()
        self._together = GROUP_LIMIT
        """The size of the next quarantined group."""
        self._pause_until = 0.0
        self._took_quarantined = False
        """Whether the last group taken is a quarantined one."""

    def add(self, announcement: Announcement) -> None:
        quarantine = self._quarantined and announcement.has_dead_letter
        (self._quarantined if quarantine else self._waiting).append(announcement)

    def take(self, now: float) -> Sequence[Announcement]:
        """The next group, in turns from the quarantined and the others; empty if there is none now."""
        due = bool(self._quarantined) and self._pause_until <= now
        self._took_quarantined = due and not (self._took_quarantined and self._waiting)
        if self._took_quarantined:
            return _pop(self._quarantined, self._together)
        return _pop(self._waiting, GROUP_LIMIT)

    def put_back(self, group: Sequence[Announcement]) -> None:
        """The last group taken was not tried: put it first again."""
        (self._quarantined if self._took_quarantined else self._waiting).extendleft(reversed(group))

    def taken(self) -> None:
        """The last group taken was committed."""
        if self._took_quarantined:
            self._together = min(GROUP_LIMIT, 2 * self._together)
            self._pause_until = 0.0

    def refused(self, group: Sequence[Announcement], now: float) -> None:
        """The broker refused a record of the last group taken: quarantine its dead letters."""
        blamed = [announcement for announcement in group if announcement.has_dead_letter] or list(group)
        if len(group) == 1:
            self._quarantined.extend(blamed)
            self._together = 1
            self._pause_until = now + REFUSED_PAUSE_S
            return
        self._quarantined.extendleft(reversed(blamed))
        self._together = max(1, len(blamed) // 2)
        if len(blamed) < len(group):
            self._waiting.extendleft(one for one in reversed(group) if not one.has_dead_letter)
        self._quarantined.extend(one for one in self._waiting if one.has_dead_letter)
        self._waiting = deque(one for one in self._waiting if not one.has_dead_letter)

    def keep(self, wanted: Callable[[Announcement], bool]) -> None:
        """Drop all others."""
        self._waiting = deque(filter(wanted, self._waiting))
        self._quarantined = deque(filter(wanted, self._quarantined))

    @property
    def waiting(self) -> bool:
        """Whether announcements wait that are not quarantined."""
        return bool(self._waiting)

    @property
    def quarantined(self) -> int:
        return len(self._quarantined)

    @property
    def stuck(self) -> bool:
        """Whether the last quarantined group was a single announcement, and was refused."""
        return bool(self._quarantined) and self._pause_until > 0


def _pop(queue: deque[Announcement], count: int) -> Sequence[Announcement]:
    return [queue.popleft() for _ in range(min(len(queue), count))]
