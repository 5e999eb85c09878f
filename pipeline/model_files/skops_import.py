"""Imports skops without the array libraries that it would pull in.

To list the types it trusts, skops imports every module of scikit-learn.  Among these are adapters that import torch,
Dask and others where they are installed.  That costs 600 MiB and seconds, and a trainer would hold a second framework.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

ARRAY_LIBRARIES = ("cupy", "dask", "jax", "torch")
"""Libraries of `sklearn.externals.array_api_compat`; scikit-learn skips its modules whose library is missing."""


@contextmanager
def _absent(names: tuple[str, ...]) -> Iterator[None]:
    """Make these libraries look uninstalled, unless they are imported already."""
    hidden = [name for name in names if name not in sys.modules]
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]  # None is how Python's imports spell this
    try:
        yield
    finally:
        for name in hidden:
            del sys.modules[name]


with _absent(ARRAY_LIBRARIES):
    import skops.io
    from skops.io._audit import NODE_TYPE_MAPPING
    from skops.io._protocol import PROTOCOL
    from skops.io._sklearn import TreeNode
    from skops.io._utils import SaveContext, get_state

__all__ = ["NODE_TYPE_MAPPING", "PROTOCOL", "SaveContext", "TreeNode", "get_state", "skops"]
