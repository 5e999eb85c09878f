"""Duplicates whose request has no outcome yet: they hold no line up, and are looked at again."""

from __future__ import annotations

from math import inf

from consumer.jobs.claims import Asked
from consumer.partitions.records import Partition, Record


class Duplicates:
    """Owned by the worker's thread."""

    def __init__(self) -> None:
        self._waiting: dict[Record, tuple[Asked, float]] = {}
        """With the time at which the ledger is asked again."""

    def wait(self, asked: Asked, look_at: float) -> None:
        self._waiting[asked.record] = (asked, look_at)

    def over(self, record: Record) -> None:
        """What became of its request is known, if it was one of these."""
        self._waiting.pop(record, None)

    def due(self, now: float) -> list[Asked]:
        """Those to be asked about now; each is given once until it waits again."""
        found = [asked for asked, look_at in self._waiting.values() if look_at <= now]
        for asked in found:
            self._waiting[asked.record] = (asked, inf)
        return found

    def let_go(self, gone: set[tuple[Partition, int]]) -> None:
        """These partitions, with their assignment epochs, are not ours any more."""
        self._waiting = {r: one for r, one in self._waiting.items() if (r.partition, r.epoch) not in gone}

    def request_id(self, partition: Partition, offset: int) -> str | None:
        """Of the record at this place, if it is one of these."""
        for record, (asked, _) in self._waiting.items():
            if (record.partition, record.offset) == (partition, offset):
                return asked.request.request_id
        return None
