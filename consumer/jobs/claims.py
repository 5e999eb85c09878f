"""Claims a polled batch in the ledger; reports who owns what is already claimed.

The hot path is one insert for the whole batch; only requests that were claimed before are looked at one by one. This
thread alone claims, takes over and releases, in order, so that no request is claimed before an earlier release of it
has been answered.

`Standing` lists what a record can turn out to be, and what the worker then does.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import TypeVar

import structlog

from consumer import failpoints
from consumer.events.codec import Codec
from consumer.events.errors import UndecodableError
from consumer.events.requests import Malformed, Received, read_request
from consumer.jobs.lease import Steady
from consumer.partitions.records import Record
from consumer.threads.containment import PASSED_ON, contain, halved
from consumer.threads.neighbour import Ordered, Surroundings
from pipeline import validation
from pipeline.errors import RejectedError, TransientError
from pipeline.jobs import ErrorKind, Failure, Outcome, TrainingRequest
from pipeline.ledger import Claim, Entry, Home, Ledger, NewClaim, Owner

log = structlog.get_logger(__name__)

T = TypeVar("T")

LOOK_AGAIN_S = 1.0
UNKNOWN_AGAIN_S = 60.0
LATE_WRITE_S = 60.0
"""How long an unanswered write may still be applied."""


class Standing(Enum):
    MINE = "mine"
    """The request is ours: train it, or end it as its claim says (closing, cancel)."""
    FOUND = "found"
    """The ledger names us as owner already: it runs here, or an answer was lost. If no job has it, ask again."""
    SETTLED = "settled"
    """The request has an outcome, and this record is its home: announce it."""
    PARKED = "parked"
    """A live worker owns the request, or its entry cannot be read: ask again later."""
    DUPLICATE = "duplicate"
    """Another record is the request's home, and it has no outcome yet: ask again later."""
    DONE = "done"
    """Another record is the request's home, and it has an outcome: nothing to announce."""
    CONFLICT = "conflict"
    """The request_id was used before with other content: a dead letter."""
    UNREADABLE = "unreadable"
    """No request_id can be read: a dead letter."""
    BROKEN = "broken"
    """An internal error keeps the record from being read or claimed: a dead letter."""


@dataclass(frozen=True, slots=True, eq=False)
class Asked:
    """A decoded record: its request, the hash of its content, and what is wrong with it (None if nothing is)."""

    record: Record
    request: TrainingRequest
    sha256: str
    problem: Failure | None

    @property
    def home(self) -> Home:
        return Home(self.record.partition.topic, self.record.partition.number, self.record.offset)


@dataclass(frozen=True, slots=True)
class Ruling:
    """The standing of one record."""

    standing: Standing
    record: Record
    asked: Asked | None = None
    claim: Claim | None = None
    outcome: Outcome | None = None
    message: str = ""
    look_again_s: float = LOOK_AGAIN_S
    """Seconds until the ledger is asked again, if it is parked."""


@dataclass(frozen=True, slots=True)
class Ruled:
    """The answer to one batch, in its order."""

    rulings: Sequence[Ruling]


