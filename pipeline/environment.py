"""What a training's result depends on beside its request and its data."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable, Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

LIBRARIES = ("scikit-learn", "numpy", "scipy", "pandas", "pyarrow", "skops", "matplotlib")


@cache
def environment() -> Mapping[str, str]:
    """Versions of this worker, its libraries and Python; threads, CPU and device.  The same for a process's life."""
    versions = {name: _version(name) for name in ("tensorfleet-worker", *LIBRARIES)}
    return {**versions, "python": platform.python_version(), "threads": _threads(), "cpu": _cpu(), "device": "cpu"}


def requirements(names: Iterable[str] = ("scikit-learn", "skops", "numpy", "pandas")) -> list[str]:
    """Pinned requirements of a model, one line each; a worker that is not installed has no version to pin."""
    found = environment()
    return [f"{name}=={found[name]}" if found[name] != "unknown" else name for name in names]


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "unknown"


def _threads() -> str:
    """Of BLAS and OpenMP, which the parent sets for its trainers."""
    return os.environ.get("OMP_NUM_THREADS") or str(os.cpu_count() or 1)


def _cpu() -> str:
    """Architecture and model: the kernels of BLAS are chosen by these."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return f"{platform.machine()} {line.partition(':')[2].strip()}"
    return f"{platform.machine()} {platform.processor()}".strip()
