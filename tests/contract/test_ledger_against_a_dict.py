"""Any sequence of calls, of several lives of two workers, answered by every ledger as by the dict."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from pipeline.errors import SupersededError
from pipeline.jobs import Outcome
from pipeline.ledger import Cancel, Claim, Home, Ledger, NewClaim, Owner
from tests.contract.dict_ledger import DictLedger
from tests.contract.stores import ADAPTERS, AT, failed, place_for, registered

IDS = ["r-0", "r-1"]
ONE = st.sampled_from(IDS)
SOME = st.lists(ONE, unique=True, min_size=1)
LIVES = st.sampled_from([Owner("w-1", 1), Owner("w-1", 2), Owner("w-2", 1)])
WHO = st.none() | LIVES  # None is whoever owns the request: of calls by others most are merely refused
CANCELS = st.builds(Cancel, st.sampled_from(["slow", "wrong"]), st.just("ann"), st.just(AT))
NEGATIVE = st.builds(failed, ONE, st.sampled_from(["one", "another"]))
OUTCOMES = NEGATIVE | st.builds(registered, ONE)
EXPIRED_S, LASTING_S = 0.0, 1_000.0


def by_id(strategy: st.SearchStrategy[Outcome]) -> st.SearchStrategy[list[Outcome]]:
    return st.lists(strategy, unique_by=lambda outcome: outcome.request_id, min_size=1)


def new(request_id: str, offset: int) -> NewClaim:
    return NewClaim(request_id, f"sha-{offset}", Home("t", 0, offset), {"project": "default", "requested_at": AT})


class LedgerMachine(RuleBasedStateMachine):
    """`ledger` is set by the test; each run uses request ids and workers of its own in it."""

    ledger: Ledger
    runs = 0

    @initialize()
    def begin(self) -> None:
        type(self).runs += 1
        self.model = DictLedger()
        self.seen: dict[str, Claim] = {}

    def own(self, name: str) -> str:
        return f"{self.runs}/{name}"

    def life(self, owner: Owner) -> Owner:
        return Owner(self.own(owner.worker_id), owner.boot)

    def worker(self, who: Owner | None, i: str) -> Owner:
        claim = self.model.read([self.own(i)])[self.own(i)].claim
        owner = None if claim is None or who is not None else claim.owner
        return owner or self.life(who or Owner("w-1", 1))

    def outcomes(self, outcomes: list[Outcome]) -> list[Outcome]:
        return [
            registered(self.own(o.request_id)) if o.error is None else failed(self.own(o.request_id), o.error.message)
            for o in outcomes
        ]

    @rule(worker_id=st.sampled_from(["w-1", "w-2"]))
    def boot(self, worker_id: str) -> None:
        assert self.ledger.boot(self.own(worker_id)) == self.model.boot(self.own(worker_id))

    @rule(life=LIVES, lease_s=st.sampled_from([EXPIRED_S, LASTING_S]), watched=SOME)
    def heartbeat(self, life: Owner, lease_s: float, watched: list[str]) -> None:
        me, ids = self.life(life), [self.own(i) for i in watched]
        try:
            expected = self.model.heartbeat(me, lease_s, ids)
        except SupersededError:
            with pytest.raises(SupersededError):
                self.ledger.heartbeat(me, lease_s, ids)
        else:
            assert self.ledger.heartbeat(me, lease_s, ids) == expected

    @rule(life=LIVES)
    def leave(self, life: Owner) -> None:
        self.model.leave(self.life(life))
        self.ledger.leave(self.life(life))

    @rule(life=LIVES, ids=SOME, offset=st.integers(0, 9))
    def claim(self, life: Owner, ids: list[str], offset: int) -> None:
        claims = [new(self.own(i), offset) for i in ids]
        assert self.ledger.claim(self.life(life), claims) == self.model.claim(self.life(life), claims)

    @rule(life=LIVES, i=ONE, offset=st.integers(0, 9))
    def fill_stub(self, life: Owner, i: str, offset: int) -> None:
        me, claim = self.life(life), new(self.own(i), offset)
        assert self.ledger.fill_stub(me, claim) == self.model.fill_stub(me, claim)

    @rule(life=LIVES, i=ONE, lost_worker=st.booleans(), blame=st.booleans(), look=st.booleans())
    def take_over(self, life: Owner, i: str, lost_worker: bool, blame: bool, look: bool) -> None:
        """By what was seen the last time, or by a new look."""
        me, claim = self.life(life), self.ledger.read([self.own(i)])[self.own(i)].claim
        if claim is not None:
            seen = claim if look else self.seen.get(i, claim)
            self.seen[i] = claim
            expected = self.model.take_over(me, seen, lost_worker=lost_worker, blame=blame)
            assert self.ledger.take_over(me, seen, lost_worker=lost_worker, blame=blame) == expected

    @rule(who=WHO, i=ONE)
    def start(self, who: Owner | None, i: str) -> None:
        me = self.worker(who, i)
        assert self.ledger.start(me, self.own(i)) == self.model.start(me, self.own(i))

    @rule(who=WHO, i=ONE)
    def crashed(self, who: Owner | None, i: str) -> None:
        me = self.worker(who, i)
        assert self.ledger.crashed(me, self.own(i)) == self.model.crashed(me, self.own(i))

    @rule(who=WHO, outcomes=by_id(NEGATIVE))
    def close(self, who: Owner | None, outcomes: list[Outcome]) -> None:
        me, own = self.worker(who, outcomes[0].request_id), self.outcomes(outcomes)
        assert self.ledger.close(me, own) == self.model.close(me, own)

    @rule(outcomes=by_id(OUTCOMES))
    def insert_outcomes(self, outcomes: list[Outcome]) -> None:
        own = self.outcomes(outcomes)
        assert self.ledger.insert_outcomes(own) == self.model.insert_outcomes(own)

    @rule(who=WHO, ids=SOME)
    def release(self, who: Owner | None, ids: list[str]) -> None:
        me = self.worker(who, ids[0])
        self.model.release(me, [self.own(i) for i in ids])
        self.ledger.release(me, [self.own(i) for i in ids])

    @rule(i=ONE, cancel=CANCELS)
    def cancel(self, i: str, cancel: Cancel) -> None:
        assert self.ledger.cancel(self.own(i), cancel) == self.model.cancel(self.own(i), cancel)

    @invariant()
    def every_request_stands_as_in_the_dict(self) -> None:
        ids = [self.own(i) for i in IDS]
        assert self.ledger.read(ids) == self.model.read(ids)


@pytest.mark.parametrize("adapter", ADAPTERS)
def test_any_sequence_of_calls_is_answered_as_by_a_dict(
    adapter: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    with place_for(adapter, request, tmp_path).ledger() as ledger:
        ledger.prepare()
        machine = type("Machine", (LedgerMachine,), {"ledger": ledger})
        run_state_machine_as_test(
            machine,
            settings=settings(
                max_examples=300 if adapter == "sqlite" else 60,
                stateful_step_count=40,
                deadline=None,
                suppress_health_check=[HealthCheck.too_slow],
            ),
        )
