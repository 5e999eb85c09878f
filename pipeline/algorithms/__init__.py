"""The catalogue of algorithms.  Each entry is one algorithm; only the entry knows its estimator.

Other packages add entries through the entry-point group `tensorfleet.algorithms`; each entry point names an
`Algorithm`.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib.metadata import entry_points
from types import MappingProxyType

from pipeline.algorithms.algorithm import Algorithm, Task
from pipeline.algorithms.classifiers import CLASSIFIERS
from pipeline.algorithms.hyperparameters import shown
from pipeline.algorithms.networks import NETWORKS
from pipeline.algorithms.regressors import REGRESSORS
from pipeline.deep.frameworks import FRAMEWORKS
from pipeline.errors import RejectedError, did_you_mean

__all__ = ["Algorithm", "Task", "catalogue", "find", "framework_of", "package_of"]

GROUP = "tensorfleet.algorithms"


@cache
def catalogue() -> Mapping[str, Algorithm]:
    """All algorithms, by name and sorted by name.

    Raises TypeError if an installed package offers an object that is not an Algorithm, and RuntimeError if it offers a
    name that is taken or needs an unknown framework.
    """
    found = {algorithm.name: algorithm for algorithm in (*CLASSIFIERS, *REGRESSORS, *NETWORKS)}
    for point in entry_points(group=GROUP):
        algorithm = point.load()
        if not isinstance(algorithm, Algorithm):
            raise TypeError(f"{point.value} is offered to {GROUP} and is no Algorithm")
        if algorithm.framework and algorithm.framework not in FRAMEWORKS:
            raise RuntimeError(f"{point.value} needs {algorithm.framework}; there are {', '.join(FRAMEWORKS)}")
        if algorithm.name in found:
            raise RuntimeError(f"{point.value} is offered to {GROUP} as {algorithm.name}, which there is already")
        found[algorithm.name] = algorithm
    return MappingProxyType(dict(sorted(found.items())))


def find(name: str) -> Algorithm:
    """The algorithm of this name.  Raises RejectedError with similar names, and all names."""
    known = catalogue()
    try:
        return known[name]
    except KeyError:
        hint = did_you_mean(name.lower(), known) or "."
        raise RejectedError(f"there is no algorithm {shown(name)}{hint} There are {', '.join(known)}") from None


def framework_of(name: str) -> str:
    """The framework that an algorithm needs (pipeline.deep.frameworks); empty for none and for an unknown algorithm."""
    algorithm = catalogue().get(name)
    return "" if algorithm is None else algorithm.framework


@cache
def package_of(name: str) -> str:
    """The package that adds this algorithm, with its version; empty for ours."""
    for point in entry_points(group=GROUP):
        if point.load().name == name and point.dist is not None:
            return f"{point.dist.name} {point.dist.version}"
    return ""
