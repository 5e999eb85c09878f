"""Makes results durable, a group at a time: artifact, outcome, registry document, in that order.

Whatever stands in the ledger after that is the truth, whoever wrote it: the first finisher's outcome counts, and a
negative outcome counts only if its claim is still ours when it is written there.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import TypeVar

import orjson
import structlog

from consumer import disk, failpoints
from consumer.claims import Steady
from consumer.committer import outcome_messages
from consumer.events.codec import Codec
from consumer.events.topics import Topics
from consumer.failures import ThreadFailed
from consumer.metrics import Metrics
from consumer.waiting import Breakers, Stopped, until_answered
from pipeline.artifacts import ArtifactStore, NewArtifact
from pipeline.errors import SupersededError
from pipeline.jobs import (
    ErrorKind,
    Failure,
    Model,
    Outcome,
    OutcomeKind,
    RegisteredModel,
    StoredArtifact,
    TrainingRequest,
    event_id,
)
from pipeline.ledger import Ledger, Owner
from pipeline.naming import semantic_name
from pipeline.registry import Registry
from pipeline.trained import Trained

log = structlog.get_logger(__name__)

T = TypeVar("T")

GROUP_LIMIT = 200
EVENT_LIMIT_BYTES = 900_000
"""Of an event: the broker's default limit is 1,048,576 with its overhead."""
CERTAINLY_FITTING_BYTES = EVENT_LIMIT_BYTES // 3
"""A document so small needs no event encoded to measure it: that says less, and a number takes up to 8 bytes for 3."""
DOCUMENT_LIMIT_BYTES = 12_000_000
"""Of an outcome or registry document as JSON: MongoDB's limit is 16 MiB of BSON."""


@dataclass(frozen=True, slots=True)
class Result:
    """A training that went well: the trainer's result lies in the spool folder."""

    request: TrainingRequest
    spool: Path
    finished_at: datetime
    worker_id: str
    attempt: int
    sequence: int
    recipe: str = ""


@dataclass(frozen=True, slots=True)
class Reused:
    """An equal training's result stands for this request's own."""

    request: TrainingRequest
    source: RegisteredModel
    finished_at: datetime
    worker_id: str
    attempt: int
    sequence: int


@dataclass(frozen=True, slots=True)
class Found:
    """An outcome that was in the ledger already, and may still lack its registry document."""

    outcome: Outcome


Item = Result | Reused | Outcome | Found
"""A bare Outcome is a negative one that we decided on."""


@dataclass(frozen=True, slots=True)
class Stored:
    """How the request ended, durably; `registered` is present only with a REGISTERED outcome."""

    outcome: Outcome
    registered: RegisteredModel | None


@dataclass(frozen=True, slots=True)
class GroupStored:
    """The answer to a group. `refused`: requests whose claim is not ours any more, so that our outcome is void."""

    stored: Sequence[Stored]
    refused: Sequence[str]


