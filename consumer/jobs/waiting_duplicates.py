"""Keeps duplicates whose request has no outcome yet, outside all lines, until the ledger is asked again."""

from __future__ import annotations

from math import inf

from consumer.jobs.claims import Asked
from consumer.partitions.records import Partition, Record


class WaitingDuplicates:
    """Owned by the worker's thread."""

    def __init__(self) -> None:
        self._waiting: dict[Record, tuple[Asked, float]] = {}
        """What each record asks for, and when the ledger is asked again (monotonic seconds)."""

    def wait(self, asked: Asked, look_at: float) -> None:
        self._waiting[asked.record] = (asked, look_at)

    def over(self, record: Record) -> None:
        """Stop waiting for this record's request, if it is one of these."""
        self._waiting.pop(record, None)

    def due(self, now: float) -> list[Asked]:
        """The duplicates to ask about now; each is returned once until it waits again."""
        found = [asked for asked, look_at in self._waiting.values() if look_at <= now]
        for asked in found:
            self._waiting[asked.record] = (asked, inf)
        return found

    def let_go(self, gone: set[tuple[Partition, int]]) -> None:
        """Forget the duplicates of these lost (partition, epoch) pairs."""
        self._waiting = {r: one for r, one in self._waiting.items() if (r.partition, r.epoch) not in gone}

    def request_id(self, partition: Partition, offset: int) -> str | None:
        """The request_id of the duplicate at this place; None if there is none."""
        for record, (asked, _) in self._waiting.items():
            if (record.partition, record.offset) == (partition, offset):
                return asked.request.request_id
        return None
