"""Reads what scikit-learn declares of an estimator's hyperparameters: defaults, and constraints as kinds of value.

`python -m pipeline.algorithms.scikit_learn` prints the module `declared`, which has this of the catalogue's estimators.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Collection
from dataclasses import MISSING, fields, is_dataclass
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sklearn.utils._param_validation import Hidden, Interval, RealNotInt, StrOptions, make_constraint

from pipeline.algorithms.hyperparameters import (
    LARGEST_INTEGER,
    Boolean,
    Choice,
    Hyperparameter,
    Integer,
    Kind,
    Null,
    Number,
)

if TYPE_CHECKING:
    from pipeline.algorithms import Algorithm


def declared_by(estimator: Any, unconstrained: Collection[str] = ()) -> list[Hyperparameter]:
    """All hyperparameters of an estimator, sorted by name, with its defaults.

    One has no kinds if it is named in `unconstrained`, or if no request can express a value that scikit-learn takes
    (callables, matrices, dictionaries).
    """
    return [
        Hyperparameter(name, default, () if name in unconstrained else _kinds(estimator._parameter_constraints[name]))
        for name, default in sorted(estimator.get_params(deep=False).items())
    ]


def _kinds(constraints: Any) -> tuple[Kind, ...]:
    """Numbers before integers: a `max_features` of 1.0 means all and 1 means one.  Null comes last in messages."""
    kinds = [_kind(constraint) for constraint in constraints if not isinstance(constraint, Hidden)]
    order = (Choice, Number, Integer, Boolean, Null)
    return tuple(sorted((kind for kind in kinds if kind is not None), key=lambda kind: order.index(type(kind))))


def _kind(constraint: Any) -> Kind | None:
    if constraint is None:
        return Null()
    if isinstance(constraint, str):
        return Boolean() if constraint == "boolean" else None
    constraint = make_constraint(constraint)
    if isinstance(constraint, StrOptions):
        return Choice(frozenset(constraint.options - constraint.deprecated))
    if isinstance(constraint, Interval):
        return _interval(constraint)
    return None


def _interval(interval: Any) -> Kind:
    low = -math.inf if interval.left is None else interval.left
    high = math.inf if interval.right is None else interval.right
    low_open, high_open = interval.closed in ("right", "neither"), interval.closed in ("left", "neither")
    if interval.type is Integral:
        first = low + low_open if math.isfinite(low) else -LARGEST_INTEGER
        last = min(high - high_open, LARGEST_INTEGER) if math.isfinite(high) else LARGEST_INTEGER
        return Integer(int(first), int(last))
    return Number(float(low), float(high), low_open, high_open, strict=interval.type is RealNotInt)


def main() -> None:
    """Print the module `declared`, to be formatted."""
    from pipeline.algorithms import catalogue, declared, package_of

    ours = [entry for entry in catalogue().values() if not package_of(entry.name)]
    lines = [f"    {entry.name!r}: {_source(tuple(of_entry(entry)))}," for entry in ours]
    head = Path(declared.__file__).read_text().partition("{\n")[0]
    sys.stdout.write("\n".join([f"{head}{{", *lines, "}\n"]))


def of_entry(entry: Algorithm) -> list[Hyperparameter]:
    """What the estimator of an entry of the catalogue declares; a deep network declares no constraints."""
    example = entry.estimator()
    return declared_by(example, example.get_params(deep=False) if entry.framework else ())


def _source(value: object) -> str:
    """The value as Python source; arguments that have their default are left out."""
    if isinstance(value, frozenset):
        return f"frozenset({{{', '.join(map(repr, sorted(value)))}}})"
    if isinstance(value, tuple):
        return f"({', '.join(map(_source, value))}{',' if len(value) == 1 else ''})"
    if not is_dataclass(value):
        return repr(value)
    given = [(one, getattr(value, one.name)) for one in fields(value)]
    needed = [_source(it) for one, it in given if one.default is MISSING]
    named = [f"{one.name}={_source(it)}" for one, it in given if one.default is not MISSING and it != one.default]
    return f"{type(value).__name__}({', '.join([*needed, *named])})"


if __name__ == "__main__":
    main()
