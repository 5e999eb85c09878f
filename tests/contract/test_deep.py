"""Laws of every network's training: what its loss is, and that a training goes on where another ended."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.algorithms import catalogue
from pipeline.deep.classifier import DeepClassifier
from pipeline.deep.epoch_state import FIRST_AFTER_S, EpochWatch
from tests.frameworks import within
from tests.training_data import QUICK

DEEP = [name for name, entry in catalogue().items() if entry.framework]


def network(name: str, **changes: Any) -> DeepClassifier:
    entry = catalogue()[name]
    built: DeepClassifier = entry.build(entry.resolve(QUICK[name], 0), 2)
    built.set_params(**changes)
    return built


def rows() -> tuple[Any, Any]:
    random = np.random.default_rng(0)
    return random.normal(size=(70, 16)), random.integers(0, 2, 70)


def losses_without_learning(name: str) -> tuple[list[float], float]:
    """The losses of epochs that change nothing, and the cross-entropy of all rows; 70 rows are no multiple of 32."""
    model = network(name, learning_rate=0.0, epochs=2, batch_size=32)
    if hasattr(model, "dropout"):
        model.set_params(dropout=0.0)
    x, y = rows()
    likelihood = model.fit(x, y).predict_proba(x)[np.arange(len(y)), y]
    return model.history_["loss"], float(-np.log(likelihood).mean())


@pytest.mark.parametrize("name", DEEP)
def test_the_loss_of_an_epoch_is_the_mean_over_its_rows(name: str) -> None:
    losses, expected = within(catalogue()[name].framework, losses_without_learning, name)
    assert losses == pytest.approx([expected] * 2, rel=1e-5)


class KilledError(Exception):
    pass


def fitted(name: str, checkpoint: Path | None, stop_after: int) -> tuple[list[Any], list[int]]:
    """The weights and the epochs that were heard of, with a checkpoint after each but the first; killed after some."""
    heard: list[int] = []

    def told(epoch: int, _of: int, _message: str) -> None:
        heard.append(epoch)
        if epoch == stop_after:
            raise KilledError

    model = network(name, early_stopping=True, patience=100)
    try:
        model.fit(*rows(), watch=EpochWatch(told, checkpoint, clock=lambda: 100.0 * len(heard)))
    except KilledError:
        return [], heard
    return [*model.weights_, model.history_["loss"], model.history_["validation_loss"]], heard


@pytest.mark.parametrize("name", DEEP)
def test_an_interrupted_training_goes_on_to_the_same_weights(tmp_path: Path, name: str) -> None:
    framework, checkpoint = catalogue()[name].framework, tmp_path / "state.npz"
    _, before = within(framework, fitted, name, checkpoint, 3)
    resumed, after = within(framework, fitted, name, checkpoint, 0)
    whole, heard = within(framework, fitted, name, None, 0)
    assert (before, before + after) == ([1, 2, 3], heard)
    for one, other in zip(resumed, whole, strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_short_training_has_no_checkpoint(tmp_path: Path) -> None:
    now = 0.0
    watch = EpochWatch(checkpoint=tmp_path / "state.npz", clock=lambda: now)
    now = 0.99 * FIRST_AFTER_S
    assert not watch.due()
    now = FIRST_AFTER_S
    assert watch.due()
