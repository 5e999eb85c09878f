"""Reads files of rows (CSV, Parquet, JSON lines, Feather, workbooks) as tables with types, notations and notes."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePath
from tempfile import TemporaryDirectory
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.feather as feather
import pyarrow.parquet as pq

from pipeline.errors import RejectedError, said_by
from pipeline.reading.csv_files import read_csv
from pipeline.reading.encodings import encoding_of, in_utf8, is_utf8_beyond_ascii
from pipeline.reading.notes import Note
from pipeline.reading.options import NOTHING_SAID, ReadOptions
from pipeline.reading.rows import table_of
from pipeline.reading.tables import Chunk, check_column_count, whole
from pipeline.reading.told import is_text
from pipeline.reading.typed import as_read, with_types
from pipeline.reading.unpacking import check_size, unpacked
from pipeline.reading.workbooks import is_workbook, read_sheet

BOM = b"\xef\xbb\xbf"
"""Windows programs write it before UTF-8."""
JSON_SUFFIXES = (".jsonl", ".ndjson", ".json")
OF_OTHERS = {
    **{".dta": "Stata", ".sav": "SPSS", ".sas7bdat": "SAS", ".xpt": "SAS", ".arff": "Weka", ".rds": "R", ".rda": "R"},
    **{".rdata": "R", ".pkl": "pickle", ".pickle": "pickle", ".h5": "HDF5", ".hdf5": "HDF5", ".npy": "NumPy"},
    **{".npz": "NumPy", ".mat": "MATLAB", ".orc": "ORC", ".avro": "Avro"},
}
"""What else keeps rows, by the ending of the file's name."""
CSV_SUFFIXES = (".csv", ".tsv", ".txt")
PART_BYTES = 1024 * 1024
BATCH_ROWS = 1_000_000
LENGTH_BYTES = 4
"""What Parquet writes before each text that it does not keep once."""
LARGEST_OBJECT_BYTES = 64 * 1024 * 1024
"""A larger file that is no JSON lines is not tried as one object."""
NAN = re.compile(rb"(?<=[:\[,\s])(NaN|-?Infinity)(?=[,\]}\s])")
"""What Python's json.dumps writes for numbers that JSON does not have."""
_GUESS = {"cp1252": ", which is a guess: where letters are wrong, say --encoding"}


def read_table(
    path: Path,
    file_name: str,
    max_bytes: int | None = None,
    options: ReadOptions = NOTHING_SAID,
    *,
    is_typed: bool = False,
) -> pa.Table:
    """The rows of a file; the first bytes, then the name, tell the format.

    `is_typed` says that the types of a Parquet file are final; else its columns of text are read as those of CSV are.
    Raises RejectedError that says where the file is wrong, or if its rows would take more than max_bytes.
    """
    with TemporaryDirectory(prefix="tensorfleet-") as folder:
        path, file_name, notes = unpacked(path, file_name, Path(folder, "unpacked"), max_bytes)
        if is_workbook(path):
            rows, more = read_sheet(path, options)
            return with_types(table_of(rows, max_bytes), [*notes, *more], options)
        beginning = _beginning(path)
        if not beginning:
            raise RejectedError("the file is empty")
        name = file_name.lower()
        if other := OF_OTHERS.get(PurePath(name).suffix):
            raise RejectedError(f"the file is {other}'s; save it as CSV or Parquet")
        if beginning.startswith(b"PAR1"):
            table = _parquet(path, max_bytes)
            return table if is_typed else with_types(table, notes, options)
        if beginning.startswith(b"ARROW1"):
            return with_types(_feather(path, max_bytes), notes, options)
        encoding = options.encoding or encoding_of(path)
        if not options.encoding and encoding not in ("utf-8", "utf-8-sig"):
            notes.append(Note("", f"the file is read as {encoding}{_GUESS.get(encoding, '')}"))
        if options.encoding and not options.encoding.lower().startswith("utf") and is_utf8_beyond_ascii(path):
            notes.append(
                Note("", f"the file is read as {encoding}, as told, and could be UTF-8; --forget, or --encoding")
            )
        if options.encoding or encoding != "utf-8":
            path = in_utf8(path, encoding, Path(folder, "utf-8"))
        beginning = _beginning(path)
        if name.endswith(JSON_SUFFIXES) or (not name.endswith(CSV_SUFFIXES) and beginning[:1] in (b"{", b"[")):
            objects = _list(path) if beginning.startswith(b"[") else _lines(path)
            return with_types(table_of(objects, max_bytes), notes, options)
        columns, names, more = read_csv(path, options, Path(folder, "tabs"))
        return as_read(columns, names, [*notes, *more], options)


