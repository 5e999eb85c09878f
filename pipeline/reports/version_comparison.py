"""Compares a version with another one, such as the one in production, metric by metric."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.jobs import RegisteredModel
from pipeline.metrics import LOWER_IS_BETTER, METRICS

OF_THE_TEST = {*METRICS["classification"], *METRICS["regression"]}


@dataclass(frozen=True, slots=True)
class Difference:
    """A metric of two versions.  `better` is None if they are equal, or if the metric does not rank versions."""

    metric: str
    here: float
    there: float
    better: bool | None

    @property
    def by(self) -> float:
        return self.here - self.there


def differences(here: RegisteredModel, there: RegisteredModel) -> list[Difference]:
    """The metrics that both versions have, sorted by name."""
    before, after = there.model.metrics, here.model.metrics
    return [_difference(name, after[name], before[name]) for name in sorted(after.keys() & before.keys())]


def lower_is_better(metric: str) -> bool | None:
    """Whether lower is better; None for metrics that do not rank versions: deviations, baselines, training scores."""
    name = metric.removeprefix("test_")
    if metric.startswith("cv_") and metric.endswith("_mean"):
        name = metric.removeprefix("cv_").removesuffix("_mean")
    return name in LOWER_IS_BETTER if name in OF_THE_TEST else None


def apart(models: Sequence[RegisteredModel]) -> list[str]:
    """The reasons why the versions' metrics cannot be compared; empty if they were tested on the same rows."""
    reasons = []
    if len({one.model.dataset_fingerprint for one in models}) > 1:
        reasons.append("the dataset is not the same: its content has another fingerprint")
    if len({one.model.target_column for one in models}) > 1:
        reasons.append("they predict different columns")
    if len({one.model.split for one in models}) > 1:
        reasons.append("the test rows are others: another seed, test size or way to split")
    elif not all(one.model.split for one in models):
        reasons.append("it is not known on which rows they were tested")
    return reasons


def _difference(name: str, here: float, there: float) -> Difference:
    lower = lower_is_better(name)
    better = None if lower is None or here == there else (here < there) is lower
    return Difference(name, here, there, better)
