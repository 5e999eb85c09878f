"""CPU time and memory of processes, from /proc."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from consumer.system.processes import children as children

TICKS_S = 1 / os.sysconf("SC_CLK_TCK")
MIB = 2**20


@dataclass(frozen=True, slots=True)
class Memory:
    """Resident bytes, and the share of them that counts pages of several processes once (PSS)."""

    rss_bytes: int = 0
    pss_bytes: int = 0

    def __add__(self, other: Memory) -> Memory:
        return Memory(self.rss_bytes + other.rss_bytes, self.pss_bytes + other.pss_bytes)


def cpu_s(pid: int, *, reaped: bool = False) -> float:
    """CPU seconds of a process so far, with `reaped` also those of its children that have ended; 0 if it is gone."""
    fields = _stat(pid)
    return sum(int(ticks) for ticks in fields[11 : 15 if reaped else 13]) * TICKS_S


def memory(pids: Iterable[int]) -> Memory:
    """Of these processes together."""
    total = Memory()
    for pid in pids:
        sizes = _rollup(pid)
        total += Memory(sizes.get("Rss", 0), sizes.get("Pss", 0))
    return total


def descriptors(pids: Iterable[int]) -> int:
    """Files, sockets and pipes that these processes have open."""
    return sum(len(_entries(Path(f"/proc/{pid}/fd"))) for pid in pids)


def machine_cpu_s() -> float:
    """CPU seconds that this machine has spent on anything, stolen time included."""
    with Path("/proc/stat").open() as stat:
        user, nice, system, _idle, _iowait, irq, softirq, steal = (int(ticks) for ticks in stat.readline().split()[1:9])
    return (user + nice + system + irq + softirq + steal) * TICKS_S


def _stat(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return []


def _entries(folder: Path) -> list[str]:
    try:
        return [entry.name for entry in folder.iterdir()]
    except (FileNotFoundError, ProcessLookupError):
        return []


def _rollup(pid: int) -> Mapping[str, int]:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    except (FileNotFoundError, ProcessLookupError):
        return {}
    return {name: int(rest.split()[0]) * 1024 for name, _, rest in (line.partition(":") for line in lines)}
