"""What a warm deep job takes beside a plain PyTorch loop of the same network on the same device, in one process.

The job starts from a dataset's file and ends with a model file; the loop starts from prepared rows (`torch_loop`).
"""

from __future__ import annotations

import multiprocessing
import statistics
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from pipeline.datasets import Dataset
from pipeline.deep.classifier import DeepClassifier
from pipeline.deep.frameworks import FRAMEWORKS
from pipeline.jobs import TrainingRequest
from pipeline.model_files import model_file
from pipeline.training import training
from pipeline.training.trained import EPOCH_STATE
from pipeline.training.training import Stage

if TYPE_CHECKING:
    from benchmarks.torch_loop import Loop

TARGET = 1.3
SIDE = 28
CLASSES = 10
ROWS = 30_000
EPOCHS = 5
BATCH = 256
TURNS = 3


@dataclass(frozen=True, slots=True)
class Network:
    """A network of the catalogue; on a GPU it is trained on ROWS, on a CPU on so many that a turn takes seconds."""

    algorithm: str
    rows_on_cpu: int


NETWORKS = (
    Network("torch_cnn", 1_000),
    Network("torch_lstm", 6_000),
    Network("torch_transformer", 3_000),
    Network("torch_mlp", ROWS),
)
"""On a CPU the MLP stands for a fast device: it takes about as long there as the others do on a large GPU."""


@dataclass(frozen=True, slots=True)
class Deep:
    """Medians over the turns, in seconds; `ratio` and `of_cpu` are those of neighbours' ratios, by wall and CPU time.

    Attributes:
        parts: of the job: loading, preparing, training, evaluating, writing.
    """

    algorithm: str
    device: str
    rows: int
    target: float
    loop_s: float
    job_s: float
    ratio: float
    of_cpu: float
    parts: Mapping[str, float]


def measure(network: Network, folder: Path, *, turns: int = TURNS) -> Deep:
    """Loop and job in turns, after one of each, in a process of their own."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
        return process.submit(_measured, network, folder, turns).result()


def _measured(network: Network, folder: Path, turns: int) -> Deep:
    device = FRAMEWORKS["torch"].networks().device()
    from benchmarks.torch_loop import Loop

    rows = network.rows_on_cpu if device == "cpu" else ROWS
    dataset = _images(rows, folder)
    hyperparameters = {"epochs": EPOCHS, "batch_size": BATCH}
    request = TrainingRequest(
        "d", "d", network.algorithm, dataset.name, model_name="d", hyperparameters=hyperparameters
    )
    loop = Loop(request, dataset)
    _, *measured = (_turn(loop, request, replace(dataset, fingerprint=str(turn)), folder) for turn in range(turns + 1))
    return Deep(
        network.algorithm,
        device,
        rows,
        TARGET,
        statistics.median(one.loop_s for one in measured),
        statistics.median(one.job_s for one in measured),
        statistics.median(one.job_s / one.loop_s for one in measured),
        statistics.median(one.job_cpu_s / one.loop_cpu_s for one in measured),
        {part: statistics.median(one.parts[part] for one in measured) for part in measured[0].parts},
    )


@dataclass(frozen=True, slots=True)
class Turn:
    loop_s: float
    loop_cpu_s: float
    job_s: float
    job_cpu_s: float
    parts: Mapping[str, float]


def _turn(loop: Loop, request: TrainingRequest, dataset: Dataset, folder: Path) -> Turn:
    begun = time.perf_counter(), time.process_time()
    loop.run(folder / "loop.pt")
    between = time.perf_counter(), time.process_time()
    parts = _job(request, dataset, folder)
    ended = time.perf_counter(), time.process_time()
    return Turn(between[0] - begun[0], between[1] - begun[1], ended[0] - between[0], ended[1] - between[1], parts)


def _job(request: TrainingRequest, dataset: Dataset, folder: Path) -> dict[str, float]:
    """Train; the seconds that the parts took."""
    marks: dict[Stage, float] = {}
    spent: dict[str, float] = defaultdict(float)

    def report(stage: Stage, _done: float | None, _message: str) -> None:
        marks.setdefault(stage, time.perf_counter())

    begun = time.perf_counter()
    with _clocked(DeepClassifier, "fit", spent), _clocked(model_file, "write", spent):
        trained = training.train(request, dataset, folder, report)
    ended = time.perf_counter()
    trained.model_file.unlink()
    (folder / EPOCH_STATE).unlink(missing_ok=True)
    return {
        "loading": marks[Stage.TRAINING] - begun,
        "preparing": marks[Stage.EVALUATING] - marks[Stage.TRAINING] - spent["fit"],
        "training": spent["fit"],
        "evaluating": ended - marks[Stage.EVALUATING] - spent["write"],
        "writing": spent["write"],
    }


@contextmanager
def _clocked(owner: Any, name: str, spent: dict[str, float]) -> Iterator[None]:
    """Add the seconds in a function of the owner's to `spent`, under its name."""
    function = getattr(owner, name)

    def clocked(*args: Any, **kwargs: Any) -> Any:
        begun = time.perf_counter()
        try:
            return function(*args, **kwargs)
        finally:
            spent[name] += time.perf_counter() - begun

    setattr(owner, name, clocked)
    try:
        yield
    finally:
        setattr(owner, name, function)


def _images(rows: int, folder: Path) -> Dataset:
    """Noisy grey images of 28 x 28 in ten classes, each of which has a brighter row; one column of lists."""
    random = np.random.default_rng(0)
    codes = random.integers(0, CLASSES, rows)
    pixels = random.normal(90, 40, (rows, SIDE, SIDE))
    pixels[np.arange(rows), 4 + 2 * codes] += 15
    flat = pa.array(pixels.clip(0, 255).astype(np.uint8).ravel())
    lists = pa.FixedSizeListArray.from_arrays(pa.FixedSizeListArray.from_arrays(flat, SIDE), SIDE)
    table = pa.table({"pixels": lists, "digit": pa.array(codes)})
    path = folder / f"images-{rows}.arrow"
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    return Dataset("images", "", path, "digit")
