"""`tensorfleet datasets`: lists, shows and imports datasets."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from consumer.cli import context, dataset_versions
from consumer.cli.dataset_versions import show_versions
from consumer.cli.output import (
    Document,
    Json,
    Stop,
    TableColumn,
    column,
    note,
    on_terminal,
    show_rows,
    shown,
    write,
    write_json,
)
from consumer.cli.values import WRONG_USE, user_name

if TYPE_CHECKING:
    import pyarrow as pa

    from pipeline.datasets import DatasetSummary, DatasetVersion

SHOWN_CLASSES = 5
SHOWN_EXAMPLES = 3
SHOWN_TEXT = 24

app = typer.Typer(help="Datasets: list, show, import, and their versions.", no_args_is_help=True)

for command in (dataset_versions.restore, dataset_versions.prune, dataset_versions.export):
    app.command()(command)


@app.command("list")
def list_datasets(as_json: Json = False) -> None:
    """List the datasets, those built in first."""
    from pipeline.datasets.builtin import BuiltinSource

    columns = (
        column("DATASET", "name", style="bold"),
        column("ROWS", "rows", right=True),
        column("COLUMNS", "columns", right=True),
        column("TARGET", "target"),
        TableColumn("CLASSES", lambda one: _classes(one["classes"]), fold=True),
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
    found = _described(name, loaded.table, loaded.target_column)
    versions = [] if version_of(name) else _versions(source.versions(name))
    if as_json:
        write_json({**found, "versions": versions})
        return
    _show(found)
    if versions:
        write("")
        show_versions(versions, as_json=False)


@app.command("import")
def import_dataset(
    file: Annotated[
        str,
        typer.Argument(
            help="CSV, Parquet, Feather or JSON lines, also in gzip or zip; `-` is standard input. "
            "s3://BUCKET/KEY.parquet, or s3://BUCKET/PREFIX/ for all *.parquet below it, is not copied: "
            "every training reads what is there then."
        ),
    ],
    name: Annotated[str | None, typer.Option(help="[default: the file's name]")] = None,
    target: Annotated[str | None, typer.Option(help="The column to predict.  [default: the last one]")] = None,
    as_json: Json = False,
) -> None:
    """Store a dataset under a name, and show the types it was read with; what the name had stays as a version."""
    from pipeline.datasets import Origin
    from pipeline.datasets.names import check_free
    from pipeline.datasets.s3 import SCHEME
    from pipeline.reading.tables import about, check_target

    if name is None and file == "-":
        raise Stop("--name must be given for standard input", WRONG_USE)
    name = name or Path(file).stem
    check_free(name)
    if file.startswith(SCHEME):
        _point(name, file, target, as_json=as_json)
        return
    table = context.table_of(name, file)
    with about(name):
        check_target(table, target)
    found = _described(name, table, target)
    if not as_json:
        _show_imported(found, target)
    source = context.stores().datasets
    added = source.add(name, table, target, Origin(user_name(), "" if file == "-" else Path(file).name))
    if as_json:
        write_json({**found, "versions": _versions(source.versions(name))})
    is_v = f"v{added.version.number}"
    note(
        f"stored as {name} {is_v}"
        if added.is_new
        else f"no new version: this is the content of {name} {is_v}, the current one"
    )


def _point(name: str, url: str, target: str | None, *, as_json: bool) -> None:
    """Import a pointer: what is read is shown, and not stored."""
    from pipeline.datasets import Origin

    source = context.stores().datasets
    added, table = source.point(name, url, target, Origin(user_name(), url))
    found = _described(name, table, target)
    if as_json:
        write_json({**found, "versions": _versions(source.versions(name))})
    else:
        _show_imported(found, target)
    is_v = f"v{added.version.number}"
    note(
        f"stored as {name} {is_v}: a pointer to {url}, which every training reads as it is then"
        if added.is_new
        else f"no new version: {name} {is_v}, the current one, points to {url} already"
    )


def _show_imported(found: Document, target: str | None) -> None:
    _show(found)
    if target is None:
        note(f"the target is {found['target']}, the last column that can be one; --target names another")


def _versions(versions: Sequence[DatasetVersion]) -> list[Document]:
    return [dataset_versions.document(one) for one in versions]


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


def _described(name: str, table: pa.Table, target_column: str | None) -> dict[str, Any]:
    from pipeline.datasets.profiles import profile_columns, task_of
    from pipeline.reading.tables import canonical, profile
    from pipeline.reading.typed import notes_of

    table = canonical(table)
    about = profile(table, target_column)
    return {
        "name": name,
        "rows": about.rows,
        "columns": about.columns,
        "target": about.target,
        "task": task_of(table.column(about.target)) if about.target in table.column_names else None,
        "classes": about.classes,
        "schema": [
            {
                "name": one.name,
                "type": one.type,
                "shape": one.shape,
                "missing": one.missing,
                "target": one.name == about.target,
                "distinct": one.distinct,
                "min": one.low,
                "median": one.middle,
                "max": one.high,
                "most_frequent": [{"value": value, "rows": rows} for value, rows in one.frequent],
                "first": _first(table, one.name),
            }
            for one in profile_columns(table)
        ],
        "notes": [note.to_document() for note in notes_of(table)],
    }


def _first(table: pa.Table, name: str) -> list[Any]:
    return list(table.column(name).slice(0, SHOWN_EXAMPLES).to_pylist())


def _show(found: Document) -> None:
    from pipeline.reading.notes import Note

    if on_terminal():
        classes = "" if found["classes"] is None else f", {len(found['classes'])} classes: {_classes(found['classes'])}"
        task = f" ({found['task']})" if found["task"] else ""
        about = f"{found['rows']:,} rows, {found['columns']} columns, target {found['target']}{task}{classes}"
        write(f"{found['name']}: {about}\n")
    look = (
        column("COLUMN", "name", style=lambda one: "bold green" if one["target"] else "bold"),
        TableColumn("TYPE", _type),
        TableColumn("MISSING", lambda one: f"{one['missing']:,}" if one["missing"] else "", right=True, style="yellow"),
        TableColumn("", lambda one: "target" if one["target"] else "", style="green"),
        TableColumn("FIRST VALUES", _first_values, style="dim", extra=True),
        TableColumn("DISTINCT", lambda one: "" if one["distinct"] is None else f"{one['distinct']:,}", right=True),
        TableColumn("MIN … MEDIAN … MAX, OR MOST FREQUENT", _values),
    )
    show_rows(found["schema"], look, as_json=False)
    for one in found["notes"]:
        note(str(Note.from_document(one)))


def _type(one: Document) -> str:
    return str(one["type"]) if one["shape"] is None else f"{one['type']} {' x '.join(map(str, one['shape']))}"


def _first_values(one: Document) -> str:
    return shown(one["first"]) if one["shape"] is None else ""


def _values(one: Document) -> str:
    if one["min"] is not None:
        return " … ".join(_short(one[name]) for name in ("min", "median", "max"))
    return ", ".join(f"{_short(each['value'])} ({each['rows']:,})" for each in one["most_frequent"])


def _short(value: object) -> str:
    """A value in at most SHOWN_TEXT characters; a date without a time of 00:00:00."""
    text = str(value).removesuffix(" 00:00:00") if isinstance(value, datetime) else shown(value)
    return text if len(text) <= SHOWN_TEXT else f"{text[:SHOWN_TEXT]}…"


def _classes(classes: Any) -> str:
    if classes is None:
        return ""
    more = f", … ({len(classes)})" if len(classes) > SHOWN_CLASSES else ""
    return ", ".join(classes[:SHOWN_CLASSES]) + more
