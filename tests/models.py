"""Registered models, as a worker would leave them."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

from consumer.stores import Stores
from pipeline.artifacts import NewArtifact
from pipeline.jobs import Model, Outcome, OutcomeKind

AT = datetime(2026, 1, 31, 14, 15, 0, tzinfo=UTC)


def model(stores: Stores, file: Path, request_id: str = "r1", model_name: str = "flowers", **changes: Any) -> Outcome:
    """Store and register a version, as a worker would."""
    content = file.read_bytes()
    digest = sha256(content).hexdigest()
    key = f"default/{model_name}/{request_id}/{digest}.zip"
    stored = stores.artifacts.put([NewArtifact(key, file, digest, len(content))])[key]
    entry = Model(
        model_id=f"m-{request_id}",
        name="job_decision-tree_iris_20260131T141500Z",
        project="default",
        user="ann",
        model_name=model_name,
        algorithm="decision_tree",
        model_type="classification",
        hyperparameters={"max_depth": 3, "criterion": "gini"},
        metrics={"accuracy": 0.9, "f1": 0.9},
        dataset_name="iris",
        dataset_fingerprint="ab" * 32,
        features=["sepal length", "petal width"],
        target_column="species",
        classes=["setosa", "versicolor", "virginica"],
        artifact_uri=stored.uri,
        artifact_format="tensorfleet-model/2",
        artifact_sha256=digest,
        artifact_bytes=len(content),
        file_id=None,
        training_time=1.5,
        created_at=AT,
        tags={"team": "botany"},
        seed=42,
        signature=[],
        environment={"scikit-learn": "1.9.1"},
        warnings=[],
    )
    outcome = Outcome(
        request_id=request_id,
        kind=OutcomeKind.REGISTERED,
        at=AT,
        correlation_id=request_id,
        project="default",
        model_name=model_name,
        worker_id="w",
        model=replace(entry, **changes),
    )
    stores.registry.register([outcome])
    return outcome
