"""Finds how much CPU and memory, and which GPUs, this process may use."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path


def available_cpus() -> int:
    """CPUs this process may use: its affinity, within its cgroup's quota (version 2)."""
    cpus = len(os.sched_getaffinity(0))
    for quota, period in (text.split() for text in _cgroup_limits("cpu.max")):
        cpus = min(cpus, max(1, int(quota) // int(period)))
    return cpus


def available_memory_bytes() -> int:
    """Memory this process may use: the machine's, within its cgroup's limit (version 2)."""
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min([machine, *(int(text) for text in _cgroup_limits("memory.max"))])


def gpus(environment: Mapping[str, str] = os.environ, cards: Path = Path("/proc/driver/nvidia/gpus")) -> list[str]:
    """The names, as in CUDA_VISIBLE_DEVICES, of the GPUs that this process may use; NVIDIA's driver lists `cards`."""
    allowed = environment.get("CUDA_VISIBLE_DEVICES")
    if allowed is not None:
        return [gpu.strip() for gpu in allowed.split(",") if gpu.strip()]
    return [str(number) for number in range(len(list(cards.iterdir())) if cards.is_dir() else 0)]


def _cgroup_limits(name: str, root: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> list[str]:
    """The limits set on this process's cgroup and its ancestors; the lowest applies."""
    try:
        path = next(line[3:].strip("/") for line in own.read_text().splitlines() if line.startswith("0::"))
    except (OSError, StopIteration):
        return []
    groups = [root / path, *(root / path).parents] if path else [root]
    files = [group / name for group in groups if group.is_relative_to(root)]
    texts = [file.read_text().strip() for file in files if file.is_file()]
    return [text for text in texts if not text.startswith("max")]
