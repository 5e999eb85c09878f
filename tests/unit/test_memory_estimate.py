"""A dataset that cannot be trained on in the memory there is: rejected with the figures, and nothing else is."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from pipeline.datasets import Dataset
from pipeline.errors import RejectedError
from pipeline.training.memory_estimate import COPIES, check_fits
from tests.training_data import Bench, request

ROWS = 1_000
NEEDED = COPIES * 8 * ROWS  # of one column of numbers
TEXT = pa.array(["some words"] * ROWS, pa.large_string())
PEAK = """
import sys
from pathlib import Path
from pipeline.datasets import Dataset
from pipeline.training.training import train
from tests.training_data import request

def kib(name):
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(name))

spool, path = Path(sys.argv[1]), Path(sys.argv[2])
train(request("naive_bayes"), Dataset("iris", "f", None, "species"), spool, lambda *_: None)
before = kib("VmRSS")
train(request("naive_bayes", "rows", test_size=0.5), Dataset("rows", "g", path, "y"), spool, lambda *_: None)
print(1024 * (kib("VmHWM") - before))
"""


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def _numbers(columns: int, rows: int = ROWS) -> dict[str, pa.Array[Any]]:
    return {f"x{n}": pa.array(np.random.default_rng(n).random(rows)) for n in range(columns)}


def _needs(dataset: Dataset, needed: int, features: tuple[str, ...] | None = None) -> None:
    """Exactly so many bytes are enough."""
    check_fits(request(dataset="rows", features=features), dataset, needed)
    with pytest.raises(RejectedError):
        check_fits(request(dataset="rows", features=features), dataset, needed - 1)


def test_what_is_too_large_is_rejected_with_rows_size_and_limit(bench: Bench) -> None:
    dataset = replace(bench.dataset(pa.table({**_numbers(100, 100_000), "y": pa.array(range(100_000))})), name="big")
    says = (
        r"dataset big has 100,000 rows and 77\.1 MiB in memory, with which a training takes 231\.2 MiB at the least; "
        r"it may use 64\.0 MiB \(MAX_TRAINING_MEMORY\): name fewer features"
    )
    with pytest.raises(RejectedError, match=says):
        check_fits(request(dataset="big"), dataset, 64 * 2**20)
    with pytest.raises(RejectedError, match=r"it may use 1\.0 MiB \(max_memory_bytes\)"):
        check_fits(request(dataset="big", max_memory_bytes=2**20), dataset, 2**40)
    check_fits(request(dataset="big", max_memory_bytes=2**30), dataset, 2**29)


def test_the_bound_is_that_of_the_columns_that_are_read(bench: Bench) -> None:
    _needs(bench.dataset(pa.table(_numbers(3)), "x0"), 3 * NEEDED)
    _needs(bench.dataset(pa.table(_numbers(3)), "x0"), 1 * NEEDED, features=("x1",))
    truths = pa.array([True, False] * (ROWS // 2))
    _needs(bench.dataset(pa.table({**_numbers(1), "truth": truths, "none": pa.nulls(ROWS)}), "truth"), 2 * NEEDED)
    _needs(bench.dataset(pa.table({**_numbers(1), "text": TEXT}), "x0"), NEEDED + TEXT.nbytes)
    images = pa.FixedSizeListArray.from_arrays(pa.array(np.zeros(64 * ROWS, np.uint8)), 64)
    in_bytes = 64 * ((COPIES - 1) * 8 + 1) * ROWS
    _needs(bench.dataset(pa.table({"image": images, **_numbers(1)}), "x0"), in_bytes + NEEDED)


def test_rows_without_a_target_do_not_count(bench: Bench) -> None:
    half = pa.array([1, None] * (ROWS // 2))
    _needs(bench.dataset(pa.table({**_numbers(1), "y": half}), "y"), NEEDED)
    _needs(bench.dataset(pa.table({**_numbers(1), "y": half})), NEEDED)
    _needs(bench.dataset(pa.table({**_numbers(1), "y": half}), "x0"), 2 * NEEDED)


def test_built_in_datasets_always_fit() -> None:
    check_fits(request(), Dataset("digits", "f", None, "digit"), 1)


@pytest.mark.timeout(120)
def test_a_training_really_takes_more_than_what_is_asked_for(bench: Bench, tmp_path: Path) -> None:
    rows = 400_000
    labels = pa.array(np.arange(rows) % 2)
    dataset = bench.dataset(pa.table({**_numbers(10, rows), "y": labels}), "y")
    command = [sys.executable, "-c", PEAK, str(tmp_path), str(dataset.path)]
    taken = int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    needed = COPIES * 8 * 11 * rows
    check_fits(request(dataset="rows"), dataset, needed)
    assert taken > needed
