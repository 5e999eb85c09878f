"""`tensorfleet datasets`: what can be learned from, and adding to it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from consumer.cli import context
from consumer.cli.output import Column, Json, Stop, column, note, on_terminal, show_rows, shown, write, write_json
from consumer.cli.values import WRONG_USE, content_of

if TYPE_CHECKING:
    import pyarrow as pa

    from pipeline.datasets import DatasetSummary

SHOWN_CLASSES = 5
SHOWN_EXAMPLES = 3

app = typer.Typer(help="Datasets: list, show, import.", no_args_is_help=True)


@app.command("list")
def list_datasets(as_json: Json = False) -> None:
    """List the datasets, those built in first."""
    from pipeline.datasets.builtin import BuiltinSource

    columns = (
        column("DATASET", "name", style="bold"),
        column("ROWS", "rows", right=True),
        column("COLUMNS", "columns", right=True),
        column("TARGET", "target"),
        Column("CLASSES", lambda one: _classes(one["classes"]), fold=True),
        column("FROM", "source", style="dim"),
    )
    found = [*BuiltinSource().list(), *_stored()]
    show_rows(map(_document, found), columns, as_json=as_json)


@app.command()
def show(name: str, as_json: Json = False) -> None:
    """Show a dataset's columns: their types, what is missing, and the first values."""
    from pipeline.datasets.builtin import BUILTINS, BuiltinSource

    loaded = (BuiltinSource() if name in BUILTINS else context.stores().datasets).load(name)
    _show(name, loaded.table, loaded.target_column, as_json=as_json)


@app.command("import")
def import_dataset(
    file: Annotated[str, typer.Argument(help="CSV, Parquet or JSON lines; `-` is standard input.")],
    name: Annotated[str | None, typer.Option(help="[default: the file's name]")] = None,
    target: Annotated[str | None, typer.Option(help="The column to predict.  [default: the last one]")] = None,
    as_json: Json = False,
) -> None:
    """Store a dataset under a name, in place of what was there, and show the types it was read with."""
    from pipeline.datasets.files import read_table

    if name is None and file == "-":
        raise Stop("--name must be given for standard input", WRONG_USE)
    name = name or Path(file).stem
    table = read_table(content_of(file), "" if file == "-" else file)
    context.stores().datasets.add(name, table, target)
    _show(name, table, target, as_json=as_json)


def _stored() -> list[DatasetSummary]:
    from consumer.settings import SettingsError

    try:
        settings = context.store_settings()
    except SettingsError as error:
        note(f"only what is built in: {error}")
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
    }


def _show(name: str, table: pa.Table, target_column: str | None, *, as_json: bool) -> None:
    from pipeline.datasets.tables import canonical, profile

    table = canonical(table)
    found = profile(table, target_column)
    columns = [_column(table, one, is_target=one == found.target) for one in table.column_names]
    if as_json:
        about = {"rows": found.rows, "columns": found.columns, "target": found.target, "classes": found.classes}
        write_json({"name": name, **about, "schema": columns})
        return
    if on_terminal():
        classes = "" if found.classes is None else f", {len(found.classes)} classes: {_classes(found.classes)}"
        write(f"{name}: {found.rows:,} rows, {found.columns} columns, target {found.target}{classes}\n")
    look = (
        column("COLUMN", "name", style=lambda one: "bold green" if one["target"] else "bold"),
        column("TYPE", "type"),
        Column("MISSING", lambda one: f"{one['missing']:,}" if one["missing"] else "", right=True, style="yellow"),
        Column("", lambda one: "target" if one["target"] else "", style="green"),
        Column("FIRST VALUES", lambda one: shown(one["first"]), style="dim"),
    )
    show_rows(columns, look, as_json=False)


def _column(table: pa.Table, name: str, *, is_target: bool) -> dict[str, Any]:
    column = table.column(name)
    kind = str(column.type).removeprefix("large_")
    first = column.slice(0, SHOWN_EXAMPLES).to_pylist()
    return {"name": name, "type": kind, "missing": column.null_count, "target": is_target, "first": first}


def _classes(classes: Any) -> str:
    if classes is None:
        return ""
    more = f", … ({len(classes)})" if len(classes) > SHOWN_CLASSES else ""
    return ", ".join(classes[:SHOWN_CLASSES]) + more
