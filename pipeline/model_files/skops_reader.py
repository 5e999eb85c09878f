"""Reads skops archives, and refuses those that claim more memory than they have bytes for.

NumPy and scikit-learn make the room that an array or a tree says it takes before they look at its bytes.  What claims
too much is refused before that, so that a MemoryError is this machine's.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from io import BytesIO
from typing import Any

from numpy.lib import format as npy

from pipeline.errors import CorruptArtifactError
from pipeline.model_files.skops_import import NODE_TYPE_MAPPING, PROTOCOL, TreeNode, skops
from pipeline.model_files.zip_files import unpacked

ZIP_PREFIX = b"PK"
"""By which NumPy knows an archive of arrays, which is how a sparse matrix is stored."""


def loads(data: bytes, trusted: Sequence[str]) -> Any:
    """What an archive holds.  Raises CorruptArtifactError for more than its bytes, and whatever skops does."""
    for member in unpacked(data).values():  # skops believes whatever an archive says of its sizes
        for part in unpacked(member).values() if member.startswith(ZIP_PREFIX) else [member]:
            if part.startswith(npy.MAGIC_PREFIX):
                _check_array(part)
    return skops.io.loads(data, trusted=trusted)


def _check_array(member: bytes) -> None:
    file = BytesIO(member)
    version = npy.read_magic(file)
    shape, _, kind = (npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0)(file)
    claimed = math.prod(shape) * max(1, kind.itemsize)  # values of no bytes have some after a conversion
    if claimed > len(member):
        raise CorruptArtifactError(f"holds an array that claims {claimed:,} bytes and has {len(member):,} at most")


class _Tree(TreeNode):  # type: ignore[misc]
    """A tree has one count of classes for each of its outputs."""

    def _construct(self) -> Any:
        _, classes, outputs = self.args.construct()
        if outputs != len(classes):
            raise CorruptArtifactError(
                f"holds a decision tree that claims {outputs:,} outputs and has {len(classes):,}"
            )
        return super()._construct()


NODE_TYPE_MAPPING["TreeNode", PROTOCOL] = _Tree
