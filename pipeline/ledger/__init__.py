"""The ledger: who trains which request, and how each request ended.

Three collections, inserted into on the way of a normal request and changed only when something goes wrong:

- *claims* (`training_requests`): one per request_id, made by the worker that will train it;
- *outcomes* (`training_outcomes`): one per request_id, the first writer wins, never changed;
- *workers*: the lease of each worker, by the store's own clock.

Every adapter keeps the same contract (tests/contract/test_ledger.py).  All methods may raise TransientError when
the store does not answer; the write may then have been applied or not, and may still be applied later.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from pipeline.jobs import Outcome


@dataclass(frozen=True, slots=True)
class Owner:
    """One life of one worker; `boot` rises by one with every start, so an older life never passes for a newer."""

    worker_id: str
    boot: int


@dataclass(frozen=True, slots=True)
class Home:
    """The one record of a request that claims, trains and announces; other records with its id are duplicates."""

    topic: str
    partition: int
    offset: int


@dataclass(frozen=True, slots=True)
class NewClaim:
    """What a worker writes to make a request its own.

    `summary` is what lists of requests show (project, model_name, user, algorithm, dataset_name, job_name,
    correlation_id, requested_at): plain values, never read by the protocol.
    """

    request_id: str
    request_sha256: str
    home: Home
    summary: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Cancel:
    """A wish to stop a request, from the control topic."""

    reason: str
    user: str
    requested_at: datetime


@dataclass(frozen=True, slots=True)
class Claim:
    """A claim as it is stored.

    A *stub* has neither home nor owner: a cancel that came before its request.  `closing` is the negative outcome
    that an owner has decided on; once set it is never cleared, and whoever takes the claim over inserts it.
    `started` is the owner that wrote, before feeding the request to a trainer, that it would; only requests which
    have already seen a worker die carry it.
    """

    request_id: str
    request_sha256: str | None
    home: Home | None
    owner: Owner | None
    cancel: Cancel | None = None
    trainer_crashes: int = 0
    worker_losses: int = 0
    started: Owner | None = None
    closing: Outcome | None = None


@dataclass(frozen=True, slots=True)
class Entry:
    """A request as the ledger knows it, read in one go: its claim, its outcome, and whether its owner lives.

    An owner lives only if its row carries the same boot and its lease is ahead of the store's clock.
    """

    claim: Claim | None
    outcome: Outcome | None
    owner_lives: bool


@dataclass(frozen=True, slots=True)
class RequestRow:
    """One line of `tensorfleet requests`: the claim's summary, and the outcome where there is one."""

    request_id: str
    summary: Mapping[str, Any]
    claimed_at: datetime | None
    owner: Owner | None
    outcome: Outcome | None


class Ledger(Protocol):
    """All writes are durable (majority-written and journalled) when a method returns."""

    def prepare(self) -> None:
        """Create collections and indexes; safe to call again and from several workers at once."""
        ...

    def boot(self, worker_id: str) -> Owner:
        """Start a new life of this worker: raises its boot counter by one and returns it."""
        ...

    def heartbeat(self, me: Owner, lease_s: float, watched: Collection[str]) -> Mapping[str, Cancel]:
        """Extend my lease to the store's clock + lease_s; returns which of the watched requests are to be cancelled.

        Raises SupersededError, and writes nothing, if the row carries a newer boot.
        """
        ...

    def leave(self, me: Owner) -> None:
        """End my lease now, so that what I own can be taken over at once."""
        ...

    def claim(self, me: Owner, claims: Sequence[NewClaim]) -> frozenset[str]:
        """Insert the claims that do not exist yet, in one unordered call; returns the request_ids that are now mine.

        Request ids are distinct within one call.  The others exist already: read() tells how they stand.
        """
        ...

    def read(self, request_ids: Collection[str]) -> Mapping[str, Entry]:
        """An entry for each id asked for; unknown ids have neither claim nor outcome."""
        ...

    def fill_stub(self, me: Owner, claim: NewClaim) -> Claim | None:
        """Make a stub (no home yet) my claim, keeping its cancel; None if it is no stub any more."""
        ...

    def take_over(self, me: Owner, seen: Claim, *, lost_worker: bool, blame: bool) -> Claim | None:
        """Become the owner, only if owner and closing are still as seen; returns the claim after that, else None.

        With lost_worker the former owner died: worker_losses rises if this is the first loss or if blame is true.
        """
        ...

    def start(self, me: Owner, request_id: str) -> bool:
        """Write that I am about to feed this request to a trainer; False if I am not its owner."""
        ...

    def crashed(self, me: Owner, request_id: str) -> int | None:
        """Count one crash of a trainer under this request; returns the count, None if I am not its owner."""
        ...

    def blame(self, me: Owner, request_ids: Collection[str], losses: int) -> None:
        """Count so many losses of workers for those of these that are mine: an error about them is about to end me."""
        ...

    def close(self, me: Owner, outcomes: Sequence[Outcome]) -> frozenset[str]:
        """Write negative outcomes into `closing` where I am the owner and none is set; returns the accepted ids.

        A claim that already carries an equal closing of mine counts as accepted.
        """
        ...

    def insert_outcomes(self, outcomes: Sequence[Outcome]) -> Mapping[str, Outcome]:
        """Insert each outcome unless its request has one; returns for every id the outcome that stands."""
        ...

    def release(self, me: Owner, request_ids: Collection[str]) -> None:
        """Give up what is mine among these: unsets the owner, keeps everything else."""
        ...

    def cancel(self, request_id: str, cancel: Cancel) -> bool:
        """Set the cancel flag, on a stub if the request is unknown; False if the request already has an outcome.

        The first cancel stands.  A stub is kept for seven days.
        """
        ...

    def requests(
        self, *, project: str | None = None, model_name: str | None = None, unfinished: bool = False, limit: int = 50
    ) -> Sequence[RequestRow]:
        """The newest requests first."""
        ...
