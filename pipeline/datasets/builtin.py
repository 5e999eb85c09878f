"""The built-in datasets, which scikit-learn ships, under their usual names.

A trainer loads them itself; no store is needed.  Their names are reserved. pandas and scikit-learn are imported at the
first load, since they take about a second that a command such as `models list` need not wait for.
"""

from __future__ import annotations

import builtins
import hashlib
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from pipeline.datasets import UNKNOWN_ORIGIN, Added, DatasetSummary, DatasetVersion, Loaded, Origin
from pipeline.errors import RejectedError
from pipeline.reading.options import NOTHING_SAID, ReadOptions
from pipeline.reading.tables import canonical

if TYPE_CHECKING:
    import pandas as pd

BUILTINS = ("breast_cancer", "diabetes", "digits", "iris", "wine")
TARGETS = {
    "breast_cancer": "diagnosis",
    "diabetes": "progression",
    "digits": "digit",
    "iris": "species",
    "wine": "class",
}


@cache
def load_frame(name: str) -> pd.DataFrame:
    """The rows of a built-in; the target is the last column.  All callers share the frame: do not change it.

    Raises RejectedError if there is no such built-in.
    """
    _known(name)
    import pandas as pd
    from sklearn import datasets

    bunch = getattr(datasets, f"load_{name}")()
    features = [_column(name) for name in bunch.feature_names]
    frame = pd.DataFrame(bunch.data, columns=pd.Index(features))
    labels = getattr(bunch, "target_names", None)
    if labels is None or name == "digits":
        frame[TARGETS[name]] = bunch.target
    else:
        frame[TARGETS[name]] = np.asarray(labels, dtype=object)[bunch.target]
    return frame


@cache
def fingerprint(name: str) -> str:
    """Hexadecimal sha256 of names, types and values; it changes only if scikit-learn changes the data."""
    digest = hashlib.sha256()
    for column, values in load_frame(name).items():
        kind = values.dtype.kind
        digest.update(f"{column}\0{kind}\0".encode())
        digest.update("\0".join(values).encode() if kind == "O" else values.to_numpy().tobytes())
    return digest.hexdigest()


class BuiltinSource:
    """The built-ins as a DatasetSource that can be read but not changed."""

    def revision(self, name: str, *, at_once: bool = False) -> str | None:
        return fingerprint(name)

    def load(self, name: str) -> Loaded:
        table = canonical(pa.Table.from_pandas(load_frame(name), preserve_index=False))
        return Loaded(table, TARGETS[name], fingerprint(name), fingerprint(name))

    def list(self) -> Sequence[DatasetSummary]:
        return [_summary(name) for name in BUILTINS]

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
        _known(name)
        return ()

    def restore(self, name: str, number: int) -> DatasetVersion:
        raise _fixed()

    def prune(self, name: str, keep: int) -> Sequence[DatasetVersion]:
        raise _fixed()


def _fixed() -> RejectedError:
    return RejectedError(f"the built-in datasets ({', '.join(BUILTINS)}) cannot be changed, nor added to")


def _summary(name: str) -> DatasetSummary:
    frame = load_frame(name)
    target = frame[TARGETS[name]]
    classes: builtins.list[str] | None = None
    if target.dtype != "float64":
        classes = [str(label) for label in sorted(target.unique())]
    return DatasetSummary(name, len(frame), frame.shape[1], TARGETS[name], classes, "built-in")


def _known(name: str) -> None:
    if name not in BUILTINS:
        raise RejectedError(f"there is no built-in dataset {name!r}; there are {', '.join(BUILTINS)}")


def _column(name: str) -> str:
    """The feature's name without the unit: scikit-learn writes `sepal length (cm)`."""
    return name.removesuffix(" (cm)")
