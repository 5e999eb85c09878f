"""Parses the stored bytes of a dataset and writes its rows to an Arrow file in canonical form.

The bytes are a user's.  Parsing them may crash, hang or take all memory, so workers and commands do it in another
process.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, BinaryIO

import pyarrow as pa
from bson.errors import BSONError

from pipeline.datasets import Abandoned, Content, Fetched, Loaded, Read
from pipeline.datasets.sink import Sink
from pipeline.errors import RejectedError, said_by
from pipeline.reading.files import read_table
from pipeline.reading.notes import NOTES
from pipeline.reading.options import NOTHING_SAID
from pipeline.reading.parts import read_parts
from pipeline.reading.rows import decoded, table_of
from pipeline.reading.tables import about, canonical, fingerprint, last_target, whole
from pipeline.reading.typed import with_types

log = logging.getLogger(__name__)

VERSION = 6
"""Raise it when the same bytes are to give another result: caches then read everything again."""
LARGEST_DOCUMENT_BYTES = 17 * 2**20
"""MongoDB stores no document above 16 MiB."""
SHOWN_NAME = 80
SHOWN_WHY = 300


def read(fetched: Fetched, into: Path, max_bytes: int | None, abandoned: Abandoned | None = None) -> Content:
    """Read in this process, see `pipeline.datasets.Read`; `abandoned` is ignored.

    Raises MemoryError if memory does not suffice.
    """
    with about(fetched.name), _only_rejections(shown(fetched)):
        table = whole(*_columns(fetched, max_bytes))
        size_bytes = _size_bytes(table)
        digest = fingerprint(table)
        content = Content(
            digest, size_bytes, table.num_rows, table.num_columns, last_target(table), _key(digest, table)
        )
        if max_bytes is not None and size_bytes > max_bytes:
            raise RejectedError(f"it takes {size_bytes:,} bytes, more than the dataset cache of {max_bytes:,} bytes")
    with into.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, size_bytes)
        _write(table, file)
    return content


def load(fetch: Callable[[Sink], Fetched], read: Read, max_bytes: int | None) -> Loaded:
    """Fetch a dataset and read it."""
    with TemporaryDirectory(prefix="tensorfleet-") as folder:
        with Sink(Path(folder, "fetched"), max_bytes) as sink:
            fetched = fetch(sink)
        return loaded(fetched, read, max_bytes)


def loaded(fetched: Fetched, read: Read, max_bytes: int | None) -> Loaded:
    """Read fetched bytes; the table is mapped from a file whose folder is already deleted."""
    with TemporaryDirectory(prefix="tensorfleet-") as folder:
        into = Path(folder, "rows.arrow")
        content = read(fetched, into, max_bytes)
        with pa.memory_map(str(into)) as source, pa.ipc.open_file(source) as reader:
            return Loaded(reader.read_all(), fetched.target_column, fetched.revision, content.fingerprint)


def shown(fetched: Fetched) -> str:
    """Names the bytes in a message, with their size."""
    size = f"({fetched.path.stat().st_size:,} bytes)"
    if fetched.file_name is None:
        return f"its collection {size}"
    if fetched.is_archive:
        return f"its Parquet at {fetched.file_name} {size}"
    return f"its file {Path(fetched.file_name).name[:SHOWN_NAME]} {size}"


def _columns(fetched: Fetched, max_bytes: int | None) -> tuple[list[Any], pa.Schema]:
    table = _table(fetched, max_bytes)
    with _only_rejections(shown(fetched), lambda: _guilty_column(table)):
        table = canonical(table)
    return table.columns, table.schema


def _table(fetched: Fetched, max_bytes: int | None) -> pa.Table:
    if fetched.is_archive:
        return read_parts(fetched.path, max_bytes, fetched.options)
    if fetched.file_name is not None:
        return read_table(fetched.path, fetched.file_name, max_bytes, fetched.options, is_typed=fetched.is_typed)
    with fetched.path.open("rb") as file:
        return with_types(table_of(decoded(_documents(file)), max_bytes), (), NOTHING_SAID)


def _documents(file: BinaryIO) -> Iterator[bytes]:
    """The bytes of each document of a collection."""
    number = 1
    while beginning := file.read(4):
        size = int.from_bytes(beginning, "little")
        if size > LARGEST_DOCUMENT_BYTES:
            raise RejectedError(f"document {number:,} cannot be read: it says that it has {size:,} bytes")
        yield beginning + file.read(max(0, size - 4))
        number += 1


@contextmanager
def _only_rejections(what: str, where: Callable[[], str] = str) -> Iterator[None]:
    """Turns every other exception into a RejectedError: be it a bug or an odd file, it fails only this dataset."""
    try:
        yield
    except RejectedError as error:
        if isinstance(error.__cause__, MemoryError):  # Arrow's MemoryError is one of its errors about data too
            raise error.__cause__ from None
        raise
    except MemoryError:
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno is not None:  # the disk's error, not Arrow's about the data
            raise
        log.warning("a dataset cannot be read", exc_info=True)
        raise RejectedError(f"{what} cannot be read{where()}: {_why(error)}") from error


def _why(error: Exception) -> str:
    """The library's message if it is about the data, else a general one."""
    if isinstance(error, pa.ArrowException | BSONError | OverflowError | OSError):
        return said_by(error).partition(" (Consider Using CodecOptions")[0][:SHOWN_WHY]
    if isinstance(error, RecursionError):
        return "its values are nested too deep"
    return "it holds values that no table can hold"


def _guilty_column(table: pa.Table) -> str:
    for name in table.column_names:
        try:
            canonical(table.select([name]))
        except RejectedError:
            pass
        except Exception:  # noqa: BLE001 - the same error as before
            return f" in column {name!r}"
    return ""


def _key(fingerprint: str, table: pa.Table) -> str:
    notes = (table.schema.metadata or {}).get(NOTES, b"[]")
    return fingerprint if notes == b"[]" else hashlib.sha256(fingerprint.encode() + notes).hexdigest()


def _size_bytes(table: pa.Table) -> int:
    counter = pa.MockOutputStream()
    _write(table, counter)
    return counter.size()


def _write(table: pa.Table, sink: Any) -> None:
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
