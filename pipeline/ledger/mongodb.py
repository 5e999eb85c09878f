"""The ledger in MongoDB: collections `training_requests`, `training_outcomes` and `workers`.

The `_id` is the request or worker id.  Only the server's clock ($$NOW) decides whether an owner lives.  This machine's
clock only sets claimed_at and the ends of claims, stubs and outcomes.

A TTL index on `expires_at` removes:

- an outcome, `retention_s` after it was inserted;
- a claim, `retention_s + UNFINISHED_S` after it was made or last changed.  A claim does not change when its request
  finishes, so it must outlive a late outcome.  It does if the request ends within UNFINISHED_S of the claim's last
  change; the topic keeps a record for half of that.  A claim that is unfinished after that time has been untouched in
  one life of one worker for months; if its request comes again, it is claimed anew;
- a stub, a week after its cancel;
- a worker, twice a claim's time after its last heartbeat.  If its boot counter restarted while a claim names an older
  life, that life would count as alive again.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import Any

import pymongo
from pymongo import ReturnDocument, UpdateOne
from pymongo.database import Database
from pymongo.errors import DuplicateKeyError

from pipeline.databases.mongodb import Document, create_index, durable, insert_new, plain, transient, upserted
from pipeline.errors import SupersededError, TransientError
from pipeline.jobs import Outcome, fields_of
from pipeline.ledger import Cancel, Claim, Entry, Home, NewClaim, Owner, RequestRow

RETENTION_S = 90 * 86_400.0
UNFINISHED_S = 60 * 86_400.0
STUB_S = 7 * 86_400.0
LISTING_S = 60.0
NEWEST_FIRST = [("claimed_at", pymongo.DESCENDING), ("_id", pymongo.ASCENDING)]
CANCELLED = {"cancel": {"$exists": True}}


def now() -> datetime:
    return datetime.now(UTC)


class MongoLedger:
    """Implements pipeline.ledger.Ledger; safe for several threads."""

    def __init__(
        self,
        database: Database[Document],
        retention_s: float = RETENTION_S,
        *,
        clock: Callable[[], datetime] = now,
    ) -> None:
        database = durable(database)
        self._claims = database["training_requests"]
        self._outcomes = database["training_outcomes"]
        self._workers = database["workers"]
        self._outcome_life = timedelta(seconds=retention_s)
        self._claim_life = timedelta(seconds=retention_s + UNFINISHED_S)
        self._clock = clock

    @transient("preparing the ledger")
    def prepare(self) -> None:
        for collection in (self._claims, self._outcomes, self._workers):
            create_index(collection, "expires_at", expireAfterSeconds=0)
        for of in ([], ["summary.project"], ["summary.model_name"]):
            create_index(self._claims, [*of, *NEWEST_FIRST])
        create_index(self._claims, "request_id", partialFilterExpression=CANCELLED)

    @transient("starting a life of the worker")
    def boot(self, worker_id: str) -> Owner:
        life = {"worker_id": {"$literal": worker_id}, "boot": {"$add": [{"$ifNull": ["$boot", 0]}, 1]}}
        row = self._upsert_worker({"_id": worker_id}, {**life, "alive_until": "$$NOW"})
        return Owner(worker_id, row["boot"])

    @transient("heartbeat")
    def heartbeat(self, me: Owner, lease_s: float, watched: Collection[str]) -> Mapping[str, Cancel]:
        life = {"worker_id": {"$literal": me.worker_id}, "boot": me.boot}
        lease = {"alive_until": {"$add": ["$$NOW", round(lease_s * 1000)]}}
        try:
            self._upsert_worker({"_id": me.worker_id, "boot": {"$lte": me.boot}}, {**life, **lease})
        except DuplicateKeyError:
            raise SupersededError(f"worker {me.worker_id} has a newer life than boot {me.boot}") from None
        if not watched:
            return {}
        query = {"request_id": {"$in": list(watched)}, **CANCELLED}  # in the index of the few that are cancelled
        return {row["_id"]: Cancel(**row["cancel"]) for row in self._claims.find(query, {"cancel": 1})}

    @transient("ending the lease")
    def leave(self, me: Owner) -> None:
        self._workers.update_one({"_id": me.worker_id, "boot": me.boot}, [{"$set": {"alive_until": "$$NOW"}}])

    @transient("claiming")
    def claim(self, me: Owner, claims: Sequence[NewClaim]) -> frozenset[str]:
        if not claims:
            return frozenset()
        refused = insert_new(
            self._claims,
            [{"_id": new.request_id, "request_id": new.request_id, **self._claimed(me, new)} for new in claims],
        )
        return frozenset(new.request_id for position, new in enumerate(claims) if position not in refused)

    @transient("reading the ledger")
    def read(self, request_ids: Collection[str]) -> Mapping[str, Entry]:
        """Reads claims, then leases, then outcomes, so an outcome written before its owner was seen dead is never
        missed.
        """
        if not request_ids:
            return {}
        ids = list(request_ids)
        claims = {row["_id"]: _claim(row) for row in self._claims.find(**_all_of(ids))}
        living = self._living({claim.owner for claim in claims.values() if claim.owner is not None})
        outcomes = self._standing(ids)
        return {i: Entry(claim := claims.get(i), outcomes.get(i), _owner(claim) in living) for i in ids}

    @transient("filling a stub")
    def fill_stub(self, me: Owner, claim: NewClaim) -> Claim | None:
        row = self._claims.find_one_and_update(
            {"_id": claim.request_id, "home": None},
            {"$set": self._claimed(me, claim)},
            return_document=ReturnDocument.AFTER,
        )
        return None if row is None else _claim(row)

    @transient("taking over a claim")
    def take_over(self, me: Owner, seen: Claim, *, lost_worker: bool, blame: bool) -> Claim | None:
        losses = {"$ifNull": ["$worker_losses", 0]}
        blamed = {"$or": [blame, {"$eq": [losses, 0]}]}
        change: Document = {"owner": {"$literal": fields_of(me)}, "expires_at": {"$literal": self._claim_end()}}
        if lost_worker:
            change["worker_losses"] = {"$add": [losses, {"$cond": [blamed, 1, 0]}]}
        row = self._claims.find_one_and_update(
            {
                "_id": seen.request_id,
                "home": {"$ne": None},
                "closing": {"$exists": seen.closing is not None},  # never changed once written, so existence is enough
                **_owned_by(seen.owner),
            },
            [{"$set": change}],
            return_document=ReturnDocument.AFTER,
        )
        return None if row is None else _claim(row)

    @transient("marking a start")
    def start(self, me: Owner, request_id: str) -> bool:
        change = {"$set": {"started": fields_of(me), "expires_at": self._claim_end()}}
        return self._claims.update_one({"_id": request_id, **_owned_by(me)}, change).matched_count == 1

    @transient("counting a crash")
    def crashed(self, me: Owner, request_id: str) -> int | None:
        row = self._claims.find_one_and_update(
            {"_id": request_id, **_owned_by(me)},
            {"$inc": {"trainer_crashes": 1}, "$set": {"expires_at": self._claim_end()}},
            {"trainer_crashes": 1},
            return_document=ReturnDocument.AFTER,
        )
        return None if row is None else int(row["trainer_crashes"])

    @transient("writing down who is to blame")
    def blame(self, me: Owner, request_ids: Collection[str], losses: int) -> None:
        change = {"$inc": {"worker_losses": losses}, "$set": {"expires_at": self._claim_end()}}
        self._claims.update_many({"_id": {"$in": list(request_ids)}, **_owned_by(me)}, change)

    @transient("closing")
    def close(self, me: Owner, outcomes: Sequence[Outcome]) -> frozenset[str]:
        if not outcomes:
            return frozenset()
        mine, end = _owned_by(me), self._claim_end()
        writes = [
            UpdateOne(
                {"_id": outcome.request_id, "closing": {"$exists": False}, **mine},
                {"$set": {"closing": outcome.to_document(), "expires_at": end}},
            )
            for outcome in outcomes
        ]
        if self._claims.bulk_write(writes, ordered=False).matched_count == len(writes):
            return frozenset(outcome.request_id for outcome in outcomes)
        query = {"_id": {"$in": [outcome.request_id for outcome in outcomes]}, "closing": {"$exists": True}, **mine}
        closed = {row["_id"]: Outcome.from_document(row["closing"]) for row in self._claims.find(query)}
        return frozenset(i for outcome in outcomes if closed.get(i := outcome.request_id) == outcome)

    @transient("inserting outcomes")
    def insert_outcomes(self, outcomes: Sequence[Outcome]) -> Mapping[str, Outcome]:
        if not outcomes:
            return {}
        end = self._clock() + self._outcome_life
        documents = [{"_id": o.request_id, **o.to_document(), "expires_at": end} for o in outcomes]
        refused = insert_new(self._outcomes, documents)
        stands = {o.request_id: o for position, o in enumerate(outcomes) if position not in refused}
        if refused:
            stands |= self._standing([outcomes[position].request_id for position in refused])
        missing = next((o.request_id for o in outcomes if o.request_id not in stands), None)
        if missing is not None:
            raise TransientError("mongodb", f"the outcome that stands for {missing} cannot be read yet")
        return stands

    @transient("releasing claims")
    def release(self, me: Owner, request_ids: Collection[str]) -> None:
        if not request_ids:
            return
        change = {"$unset": {"owner": ""}, "$set": {"expires_at": self._claim_end()}}
        self._claims.update_many({"_id": {"$in": list(request_ids)}, **_owned_by(me)}, change)

    @transient("cancelling")
    def cancel(self, request_id: str, cancel: Cancel) -> bool:
        if self._outcomes.find_one({"_id": request_id}, {"_id": 1}) is not None:
            return False
        stub = {"request_id": request_id, "expires_at": self._clock() + timedelta(seconds=STUB_S)}
        with suppress(DuplicateKeyError):  # the first cancel is kept
            upserted(
                lambda: self._claims.update_one(
                    {"_id": request_id, "cancel": {"$exists": False}},
                    {"$set": {"cancel": asdict(cancel)}, "$setOnInsert": stub},
                    upsert=True,
                )
            )
        return True

    @transient("listing requests")
    def requests(
        self, *, project: str | None = None, model_name: str | None = None, unfinished: bool = False, limit: int = 50
    ) -> Sequence[RequestRow]:
        """For people: with `unfinished` it may read every request, for up to a minute."""
        wanted = {"summary.project": project, "summary.model_name": model_name}
        outcome = {"from": self._outcomes.name, "localField": "_id", "foreignField": "_id", "as": "outcome"}
        stages: list[Document] = [
            {"$match": {field: value for field, value in wanted.items() if value is not None}},
            {"$sort": dict(NEWEST_FIRST)},
        ]
        if unfinished:
            stages += [{"$lookup": outcome}, {"$match": {"outcome": []}}, {"$limit": limit}]
        else:
            stages += [{"$limit": limit}, {"$lookup": outcome}]
        with pymongo.timeout(LISTING_S):
            return [_request_row(row) for row in self._claims.aggregate(stages, allowDiskUse=True)]

    def _upsert_worker(self, query: Document, change: Document) -> Document:
        """Write a row of `workers`; raises DuplicateKeyError if the row exists and the query excludes it."""
        end = {"$add": ["$$NOW", round(2 * self._claim_life / timedelta(milliseconds=1))]}
        row = upserted(
            lambda: self._workers.find_one_and_update(
                query, [{"$set": {**change, "expires_at": end}}], upsert=True, return_document=ReturnDocument.AFTER
            )
        )
        assert row is not None
        return row

    def _living(self, owners: set[Owner]) -> set[Owner]:
        if not owners:
            return set()
        query = {"_id": {"$in": [owner.worker_id for owner in owners]}, "$expr": {"$gt": ["$alive_until", "$$NOW"]}}
        return {Owner(row["_id"], row["boot"]) for row in self._workers.find(query, {"boot": 1})}

    def _standing(self, request_ids: Sequence[str]) -> dict[str, Outcome]:
        return {row["_id"]: _outcome(row) for row in self._outcomes.find(**_all_of(request_ids))}

    def _claimed(self, me: Owner, new: NewClaim) -> Document:
        return {
            "request_sha256": new.request_sha256,
            "home": fields_of(new.home),
            "owner": fields_of(me),
            "claimed_at": self._clock(),
            "summary": dict(new.summary),
            "expires_at": self._claim_end(),
        }

    def _claim_end(self) -> datetime:
        return self._clock() + self._claim_life


def _all_of(request_ids: Collection[str]) -> Document:
    """The arguments of a find that returns all rows in one batch, up to 16 MB."""
    return {"filter": {"_id": {"$in": list(request_ids)}}, "batch_size": len(request_ids) + 1}


def _owned_by(owner: Owner | None) -> Document:
    if owner is None:
        return {"owner": None}
    return {"owner.worker_id": owner.worker_id, "owner.boot": owner.boot}


def _owner(claim: Claim | None) -> Owner | None:
    return None if claim is None else claim.owner


def _claim(row: Mapping[str, Any]) -> Claim:
    def part(name: str, read: Callable[..., Any]) -> Any:
        return read(**row[name]) if row.get(name) is not None else None

    closing = row.get("closing")
    return Claim(
        request_id=row["_id"],
        request_sha256=row.get("request_sha256"),
        home=part("home", Home),
        owner=part("owner", Owner),
        cancel=part("cancel", Cancel),
        trainer_crashes=row.get("trainer_crashes", 0),
        worker_losses=row.get("worker_losses", 0),
        started=part("started", Owner),
        closing=None if closing is None else Outcome.from_document(closing),
    )


def _request_row(row: Mapping[str, Any]) -> RequestRow:
    owner = row.get("owner")
    return RequestRow(
        request_id=row["_id"],
        summary=row.get("summary", {}),
        claimed_at=row.get("claimed_at"),
        owner=None if owner is None else Owner(**owner),
        outcome=_outcome(row["outcome"][0]) if row["outcome"] else None,
    )


def _outcome(row: Mapping[str, Any]) -> Outcome:
    model = row["model"]
    return Outcome.from_document({**row, "model": None if model is None else plain(model)})
