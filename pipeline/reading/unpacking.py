"""Unpacks what is compressed: gzip, bzip2, xz, or a zip archive of one file."""

from __future__ import annotations

import bz2
import gzip
import lzma
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath
from typing import IO, Any
from zipfile import BadZipFile, ZipFile

from pipeline.errors import RejectedError, said_by
from pipeline.reading.notes import Note
from pipeline.reading.workbooks import is_workbook

ZIP = b"PK\x03\x04"
OF_ONE_FILE: Mapping[bytes, tuple[str, str, Callable[..., Any]]] = {
    b"\x1f\x8b": ("gzip", ".gz", gzip.open),
    b"BZh": ("bzip2", ".bz2", bz2.open),
    b"\xfd7zX": ("xz", ".xz", lzma.open),
}
"""By their first bytes: name, ending of a file's name, and how it is opened."""
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
        for beginning, (name, ending, opened) in OF_ONE_FILE.items():
            if magic.startswith(beginning):
                with opened(path) as packed:
                    _copy(packed, into, max_bytes)
                return into, file_name.removesuffix(ending), [Note("", f"the file is unpacked ({name})")]
        if magic == ZIP and not is_workbook(path):
            with ZipFile(path) as archive:
                names = [one.filename for one in archive.infolist() if not one.is_dir()]
                names = [name for name in names if not name.startswith(RESOURCES)]
                if len(names) != 1:
                    shown = ", ".join(names[:3]) or "none"
                    raise RejectedError(f"the zip archive holds {len(names):,} files ({shown}); it must hold one")
                with archive.open(names[0]) as packed:
                    _copy(packed, into, max_bytes)
            return into, PurePosixPath(names[0]).name, [Note("", f"{names[0]} is unpacked (zip)")]
    except OSError as error:
        if error.errno is not None:  # the machine's error, not one about the data
            raise
        raise RejectedError(f"the compressed file cannot be unpacked: {said_by(error)}") from error
    except (BadZipFile, zlib.error, lzma.LZMAError, EOFError, NotImplementedError, RuntimeError) as error:
        raise RejectedError(f"the compressed file cannot be unpacked: {said_by(error)}") from error
    return path, file_name, []


def check_size(size_bytes: int, max_bytes: int | None) -> None:
    """Raises RejectedError if what was unpacked has more than max_bytes."""
    if max_bytes is not None and size_bytes > max_bytes:
        raise RejectedError(f"unpacked it has more bytes than the dataset cache of {max_bytes:,} bytes")


def _copy(packed: IO[bytes], into: Path, max_bytes: int | None) -> None:
    size = 0
    with into.open("wb") as file:
        while part := packed.read(PART_BYTES):
            size += len(part)
            check_size(size, max_bytes)
            file.write(part)
