"""What the nemesis did, and when; and from that and the progress topic, how the fleet recovered."""

from __future__ import annotations

import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field

from tests.end_to_end.evidence import Seen
from tests.end_to_end.verdict import TERMINAL

ENDED_UNASKED = "worker ended unasked"
"""Not the nemesis's doing."""
KILLED = frozenset({"worker: kill -9"})
"""The faults after which a worker's trainings must start again."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One fault, or its end."""

    at_ms: int
    fault: str
    target: str
    healed: bool = False
    detail: str = ""


@dataclass
class Journal:
    """May be written to by several threads."""

    entries: list[Entry] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def note(self, fault: str, target: str, *, healed: bool = False, detail: str = "") -> None:
        with self._lock:
            self.entries.append(Entry(time.time_ns() // 1_000_000, fault, target, healed, detail))

    def counts(self) -> Counter[str]:
        return Counter(entry.fault for entry in self.entries if not entry.healed and entry.fault != ENDED_UNASKED)

    def lines(self) -> list[dict[str, object]]:
        return [asdict(entry) for entry in self.entries]


NEEDED = frozenset({"kafka", "mongodb"})
"""Whoever is to take over asks these."""
LEASE_MS = 10_000


@dataclass
class Recovery:
    """Attributes:
    running_s: from a worker's kill -9 to the next start of each training that it had running.
    undisturbed_s: those of them in whose time, and for a lease before, Kafka and MongoDB were well.
    waiting_s: as `running_s`, of what it had accepted and not started.
    lost_s: how long those trainings had run when they were killed.
    repeated: trainings that were started again, by request, whatever the reason.
    repeated_s: how long all trainings that came to nothing had run.
    kills: how many kills there were.
    """

    running_s: list[float] = field(default_factory=list)
    undisturbed_s: list[float] = field(default_factory=list)
    waiting_s: list[float] = field(default_factory=list)
    lost_s: list[float] = field(default_factory=list)
    repeated: int = 0
    repeated_s: float = 0.0
    kills: int = 0


def recovery(entries: Sequence[Entry], progress: Iterable[Seen]) -> Recovery:
    """By the broker's clock, which stamps the progress topic, and ours, which is the same machine's."""
    by_request: dict[str, list[Seen]] = defaultdict(list)
    for seen in progress:
        if seen.content is not None:
            by_request[seen.content["request_id"]].append(seen)
    found = Recovery()
    kills = [entry for entry in entries if entry.fault in KILLED and not entry.healed]
    found.kills = len(kills)
    away = [*_away(entries)]
    for events in by_request.values():
        events.sort(key=lambda seen: seen.timestamp_ms)
        for kill in kills:
            _after(kill, kills, events, away, found)
        starts = [seen for seen in events if _state(seen) == "STARTED"]
        found.repeated += max(0, len(starts) - 1)
        found.repeated_s += sum(_ran_s(start, events, kills) for start in starts[:-1])
    return found


def _away(entries: Sequence[Entry]) -> Iterator[tuple[int, int]]:
    """From when to when something that is needed was disturbed, in ms."""
    since: dict[str, int] = {}
    for entry in entries:
        if entry.target in NEEDED and entry.healed:
            yield since.pop(entry.target, entry.at_ms), entry.at_ms
        elif entry.target in NEEDED:
            since[entry.target] = entry.at_ms


def _after(
    kill: Entry, kills: Sequence[Entry], events: Sequence[Seen], away: Sequence[tuple[int, int]], found: Recovery
) -> None:
    """What one kill did to one request."""
    before = [seen for seen in events if seen.timestamp_ms <= kill.at_ms]
    said = [seen for seen in before if _state(seen) in ("ACCEPTED", "STARTED")]
    if not said or any(_state(seen) in TERMINAL for seen in before) or _worker(said[-1]) != kill.target:
        return
    if any(said[-1].timestamp_ms < earlier.at_ms < kill.at_ms for earlier in kills if earlier.target == kill.target):
        return  # it was killed before, and is told of there
    again = next((s for s in events if s.timestamp_ms > kill.at_ms and _state(s) == "STARTED"), None)
    if again is None:
        return
    after_s = (again.timestamp_ms - kill.at_ms) / 1000
    if _state(said[-1]) == "STARTED":
        found.running_s.append(after_s)
        if not any(end >= kill.at_ms - LEASE_MS and begin <= again.timestamp_ms for begin, end in away):
            found.undisturbed_s.append(after_s)
        found.lost_s.append((kill.at_ms - said[-1].timestamp_ms) / 1000)
    else:
        found.waiting_s.append(after_s)


def _ran_s(start: Seen, events: Sequence[Seen], kills: Sequence[Entry]) -> float:
    """Until the worker was killed, or the next was heard of this request from elsewhere or of another attempt."""
    ends = [kill.at_ms for kill in kills if kill.target == _worker(start) and kill.at_ms >= start.timestamp_ms]
    ends += [s.timestamp_ms for s in events if s.timestamp_ms > start.timestamp_ms and _state(s) in ENDS]
    return (min(ends) - start.timestamp_ms) / 1000 if ends else 0.0


ENDS = frozenset({"RETRYING", "ACCEPTED", "STARTED", "REGISTERING", *TERMINAL})


def _state(seen: Seen) -> str:
    return str((seen.content or {})["state"])


def _worker(seen: Seen) -> str:
    return str((seen.content or {})["worker_id"])
