"""What can happen next in a state: every step of two workers, of the broker, of time, and every fault.

A step is as large as what nothing can come between: one write, one transaction call, one message handled by a
worker's main thread. Where two of these can be told apart by nobody they are one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from tests.protocol.world import (
    BAD,
    CANCELLED,
    CLOSED,
    DOWN,
    GOOD,
    KEPT,
    NEGATIVE,
    NUMBERED,
    PARKED,
    PROTECTIONS,
    STANDING,
    STOPPED,
    TRAINED,
    TRAINING,
    UP,
    WAITING,
    Bounds,
    Claim,
    Group,
    Job,
    Life,
    Outcome,
    Said,
    State,
    Transaction,
    Worker,
    put,
)

PROGRESS, FREE, FAULT = "progress", "free", "fault"
"""FREE is what may happen, but nothing may depend on it: a worker that comes back, a cancel that is sent."""

VERSIONS = 4
"""More are never tried: with three a law is broken."""


class Step(NamedTuple):
    label: str
    kind: str
    state: State


Steps = Iterator[Step]


class Protocol:
    """The steps within these bounds."""

    def __init__(self, bounds: Bounds) -> None:
        self._bounds = bounds
        self._records = bounds.scenario.records
        self._models = bounds.scenario.models
        self._keeps = {name: name not in bounds.without for name in PROTECTIONS}
        self._home, self._dropped = self._keeps["home"], self._keeps["dropped on revoke"]

    def steps(self, state: State) -> Steps:
        """Everything that can happen next, or one step that is nobody else's business.

        What such a step changes, nobody else sees, and whatever else may happen can as well happen after it.
        """
        for me, worker in enumerate(state.workers):
            if worker.status == UP and (alone := self._alone(state, me, worker)):
                yield alone
                return
        for me, worker in enumerate(state.workers):
            if worker.status == UP:
                yield from self._membership(state, me, worker)
                yield from self._orders(state, me, worker)
                yield from self._jobs(state, me, worker)
                yield from self._announcing(state, me, worker)
                yield from self._heartbeat(state, me, worker)
            yield from self._time(state, me, worker)
        yield from self._broker(state)
        if state.late is not None:
            label = f"the late write is applied: {state.late[0]} {_r(state.late[1])}"
            yield Step(label, FREE, self._write(state, state.late)[0]._replace(late=None))
        if state.cancel:
            for request, claim in enumerate(state.claims):
                if state.outcomes[request] is None:
                    flagged = Claim(None, None, cancel=True) if claim is None else claim._replace(cancel=True)
                    claims = put(state.claims, request, flagged)
                    yield Step(f"somebody cancels {_r(request)}", FREE, state._replace(claims=claims, cancel=False))
        if state.left:
            yield from self._faults(state._replace(left=state.left - 1))

    def _alone(self, state: State, me: int, worker: Worker) -> Step | None:
        if worker.group is not None and worker.group.stage == "done":
            noted = self._settle(state, me, worker, worker.group)
            return Step(f"{_w(me)} notes that it is committed", PROGRESS, noted)
        for request, job in enumerate(worker.jobs):
            if job is not None and job.phase == TRAINED:
                jobs = put(worker.jobs, request, job._replace(phase=KEPT, outcome=(GOOD, me)))
                return Step(
                    f"{_w(me)} stores the model file of {_r(request)}",
                    PROGRESS,
                    _with(state, me, worker._replace(jobs=jobs)),
                )
        return None

    # What is written ----------------------------------------------------------------------------------------------

    def _write(self, state: State, write: tuple[Any, ...]) -> tuple[State, Any]:
        """Apply one write to the ledger or the registry; returns its answer too."""
        what, request = write[0], write[1]
        if what == "outcome":
            standing = state.outcomes[request]
            if standing is not None and self._keeps["unique outcome"]:
                return state, standing
            return state._replace(outcomes=put(state.outcomes, request, write[2])), write[2]
        if what == "document":
            return self._insert_document(state, request, write[2])
        claim, after = state.claims[request], _CLAIM_WRITES[what](state.claims[request], *write[2:])
        if what == "take over" and not self._keeps["compare-and-set"] and claim is not None:
            after = claim._replace(owner=write[2])
        if after is None:
            return state, None
        return state._replace(claims=put(state.claims, request, after)), after

    def _insert_document(self, state: State, request: int, version: int) -> tuple[State, bool]:
        for other, taken in state.documents:
            same_model = self._models[other] == self._models[request]
            if other == request or (same_model and taken == version and self._keeps["unique version"]):
                return state, False
        return state._replace(documents=(*state.documents, (request, version))), True

    def _tried(
        self, state: State, me: int, write: tuple[Any, ...], label: str, then: Callable[[State, Any], State]
    ) -> Steps:
        """A write and what its answer leads to; or, as a fault, no answer, and it is tried again."""
        after, answer = self._write(state, write)
        yield Step(f"{_w(me)} {label}", PROGRESS, then(after, answer))
        if state.left and state.late is None and "late" in self._bounds.faults:
            worker = state.workers[me]
            late = worker.unanswered | {write[1]} if write[0] == "take over" else worker.unanswered
            waits = worker._replace(steady=False, unanswered=late)
            unanswered = _with(state, me, waits)._replace(late=write, left=state.left - 1)
            yield Step(f"{_w(me)} {label}: no answer", FAULT, unanswered)

    # Membership ---------------------------------------------------------------------------------------------------

    def _membership(self, state: State, me: int, worker: Worker) -> Steps:
        if worker.member == 0 and _settled(state):
            joined = _with(state, me, worker._replace(member=1, heard=(0,) * len(worker.heard)))
            yield Step(f"{_w(me)} joins the group", PROGRESS, _new_generation(joined))
        if worker.member == 1 and worker.owned != worker.heard:
            yield Step(f"{_w(me)} hears of its partitions", PROGRESS, self._learn(state, me, worker))
        for partition, heard in enumerate(worker.heard):
            if heard == 1 and worker.owned[partition] and self._undelivered(worker, partition):
                if self._keeps["require_stable"] and _open_on(state, partition):
                    continue
                yield Step(f"{_w(me)} polls {_p(partition)}", PROGRESS, self._poll(state, me, worker, partition))

    def _undelivered(self, worker: Worker, partition: int) -> bool:
        return any(p == partition and worker.records[i] == "-" for i, (p, _) in enumerate(self._records))

    def _learn(self, state: State, me: int, worker: Worker) -> State:
        """Assignment.update and Worker._let_go."""
        gone = {p for p, owned in enumerate(worker.owned) if owned and worker.heard[p] != 1}
        owned = tuple(int(heard != 0) for heard in worker.heard)
        worker = worker._replace(owned=owned, heard=owned)
        if not gone:
            return _with(state, me, worker)
        records, jobs, orders = list(worker.records), list(worker.jobs), list(worker.orders)
        for number, (partition, _) in enumerate(self._records):
            if partition in gone and (self._dropped or not isinstance(records[number], Said)):
                records[number] = "-"
        for place, (what, which, *rest) in enumerate(orders):
            if what in _ASKED and self._records[which][0] in gone:
                orders[place] = (what, which, False, *rest[1:])
        for request, job in enumerate(jobs):
            if job is None or job.record is None or self._records[job.record][0] not in gone:
                continue
            handed_back = job.phase in (PARKED, WAITING)
            jobs[request] = None if handed_back else job._replace(record=None)
            if job.phase == WAITING or (job.found and self._keeps["found"]):
                orders.append(("release", request, True))
        group = worker.group
        if group is not None:
            group = group._replace(lost=group.lost | sum(1 << partition for partition in gone))
        changed = worker._replace(records=tuple(records), jobs=tuple(jobs), orders=tuple(orders), group=group)
        return _with(state, me, changed)

    def _poll(self, state: State, me: int, worker: Worker, partition: int) -> State:
        records, orders = list(worker.records), list(worker.orders)
        for number, (at, _) in enumerate(self._records):
            if at == partition and records[number] == "-":
                done = state.committed[partition] >> number & 1
                records[number] = "done" if done else "asked"
                if not done:
                    orders.append(("claim", number, True))
        return _with(state, me, worker._replace(records=tuple(records), orders=tuple(orders)))

    # Claims -------------------------------------------------------------------------------------------------------

    def _orders(self, state: State, me: int, worker: Worker) -> Steps:
        """The claims thread answers the first order it has not answered; the main thread follows a batch of rulings."""
        batch = self._batch(worker.orders)
        if batch and all(order[0] in _RULED for order in batch):
            followed, told = state, []
            for order in batch:
                followed = self._follow(followed, me, followed.workers[me])
                told.append(f"{self._name(order[1])} is {order[0]}")
            yield Step(f"{_w(me)} follows: {', '.join(told)}", PROGRESS, followed)
        for place, order in enumerate(worker.orders):
            if order[0] not in _RULED:
                yield from self._obey(state, me, worker, place, order)
                return

    def _batch(self, orders: tuple[tuple[Any, ...], ...]) -> list[tuple[Any, ...]]:
        """What was asked together is answered together."""
        batch: list[tuple[Any, ...]] = []
        for order in orders:
            if order[0] not in _ASKED or (batch and self._asker(batch[0]) != self._asker(order)):
                break
            batch.append(order)
        return batch

    def _asker(self, order: tuple[Any, ...]) -> tuple[int, bool]:
        return self._records[order[1]][0], order[2]

    def _obey(self, state: State, me: int, worker: Worker, place: int, order: tuple[Any, ...]) -> Steps:
        what, number, current, *rest = order
        life: Life = (me, worker.boot)

        def ruled(state: State, *ruling: Any) -> State:
            worker = state.workers[me]
            return _with(state, me, worker._replace(orders=put(worker.orders, place, ruling)))

        def adopted(state: State, claim: Claim | None) -> State:
            if claim is None:
                return ruled(state, "parked", number, current)
            state = _with(state, me, _cleared(state.workers[me], request))
            return ruled(state, "mine", number, current, claim.closing, claim.cancel)

        if what == "release":

            def released(state: State, _: Any) -> State:
                worker = state.workers[me]
                again = {number} if self._keeps["unanswered again"] else set()
                return _with(state, me, _answered(worker._replace(cleared=worker.cleared - again), place))

            yield from self._tried(state, me, ("release", number, life), f"releases {_r(number)}", released)
            return
        if what == "sweep":
            yield from self._sweep(state, me, worker, place, number)
            return
        request, name = self._records[number][1], self._name(number)
        if what == "claim":

            def claimed(state: State, claim: Claim | None) -> State:
                return ruled(state, "examine", number, current) if claim is None else adopted(state, claim)

            yield from self._tried(state, me, ("claim", request, life, number), f"claims {name}", claimed)
            return
        if what == "take":
            seen = (life, *rest)
            yield from self._tried(state, me, ("take over", request, *seen), f"takes {name} over", adopted)
            return
        standing = state.claims[request]
        assert standing is not None, "it stood in the way of ours"
        if standing.home is None:
            yield from self._tried(state, me, ("fill", request, life, number), f"fills the stub of {name}", adopted)
        else:
            ruling = self._rule(state, me, worker, number)
            read = ruled(state, ruling[0], number, current, *ruling[1:])
            if ruling[0] == "found":
                read = _with(read, me, _cleared(read.workers[me], request))
            yield Step(f"{_w(me)} reads how {name} stands: {ruling[0]}", PROGRESS, read)

    def _sweep(self, state: State, me: int, worker: Worker, place: int, held: frozenset[int]) -> Steps:
        """Claims._sweep; what is unanswered is remembered for longer than looking again takes."""
        orphans = worker.unanswered - worker.cleared - held
        kept = {
            request
            for request in worker.unanswered - orphans
            if request not in worker.cleared and _owner(state, request) == (me, worker.boot)
        }
        if state.late is not None and state.late[0] == "take over":
            kept |= worker.unanswered & {state.late[1]}
        swept = worker._replace(unanswered=frozenset(kept), cleared=worker.cleared & kept)

        def released(state: State, _: Any) -> State:
            return _with(state, me, _answered(swept, place))

        if not orphans:
            yield Step(f"{_w(me)} has nothing unanswered to give back", PROGRESS, released(state, None))
        for request in sorted(orphans):
            yield from self._tried(
                state, me, ("release", request, (me, worker.boot)), "gives an unanswered one back", released
            )

    def _rule(self, state: State, me: int, worker: Worker, number: int) -> tuple[Any, ...]:
        """Claims._rule: what a look at the ledger says of a record, or that it may be taken over."""
        request = self._records[number][1]
        claim, outcome = state.claims[request], state.outcomes[request]
        assert claim is not None
        if claim.home != number and self._home:
            return ("repeat",) if outcome is None else ("over",)
        if outcome is not None:
            return "settled", outcome
        owner = claim.owner
        if owner == (me, worker.boot):
            return "found", claim.closing, claim.cancel
        if owner is not None and owner[0] != me:
            lives = state.workers[owner[0]].boot == owner[1] and state.workers[owner[0]].lease
            if (lives and self._keeps["store's clock"]) or (self._keeps["steady"] and not worker.steady):
                return ("parked",)
        return "take", owner, claim.closing

    def _follow(self, state: State, me: int, worker: Worker) -> State:
        """Worker._follow, _place and _adopt."""
        (what, number, current, *rest), orders = worker.orders[0], worker.orders[1:]
        request = self._records[number][1]
        job = worker.jobs[request]
        worker = worker._replace(orders=orders)
        if not current:
            if what in ("mine", "found") and job is None:
                worker = worker._replace(orders=(*orders, ("release", request, True)))
            return _with(state, me, worker)
        if what in ("repeat", "over"):
            jobs = worker.jobs
            if job is not None and job.record == number and job.phase == PARKED:
                jobs = put(jobs, request, None)
            said: Any = "repeat" if what == "repeat" else Said(number, None)
            return _with(state, me, worker._replace(jobs=jobs, records=put(worker.records, number, said)))
        if job is None:
            job = Job(PARKED, number)
        elif job.record is None:
            job = job._replace(record=number)
        if job.phase == PARKED:
            if what == "settled":
                job = _standing(job, rest[0])
            elif what == "mine" or (what == "found" and job.found):
                closing, cancel = rest
                job = Job(WAITING, job.record)
                if closing is not None or cancel:
                    job = job._replace(phase=NEGATIVE, outcome=closing or (CANCELLED, me))
            else:
                job = job._replace(found=what == "found")
        worker = worker._replace(records=put(worker.records, number, "job"))
        return _with(state, me, _stored(worker, request, job))

    # Jobs ---------------------------------------------------------------------------------------------------------

    def _jobs(self, state: State, me: int, worker: Worker) -> Steps:
        for request, job in enumerate(worker.jobs):
            if job is not None:
                yield from self._job(state, me, worker, request, job)
        for number, said in enumerate(worker.records):
            if said == "repeat" and self._worth_a_look(state, me, worker, number):
                yield Step(f"{_w(me)} looks at {self._name(number)} again", PROGRESS, _look(state, me, worker, number))

    def _job(self, state: State, me: int, worker: Worker, request: int, job: Job) -> Steps:
        phase, name = job.phase, _r(request)

        def becomes(state: State, job: Job | None) -> State:
            return _with(state, me, _stored(state.workers[me], request, job))

        def goes_on(label: str, phase: str, **changes: Any) -> Step:
            return Step(f"{_w(me)} {label} {name}", PROGRESS, becomes(state, job._replace(phase=phase, **changes)))

        if phase == PARKED:
            if self._worth_a_look(state, me, worker, job.record):
                yield Step(f"{_w(me)} looks at {name} again", PROGRESS, _look(state, me, worker, job.record))
        elif phase == WAITING:
            if self._at_head(worker, job):
                yield goes_on("starts", TRAINING)
        elif phase == TRAINING:
            yield goes_on("finishes well", TRAINED)
            if request in self._bounds.scenario.bad:
                yield goes_on("finishes badly", NEGATIVE, outcome=(BAD, me))
        elif phase == NEGATIVE and self._keeps["closing"]:

            def closed(state: State, claim: Claim | None) -> State:
                if claim is not None:
                    return becomes(state, job._replace(phase=CLOSED))
                return becomes(state, None if job.record is None else Job(PARKED, job.record))

            write = ("close", request, (me, worker.boot), job.outcome)
            yield from self._tried(state, me, write, f"closes {name} with {job.outcome}", closed)
        elif phase in (KEPT, CLOSED, NEGATIVE):

            def inserted(state: State, standing: Outcome) -> State:
                return becomes(state, _standing(job, standing))

            yield from self._tried(
                state, me, ("outcome", request, job.outcome), f"inserts the outcome {job.outcome} of {name}", inserted
            )
        elif phase == STANDING:
            versions = [v for other, v in state.documents if self._models[other] == self._models[request]]
            yield goes_on("reads the highest version for", NUMBERED, version=max(versions, default=0) + 1)
        elif phase == NUMBERED and job.version < VERSIONS:
            yield from self._number(state, me, request, job, becomes)
        claim = state.claims[request]
        if claim is not None and claim.cancel and phase in (WAITING, TRAINING):
            cancelled = job._replace(phase=NEGATIVE, outcome=(CANCELLED, me))
            yield Step(f"{_w(me)} stops {name}: cancelled", PROGRESS, becomes(state, cancelled))

    def _number(
        self, state: State, me: int, request: int, job: Job, becomes: Callable[[State, Job | None], State]
    ) -> Steps:
        """An insert of the next version; refused, the request is looked up before the next is tried."""

        def answered(state: State, inserted: bool) -> State:
            if inserted:
                return becomes(state, job._replace(phase=""))
            found = dict(state.documents).get(request)
            if not self._keeps["look-up"]:
                return becomes(state, job._replace(version=job.version + 1))
            return becomes(state, job._replace(phase=STANDING if found is None else "", version=found or 0))

        label = f"inserts {_r(request)} as v{job.version}"
        yield from self._tried(state, me, ("document", request, job.version), label, answered)

    def _at_head(self, worker: Worker, job: Job) -> bool:
        """Whether no earlier request of the model is in this partition's line."""
        if job.record is None:
            return False
        if not self._keeps["line"]:
            return True
        partition, request = self._records[job.record]
        for other in worker.jobs:
            if other is not None and other.record is not None and other.record < job.record:
                at, earlier = self._records[other.record]
                if at == partition and self._models[earlier] == self._models[request]:
                    return False
        return True

    def _worth_a_look(self, state: State, me: int, worker: Worker, number: int | None) -> bool:
        """Looking is left out where it changes nothing, or is under way."""
        if number is None or any(order[0] in _ASKED and order[1] == number for order in worker.orders):
            return False
        ruling = self._rule(state, me, worker, number)[0]
        return ruling not in ("parked", "repeat") or (worker.records[number] == "job" and ruling == "repeat")

    # Announcing ---------------------------------------------------------------------------------------------------

    def _announcing(self, state: State, me: int, worker: Worker) -> Steps:
        group = worker.group
        if group is None:
            if worker.member == 1 and (worker.owned == worker.heard or not self._keeps["taken together"]):
                said = tuple(one for one in worker.records if isinstance(one, Said) and self._owns(worker, one))
                if said:
                    yield Step(f"{_w(me)} sends events and offsets", PROGRESS, self._send(state, me, worker, said))
        elif group.stage == "sent":
            if state.transactions[me] is None:
                yield Step(f"{_w(me)} is fenced, and exits", PROGRESS, _dies(state, me, worker))
                return
            done = _with(state, me, worker._replace(group=group._replace(stage="done")))
            yield Step(f"{_w(me)}'s transaction is committed", PROGRESS, _commit(done, me))
            if state.left and "doubt" in self._bounds.faults:
                doubtful = _with(state, me, worker._replace(group=group._replace(stage="doubt")))
                yield Step(f"{_w(me)} hears nothing of its commit", FAULT, _ending(doubtful, me, state.left - 1))
        elif group.stage == "doubt" and not any(_open_on(state, partition, but=me) for partition, _ in group.commits):
            yield self._resolve(state, me, worker, group)

    def _owns(self, worker: Worker, said: Said) -> bool:
        return bool(worker.owned[self._records[said.record][0]])

    def _send(self, state: State, me: int, worker: Worker, said: tuple[Said, ...]) -> State:
        """What was put together under a membership that is out of date is refused, and waits again: not a step."""
        records = worker.records
        for one in said:
            records = put(records, one.record, "group")
        commits = []
        for partition in sorted({self._records[one.record][0] for one in said}):
            done = ("done", "group")
            at = (i for i, (p, _) in enumerate(self._records) if p == partition and records[i] in done)
            commits.append((partition, sum(1 << i for i in at)))
        tags = tuple(None if tag == me else tag for tag in state.tags)
        group = Group("sent", said, tuple(commits))
        return self._begin(state._replace(tags=tags), me, worker._replace(records=records), group)

    def _begin(self, state: State, me: int, worker: Worker, group: Group) -> State:
        """The broker takes offsets from a member with its generation, whatever that member still owns."""
        accepted = worker.member == 1 and (group.fresh or not self._keeps["taken together"])
        if not accepted:
            return _with(state, me, self._refused(worker, group))
        state = _with(state, me, worker._replace(group=group._replace(stage="sent")))
        opened = Transaction(group.said, group.commits)
        if not self._keeps["transaction"]:
            state, opened = _show(state, group.said), opened._replace(said=())
        return state._replace(transactions=put(state.transactions, me, opened))

    def _refused(self, worker: Worker, group: Group) -> Worker:
        """Assignment.apply(STALE): what is still ours waits again."""
        records = worker.records
        for one in group.said:
            if self._current(group, one):
                records = put(records, one.record, one)
        return worker._replace(records=records, group=None)

    def _current(self, group: Group, said: Said) -> bool:
        return not (group.lost >> self._records[said.record][0] & 1 and self._dropped)

    def _settle(self, state: State, me: int, worker: Worker, group: Group) -> State:
        records = worker.records
        for one in group.said:
            if self._current(group, one):
                records = put(records, one.record, "done")
        return _with(state, me, worker._replace(records=records, group=None))

    def _resolve(self, state: State, me: int, worker: Worker, group: Group) -> Step:
        """A new producer: its init ends what is open; then the tags tell, or it is sent again."""
        state = state._replace(transactions=put(state.transactions, me, None))
        if self._keeps["in doubt"] and any(state.tags[partition] == me for partition, _ in group.commits):
            took_place = _with(state, me, worker._replace(group=group._replace(stage="done")))
            return Step(f"{_w(me)} finds that its transaction took place", PROGRESS, took_place)
        again = self._begin(state, me, worker, group)
        return Step(f"{_w(me)} finds that it did not, and sends again", PROGRESS, again)

    # Leases, time and the broker ----------------------------------------------------------------------------------

    def _heartbeat(self, state: State, me: int, worker: Worker) -> Steps:
        if not worker.lease:
            yield Step(f"{_w(me)} beats", PROGRESS, _with(state, me, worker._replace(lease=True)))
        if worker.unanswered and self._keeps["unanswered"] and all(order[0] != "sweep" for order in worker.orders):
            held = frozenset(request for request, job in enumerate(worker.jobs) if job is not None)
            swept = worker._replace(orders=(*worker.orders, ("sweep", held, True)))
            yield Step(f"{_w(me)} sweeps", PROGRESS, _with(state, me, swept))
        if not worker.steady and all(one.lease or one.status != UP for one in state.workers):
            steady = _with(state, me, worker._replace(steady=True))
            yield Step(f"a lease without errors passes for {_w(me)}", PROGRESS, steady)

    def _time(self, state: State, me: int, worker: Worker) -> Steps:
        if worker.status != UP and worker.lease:
            late = _with(state, me, worker._replace(lease=False, honest=False))
            yield Step(f"{_w(me)}'s lease runs out", PROGRESS, late)
        if worker.member == 2 or (worker.member == 1 and worker.status != UP):
            owners = tuple(None if owner == me else owner for owner in state.owners)
            evicted = _with(state._replace(owners=owners), me, worker._replace(member=0))
            yield Step(f"{_w(me)}'s session runs out", PROGRESS, _new_generation(evicted))
        if worker.status != UP:
            alone = all(one.status != UP for one in state.workers)
            restarted = _restarted(worker)._replace(lease=self._keeps["first beat"])
            back = {STOPPED: worker._replace(status=UP), DOWN: restarted}[worker.status]
            after = _with(state, me, back)
            if worker.status == DOWN:
                after = after._replace(transactions=put(state.transactions, me, None))
            label = "goes on" if worker.status == STOPPED else "is started again"
            yield Step(f"{_w(me)} {label}", PROGRESS if alone else FREE, after)

    def _broker(self, state: State) -> Steps:
        if _settled(state):
            for partition, owner in enumerate(state.owners):
                for me, worker in enumerate(state.workers):
                    if owner is None and worker.member == 1:
                        heard = worker._replace(heard=put(worker.heard, partition, 2))
                        given = _with(state._replace(owners=put(state.owners, partition, me)), me, heard)
                        yield Step(f"{_w(me)} is given {_p(partition)}", PROGRESS, _new_generation(given))
        for me, transaction in enumerate(state.transactions):
            worker = state.workers[me]
            if transaction is None:
                continue
            if transaction.ending:
                yield Step(f"{_w(me)}'s order to commit arrives", PROGRESS, _commit(state, me))
            if worker.status != UP or transaction.ending:
                ended = state._replace(transactions=put(state.transactions, me, None))
                yield Step(f"{_w(me)}'s transaction times out", PROGRESS, ended)

    # Faults -------------------------------------------------------------------------------------------------------

    def _faults(self, state: State) -> Steps:
        kinds = self._bounds.faults
        for me, worker in enumerate(state.workers):
            if worker.status != UP:
                continue
            if "kill" in kinds:
                yield Step(f"{_w(me)} is killed", FAULT, _dies(state, me, worker))
                if worker.group is not None and worker.group.stage == "sent" and state.transactions[me] is not None:
                    dead = _ending(_dies(state, me, worker), me, state.left)
                    yield Step(f"{_w(me)} is killed, its commit under way", FAULT, dead)
            if "stop" in kinds:
                yield Step(f"{_w(me)} is stopped", FAULT, _with(state, me, worker._replace(status=STOPPED)))
        if "rebalance" in kinds and _settled(state):
            for partition, owner in enumerate(state.owners):
                if owner is not None:
                    worker = state.workers[owner]
                    taken = _with(state, owner, worker._replace(heard=put(worker.heard, partition, 0)))
                    after = taken._replace(owners=put(state.owners, partition, None))
                    yield Step(f"{_p(partition)} is taken from {_w(owner)}", FAULT, _new_generation(after))
        if "outage" in kinds:
            workers = tuple(w._replace(lease=False, steady=w.steady and w.status != UP) for w in state.workers)
            yield Step("the ledger is away for longer than a lease", FAULT, state._replace(workers=workers))

    def _name(self, number: int) -> str:
        partition, request = self._records[number]
        repeated = len(self._models) < len(self._records)
        return f"{_r(request)} at {_p(partition)}" if repeated else _r(request)


