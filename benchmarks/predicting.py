"""What a stored model adds to its bare scikit-learn pipeline when it predicts many rows, in one process.

It adds the reading of columns, checks of their range, counts of unseen categories, and parts that bound the memory.
"""

from __future__ import annotations

import statistics
import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from pipeline.datasets import Dataset
from pipeline.features.frames import frame_of, table_of
from pipeline.jobs import TrainingRequest
from pipeline.model_files import model_file
from pipeline.model_files.model_file import LoadedModel
from pipeline.training import training

TARGET = 1.3
TRAINED_ON = 5_000
ALGORITHMS = ("logistic_regression", "gradient_boosting", "random_forest")
COLUMNS = ("numbers", "mixed")
TURNS = 3


@dataclass(frozen=True, slots=True)
class Predicting:
    """Medians over the turns, in milliseconds of CPU; `ratio` and `of_text` are those of neighbours' ratios.

    Attributes:
        of_text: with all columns as text, as a CSV file brings them, to the bare pipeline on columns with types.
    """

    columns: str
    algorithm: str
    rows: int
    target: float
    bare_ms: float
    model_ms: float
    text_ms: float
    ratio: float
    of_text: float


def measure(columns: str, algorithm: str, folder: Path, rows: int) -> Predicting:
    """Bare pipeline, model and model on text in turns."""
    model = _trained(columns, algorithm, folder)
    table = table_of(_rows(columns, rows, seed=1).drop(columns="y"))
    texts = table.cast(pa.schema([(name, pa.large_string()) for name in table.column_names]))
    frame = frame_of(table)
    _bare(model, frame.iloc[:1_000])
    turns = [(_bare(model, frame), _ours(model, table), _ours(model, texts)) for _ in range(TURNS)]
    bare, ours, text = (statistics.median(one) for one in zip(*turns, strict=True))
    ratio, of_text = (statistics.median(turn[place] / turn[0] for turn in turns) for place in (1, 2))
    return Predicting(columns, algorithm, rows, TARGET, bare, ours, text, ratio, of_text)


def _bare(model: LoadedModel, frame: pd.DataFrame) -> float:
    begun = time.process_time()
    prepared = model.pipeline[:-1].transform(frame[[column.name for column in model.columns]])
    model.pipeline[-1].predict(prepared)
    model.pipeline[-1].predict_proba(prepared)
    return (time.process_time() - begun) * 1e3


def _ours(model: LoadedModel, table: pa.Table) -> float:
    begun = time.process_time()
    for _ in model.predict_in_parts(table):
        pass
    return (time.process_time() - begun) * 1e3


def _trained(columns: str, algorithm: str, folder: Path) -> LoadedModel:
    table = table_of(_rows(columns, TRAINED_ON, seed=0))
    path = folder / f"{columns}.arrow"
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    request = TrainingRequest("p", "p", algorithm, "rows", model_name="p")
    with warnings.catch_warnings(action="ignore"):
        trained = training.train(request, Dataset("rows", columns, path, "y"), folder, lambda *_: None)
    return model_file.load(trained.model_file)


def _rows(columns: str, count: int, seed: int) -> pd.DataFrame:
    """20 columns of numbers, or 10 of numbers, 6 of words, 2 of truths and 2 of dates; and the target `y`."""
    random = np.random.default_rng(seed)
    numbers = random.normal(size=(count, 20))
    answer = np.where(numbers[:, 0] + numbers[:, 1] + random.normal(size=count) > 0, "yes", "no")
    if columns == "numbers":
        return pd.DataFrame({f"x{place}": numbers[:, place] for place in range(20)}).assign(y=answer)
    start = np.datetime64("2024-01-01", "us")
    made: dict[str, Any] = {f"x{place}": numbers[:, place] for place in range(10)}
    made |= {f"c{most}": random.choice([f"word{one}" for one in range(most)], count) for most in range(5, 35, 5)}
    made |= {f"b{place}": random.random(count) < 0.5 for place in range(2)}
    made |= {f"d{place}": start + random.integers(0, 10**13, count).astype("timedelta64[us]") for place in range(2)}
    return pd.DataFrame(made).assign(y=answer)