def _beginning(path: Path) -> bytes:
    """The first bytes that are not blank."""
    with path.open("rb") as file:
        while part := file.read(PART_BYTES):
            if not part.isspace():
                return part.removeprefix(BOM).lstrip()[:64]
    return b""


def _parquet(path: Path, max_bytes: int | None) -> pa.Table:
    """Reads batch by batch, since a few bytes of Parquet may hold any number of equal values."""
    with _mapped(path, "Parquet") as source:
        file = pq.ParquetFile(source)
        check_column_count(len(file.schema_arrow))
        if not len(file.schema_arrow):
            raise RejectedError("it has no columns")
        file = pq.ParquetFile(source, metadata=file.metadata, read_dictionary=_repeating(file))
        batches, size = [], 0
        for batch in file.iter_batches(BATCH_ROWS, use_threads=False):
            batches.append(batch)
            size += batch.nbytes + sum(map(_spread_bytes, batch.columns))
            check_size(size, max_bytes)
        table = pa.Table.from_batches(batches, file.schema_arrow)
        columns, schema = table.columns, table.schema
        del batches, batch, table
        return whole(columns, schema)


def _repeating(file: pq.ParquetFile) -> list[str]:
    """The columns of text of which the file keeps each different value once; to read them so is much faster."""
    if not file.metadata.num_row_groups:
        return []
    first, found = file.metadata.row_group(0), []
    texts = {field.name for field in file.schema_arrow if is_text(field.type)}
    for place in range(first.num_columns):
        column = first.column(place)
        if column.path_in_schema in texts and column.total_uncompressed_size < LENGTH_BYTES * first.num_rows:
            found.append(column.path_in_schema)
    return found


def _spread_bytes(column: Chunk) -> int:
    """How much a column takes whose different values are kept once, when each row has its own."""
    if not pa.types.is_dictionary(column.type) or not is_text(column.type):
        return 0
    lengths: Any = pc.binary_length(column.dictionary)
    return pc.sum(lengths.take(column.indices)).as_py() or 0


def _feather(path: Path, max_bytes: int | None) -> pa.Table:
    with _mapped(path, "Feather") as source:
        table = feather.read_table(source)
    check_column_count(table.num_columns)
    check_size(table.nbytes, max_bytes)
    return table


@contextmanager
def _mapped(path: Path, format_name: str) -> Iterator[Any]:
    """The file's bytes; errors about the data become a RejectedError."""
    try:
        with pa.memory_map(str(path)) as source:
            yield source
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:  # the machine's error, not Arrow's about the data
            raise
        raise RejectedError(f"the {format_name} file cannot be read: {said_by(error)}") from error


def _lines(path: Path) -> Iterator[Mapping[str, Any]]:
    with path.open("rb") as file:
        lines = enumerate((part.removeprefix(BOM) for line in file for part in line.splitlines()), 1)
        rows = (_parsed(line, f"line {number}") for number, line in lines if line.strip())
        try:
            yield from _objects(rows, "object")
        except RejectedError as error:
            if _is_one_object(path):
                raise RejectedError("the file is one JSON object; a list of objects, or one a line, is read") from error
            raise


def _is_one_object(path: Path) -> bool:
    if path.stat().st_size > LARGEST_OBJECT_BYTES:
        return False
    try:
        return isinstance(orjson.loads(path.read_bytes().removeprefix(BOM)), dict)
    except orjson.JSONDecodeError:
        return False


def _list(path: Path) -> Iterator[Mapping[str, Any]]:
    yield from _objects(_parsed(path.read_bytes().removeprefix(BOM), "the file"), "element")


def _objects(rows: Iterable[Any], place: str) -> Iterator[Mapping[str, Any]]:
    for number, row in enumerate(rows, 1):
        if not isinstance(row, dict):
            raise RejectedError(f"{place} {number} of the JSON is not an object of column names and values")
        yield row


def _parsed(text: bytes, place: str) -> Any:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as error:
        if str(error).startswith("Not enough memory"):
            raise MemoryError from error
        if NAN.search(text):
            return _with_nan(text, place)
        raise RejectedError(f"{place} is not valid JSON: {error}") from error


def _with_nan(text: bytes, place: str) -> Any:
    """As Python writes numbers that are none; they count as missing."""
    try:
        return json.loads(text, parse_constant=lambda _: None)
    except (ValueError, RecursionError) as error:
        raise RejectedError(f"{place} is not valid JSON: {error}") from error