_RULED = frozenset({"mine", "found", "settled", "parked", "repeat", "over"})
_ASKED = _RULED | {"claim", "examine", "take"}


def _owner(state: State, request: int) -> Life | None:
    claim = state.claims[request]
    return None if claim is None else claim.owner


def _take_over(claim: Claim | None, me: Life, owner: Life | None, closing: Outcome | None) -> Claim | None:
    if claim is None or claim.home is None or (claim.owner, claim.closing) != (owner, closing):
        return None
    return claim._replace(owner=me)


def _fill(claim: Claim | None, me: Life, number: int) -> Claim | None:
    return None if claim is None or claim.home is not None else claim._replace(home=number, owner=me)


def _close(claim: Claim | None, me: Life, outcome: Outcome) -> Claim | None:
    if claim is None or claim.owner != me or claim.closing not in (None, outcome):
        return None
    return claim._replace(closing=outcome)


def _release(claim: Claim | None, me: Life) -> Claim | None:
    return None if claim is None or claim.owner != me else claim._replace(owner=None)


_CLAIM_WRITES: dict[str, Callable[..., Claim | None]] = {
    "claim": lambda claim, me, number: Claim(number, me) if claim is None else None,
    "fill": _fill,
    "take over": _take_over,
    "close": _close,
    "release": _release,
}
"""The claim after the write; None where it is refused."""


