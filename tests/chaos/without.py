"""A worker that lacks one of its protections: `python -m tests.chaos.without PROTECTION worker`.

The checker has to find what comes of it; else its silence about the whole worker would mean nothing.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from consumer import app
from consumer.cli import main
from consumer.jobs.claims import Asked, Claims, Ruling, Standing
from consumer.partitions.assignment import Assignment
from consumer.partitions.intake import Intake
from consumer.partitions.records import Polled, Record
from consumer.publishing.transactions import Announcer
from consumer.settings import Settings
from pipeline.jobs import Outcome
from pipeline.ledger import Cancel, Entry, Owner
from pipeline.ledger.mongodb import MongoLedger
from pipeline.registry.mongodb import MongoRegistry

SLOW_CLOCK = timedelta(hours=1)


def unique_outcome() -> None:
    """The last finisher's outcome stands, in place of the first one's."""

    def insert_outcomes(self: MongoLedger, outcomes: Sequence[Outcome]) -> Mapping[str, Outcome]:
        for outcome in outcomes:
            document = {"_id": outcome.request_id, **outcome.to_document()}
            self._outcomes.replace_one({"_id": outcome.request_id}, document, upsert=True)
        return {outcome.request_id: outcome for outcome in outcomes}

    _replace(MongoLedger, insert_outcomes)


def compare_and_set_on_the_owner() -> None:
    """A negative outcome is written whoever owns the claim by now."""

    def close(self: MongoLedger, me: Owner, outcomes: Sequence[Outcome]) -> frozenset[str]:
        for outcome in outcomes:
            self._claims.update_one({"_id": outcome.request_id}, {"$set": {"closing": outcome.to_document()}})
        return frozenset(outcome.request_id for outcome in outcomes)

    _replace(MongoLedger, close)


def lease_by_the_stores_clock() -> None:
    """The lease ends by this machine's clock, which is an hour slow."""
    beat = MongoLedger.heartbeat

    def heartbeat(self: MongoLedger, me: Owner, lease_s: float, watched: Collection[str]) -> Mapping[str, Cancel]:
        cancels = beat(self, me, lease_s, watched)
        ends = datetime.now(UTC) - SLOW_CLOCK + timedelta(seconds=lease_s)
        self._workers.update_one({"_id": me.worker_id}, {"$set": {"alive_until": ends}})
        return cancels

    _replace(MongoLedger, heartbeat)


def assignment_epoch() -> None:
    """What waits to be announced, and what is known of offsets, outlives the loss of its partition."""

    def update(self: Assignment, polled: Polled) -> set[Any]:
        kept = dict(self._owned)
        self._owned = {}
        updated(self, polled)
        self._owned |= kept
        return set()

    def owns(self: Assignment, record: Record) -> bool:
        return record.partition in self._owned

    updated = Assignment.update
    for method in (update, owns):
        _replace(Assignment, method)


def unique_version() -> None:
    """Two documents of a model may have one version."""
    prepared = MongoRegistry.prepare

    def prepare(self: MongoRegistry) -> None:
        prepared(self)
        for name, index in self._models.index_information().items():
            if index.get("unique") and "version_number" in dict(index["key"]):
                self._models.drop_index(name)

    _replace(MongoRegistry, prepare)


def read_back() -> None:
    """After a claim that was not answered, what is in my name is taken for another's."""
    rule = Claims._rule

    def _rule(self: Claims, asked: Asked, entry: Entry) -> Ruling:
        ruling = rule(self, asked, entry)
        return replace(ruling, standing=Standing.PARKED) if ruling.standing is Standing.FOUND else ruling

    _replace(Claims, _rule)


def transaction() -> None:
    """Events first, offsets then, though exactly-once was asked for."""
    announcer = app._announcer

    def at_least_once(settings: Settings, intake: Intake, confirm_life: Callable[[], object]) -> Announcer:
        return announcer(settings.model_copy(update={"delivery": "at-least-once"}), intake, confirm_life)

    app._announcer = at_least_once


def _replace(owner: type, method: Callable[..., Any]) -> None:
    setattr(owner, method.__name__, method)


PROTECTIONS: Mapping[str, Callable[[], None]] = {
    take_away.__name__: take_away
    for take_away in (
        unique_outcome,
        compare_and_set_on_the_owner,
        lease_by_the_stores_clock,
        assignment_epoch,
        unique_version,
        read_back,
        transaction,
    )
}


if __name__ == "__main__":
    PROTECTIONS[sys.argv.pop(1)]()
    sys.exit(main())
