"""Finds the shape of one row, for networks that take images or sequences."""

from __future__ import annotations

import math
from collections.abc import Sequence

from pipeline.errors import RejectedError

KINDS = {"image": "[height, width] or [height, width, channels]", "sequence": "[steps, values a step]"}
"""How `input_shape` is written, by the kind of row that an algorithm takes."""


def row_shape(kind: str, n_features: int, input_shape: Sequence[int] | None) -> tuple[int, ...]:
    """The shape of a row: (features,) of a table, (height, width, channels) of an image, (steps, values) of a sequence.

    Without `input_shape` an image or sequence is a square.  Raises RejectedError with the figures if they do not fit.
    """
    if kind == "table":
        return (n_features,)
    if input_shape is None:
        side = math.isqrt(n_features)
        if side * side != n_features:
            raise RejectedError(
                f"the {n_features:,} feature columns do not form a square {kind}; give its shape in the hyperparameter "
                f"input_shape, {KINDS[kind]}"
            )
        input_shape = (side, side)
    allowed = (2, 3) if kind == "image" else (2,)
    if len(input_shape) not in allowed:
        raise RejectedError(f"input_shape of an algorithm for {kind}s is {KINDS[kind]}, not {list(input_shape)}")
    if math.prod(input_shape) != n_features:
        raise RejectedError(
            f"input_shape {list(input_shape)} has {math.prod(input_shape):,} numbers, "
            f"but the dataset has {n_features:,} feature columns"
        )
    shape = tuple(input_shape)
    return (*shape, 1) if kind == "image" and len(shape) == 2 else shape