def _standing(job: Job, outcome: Outcome) -> Job:
    return job._replace(phase=STANDING if outcome[0] == GOOD else "", outcome=outcome, found=False)


def _stored(worker: Worker, request: int, job: Job | None) -> Worker:
    """The worker with the job; one that has come to its end is announced if its record is still here."""
    if job is not None and job.phase == "":
        if job.record is not None:
            said = Said(job.record, job.outcome, job.version)
            worker = worker._replace(records=put(worker.records, job.record, said))
        job = None
    return worker._replace(jobs=put(worker.jobs, request, job))


def _cleared(worker: Worker, request: int) -> Worker:
    """Claims._clear: an unanswered one turned out to be ours."""
    return worker._replace(cleared=worker.cleared | ({request} & worker.unanswered))


def _answered(worker: Worker, place: int) -> Worker:
    return worker._replace(orders=(*worker.orders[:place], *worker.orders[place + 1 :]))


def _look(state: State, me: int, worker: Worker, number: int | None) -> State:
    return _with(state, me, worker._replace(orders=(*worker.orders, ("examine", number, True))))


def _with(state: State, me: int, worker: Worker) -> State:
    return state._replace(workers=put(state.workers, me, worker))


def _settled(state: State) -> bool:
    """A rebalance ends only when every member takes part in it."""
    return all(one.member == 0 or (one.member == 1 and one.status == UP) for one in state.workers)


