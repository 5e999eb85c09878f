"""Builds the Keras networks (on TensorFlow).

Model files hold weights in the order of the layers, which must not change.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import layers
from numpy.typing import NDArray

from pipeline.deep import classifiers
from pipeline.deep.classifier import Codes, DeepClassifier, Rows
from pipeline.deep.epoch_state import Arrays

ROWS_AT_ONCE = 512
"""The number of rows predicted in one step: with 1,024 a convolutional network takes half as long again on a CPU."""

Shape = tuple[int, ...]


def mlp(model: classifiers.KerasDNN, shape: Shape, n_classes: int) -> KerasNetwork:
    def stack() -> list[Any]:
        stacked: list[Any] = []
        for place, size in enumerate(model.hidden_layer_sizes):
            stacked.append(layers.Dense(size, activation="relu"))
            if place == 0:
                stacked.append(layers.Dropout(model.dropout))
        return [*stacked, layers.Dense(n_classes)]

    return KerasNetwork(stack, shape, model)


def cnn(model: classifiers.KerasCNN, shape: Shape, n_classes: int) -> KerasNetwork:
    def stack() -> list[Any]:
        stacked: list[Any] = []
        for place, size in enumerate(model.filters):
            stacked.append(layers.Conv2D(size, 3, padding="same", activation="relu"))
            if place == 0 and min(shape[:2]) > 1:
                stacked.append(layers.MaxPooling2D(2))
        stacked += [layers.Flatten(), layers.Dropout(model.dropout), layers.Dense(model.dense_size, activation="relu")]
        return [*stacked, layers.Dense(n_classes)]

    return KerasNetwork(stack, shape, model)


def device() -> str:
    """The device as text, for a result's environment."""
    _limit_threads()
    found = tf.config.list_logical_devices("GPU")
    return f"gpu {found[0].name}" if found else "cpu"


def is_out_of_memory(error: Exception) -> bool:
    return isinstance(error, tf.errors.ResourceExhaustedError)


class KerasNetwork:
    """Implements pipeline.deep.classifier.Network with Adam and cross-entropy."""

    def __init__(self, stack: Any, shape: Shape, model: DeepClassifier) -> None:
        _limit_threads()
        keras.backend.clear_session()
        keras.utils.set_random_seed(model.random_state)
        self.module = keras.Sequential([keras.Input(shape), *stack()])
        self.module.compile(
            optimizer=keras.optimizers.Adam(model.learning_rate),
            loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            jit_compile=False,
        )

    def placed(self, rows: Rows, codes: Codes) -> tuple[Rows, Codes]:
        """As they are: TensorFlow takes the memory of a GPU for itself, and does not say what is left."""
        return rows, codes

    def fit_epoch(self, placed: tuple[Rows, Codes], order: NDArray[np.intp], batch_size: int, seed: int) -> float:
        for place, layer in enumerate(self.module.layers):
            if hasattr(layer, "seed_generator"):
                layer.seed_generator.state.assign(np.array([seed, place], dtype=np.uint32))
        rows, codes = placed
        total = tf.zeros((), tf.float64)
        for start in range(0, len(order), batch_size):
            places = order[start : start + batch_size]
            loss = self._step(tf.constant(rows[places]), tf.constant(codes[places]))
            total += tf.cast(loss, tf.float64) * len(places)
        return float(total) / len(order)

    @cached_property
    def _step(self) -> Any:
        """Train on one batch as `train_on_batch` does, bit for bit, in two thirds of its time: no loss is read back."""
        variables, optimizer = self.module.trainable_variables, self.module.optimizer
        if not optimizer.built:
            optimizer.build(variables)

        @tf.function(autograph=False, reduce_retracing=True)  # type: ignore[untyped-decorator]
        def step(x: Any, y: Any) -> Any:
            with tf.GradientTape() as tape:
                loss = self.module.loss(y, self.module(x, training=True))
            optimizer.apply(tape.gradient(loss, variables), variables)
            return loss

        return step

    def logits(self, rows: Rows) -> NDArray[np.float32]:
        starts = range(0, len(rows), ROWS_AT_ONCE)
        return np.concatenate([self.module(rows[start : start + ROWS_AT_ONCE], training=False) for start in starts])

    def weights(self) -> Arrays:
        return [np.array(value) for value in self.module.get_weights()]

    def weight_names(self) -> Sequence[str]:
        return [str(variable.path) for variable in self.module.weights]

    def store(self, path: Path, rows: Rows) -> NDArray[np.float32]:
        """Write a `.keras` file, read it back, and return its logits for these rows."""
        self.module.save(path)
        return np.asarray(keras.models.load_model(path, compile=False)(rows, training=False))

    def set_weights(self, weights: Arrays) -> None:
        self.module.set_weights(list(weights))

    def optimizer_state(self) -> Arrays:
        return [np.array(variable.numpy()) for variable in self.module.optimizer.variables]

    def set_optimizer_state(self, state: Arrays) -> None:
        self.module.optimizer.build(self.module.trainable_variables)
        for variable, value in zip(self.module.optimizer.variables, state, strict=True):
            variable.assign(value)


@cache
def _limit_threads() -> None:
    """Limit threads to what the worker allows its trainers; once, before the first operation."""
    if "OMP_NUM_THREADS" in os.environ:
        tf.config.threading.set_intra_op_parallelism_threads(int(os.environ["OMP_NUM_THREADS"]))
        tf.config.threading.set_inter_op_parallelism_threads(1)
