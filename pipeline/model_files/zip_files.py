"""Writes zip files that are byte for byte the same each time, and reads only such files.

Other archives may be bombs (few bytes that unpack to many) or have entry names that are paths.
"""

from __future__ import annotations

import io
import re
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from zipfile import ZIP_STORED, BadZipFile, ZipFile, ZipInfo
from zlib import crc32

from pipeline.errors import CorruptArtifactError

MADE = (1980, 1, 1, 0, 0, 0)
"""The earliest date of a zip entry; a constant, so that time does not change the bytes."""
NAME = re.compile(r"(?!\.)[A-Za-z0-9._-]{1,100}")
UTF8 = 0x800
"""The flag that marks an entry's name as UTF-8."""
VERSION = 20
OWNER_READS_AND_WRITES = 0o600 << 16
MOST_SMALL, SMALL_BYTES = 60_000, 2**31 - 2**26
"""Entries and bytes up to which an archive needs none of zip's extensions; the rest is for headers."""

_ABOUT = struct.Struct("<HHHHHLLLHH")
"""Version, flags, compression, time, date, CRC, compressed size, size, length of the name and of nothing else."""
_CREATOR = struct.pack("<BB", VERSION, 3)  # on Unix
_PLACE = struct.Struct("<HHHLL")
_END = struct.Struct("<HHHHLLH")
_MADE = (0, 1 << 5 | 1)  # MADE as a time and a date of MS-DOS


def archive(members: Mapping[str, Any]) -> bytes:
    """A zip file of stored (uncompressed) entries; equal entries give equal bytes."""
    entries = [(name, one.encode() if isinstance(one, str) else one) for name, one in members.items()]
    if len(entries) <= MOST_SMALL and sum(len(data) for _, data in entries) <= SMALL_BYTES:
        return _small(entries)
    buffer = io.BytesIO()
    with ZipFile(buffer, "w", ZIP_STORED) as target:
        for name, data in entries:
            target.writestr(ZipInfo(name, MADE), data)
    return buffer.getvalue()


def _small(entries: Sequence[tuple[str, Any]]) -> bytes:
    """What ZipFile writes where sizes and places fit 32 bits.

    ZipFile takes 12 us an entry, and a forest has thousands.
    """
    parts: list[Any] = []
    directory: list[bytes] = []
    at = 0
    for text, data in entries:
        name = text.encode()
        flags = 0 if text.isascii() else UTF8
        about = _ABOUT.pack(VERSION, flags, ZIP_STORED, *_MADE, crc32(data), len(data), len(data), len(name), 0)
        directory += (b"PK\1\2", _CREATOR, about, _PLACE.pack(0, 0, 0, OWNER_READS_AND_WRITES, at), name)
        parts += (b"PK\3\4", about, name, data)
        at += 4 + len(about) + len(name) + len(data)
    listed = b"".join(directory)
    return b"".join((*parts, listed, b"PK\5\6", _END.pack(0, 0, len(entries), len(entries), len(listed), at, 0)))


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
