"""The ledger: which worker trains which request, and how each request ended.

It has three collections.  A normal request only inserts into them; entries change only when something goes wrong:

- *claims* (`training_requests`): one per request_id, inserted by the worker that will train it;
- *outcomes* (`training_outcomes`): one per request_id; the first writer wins, and it never changes;
- *workers*: the lease of each worker, by the store's own clock.

All adapters pass tests/contract/test_ledger.py.  All methods may raise TransientError when the store does not answer;
the write may then have been applied or not, and may still be applied later.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from pipeline.jobs import Outcome


@dataclass(frozen=True, slots=True)
class Owner:
    """One life of a worker; `boot` rises by one with every start, so an older life is never taken for a newer one."""

    worker_id: str
    boot: int


@dataclass(frozen=True, slots=True)
class Home:
    """The record that claims, trains and announces a request; other records with its id are duplicates."""

    topic: str
    partition: int
    offset: int


@dataclass(frozen=True, slots=True)
class NewClaim:
    """The claim that a worker inserts for a request.

    `summary` is what lists of requests show (project, model_name, user, algorithm, dataset_name, job_name,
    correlation_id, requested_at): plain values, never read by the protocol.
    """

    request_id: str
    request_sha256: str
    home: Home
    summary: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Cancel:
    """A wish to cancel a request, from the control topic."""

    reason: str
    user: str
    requested_at: datetime


@dataclass(frozen=True, slots=True)
class Claim:
    """A claim as it is stored.

    A *stub* has neither home nor owner: it holds a cancel that came before its request.  `closing` is the negative
    outcome that an owner decided on; it is never cleared, and whoever takes the claim over inserts it.  `started` is
    the owner that noted, before it fed the request to a trainer, that it would; only requests under which a worker has
    died before have it.
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
    """A request's claim and outcome, read together, and whether the claim's owner lives.

    An owner lives if its row has the same boot and its lease ends after the store's present.
    """

    claim: Claim | None
    outcome: Outcome | None
    owner_lives: bool


@dataclass(frozen=True, slots=True)
class RequestRow:
    """One line of `tensorfleet requests`: the claim's summary, and the outcome if there is one."""

    request_id: str
    summary: Mapping[str, Any]
    claimed_at: datetime | None
    owner: Owner | None
    outcome: Outcome | None


class Ledger(Protocol):
    """All writes are durable (majority-written and journalled) when a method returns."""

    def prepare(self) -> None:
        """Create collections and indexes; may be called again, and by several workers at once."""
        ...

    def boot(self, worker_id: str) -> Owner:
        """Start a new life of this worker: raise its boot counter by one and return the new owner."""
        ...

    def heartbeat(self, me: Owner, lease_s: float, watched: Collection[str]) -> Mapping[str, Cancel]:
        """Extend my lease to the store's clock + lease_s; return the cancels of watched requests.

        Raises SupersededError, and writes nothing, if the row has a newer boot.
        """
        ...

    def leave(self, me: Owner) -> None:
        """End my lease now, so that others can take over my claims at once."""
        ...

    def claim(self, me: Owner, claims: Sequence[NewClaim]) -> frozenset[str]:
        """Insert the claims that do not exist yet, in one unordered call; return the request_ids that are now mine.

        Request ids are distinct within one call.  The other claims exist already; read() returns them.
        """
        ...

    def read(self, request_ids: Collection[str]) -> Mapping[str, Entry]:
        """An entry for each id; unknown ids have neither claim nor outcome."""
        ...

    def fill_stub(self, me: Owner, claim: NewClaim) -> Claim | None:
        """Make a stub (no home yet) my claim and keep its cancel; None if it is no longer a stub."""
        ...

    def take_over(self, me: Owner, seen: Claim, *, lost_worker: bool, blame: bool) -> Claim | None:
        """Become the owner if owner and closing are still as in `seen`; return the changed claim, else None.

        With lost_worker the former owner died: worker_losses rises if this is the first loss or `blame` is true.
        """
        ...

    def start(self, me: Owner, request_id: str) -> bool:
        """Note that I am about to feed this request to a trainer; False if I am not its owner."""
        ...

    def crashed(self, me: Owner, request_id: str) -> int | None:
        """Count one crash of a trainer under this request; return the count, None if I am not its owner."""
        ...

    def blame(self, me: Owner, request_ids: Collection[str], losses: int) -> None:
        """Add `losses` lost workers to those of these claims that are mine, before an error about them ends this
        worker.
        """
        ...

    def close(self, me: Owner, outcomes: Sequence[Outcome]) -> frozenset[str]:
        """Write negative outcomes into `closing` where I am the owner and it is empty; return the accepted ids.

        A claim of mine that already has an equal closing counts as accepted.
        """
        ...

    def insert_outcomes(self, outcomes: Sequence[Outcome]) -> Mapping[str, Outcome]:
        """Insert each outcome unless its request has one; return the valid outcome of every id."""
        ...

    def release(self, me: Owner, request_ids: Collection[str]) -> None:
        """Unset the owner of those of these claims that are mine; keep everything else."""
        ...

    def cancel(self, request_id: str, cancel: Cancel) -> bool:
        """Set the cancel flag, on a stub if the request is unknown; False if the request already has an outcome.

        A later cancel does not replace the first.  A stub is kept for seven days.
        """
        ...

    def requests(
        self, *, project: str | None = None, model_name: str | None = None, unfinished: bool = False, limit: int = 50
    ) -> Sequence[RequestRow]:
        """The newest requests first."""
        ...
