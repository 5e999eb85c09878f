"""Makes the readable name of a model for lists and file names."""

from __future__ import annotations

import re
from datetime import UTC, datetime

from pipeline.jobs import TrainingRequest


def semantic_name(request: TrainingRequest, created_at: datetime) -> str:
    """`JobName_Algorithm_Dataset_20260131T141500Z`; other characters than `[A-Za-z0-9-]` in a part become `-`.

    `created_at` is an aware datetime; the name gives it in UTC, to the second.
    """
    parts = (request.job_name, request.algorithm, request.dataset_name)
    moment = created_at.astimezone(UTC).strftime("%Y%m%dT%H%M%SZ")
    return "_".join((*map(_reduced, parts), moment))


def _reduced(part: str) -> str:
    return re.sub(r"[^A-Za-z0-9]+", "-", part).strip("-")
