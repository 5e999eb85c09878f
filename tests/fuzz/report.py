"""What came of the cases, kind by kind."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from tests.fuzz.case import End, Result


@dataclass
class Found:
    """Finds of one cause: how many, and the first."""

    seed: str
    why: str
    count: int = 1


@dataclass
class Tally:
    """Of one kind."""

    ends: Counter[End] = field(default_factory=Counter)
    slowest_ms: float = 0.0
    slowest_seed: str = ""
    busy_ms: float = 0.0
    grown_bytes: int = 0
    finds: dict[str, Found] = field(default_factory=dict)
    crashes: dict[str, Found] = field(default_factory=dict)

    def add(self, seed: str, result: Result) -> None:
        self.ends[result.end] += 1
        self.busy_ms += result.ms
        self.grown_bytes = max(self.grown_bytes, result.grown_bytes)
        if result.ms > self.slowest_ms:
            self.slowest_ms, self.slowest_seed = result.ms, seed
        if result.end in (End.FIND, End.CONTAINED):
            causes = self.finds if result.end is End.FIND else self.crashes
            if result.what in causes:
                causes[result.what].count += 1
            else:
                causes[result.what] = Found(seed, result.why)


class Report:
    def __init__(self) -> None:
        self.kinds: dict[str, Tally] = {}

    def add(self, kind: str, seed: str, result: Result) -> None:
        self.kinds.setdefault(kind, Tally()).add(seed, result)

    @property
    def finds(self) -> int:
        return sum(tally.ends[End.FIND] for tally in self.kinds.values())

    def lines(self) -> Iterator[str]:
        yield (
            f"{'kind':16}{'cases':>9}{'accepted':>10}{'refused':>9}{'finds':>7}{'contained':>11}"
            f"{'ms a case':>11}{'slowest ms':>12}{'peak MiB':>10}  slowest case"
        )
        for name, tally in sorted(self.kinds.items()):
            ends, cases = tally.ends, tally.ends.total()
            yield (
                f"{name:16}{cases:>9,}{ends[End.ACCEPTED]:>10,}{ends[End.REFUSED]:>9,}{ends[End.FIND]:>7,}"
                f"{ends[End.CONTAINED]:>11,}{tally.busy_ms / cases:>11.2f}{tally.slowest_ms:>12,.0f}"
                f"{tally.grown_bytes / 2**20:>10,.0f}  {name}:{tally.slowest_seed}"
            )
        for name, tally in sorted(self.kinds.items()):
            for title, causes in (("find", tally.finds), ("crash of the parser, contained", tally.crashes)):
                for what, found in causes.items():
                    yield f"\n{title}: {name}, {found.count:,} times: {what}"
                    yield f"    python -m tests.fuzz --replay {name}:{found.seed}"
                    yield from (f"    {line}" for line in found.why.splitlines()[:60])