def _new_generation(state: State) -> State:
    workers = []
    for worker in state.workers:
        group = worker.group and worker.group._replace(fresh=False)
        workers.append(worker._replace(group=group))
    return state._replace(workers=tuple(workers))


def _open_on(state: State, partition: int, but: int | None = None) -> bool:
    return any(
        transaction is not None and me != but and any(p == partition for p, _ in transaction.commits)
        for me, transaction in enumerate(state.transactions)
    )


def _commit(state: State, me: int) -> State:
    transaction = state.transactions[me]
    assert transaction is not None
    committed, tags = list(state.committed), list(state.tags)
    for partition, done in transaction.commits:
        committed[partition], tags[partition] = done, me
    after = _show(state, transaction.said)
    ended = put(state.transactions, me, None)
    return after._replace(committed=tuple(committed), tags=tuple(tags), transactions=ended)


def _show(state: State, said: tuple[Said, ...]) -> State:
    """A record without an outcome of its own has nothing to show."""
    return state._replace(events=tuple(sorted((*state.events, *(one for one in said if one.outcome is not None)))))


def _ending(state: State, me: int, left: int) -> State:
    transaction = state.transactions[me]
    assert transaction is not None
    transactions = put(state.transactions, me, transaction._replace(ending=True))
    return state._replace(transactions=transactions, left=left)


def _dies(state: State, me: int, worker: Worker) -> State:
    """Its lease, its membership and its transaction outlive it for a while."""
    nothing = ("-",) * len(worker.records), (None,) * len(worker.jobs), *((0,) * len(worker.owned),) * 2
    dead = Worker(*nothing, DOWN, worker.boot, worker.lease, False, worker.member)
    return _with(state, me, dead)


def _restarted(worker: Worker) -> Worker:
    member = 2 if worker.member else 0
    return worker._replace(status=UP, boot=worker.boot + 1, steady=False, member=member, honest=True)


def _w(me: int) -> str:
    return f"worker {me}"


def _r(request: int) -> str:
    return f"request {'AB'[request]}"


def _p(partition: int) -> str:
    return f"partition {partition}"
