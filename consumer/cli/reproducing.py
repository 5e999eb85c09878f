"""`tensorfleet models reproduce`: trains a version again and compares the results."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from consumer.cli import context
from consumer.cli.following import follow
from consumer.cli.output import Document, Json, Project, Stop, TableColumn, column, note, show_rows, shown
from consumer.cli.values import user_name

if TYPE_CHECKING:
    from pipeline.datasets import DatasetSource
    from pipeline.jobs import RegisteredModel, TrainingRequest

NOT_REPRODUCED = 1
OF_THIS_RUN = ("search_score", "search_candidates")
"""Metrics of the search for hyperparameters; this time they are given, so these are not compared."""


def reproduce(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="NAME (the newest version), NAME@v3 or NAME@alias.")],
    project: Project = None,
    as_json: Json = False,
) -> None:
    """Train a version again, as NAME.reproduced, and compare metric by metric; exit 0 only if all are equal."""
    stores, original = context.registered(model, project)
    request = request_of(original, dataset_of(original, stores.datasets))
    began = datetime.now(UTC)
    with context.client() as client:
        client.submit_all([request])
        follow(client, [request.request_id], since=began, as_json=as_json)
    again = stores.registry.find([request.request_id])[request.request_id]
    rows = differences(original, again)
    look = (
        column("METRIC", "metric", style="bold"),
        TableColumn(original.version, lambda one: shown(one["original"]), right=True),
        TableColumn("AGAIN", lambda one: shown(one["again"]), right=True),
        TableColumn("", lambda one: "equal" if one["equal"] else "DIFFERS", style="dim"),
    )
    show_rows(rows, look, as_json=as_json)
    for name in ("dataset_fingerprint", "environment"):
        if getattr(original.model, name) != getattr(again.model, name):
            note(f"{name.replace('_', ' ')} is another one now")
    if not all(row["equal"] for row in rows):
        raise Stop(f"{original.version} was not reproduced", NOT_REPRODUCED)


def dataset_of(original: RegisteredModel, datasets: DatasetSource) -> str:
    """The present name of the rows that it was trained on: the dataset, or an older version of it."""
    from pipeline.datasets.builtin import BUILTINS
    from pipeline.datasets.names import version_name

    name, fingerprint = original.model.dataset_name, original.model.dataset_fingerprint
    versions = () if name in BUILTINS else datasets.versions(name)
    equal = [one for one in versions if one.fingerprint == fingerprint]
    if not equal or any(one.current for one in equal):
        return name
    older = version_name(name, equal[-1].number)
    note(f"{name} was replaced since; its version of then is {older}")
    return older


def request_of(original: RegisteredModel, dataset_name: str) -> TrainingRequest:
    """The request that trains this version again, with its resolved hyperparameters, seed, columns and split."""
    from consumer.new_requests import training_request

    model = original.model
    hyperparameters = dict(model.hyperparameters)
    return training_request(
        {
            "job_name": "reproduce",
            "project": model.project,
            "model_name": f"{model.model_name[:115]}.reproduced",
            "user": user_name(),
            "algorithm": model.algorithm,
            "dataset_name": dataset_name,
            "target_column": model.target_column,
            "features": list(model.features),
            "hyperparameters": hyperparameters,
            "evaluation": model.evaluation,
            "seed": model.seed,
            "tags": {"reproduces": f"{model.project}/{model.model_name}@{original.version}"},
        }
    )


def differences(original: RegisteredModel, again: RegisteredModel) -> list[Document]:
    """Every metric of either version, by name."""
    before, after = original.model.metrics, again.model.metrics
    rows: list[Document] = []
    for name in sorted((before.keys() | after.keys()) - set(OF_THIS_RUN)):
        values: tuple[Any, Any] = (before.get(name), after.get(name))
        rows.append({"metric": name, "original": values[0], "again": values[1], "equal": values[0] == values[1]})
    return rows
