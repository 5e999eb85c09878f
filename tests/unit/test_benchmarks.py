"""Benchmarks are run by hand, now and then: what they import is there all the same."""

from __future__ import annotations

import os
from importlib import import_module
from pathlib import Path

import orjson
import pytest

from benchmarks import __main__ as command
from benchmarks.overhead import Overhead
from pipeline.training.training import Stage

BENCHMARKS = sorted(path.stem for path in (Path(__file__).parents[2] / "benchmarks").glob("*.py"))


@pytest.mark.parametrize("name", [name for name in BENCHMARKS if name != "__init__"])
def test_a_benchmark_finds_what_it_measures(name: str) -> None:
    assert import_module(f"benchmarks.{name}").__doc__


def test_what_was_measured_is_written_as_json(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    measured = Overhead("tiny", 1.5, 5, 4.0, 5.0, 1.25, {Stage.LOADING: 0.5, Stage.TRAINING: 2.5})
    monkeypatch.setattr(command.os, "environ", dict(os.environ))
    monkeypatch.setattr(command, "_results", lambda _parts, _quick: [measured])
    assert command.main(["overhead", "--json", "--output", str(tmp_path / "x.json")]) == 0
    (one,) = orjson.loads((tmp_path / "x.json").read_bytes())
    assert (one["part"], one["ratio"], one["parts"]) == ("overhead", 1.25, {"LOADING": 0.5, "TRAINING": 2.5})