class Claims(Ordered):
    """The only thread that claims, takes over and releases requests."""

    def __init__(self, me: Owner, ledger: Ledger, codec: Codec, *, steady: Steady, around: Surroundings) -> None:
        super().__init__("claims", around)
        self._me = me
        self._ledger = ledger
        self._codec = codec
        self._steady = steady
        self._unanswered: dict[str, float] = {}
        """Requests with an unanswered take-over, and until when (monotonic seconds) it may still be applied."""
        self._cleared: set[str] = set()
        """Those of them confirmed as ours. A release ends that, as the late write may still be applied after it."""

    def claim(self, records: Sequence[Record]) -> None:
        """Decode a batch and claim it; answered with a Ruled."""
        self.order(lambda: self._deliver(Ruled(self._claim_contained(records))))

    def look_again(self, asked: Sequence[Asked]) -> None:
        """Ask the ledger about these again, and take over what a dead worker left; answered with a Ruled."""
        self.order(lambda: self._deliver(Ruled(halved(asked, self._examine, self._unknown))))

    def release(self, request_ids: Collection[str]) -> None:
        """Release claims, so that another worker may take them at once."""
        ids = frozenset(request_ids)
        self.order(lambda: self._release(ids))

    def sweep(self, held: Collection[str]) -> None:
        """Release what a late write may have made ours although no job here has it."""
        ids = frozenset(held)
        self.order(lambda: self._sweep(ids))

    def _claim_contained(self, records: Sequence[Record]) -> Sequence[Ruling]:
        """One ruling per record, in their order; an error about one record leaves the others alone."""
        rulings: dict[Record, Ruling] = {}
        asked: list[Asked] = []
        for record in records:
            found = self._read_contained(record)
            if isinstance(found, Ruling):
                rulings[record] = found
            else:
                asked.append(found)
        for ruling in halved(asked, self._claim, self._claim_poorly):
            rulings[ruling.record] = ruling
        self._count(rulings.values())
        return [rulings[record] for record in records]

    def _read_contained(self, record: Record) -> Asked | Ruling:
        try:
            return self._read(record)
        except UndecodableError as error:
            return Ruling(Standing.UNREADABLE, record, message=str(error))
        except PASSED_ON:
            raise
        except Exception as error:  # noqa: BLE001 - the record would end every worker in turn
            place = {"partition": record.partition.number, "offset": record.offset}
            failure = contain(self._metrics, "claim", error, **place)
            return Ruling(Standing.BROKEN, record, message=failure.message)

    def _claim_poorly(self, asked: Asked, error: Exception) -> Sequence[Ruling]:
        """Claim a request without its summary after an error of the ledger, so that it can end with an outcome."""
        failure = contain(self._metrics, "claim", error, request_id=asked.request.request_id)
        failed = replace(asked, problem=failure)
        try:
            mine = self._insert([NewClaim(asked.request.request_id, asked.sha256, asked.home, {})])
        except PASSED_ON:
            raise
        except Exception as worse:  # noqa: BLE001 - not even that: only a dead letter is left
            failure = contain(self._metrics, "claim", worse, request_id=asked.request.request_id)
            return [Ruling(Standing.BROKEN, asked.record, asked, message=failure.message)]
        if mine:
            return [Ruling(Standing.MINE, asked.record, failed, _fresh(asked, self._me))]
        return halved([failed], self._examine, self._unknown)

    def _unknown(self, asked: Asked, error: Exception) -> Sequence[Ruling]:
        """Park a request whose ledger entry cannot be read: the entry may hold an outcome."""
        contain(self._metrics, "claim", error, request_id=asked.request.request_id)
        return [Ruling(Standing.PARKED, asked.record, asked, look_again_s=UNKNOWN_AGAIN_S)]

    def _claim(self, batch: Sequence[Asked]) -> Sequence[Ruling]:
        rulings: list[Ruling] = []
        first: dict[str, Asked] = {}
        repeats = [asked for asked in batch if first.setdefault(asked.request.request_id, asked) is not asked]
        mine = self._insert([self._new_claim(asked) for asked in first.values()])
        known: list[Asked] = []
        for request_id, asked in first.items():
            if request_id in mine:
                rulings.append(Ruling(Standing.MINE, asked.record, asked, _fresh(asked, self._me)))
            else:
                known.append(asked)
        # Repeats come last: by then the ledger knows their request's home.
        return [*rulings, *self._examine(known), *self._examine(repeats)]

    def _insert(self, new: Sequence[NewClaim]) -> frozenset[str]:
        return self._answered(lambda: failpoints.after("after_claim", "mongodb", self._ledger.claim(self._me, new)))

    def _read(self, record: Record) -> Asked:
        def read() -> Received | Malformed:
            return read_request(self._codec, record.value, headers=record.headers, timestamp_ms=record.timestamp_ms)

        found = self.answered(read)  # bytes of a schema registry need it
        if isinstance(found, Malformed):
            return Asked(record, found.request, found.sha256, Failure(ErrorKind.INVALID_REQUEST, found.message))
        return Asked(record, found.request, found.sha256, self._problem(found.request))

    def _problem(self, request: TrainingRequest) -> Failure | None:
        try:
            validation.check(request)
        except RejectedError as error:
            return Failure(ErrorKind.INVALID_REQUEST, str(error))
        except Exception as error:  # noqa: BLE001 - the record would end every worker in turn
            return contain(self._metrics, "claim", error, request_id=request.request_id)
        return None

    def _examine(self, asked: Sequence[Asked]) -> Sequence[Ruling]:
        if not asked:
            return ()
        ids = {one.request.request_id for one in asked}
        entries = self._answered(lambda: self._ledger.read(ids))
        return [self._rule(one, entries[one.request.request_id]) for one in asked]

    def _rule(self, asked: Asked, entry: Entry) -> Ruling:
        claim = entry.claim
        if claim is None:
            return self._ruling(asked, self._claim_anew(asked))
        if claim.home is None:
            return self._ruling(
                asked, self._adopt(asked, lambda: self._ledger.fill_stub(self._me, self._new_claim(asked)))
            )
        if claim.request_sha256 != asked.sha256:
            message = (
                f"request_id {claim.request_id!r} was used before with other content, at "
                f"{claim.home.topic}/{claim.home.partition} offset {claim.home.offset}; that request stands. "
                "Send this one under an id of its own"
            )
            return Ruling(Standing.CONFLICT, asked.record, asked, message=message)
        if claim.home != asked.home:
            standing = Standing.DUPLICATE if entry.outcome is None else Standing.DONE
            return Ruling(standing, asked.record, asked)
        if entry.outcome is not None:
            return Ruling(Standing.SETTLED, asked.record, asked, claim, entry.outcome)
        if claim.owner == self._me:
            self._clear(claim)
            return Ruling(Standing.FOUND, asked.record, asked, claim)
        return self._ruling(asked, self._take_over(asked, claim, entry.owner_lives))

    def _take_over(self, asked: Asked, claim: Claim, owner_lives: bool) -> Claim | None:
        owner = claim.owner
        lost = owner is not None
        if (
            owner is not None
            and owner.worker_id != self._me.worker_id
            and (owner_lives or not self._steady.for_a_lease())
        ):
            return None
        blame = lost and claim.started == owner
        taken = self._adopt(
            asked,
            lambda: failpoints.after(
                "after_take_over",
                "mongodb",
                self._ledger.take_over(self._me, claim, lost_worker=lost, blame=blame),
            ),
        )
        if taken is not None and lost:
            self._metrics.takeovers.inc()
            log.warning(
                "request taken over from a worker that died",
                request_id=claim.request_id,
                owner=owner and owner.worker_id,
                worker_losses=taken.worker_losses,
            )
        return taken

    def _claim_anew(self, asked: Asked) -> Claim | None:
        """Insert a claim again, since the earlier one has expired meanwhile."""
        mine = self._insert([self._new_claim(asked)])
        return _fresh(asked, self._me) if mine else None

    def _adopt(self, asked: Asked, operation: Callable[[], Claim | None]) -> Claim | None:
        """Run a write that makes us the owner. An unanswered one is noted, as it may still be applied later."""

        def note(error: TransientError) -> None:
            self._steady.broke(error)
            self._unanswered[asked.request.request_id] = time.monotonic() + LATE_WRITE_S

        claim = self.answered(operation, on_retry=note)
        if claim is not None:
            self._clear(claim)
        return claim

    def _clear(self, claim: Claim) -> None:
        if claim.request_id in self._unanswered:
            self._cleared.add(claim.request_id)

    def _ruling(self, asked: Asked, claim: Claim | None) -> Ruling:
        standing = Standing.PARKED if claim is None else Standing.MINE
        return Ruling(standing, asked.record, asked, claim)

    def _release(self, ids: Collection[str]) -> None:
        def release() -> None:
            self._ledger.release(self._me, ids)
            failpoints.after("after_release", "mongodb", None)

        self._answered(release)
        self._cleared.difference_update(ids)

    def _sweep(self, held: frozenset[str]) -> None:
        now = time.monotonic()
        self._unanswered = {request_id: until for request_id, until in self._unanswered.items() if until > now}
        self._cleared &= self._unanswered.keys()
        if orphans := self._unanswered.keys() - self._cleared - held:
            self._release(orphans)

    def _answered(self, operation: Callable[[], T]) -> T:
        return self.answered(operation, on_retry=self._steady.broke)

    def _new_claim(self, asked: Asked) -> NewClaim:
        request = asked.request
        summary = {
            "job_name": request.job_name,
            "project": request.project,
            "model_name": request.model_name,
            "user": request.user,
            "algorithm": request.algorithm,
            "dataset_name": request.dataset_name,
            "correlation_id": request.correlation_id,
            "requested_at": request.requested_at,
        }
        return NewClaim(request.request_id, asked.sha256, asked.home, summary)

    def _count(self, rulings: Collection[Ruling]) -> None:
        for ruling in rulings:
            self._metrics.requests.labels(_COUNTED[ruling.standing]).inc()


_COUNTED = {
    Standing.MINE: "new",
    Standing.FOUND: "adopted",
    Standing.SETTLED: "adopted",
    Standing.PARKED: "adopted",
    Standing.DUPLICATE: "duplicate",
    Standing.DONE: "duplicate",
    Standing.CONFLICT: "duplicate",
    Standing.UNREADABLE: "undecodable",
    Standing.BROKEN: "undecodable",
}


def _fresh(asked: Asked, me: Owner) -> Claim:
    return Claim(asked.request.request_id, asked.sha256, asked.home, me)
