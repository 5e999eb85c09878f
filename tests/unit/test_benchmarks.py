"""Benchmarks are run by hand, now and then; mypy sees that what they use is there."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import orjson
import pytest

from benchmarks import __main__ as command
from benchmarks import real_datasets
from benchmarks.overhead import Overhead
from benchmarks.real_files import classes, numbers
from pipeline.training.training import Stage


def test_what_was_measured_is_written_as_json(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    measured = Overhead("tiny", 1.5, 5, 4.0, 5.0, 1.25, {Stage.LOADING: 0.5, Stage.TRAINING: 2.5})
    monkeypatch.setattr(os, "environ", dict(os.environ))
    monkeypatch.setattr(command, "_results", lambda _parts, _quick: [measured])
    assert command.main(["overhead", "--json", "--output", str(tmp_path / "x.json")]) == 0
    (one,) = orjson.loads((tmp_path / "x.json").read_bytes())
    assert (one["part"], one["ratio"], one["parts"]) == ("overhead", 1.25, {"LOADING": 0.5, "TRAINING": 2.5})


def test_real_datasets_are_compared_refused_or_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    package = tmp_path / "files_of_a_shop"
    package.mkdir()
    (package / "__init__.py").touch()
    rows = (f"{n},{n % 7},4.{n},1/{n % 28 + 1}/2026,{'yes' if n % 7 > 3 else 'no'}" for n in range(40))
    (package / "sales.csv").write_text("\n".join(["id,size,price,day,paid", *rows]))
    cases = (
        classes("files_of_a_shop/sales.csv", "paid", "day"),
        numbers("files_of_a_shop/sales.csv", "price", dtype={"size": str}),
        numbers("files_of_a_shop/sales.csv", "paid"),
        numbers("files_of_nobody/sales.csv", "price"),
    )
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(real_datasets, "CASES", cases)
    assert real_datasets.main(["--packages", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert "files_of_a_shop/sales.csv: size: numbers, not words" in said
    assert "files_of_a_shop/sales.csv: the target 'paid' holds no numbers" in said
    assert "3 data sets: 1 refused, 0 with a worse score, 1 with other types" in said
    assert "not installed: files_of_nobody" in said
