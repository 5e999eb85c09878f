"""What we own of the requests topic, what is finished there, and the next group to be announced for it.

Offset trackers and waiting announcements belong to one assignment of one partition: when the partition goes, they go,
and whoever owns it now announces. Owned by the worker's thread.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from consumer.intake import Membership, Partition, Polled, Record
from consumer.offsets import Commit, OffsetTracker
from consumer.transactions import Offsets, Verdict
from pipeline.jobs import Outcome, RegisteredModel

GROUP_LIMIT = 500
"""Announcements in one transaction; more wait for the next."""
REFUSED_PAUSE_S = 5.0


@dataclass(frozen=True, slots=True, eq=False)
class Announcement:
    """A record that is finished, and what is to be said about it.

    Nothing at all for a duplicate of a request that is finished elsewhere; `dead_letter` is (reason, message) for a
    record that has no outcome of its own.
    """

    record: Record
    outcome: Outcome | None = None
    registered: RegisteredModel | None = None
    dead_letter: tuple[str, str] | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Group:
    """Announcements that become visible together with the offsets that account for them."""

    announcements: Sequence[Announcement]
    offsets: Offsets


@dataclass(slots=True)
class _Owned:
    epoch: int
    tracker: OffsetTracker
    committed: Commit | None = None


class Assignment:
    def __init__(self, boot: int) -> None:
        self.membership = Membership()
        self._boot = boot
        self._owned: dict[Partition, _Owned] = {}
        self._waiting: deque[Announcement] = deque()
        self._refused: deque[tuple[float, Announcement]] = deque()
        """Announcements that a transaction refused, with the time at which each is tried again, alone."""
        self._in_flight: Group | None = None
        self._stale: Membership | None = None
        self._groups = 0

    def update(self, polled: Polled) -> set[tuple[Partition, int]]:
        """Take over the membership after a poll; returns the (partition, epoch) pairs that are gone."""
        self.membership = polled.membership
        epochs = polled.membership.epochs
        gone = {(p, owned.epoch) for p, owned in self._owned.items() if epochs.get(p) != owned.epoch}
        if gone:
            self._owned = {p: owned for p, owned in self._owned.items() if (p, owned.epoch) not in gone}
            self._waiting = deque(a for a in self._waiting if self.owns(a.record))
            self._refused = deque((at, a) for at, a in self._refused if self.owns(a.record))
        for partition, before in polled.opened.items():
            self._owned[partition] = _Owned(epochs[partition], OffsetTracker(before))
        return gone

    def owns(self, record: Record) -> bool:
        """Whether the record still belongs to an assignment of ours."""
        owned = self._owned.get(record.partition)
        return owned is not None and owned.epoch == record.epoch

    def deliver(self, record: Record) -> bool:
        """Note a record; False if it is no work."""
        return self.owns(record) and self._owned[record.partition].tracker.deliver(record.offset)

    def announce(self, announcement: Announcement) -> None:
        """Have this said, with the next group; nothing happens if the record is not ours any more."""
        if self.owns(announcement.record):
            self._waiting.append(announcement)

    def next_group(self, now: float) -> Group | None:
        """What to announce now; None while a group is on its way, or there is nothing to say or to commit."""
        if not self._may_go():
            return None
        membership = self.membership
        announcements = self._take(now)
        by_partition: dict[Partition, list[int]] = {}
        for announcement in announcements:
            by_partition.setdefault(announcement.record.partition, []).append(announcement.record.offset)
        self._groups += 1
        tag = f"{self._boot:x}.{self._groups:x}"
        commits = {p: self._commit(p, offsets, tag) for p, offsets in by_partition.items()}
        commits |= {p: self._commit(p, (), tag) for p in self._behind() if p not in commits}
        if not commits:
            return None
        self._in_flight = Group(announcements, Offsets(commits, membership, tag))
        return self._in_flight

    def settle(self, group: Group, verdict: Verdict, now: float) -> Sequence[Announcement]:
        """Note how a group fared; returns the announcements that are done for good."""
        self._in_flight = None
        ours = [announcement for announcement in group.announcements if self.owns(announcement.record)]
        if verdict is Verdict.STALE:
            self._stale = group.offsets.membership
            self._waiting.extendleft(reversed(ours))
            return ()
        if verdict is Verdict.REFUSED:
            pause = REFUSED_PAUSE_S if len(group.announcements) == 1 else 0.0
            self._refused.extend((now + pause, announcement) for announcement in ours)
            return ()
        for announcement in ours:
            self._owned[announcement.record.partition].tracker.finish((announcement.record.offset,))
        for partition, commit in group.offsets.commits.items():
            owned = self._owned.get(partition)
            if owned is not None and owned.epoch == group.offsets.membership.epochs.get(partition):
                owned.committed = commit
        return group.announcements

    @property
    def pending(self) -> bool:
        """Whether announcements wait for nothing but their turn."""
        return bool(self._waiting) and self._may_go()

    @property
    def idle(self) -> bool:
        """Whether nothing waits to be announced or is on its way."""
        return self._in_flight is None and not self._waiting and not self._refused

    @property
    def unfinished(self) -> int:
        return sum(owned.tracker.unfinished for owned in self._owned.values())

    def crowded(self) -> frozenset[Partition]:
        """Partitions to pause: the metadata of their offsets is nearly full."""
        return frozenset(partition for partition, owned in self._owned.items() if owned.tracker.crowded)

    def lags(self) -> Mapping[Partition, int]:
        """For each partition that has delivered anything, the records from the low-water offset to the log's end."""
        ends, positions = self.membership.ends, self.membership.positions
        lags = {}
        for partition in self._owned.keys() & ends.keys():
            low = self._owned[partition].tracker.lowest_unfinished
            lags[partition] = max(0, ends[partition] - (positions[partition] if low is None else low))
        return lags

    def _may_go(self) -> bool:
        membership = self.membership
        return self._in_flight is None and membership.proof is not None and membership is not self._stale

    def _take(self, now: float) -> Sequence[Announcement]:
        if self._refused and self._refused[0][0] <= now:
            return (self._refused.popleft()[1],)
        return [self._waiting.popleft() for _ in range(min(len(self._waiting), GROUP_LIMIT))]

    def _commit(self, partition: Partition, offsets: Sequence[int], tag: str) -> Commit:
        position = self.membership.positions.get(partition, 0)
        return self._owned[partition].tracker.commit(offsets, position, tag)

    def _behind(self) -> Iterator[Partition]:
        """Partitions with nothing unfinished whose position has moved on since the last commit (past a marker)."""
        for partition, owned in self._owned.items():
            position = self.membership.positions.get(partition)
            if owned.tracker.unfinished or position is None:
                continue
            if owned.committed is None or owned.committed.offset < position:
                yield partition
