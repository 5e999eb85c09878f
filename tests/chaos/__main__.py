"""`python -m tests.chaos --seed 1 --requests 5000 --faults 200 --minutes 12`; exit code 1 if a promise was broken."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from tests.chaos import report
from tests.chaos.run import Options, run
from tests.services.server import UnavailableError


def main(arguments: Sequence[str] | None = None) -> int:
    asked = _parser().parse_args(arguments)
    options = Options(
        asked.seed,
        asked.requests,
        asked.faults,
        asked.minutes,
        reset=not asked.no_reset,
        delivery=asked.delivery,
        group_protocol=asked.group_protocol,
        brokers=asked.brokers,
    )
    console = Console(width=None if sys.stdout.isatty() else 120, stderr=asked.json)
    folder = Path(tempfile.mkdtemp(prefix="tensorfleet-chaos-"))
    console.print(f"seed {options.seed}: {options.requests:,} requests, {options.faults} faults; logs are in {folder}")
    try:
        came = run(options, folder, lambda phase: console.print(f"{phase} …", markup=False))
    except UnavailableError as error:
        shutil.rmtree(folder, ignore_errors=True)
        sys.stderr.write(f"{error}\n")
        return 1
    (folder / "journal.json").write_text(json.dumps(came.journal.lines(), indent=1))
    (folder / "report.json").write_text(json.dumps(report.as_json(came), indent=1))
    report.show(came, console)
    if asked.json:
        sys.stdout.write(json.dumps(report.as_json(came)) + "\n")
    if asked.markdown:
        asked.markdown.write_text(report.markdown(came))
    if came.violations or asked.keep:
        console.print(f"logs, journal and what a broken run left of Kafka are kept in {folder}")
    else:
        shutil.rmtree(folder, ignore_errors=True)
    return 1 if came.violations else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description="Break everything, then count.")
    parser.add_argument("--seed", type=int, default=int.from_bytes(os.urandom(2)), help="of requests and faults alike")
    parser.add_argument("--requests", type=int, default=5000, help="distinct request_ids")
    parser.add_argument("--faults", type=int, default=200, help="about so many")
    parser.add_argument("--minutes", type=float, default=12.0, help="for all of it")
    parser.add_argument("--delivery", choices=("exactly-once", "at-least-once"), default="exactly-once")
    parser.add_argument("--group-protocol", choices=("classic", "consumer"), default="classic")
    parser.add_argument(
        "--brokers", type=int, choices=(1, 3), default=1, help="nodes of Kafka; of three one at a time is lost"
    )
    parser.add_argument("--no-reset", action="store_true", help="leave the reset of offsets at the end out")
    parser.add_argument("--keep", action="store_true", help="keep logs and journal even if all is well")
    parser.add_argument("--json", action="store_true", help="the report as one object on standard output")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the tables of docs/reliability.md there")
    return parser


if __name__ == "__main__":
    sys.exit(main())
