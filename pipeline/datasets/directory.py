"""Datasets as files of a directory, for one machine and no servers."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any
from uuid import uuid4

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.datasets import DatasetSummary, Loaded
from pipeline.datasets.files import parquet_of, read_table
from pipeline.datasets.names import check_free, check_name, unknown
from pipeline.datasets.tables import about, canonical, check_target, profile
from pipeline.errors import RejectedError, TransientError
from pipeline.jobs import NAME

SUFFIXES = (".parquet", ".csv", ".tsv", ".jsonl", ".ndjson")  # the first one that exists is the dataset
SIDECAR = ".json"
METADATA = b"tensorfleet"  # of a Parquet file that add() wrote: its target column and profile
PROFILED_BYTES = 16 * 1024 * 1024


class DirectorySource:
    """`root/name.csv` (or .parquet, .tsv, .jsonl, .ndjson); a file `name.json` beside it may say {"target_column": …}.

    A dataset that `add` has stored is one Parquet file that holds its target too, so that it is replaced in one step.
    """

    def __init__(self, root: Path, max_bytes: int | None = None) -> None:
        self._root = root
        self._max_bytes = max_bytes

    def revision(self, name: str) -> str | None:
        with _disk():
            return _revision(self._file(name))

    def load(self, name: str) -> Loaded:
        with _disk():
            file = self._file(name)
            revision = _revision(file)  # before the content: a change between the two is read again by the next job
            with about(name):
                table = read_table(file.read_bytes(), file.name, self._max_bytes)
                return Loaded(table, _described(file).get("target_column"), revision)

    def list(self) -> Sequence[DatasetSummary]:
        with _disk():
            return [self._summary(name) for name in self._names()]

    def add(self, name: str, table: pa.Table, target_column: str | None) -> None:
        check_free(name)
        with about(name):
            table = canonical(table)
            check_target(table, target_column)
        own = {"target_column": target_column, "profile": asdict(profile(table, target_column))}
        content = parquet_of(table.replace_schema_metadata({METADATA: orjson.dumps(own)}))
        with _disk():
            self._root.mkdir(parents=True, exist_ok=True)
            _replace(self._root / f"{name}.parquet", content)
            for suffix in (*SUFFIXES[1:], SIDECAR):
                (self._root / f"{name}{suffix}").unlink(missing_ok=True)

    def _file(self, name: str) -> Path:
        check_name(name)
        for suffix in SUFFIXES:
            if (file := self._root / f"{name}{suffix}").is_file():
                return file
        raise unknown(name, self._names())

    def _names(self) -> Sequence[str]:
        if not self._root.is_dir():
            return []
        return sorted(
            {file.stem for file in self._root.iterdir() if file.suffix in SUFFIXES and NAME.fullmatch(file.stem)}
        )

    def _summary(self, name: str) -> DatasetSummary:
        """What `add` has stored, else what a small file tells."""
        file = self._file(name)
        target = None
        with suppress(RejectedError, pa.ArrowException):
            described = _described(file)
            if "profile" in described:
                return DatasetSummary(name, **described["profile"], source="directory")
            target = described.get("target_column")
            if file.stat().st_size <= PROFILED_BYTES:
                return DatasetSummary(name, **asdict(profile(self.load(name).table, target)), source="directory")
        return DatasetSummary(name, None, None, target, None, "directory")


def _revision(file: Path) -> str:
    found = file.stat()
    revision = f"{file.absolute()} {found.st_ino} {found.st_mtime_ns} {found.st_size}"
    with suppress(FileNotFoundError):
        beside = file.with_suffix(SIDECAR).stat()
        revision += f" {beside.st_ino} {beside.st_mtime_ns} {beside.st_size}"
    return revision


def _described(file: Path) -> Mapping[str, Any]:
    """What the file says about itself, if `add` wrote it, else what the one beside it says."""
    if file.suffix == ".parquet":
        own = (pq.read_schema(file).metadata or {}).get(METADATA)
        if own is not None:
            return dict(orjson.loads(own))
    sidecar = file.with_suffix(SIDECAR)
    if not sidecar.exists():
        return {}
    try:
        described = orjson.loads(sidecar.read_bytes())
    except orjson.JSONDecodeError as error:
        raise RejectedError(f"{sidecar.name} is no JSON: {error}") from error
    if not isinstance(described, dict) or not isinstance(described.get("target_column"), str | None):
        raise RejectedError(f'{sidecar.name} is not of the form {{"target_column": "…"}}')
    return {"target_column": described.get("target_column")}


def _replace(file: Path, content: bytes) -> None:
    """All of it or nothing, also if the power fails."""
    incoming = file.with_name(f".{uuid4().hex}")
    try:
        with incoming.open("xb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        incoming.replace(file)
    finally:
        incoming.unlink(missing_ok=True)


@contextmanager
def _disk() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise TransientError("dataset directory", error.strerror or type(error).__name__) from error
