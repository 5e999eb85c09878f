"""Turns a dataset into examples, features and target, and checks the data.

A broken rule either raises RejectedError, which says how to fix it, or adds a warning that is stored with the model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipeline.algorithms import Algorithm, catalogue
from pipeline.errors import RejectedError
from pipeline.features.columns import (
    LARGEST,
    Column,
    Reading,
    Role,
    UnusableColumnError,
    describe,
    read,
    too_large,
)
from pipeline.features.dates import moments_of
from pipeline.features.preparation import Rows, as_rows
from pipeline.features.tensors import Shape, gathered, parts, shapes_of, shown
from pipeline.jobs import TrainingRequest
from pipeline.reading.suspicions import concerns
from pipeline.reading.tables import LARGEST_WHOLE

MOST_INTEGER_CLASSES = 50
ENOUGH_ROWS = 20
"""With fewer rows than this, values that are all different prove nothing."""
NEARLY = 0.99
LISTED = 20


@dataclass(frozen=True, slots=True)
class Examples:
    """The rows to learn from, with their target.

    Attributes:
        rows: frame, or matrix of any type of numbers, of shape (rows, len(columns)); `take` makes it what preparation
            takes.
        target: shape (rows,): int64, bool, str objects or, for regression, float64; never missing.
        codes: shape (rows,): the index of each row's label in `classes`; empty for regression.
        classes: the sorted labels; empty for regression.
        groups, times: shape (rows,) where the request names such a column, else None.
        sample: the first five rows with their raw values; they are stored with the model.
        dropped: the columns that are left out, each with the reason.
        tensors: the shape of each tensor column of the dataset, by name, if all its numbers are among `columns`.
    """

    rows: Rows
    columns: tuple[Column, ...]
    target: NDArray[Any]
    target_column: str
    codes: NDArray[np.intp]
    classes: NDArray[Any]
    groups: NDArray[Any] | None
    times: NDArray[Any] | None
    sample: tuple[dict[str, Any], ...]
    dropped: Mapping[str, str]
    warnings: tuple[str, ...]
    tensors: Mapping[str, Shape] = field(default_factory=dict)

    @property
    def shape(self) -> Shape | None:
        """The shape of one row, if `columns` are exactly the numbers of one tensor in their order; else None."""
        for name, shape in self.tensors.items():
            if [column.name for column in self.columns] == parts(name, shape):
                return shape
        return None

    @property
    def not_numeric(self) -> Sequence[str]:
        """Names of the columns that are not numeric."""
        return [column.name for column in self.columns if column.role is not Role.NUMERIC]

    @property
    def size_bytes(self) -> int:
        rows = self.rows
        size = rows.memory_usage(deep=True).sum() if isinstance(rows, pd.DataFrame) else rows.nbytes
        return int(size) + self.target.nbytes + self.codes.nbytes


def examples(request: TrainingRequest, frame: pd.DataFrame, own_target: str, algorithm: Algorithm) -> Examples:
    """Select the features and target that the request asks for.  Raises RejectedError if the data lacks them."""
    names = [str(name) for name in frame.columns]
    shapes = shapes_of(frame)
    target_column = _target(request, names, own_target, shapes)
    features = _features(request, names, target_column, shapes)
    target, present, warnings = _labels(frame[target_column], target_column, algorithm)
    used = {"", target_column, *features}
    notes = [note for note in Reading.of(frame).notes if note.column in used and concerns(note, target_column)]
    warnings = [*map(str, notes), *warnings]
    if not present.all():
        frame = frame[present]
    codes, classes = (
        _classes(target, target_column, algorithm) if algorithm.task == "classification" else (_NONE, _NONE)
    )
    columns, dropped = _columns(frame, features, named=request.features is not None)
    whole = _whole(columns, shapes)
    warnings += [f"column {name!r} {reason}; it is left out" for name, reason in dropped.items()]
    warnings += [said for one in columns if (said := _like_an_identifier(frame, one))]
    warnings += _about_the_split(request, frame, columns)
    return Examples(
        rows=_rows(frame, columns),
        columns=columns,
        target=target,
        target_column=target_column,
        codes=codes,
        classes=classes,
        groups=_groups(frame, request.evaluation.group_column),
        times=_times(frame, request.evaluation.time_column),
        sample=_sample(frame, columns, whole),
        dropped=dropped,
        warnings=tuple(warnings),
        tensors=whole,
    )


_NONE: NDArray[Any] = np.array([], dtype=np.intp)


def _target(request: TrainingRequest, names: Sequence[str], own_target: str, shapes: Mapping[str, Shape]) -> str:
    target = request.target_column or own_target
    if target in shapes:
        raise RejectedError(f"the target {target!r} holds lists of {shown(shapes[target])} numbers; it takes one value")
    if target not in names:
        raise RejectedError(f"dataset {request.dataset_name} has no target column {_near([target], names)}")
    return target


def _features(request: TrainingRequest, names: Sequence[str], target: str, shapes: Mapping[str, Shape]) -> list[str]:
    """The named features, else all columns but the target; those that split the rows are features as any other."""
    split_by = {request.evaluation.group_column, request.evaluation.time_column} - {None}
    for column in split_by - set(names):
        raise RejectedError(f"dataset {request.dataset_name} has no column {_near([str(column)], names)}")
    if target in split_by:
        raise RejectedError(f"the target {target!r} cannot be the group_column or time_column too")
    if request.features is None:
        return [name for name in names if name != target]
    wanted = [part for name in request.features for part in (parts(name, shapes[name]) if name in shapes else [name])]
    known = set(names)
    unknown = [name for name in wanted if name not in known]
    if unknown:
        raise RejectedError(f"dataset {request.dataset_name} has no column {_near(unknown, names)}")
    if target in wanted:
        raise RejectedError(f"the target {target!r} is among the features; a model must not see what it is to predict")
    return list(dict.fromkeys(wanted)) if shapes else wanted


def _like_an_identifier(frame: pd.DataFrame, column: Column) -> str:
    """A warning if (nearly) each row has a different category, from which a model learns nothing about new rows."""
    if column.role is not Role.CATEGORICAL or len(frame) < ENOUGH_ROWS:
        return ""
    different = frame[column.name].nunique()
    if different < NEARLY * len(frame):
        return ""
    each = "each row" if different == len(frame) else "nearly each row"
    return f"column {column.name!r} has a different value in {each}: if it is an identifier, leave it out (features)"


def _about_the_split(request: TrainingRequest, frame: pd.DataFrame, columns: Sequence[Column]) -> list[str]:
    """Warns of a group column that nobody named as a feature, and of a series whose rows are split at random."""
    group, time = request.evaluation.group_column, request.evaluation.time_column
    if group is not None:
        kept = request.features is None and any(column.name == group for column in columns)
        missing = int(frame[group].isna().sum())
        return [
            *([_unknown_in_the_test(group)] if kept else []),
            *([f"{missing:,} rows have no {group!r}, and count as one group"] if missing else []),
        ]
    dates = [name for name, kind in frame.dtypes.items() if kind.kind == "M"] if time is None else []
    series = [str(name) for name in dates if _in_order_of_time(frame[name])]
    return [_split_at_random(series[0])] if series else []


def _unknown_in_the_test(group: str) -> str:
    return (
        f"column {group!r} is a feature too, and the test part has none of the groups that training has; "
        "if it is an identifier, leave it out (features)"
    )


def _in_order_of_time(values: pd.Series[Any]) -> bool:
    """Whether these dates are in rising or falling order, without gaps, and nine in ten or more differ."""
    if len(values) < ENOUGH_ROWS:
        return False
    ordered = values.is_monotonic_increasing or values.is_monotonic_decreasing
    return ordered and 10 * values.nunique() >= 9 * len(values)


def _split_at_random(column: str) -> str:
    return (
        f"the rows are in order of {column!r}, like a series, but the test rows are a random part of them; "
        f"to test on the latest, give --time-column {column} (evaluation.time_column)"
    )


def _whole(columns: Sequence[Column], shapes: Mapping[str, Shape]) -> dict[str, Shape]:
    names = {column.name for column in columns}
    return {name: shape for name, shape in shapes.items() if names.issuperset(parts(name, shape))}


def _near(unknown: Sequence[str], names: Sequence[str]) -> str:
    """`'pedal' (did you mean 'petal'?); its columns are …`; at most LISTED names of each."""
    hints = []
    for name in unknown[:LISTED]:
        near = get_close_matches(name, names, n=1)
        hints.append(f"{name!r}" + (f" (did you mean {near[0]!r}?)" if near else ""))
    listed = ", ".join(names[:LISTED]) + (f" and {len(names) - LISTED} more" if len(names) > LISTED else "")
    return f"{', '.join(hints)}; its columns are {listed}"


def _labels(
    values: pd.Series[Any], name: str, algorithm: Algorithm
) -> tuple[NDArray[Any], NDArray[np.bool_], list[str]]:
    """The target without missing values, a mask of the rows that have one, and a warning if some have none."""
    if values.dtype.kind == "M":
        made = (
            "words, such as the month" if algorithm.task == "classification" else "numbers, such as days since a date"
        )
        raise RejectedError(
            f"the target {name!r} holds dates, which {algorithm.name} cannot predict; name another column, or make one "
            f"of {made}"
        )
    present = values.notna().to_numpy()
    if values.dtype.kind == "f":
        present = present & ~np.isinf(values.to_numpy())
    missing = len(values) - int(present.sum())
    if missing == len(values):
        raise RejectedError(f"the target {name!r} has no value in any of {len(values):,} rows")
    if 2 * missing > len(values):
        raise RejectedError(f"the target {name!r} is missing in {missing:,} of {len(values):,} rows; more than half")
    labels = _labels_of_a_classifier if algorithm.task == "classification" else _numbers_of_a_regressor
    target = labels(values[present] if missing else values, name, algorithm)
    return target, present, [f"{missing:,} of {len(values):,} rows have no target and are left out"] if missing else []


def _labels_of_a_classifier(values: pd.Series[Any], name: str, algorithm: Algorithm) -> NDArray[Any]:
    """The labels with their own type: int64, bool, or str.  Whole numbers that are stored as floats become int64."""
    kind = values.dtype.kind
    inferred = pd.api.types.infer_dtype(values, skipna=True) if kind == "O" else ""
    if kind == "f" and _are_whole(values):
        return values.to_numpy(dtype=np.int64)
    if kind == "f" or inferred in ("floating", "decimal", "mixed-integer-float"):
        raise RejectedError(
            f"the target {name!r} holds real numbers, but {algorithm.name} is a classifier; "
            f"{_regressors(algorithm)}, or a target of integers, words, or true and false"
        )
    if kind in "iu" or inferred == "integer":
        return values.to_numpy(dtype=np.int64)
    if kind == "b" or inferred == "boolean":
        return values.to_numpy(dtype=np.bool_)
    if kind == "m" or not (kind == "O" and values.map(lambda value: isinstance(value, (str, bool, int))).all()):
        raise RejectedError(f"the target {name!r} holds neither words, nor integers, nor true and false")
    return values.astype(str).to_numpy(dtype=object)


def _are_whole(values: pd.Series[Any]) -> bool:
    """Whether all are integers that a float64 tells apart from their neighbours."""
    numbers = values.to_numpy(dtype=np.float64)
    return bool(((numbers == np.floor(numbers)) & (np.abs(numbers) <= LARGEST_WHOLE)).all())


def _numbers_of_a_regressor(values: pd.Series[Any], name: str, algorithm: Algorithm) -> NDArray[Any]:
    try:
        numbers = pd.to_numeric(values).to_numpy(dtype=np.float64)
    except (ValueError, TypeError, OverflowError):
        raise RejectedError(f"the target {name!r} holds no numbers, which {algorithm.name} needs") from None
    if len(beyond := numbers[~(np.abs(numbers) <= LARGEST)]):
        raise RejectedError(f"the target {name!r} holds numbers that cannot be learned: {too_large(beyond[0])}")
    return numbers


def _classes(target: NDArray[Any], name: str, algorithm: Algorithm) -> tuple[NDArray[np.intp], NDArray[Any]]:
    classes, codes = np.unique(target, return_inverse=True)
    if len(classes) == 1:
        raise RejectedError(f"the target {name!r} has one class only, {str(classes[0])!r}; two or more are needed")
    if target.dtype.kind == "i" and len(classes) > MOST_INTEGER_CLASSES:
        raise RejectedError(
            f"the target {name!r} holds {len(classes):,} different integers, which are numbers rather than classes "
            f"(at most {MOST_INTEGER_CLASSES}); {_regressors(algorithm)}, or a target of words"
        )
    return codes, classes


def _regressors(algorithm: Algorithm) -> str:
    names = [name for name, entry in catalogue().items() if entry.task == "regression"]
    twin = f"{algorithm.name}_regressor"
    return f"use {twin}" if twin in names else f"use a regressor ({', '.join(names)})"


def _columns(frame: pd.DataFrame, names: Sequence[str], *, named: bool) -> tuple[tuple[Column, ...], dict[str, str]]:
    columns, dropped, read = [], {}, Reading.of(frame)
    for name in names:
        try:
            column = describe(frame[name], name, wanted=named, told=read.told.get(name, ""))
            columns.append(replace(column, notation=read.notations.get(name, ""), missing=read.missing))
        except UnusableColumnError as unusable:
            dropped[name] = str(unusable)
    if not columns:
        reasons = "; ".join(f"{name!r} {reason}" for name, reason in list(dropped.items())[:LISTED])
        raise RejectedError(f"there is no column to learn from ({reasons or 'the target is the only one'})")
    return tuple(columns), dropped


def _sample(frame: pd.DataFrame, columns: Sequence[Column], tensors: Mapping[str, Shape]) -> tuple[dict[str, Any], ...]:
    """The first five rows as JSON: a missing value is None, a tensor is a list."""
    names = [column.name for column in columns]
    head = frame[names].head(5).astype(object)
    values = head.where(head.notna(), None).to_numpy().tolist()
    records: Any = [dict(zip(names, row, strict=True)) for row in values]
    return tuple(gathered(record, tensors) for record in records) if tensors else tuple(records)


def _rows(frame: pd.DataFrame, columns: Sequence[Column]) -> Rows:
    if (numbers := _plain_numbers(frame, columns)) is not None:
        return numbers
    return as_rows([_read(frame[column.name], column) for column in columns], columns)


def _plain_numbers(frame: pd.DataFrame, columns: Sequence[Column]) -> NDArray[Any] | None:
    """What `_rows` returns, where there is nothing to read: numbers without gaps, none of them beyond LARGEST.

    Numbers of one type keep it: an image has an eighth of the size that it takes in float64.
    """
    if any(column.role is not Role.NUMERIC or column.missing for column in columns):
        return None
    chosen = frame[[column.name for column in columns]]
    kinds = set(chosen.dtypes)
    if not all(isinstance(kind, np.dtype) and kind.kind in "iuf" for kind in kinds):
        return None
    numbers = chosen.to_numpy(dtype=kinds.pop() if len(kinds) == 1 else np.float64, copy=True)
    low, high = float(numbers.min()), float(numbers.max())
    return np.ascontiguousarray(numbers) if low >= -LARGEST and high <= LARGEST else None  # NaN where one is missing


def _read(values: pd.Series[Any], column: Column) -> NDArray[Any]:
    try:
        return read(values, column)
    except ValueError as wrong:
        raise RejectedError(str(wrong)) from None


def _groups(frame: pd.DataFrame, column: str | None) -> NDArray[Any] | None:
    if column is None:
        return None
    groups = pd.factorize(frame[column], use_na_sentinel=False)[0]
    if groups.max(initial=0) == 0:
        raise RejectedError(f"the group_column {column!r} has one group only; two or more are needed to split by group")
    return groups


def _times(frame: pd.DataFrame, column: str | None) -> NDArray[Any] | None:
    if column is None:
        return None
    values = frame[column]
    if values.isna().any():
        raise RejectedError(f"the time_column {column!r} is missing in {int(values.isna().sum()):,} rows")
    if values.dtype.kind not in "iufM":
        try:
            return moments_of(values)
        except (ValueError, TypeError):
            raise RejectedError(f"the time_column {column!r} holds neither dates nor numbers") from None
    return values.to_numpy()
