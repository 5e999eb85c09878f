"""Unpacks what is compressed: gzip, or a zip archive of one file."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path, PurePosixPath
from typing import IO
from zipfile import BadZipFile, ZipFile

from pipeline.errors import RejectedError, said_by
from pipeline.reading.notes import Note
from pipeline.reading.workbooks import is_workbook

GZIP, ZIP = b"\x1f\x8b", b"PK\x03\x04"
PART_BYTES = 1024 * 1024
RESOURCES = ("__MACOSX/",)
"""What programs add to an archive beside its files."""


def unpacked(path: Path, file_name: str, into: Path, max_bytes: int | None) -> tuple[Path, str, list[Note]]:
    """The file, its name and a note; unpacked to `into` if it is compressed.

    Raises RejectedError if an archive holds several files, is damaged, or has more than max_bytes unpacked.
    """
    with path.open("rb") as file:
        magic = file.read(4)
    try:
        if magic.startswith(GZIP):
            with gzip.open(path) as packed:
                _copy(packed, into, max_bytes)
            inner = file_name.removesuffix(".gz")
            return into, inner, [Note("", "the file is unpacked (gzip)")]
        if magic == ZIP and not is_workbook(path):
            with ZipFile(path) as archive:
                names = [one.filename for one in archive.infolist() if not one.is_dir()]
                names = [name for name in names if not name.startswith(RESOURCES)]
                if len(names) != 1:
                    shown = ", ".join(names[:3]) or "none"
                    raise RejectedError(f"the zip archive holds {len(names):,} files ({shown}); one is read")
                with archive.open(names[0]) as packed:
                    _copy(packed, into, max_bytes)
            return into, PurePosixPath(names[0]).name, [Note("", f"{names[0]} is unpacked (zip)")]
    except (BadZipFile, gzip.BadGzipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise RejectedError(f"the compressed file cannot be unpacked: {said_by(error)}") from error
    return path, file_name, []


def check_size(size_bytes: int, max_bytes: int | None) -> None:
    """Raises RejectedError if what was unpacked has more than max_bytes."""
    if max_bytes is not None and size_bytes > max_bytes:
        raise RejectedError(f"unpacked it has more bytes than the dataset cache of {max_bytes:,} bytes")


def _copy(packed: IO[bytes] | gzip.GzipFile, into: Path, max_bytes: int | None) -> None:
    size = 0
    with into.open("wb") as file:
        while part := packed.read(PART_BYTES):
            size += len(part)
            check_size(size, max_bytes)
            file.write(part)
