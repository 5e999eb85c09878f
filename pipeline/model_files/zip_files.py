"""Writes zip files that are byte for byte the same each time, and reads only such files.

Other archives may be bombs (few bytes that unpack to many) or have entry names that are paths.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from zipfile import ZIP_STORED, BadZipFile, ZipFile, ZipInfo

from pipeline.errors import CorruptArtifactError

MADE = (1980, 1, 1, 0, 0, 0)
"""The earliest date of a zip entry; a constant, so that time does not change the bytes."""
NAME = re.compile(r"(?!\.)[A-Za-z0-9._-]{1,100}")
UTF8 = 0x800
"""The flag that marks an entry's name as UTF-8."""


def archive(members: Mapping[str, Any]) -> bytes:
    """A zip file of stored (uncompressed) entries; equal entries give equal bytes."""
    buffer = io.BytesIO()
    with ZipFile(buffer, "w", ZIP_STORED) as target:
        for name, content in members.items():
            target.writestr(ZipInfo(name, MADE), content)
    return buffer.getvalue()


def uncompressed(data: bytes) -> bytes:
    """Rewrite a zip file of another library as `archive` would write it."""
    with ZipFile(io.BytesIO(data)) as source:
        return archive({name: source.read(name) for name in source.namelist()})


def unpacked(data: bytes) -> dict[str, bytes]:
    """The entries of a zip file that `archive` wrote, by name.

    Raises CorruptArtifactError for any other archive: entries that are compressed, encrypted, overlapping or named
    twice, and names that are more than a plain file name.
    """
    try:
        with ZipFile(io.BytesIO(data)) as source:
            entries = source.infolist()
            _check(entries, len(data))
            return {entry.filename: source.read(entry) for entry in entries}
    except (BadZipFile, EOFError, OSError, ValueError, NotImplementedError) as wrong:
        raise CorruptArtifactError(f"is not a model file: {wrong}") from wrong


def unpack(data: bytes, directory: Path) -> None:
    """Write the entries into a directory, created if needed.  Raises CorruptArtifactError before it writes anything."""
    members = unpacked(data)
    directory.mkdir(parents=True, exist_ok=True)
    for name, content in members.items():
        (directory / name).write_bytes(content)


def packed(directory: Path) -> bytes:
    """Archive the files in a directory whose names `unpack` could have written."""
    files = (path for path in sorted(directory.iterdir()) if path.is_file() and NAME.fullmatch(path.name))
    return archive({path.name: path.read_bytes() for path in files})


def _check(entries: Sequence[ZipInfo], size_bytes: int) -> None:
    names = [entry.filename for entry in entries]
    for entry in entries:
        if not NAME.fullmatch(entry.filename):
            raise CorruptArtifactError(f"is not a model file: an entry is named {entry.filename[:100]!r}")
        if entry.compress_type != ZIP_STORED or entry.flag_bits & ~UTF8:
            raise CorruptArtifactError(f"is not a model file: its entry {entry.filename} is compressed or encrypted")
    if len(set(names)) < len(names):
        raise CorruptArtifactError("is not a model file: two of its entries have one name")
    if sum(entry.file_size for entry in entries) > size_bytes:
        raise CorruptArtifactError("is not a model file: its entries overlap")
