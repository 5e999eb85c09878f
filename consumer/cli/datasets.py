"""`tensorfleet datasets`: lists, shows and imports datasets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

from consumer.cli import context, dataset_versions
from consumer.cli.dataset_versions import show_versions
from consumer.cli.describing import classes, described, show_described
from consumer.cli.importing import import_dataset
from consumer.cli.output import Json, TableColumn, column, note, show_rows, write, write_json

if TYPE_CHECKING:
    from pipeline.datasets import DatasetSummary

app = typer.Typer(help="Datasets: list, show, import, and their versions.", no_args_is_help=True)

for command in (dataset_versions.restore, dataset_versions.prune, dataset_versions.export):
    app.command()(command)
app.command("import")(import_dataset)


@app.command("list")
def list_datasets(as_json: Json = False) -> None:
    """List the datasets, those built in first."""
    from pipeline.datasets.builtin import BuiltinSource

    columns = (
        column("DATASET", "name", style="bold"),
        column("ROWS", "rows", right=True),
        column("COLUMNS", "columns", right=True),
        column("TARGET", "target"),
        TableColumn("CLASSES", lambda one: classes(one["classes"]), fold=True),
        column("FROM", "source", style="dim"),
        column("VERSION", "version", style="dim", extra=True),
    )
    found = [*BuiltinSource().list(), *_stored()]
    show_rows(map(_document, found), columns, as_json=as_json)


@app.command()
def show(name: str, as_json: Json = False) -> None:
    """Show a dataset's columns, what they hold, what would be learned from it, and its versions."""
    from pipeline.datasets.builtin import BUILTINS, BuiltinSource
    from pipeline.datasets.names import version_of

    source = BuiltinSource() if name in BUILTINS else context.stores().datasets
    loaded = source.load(name)
    found = described(name, loaded.table, loaded.target_column)
    versions = [] if version_of(name) else [dataset_versions.document(one) for one in source.versions(name)]
    if as_json:
        write_json({**found, "versions": versions})
        return
    show_described(found)
    if versions:
        write("")
        show_versions(versions, as_json=False)


def _stored() -> list[DatasetSummary]:
    from consumer.embedded import with_stores
    from consumer.settings import SettingsError

    try:
        settings = with_stores(context.any_settings())
    except SettingsError as error:
        note(f"only built-in datasets are listed: {error}")
        return []
    return list(context.stores(settings).datasets.list())


def _document(one: DatasetSummary) -> dict[str, Any]:
    return {
        "name": one.name,
        "rows": one.rows,
        "columns": one.columns,
        "target": one.target,
        "classes": one.classes,
        "source": one.source,
        "version": None if one.version is None else f"v{one.version}",
    }
