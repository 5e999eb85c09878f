"""Benchmarks are run by hand, now and then; mypy sees that what they use is there."""

from __future__ import annotations

import os
from pathlib import Path

import orjson
import pytest

from benchmarks import __main__ as command
from benchmarks.overhead import Overhead
from pipeline.training.training import Stage


def test_what_was_measured_is_written_as_json(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    measured = Overhead("tiny", 1.5, 5, 4.0, 5.0, 1.25, {Stage.LOADING: 0.5, Stage.TRAINING: 2.5})
    monkeypatch.setattr(os, "environ", dict(os.environ))
    monkeypatch.setattr(command, "_results", lambda _parts, _quick: [measured])
    assert command.main(["overhead", "--json", "--output", str(tmp_path / "x.json")]) == 0
    (one,) = orjson.loads((tmp_path / "x.json").read_bytes())
    assert (one["part"], one["ratio"], one["parts"]) == ("overhead", 1.25, {"LOADING": 0.5, "TRAINING": 2.5})
