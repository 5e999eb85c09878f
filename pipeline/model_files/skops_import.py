"""Imports skops without what it would pull in: every module of scikit-learn, and the array libraries.

To list the types it trusts, skops imports every module of scikit-learn.  Among these are adapters that import torch,
Dask and others where they are installed.  That costs 600 MiB and seconds, and a trainer would hold a second framework.
The list is needed to read a model file, not to write one; so it is made when one is first read.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from importlib.abc import MetaPathFinder

import sklearn.utils
from sklearn.utils import all_estimators

ARRAY_LIBRARIES = ("cupy", "dask", "jax", "torch")
"""Libraries of `sklearn.externals.array_api_compat`; scikit-learn skips its modules whose library is missing."""


class _Absent(MetaPathFinder):
    """Makes these libraries look uninstalled to one thread, unless they are imported already."""

    def __init__(self, names: Collection[str]) -> None:
        self._names = names
        self._thread = threading.get_ident()

    def find_spec(self, fullname: str, *_: object) -> None:
        if threading.get_ident() == self._thread and fullname in self._names:
            raise ModuleNotFoundError(f"{fullname} is not for scikit-learn's adapters", name=fullname)

    def __enter__(self) -> None:
        sys.meta_path.insert(0, self)

    def __exit__(self, *_: object) -> None:
        sys.meta_path.remove(self)


_listing = threading.Lock()


@contextmanager
def _without_estimators() -> Iterator[None]:
    """Make scikit-learn list no estimators."""
    sklearn.utils.all_estimators = list
    try:
        yield
    finally:
        sklearn.utils.all_estimators = all_estimators


class _Estimators(list[str]):
    """The type names of scikit-learn's estimators, in place of skops' own list; made when skops first reads it."""

    def __add__(self, others: Iterable[str]) -> list[str]:  # type: ignore[override]  # all that skops does with it
        with _listing:
            if not self:
                with _Absent(ARRAY_LIBRARIES):
                    found = [get_type_name(estimator) for _, estimator in all_estimators()]
                self.extend(name for name in found if name.startswith("sklearn."))
        return [*self, *others]


with _without_estimators():
    import skops.io
    from skops.io import _general
    from skops.io._audit import NODE_TYPE_MAPPING
    from skops.io._protocol import PROTOCOL
    from skops.io._sklearn import Tree, TreeNode
    from skops.io._utils import SaveContext, _get_state, get_module, get_state, get_type_name

if not _general.SKLEARN_ESTIMATOR_TYPE_NAMES:
    _general.SKLEARN_ESTIMATOR_TYPE_NAMES = _Estimators()

collector = _get_state.dispatch
"""The function with which skops collects the state of a type."""

__all__ = [
    "NODE_TYPE_MAPPING", "PROTOCOL", "SaveContext", "Tree", "TreeNode", "collector", "get_module", "get_state", "skops",
]  # fmt: skip
