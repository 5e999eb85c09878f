"""Builds the torch networks.

Model files hold weights in the order of the layers, which must not change.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pipeline.deep import classifiers
from pipeline.deep.classifier import Codes, DeepClassifier, Rows
from pipeline.deep.epoch_state import Arrays

ROWS_AT_ONCE = 1_024
"""The number of rows predicted in one step."""
IMAGES_AT_ONCE_ON_CPU = 64
"""What the layers return for so many stays in a CPU's cache: that takes two fifths of the time."""
ROOM_SHARE = 0.25
"""The share of a GPU's free memory that the rows to train on may take; more stay in main memory, and are copied by the
batch."""

Shape = tuple[int, ...]


def logistic(model: classifiers.TorchLogistic, shape: Shape, n_classes: int) -> TorchNetwork:
    return TorchNetwork(lambda: nn.Linear(shape[0], n_classes), model)


def mlp(model: classifiers.TorchMLP, shape: Shape, n_classes: int) -> TorchNetwork:
    def build() -> nn.Module:
        layers: list[nn.Module] = []
        for place, (into, out) in enumerate(pairwise((shape[0], *model.hidden_layer_sizes))):
            layers += [nn.Linear(into, out), nn.ReLU()]
            if place == 0:
                layers.append(nn.Dropout(model.dropout))
        return nn.Sequential(*layers, nn.Linear(model.hidden_layer_sizes[-1], n_classes))

    return TorchNetwork(build, model)


def cnn(model: classifiers.TorchCNN, shape: Shape, n_classes: int) -> TorchNetwork:
    return TorchNetwork(lambda: _Convolutions(model, shape, n_classes), model)


def lstm(model: classifiers.TorchLSTM, shape: Shape, n_classes: int) -> TorchNetwork:
    return TorchNetwork(lambda: _Memory(model, shape, n_classes), model)


def transformer(model: classifiers.TorchTransformer, shape: Shape, n_classes: int) -> TorchNetwork:
    return TorchNetwork(lambda: _Attention(model, shape, n_classes), model)


def device() -> str:
    """The device as text, for a result's environment."""
    return f"cuda {torch.cuda.get_device_name()}" if torch.cuda.is_available() else "cpu"


def is_out_of_memory(error: Exception) -> bool:
    """torch has its own error only for GPUs; on a CPU it raises a RuntimeError."""
    return isinstance(error, torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and "can't allocate memory" in str(error)
    )


class TorchNetwork:
    """Implements pipeline.deep.classifier.Network with Adam and cross-entropy."""

    def __init__(self, build: Callable[[], nn.Module], model: DeepClassifier) -> None:
        _limit_threads()
        torch.manual_seed(model.random_state)
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._at_once = IMAGES_AT_ONCE_ON_CPU if (model.takes, self._device.type) == ("image", "cpu") else ROWS_AT_ONCE
        self.module = build().to(self._device)
        self._optimizer = torch.optim.Adam(self.module.parameters(), lr=model.learning_rate)

    def placed(self, rows: Rows, codes: Codes) -> tuple[Tensor, Tensor]:
        x, y = torch.from_numpy(rows), torch.from_numpy(codes)
        room = torch.cuda.mem_get_info()[0] * ROOM_SHARE if self._device.type == "cuda" else math.inf
        return (x.to(self._device), y.to(self._device)) if x.nbytes + y.nbytes <= room else (x, y)

    def fit_epoch(self, placed: tuple[Tensor, Tensor], order: NDArray[np.intp], batch_size: int, seed: int) -> float:
        """The loss stays on the device until the epoch is over: to read it after each batch is to wait for it."""
        torch.manual_seed(seed)
        self.module.train()
        x, y = placed
        places = torch.from_numpy(order).to(x.device)
        total = torch.zeros((), dtype=torch.float64, device=self._device)
        for start in range(0, len(places), batch_size):
            batch = places[start : start + batch_size]
            target = y.index_select(0, batch).to(self._device)
            loss = nn.functional.cross_entropy(self.module(x.index_select(0, batch).to(self._device)), target)
            self._optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            self._optimizer.step()
            total.add_(loss.detach(), alpha=len(target))
        return float(total) / len(order)

    def logits(self, rows: Rows) -> NDArray[np.float32]:
        self.module.eval()
        x, starts = torch.from_numpy(rows), range(0, len(rows), self._at_once)
        parts = (x[start : start + self._at_once].to(self._device) for start in starts)
        with torch.inference_mode():
            found: NDArray[np.float32] = torch.cat([self.module(part) for part in parts]).cpu().numpy()
        return found

    def weights(self) -> Arrays:
        return [_array(value) for value in self.module.state_dict().values()]

    def weight_names(self) -> Sequence[str]:
        return list(self.module.state_dict())

    def set_weights(self, weights: Arrays) -> None:
        names = self.module.state_dict().keys()
        self.module.load_state_dict({name: _tensor(value) for name, value in zip(names, weights, strict=True)})

    def optimizer_state(self) -> Arrays:
        """For each parameter: steps, mean of its gradient, mean of its squared gradient."""
        states = self._optimizer.state
        return [_array(states[one][name]) for one in self.module.parameters() for name in _ADAM]

    def set_optimizer_state(self, state: Arrays) -> None:
        values = iter(state)
        for one in self.module.parameters():
            kept = {name: _tensor(next(values)) for name in _ADAM}
            self._optimizer.state[one] = {
                name: value if name == "step" else value.to(self._device) for name, value in kept.items()
            }


