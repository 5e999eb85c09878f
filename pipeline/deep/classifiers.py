"""The deep classifiers, one class each: their parameters, and the network that is built from them.

The defaults are the values with which they learned scikit-learn's digits best (docs/algorithms.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.deep.classifier import DeepClassifier
from pipeline.type_names import stored


@stored
@dataclass(eq=False, repr=False)
class TorchLogistic(DeepClassifier):
    """A linear layer."""

    learning_rate: float = 1e-2

    framework = "torch"
    builder = "logistic"


@stored
@dataclass(eq=False, repr=False)
class TorchMLP(DeepClassifier):
    """Fully connected layers with ReLU; dropout after the first."""

    hidden_layer_sizes: Sequence[int] = (128, 64)
    dropout: float = 0.2

    framework = "torch"
    builder = "mlp"


@stored
@dataclass(eq=False, repr=False)
class TorchCNN(DeepClassifier):
    """Convolutions 3x3, with pooling after the first, and a dense layer; rows are images."""

    epochs: int = 20
    filters: Sequence[int] = (32, 64)
    dense_size: int = 64
    dropout: float = 0.25
    input_shape: Sequence[int] | None = None

    framework = "torch"
    builder = "cnn"
    takes = "image"


@stored
@dataclass(eq=False, repr=False)
class TorchLSTM(DeepClassifier):
    """A long short-term memory; rows are sequences."""

    learning_rate: float = 4e-3
    hidden_size: int = 64
    layers: int = 1
    input_shape: Sequence[int] | None = None

    framework = "torch"
    builder = "lstm"
    takes = "sequence"


@stored
@dataclass(eq=False, repr=False)
class TorchTransformer(DeepClassifier):
    """Pre-norm transformer blocks over the steps, with learned positions; rows are sequences."""

    learning_rate: float = 2e-3
    width: int = 32
    heads: int = 4
    blocks: int = 2
    feed_forward_size: int = 64
    dropout: float = 0.0
    input_shape: Sequence[int] | None = None

    framework = "torch"
    builder = "transformer"
    takes = "sequence"


@stored
@dataclass(eq=False, repr=False)
class KerasDNN(DeepClassifier):
    """Fully connected layers with ReLU; dropout after the first."""

    batch_size: int = 64
    learning_rate: float = 1.5e-3
    hidden_layer_sizes: Sequence[int] = (128, 64)
    dropout: float = 0.2

    framework = "keras"
    builder = "mlp"


@stored
@dataclass(eq=False, repr=False)
class KerasCNN(DeepClassifier):
    """Convolutions 3x3, with pooling after the first, and a dense layer; rows are images."""

    epochs: int = 20
    batch_size: int = 64
    learning_rate: float = 1.5e-3
    filters: Sequence[int] = (32, 64)
    dense_size: int = 64
    dropout: float = 0.25
    input_shape: Sequence[int] | None = None

    framework = "keras"
    builder = "cnn"
    takes = "image"
