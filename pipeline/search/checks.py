"""Checks a search before its data is read."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from importlib.util import find_spec

from pipeline.algorithms import Algorithm
from pipeline.algorithms.hyperparameters import shown
from pipeline.errors import RejectedError
from pipeline.jobs import Search, SearchDimension
from pipeline.metrics import METRICS, optimised
from pipeline.search.space import Values, ends_of, values_of
from pipeline.search.strategies import STRATEGIES, planned

MOST_CANDIDATES = 10_000


def check(search: Search, algorithm: Algorithm, given: Values) -> list[str]:
    """The errors in a search, each with how to correct it."""
    wrong = []
    if search.strategy not in STRATEGIES:
        wrong.append(f"search.strategy takes one of {', '.join(STRATEGIES)}, not {shown(search.strategy)}")
    elif search.strategy == "optuna" and find_spec("optuna") is None:
        wrong.append("search.strategy optuna needs a worker with the extra optuna; random searches without it")
    if not search.space:
        wrong.append("search.space names no hyperparameter")
    if len(search.space) > len(algorithm.hyperparameters):
        return [*wrong, f"search.space takes at most the {len(algorithm.hyperparameters)} that {algorithm.name} has"]
    names = Counter(dimension.name for dimension in search.space)
    wrong += [f"search.space names {name} more than once" for name, times in names.items() if times > 1]
    wrong += [f"{name} is both searched and given in hyperparameters" for name in names if name in given]
    for dimension in search.space:
        wrong += _dimension(dimension, search.strategy, algorithm)
    if search.scoring is not None and optimised(search.scoring, algorithm.task) not in METRICS[algorithm.task]:
        wrong.append(f"search.scoring takes one of {', '.join(METRICS[algorithm.task])}, not {shown(search.scoring)}")
    if search.cv is not None and not 2 <= search.cv <= 20:
        wrong.append(f"search.cv takes 2 to 20 folds, not {search.cv}")
    if search.max_candidates is not None and not 1 <= search.max_candidates <= MOST_CANDIDATES:
        wrong.append(f"search.max_candidates takes 1 to {MOST_CANDIDATES:,}, not {search.max_candidates:,}")
    if search.time_budget_s is not None and not search.time_budget_s > 0:
        wrong.append(f"search.time_budget_s takes seconds above 0, not {search.time_budget_s}")
    if not wrong and planned(search, algorithm) > MOST_CANDIDATES:
        wrong.append(
            f"there would be {planned(search, algorithm):,} candidates, above {MOST_CANDIDATES:,}; "
            "set search.max_candidates, or search at random"
        )
    return wrong


def _dimension(dimension: SearchDimension, strategy: str, algorithm: Algorithm) -> list[str]:
    name = dimension.name
    if name not in algorithm.hyperparameters:
        try:
            algorithm.resolve({name: None}, 0)  # raises with the names that exist
        except RejectedError as rejected:
            return [f"search.space: {rejected}"]
        return [f"search.space: {name} cannot be searched"]
    wrong = list(_range_problems(dimension, strategy))
    if not wrong:
        try:
            values = values_of(dimension, algorithm)
            if not values:
                ends_of(dimension, algorithm)
        except ValueError as error:
            wrong = [str(error)]
    return [f"search.space: {name} {one}" for one in wrong]


def _range_problems(dimension: SearchDimension, strategy: str) -> Iterator[str]:
    low, high, step = dimension.low, dimension.high, dimension.step
    if dimension.values is not None:
        if not dimension.values:
            yield "has no values"
        if len(dimension.values) > MOST_CANDIDATES:
            yield f"has more than {MOST_CANDIDATES:,} values"
        if (low, high, step) != (None, None, None):
            yield "has both values and a range; give one of them"
        return
    if low is None or high is None or not (math.isfinite(low) and math.isfinite(high)):
        yield "needs values, or low and high"
        return
    if not math.isfinite(high - low):
        yield f"goes from {low:g} to {high:g}, which is wider than any number"
        return
    if not low <= high:
        yield f"goes from {low:g} to {high:g}; low must not be above high"
    if step is not None and not (step > 0 and math.isfinite(step)):
        yield f"has the step {step:g}, which must be above 0"
    elif step is not None and low <= high and (high - low) / step >= MOST_CANDIDATES:
        yield f"has more than {MOST_CANDIDATES:,} steps"
    if dimension.log and step is not None:
        yield "has both step and log; give one of them"
    if dimension.log and not low > 0:
        yield "is drawn on a logarithmic scale, which needs a low above 0"
    if strategy == "grid" and step is None and low != high:
        yield "needs values or a step in a grid"
