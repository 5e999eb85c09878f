"""`tensorfleet models report`: writes a page about one version, or a model card."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from consumer.cli import context
from consumer.cli.output import Json, Project, note, write, write_json
from consumer.cli.reproducing import dataset_of
from consumer.cli.values import folder_of

if TYPE_CHECKING:
    import pandas as pd

    from consumer.stores import Stores
    from pipeline.jobs import RegisteredModel
    from pipeline.model_files.model_file import LoadedModel


def report(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="NAME (the newest version), NAME@v3, NAME@alias or PROJECT/NAME@v3.")
    ],
    target: Annotated[
        Path | None, typer.Argument(help="A name with .md gives a model card.  [default: NAME-v3.html]")
    ] = None,
    importance: Annotated[
        bool,
        typer.Option(
            "--importance", help="Compute the importance of columns from the dataset, if the model file lacks it."
        ),
    ] = False,
    project: Project = None,
    as_json: Json = False,
) -> None:
    """Write a page about one version: figures, pictures, where it comes from. It needs nothing else to be read.

    Where the alias production points to another version, it says how this one does against it.
    """
    from pipeline.model_files.model_file import fetch
    from pipeline.reports import report as reports

    stores, registered = context.registered(model, project)
    target = target or Path(f"{registered.model.model_name}-{registered.version}.html")
    write_as = reports.card if target.suffix == ".md" else reports.page
    loaded = fetch(stores.artifacts, registered)
    if importance and "importance" not in loaded.evaluation:
        loaded = _with_importance(stores, registered, loaded)
    save(write_as(registered, loaded, _in_production(stores, registered)), target)
    if as_json:
        write_json({"path": str(target), "version": registered.version})
    else:
        write(str(target))


def save(text: str, target: Path) -> None:
    """Write a file atomically."""
    incoming = folder_of(target) / f".{target.name}.incoming"
    incoming.write_text(text, encoding="utf-8")
    incoming.replace(target)


def _in_production(stores: Stores, registered: RegisteredModel) -> RegisteredModel | None:
    from pipeline.aliases import PRODUCTION

    model = registered.model
    alias = stores.aliases.get(model.project, model.model_name, PRODUCTION)
    if alias is None or alias.version_number in (None, registered.version_number):
        return None
    return stores.registry.get(model.project, model.model_name, alias.version_number)


def _with_importance(stores: Stores, registered: RegisteredModel, loaded: LoadedModel) -> LoadedModel:
    from pipeline.reports.diagnostics import importance_afterwards

    frame, fingerprint = _dataset(stores, dataset_of(registered, stores.datasets))
    note(f"shuffling {len(loaded.columns):,} columns of the test rows")
    found = importance_afterwards(registered.model, loaded, frame, fingerprint)
    if found is None:
        note("no metric is defined on the test rows: there is no importance")
        return loaded
    return replace(loaded, evaluation={**loaded.evaluation, "importance": found})


def _dataset(stores: Stores, name: str) -> tuple[pd.DataFrame, str]:
    """The rows as a trainer would read them now, with their fingerprint."""
    from pipeline.datasets import builtin
    from pipeline.features.frames import frame_of
    from pipeline.reading.tables import fingerprint

    if name in builtin.BUILTINS:
        return builtin.load_frame(name), builtin.BUILTINS[name].fingerprint
    table = stores.datasets.load(name).table
    return frame_of(table), fingerprint(table)
