"""`python -m benchmarks [PART …] [--quick] [--json] [--output FILE]`."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING

import orjson
from rich.console import Console

from consumer.system.processes import THREAD_VARIABLES

if TYPE_CHECKING:
    from benchmarks.report import Result

PARTS = (
    "overhead",
    "reading",
    "predicting",
    "deep",
    "tiny",
    "small",
    "medium",
    "latency",
    "limits",
    "fairness",
    "memory",
    "endurance",
    "recovery",
)
OWN_WORKERS = ("limits", "fairness", "memory", "endurance", "recovery")
"""Parts that start workers of their own; one serves all others."""
ALONE = ("overhead", "reading", "predicting", "deep")
"""Parts that need no worker."""


def main(arguments: Sequence[str] | None = None) -> int:
    parser = _parser()
    asked = parser.parse_args(arguments)
    if unknown := sorted(set(asked.parts) - set(PARTS)):
        parser.error(f"there is no part {', '.join(unknown)}; the parts are {', '.join(PARTS)}")
    # Before numpy is loaded anywhere: bare processes train with as many threads as trainers do.
    os.environ.update(dict.fromkeys(THREAD_VARIABLES, "1"), OMP_WAIT_POLICY="PASSIVE")
    from benchmarks import report
    from benchmarks.fleet import BenchmarkError
    from tests.services.server import UnavailableError

    console, begun = Console(width=None if sys.stdout.isatty() else 120), time.monotonic()
    whole: list[dict[str, object]] = []
    try:
        for result in _results(asked.parts or PARTS, asked.quick):
            whole.append({**report.to_json(result), "loadavg": os.getloadavg()})
            if asked.json:
                sys.stdout.write(report.encoded(whole[-1]).decode() + "\n")
                sys.stdout.flush()
            else:
                console.print(report.table(result), "")
    except (BenchmarkError, UnavailableError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    finally:
        if asked.output:
            asked.output.write_bytes(report.encoded(whole, orjson.OPT_INDENT_2) + b"\n")
    if not asked.json:
        load = ", ".join(f"{load:.1f}" for load in os.getloadavg())
        console.print(f"{time.monotonic() - begun:.0f} s; load averages {load} on {os.cpu_count()} cores")
    return 0


def _results(parts: Sequence[str], quick: bool) -> Iterator[Result]:
    from benchmarks import (
        deep,
        endurance,
        fairness,
        latency,
        limits,
        memory,
        overhead,
        predicting,
        reading,
        recovery,
        throughput,
    )  # fmt: skip
    from benchmarks.fleet import CONCURRENCY, Fleet, servers
    from benchmarks.limit import BareProcesses
    from benchmarks.workloads import WORKLOADS

    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tensorfleet-bench-")))
        if "overhead" in parts:
            for workload in WORKLOADS:
                yield overhead.measure(workload, folder, least_s=2.0 if quick else 20.0)
        if "reading" in parts:
            yield reading.measure(folder, *((100_000, 1) if quick else (1_000_000, 9)))
        if "predicting" in parts:
            for columns, algorithm in product(predicting.COLUMNS, predicting.ALGORITHMS):
                yield predicting.measure(columns, algorithm, folder, 20_000 if quick else 200_000)
        if "deep" in parts:
            for network in deep.NETWORKS:
                yield deep.measure(network, folder, turns=1 if quick else deep.TURNS)
        parts = [part for part in parts if part not in ALONE]
        if not parts:
            return
        started = stack.enter_context(servers())
        if set(parts) - set(OWN_WORKERS):
            bare = stack.enter_context(BareProcesses(folder, CONCURRENCY))
            fleet = stack.enter_context(Fleet(started, folder))
        for part in parts:
            if part == "latency":
                yield latency.measure(fleet, bare, 30 if quick else 100)
            elif part == "limits":
                yield limits.measure(started, folder, 15 if quick else 60)
            elif part == "fairness":
                yield fairness.measure(started, folder, 20_000 if quick else 100_000, 3 if quick else 10)
            elif part == "memory":
                sizes = (500, 12_000, 5.0) if quick else (3_000, 100_000, 30.0)
                yield memory.measure(started, folder, *sizes)
            elif part == "endurance":
                yield endurance.measure(started, folder, *((2_000, 60.0) if quick else (20_000, 600.0)))
            elif part == "recovery":
                yield recovery.measure(started, folder, 3 if quick else 20)
            else:
                (workload,) = (one for one in WORKLOADS if one.name == part)
                yield throughput.measure(fleet, bare, workload, throughput.QUICK if quick else throughput.FULL)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Measure the worker on real servers.")
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"{', '.join(PARTS)}; all")
    parser.add_argument("--quick", action="store_true", help="one short round of everything, some four minutes")
    parser.add_argument("--json", action="store_true", help="one object a part in place of tables")
    parser.add_argument("--output", type=Path, metavar="FILE", help="write everything that was measured there, as JSON")
    return parser


if __name__ == "__main__":
    sys.exit(main())
