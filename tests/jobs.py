"""Jobs, as they are once their turn has come."""

from __future__ import annotations

import threading
from datetime import UTC, datetime

from consumer.jobs.claims import Asked
from consumer.jobs.job import Job
from consumer.jobs.places import Place
from consumer.partitions.records import Partition, Record
from pipeline.jobs import TrainingRequest
from pipeline.ledger import Claim


def preparing(request_id: str, dataset_name: str, *, project: str = "default", claim: Claim | None = None) -> Job:
    request = TrainingRequest(
        request_id, "job", "svm", dataset_name, project, model_name="m", requested_at=datetime.now(UTC)
    )
    record = Record(Partition("requests", 0), 1, 0, None, b"", (), 0)
    return Job(Asked(record, request, "", None), record, Place.PREPARING, claim=claim, abandoned=threading.Event())
