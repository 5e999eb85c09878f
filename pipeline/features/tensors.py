"""Spreads columns of tensors (an image or sequence in each row) over columns of numbers such as `pixels_0`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice
from math import prod
from typing import Any, Self

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.errors import RejectedError
from pipeline.reading.tables import Column

Shape = tuple[int, ...]
_SHAPES = "tensors"


def parts(name: str, shape: Shape) -> list[str]:
    """The names of the columns that a tensor column is spread over; the last index varies fastest."""
    return [f"{name}_{place}" for place in range(prod(shape))]


def shapes_of(frame: pd.DataFrame) -> Mapping[str, Shape]:
    """The shapes of the tensor columns that this frame's columns were spread from, by name."""
    return dict(frame.attrs.get(_SHAPES, {}))


def remember_shapes(frame: pd.DataFrame, shapes: Mapping[str, Shape]) -> None:
    if shapes:
        frame.attrs[_SHAPES] = _Shapes(shapes)


def shape_of(kind: pa.DataType) -> Shape:
    """The shape of one row; empty if the type is not a tensor."""
    return (kind.list_size, *shape_of(kind.value_type)) if pa.types.is_fixed_size_list(kind) else ()


def block(name: str, column: Column) -> pd.DataFrame:
    """The columns of a tensor as a frame of one block, from which pandas takes many of them in one go."""
    return pd.DataFrame(matrix(column), columns=pd.Index(parts(name, shape_of(column.type))), copy=False)


def matrix(column: Column) -> NDArray[Any]:
    """A canonical tensor column of shape (rows, numbers), in its own type, or float64 with NaN if rows are missing."""
    width = prod(shape_of(column.type))
    blocks = [_block(chunk, width) for chunk in column.chunks] or [np.empty((0, width))]
    return np.concatenate(blocks) if len(blocks) > 1 else blocks[0]


def spread(rows: pd.DataFrame, shapes: Mapping[str, Shape]) -> pd.DataFrame:
    """Spread the tensor columns that the rows have over columns of numbers.

    Raises RejectedError, naming the row, for a list of another shape.
    """
    for name, shape in shapes.items():
        if name in rows.columns:
            numbers = np.array([_numbers(value, name, shape, row) for row, value in enumerate(rows[name], 1)])
            columns = pd.DataFrame(numbers.reshape(len(rows), prod(shape)), rows.index, pd.Index(parts(name, shape)))
            rows = pd.concat([rows.drop(columns=[name, *columns.columns.intersection(rows.columns)]), columns], axis=1)
    return rows


def gathered(row: Mapping[str, Any], shapes: Mapping[str, Shape]) -> dict[str, Any]:
    """The row with each tensor as one list again."""
    of = {part: (name, shape) for name, shape in shapes.items() for part in parts(name, shape)}
    found: dict[str, Any] = {}
    for key, value in row.items():
        if key not in of:
            found[key] = value
        elif of[key][0] not in found:
            name, shape = of[key]
            found[name] = _nested(iter([row[part] for part in parts(name, shape)]), shape)
    return found


def shown(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape))


class _Shapes(dict[str, Shape]):
    """Not copied with each column that is taken out of a frame; nobody changes it."""

    def __deepcopy__(self, _: object) -> Self:
        return self


def _block(chunk: Any, width: int) -> NDArray[Any]:
    flat, present = chunk, chunk.is_valid().to_numpy(zero_copy_only=False)
    while pa.types.is_fixed_size_list(flat.type):
        flat = flat.flatten()  # leaves out missing rows
    if pa.types.is_boolean(flat.type):
        flat = flat.cast(pa.uint8())
    numbers = flat.to_numpy(zero_copy_only=False).reshape(-1, width)
    if present.all():
        return np.asarray(numbers)
    block = np.full((len(chunk), width), np.nan)
    block[present] = numbers
    return block


def _numbers(value: Any, name: str, shape: Shape, row: int) -> NDArray[np.float64]:
    if value is None or value is pd.NA or (isinstance(value, float) and np.isnan(value)):
        return np.full(prod(shape), np.nan)
    try:
        numbers = np.asarray(value, dtype=np.float64)
    except (ValueError, TypeError):
        raise RejectedError(f"column {name!r} takes lists of {shown(shape)} numbers; row {row} has none") from None
    if numbers.shape != shape and numbers.shape != (prod(shape),):
        raise RejectedError(
            f"column {name!r} takes lists of {shown(shape)} numbers; row {row} has {shown(numbers.shape) or 'one'}"
        )
    return numbers.reshape(-1)


def _nested(numbers: Any, shape: Shape) -> list[Any]:
    if len(shape) == 1:
        return list(islice(numbers, shape[0]))
    return [_nested(numbers, shape[1:]) for _ in range(shape[0])]
