"""python -m tests.fuzz --seed 1 --cases 50000 [--kind requests]; python -m tests.fuzz --replay requests:1/4711

Ends with 1 if there is a find.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping
from itertools import chain, zip_longest

from tests.fuzz.case import End, run_case
from tests.fuzz.kinds import KINDS, shared
from tests.fuzz.pool import Case, run_all
from tests.fuzz.report import Report


def main() -> int:
    wanted = _arguments()
    if wanted.replay:
        name, _, seed = wanted.replay.partition(":")
        result = run_case(KINDS[name], seed, wanted.cpu_limit_s)
        _say(f"{wanted.replay}: {result.end}, {result.ms:,.1f} ms, grew by {result.grown_bytes / 2**20:,.0f} MiB")
        _say(f"{result.what}\n{result.why}" if result.what else "")
        return int(result.end is End.FIND)
    amounts = shared(wanted.cases) if wanted.kind is None else {wanted.kind: wanted.cases}
    report = fuzz(wanted.seed, amounts)
    for line in report.lines():
        _say(line)
    return int(report.finds > 0)


def fuzz(seed: int, amounts: Mapping[str, int], processes: int | None = None) -> Report:
    """So many cases of each kind."""
    report = Report()
    for (kind, case_seed), result in run_all(cases(seed, amounts), processes):
        report.add(kind, case_seed, result)
    return report


def cases(seed: int, amounts: Mapping[str, int]) -> Iterator[Case]:
    """The kinds in turn, so that both processes are busy to the end."""
    by_kind = [[(name, f"{seed}/{number}") for number in range(amount)] for name, amount in amounts.items()]
    return (case for case in chain.from_iterable(zip_longest(*by_kind)) if case is not None)


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--seed", type=int, default=1, help="of the run")
    parser.add_argument("--cases", type=int, default=1_000_000)
    parser.add_argument("--kind", choices=KINDS, help="only these")
    parser.add_argument("--replay", metavar="KIND:SEED", help="run one case in this process")
    parser.add_argument("--cpu-limit-s", type=float, default=1.0, help="of the case that is replayed")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
