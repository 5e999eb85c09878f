"""The space of a search: lists the values of each hyperparameter, and draws from its ranges.

Only drawing imports scikit-learn and SciPy; a search is checked without them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from pipeline.algorithms import Algorithm
from pipeline.algorithms.hyperparameters import Integer
from pipeline.jobs import HyperparameterValue, Search, SearchDimension

Values = Mapping[str, HyperparameterValue]


def grid_size(search: Search, algorithm: Algorithm) -> int:
    """The number of candidates of a grid; 0 if a range has no step."""
    size = 1
    for dimension in search.space:
        size *= len(values_of(dimension, algorithm))
    return size


def candidates_of(search: Search, algorithm: Algorithm, wanted: int, seed: int) -> list[dict[str, Any]]:
    """All candidates of the grid; a random sample if it has more than `wanted`, or a range has no step."""
    from sklearn.model_selection import ParameterGrid, ParameterSampler

    size = grid_size(search, algorithm)
    if size and wanted >= size:
        return list(ParameterGrid({one.name: values_of(one, algorithm) for one in search.space}))
    space = {one.name: values_of(one, algorithm) or _distribution(one, algorithm) for one in search.space}
    drawn = list(ParameterSampler(space, wanted, random_state=seed % 2**32))
    return list({key_of(candidate, 0): candidate for candidate in map(_plain, drawn)}.values())


def ends_of(dimension: SearchDimension, algorithm: Algorithm) -> tuple[Any, Any]:
    """Low and high read as the same kind: 1 to 10 are counts, 0.1 to 1 are shares.

    Raises ValueError if no kind accepts both.
    """
    parameter = algorithm.hyperparameters[dimension.name]
    low, high = float(dimension.low or 0), float(dimension.high or 0)
    whole = low.is_integer() and high.is_integer()
    kinds = sorted(parameter.kinds, key=lambda kind: isinstance(kind, Integer) != whole)
    for kind in kinds:
        try:
            return kind.read(low), kind.read(high)
        except ValueError:
            continue
    raise ValueError(f"takes {parameter.accepts}, which a range from {low:g} to {high:g} is not")


def values_of(dimension: SearchDimension, algorithm: Algorithm) -> list[Any]:
    """All values to try; empty for a range without step.  Raises ValueError for values that are not allowed."""
    parameter = algorithm.hyperparameters[dimension.name]
    if dimension.values is not None:
        return _distinct([parameter.read(value) for value in dimension.values])
    low, high = ends_of(dimension, algorithm)
    if low == high:
        return [low]
    if dimension.step is None:
        return []
    count = math.floor((high - low) / dimension.step * (1 + 1e-12)) + 1
    values = [min(low + place * dimension.step, high) for place in range(count)]
    if isinstance(low, int):
        if not float(dimension.step).is_integer():
            raise ValueError(f"counts in whole numbers, which the step {dimension.step:g} is not")
        values = [int(value) for value in values]
    return _distinct(values)


def _distinct(values: list[Any]) -> list[Any]:
    return list({orjson.dumps(value): value for value in values}.values())


def _distribution(dimension: SearchDimension, algorithm: Algorithm) -> Any:
    from scipy.stats import loguniform, randint, uniform  # type: ignore[import-untyped]

    low, high = ends_of(dimension, algorithm)
    if isinstance(low, int) and not dimension.log:
        return randint(low, high + 1)
    if dimension.log:
        drawn = loguniform(low, high)
        return _Whole(drawn) if isinstance(low, int) else drawn
    return uniform(low, high - low)


@dataclass(frozen=True, slots=True)
class _Whole:
    """Rounds the draws of another distribution."""

    drawn: Any

    def rvs(self, random_state: Any = None) -> int:
        return round(float(self.drawn.rvs(random_state=random_state)))


def optuna_distribution(dimension: SearchDimension, algorithm: Algorithm) -> Any:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    values = values_of(dimension, algorithm)
    if values:
        return CategoricalDistribution(range(len(values)))
    low, high = ends_of(dimension, algorithm)
    kind = IntDistribution if isinstance(low, int) else FloatDistribution
    return kind(low, high, log=bool(dimension.log))


def _plain(candidate: Mapping[str, Any]) -> dict[str, Any]:
    """The candidate with Python numbers instead of numpy's."""
    return {name: value.item() if hasattr(value, "item") else value for name, value in candidate.items()}


def key_of(candidate: Mapping[str, Any], rows: int) -> bytes:
    return orjson.dumps([candidate, rows], option=orjson.OPT_SORT_KEYS)
