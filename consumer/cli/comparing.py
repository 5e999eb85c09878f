"""`tensorfleet models compare` and `leaderboard`: show versions side by side, and the best on a dataset."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from consumer.cli import context
from consumer.cli.output import Document, Json, Project, Stop, TableColumn, column, minute, note, show_rows
from consumer.cli.reporting import save
from consumer.cli.values import WRONG_USE

if TYPE_CHECKING:
    from consumer.stores import Stores
    from pipeline.jobs import RegisteredModel

_ABOUT = ("algorithm", "dataset_name", "dataset_fingerprint", "split", "seed", "training_time", "artifact_bytes")


def compare(
    models: Annotated[list[str], typer.Argument(metavar="MODEL...", help="Two or more: NAME@v3, NAME@alias.")],
    html: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Also write an HTML page with charts, in one file.")
    ] = None,
    project: Project = None,
    as_json: Json = False,
) -> None:
    """Show versions side by side: what they are made of where they differ, and how good they are."""
    if len(models) < 2:
        raise Stop("two models or more are needed; see `tensorfleet models compare --help`", WRONG_USE)
    from pipeline.lifecycle.references import find_model, model_reference

    references = [model_reference(model, context.scope(project)) for model in models]
    stores = context.stores()
    found = [find_model(stores.registry, stores.aliases, reference) for reference in references]
    names = _names(found)
    if len({_rows_of(one) for one in found}) > 1 or not all(_rows_of(found[0])):
        note("they were not tested on the same rows: their metrics tell little about which is better")
    columns = [
        column("WHAT", "what"),
        *(column(name, name, right=True) for name in names),
    ]
    if html is not None:
        save(_page(stores, found, names), html)
    show_rows(_rows(found, names), columns, as_json=as_json)


def leaderboard(
    dataset: Annotated[str, typer.Argument(metavar="DATASET")],
    target: Annotated[str | None, typer.Option(help="Models of this target column only.")] = None,
    metric: Annotated[
        str | None, typer.Option(help="[default: accuracy, or r2 where there are regressors only]")
    ] = None,
    project: Project = None,
    limit: Annotated[int, typer.Option(min=1, help="Show at most this many.")] = 20,
    as_json: Json = False,
) -> None:
    """Show the best versions on a dataset; only those measured on the same test rows are ranked together."""
    from pipeline.metrics import LOWER_IS_BETTER, METRICS

    found = context.stores().registry.list(project=context.scope(project), dataset_name=dataset, limit=100_000)
    found = [one for one in found if target in (None, one.model.target_column)]
    name = metric or next((n for n in ("accuracy", "r2") if any(n in one.model.metrics for one in found)), "accuracy")
    if name not in {*METRICS["classification"], *METRICS["regression"]}:
        raise Stop(f"there is no metric {name}", WRONG_USE)
    sign = 1 if name in LOWER_IS_BETTER else -1
    groups: dict[tuple[str, str], list[RegisteredModel]] = {}
    for one in found:
        if name in one.model.metrics and all(_rows_of(one)):
            groups.setdefault(_rows_of(one), []).append(one)
    rows: list[Document] = []
    for test, members in enumerate(groups.values(), 1):
        members.sort(key=lambda one: sign * one.model.metrics[name])
        rows += [_place(one, rank, test, name) for rank, one in enumerate(members, 1)]
    del rows[limit:]
    columns = (
        column("TEST", "test", right=True, style="dim"),
        column("RANK", "rank", right=True),
        column("MODEL", "model", style="bold"),
        column("ALGORITHM", "algorithm"),
        TableColumn(name.upper(), lambda one: f"{one['score']:.4f}", right=True, style="green", whole=True),
        column("TARGET", "target_column", extra=True),
        TableColumn("TRAINED", lambda one: minute(one["created_at"]), style="dim", whole=True, extra=True),
    )
    show_rows(rows, columns, as_json=as_json, none=f"No model of {dataset} has {name}.")
    if len(groups) > 1:
        note(
            f"{len(groups)} groups, the newest first; compare within one: only its models were tested on the same rows"
        )


def _page(stores: Stores, found: Sequence[RegisteredModel], names: Sequence[str]) -> str:
    from pipeline.model_files.model_file import fetch
    from pipeline.reports import comparison

    return comparison.page(found, [fetch(stores.artifacts, one) for one in found], names)


def _rows_of(one: RegisteredModel) -> tuple[str, str]:
    return one.model.dataset_fingerprint, one.model.split


def _place(one: RegisteredModel, rank: int, test: int, metric: str) -> Document:
    model = one.model
    return {
        "test": test,
        "rank": rank,
        "model": f"{model.project}/{model.model_name}@{one.version}",
        "algorithm": model.algorithm,
        "metric": metric,
        "score": model.metrics[metric],
        "target_column": model.target_column,
        "created_at": model.created_at,
    }


def _names(found: Sequence[RegisteredModel]) -> list[str]:
    """The shortest names that tell the models apart."""
    models = {(one.model.project, one.model.model_name) for one in found}
    names = [one.version if len(models) == 1 else f"{one.model.model_name}@{one.version}" for one in found]
    if len({one.model.project for one in found}) > 1:
        names = [f"{one.model.project}/{name}" for one, name in zip(found, names, strict=True)]
    if len(set(names)) < len(names):
        raise Stop("the same version is named twice", WRONG_USE)
    return names


def _rows(found: Sequence[RegisteredModel], names: Sequence[str]) -> list[dict[str, Any]]:
    documents = [one.to_document() for one in found]
    rows = [("", name, [document[name] for document in documents]) for name in _ABOUT]
    for part in ("hyperparameters", "metrics"):
        parts: list[Mapping[str, Any]] = [document[part] for document in documents]
        keys = list(dict.fromkeys(key for one in parts for key in one))
        rows += [(f"{part}.", key, [one.get(key) for one in parts]) for key in sorted(keys)]
    return [
        {"what": f"{prefix}{name}", **dict(zip(names, values, strict=True))}
        for prefix, name, values in rows
        if prefix == "metrics." or any(value != values[0] for value in values)
    ]
