"""Imports skops without what it would pull in.

To list what it trusts it imports every module of scikit-learn, those too that make arrays of torch, Dask and others fit
for it, and with them the whole libraries where they are installed: 600 MiB and seconds, and a framework too many in a
trainer of another one.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

ARRAY_LIBRARIES = ("cupy", "dask", "jax", "torch")
"""Those of `sklearn.externals.array_api_compat`; its modules that find theirs missing are passed over."""


@contextmanager
def _absent(names: tuple[str, ...]) -> Iterator[None]:
    """As if these were not installed, but for what is imported already."""
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
