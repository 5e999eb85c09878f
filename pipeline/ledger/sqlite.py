"""The ledger in one SQLite file, for a single machine; all processes share the clock that is given.

prepare() deletes a request with its outcome once the outcome is older than `retention_s`, and a stub a week after its
cancel.  Unfinished claims are kept.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import orjson

from pipeline.databases.sqlite import SqliteFile
from pipeline.errors import SupersededError
from pipeline.jobs import Outcome
from pipeline.ledger import Cancel, Claim, Entry, Home, NewClaim, Owner, RequestRow

RETENTION_S = 90 * 86_400.0
STUB_S = 7 * 86_400.0
EPOCH = datetime.fromtimestamp(0, UTC)

SCHEMA = """
CREATE TABLE IF NOT EXISTS training_requests (
    request_id TEXT PRIMARY KEY,
    request_sha256 TEXT,
    topic TEXT, partition INTEGER, "offset" INTEGER,
    worker_id TEXT, boot INTEGER,
    claimed_at INTEGER,
    summary TEXT NOT NULL DEFAULT '{}',
    cancel TEXT, cancelled_at INTEGER,
    trainer_crashes INTEGER NOT NULL DEFAULT 0,
    worker_losses INTEGER NOT NULL DEFAULT 0,
    started_worker_id TEXT, started_boot INTEGER,
    closing TEXT
);
CREATE INDEX IF NOT EXISTS newest_requests ON training_requests (claimed_at DESC, request_id);
CREATE TABLE IF NOT EXISTS training_outcomes (
    request_id TEXT PRIMARY KEY,
    inserted_at INTEGER NOT NULL,
    document TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS oldest_outcomes ON training_outcomes (inserted_at);
CREATE TABLE IF NOT EXISTS workers (
    worker_id TEXT PRIMARY KEY,
    boot INTEGER NOT NULL,
    alive_until INTEGER NOT NULL
);
"""
CLAIMED = ("request_sha256", "topic", "partition", '"offset"', "worker_id", "boot", "claimed_at", "summary")
CLAIM = (
    'request_id, request_sha256, topic, partition, "offset", worker_id, boot, cancel, trainer_crashes, worker_losses,'
    " started_worker_id, started_boot, closing"
)
OWNED = "worker_id IS ? AND boot IS ?"


def now() -> datetime:
    return datetime.now(UTC)


class SqliteLedger:
    """Implements pipeline.ledger.Ledger; safe for several threads and processes."""

    def __init__(
        self,
        path: Path,
        clock: Callable[[], datetime] = now,
        *,
        retention_s: float = RETENTION_S,
        timeout_s: float = 5.0,
    ) -> None:
        self._file = SqliteFile(path, timeout_s)
        self._clock = clock
        self._retention_s = retention_s

    def disconnect(self) -> None:
        self._file.close()

    def prepare(self) -> None:
        with self._file.writing() as db:
            for statement in SCHEMA.split(";"):
                db.execute(statement)
            self._forget(db)

    def boot(self, worker_id: str) -> Owner:
        with self._file.writing() as db:
            (boot,) = db.execute(
                "INSERT INTO workers VALUES (?, 1, ?) ON CONFLICT (worker_id)"
                " DO UPDATE SET boot = boot + 1, alive_until = excluded.alive_until RETURNING boot",
                (worker_id, self._now()),
            ).fetchone()
        return Owner(worker_id, boot)

    def heartbeat(self, me: Owner, lease_s: float, watched: Collection[str]) -> Mapping[str, Cancel]:
        with self._file.writing() as db:
            written = db.execute(
                "INSERT INTO workers VALUES (?, ?, ?) ON CONFLICT (worker_id)"
                " DO UPDATE SET boot = excluded.boot, alive_until = excluded.alive_until WHERE boot <= excluded.boot",
                (me.worker_id, me.boot, self._now() + round(lease_s * 1000)),
            ).rowcount
            if not written:
                raise SupersededError(f"worker {me.worker_id} has a newer life than boot {me.boot}")
            rows = _select(db, "SELECT request_id, cancel FROM training_requests", watched)
            return {request_id: _read_cancel(cancel) for request_id, cancel in rows if cancel is not None}

    def leave(self, me: Owner) -> None:
        with self._file.writing() as db:
            db.execute(f"UPDATE workers SET alive_until = ? WHERE {OWNED}", (self._now(), *_key(me)))

    def claim(self, me: Owner, claims: Sequence[NewClaim]) -> frozenset[str]:
        statement = (
            f"INSERT INTO training_requests ({', '.join(CLAIMED)}, request_id)"
            f" VALUES ({', '.join('?' * len(CLAIMED))}, ?) ON CONFLICT DO NOTHING"
        )
        with self._file.writing() as db:
            values = [(*self._claimed(me, new), new.request_id) for new in claims]
            return frozenset(row[-1] for row in values if db.execute(statement, row).rowcount)

    def read(self, request_ids: Collection[str]) -> Mapping[str, Entry]:
        with self._file.reading() as db:
            claims = {row[0]: _claim(row) for row in _select(db, f"SELECT {CLAIM} FROM training_requests", request_ids)}
            outcomes = _outcomes(db, request_ids)
            now = self._now()
            rows = db.execute("SELECT worker_id, boot FROM workers WHERE alive_until > ?", (now,))
            living = {Owner(*row) for row in rows}
        owners = {request_id: claim.owner for request_id, claim in claims.items()}
        return {i: Entry(claims.get(i), outcomes.get(i), owners.get(i) in living) for i in request_ids}

    def fill_stub(self, me: Owner, claim: NewClaim) -> Claim | None:
        return self._change(
            f"SET {', '.join(f'{column} = ?' for column in CLAIMED)} WHERE request_id = ? AND topic IS NULL",
            (*self._claimed(me, claim), claim.request_id),
        )

    def take_over(self, me: Owner, seen: Claim, *, lost_worker: bool, blame: bool) -> Claim | None:
        return self._change(
            "SET worker_id = ?, boot = ?, worker_losses = worker_losses + (? AND (? OR worker_losses = 0))"
            f" WHERE request_id = ? AND topic IS NOT NULL AND {OWNED} AND (closing IS NULL) = ?",
            (*_key(me), lost_worker, blame, seen.request_id, *_key(seen.owner), seen.closing is None),
        )

    def start(self, me: Owner, request_id: str) -> bool:
        change = f"SET started_worker_id = ?, started_boot = ? WHERE request_id = ? AND {OWNED}"
        return self._change(change, (*_key(me), request_id, *_key(me))) is not None

    def crashed(self, me: Owner, request_id: str) -> int | None:
        change = f"SET trainer_crashes = trainer_crashes + 1 WHERE request_id = ? AND {OWNED}"
        claim = self._change(change, (request_id, *_key(me)))
        return None if claim is None else claim.trainer_crashes

    def blame(self, me: Owner, request_ids: Collection[str], losses: int) -> None:
        change = f"UPDATE training_requests SET worker_losses = worker_losses + ? WHERE {OWNED} AND request_id = ?"
        with self._file.writing() as db:
            db.executemany(change, [(losses, *_key(me), request_id) for request_id in request_ids])

    def close(self, me: Owner, outcomes: Sequence[Outcome]) -> frozenset[str]:
        change = f"UPDATE training_requests SET closing = coalesce(closing, ?) WHERE request_id = ? AND {OWNED}"
        accepted = set()
        with self._file.writing() as db:
            for outcome in outcomes:
                values = (_write_outcome(outcome), outcome.request_id, *_key(me))
                row = db.execute(f"{change} RETURNING closing", values).fetchone()
                if row is not None and _read_outcome(row[0]) == outcome:
                    accepted.add(outcome.request_id)
        return frozenset(accepted)

    def insert_outcomes(self, outcomes: Sequence[Outcome]) -> Mapping[str, Outcome]:
        with self._file.writing() as db:
            now = self._now()
            rows = [(outcome.request_id, now, _write_outcome(outcome)) for outcome in outcomes]
            db.executemany("INSERT INTO training_outcomes VALUES (?, ?, ?) ON CONFLICT DO NOTHING", rows)
            return _outcomes(db, [outcome.request_id for outcome in outcomes])

    def release(self, me: Owner, request_ids: Collection[str]) -> None:
        change = f"UPDATE training_requests SET worker_id = NULL, boot = NULL WHERE {OWNED} AND request_id = ?"
        with self._file.writing() as db:
            db.executemany(change, [(*_key(me), request_id) for request_id in request_ids])

    def cancel(self, request_id: str, cancel: Cancel) -> bool:
        with self._file.writing() as db:
            if _outcomes(db, [request_id]):
                return False
            db.execute(
                "INSERT INTO training_requests (request_id, cancel, cancelled_at) VALUES (?, ?, ?)"
                " ON CONFLICT (request_id) DO UPDATE SET cancel = excluded.cancel, cancelled_at = excluded.cancelled_at"
                " WHERE cancel IS NULL",
                (request_id, _write_cancel(cancel), self._now()),
            )
            return True

    def requests(
        self, *, project: str | None = None, model_name: str | None = None, unfinished: bool = False, limit: int = 50
    ) -> Sequence[RequestRow]:
        with self._file.reading() as db:
            rows = db.execute(
                "SELECT r.request_id, summary, claimed_at, worker_id, boot, document FROM training_requests r"
                " LEFT JOIN training_outcomes o ON o.request_id = r.request_id"
                " WHERE (:project IS NULL OR json_extract(summary, '$.project') = :project)"
                " AND (:model_name IS NULL OR json_extract(summary, '$.model_name') = :model_name)"
                " AND NOT (:unfinished AND document IS NOT NULL) ORDER BY claimed_at DESC, r.request_id LIMIT :limit",
                {"project": project, "model_name": model_name, "unfinished": unfinished, "limit": limit},
            )
            return [_request_row(row) for row in rows]

    def _change(self, change: str, values: Iterable[Any]) -> Claim | None:
        with self._file.writing() as db:
            row = db.execute(f"UPDATE training_requests {change} RETURNING {CLAIM}", tuple(values)).fetchone()
        return None if row is None else _claim(row)

    def _claimed(self, me: Owner, new: NewClaim) -> tuple[Any, ...]:
        """The values of the columns CLAIMED."""
        home, summary = new.home, _write_summary(new.summary)
        return (new.request_sha256, home.topic, home.partition, home.offset, *_key(me), self._now(), summary)

    def _forget(self, db: sqlite3.Connection) -> None:
        ended, cancelled = (self._now() - round(seconds * 1000) for seconds in (self._retention_s, STUB_S))
        old = "SELECT request_id FROM training_outcomes WHERE inserted_at < ?"
        db.execute(f"DELETE FROM training_requests WHERE request_id IN ({old})", (ended,))
        db.execute("DELETE FROM training_outcomes WHERE inserted_at < ?", (ended,))
        db.execute("DELETE FROM training_requests WHERE topic IS NULL AND cancelled_at < ?", (cancelled,))

    def _now(self) -> int:
        return _milliseconds(self._clock())


def _select(db: sqlite3.Connection, what: str, request_ids: Collection[str]) -> Iterator[Sequence[Any]]:
    for request_id in request_ids:
        yield from db.execute(f"{what} WHERE request_id = ?", (request_id,))


def _outcomes(db: sqlite3.Connection, request_ids: Collection[str]) -> dict[str, Outcome]:
    rows = _select(db, "SELECT request_id, document FROM training_outcomes", request_ids)
    return {request_id: _read_outcome(document) for request_id, document in rows}


def _claim(row: Sequence[Any]) -> Claim:
    """The claim from a row of the columns CLAIM."""
    request_id, sha256, topic, partition, offset, worker_id, boot, cancel, crashes, losses, starter, life, closing = row
    return Claim(
        request_id=request_id,
        request_sha256=sha256,
        home=None if topic is None else Home(topic, partition, offset),
        owner=None if worker_id is None else Owner(worker_id, boot),
        cancel=None if cancel is None else _read_cancel(cancel),
        trainer_crashes=crashes,
        worker_losses=losses,
        started=None if starter is None else Owner(starter, life),
        closing=None if closing is None else _read_outcome(closing),
    )


def _request_row(row: Sequence[Any]) -> RequestRow:
    request_id, summary, claimed_at, worker_id, boot, outcome = row
    return RequestRow(
        request_id=request_id,
        summary=_read_summary(summary),
        claimed_at=None if claimed_at is None else _datetime(claimed_at),
        owner=None if worker_id is None else Owner(worker_id, boot),
        outcome=None if outcome is None else _read_outcome(outcome),
    )


def _key(owner: Owner | None) -> tuple[str | None, int | None]:
    return (None, None) if owner is None else (owner.worker_id, owner.boot)


def _milliseconds(moment: datetime) -> int:
    return (moment - EPOCH) // timedelta(milliseconds=1)


def _datetime(milliseconds: int) -> datetime:
    return EPOCH + timedelta(milliseconds=milliseconds)


def _write_outcome(outcome: Outcome) -> str:
    document = outcome.to_document()
    document["at"] = _milliseconds(outcome.at)
    document["started_at"] = None if outcome.started_at is None else _milliseconds(outcome.started_at)
    if outcome.model is not None:
        document["model"]["created_at"] = _milliseconds(outcome.model.created_at)
    return orjson.dumps(document).decode()


def _read_outcome(text: str) -> Outcome:
    document = orjson.loads(text)
    document["at"] = _datetime(document["at"])
    if (started_at := document.get("started_at")) is not None:
        document["started_at"] = _datetime(started_at)
    if document["model"] is not None:
        document["model"]["created_at"] = _datetime(document["model"]["created_at"])
    return Outcome.from_document(document)


def _write_cancel(cancel: Cancel) -> str:
    return orjson.dumps({**asdict(cancel), "requested_at": _milliseconds(cancel.requested_at)}).decode()


def _read_cancel(text: str) -> Cancel:
    document = orjson.loads(text)
    return Cancel(**{**document, "requested_at": _datetime(document["requested_at"])})


def _write_summary(summary: Mapping[str, Any]) -> str:
    """The summary as JSON; datetimes become {"$date": milliseconds}."""
    values = {k: {"$date": _milliseconds(v)} if isinstance(v, datetime) else v for k, v in summary.items()}
    return orjson.dumps(values).decode()


def _read_summary(text: str) -> dict[str, Any]:
    return {k: _datetime(v["$date"]) if isinstance(v, dict) else v for k, v in orjson.loads(text).items()}
