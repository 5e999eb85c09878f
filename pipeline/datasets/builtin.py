"""The built-in datasets, which scikit-learn ships, under their usual names.

A trainer loads them itself; no store is needed.  Their names are reserved. pandas and scikit-learn are imported at the
first load, since they take about a second that a command such as `models list` need not wait for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from pipeline.datasets import UNKNOWN_ORIGIN, Added, Dataset, DatasetSummary, DatasetVersion, Loaded, Origin
from pipeline.errors import RejectedError
from pipeline.reading.options import NOTHING_SAID, ReadOptions
from pipeline.reading.tables import canonical

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, slots=True)
class Builtin:
    """What a worker and most commands need of a built-in, so that they need not load it; a test compares.

    Attributes:
        classes: the sorted labels; None for a target to regress.
        fingerprint: hexadecimal sha256 of names, types and values.
    """

    target: str
    rows: int
    columns: int
    classes: Sequence[str] | None
    fingerprint: str


BUILTINS: Mapping[str, Builtin] = {
    "breast_cancer": Builtin(
        *("diagnosis", 569, 31, ("benign", "malignant")),
        "6023a145648aa2011e6d2293430f1014536286ccf7df6cae8946d355dc3e0235",
    ),
    "diabetes": Builtin(
        *("progression", 442, 11, None),
        "905af9bf3cbbe9caa69b7c30fde1e0ad38bfc76970039a82747b43ab4817e4a0",
    ),
    "digits": Builtin(
        *("digit", 1797, 65, tuple("0123456789")),
        "f8172c434ef4bef06a00d16031e56f58aa2857aea749e5c69e76f111b8e31809",
    ),
    "iris": Builtin(
        *("species", 150, 5, ("setosa", "versicolor", "virginica")),
        "49282f230fa31c59293a8e55c7f2ce6890889b162d470582cf9c88c7a5c3b995",
    ),
    "wine": Builtin(
        *("class", 178, 14, ("class_0", "class_1", "class_2")),
        "7ef9a4125fda6bf791d53bfea8f38cbc339fff61c2097d0e026dcc9cbf4459a7",
    ),
}


@cache
def load_frame(name: str) -> pd.DataFrame:
    """The rows of a built-in; the target is the last column.  All callers share the frame: do not change it.

    Raises RejectedError if there is no such built-in.
    """
    target = builtin(name).target
    import pandas as pd
    from sklearn import datasets

    bunch = getattr(datasets, f"load_{name}")()
    features = [_column(name) for name in bunch.feature_names]
    frame = pd.DataFrame(bunch.data, columns=pd.Index(features))
    labels = getattr(bunch, "target_names", None)
    if labels is None or name == "digits":
        frame[target] = bunch.target
    else:
        frame[target] = np.asarray(labels, dtype=object)[bunch.target]
    return frame


def builtin(name: str) -> Builtin:
    """Raises RejectedError if there is no such built-in."""
    if name not in BUILTINS:
        raise RejectedError(f"there is no built-in dataset {name!r}; there are {', '.join(BUILTINS)}")
    return BUILTINS[name]


def dataset(name: str) -> Dataset:
    """The built-in as a trainer gets it, without a file: it loads the rows itself."""
    known = builtin(name)
    return Dataset(name, known.fingerprint, None, known.target)


class BuiltinSource:
    """The built-ins as a DatasetSource that can be read but not changed."""

    def revision(self, name: str, *, at_once: bool = False) -> str | None:
        return builtin(name).fingerprint

    def load(self, name: str) -> Loaded:
        table = canonical(pa.Table.from_pandas(load_frame(name), preserve_index=False))
        known = builtin(name)
        return Loaded(table, known.target, known.fingerprint, known.fingerprint)

    def list(self) -> Sequence[DatasetSummary]:
        return [
            DatasetSummary(name, one.rows, one.columns, one.target, one.classes, "built-in")
            for name, one in BUILTINS.items()
        ]

    def add(
        self,
        name: str,
        table: pa.Table,
        target_column: str | None,
        origin: Origin = UNKNOWN_ORIGIN,
        options: ReadOptions = NOTHING_SAID,
        fingerprint: str | None = None,
    ) -> Added:
        """Raises RejectedError: the built-ins cannot be added to."""
        raise _fixed()

    def versions(self, name: str) -> Sequence[DatasetVersion]:
        builtin(name)
        return ()

    def restore(self, name: str, number: int) -> DatasetVersion:
        raise _fixed()

    def prune(self, name: str, keep: int) -> Sequence[DatasetVersion]:
        raise _fixed()


def _fixed() -> RejectedError:
    return RejectedError(f"the built-in datasets ({', '.join(BUILTINS)}) cannot be changed, nor added to")


def _column(name: str) -> str:
    """The feature's name without the unit: scikit-learn writes `sepal length (cm)`."""
    return name.removesuffix(" (cm)")
