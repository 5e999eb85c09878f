"""What the pipeline adds to a bare fit, score and pickle of the same estimator on the same rows, in one process.

It adds the rules about data, preparation, metrics of both parts, a baseline, the report of progress, and a file that
scores raw rows and executes nothing.
"""

from __future__ import annotations

import pickle
import statistics
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from benchmarks.workloads import Kind, Workload
from pipeline.algorithms import find
from pipeline.datasets import builtin
from pipeline.training import training

TARGETS = {"tiny": 1.10, "small": 1.20, "medium": 1.10}


@dataclass(frozen=True, slots=True)
class Overhead:
    """Medians over the turns; `ratio` is that of neighbours' ratios. `parts` are milliseconds of the pipeline's."""

    workload: str
    target: float
    turns: int
    bare_ms: float
    pipeline_ms: float
    ratio: float
    parts: Mapping[str, float]


def measure(workload: Workload, folder: Path, *, least_s: float) -> Overhead:
    """Bare and pipeline in turns, for at least so many seconds; a turn does each kind of the workload once."""
    _bare(workload.kinds, folder)
    _pipeline(workload, folder, 0)
    bare: list[float] = []
    ours: list[float] = []
    ratios: list[float] = []
    parts: dict[str, list[float]] = defaultdict(list)
    until = time.monotonic() + least_s
    while len(bare) < 5 or time.monotonic() < until:
        first, (second, spent) = _bare(workload.kinds, folder), _pipeline(workload, folder, len(bare))
        bare.append(first)
        ours.append(second)
        ratios.append(second / first)
        for name, ms in spent.items():
            parts[name].append(ms)
    return Overhead(
        workload.name,
        TARGETS[workload.name],
        len(bare),
        statistics.median(bare),
        statistics.median(ours),
        statistics.median(ratios),
        {name: statistics.median(values) for name, values in parts.items()},
    )


def _bare(kinds: Sequence[Kind], folder: Path) -> float:
    begun = time.perf_counter()
    for kind in kinds:
        frame = builtin.load_frame(kind.dataset)
        rows, target = frame.iloc[:, :-1].to_numpy(), frame.iloc[:, -1].to_numpy()
        fit, test, fit_target, test_target = train_test_split(
            rows, target, test_size=0.2, stratify=target, random_state=1
        )
        algorithm = find(kind.algorithm)
        estimator = algorithm.build(algorithm.resolve(kind.hyperparameters, 1), len(np.unique(target)))
        model = make_pipeline(StandardScaler(), estimator).fit(fit, fit_target)
        model.score(test, test_target)
        (folder / "bare.pickle").write_bytes(pickle.dumps(model))
    return (time.perf_counter() - begun) * 1e3


def _pipeline(workload: Workload, folder: Path, turn: int) -> tuple[float, dict[str, float]]:
    spent: dict[str, float] = defaultdict(float)
    begun = time.perf_counter()
    for number, kind in enumerate(workload.kinds):
        marks: list[tuple[str, float]] = []
        request = workload.request(f"t{turn}", turn * len(workload.kinds) + number)  # a seed of its own, so a split too
        dataset = builtin.dataset(kind.dataset)
        trained = training.train(request, dataset, folder, lambda stage, *_: marks.append((stage, time.perf_counter())))  # noqa: B023 - called before the next turn
        ended = time.perf_counter()
        trained.model_file.unlink()
        for (stage, at), (_, after) in zip(marks, [*marks[1:], ("", ended)], strict=True):
            spent[stage] += (after - at) * 1e3
    return (time.perf_counter() - begun) * 1e3, dict(spent)
