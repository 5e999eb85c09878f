"""Datasets and requests for tests of the pipeline, and a short way to train."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from pipeline.algorithms import Algorithm, framework_of
from pipeline.datasets import Dataset, builtin
from pipeline.jobs import Evaluation, TrainingRequest
from pipeline.model_files import model_file
from pipeline.reading.tables import last_target
from pipeline.training import training
from pipeline.training.trained import Trained
from tests.frameworks import within

Rows = pd.DataFrame | Sequence[Mapping[str, Any]]
QUICK: dict[str, dict[str, Any]] = {
    "random_forest": {"n_estimators": 5},
    "random_forest_regressor": {"n_estimators": 5},
    "gradient_boosting": {"max_iter": 10, "min_samples_leaf": 5},
    "gradient_boosting_regressor": {"max_iter": 10, "min_samples_leaf": 5},
    "neural_network": {"max_iter": 20},
    "neural_network_regressor": {"max_iter": 60},
    "torch_logistic": {"epochs": 12, "learning_rate": 0.05},
    "torch_mlp": {"epochs": 12, "learning_rate": 0.01, "hidden_layer_sizes": [16, 8]},
    "torch_cnn": {"epochs": 12, "learning_rate": 0.01, "filters": [4, 8], "dense_size": 16},
    "torch_lstm": {"epochs": 12, "learning_rate": 0.02, "hidden_size": 8},
    "torch_transformer": {"epochs": 12, "learning_rate": 0.01, "width": 8, "heads": 2, "feed_forward_size": 16},
    "keras_dnn": {"epochs": 8, "learning_rate": 0.03, "hidden_layer_sizes": [16, 8]},
    "keras_cnn": {"epochs": 8, "learning_rate": 0.03, "filters": [4, 8], "dense_size": 16},
}
"""Hyperparameters that keep a test short."""


def request(algorithm: str = "decision_tree", dataset: str = "iris", **changes: Any) -> TrainingRequest:
    evaluation = {name: changes.pop(name) for name in list(changes) if name in Evaluation.__dataclass_fields__}
    values = {"request_id": "r1", "job_name": "job", "model_name": "model", "evaluation": Evaluation(**evaluation)}
    values["hyperparameters"] = QUICK.get(algorithm, {})
    return TrainingRequest(**{**values, "algorithm": algorithm, "dataset_name": dataset, **changes})


@dataclass
class Bench:
    """Trains in a directory of its own."""

    directory: Path

    def dataset(self, frame: pd.DataFrame | pa.Table, target_column: str | None = None) -> Dataset:
        """The frame as an Arrow file, as the dataset cache would have written it."""
        table = frame if isinstance(frame, pa.Table) else pa.Table.from_pandas(frame, preserve_index=False)
        path = self.directory / f"{len(list(self.directory.iterdir()))}.arrow"
        with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table)
        return Dataset("rows", str(path), path, target_column or last_target(table))

    def train(
        self,
        asked: TrainingRequest,
        data: pd.DataFrame | pa.Table | Dataset | None = None,
        report: Callable[..., None] = lambda *_: None,
    ) -> Trained:
        """What a training of a deep network reports cannot be heard here: see `told_while_training`."""
        if data is None:
            data = builtin.dataset(asked.dataset_name)
        dataset = data if isinstance(data, Dataset) else self.dataset(data)
        if framework := framework_of(asked.algorithm):
            return within(framework, told_while_training, asked, dataset, self.directory)[0]
        return training.train(asked, dataset, self.directory, report)

    def load(self, trained: Trained) -> model_file.LoadedModel:
        return model_file.load(trained.model_file, trained.sha256)

    def predict(self, trained: Trained, rows: Rows) -> model_file.Predictions:
        """With the stored model, loaded anew."""
        algorithm = self.load(trained).manifest["algorithm"]
        return within(framework_of(algorithm), load_and_predict, trained, rows)


def told_while_training(asked: TrainingRequest, data: Dataset, spool: Path) -> tuple[Trained, list[tuple[Any, ...]]]:
    """What comes out of a training, and all that it reported."""
    told: list[tuple[Any, ...]] = []
    return training.train(asked, data, spool, lambda *what: told.append(what)), told


def load_and_predict(trained: Trained, rows: Rows) -> model_file.Predictions:
    return model_file.load(trained.model_file, trained.sha256).predict(rows)


def mixed_rows(rows: int = 120, classes: int = 2, seed: int = 0) -> pd.DataFrame:
    """Numbers, words, truths, dates and text, with gaps and infinities; the target depends on the first column."""
    random = np.random.default_rng(seed)
    codes = np.arange(rows) % classes
    words = ["good", "bad", "fine", "very", "much", "thing", "day", "night", "rain", "sun"]
    frame = pd.DataFrame(
        {
            "size": codes + random.normal(scale=0.3, size=rows),
            "count": random.integers(0, 50, rows),
            "city": random.choice(["Ulm", "Bonn", "Kiel"], rows),
            "paid": random.random(rows) < 0.5,
            "seen": pd.date_range("2025-01-01", periods=rows, freq="7h"),
            "note": [" ".join(random.choice(words, 8)) for _ in range(rows)],
            "label": [f"class {code}" for code in codes],
        }
    )
    frame["paid"] = frame["paid"].astype("boolean")
    for place, column in enumerate(("size", "city", "paid", "seen", "note")):
        frame.loc[place + 3, column] = None
    frame.loc[10, "size"] = np.inf
    return frame


def wide_rows(algorithm: Algorithm, rows: int = 200) -> pd.DataFrame:
    """What it takes, and so many words that preparation makes more than 2,000 columns."""
    shuffled = np.random.default_rng(2).permutation
    words = {f"word {place}": [f"w{code}" for code in shuffled(np.arange(rows) % 90)] for place in range(12)}
    return pd.concat([pd.DataFrame(words), natural(algorithm, rows)], axis=1)


def pictures(rows: int = 120, classes: int = 2, seed: int = 0, side: int = 4) -> pd.DataFrame:
    """Images of side x side pixels, or as many steps of a sequence; in which row the light is tells the class."""
    random = np.random.default_rng(seed)
    codes = np.arange(rows) % classes
    pixels = random.normal(scale=0.3, size=(rows, side, side))
    pixels[np.arange(rows), codes % side] += 2.0
    frame = pd.DataFrame(pixels.reshape(rows, -1), columns=[f"pixel_{place}" for place in range(side * side)])
    frame["label"] = [f"class {code}" for code in codes]
    frame.loc[3, "pixel_0"] = None
    frame.loc[10, "pixel_5"] = np.inf
    return frame


def natural(algorithm: Algorithm, rows: int = 120) -> pd.DataFrame:
    """What it takes, with gaps: of a table numbers, words, truths, dates and text, whose first column tells the target;
    else images, or sequences.
    """
    if algorithm.takes != "table":
        return pictures(rows, classes=3)
    frame = mixed_rows(rows, classes=3)
    if algorithm.task == "regression":
        noise = np.random.default_rng(1).normal(scale=0.1, size=rows)
        frame["label"] = 100.0 + 20.0 * (np.arange(rows) % 3) + noise
    return frame
