"""Makes results durable, a group at a time: artifact, outcome, registry document, in that order.

The outcome in the ledger counts, whoever wrote it: the first to finish writes it, and a negative outcome is accepted
only while the claim is ours.

An item that meets an internal error ends as FAILED, alone. If FAILED cannot be stored either, or the request has an
outcome already, the worker tries again later; until then its partition's offset waits, which is logged.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import orjson

from consumer import failpoints
from consumer.events.codec import Codec
from consumer.events.outgoing import outcome_messages
from consumer.events.topics import Topics
from consumer.jobs.lease import LEASE_S, Steady
from consumer.jobs.outcomes import Result, Reused, negative_outcome, registered_outcome, reused_outcome
from consumer.jobs.spools import Spools
from consumer.threads.containment import PASSED_ON, contain, halved
from consumer.threads.neighbour import TRANSFER_LIMIT_S, Ordered, Surroundings
from consumer.trainers.protocol import RESULT
from pipeline.artifacts import ArtifactStore, NewArtifact
from pipeline.jobs import ErrorKind, Failure, Outcome, OutcomeKind, RegisteredModel
from pipeline.ledger import Ledger, Owner
from pipeline.registry import Registry
from pipeline.training.trained import Trained

T = TypeVar("T")

GROUP_LIMIT = 200
EVENT_LIMIT_BYTES = 900_000
"""The largest event; the broker's default limit is 1,048,576 bytes with overhead."""
CERTAINLY_FITTING_BYTES = EVENT_LIMIT_BYTES // 3
"""The event of a smaller document fits: an event is at most three times as large as its document as JSON (a number of 3
characters takes 8 bytes)."""
DOCUMENT_LIMIT_BYTES = 12_000_000
"""The largest outcome or registry document as JSON; MongoDB's limit is 16 MiB of BSON."""


@dataclass(frozen=True, slots=True)
class Recorded:
    """An outcome that is in the ledger already; its registry document may be missing."""

    outcome: Outcome


Item = Result | Reused | Outcome | Recorded
"""A bare Outcome is a negative one that is not in the ledger yet."""


@dataclass(frozen=True, slots=True)
class Stored:
    """A stored outcome; `registered` is present only if it is REGISTERED."""

    outcome: Outcome
    registered: RegisteredModel | None


@dataclass(frozen=True, slots=True)
class Unstored:
    """A request whose outcome was not stored.

    Without `again` the claim is not ours any more and our outcome is void: ask the ledger. With `again` every attempt
    met an internal error: store that later.
    """

    request_id: str
    again: Item | None = None


@dataclass(frozen=True, slots=True)
class GroupStored:
    """The answer to a group, one for each request in it."""

    answers: Sequence[Stored | Unstored]


