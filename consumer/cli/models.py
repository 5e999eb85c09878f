"""`tensorfleet models`: lists, shows, downloads and exports registered models."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated

import typer

from consumer.cli import aliases, archiving, comparing, context, predicting, reporting, reproducing
from consumer.cli.output import (
    Document,
    Json,
    Project,
    Stop,
    TableColumn,
    column,
    duration,
    minute,
    note,
    numbered,
    show_fields,
    show_rows,
    shown,
    size,
    write,
    write_json,
)
from consumer.cli.values import WRONG_USE, folder_of, of_model, pair

if TYPE_CHECKING:
    from consumer.stores import Stores
    from pipeline.jobs import RegisteredModel

app = typer.Typer(help="Registered models: list, show, download and use them.", no_args_is_help=True)

for command in (
    *(aliases.aliases, aliases.promote, aliases.rollback, aliases.unalias, archiving.archive),
    *(comparing.compare, comparing.leaderboard, predicting.predict, reporting.report, reproducing.reproduce),
):
    app.command()(command)

Reference = Annotated[
    str, typer.Argument(metavar="MODEL", help="NAME (the newest version), NAME@v3, NAME@alias or PROJECT/NAME@v3.")
]


@app.command("list")
def list_models(
    model: Annotated[str | None, typer.Argument(metavar="[MODEL]", help="NAME or PROJECT/NAME.")] = None,
    project: Project = None,
    dataset: Annotated[str | None, typer.Option(help="Trained on this dataset only.")] = None,
    tag: Annotated[list[str] | None, typer.Option(metavar="NAME=TEXT", help="With this tag; repeat it.")] = None,
    archived: Annotated[bool, typer.Option("--archived", help="Archived ones too.")] = False,
    limit: Annotated[int, typer.Option(min=1, help="Show at most this many.")] = 100,
    as_json: Json = False,
) -> None:
    """List versions, the newest first."""
    project, name = of_model(model, context.scope(project))
    found = context.stores().registry.list(
        project=project,
        model_name=name,
        dataset_name=dataset,
        tags=dict(pair(one, "--tag") for one in tag or ()),
        archived=archived,
        limit=limit,
    )
    columns = (
        TableColumn("MODEL", lambda one: f"{one['project']}/{one['model_name']}"),
        column("VERSION", "version", style="bold", whole=True),
        column("ALGORITHM", "algorithm"),
        TableColumn("SCORE", _score, right=True, style="green", whole=True),
        column("DATASET", "dataset_name", extra=True),
        TableColumn("TRAINED", lambda one: minute(one["created_at"]), style="dim", whole=True, extra=True),
        TableColumn("TOOK", lambda one: duration(one["training_time"]), right=True, style="dim", extra=True),
        TableColumn("SIZE", lambda one: size(one["artifact_bytes"]), right=True, style="dim", extra=True),
        column("USER", "user", style="dim", extra=True),
        TableColumn("ARCHIVED", lambda one: minute(one["archived_at"]), style="yellow", whole=True),
    )
    none = "No model is registered; `tensorfleet submit -a random_forest -d iris --watch` trains one."
    show_rows((one.to_document() for one in found), columns, as_json=as_json, none=none)


@app.command()
def show(model: Reference, project: Project = None, as_json: Json = False) -> None:
    """Show one version: what it is, how good it is, what it was made of."""
    _, registered = context.registered(model, project)
    document = registered.to_document()
    heading = f"{registered.model.project}/{registered.model.model_name} {registered.version}"
    show_fields(document, _lines(document), as_json=as_json, title=heading)


@app.command()
def download(
    model: Reference,
    target: Annotated[Path | None, typer.Argument(help="[default: NAME-v3, or NAME-v3.zip with --file]")] = None,
    as_file: Annotated[bool, typer.Option("--file", help="Keep the one file instead of unpacking it.")] = False,
    project: Project = None,
    as_json: Json = False,
) -> None:
    """Fetch a model file, check its sha256, and unpack it to a directory that MLflow loads."""
    stores, registered = context.registered(model, project)
    name = f"{registered.model.model_name}-{registered.version}"
    target = target or Path(f"{name}.zip" if as_file else name)
    if target.exists():
        raise Stop(f"{target} exists already; name another place", WRONG_USE)
    with TemporaryDirectory(dir=folder_of(target), prefix=".tensorfleet-") as folder:
        file, made = Path(folder, "model.zip"), Path(folder, "model")
        _fetch(stores, registered, file)
        if as_file:
            file.rename(target)
        else:
            _unpack(file, made, registered.model.artifact_uri)
            made.rename(target)
    if as_json:
        write_json({"path": str(target), "sha256": registered.model.artifact_sha256, "version": registered.version})
    else:
        write(str(target))


@app.command("export")
def export_model(
    model: Reference,
    format_name: Annotated[str, typer.Option("--format", help="onnx (takes raw rows), keras or safetensors.")],
    output: Annotated[Path | None, typer.Option("--output", "-o", help="[default: NAME-v3.FORMAT]")] = None,
    project: Project = None,
    as_json: Json = False,
) -> None:
    """Write a version in a format of other programs, once it is seen to answer there as it does here."""
    from pipeline.exports import export
    from pipeline.model_files.model_file import fetch

    stores, registered = context.registered(model, project)
    target = output or Path(f"{registered.model.model_name}-{registered.version}.{format_name}")
    with TemporaryDirectory(dir=folder_of(target), prefix=".tensorfleet-") as folder:
        exported = export(fetch(stores.artifacts, registered), format_name, Path(folder, target.name))
        exported.path.replace(target)
    if as_json:
        write_json({**asdict(exported), "path": str(target), "version": registered.version})
    else:
        note(f"compared on {exported.rows_compared:,} rows: predictions differ by at most {exported.difference:.2g}")
        write(str(target))


def _fetch(stores: Stores, registered: RegisteredModel, file: Path) -> None:
    """Fetch a model file.  Raises CorruptArtifactError if it is not the registered one."""
    from hashlib import file_digest

    from pipeline.errors import CorruptArtifactError

    model = registered.model
    stores.artifacts.fetch(model.artifact_uri, file)
    with file.open("rb") as content:
        found = file_digest(content, "sha256").hexdigest()
    if found != model.artifact_sha256:
        raise CorruptArtifactError(f"{model.artifact_uri} has the sha256 {found}, not {model.artifact_sha256}")


def _unpack(file: Path, folder: Path, uri: str) -> None:
    from pipeline.errors import CorruptArtifactError
    from pipeline.model_files.zip_files import unpack

    try:
        unpack(file.read_bytes(), folder)
    except CorruptArtifactError as wrong:
        raise CorruptArtifactError(f"{uri} {wrong}") from wrong


def _score(one: Document) -> str:
    metrics = one["metrics"]
    name = next((name for name in ("accuracy", "r2") if name in metrics), None)
    return "" if name is None else f"{name} {metrics[name]:.3f}"


def _lines(document: Document) -> dict[str, str | Mapping[str, str]]:
    """What a person sees of a model, the most important first."""
    from pipeline.jobs import SplitSummary

    metrics = document["metrics"]
    ordered = sorted(metrics, key=lambda name: (_FIRST.index(name) if name in _FIRST else len(_FIRST), name))
    kind = document["artifact_format"]
    lines: dict[str, str | Mapping[str, str]] = {
        **{name: shown(document[name]) for name in _PLAIN},
        "split": str(SplitSummary.from_document(summary)) if (summary := document["split_summary"]) else "",
        "training_time": duration(document["training_time"]),
        "warnings": numbered(document["warnings"]),
        "metrics": {name: f"{metrics[name]:.4f}" for name in ordered},
        "hyperparameters": {name: _json(value) for name, value in sorted(document["hyperparameters"].items())},
        "artifact": f"{document['artifact_uri']} ({size(document['artifact_bytes'])}, {kind})",
        "sha256": document["artifact_sha256"],
        "environment": {name: str(value) for name, value in document["environment"].items()},
    }
    return {name: value for name, value in lines.items() if value}


_PLAIN = (
    *("name", "algorithm", "dataset_name", "target_column", "features", "classes", "created_at", "user", "seed"),
    *("archived_at", "reused_from", "request_id", "worker_id", "tags", "dataset_fingerprint"),
)
_FIRST = (
    *("accuracy", "precision", "recall", "f1", "balanced_accuracy", "roc_auc", "log_loss"),
    *("brier", "calibration_error"),
    *("r2", "rmse", "mae", "train_accuracy", "test_accuracy"),
)


def _json(value: object) -> str:
    import json

    return json.dumps(value)