class Registrar(threading.Thread):
    """Owns the artifact store and the registry, and the ledger's outcomes."""

    def __init__(
        self,
        me: Owner,
        ledger: Ledger,
        registry: Registry,
        artifacts: ArtifactStore,
        codec: Codec,
        topics: Topics,
        *,
        steady: Steady,
        breakers: Breakers,
        metrics: Metrics,
        deliver: Callable[[GroupStored | ThreadFailed], None],
    ) -> None:
        super().__init__(name="registrar", daemon=True)
        self._me = me
        self._ledger = ledger
        self._registry = registry
        self._artifacts = artifacts
        self._codec = codec
        self._topics = topics
        self._steady = steady
        self._breakers = breakers
        self._metrics = metrics
        self._deliver = deliver
        self._groups: queue.SimpleQueue[Sequence[Item] | None] = queue.SimpleQueue()
        self._stop_waiting = threading.Event()

    def submit(self, group: Sequence[Item]) -> None:
        """Make these durable, at most GROUP_LIMIT; the answer is a GroupStored."""
        self._groups.put(group)

    def stop(self) -> None:
        """End when everything so far is durable."""
        self._groups.put(None)

    def give_up(self) -> None:
        self._stop_waiting.set()

    def run(self) -> None:
        try:
            while (group := self._groups.get()) is not None:
                self._deliver(self._store(group))
        except Stopped:
            log.warning("stopped before every result was stored; they will be trained again")
        except Exception as error:  # noqa: BLE001 - handed to the worker, which ends
            self._deliver(ThreadFailed(self.name, error))

    def _store(self, group: Sequence[Item]) -> GroupStored:
        results = [item for item in group if isinstance(item, Result)]
        try:
            trained = [*self._upload(results)]
        except FileNotFoundError as error:
            raise SupersededError(f"a newer life of {self._me.worker_id} has cleared our spool: {error}") from error
        trained += [self._fitting(reused_outcome(item)) for item in group if isinstance(item, Reused)]
        negatives = [item for item in group if isinstance(item, Outcome)]
        negatives += [outcome for outcome in trained if outcome.kind is not OutcomeKind.REGISTERED]
        accepted = self._close(negatives) if negatives else frozenset()
        new = [outcome for outcome in trained if outcome.kind is OutcomeKind.REGISTERED]
        new += [outcome for outcome in negatives if outcome.request_id in accepted]
        standing = dict(self._insert(new)) if new else {}
        standing |= {item.outcome.request_id: item.outcome for item in group if isinstance(item, Found)}
        documents = self._register(list(standing.values()))
        for result in results:
            disk.remove(result.spool)
        return GroupStored(
            [Stored(outcome, documents.get(request_id)) for request_id, outcome in standing.items()],
            [outcome.request_id for outcome in negatives if outcome.request_id not in accepted],
        )

    def _upload(self, results: Sequence[Result]) -> Sequence[Outcome]:
        """Store the model files; the outcomes say where they are, or that a result is too large to be announced."""
        if not results:
            return ()
        trained = [Trained.from_json((result.spool / "result.json").read_bytes()) for result in results]
        files = [_artifact(result, one) for result, one in zip(results, trained, strict=True)]
        stored = self._answered(lambda: failpoints.after("after_artifact", "artifacts", self._artifacts.put(files)))
        outcomes = []
        for result, one, file in zip(results, trained, files, strict=True):
            self._metrics.artifact_bytes.labels(stored[file.key].uri.partition(":")[0]).inc(file.size_bytes)
            outcomes.append(self._fitting(registered_outcome(result, one, stored[file.key])))
        return outcomes

    def _fitting(self, outcome: Outcome) -> Outcome:
        """The outcome, unless its event or document is larger than its store takes: then a FAILED one that says so."""
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
                return replace(
                    outcome,
                    kind=OutcomeKind.FAILED,
                    model=None,
                    error=Failure(ErrorKind.RESULT_TOO_LARGE, message),
                )
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
        """The documents of the REGISTERED outcomes, inserted where they are missing."""
        registered = [outcome for outcome in standing if outcome.kind is OutcomeKind.REGISTERED]
        if not registered:
            return {}
        return self._answered(
            lambda: failpoints.after("after_document", "mongodb", self._registry.register(registered))
        )

    def _answered(self, operation: Callable[[], T]) -> T:
        return until_answered(operation, breakers=self._breakers, stop=self._stop_waiting, on_retry=self._steady.broke)


def registered_outcome(result: Result, trained: Trained, stored: StoredArtifact) -> Outcome:
    """The outcome of a training whose model file is stored."""
    request = result.request
    model = Model(
        model_id=event_id(request.request_id, "model"),
        name=semantic_name(request, result.finished_at),
        project=request.project,
        user=request.user,
        model_name=request.model_name,
        algorithm=request.algorithm,
        model_type=trained.model_type,
        hyperparameters=trained.hyperparameters,
        metrics=trained.metrics,
        dataset_name=request.dataset_name,
        dataset_fingerprint=trained.dataset_fingerprint,
        features=trained.features,
        target_column=trained.target_column,
        classes=trained.classes,
        artifact_uri=stored.uri,
        artifact_format=trained.artifact_format,
        artifact_sha256=stored.sha256,
        artifact_bytes=stored.size_bytes,
        file_id=stored.file_id,
        training_time=trained.training_time,
        created_at=result.finished_at,
        tags=request.tags,
        seed=request.seed,
        signature=trained.signature,
        environment=trained.environment,
        warnings=trained.warnings,
        split=trained.split,
        evaluation=request.evaluation,
        recipe=result.recipe if trained.reproducible else "",
    )
    return _registered(result, model)


def reused_outcome(reused: Reused) -> Outcome:
    """The outcome of a request for which another version's model stands."""
    request, source = reused.request, reused.source
    model = replace(
        source.model,
        model_id=event_id(request.request_id, "model"),
        name=semantic_name(request, reused.finished_at),
        project=request.project,
        user=request.user,
        model_name=request.model_name,
        dataset_name=request.dataset_name,
        created_at=reused.finished_at,
        tags=request.tags,
        reused_from=f"{source.model.model_name}@{source.version}",
    )
    return _registered(reused, model)


def _registered(result: Result | Reused, model: Model) -> Outcome:
    request = result.request
    return Outcome(
        request_id=request.request_id,
        kind=OutcomeKind.REGISTERED,
        at=result.finished_at,
        correlation_id=request.correlation_id,
        project=request.project,
        model_name=request.model_name,
        worker_id=result.worker_id,
        attempt=result.attempt,
        sequence=result.sequence,
        model=model,
        traceparent=request.traceparent,
    )


def _artifact(result: Result, trained: Trained) -> NewArtifact:
    request = result.request
    key = f"{request.project}/{request.model_name}/{request.request_id}/{trained.sha256}.zip"
    return NewArtifact(key, trained.model_file, trained.sha256, trained.size_bytes)
