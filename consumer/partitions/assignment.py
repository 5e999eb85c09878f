"""Tracks this worker's partitions: what is finished in each, and the next group to announce.

Offset trackers and waiting announcements belong to one assignment of one partition. When the partition is lost they are
dropped, and its next owner announces. Owned by the worker's thread.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum

from consumer.partitions.announcements import Announcement, Announcements
from consumer.partitions.offsets import Commit, OffsetTracker
from consumer.partitions.records import Membership, Partition, PassedOver, Polled, Record


@dataclass(frozen=True, slots=True)
class Offsets:
    """What to commit, the membership that it was built under, and the tag that its metadata carries."""

    commits: Mapping[Partition, Commit]
    membership: Membership
    tag: str


class Verdict(Enum):
    COMMITTED = "committed"
    STALE = "stale"
    """The consumer group has rebalanced: nothing was committed; try again with a newer membership."""
    REFUSED = "refused"
    """The broker refuses one of the records: nothing was committed."""


@dataclass(frozen=True, slots=True, eq=False)
class Group:
    """Announcements that become visible together with their offsets."""

    announcements: Sequence[Announcement]
    offsets: Offsets


@dataclass(slots=True)
class _Owned:
    """One assignment of one partition.

    Attributes:
        passed: offsets that were passed over; the tracker counts them as delivered and unfinished.
        held: by project, how many records are delivered, unfinished and not passed over.
        next: the offset after the last one read; below the tracker's end while passed-over records are read again.
        rewinding: whether a rewind was requested and no record has come since.
    """

    epoch: int
    tracker: OffsetTracker
    committed: Commit | None = None
    passed: set[int] = field(default_factory=set)
    held: Counter[bytes] = field(default_factory=Counter)
    next: int = 0
    rewinding: bool = False

    @property
    def at_end(self) -> bool:
        """Whether reading, since the last rewind, has reached the offset that was read before it."""
        return not self.rewinding and self.next >= self.tracker.end


class Assignment:
    def __init__(self, boot: int) -> None:
        self.membership = Membership()
        self._boot = boot
        self._owned: dict[Partition, _Owned] = {}
        self._announcements = Announcements()
        self._in_flight: Group | None = None
        self._stale: Membership | None = None
        self._groups = 0
        self._held: Counter[bytes] = Counter()
        """`held` of all partitions together."""

    def update(self, polled: Polled) -> set[tuple[Partition, int]]:
        """Take the membership of a poll; returns the (partition, epoch) pairs that were lost."""
        self.membership = polled.membership
        epochs = polled.membership.epochs
        gone = {(p, owned.epoch) for p, owned in self._owned.items() if epochs.get(p) != owned.epoch}
        if gone:
            self._owned = {p: owned for p, owned in self._owned.items() if (p, owned.epoch) not in gone}
            self._announcements.keep(lambda announcement: self.owns(announcement.record))
            self._held = sum((owned.held for owned in self._owned.values()), Counter())
        for partition, before in polled.opened.items():
            self._owned[partition] = _Owned(epochs[partition], OffsetTracker(before))
        for partition, offset in polled.rewound.items():
            if partition in self._owned:
                self._rewound(self._owned[partition], offset)
        return gone

    def owns(self, record: Record) -> bool:
        """Whether the record belongs to a current assignment of ours."""
        owned = self._owned.get(record.partition)
        return owned is not None and owned.epoch == record.epoch

    def deliver(self, record: Record) -> bool:
        """Count a record as delivered; False if there is nothing to do for it."""
        if not self.owns(record):
            return False
        owned = self._owned[record.partition]
        owned.next = max(owned.next, record.offset + 1)
        if record.offset in owned.passed:
            owned.passed.remove(record.offset)
        elif not owned.tracker.deliver(record.offset):
            return False
        owned.held[record.project] += 1
        self._held[record.project] += 1
        return True

    def pass_over(self, passed: PassedOver) -> None:
        """Note offsets that are to be read again later."""
        owned = self._owned.get(passed.partition)
        if owned is not None and owned.epoch == passed.epoch:
            owned.next = max(owned.next, passed.offsets[-1] + 1)
            owned.passed.update(offset for offset in passed.offsets if owned.tracker.deliver(offset))

    def rewind(self) -> Iterator[tuple[Partition, int, int]]:
        """The partitions to read again now, as (partition, epoch, first offset)."""
        for partition, owned in self._owned.items():
            if owned.passed and owned.at_end:
                owned.rewinding = True
                yield partition, owned.epoch, min(owned.passed)

    def announce(self, announcement: Announcement) -> None:
        """Queue an announcement for the next group; ignored if the record is not ours any more."""
        if self.owns(announcement.record):
            self._announcements.add(announcement)

    def next_group(self, now: float) -> Group | None:
        """The group to announce now; None while another is on its way, or if there is nothing to announce or commit."""
        if not self._may_go():
            return None
        membership = self.membership
        announcements = self._announcements.take(now)
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

    def apply(self, group: Group, verdict: Verdict, now: float) -> Sequence[Announcement]:
        """Apply Kafka's verdict on a group; returns the announcements that are committed."""
        self._in_flight = None
        ours = [announcement for announcement in group.announcements if self.owns(announcement.record)]
        if verdict is Verdict.STALE:
            self._stale = group.offsets.membership
            self._announcements.put_back(ours)
            return ()
        if verdict is Verdict.REFUSED:
            self._announcements.refused(ours, now)
            return ()
        self._announcements.taken()
        for announcement in ours:
            self._finish(announcement.record)
        for partition, commit in group.offsets.commits.items():
            owned = self._owned.get(partition)
            if owned is not None and owned.epoch == group.offsets.membership.epochs.get(partition):
                owned.committed = commit
        return group.announcements

    @property
    def pending(self) -> bool:
        """Whether announcements wait and a group may be sent now."""
        return self._announcements.waiting and self._may_go()

    @property
    def idle(self) -> bool:
        """Whether nothing is on its way or waits to be announced, except what the broker refuses."""
        announcements = self._announcements
        waits = announcements.waiting or (announcements.quarantined and not announcements.stuck)
        return self._in_flight is None and not waits

    @property
    def empty(self) -> bool:
        """Whether no record is unfinished or passed over, and nothing is on its way."""
        return self.idle and not any(owned.tracker.unfinished for owned in self._owned.values())

    @property
    def refused(self) -> int:
        """How many announcements are quarantined after a refusal by the broker."""
        return self._announcements.quarantined

    @property
    def unfinished(self) -> int:
        """How many records are delivered and unfinished, without those passed over."""
        return sum(owned.tracker.unfinished - len(owned.passed) for owned in self._owned.values())

    @property
    def passed(self) -> int:
        """How many records are passed over and not read again yet."""
        return sum(len(owned.passed) for owned in self._owned.values())

    def holding(self, least: int) -> frozenset[bytes]:
        """The projects with at least this many unfinished records, without those passed over."""
        return frozenset(project for project, count in self._held.items() if count >= least)

    def crowded(self) -> frozenset[Partition]:
        """Partitions whose offset metadata is nearly full, because of too many gaps between finished records."""
        return frozenset(partition for partition, owned in self._owned.items() if owned.tracker.crowded)

    def closed(self, passed_limit: int) -> frozenset[Partition]:
        """Partitions to pause: they would deliver new records, but their metadata or the passed-over list is full."""
        full = self.passed >= passed_limit
        return frozenset(
            partition
            for partition, owned in self._owned.items()
            if owned.at_end and (owned.tracker.crowded or (full and owned.passed))
        )

    def lags(self) -> Mapping[Partition, int]:
        """Offsets from the low-water offset to the log's end, for each partition that has delivered anything."""
        ends, positions = self.membership.ends, self.membership.positions
        lags = {}
        for partition in self._owned.keys() & ends.keys():
            low = self._owned[partition].tracker.lowest_unfinished
            lags[partition] = max(0, ends[partition] - (positions[partition] if low is None else low))
        return lags

    def heads(self) -> Mapping[Partition, tuple[int, int]]:
        """(first unfinished offset, number of finished records beyond it), for partitions that have both."""
        return {
            partition: (low, ahead)
            for partition, owned in self._owned.items()
            if (low := owned.tracker.lowest_unfinished) is not None and (ahead := owned.tracker.finished_ahead)
        }

    def passes(self, partition: Partition, offset: int) -> bool:
        """Whether this record is passed over and not read again yet."""
        return partition in self._owned and offset in self._owned[partition].passed

    def _finish(self, record: Record) -> None:
        owned = self._owned[record.partition]
        owned.tracker.finish((record.offset,))
        for held in (owned.held, self._held):
            held[record.project] -= 1
            if not held[record.project]:
                del held[record.project]

    def _rewound(self, owned: _Owned, offset: int) -> None:
        """Note a rewind to this offset; passed-over records before it have expired and count as finished."""
        owned.rewinding, owned.next = False, offset
        expired = {passed for passed in owned.passed if passed < offset}
        owned.passed -= expired
        owned.tracker.finish(sorted(expired))

    def _may_go(self) -> bool:
        membership = self.membership
        return self._in_flight is None and membership.proof is not None and membership is not self._stale

    def _commit(self, partition: Partition, offsets: Sequence[int], tag: str) -> Commit:
        position = self.membership.positions.get(partition, 0)
        return self._owned[partition].tracker.commit(offsets, position, tag)

    def _behind(self) -> Iterator[Partition]:
        """Partitions with nothing unfinished whose position is beyond the last commit (past a transaction marker)."""
        for partition, owned in self._owned.items():
            position = self.membership.positions.get(partition)
            if owned.tracker.unfinished or position is None:
                continue
            if owned.committed is None or owned.committed.offset < position:
                yield partition
