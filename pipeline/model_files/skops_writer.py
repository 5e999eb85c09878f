"""Writes skops archives five times faster than `skops.io.dump`, and byte for byte the same each time.

skops spends most of a dump in `json.dumps(indent=2)`, and numbers objects by their address.  This module writes the
same state as compact JSON and numbers objects in order.  `skops.io.load` reads the result.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import orjson

from pipeline.model_files.skops_import import SaveContext, get_state, skops
from pipeline.model_files.zip_files import archive, uncompressed


def dumps(estimator: Any) -> bytes:
    """A skops archive of a fitted estimator.  Raises skops' UnsupportedTypeException for a type that it cannot hold."""
    members = _Members()
    context = _Numbered(zip_file=members)
    state = get_state(estimator, context)
    state["protocol"] = context.protocol
    state["_skops_version"] = skops.__version__
    schema = orjson.dumps(state, option=orjson.OPT_NON_STR_KEYS)
    return archive({"schema.json": schema, **members.content})


class _Members:
    """The methods of ZipFile that skops uses while it collects a state."""

    def __init__(self) -> None:
        self.content: dict[str, Any] = {}

    def namelist(self) -> Collection[str]:
        return self.content

    def writestr(self, name: str, content: Any) -> None:
        """Store a member; SciPy compresses sparse matrices, and `zip_files.unpacked` refuses compressed entries."""
        self.content[name] = uncompressed(content) if name.endswith(".npz") else content


class _Numbered(SaveContext):  # type: ignore[misc]
    """Numbers objects in order; like SaveContext, it keeps them alive so that no id is reused."""

    def memoize(self, obj: Any) -> int:
        known = self.memo.setdefault(id(obj), (len(self.memo), obj))
        number: int = known[0]
        return number