_ADAM = ("step", "exp_avg", "exp_avg_sq")


class _Convolutions(nn.Module):
    """A convolutional network.  Rows: (n, height, width, channels)."""

    def __init__(self, model: classifiers.TorchCNN, shape: Shape, n_classes: int) -> None:
        super().__init__()
        height, width, channels = shape
        layers: list[nn.Module] = []
        for place, (into, out) in enumerate(pairwise((channels, *model.filters))):
            layers += [nn.Conv2d(into, out, 3, padding=1), nn.ReLU()]
            if place == 0 and min(height, width) > 1:
                layers.append(nn.MaxPool2d(2))
                height, width = height // 2, width // 2
        flat = model.filters[-1] * height * width
        self.look = nn.Sequential(*layers)
        self.decide = nn.Sequential(
            nn.Flatten(),
            nn.Dropout(model.dropout),
            nn.Linear(flat, model.dense_size),
            nn.ReLU(),
            nn.Linear(model.dense_size, n_classes),
        )

    def forward(self, rows: Tensor) -> Any:
        return self.decide(self.look(rows.permute(0, 3, 1, 2)))


class _Memory(nn.Module):
    """An LSTM whose output at the last step decides.  Rows: (n, steps, values)."""

    def __init__(self, model: classifiers.TorchLSTM, shape: Shape, n_classes: int) -> None:
        super().__init__()
        self.read = nn.LSTM(shape[1], model.hidden_size, model.layers, batch_first=True)
        self.decide = nn.Linear(model.hidden_size, n_classes)

    def forward(self, rows: Tensor) -> Any:
        told, _ = self.read(rows)
        return self.decide(told[:, -1])


class _Attention(nn.Module):
    """A transformer.  Rows: (n, steps, values)."""

    def __init__(self, model: classifiers.TorchTransformer, shape: Shape, n_classes: int) -> None:
        super().__init__()
        steps, values = shape
        self.embed = nn.Linear(values, model.width)
        self.positions = nn.Parameter(torch.randn(steps, model.width) / math.sqrt(model.width))
        self.blocks = nn.ModuleList([_Block(model) for _ in range(model.blocks)])
        self.norm = nn.LayerNorm(model.width)
        self.decide = nn.Linear(steps * model.width, n_classes)

    def forward(self, rows: Tensor) -> Any:
        told = self.embed(rows) + self.positions
        for block in self.blocks:
            told = block(told)
        return self.decide(self.norm(told).flatten(1))


class _Block(nn.Module):
    """A pre-norm transformer block: attention and two layers per step, each added to its input."""

    def __init__(self, model: classifiers.TorchTransformer) -> None:
        super().__init__()
        self.first, self.second = nn.LayerNorm(model.width), nn.LayerNorm(model.width)
        self.attend = nn.MultiheadAttention(model.width, model.heads, dropout=model.dropout, batch_first=True)
        self.think = nn.Sequential(
            nn.Linear(model.width, model.feed_forward_size),
            nn.GELU(),
            nn.Dropout(model.dropout),
            nn.Linear(model.feed_forward_size, model.width),
        )

    def forward(self, told: Tensor) -> Tensor:
        seen = self.first(told)
        told = told + self.attend(seen, seen, seen, need_weights=False)[0]
        thought: Tensor = told + self.think(self.second(told))
        return thought


def _array(value: Tensor) -> NDArray[Any]:
    """A copy, since the framework goes on changing its own array."""
    return np.array(value.detach().cpu().numpy())


def _tensor(value: NDArray[Any]) -> Tensor:
    return torch.from_numpy(np.array(value))


@cache
def _limit_threads() -> None:
    """Limit threads to what the worker allows its trainers; once, before the first operation."""
    if "OMP_NUM_THREADS" in os.environ:
        torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
        torch.set_num_interop_threads(1)
