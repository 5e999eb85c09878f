"""Splits rows into a training and a test part."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import (
    GroupKFold,
    GroupShuffleSplit,
    KFold,
    ShuffleSplit,
    StratifiedKFold,
    StratifiedShuffleSplit,
    TimeSeriesSplit,
)

from pipeline.errors import RejectedError
from pipeline.features.examples import Examples
from pipeline.jobs import Evaluation, Scalar, SplitSummary

Places = NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class Split:
    """The places of training and test rows among the examples; no row is in both."""

    train: Places
    test: Places
    warnings: tuple[str, ...] = ()

    @property
    def size_bytes(self) -> int:
        return self.train.nbytes + self.test.nbytes

    def fingerprint(self, target_column: str) -> str:
        """A hexadecimal sha256 over the target and the test rows: where it is equal, metrics on one dataset compare."""
        places = np.asarray(self.test, dtype="<i8")
        return hashlib.sha256(target_column.encode() + b"\0" + places.tobytes()).hexdigest()


def split(examples: Examples, evaluation: Evaluation, seed: int) -> Split:
    """Split the examples; the same examples, evaluation and seed give the same split.

    The split is by time (the last rows are tested; a time_gap leaves out so many before them), by group (no group is in
    both parts), stratified by class, or shuffled.  Raises RejectedError if a part would be empty or training would see
    only one class.
    """
    rows = len(examples.target)
    if rows < 2:
        raise RejectedError(f"the dataset has {rows} row with a target; two or more are needed")
    if examples.times is not None:
        parts = _by_time(examples.times, evaluation.test_size, evaluation.time_gap or 0)
    elif examples.groups is not None:
        shuffle = GroupShuffleSplit(1, test_size=evaluation.test_size, random_state=seed)
        parts = Split(*_first(shuffle.split(examples.target, groups=examples.groups), "groups"))
    elif len(examples.classes) and evaluation.stratify:
        parts = _stratified(examples, evaluation.test_size, seed)
    else:
        shuffle = ShuffleSplit(1, test_size=evaluation.test_size, random_state=seed)
        parts = Split(*_first(shuffle.split(examples.target), "rows"))
    return _with_two_classes(parts, examples)


def summary(examples: Examples, evaluation: Evaluation, parts: Split) -> SplitSummary:
    """How the examples were split, for people and documents."""
    rows = len(parts.train), len(parts.test)
    if examples.times is not None:
        until, since = _plain(examples.times[parts.train].max()), _plain(examples.times[parts.test].min())
        gap = len(examples.target) - sum(rows)
        return SplitSummary("time", *rows, evaluation.time_column, gap, until, since)
    if examples.groups is not None:
        return SplitSummary("group", *rows, evaluation.group_column)
    return SplitSummary("stratified" if len(examples.classes) and evaluation.stratify else "random", *rows)


def folds(examples: Examples, evaluation: Evaluation, train: Places, seed: int) -> Iterator[tuple[Places, Places]]:
    """`evaluation.cv` folds of the training part, made by the split's rule.  Raises RejectedError if too small.

    By time, each fold is fitted on the rows of moments before those that it scores, less the time_gap.
    """
    folds = evaluation.cv or 0
    codes = examples.codes[train] if len(examples.classes) else None
    groups = None if examples.groups is None else examples.groups[train]
    if examples.times is not None:
        train = train[np.argsort(examples.times[train], kind="stable")]
        maker: Any = TimeSeriesSplit(folds, gap=evaluation.time_gap or 0)
        codes = examples.codes[train] if codes is not None else None
    elif groups is not None:
        maker = GroupKFold(folds, shuffle=True, random_state=seed)
    elif codes is not None and evaluation.stratify and np.bincount(codes).max() >= folds:
        maker = StratifiedKFold(folds, shuffle=True, random_state=seed)
    else:
        maker = KFold(folds, shuffle=True, random_state=seed)
    try:
        for fit, score in maker.split(train, codes, groups):
            if examples.times is not None:
                times = examples.times[train]
                fit = fit[times[fit] < times[score].min()]
                if not len(fit):
                    raise RejectedError(f"one of {folds} folds has no moment to be fitted on; ask for fewer")
            if codes is not None and np.ptp(codes[fit]) == 0:
                raise RejectedError(f"one of {folds} folds would be fitted on a single class; ask for fewer")
            yield train[fit], train[score]
    except ValueError as wrong:
        raise RejectedError(f"{len(train):,} training rows cannot be cut into {folds} folds: {wrong}") from None


def _by_time(times: NDArray[Any], test_size: float, gap: int) -> Split:
    """The latest rows are the test; those of one moment are in one part."""
    order = np.argsort(times, kind="stable")
    cut = len(order) - math.ceil(len(order) * test_size)
    cut = int(np.searchsorted(times[order], times[order[cut]]))
    if cut - gap < 1:
        sizes = f"a test_size of {test_size}" + (f" and a time_gap of {gap:,} rows" if gap else "")
        raise RejectedError(
            f"{sizes} leaves none of {len(order)} rows for training; rows of one moment are in one part"
        )
    return Split(order[: cut - gap], order[cut:])


def _plain(value: Any) -> Scalar:
    """A NumPy number as Python's; a moment as ISO 8601 text, without a time of 00:00:00."""
    plain: Any = value.item()
    return plain.isoformat().removesuffix("T00:00:00") if isinstance(plain, datetime) else plain


def _stratified(examples: Examples, test_size: float, seed: int) -> Split:
    """Classes with one row go to training; every other class has at least one row in both parts."""
    counts = np.bincount(examples.codes)
    lone = counts[examples.codes] == 1
    if lone.all():
        raise RejectedError("every class has one row only, so that nothing could be tested; is this the right target?")
    many = np.flatnonzero(~lone)
    classes = int((counts > 1).sum())
    test_rows = min(max(math.ceil(len(many) * test_size), classes), len(many) - classes)
    shuffle = StratifiedShuffleSplit(1, test_size=test_rows, random_state=seed)
    fit, test = next(shuffle.split(many, examples.codes[many]))
    if not lone.any():
        return Split(fit, test)
    names = ", ".join(repr(str(name)) for name in examples.classes[counts == 1][:10])
    warning = f"{int(lone.sum())} classes have one row only, which goes to training and is never tested: {names}"
    return Split(np.concatenate([many[fit], np.flatnonzero(lone)]), many[test], (warning,))


def _first(parts: Iterator[tuple[Places, Places]], of: str) -> tuple[Places, Places]:
    try:
        return next(parts)
    except ValueError as wrong:
        raise RejectedError(f"there are too few {of} to split: {wrong}") from None


def _with_two_classes(parts: Split, examples: Examples) -> Split:
    if not len(examples.classes):
        return parts
    codes = examples.codes[parts.train]
    if codes.min() == codes.max():
        only = str(examples.classes[codes[0]])
        raise RejectedError(f"the training part would hold one class only, {only!r}; split in another way")
    unseen = np.setdiff1d(examples.codes[parts.test], codes)
    if not len(unseen):
        return parts
    names = ", ".join(repr(str(name)) for name in examples.classes[unseen][:10])
    return Split(parts.train, parts.test, (*parts.warnings, f"classes that training has no row of: {names}"))
