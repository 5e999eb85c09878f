"""Checks free space where trainings write; a full disk counts as a service that does not answer."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from pipeline.errors import TransientError

SERVICE = "disk"
LEAST_BYTES = 16 * 2**20
"""With less free space than this a disk counts as full."""


def has_room(folder: Path, wanted_bytes: int) -> bool:
    """Whether `wanted_bytes`, and at least LEAST_BYTES, are free; half of the disk is always enough."""
    total, _, free = shutil.disk_usage(folder)
    return free >= min(max(wanted_bytes, LEAST_BYTES), total // 2)


def check_room(folder: Path, wanted_bytes: int) -> None:
    """Raises TransientError unless `has_room`."""
    if not has_room(folder, wanted_bytes):
        raise TransientError(SERVICE, f"{folder} has no room for a training that needs {wanted_bytes:,} bytes")


def size_bytes(folder: Path) -> int:
    """The disk space that the files in a folder take."""
    return sum(path.lstat().st_blocks * 512 for path in folder.rglob("*"))


def moved(files: Sequence[Path], folder: Path) -> Path | None:
    """Move files to a new folder on the same disk; None if there is no room even for that."""
    try:
        folder.mkdir()
        for path in files:
            path.replace(folder / path.name)
    except OSError:
        remove(folder)
        return None
    return folder


def remove(folder: Path | None) -> None:
    """Remove a folder with its content, as far as possible."""
    if folder is not None:
        shutil.rmtree(folder, ignore_errors=True)
