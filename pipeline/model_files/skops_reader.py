"""Reads skops archives, and refuses those that claim more memory than their bytes can fill.

NumPy and scikit-learn allocate the size that an array or tree states before they read its bytes.  False sizes are
refused before that, so a MemoryError means that this machine has too little memory.
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
"""NumPy recognises an archive of arrays by it; sparse matrices are stored so."""


def loads(data: bytes, trusted: Sequence[str]) -> Any:
    """The object in an archive.  Raises CorruptArtifactError if a size exceeds its bytes, and whatever skops raises."""
    for member in unpacked(data).values():  # skops trusts the sizes that an archive states
        for part in unpacked(member).values() if member.startswith(ZIP_PREFIX) else [member]:
            if part.startswith(npy.MAGIC_PREFIX):
                _check_array(part)
    return skops.io.loads(data, trusted=trusted)


def _check_array(member: bytes) -> None:
    file = BytesIO(member)
    version = npy.read_magic(file)
    shape, _, kind = (npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0)(file)
    claimed = math.prod(shape) * max(1, kind.itemsize)  # items of zero bytes take some after a conversion
    if claimed > len(member):
        raise CorruptArtifactError(
            f"holds an array whose header claims {claimed:,} bytes; there are {len(member):,} at most"
        )


class _Tree(TreeNode):  # type: ignore[misc]
    """Checks that a tree has one count of classes for each output."""

    def _construct(self) -> Any:
        _, classes, outputs = self.args.construct()
        if outputs != len(classes):
            raise CorruptArtifactError(
                f"holds a decision tree that claims {outputs:,} outputs; there are {len(classes):,}"
            )
        return super()._construct()


NODE_TYPE_MAPPING["TreeNode", PROTOCOL] = _Tree
