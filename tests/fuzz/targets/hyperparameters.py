"""Hyperparameters and searches of every algorithm: values of any type, and what numpy and BSON derive from it."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction
from random import Random
from typing import Any

import bson
import numpy as np
import orjson

from pipeline.algorithms import Algorithm, catalogue
from pipeline.errors import RejectedError
from pipeline.jobs import Search, SearchDimension
from pipeline.search import checks
from pipeline.search.space import candidates_of
from pipeline.search.strategies import STRATEGIES, planned
from tests.fuzz import values
from tests.fuzz.targets.requests import check_message

FEW = 30
"""Candidates that are drawn here."""


class Whole(int):
    pass


class Real(float):
    pass


class Words(str):
    __slots__ = ()


class Items(list[Any]):
    pass


def run(random: Random) -> None:
    algorithm = random.choice(list(catalogue().values()))
    try:
        if random.random() < 0.6:
            _resolved(random, algorithm)
        else:
            _searched(random, algorithm)
    except RejectedError as error:
        check_message(str(error))
        raise


def _resolved(random: Random, algorithm: Algorithm) -> None:
    names = [_name(random, algorithm) for _ in range(random.choice((0, 1, 1, 2, 4)))]
    given = {name: _value(random, algorithm, name) for name in names}
    resolved = algorithm.resolve(given, values.integer(random), alone=random.random() < 0.2)
    orjson.dumps(resolved)
    bson.encode({"hyperparameters": resolved})
    if not algorithm.framework:
        algorithm.build(resolved, random.choice((2, 3)))


def _searched(random: Random, algorithm: Algorithm) -> None:
    asked = Search(
        strategy=random.choice((*STRATEGIES, values.text(random)[:300])),
        space=tuple(_dimension(random, algorithm) for _ in range(random.choice((0, 1, 1, 2, 3, 100)))),
        cv=random.choice((None, 3, values.integer(random))),
        scoring=random.choice((None, "accuracy", "r2", values.text(random))),
        max_candidates=random.choice((None, 5, 20, values.integer(random))),
        time_budget_s=random.choice((None, 1.0, values.number(random))),
    )
    if wrong := checks.check(asked, algorithm, {}):
        raise RejectedError("; ".join(wrong))
    if (wanted := planned(asked, algorithm)) <= FEW and asked.strategy != "optuna":
        for candidate in candidates_of(asked, algorithm, wanted, values.integer(random)):
            algorithm.resolve(candidate, 0, alone=True)


def _dimension(random: Random, algorithm: Algorithm) -> SearchDimension:
    name = _name(random, algorithm)
    if random.random() < 0.4:
        return SearchDimension(name, values=tuple(_value(random, algorithm, name) for _ in range(random.randint(0, 4))))
    low, high = random.choice(_ENDS) if random.random() < 0.6 else (values.number(random), values.number(random))
    step = random.choice((None, None, 1.0, 0.1, values.number(random)))
    return SearchDimension(name, low=low, high=high, step=step, log=random.choice((None, False, True)))


_ENDS = ((1.0, 10.0), (0.0, 1.0), (0.01, 100.0), (1.0, 1.0), (0.5, 0.9), (1.0, 2.0**31), (None, 1.0), (1.0, None))


def _name(random: Random, algorithm: Algorithm) -> str:
    if random.random() < 0.85 and algorithm.hyperparameters:
        return random.choice(list(algorithm.hyperparameters))
    return random.choice(("random_state", "n_jobs", "memory", values.text(random)))


def _value(random: Random, algorithm: Algorithm, name: str) -> Any:
    roll = random.random()
    if roll < 0.3 and name in algorithm.hyperparameters:
        return algorithm.hyperparameters[name].default
    if roll < 0.45:
        return random.choice((1, 2, 10, 0.5, 1.0, True, None, [8, 8]))
    if roll < 0.6:
        return values.scalar(random)
    if roll < 0.75:
        return random.choice(_DERIVED)(random)
    if roll < 0.78:
        return values.deep(random)
    return values.nested(random)


_DERIVED: tuple[Any, ...] = (
    lambda random: Whole(values.integer(random)),
    lambda random: Real(values.number(random)),
    lambda random: Words(values.text(random)),
    lambda random: Items([values.scalar(random) for _ in range(3)]),
    lambda random: bson.Int64(values.integer(random)),
    lambda random: bson.Decimal128("NaN"),
    lambda random: np.float64(values.number(random)),
    lambda random: np.float32(0.1),
    lambda random: np.int64(values.integer(random)),
    lambda random: np.uint8(3),
    lambda random: np.bool_(1),
    lambda random: np.array([1, 2]),
    lambda random: Decimal(10) ** 400,
    lambda random: Fraction(1, 3),
    lambda random: complex(1, 2),
    lambda random: 10**5_000,
    lambda random: -(10**400),
    lambda random: range(10**12),
    lambda random: b"bytes",
    lambda random: (1, 2),
    lambda random: {1, 2},
)
