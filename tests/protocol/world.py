"""The states of the protocol: what is durable, what the broker knows, and what two workers have in mind.

All is immutable and hashable. Records, requests, partitions and workers are numbers. A state says no more than what
can make a difference later: generations and assignment epochs, for one, are told only as "still the same".
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

Life = tuple[int, int]
"""(worker, boot)"""
Outcome = tuple[str, int]
"""(GOOD, BAD or CANCELLED, the worker whose result it is)"""
GOOD, BAD, CANCELLED = "good", "bad", "cancelled"
UP, DOWN, STOPPED = "up", "down", "stopped"

# Phases of a job in a worker, in their order.
PARKED = "parked"
"""Somebody else has it, or may have."""
WAITING = "waiting"
TRAINING = "training"
TRAINED = "trained"
KEPT = "kept"
"""Its model file is stored."""
NEGATIVE = "negative"
"""A negative outcome was decided on here, or found as `closing`."""
CLOSED = "closed"
STANDING = "standing"
"""The ledger has a good outcome; its document is to be looked after."""
NUMBERED = "numbered"
"""The highest version was read."""

PROTECTIONS = {
    "unique outcome": "an outcome is inserted only where there is none",
    "home": "only the record that made the claim is trained and announced",
    "line": "a request starts when the one before it, of its model and partition, is stored",
    "closing": "a negative outcome goes through the claim, by compare-and-set on its owner",
    "compare-and-set": "a take-over only succeeds if owner and closing are as they were seen",
    "store's clock": "whether a lease has run out is for the store's clock to say",
    "first beat": "a worker's lease runs before it claims anything",
    "steady": "nothing is taken over before the ledger has answered for a whole lease",
    "unanswered": "what a late take-over puts into a worker's name is given back by its heartbeat",
    "unanswered again": "a take-over that came through after all is unanswered again when it is released",
    "found": "what was found in a worker's name is released with its partition, although it was not adopted yet",
    "taken together": "offsets are sent with the membership under which they were put together",
    "dropped on revoke": "waiting announcements go with the assignment that they belong to",
    "unique version": "a version of a model is inserted only once",
    "look-up": "after a duplicate the request is looked up before the next version is tried",
    "require_stable": "committed offsets are read only when no transaction on them is open",
    "in doubt": "after a transaction in doubt the committed tag tells whether it took place",
    "transaction": "events and offsets become visible together",
}
"""What can be left out, one at a time: then there must be a way to break a law."""

FAULTS = {
    "kill": "a worker dies, its commit sent or not, and may come back with the next boot",
    "stop": "a worker stands still, perhaps for longer than its lease and session, and may go on",
    "rebalance": "a partition is taken from a living worker; any, the same included, gets it",
    "doubt": "the end of a transaction is not answered: applied now, later or never",
    "late": "a write to ledger or registry is not answered: applied now, later or never",
    "outage": "the ledger does not answer for longer than a lease",
}


@dataclass(frozen=True)
class Scenario:
    """What is on the topic at the start: (partition, request) for each record; requests of one number share a model.

    Trainings of the requests in `bad` may end badly. `released` requests begin with a claim that an earlier owner has
    given up.
    """

    name: str
    records: tuple[tuple[int, int], ...]
    models: tuple[int, ...]
    owners: tuple[int, ...]
    cancel: bool = False
    released: bool = False
    bad: tuple[int, ...] = (0,)

    @property
    def partitions(self) -> int:
        return len(self.owners)


SCENARIOS = {
    one.name: one
    for one in (
        Scenario("one request", ((0, 0),), (0,), (0,)),
        Scenario("one request and its cancel", ((0, 0),), (0,), (0,), cancel=True),
        Scenario("one request, released before", ((0, 0),), (0,), (0,), released=True, bad=()),
        Scenario("two of a model in line", ((0, 0), (0, 1)), (0, 0), (0,)),
        Scenario("two of a model, apart", ((0, 0), (1, 1)), (0, 0), (0, 1), bad=()),
        Scenario("a request and its repeat, apart", ((0, 0), (1, 0)), (0,), (0, 1), bad=()),
    )
}


class Claim(NamedTuple):
    """A claim as it is stored; a stub has no home."""

    home: int | None
    owner: Life | None
    closing: Outcome | None = None
    cancel: bool = False


class Job(NamedTuple):
    """A request in a worker.

    Attributes:
        record: its home, None once the partition has gone.
        outcome: decided on, or standing.
        version: read or tried.
        found: it was parked although the ledger says that it is ours: to be looked at once more.
    """

    phase: str
    record: int | None
    outcome: Outcome | None = None
    version: int = 0
    found: bool = False


class Said(NamedTuple):
    """What is to be said, or was said, of a record; nothing but its offset, if there is no outcome."""

    record: int
    outcome: Outcome | None
    version: int = 0


class Group(NamedTuple):
    """Announcements on their way. `sent`, `done`: the transaction is open, has ended. `doubt`: nobody knows.

    `fresh`: the generation that it was put together under is still the broker's. `lost`: partitions whose assignment
    has gone since, as bits.
    """

    stage: str
    said: tuple[Said, ...]
    commits: tuple[tuple[int, int], ...]
    fresh: bool = True
    lost: int = 0


class Transaction(NamedTuple):
    """Open at the broker; `ending`: the order to commit is under way, and may come."""

    said: tuple[Said, ...]
    commits: tuple[tuple[int, int], ...]
    ending: bool = False


class Worker(NamedTuple):
    """One process, and what the ledger and the broker know of it.

    Attributes:
        lease: its row carries its boot, and is ahead of the store's clock.
        steady: the ledger has answered it for a whole lease.
        member: 1 in the group, 2 only its former life still is, 0 not.
        owned: by partition, what the main thread knows: 1 if ours.
        heard: by partition, what the poll thread knows: 1 the same assignment, 2 a newer one, 0 none.
        records: by record: "-" not delivered, "asked", "job", "repeat", "group", "done", or what is to be said.
        jobs: by request.
        orders: to the claims thread, and its rulings, in their order: (what, record or request, current, ...).
        unanswered: requests whose take-over was not answered; `cleared`: those of them that turned out to be its own.
        honest: it was not stopped past its lease in this life.
    """

    records: tuple[Any, ...]
    jobs: tuple[Job | None, ...]
    owned: tuple[int, ...]
    heard: tuple[int, ...]
    status: str = UP
    boot: int = 1
    lease: bool = True
    steady: bool = True
    member: int = 1
    orders: tuple[tuple[Any, ...], ...] = ()
    group: Group | None = None
    unanswered: frozenset[int] = frozenset()
    cleared: frozenset[int] = frozenset()
    honest: bool = True


class State(NamedTuple):
    """Attributes:
    documents: (request, version), in the order of their insertion.
    events: visible terminal events.
    committed, tags: by partition: the records that are finished, as bits; the worker whose latest group wrote it.
    owners: by partition, to the broker's mind.
    late: a write that was not answered, and may still be applied.
    left: faults that may still happen.
    """

    claims: tuple[Claim | None, ...]
    outcomes: tuple[Outcome | None, ...]
    documents: tuple[tuple[int, int], ...]
    events: tuple[Said, ...]
    committed: tuple[int, ...]
    tags: tuple[int | None, ...]
    owners: tuple[int | None, ...]
    transactions: tuple[Transaction | None, ...]
    workers: tuple[Worker, ...]
    late: tuple[Any, ...] | None
    left: int
    cancel: bool


@dataclass(frozen=True)
class Bounds:
    """At most `count` faults of these kinds, with these protections left out."""

    scenario: Scenario
    faults: frozenset[str] = frozenset()
    count: int = 0
    without: frozenset[str] = field(default=frozenset())


def start(bounds: Bounds) -> State:
    """Both workers are members; nothing has been polled."""
    scenario = bounds.scenario
    requests, partitions = len(scenario.models), scenario.partitions
    workers = []
    for number in range(2):
        owned = tuple(int(owner == number) for owner in scenario.owners)
        workers.append(Worker(("-",) * len(scenario.records), (None,) * requests, owned, owned))
    claim = Claim(0, None) if scenario.released else None
    return State(
        claims=(claim,) * requests,
        outcomes=(None,) * requests,
        documents=(),
        events=(),
        committed=(0,) * partitions,
        tags=(None,) * partitions,
        owners=scenario.owners,
        transactions=(None, None),
        workers=tuple(workers),
        late=None,
        left=bounds.count,
        cancel=scenario.cancel,
    )


def put(values: tuple[Any, ...], at: int, value: Any) -> tuple[Any, ...]:
    return (*values[:at], value, *values[at + 1 :])
