"""python -m tests.budget [--record]

Shows what a job costs, and in which files the functions are that are called most; with --record, records the figures.
"""

from __future__ import annotations

import argparse
import sys

import tests.services.mongodb
import tests.services.s3
from tests.budget import figures

FILES = 25


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.budget", description=__doc__)
    parser.add_argument("--record", action="store_true", help=f"write {figures.RECORD.name}, to be committed")
    wanted = parser.parse_args()
    counted = figures.count(tests.services.mongodb.start(), tests.services.s3.start())
    if wanted.record:
        figures.record(figures.figures_of(counted))
    for case, of in counted.items():
        _say(f"{case}, a job:")
        for figure, number in of["figures"].items():
            _say(f"{figures.shown(number):>12}  {figure}")
        for part, files in of["files"].items():
            _say(f"{case}, all function calls of the {part}, by file:")
            for file, calls in list(files.items())[:FILES]:
                _say(f"{calls:>12,}  {file.removeprefix(f'{figures.ROOT}/')}")
    _say(figures.complaint(figures.figures_of(counted)))


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")


if __name__ == "__main__":
    main()
