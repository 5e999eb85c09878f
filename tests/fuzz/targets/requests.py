"""Training requests: read, checked, and if they are accepted all that the worker makes of one but its training."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import Any

import bson
import orjson

from consumer.events.errors import UNREADABLE, UndecodableError
from consumer.events.outgoing import outcome_messages
from consumer.events.requests import Malformed, content_sha256, read_request, to_avro
from consumer.events.topics import Topics
from consumer.jobs.event_numbers import EventNumbers
from consumer.jobs.outcomes import Ending, Result, registered_outcome
from consumer.jobs.registrar import EVENT_LIMIT_BYTES
from consumer.partitions.records import Partition
from consumer.partitions.records import Record as Delivered
from consumer.publishing.dead_letters import dead_letter
from consumer.trainers.protocol import Work
from pipeline import validation
from pipeline.datasets import Dataset
from pipeline.errors import RejectedError
from pipeline.jobs import (
    ErrorKind,
    Failure,
    Outcome,
    OutcomeKind,
    RegisteredModel,
    SplitSummary,
    StoredArtifact,
    TrainingRequest,
)
from pipeline.registry.model_names import semantic_name
from pipeline.training.trained import Trained
from schemas import RecordType
from tests.fuzz import records

TOPICS = Topics("")
NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)
INTERNAL = re.compile(r"\b[A-Za-z_]+(?:Error|Exception)\b|Traceback| at 0x[0-9a-f]{8}")
"""What no message to a person has in it; nothing that is generated has it either."""
TIMESTAMPS_MS = (1_770_000_000_000, 0, -1, 2**62, -(2**62))
TRAINED = Trained(
    model_file=Path("model.zip"), sha256="0" * 64, size_bytes=1, artifact_format="tensorfleet-model/2",
    model_type="classification", hyperparameters={}, metrics={"accuracy": 1.0}, dataset_fingerprint="0" * 64,
    features=["a"], target_column="b", classes=["x", "y"], training_time=1.0, signature=[], environment={},
    warnings=[], split="", reproducible=True, split_summary=SplitSummary("random", 8, 2),
)  # fmt: skip


def run(random: Random) -> None:
    value, headers = records.value(random, RecordType.TRAINING_REQUEST), records.headers(random)
    timestamp_ms = random.choice(TIMESTAMPS_MS)
    # Some of the headers are text, which no delivered record has.
    record = Delivered(Partition("training-requests", 0), 1, 7, b"k", value, headers, timestamp_ms)  # type: ignore[arg-type]
    try:
        found = read_request(records.codec(), value, headers=headers, timestamp_ms=timestamp_ms)
    except UndecodableError as error:
        check_message(str(error))
        dead_letter(TOPICS.dead_letters, record, UNREADABLE, str(error))
        raise
    summary(found.request)
    try:
        if isinstance(found, Malformed):
            raise RejectedError(found.message)
        validation.check(found.request)
    except RejectedError as error:
        check_message(str(error))
        _rejected(found.request, str(error), record)
        raise
    accepted(found.request, TRAINED, found.sha256)


def accepted(request: TrainingRequest, trained: Trained, sha256: str) -> None:
    """To the trainer and back, and registered with a result that is given."""
    work = Work(request, Dataset(request.dataset_name, "0" * 64, Path("x.arrow"), "y"), Path("spool"), 2**30)
    back = Work.from_message(orjson.loads(work.to_datagram()))
    assert _plain(back.request) == _plain(request), "the trainer gets another request"
    content_sha256(to_avro(back.request))
    semantic_name(request, NOON)
    outcome = registered_outcome(
        Result(request, Ending(NOON, "w", 1, EventNumbers(1)), Path("spool")),
        trained,
        StoredArtifact("s3://b/k", "0" * 64, 1),
    )
    registered = RegisteredModel.of(outcome, 1)
    stored(outcome.to_document())
    stored(registered.to_document())
    list(outcome_messages(records.codec(), TOPICS, outcome, registered))


def check_message(message: str) -> None:
    found = INTERNAL.search(message)
    assert not found, f"a message for people has {found[0]!r}: {message[:300]}"


def stored(document: dict[str, Any]) -> None:
    """As the stores would write it."""
    orjson.dumps(document)
    bson.encode(document)


def summary(request: TrainingRequest) -> None:
    """What a claim says of its request (consumer.jobs.claims)."""
    names = ("job_name", "project", "model_name", "user", "algorithm", "dataset_name", "correlation_id", "requested_at")
    stored({"_id": request.request_id, "summary": {name: getattr(request, name) for name in names}})


def _rejected(request: TrainingRequest, message: str, record: Delivered) -> None:
    outcome = Outcome(
        request_id=request.request_id, kind=OutcomeKind.REJECTED, at=NOON, correlation_id=request.correlation_id,
        project=request.project, model_name=request.model_name, worker_id="w",
        error=Failure(ErrorKind.INVALID_REQUEST, message), traceparent=request.traceparent,
    )  # fmt: skip
    stored(outcome.to_document())
    for sent in outcome_messages(records.codec(), TOPICS, outcome, None):
        assert len(sent.value or b"") < EVENT_LIMIT_BYTES, "an outcome that cannot be published"
    letter = dead_letter(TOPICS.dead_letters, record, ErrorKind.INVALID_REQUEST, message)
    ours = sum(len(name) + len(value or b"") for name, value in letter.headers[len(record.headers) :])
    assert ours < 100_000, f"a dead letter gets {ours:,} bytes of headers"


def _plain(request: TrainingRequest) -> Any:
    """Lists and tuples are one to JSON."""
    return orjson.loads(orjson.dumps(request))
