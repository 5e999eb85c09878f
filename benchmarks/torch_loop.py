"""A plain PyTorch loop: it moves prepared rows to the device once, trains, tests, and saves the weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pipeline import algorithms
from pipeline.datasets import Dataset
from pipeline.features.examples import examples
from pipeline.features.frames import read_frame
from pipeline.features.preparation import apply_steps, fit_steps, preparation, take
from pipeline.features.splitting import split
from pipeline.jobs import TrainingRequest


class Loop:
    """The loop of a request: the same network, optimizer, batch size, epochs and rows, prepared by the pipeline."""

    def __init__(self, request: TrainingRequest, dataset: Dataset) -> None:
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        algorithm = algorithms.find(request.algorithm)
        data = examples(request, read_frame(dataset), dataset.target_column, algorithm)
        hyperparameters = algorithm.resolve(algorithm.with_shape(request.hyperparameters, data.shape), request.seed)
        self._classes = len(data.classes)
        self._model: Any = algorithm.build(hyperparameters, self._classes)
        parts = split(data, request.evaluation, request.seed)
        fit_on = take(data.rows, parts.train)
        steps = preparation(data.columns, fit_on, needs_dense=True, algorithm=algorithm.name)
        fit_on = fit_steps(steps, fit_on, data.target[parts.train])
        self._rows, self._tested = (
            torch.from_numpy(self._model.as_rows(rows))
            for rows in (fit_on, apply_steps(steps, take(data.rows, parts.test)))
        )
        self._codes, self._truth = (torch.from_numpy(data.codes[part]) for part in (parts.train, parts.test))

    def run(self, path: Path) -> float:
        """Train a new network and save its weights; returns its accuracy."""
        module: nn.Module = self._model.network(tuple(self._rows.shape[1:]), self._classes).module
        optimizer = torch.optim.Adam(module.parameters(), lr=self._model.learning_rate)
        rows, codes = self._rows.to(self.device), self._codes.to(self.device)
        for _ in range(self._model.epochs):
            _epoch(module, optimizer, rows, codes, self._model.batch_size)
        module.eval()
        parts = torch.split(self._tested, self._model.batch_size)
        with torch.inference_mode():
            predicted = torch.cat([module(part.to(self.device)).argmax(dim=1) for part in parts])
            accuracy = (predicted == self._truth.to(self.device)).double().mean().item()
        torch.save(module.state_dict(), path)
        return accuracy


def _epoch(module: nn.Module, optimizer: torch.optim.Optimizer, rows: Tensor, codes: Tensor, batch_size: int) -> float:
    module.train()
    total = torch.zeros((), device=rows.device)
    order = torch.randperm(len(rows), device=rows.device)
    for places in torch.split(order, batch_size):
        loss = nn.functional.cross_entropy(module(rows[places]), codes[places])
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        total += loss.detach()
    return total.item()
