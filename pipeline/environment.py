"""What a result depends on beside request and data: library versions, threads, CPU, device."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable, Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from pipeline.deep.frameworks import FRAMEWORKS

LIBRARIES = ("scikit-learn", "numpy", "scipy", "pandas", "pyarrow", "skops", "matplotlib")
OPTIONAL = ("optuna",)
"""Some results depend on these too, if installed."""


@cache
def environment(framework: str = "") -> Mapping[str, str]:
    """Versions of this worker, its libraries and Python; threads, CPU and device.  Constant within a process.

    With a framework of pipeline.deep.frameworks also its versions and device; this imports the framework.
    """
    device = FRAMEWORKS[framework].networks().device() if framework else "cpu"
    return {**versions(framework), "threads": _threads(), "device": device}


@cache
def versions(framework: str = "") -> Mapping[str, str]:
    """The part that is equal in all processes of a machine: versions and CPU.  Imports nothing."""
    names = ["tensorfleet-worker", *LIBRARIES]
    optional = [*OPTIONAL, *(FRAMEWORKS[framework].libraries if framework else ())]
    names += [name for name in optional if _version(name) != "unknown"]
    return {**{name: _version(name) for name in names}, "python": platform.python_version(), "cpu": _cpu()}


def requirements(names: Iterable[str] = ("scikit-learn", "skops", "numpy", "pandas")) -> list[str]:
    """Pinned requirements of a model, one per line; a package without a known version is not pinned.

    A name may have extras in brackets.
    """
    found = environment()
    versions = {name: found.get(name.partition("[")[0], "unknown") for name in names}
    return [f"{name}=={version}" if version != "unknown" else name for name, version in versions.items()]


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "unknown"


def _threads() -> str:
    """The threads of BLAS and OpenMP, which the parent sets for its trainers."""
    return os.environ.get("OMP_NUM_THREADS") or str(os.cpu_count() or 1)


def _cpu() -> str:
    """Architecture and model, by which BLAS chooses its kernels."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return f"{platform.machine()} {line.partition(':')[2].strip()}"
    return f"{platform.machine()} {platform.processor()}".strip()
