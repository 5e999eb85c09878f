"""Plans a training without running it: checks the request and shows how the data would be read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import pandas as pd

from pipeline import algorithms, validation
from pipeline.features.examples import examples
from pipeline.features.preparation import fit_steps, preparation, take
from pipeline.features.splitting import split, summary
from pipeline.jobs import HyperparameterValue, SplitSummary, TrainingRequest
from pipeline.search.strategies import planned


@dataclass(frozen=True, slots=True)
class Plan:
    """The result of a dry run.

    Attributes:
        hyperparameters: all of them, defaults resolved, except those that are searched.
        columns: the features as {name, type, role}; `dropped` are left out, with the reason.
        prepared_columns: the width of the matrix that the estimator is fitted on.
        candidates: the number of candidates of the search; 0 without one.
    """

    algorithm: str
    task: str
    hyperparameters: Mapping[str, HyperparameterValue]
    target_column: str
    classes: Sequence[str]
    columns: Sequence[Mapping[str, str]]
    dropped: Mapping[str, str]
    train_rows: int
    test_rows: int
    split: SplitSummary
    prepared_columns: int
    candidates: int
    warnings: Sequence[str]

    def to_document(self) -> dict[str, Any]:
        return asdict(self)


def plan(request: TrainingRequest, frame: pd.DataFrame, own_target: str) -> Plan:
    """Check a request against its rows as a training would.  Raises RejectedError that says what is wrong."""
    validation.check(request)
    algorithm = algorithms.find(request.algorithm)
    searched = {dimension.name for dimension in request.search.space} if request.search else set()
    data = examples(request, frame, own_target, algorithm)
    given = algorithm.with_shape(request.hyperparameters, data.shape)
    hyperparameters = algorithm.resolve(given, request.seed, alone=request.search is not None)
    algorithm.check_columns(hyperparameters, len(data.columns), data.not_numeric)
    parts = split(data, request.evaluation, request.seed)
    rows: Any = take(data.rows, parts.train)
    steps = preparation(data.columns, rows, needs_dense=algorithm.needs_dense, algorithm=algorithm.name)
    prepared = fit_steps(steps, rows, data.target[parts.train])
    return Plan(
        algorithm=algorithm.name,
        task=algorithm.task,
        hyperparameters={name: value for name, value in hyperparameters.items() if name not in searched},
        target_column=data.target_column,
        classes=[str(name) for name in data.classes.tolist()],
        columns=[{**column.to_document(), "role": str(column.role)} for column in data.columns],
        dropped=data.dropped,
        train_rows=len(parts.train),
        test_rows=len(parts.test),
        split=summary(data, request.evaluation, parts),
        prepared_columns=prepared.shape[1],
        candidates=0 if request.search is None else planned(request.search, algorithm),
        warnings=list(dict.fromkeys([*data.warnings, *parts.warnings])),
    )
