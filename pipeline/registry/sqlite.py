"""The registry in one SQLite file, for a single machine."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path

import orjson

from pipeline.databases.sqlite import SqliteFile
from pipeline.jobs import Outcome, RegisteredModel
from pipeline.registry import NO_TAGS, Usage
from pipeline.registry.not_found import no_such_model, no_such_version, only_archived

EPOCH = datetime.fromtimestamp(0, UTC)
MOMENTS = ("created_at", "archived_at")
NOT_ARCHIVED = "json_extract(document, '$.archived_at') IS NULL"

SCHEMA = """
CREATE TABLE IF NOT EXISTS model_registry (
    request_id TEXT PRIMARY KEY,
    project TEXT NOT NULL,
    model_name TEXT NOT NULL,
    version_number INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    document TEXT NOT NULL,
    UNIQUE (project, model_name, version_number)
);
CREATE INDEX IF NOT EXISTS newest_models ON model_registry (created_at DESC);
CREATE INDEX IF NOT EXISTS reusable_models
    ON model_registry (project, json_extract(document, '$.reuse_key'), created_at DESC, version_number DESC);
"""


class SqliteRegistry:
    """Implements pipeline.registry.Registry; safe for several threads and processes."""

    def __init__(self, path: Path, *, timeout_s: float = 5.0) -> None:
        self._file = SqliteFile(path, timeout_s)

    def disconnect(self) -> None:
        self._file.close()

    def prepare(self) -> None:
        with self._file.writing() as db:
            for statement in SCHEMA.split(";"):
                db.execute(statement)

    def register(self, outcomes: Sequence[Outcome]) -> Mapping[str, RegisteredModel]:
        with self._file.writing() as db:
            standing = _find(db, [outcome.request_id for outcome in outcomes])
            for outcome in outcomes:
                if outcome.request_id not in standing:
                    standing[outcome.request_id] = _insert_next(db, outcome)
        return standing

    def find(self, request_ids: Collection[str]) -> Mapping[str, RegisteredModel]:
        with self._file.reading() as db:
            return _find(db, request_ids)

    def get(self, project: str, model_name: str, version_number: int | None = None) -> RegisteredModel:
        with self._file.reading() as db:
            return _get(db, project, model_name, version_number)

    def list(
        self,
        *,
        project: str | None = None,
        model_name: str | None = None,
        dataset_name: str | None = None,
        tags: Mapping[str, str] = NO_TAGS,
        archived: bool = False,
        limit: int = 100,
    ) -> Sequence[RegisteredModel]:
        with self._file.reading() as db:
            rows = db.execute(
                "SELECT document FROM model_registry WHERE (:project IS NULL OR project = :project)"
                " AND (:model_name IS NULL OR model_name = :model_name)"
                " AND (:dataset IS NULL OR json_extract(document, '$.dataset_name') = :dataset)"
                f" AND (:archived OR {NOT_ARCHIVED})"
                " ORDER BY created_at DESC, version_number DESC, request_id",
                {"project": project, "model_name": model_name, "dataset": dataset_name, "archived": archived},
            )
            found = (_read(document) for (document,) in rows)
            return list(islice((one for one in found if tags.items() <= one.model.tags.items()), limit))

    def archive(
        self, project: str, model_name: str, version_number: int, archived_at: datetime | None
    ) -> RegisteredModel:
        with self._file.writing() as db:
            standing = _get(db, project, model_name, version_number)
            if standing.archived_at is not None and archived_at is not None:
                return standing
            changed = replace(standing, archived_at=archived_at)
            db.execute(
                "UPDATE model_registry SET document = ? WHERE request_id = ?", (_write(changed), standing.request_id)
            )
        return changed

    def same(self, project: str, reuse_key: str) -> RegisteredModel | None:
        with self._file.reading() as db:
            row = db.execute(
                "SELECT document FROM model_registry WHERE project = ? AND json_extract(document, '$.reuse_key') = ?"
                f" AND {NOT_ARCHIVED} AND ? != '' ORDER BY created_at DESC, version_number DESC LIMIT 1",
                (project, reuse_key, reuse_key),
            ).fetchone()
        return None if row is None else _read(row[0])

    def usage(self, project: str) -> Usage:
        with self._file.reading() as db:
            row = db.execute(
                "SELECT count(*), coalesce(sum(json_extract(document, '$.artifact_bytes')), 0) FROM model_registry"
                f" WHERE project = ? AND {NOT_ARCHIVED}",
                (project,),
            ).fetchone()
        return Usage(*row)

    def count(self) -> int:
        with self._file.reading() as db:
            (count,) = db.execute("SELECT count(*) FROM model_registry").fetchone()
        return int(count)


def _insert_next(db: sqlite3.Connection, outcome: Outcome) -> RegisteredModel:
    first = RegisteredModel.of(outcome, 1)
    model = first.model
    version = 1 + _highest(db, model.project, model.model_name)
    registered = replace(first, version_number=version)
    created_at, document = _milliseconds(model.created_at), _write(registered)
    row = (registered.request_id, model.project, model.model_name, version, created_at, document)
    db.execute("INSERT INTO model_registry VALUES (?, ?, ?, ?, ?, ?)", row)
    return registered


def _get(db: sqlite3.Connection, project: str, model_name: str, version_number: int | None) -> RegisteredModel:
    highest = _highest(db, project, model_name)
    if highest == 0:
        names = db.execute("SELECT DISTINCT model_name FROM model_registry WHERE project = ?", (project,))
        raise no_such_model(project, model_name, [name for (name,) in names])
    which = NOT_ARCHIVED if version_number is None else "version_number = :version"
    row = db.execute(
        f"SELECT document FROM model_registry WHERE project = :project AND model_name = :model_name AND {which}"
        " ORDER BY version_number DESC LIMIT 1",
        {"project": project, "model_name": model_name, "version": version_number},
    ).fetchone()
    if row is not None:
        return _read(row[0])
    if version_number is None:
        raise only_archived(project, model_name, highest)
    raise no_such_version(project, model_name, version_number, highest)


def _highest(db: sqlite3.Connection, project: str, model_name: str) -> int:
    (highest,) = db.execute(
        "SELECT coalesce(max(version_number), 0) FROM model_registry WHERE project = ? AND model_name = ?",
        (project, model_name),
    ).fetchone()
    return int(highest)


def _find(db: sqlite3.Connection, request_ids: Collection[str]) -> dict[str, RegisteredModel]:
    found = {}
    for request_id in request_ids:
        for (document,) in db.execute("SELECT document FROM model_registry WHERE request_id = ?", (request_id,)):
            found[request_id] = _read(document)
    return found


def _milliseconds(moment: datetime) -> int:
    return (moment - EPOCH) // timedelta(milliseconds=1)


def _write(registered: RegisteredModel) -> str:
    document = registered.to_document()
    for name in MOMENTS:
        document[name] = None if document[name] is None else _milliseconds(document[name])
    return orjson.dumps(document).decode()


def _read(text: str) -> RegisteredModel:
    document = orjson.loads(text)
    for name in MOMENTS:
        at = document.get(name)
        document[name] = None if at is None else EPOCH + timedelta(milliseconds=at)
    return RegisteredModel.from_document(document)
