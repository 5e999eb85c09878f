"""The example package adds an algorithm that keeps the laws and is stored like any other."""

import tomllib
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from pipeline import algorithms
from pipeline.algorithms import catalogue
from tests.training_data import Bench, mixed_rows, request

FOLDER = Path(__file__).parents[2] / "examples/own_algorithm"


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """As after `pip install`: its entry point is found, and its module is on the path."""
    declared = tomllib.loads((FOLDER / "pyproject.toml").read_text())["project"]["entry-points"][algorithms.GROUP]
    ((name, value),) = declared.items()
    monkeypatch.syspath_prepend(str(FOLDER))
    monkeypatch.setattr(algorithms, "entry_points", lambda group: [EntryPoint(name, value, group)])
    catalogue.cache_clear()
    yield name
    monkeypatch.undo()
    catalogue.cache_clear()


def test_the_example_algorithm_trains_and_its_model_scores_raw_rows(installed: str, tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    frame = mixed_rows(classes=3)
    trained = bench.train(request(installed, hyperparameters={"metric": "manhattan"}), frame)
    assert trained.metrics["accuracy"] > trained.metrics["baseline_accuracy"]
    assert set(bench.load(trained).predict(frame.drop(columns="label")).labels) <= {"class 0", "class 1", "class 2"}
