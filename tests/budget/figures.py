"""Compares what a job costs with what is recorded in figures.json, and records it anew."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tests.launcher import ONE_THREAD
from tests.services.mongodb import MongoDB
from tests.services.s3 import S3

ROOT = Path(__file__).parents[2]
RECORD = Path(__file__).with_name("figures.json")
TOLERANCE = 0.05
CI = "What is recorded must be counted as CI counts: with its Python, and requirements-dev.txt."
ADVICE = """
`.venv/bin/python -m tests.budget` shows all figures, and in which files the functions are that are called: compare it
with an earlier commit. If the change is meant, or the cost has shrunk, record it: the same command with --record."""

Figures = Mapping[str, Mapping[str, float]]
"""What a job costs, by case and figure."""


def count(mongodb: MongoDB, s3: S3) -> Mapping[str, Any]:
    """By case, its `figures`, and `files`: all its function calls by part and file.

    Counts in a process of its own: what has run in this one has filled caches, and sets have another order in each.
    """
    servers = {
        "TENSORFLEET_TEST_MONGODB": mongodb.url,
        "TENSORFLEET_TEST_S3": s3.endpoint,
        "TENSORFLEET_TEST_S3_ACCESS_KEY": s3.access_key,
        "TENSORFLEET_TEST_S3_SECRET_KEY": s3.secret_key,
    }
    command = [sys.executable, "-m", "tests.budget.cases"]
    environment = {**os.environ, **ONE_THREAD, **servers, "PYTHONHASHSEED": "0"}
    done = subprocess.run(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, check=True)
    counted: Mapping[str, Any] = json.loads(done.stdout)
    return counted


def figures_of(counted: Mapping[str, Any]) -> Figures:
    return {case: of["figures"] for case, of in counted.items()}


def record(figures: Figures) -> None:
    RECORD.write_text(json.dumps({"versions": _versions(), "a job costs": figures}, indent=2) + "\n")


def complaint(figures: Figures) -> str:
    """What is not as recorded, and what to do about it; empty if all is."""
    known = json.loads(RECORD.read_text())
    lines = changed(known["a job costs"], figures)
    if not lines:
        return ""
    before = known["versions"]
    others = [
        f"{name} {now} (recorded: {before.get(name)})" for name, now in _versions().items() if now != before.get(name)
    ]
    if others:
        lines = [*lines, "", f"Function calls depend on versions, and these differ: {', '.join(others)}.", CI]
    return "\n".join([f"A job does not cost what {RECORD.name} says, give or take {TOLERANCE:.0%}:", *lines, ADVICE])


def changed(before: Figures, now: Figures) -> Sequence[str]:
    """One line for each figure that is not within TOLERANCE, or is on one side only."""
    lines = []
    for case in {**before, **now}:
        old, new = before.get(case, {}), now.get(case, {})
        for figure in {**old, **new}:
            was, is_ = old.get(figure), new.get(figure)
            if was is None or is_ is None or abs(is_ - was) > TOLERANCE * was:
                lines.append(f"  {case}, {figure}: {shown(was)} recorded, {shown(is_)} now{_change(was, is_)}")
    return lines


def shown(figure: float | None) -> str:
    return "nothing" if figure is None else f"{figure:,.3f}".rstrip("0").removesuffix(".")


def _change(was: float | None, is_: float | None) -> str:
    return f" ({is_ / was - 1:+.1%})" if was and is_ is not None else ""


def _versions() -> dict[str, str]:
    """Of Python, and of the libraries that a worker needs."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    names = [re.split(r"[^\w-]", needed)[0] for needed in project["dependencies"]]
    return {"python": "{}.{}".format(*sys.version_info), **{name: version(name) for name in names}}
