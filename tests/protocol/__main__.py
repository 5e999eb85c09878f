"""Explores the protocol further than the tests do, and prints a table of what was looked at.

python -m tests.protocol --faults 2 [--kinds kill,stop,rebalance,doubt] [--scenario "one request"]
python -m tests.protocol --without closing --faults 1
"""

from __future__ import annotations

import argparse
import sys
import time
from itertools import combinations

from tests.protocol.exploration import explore
from tests.protocol.world import FAULTS, PROTECTIONS, SCENARIOS, Bounds


def main() -> int:
    wanted = _arguments()
    kinds = [kind for kind in FAULTS if not wanted.kinds or kind in wanted.kinds.split(",")]
    ways = combinations(kinds, min(wanted.faults, len(kinds))) if wanted.faults else [()]
    broken = 0
    _say(f"{'scenario':36} {'faults':28} {'states':>10} {'steps':>11} {'s':>6}  result")
    for way in ways:
        for name in wanted.scenario or SCENARIOS:
            begun = time.perf_counter()
            found = explore(Bounds(SCENARIOS[name], frozenset(way), wanted.faults, frozenset(wanted.without)))
            broken += found.broken is not None
            faults = f"{wanted.faults} of {', '.join(way)}" if way else "none"
            figures = f"{found.states:>10,} {found.steps:>11,} {time.perf_counter() - begun:>6.1f}"
            _say(f"{name:36} {faults:28} {figures}  {found.broken or 'all laws hold'}")
            if found.broken:
                _say(str(found))
    return 1 if broken else 0


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.protocol", description=__doc__)
    parser.add_argument("--faults", type=int, default=1, help="how many may happen on one way")
    parser.add_argument("--kinds", help="of these kinds only: " + ", ".join(FAULTS))
    parser.add_argument("--scenario", action="append", choices=SCENARIOS)
    parser.add_argument("--without", action="append", choices=PROTECTIONS, default=[], metavar="PROTECTION")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