class Registrar(Ordered):
    """Writes the artifacts, the ledger's outcomes and the registry documents."""

    def __init__(
        self,
        me: Owner,
        ledger: Ledger,
        registry: Registry,
        artifacts: ArtifactStore,
        codec: Codec,
        topics: Topics,
        *,
        spools: Spools,
        steady: Steady,
        around: Surroundings,
    ) -> None:
        super().__init__("registrar", around, busy_limit_s=TRANSFER_LIMIT_S)
        self._me = me
        self._ledger = ledger
        self._registry = registry
        self._artifacts = artifacts
        self._codec = codec
        self._topics = topics
        self._spools = spools
        self._steady = steady

    def submit(self, group: Sequence[Item]) -> None:
        """Store these, at most GROUP_LIMIT; answered with a GroupStored."""
        self.order(lambda: self._answer(group))

    def _answer(self, group: Sequence[Item]) -> None:
        answers = halved(group, self._store, self._fail)
        self._deliver(GroupStored(answers))
        again = {answer.request_id for answer in answers if isinstance(answer, Unstored) and answer.again is not None}
        for item in group:  # nobody waits for the disk
            if isinstance(item, Result) and request_id_of(item) not in again:
                self._spools.give_back(item.spool)

    def _store(self, group: Sequence[Item]) -> Sequence[Stored | Unstored]:
        results = [item for item in group if isinstance(item, Result)]
        trained = [*self._upload(results)]
        trained += [self._fitting(reused_outcome(item)) for item in group if isinstance(item, Reused)]
        negatives = [item for item in group if isinstance(item, Outcome)]
        negatives += [outcome for outcome in trained if outcome.kind is not OutcomeKind.REGISTERED]
        for outcome in negatives:  # raises, before it counts, if one has no event
            tuple(outcome_messages(self._codec, self._topics, outcome, None))
        accepted = self._close(negatives) if negatives else frozenset()
        new = [outcome for outcome in trained if outcome.kind is OutcomeKind.REGISTERED]
        new += [outcome for outcome in negatives if outcome.request_id in accepted]
        standing = dict(self._insert(new)) if new else {}
        standing |= {item.outcome.request_id: item.outcome for item in group if isinstance(item, Recorded)}
        documents = self._register(list(standing.values()))
        return [
            *(Stored(outcome, documents.get(request_id)) for request_id, outcome in standing.items()),
            *(Unstored(outcome.request_id) for outcome in negatives if outcome.request_id not in accepted),
        ]

    def _fail(self, item: Item, error: Exception) -> Sequence[Stored | Unstored]:
        """Store FAILED for an item that cannot be stored, unless its request has an outcome already."""
        request_id = request_id_of(item)
        failure = contain(self._metrics, "store", error, request_id=request_id)
        again = item
        try:
            entry = self._answered(lambda: self._ledger.read((request_id,)))[request_id]
            if entry.outcome is not None:
                return [Unstored(request_id, Recorded(entry.outcome))]
            if not isinstance(item, Recorded):
                again = _failed(item, failure)
                answers = self._store([again])
                ours = entry.claim is not None and entry.claim.owner == self._me
                # FAILED was refused although the claim is ours: it is closing with this item already. Try that again.
                return [Unstored(request_id, item)] if ours and isinstance(answers[0], Unstored) else answers
        except PASSED_ON:
            raise
        except Exception as worse:  # noqa: BLE001 - not even that; the worker goes on with the others
            contain(self._metrics, "store", worse, request_id=request_id)
        return [Unstored(request_id, again)]

    def _upload(self, results: Sequence[Result]) -> Sequence[Outcome]:
        """Store the model files; returns outcomes with their URIs, FAILED for a result too large to announce."""
        if not results:
            return ()
        try:
            trained = [Trained.from_json(one.trained or (one.spool / RESULT).read_bytes()) for one in results]
            files = [_artifact(result, one) for result, one in zip(results, trained, strict=True)]
            stored = self._answered(lambda: failpoints.after("after_artifact", "artifacts", self._artifacts.put(files)))
        except FileNotFoundError:  # a newer life of us clears our spool: then this raises SupersededError
            self._answered(lambda: self._ledger.heartbeat(self._me, LEASE_S, ()))
            raise
        outcomes = []
        for result, one, file in zip(results, trained, files, strict=True):
            self._metrics.artifact_bytes.labels(stored[file.key].uri.partition(":")[0]).inc(file.size_bytes)
            outcomes.append(self._fitting(registered_outcome(result, one, stored[file.key])))
        return outcomes

    def _fitting(self, outcome: Outcome) -> Outcome:
        """The outcome, or a FAILED one if its event or its document is too large."""
        registered = RegisteredModel.of(outcome, version_number=1)
        kept = len(orjson.dumps(registered.to_document()))
        if kept < CERTAINLY_FITTING_BYTES:
            return outcome
        sent = max(
            len(message.value or b"") for message in outcome_messages(self._codec, self._topics, outcome, registered)
        )
        for what, size, limit in (("event", sent, EVENT_LIMIT_BYTES), ("document", kept, DOCUMENT_LIMIT_BYTES)):
            if size > limit:
                message = (
                    f"the model's {what} would have {size:,} bytes, at most {limit:,} can be published: "
                    "train on fewer features, or with fewer tags"
                )
                failure = Failure(ErrorKind.RESULT_TOO_LARGE, message)
                return replace(outcome, kind=OutcomeKind.FAILED, model=None, error=failure)
        return outcome

    def _close(self, negatives: Sequence[Outcome]) -> frozenset[str]:
        return self._answered(
            lambda: failpoints.after("after_closing", "mongodb", self._ledger.close(self._me, negatives))
        )

    def _insert(self, outcomes: Sequence[Outcome]) -> Mapping[str, Outcome]:
        return self._answered(
            lambda: failpoints.after("after_outcome", "mongodb", self._ledger.insert_outcomes(outcomes))
        )

    def _register(self, standing: Sequence[Outcome]) -> Mapping[str, RegisteredModel]:
        """The documents of the REGISTERED outcomes, by request_id; missing ones are inserted."""
        registered = [outcome for outcome in standing if outcome.kind is OutcomeKind.REGISTERED]
        if not registered:
            return {}
        return self._answered(
            lambda: failpoints.after("after_document", "mongodb", self._registry.register(registered))
        )

    def _answered(self, operation: Callable[[], T]) -> T:
        return self.answered(operation, on_retry=self._steady.broke)


def _failed(item: Result | Reused | Outcome, failure: Failure) -> Outcome:
    if isinstance(item, Outcome):
        return replace(item, kind=OutcomeKind.FAILED, error=failure)
    return negative_outcome(item.request, item.ending, OutcomeKind.FAILED, failure)


def request_id_of(item: Item) -> str:
    if isinstance(item, Recorded):
        return item.outcome.request_id
    return item.request_id if isinstance(item, Outcome) else item.request.request_id


def _artifact(result: Result, trained: Trained) -> NewArtifact:
    request = result.request
    key = f"{request.project}/{request.model_name}/{request.request_id}/{trained.sha256}.zip"
    return NewArtifact(key, trained.model_file, trained.sha256, trained.size_bytes)
