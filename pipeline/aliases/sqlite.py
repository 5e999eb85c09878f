"""Aliases in one SQLite file, for a single machine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

import orjson

from pipeline.aliases import Alias, AliasChange, AliasChangeReason
from pipeline.databases.sqlite import SqliteFile

SCHEMA = """
CREATE TABLE IF NOT EXISTS model_aliases (
    project TEXT NOT NULL,
    model_name TEXT NOT NULL,
    alias TEXT NOT NULL,
    sequence INTEGER NOT NULL,
    announced_sequence INTEGER NOT NULL,
    history TEXT NOT NULL,
    PRIMARY KEY (project, model_name, alias)
)
"""
COLUMNS = "SELECT project, model_name, alias, history, announced_sequence FROM model_aliases"
NAMED = "project = ? AND model_name = ? AND alias = ?"


class SqliteAliases:
    """Implements pipeline.aliases.AliasStore; safe for several threads and processes."""

    def __init__(self, path: Path, *, timeout_s: float = 5.0) -> None:
        self._file = SqliteFile(path, timeout_s)

    def disconnect(self) -> None:
        self._file.close()

    def prepare(self) -> None:
        with self._file.writing() as db:
            db.execute(SCHEMA)

    def get(self, project: str, model_name: str, alias: str) -> Alias | None:
        found = self._select(f"WHERE {NAMED}", project, model_name, alias)
        return found[0] if found else None

    def list(self, *, project: str | None = None, model_name: str | None = None) -> Sequence[Alias]:
        return self._select(
            "WHERE (?1 IS NULL OR project = ?1) AND (?2 IS NULL OR model_name = ?2)"
            " ORDER BY project, model_name, alias",
            project,
            model_name,
        )

    def change(self, project: str, model_name: str, alias: str, change: AliasChange) -> Alias | None:
        names = (project, model_name, alias)
        with self._file.writing() as db:
            row = db.execute(f"{COLUMNS} WHERE {NAMED}", names).fetchone()
            found = None if row is None else _alias(row)
            if found is not None and change in found.history:
                return found
            if change.sequence != (0 if found is None else found.sequence) + 1:
                return None
            history = (*(() if found is None else found.history), change)
            db.execute(
                "INSERT INTO model_aliases VALUES (?, ?, ?, ?, 0, ?) ON CONFLICT DO UPDATE"
                " SET sequence = excluded.sequence, history = excluded.history",
                (*names, change.sequence, orjson.dumps([asdict(one) for one in history]).decode()),
            )
        return Alias(*names, history, 0 if found is None else found.announced_sequence)

    def unannounced(self) -> Sequence[Alias]:
        return self._select("WHERE sequence > announced_sequence")

    def announced(self, alias: Alias) -> None:
        with self._file.writing() as db:
            db.execute(
                f"UPDATE model_aliases SET announced_sequence = max(announced_sequence, ?) WHERE {NAMED}",
                (alias.sequence, alias.project, alias.model_name, alias.alias),
            )

    def _select(self, condition: str, *values: str | None) -> Sequence[Alias]:
        with self._file.reading() as db:
            return [_alias(row) for row in db.execute(f"{COLUMNS} {condition}", values)]


def _alias(row: Any) -> Alias:
    project, model_name, alias, history, announced = row
    return Alias(project, model_name, alias, tuple(_change(**one) for one in orjson.loads(history)), announced)


def _change(reason: str, occurred_at: str, **rest: Any) -> AliasChange:
    return AliasChange(reason=AliasChangeReason(reason), occurred_at=datetime.fromisoformat(occurred_at), **rest)
