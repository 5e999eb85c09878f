"""The jobs that are measured, and what is aimed at with them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from pipeline.jobs import HyperparameterValue, TrainingRequest, milliseconds

MODELS = 200
"""Names that requests are spread over: with 12 partitions, and never two of a lane's jobs in one model's line."""


@dataclass(frozen=True, slots=True)
class Kind:
    """One sort of job."""

    algorithm: str
    dataset: str
    hyperparameters: Mapping[str, HyperparameterValue]


@dataclass(frozen=True, slots=True)
class Workload:
    """A stream of jobs.

    Attributes:
        kinds: taken in turns.
        jobs: in a round, at most; the first tenth is not counted.
        target: the least share of what bare processes reach with a synced file a job.
    """

    name: str
    kinds: tuple[Kind, ...]
    jobs: int
    target: float

    @property
    def warm_up(self) -> int:
        return max(4, self.jobs // 10)

    def request(self, series: str, number: int) -> TrainingRequest:
        """The job with this number of a series; the same for the worker and for bare processes."""
        kind = self.kinds[number % len(self.kinds)]
        model_name = f"{self.name}-{number % MODELS}"
        return TrainingRequest(
            request_id=f"{series}-{number}",
            job_name=model_name,
            model_name=model_name,
            algorithm=kind.algorithm,
            dataset_name=kind.dataset,
            project="benchmark",
            hyperparameters=kind.hyperparameters,
            seed=number,
            correlation_id=f"{series}-{number}",
            requested_at=milliseconds(datetime.now(UTC)),
        )

    def of(self, jobs: int) -> Workload:
        """The same with so many jobs a round, or as many as it may have."""
        return replace(self, jobs=min(self.jobs, jobs))


def _digits(algorithm: str, **hyperparameters: Any) -> Kind:
    return Kind(algorithm, "digits", hyperparameters)


TINY = Workload("tiny", (Kind("decision_tree", "iris", {}),), jobs=2_000, target=0.80)
SMALL = Workload("small", (Kind("random_forest", "wine", {"n_estimators": 100}),), jobs=400, target=0.98)
MEDIUM = Workload(
    "medium",
    (
        _digits("random_forest", n_estimators=300),
        _digits("neural_network"),
        _digits("logistic_regression"),
        _digits("svm"),
    ),
    jobs=80,
    target=0.97,
)
WORKLOADS = (TINY, SMALL, MEDIUM)

LONG = Workload(
    "long",
    (_digits("neural_network", hidden_layer_sizes=[256, 256], max_iter=120, tol=0.0, n_iter_no_change=1000),),
    jobs=100_000,
    target=0.0,
)
"""A few seconds each, with a small model: what waits while memory is looked at."""

HANG = Workload("hang", (Kind("troublesome", "iris", {"mode": "hang", "seconds": 600.0}),), jobs=1, target=0.0)
"""In C code, with the interpreter's lock held; an algorithm of tests/plugins."""
