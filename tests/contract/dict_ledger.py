"""The ledger as one dict a collection: what the contract means, and what the real ones are compared with."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from pipeline.errors import SupersededError
from pipeline.jobs import Outcome
from pipeline.ledger import Cancel, Claim, Entry, NewClaim, Owner, RequestRow


class DictLedger:
    """Implements pipeline.ledger.Ledger; for one thread."""

    def __init__(self, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._clock = clock
        self._claims: dict[str, Claim] = {}
        self._made: dict[str, tuple[datetime, NewClaim]] = {}
        self._outcomes: dict[str, Outcome] = {}
        self._leases: dict[str, tuple[int, datetime]] = {}

    def prepare(self) -> None:
        pass

    def boot(self, worker_id: str) -> Owner:
        boot = 1 + (self._leases[worker_id][0] if worker_id in self._leases else 0)
        self._leases[worker_id] = (boot, self._clock())
        return Owner(worker_id, boot)

    def heartbeat(self, me: Owner, lease_s: float, watched: Collection[str]) -> Mapping[str, Cancel]:
        if me.worker_id in self._leases and self._leases[me.worker_id][0] > me.boot:
            raise SupersededError(me.worker_id)
        self._leases[me.worker_id] = (me.boot, self._clock() + timedelta(seconds=lease_s))
        claims = [self._claims[i] for i in watched if i in self._claims]
        return {claim.request_id: claim.cancel for claim in claims if claim.cancel is not None}

    def leave(self, me: Owner) -> None:
        if me.worker_id in self._leases and self._leases[me.worker_id][0] == me.boot:
            self._leases[me.worker_id] = (me.boot, self._clock())

    def claim(self, me: Owner, claims: Sequence[NewClaim]) -> frozenset[str]:
        return frozenset(
            self._own(me, new, Claim(new.request_id, None, None, None)).request_id
            for new in claims
            if new.request_id not in self._claims
        )

    def read(self, request_ids: Collection[str]) -> Mapping[str, Entry]:
        return {i: Entry(self._claims.get(i), self._outcomes.get(i), self._owner_lives(i)) for i in request_ids}

    def fill_stub(self, me: Owner, claim: NewClaim) -> Claim | None:
        stub = self._claims.get(claim.request_id)
        return None if stub is None or stub.home is not None else self._own(me, claim, stub)

    def take_over(self, me: Owner, seen: Claim, *, lost_worker: bool, blame: bool) -> Claim | None:
        claim = self._claims.get(seen.request_id)
        if claim is None or claim.home is None or (claim.owner, claim.closing) != (seen.owner, seen.closing):
            return None
        losses = claim.worker_losses + (1 if lost_worker and (blame or claim.worker_losses == 0) else 0)
        return self._store(replace(claim, owner=me, worker_losses=losses))

    def start(self, me: Owner, request_id: str) -> bool:
        claim = self._mine(me, request_id)
        return claim is not None and self._store(replace(claim, started=me)) is not None

    def crashed(self, me: Owner, request_id: str) -> int | None:
        claim = self._mine(me, request_id)
        if claim is None:
            return None
        return self._store(replace(claim, trainer_crashes=claim.trainer_crashes + 1)).trainer_crashes

    def blame(self, me: Owner, request_ids: Collection[str], losses: int) -> None:
        for claim in [self._mine(me, request_id) for request_id in request_ids]:
            if claim is not None:
                self._store(replace(claim, worker_losses=claim.worker_losses + losses))

    def close(self, me: Owner, outcomes: Sequence[Outcome]) -> frozenset[str]:
        accepted = set()
        for outcome in outcomes:
            claim = self._mine(me, outcome.request_id)
            if claim is not None and self._store(replace(claim, closing=claim.closing or outcome)).closing == outcome:
                accepted.add(outcome.request_id)
        return frozenset(accepted)

    def insert_outcomes(self, outcomes: Sequence[Outcome]) -> Mapping[str, Outcome]:
        return {outcome.request_id: self._outcomes.setdefault(outcome.request_id, outcome) for outcome in outcomes}

    def release(self, me: Owner, request_ids: Collection[str]) -> None:
        for claim in [self._mine(me, request_id) for request_id in request_ids]:
            if claim is not None:
                self._store(replace(claim, owner=None))

    def cancel(self, request_id: str, cancel: Cancel) -> bool:
        if request_id in self._outcomes:
            return False
        claim = self._claims.get(request_id, Claim(request_id, None, None, None))
        self._store(replace(claim, cancel=claim.cancel or cancel))
        return True

    def requests(
        self, *, project: str | None = None, model_name: str | None = None, unfinished: bool = False, limit: int = 50
    ) -> Sequence[RequestRow]:
        rows = []
        for i, claim in self._claims.items():
            claimed_at, summary = (self._made[i][0], self._made[i][1].summary) if i in self._made else (None, {})
            wanted = project in (None, summary.get("project")) and model_name in (None, summary.get("model_name"))
            if wanted and not (unfinished and i in self._outcomes):
                rows.append(RequestRow(i, summary, claimed_at, claim.owner, self._outcomes.get(i)))
        never = datetime.min.replace(tzinfo=UTC)
        rows.sort(key=lambda row: row.request_id)
        rows.sort(key=lambda row: row.claimed_at or never, reverse=True)
        return rows[:limit]

    def _own(self, me: Owner, new: NewClaim, claim: Claim) -> Claim:
        self._made[new.request_id] = (self._clock(), new)
        return self._store(replace(claim, request_sha256=new.request_sha256, home=new.home, owner=me))

    def _store(self, claim: Claim) -> Claim:
        self._claims[claim.request_id] = claim
        return claim

    def _mine(self, me: Owner, request_id: str) -> Claim | None:
        claim = self._claims.get(request_id)
        return claim if claim is not None and claim.owner == me else None

    def _owner_lives(self, request_id: str) -> bool:
        owner = self._claims[request_id].owner if request_id in self._claims else None
        boot, alive_until = self._leases.get(owner.worker_id, (0, None)) if owner else (0, None)
        return owner is not None and boot == owner.boot and alive_until is not None and alive_until > self._clock()
