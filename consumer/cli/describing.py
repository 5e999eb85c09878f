"""Shows the columns of a dataset: their types, what they hold, and what reading has decided."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

from consumer.cli.output import Document, TableColumn, column, note, on_terminal, show_rows, shown, write

if TYPE_CHECKING:
    import pyarrow as pa

SHOWN_CLASSES = 5
SHOWN_EXAMPLES = 3
SHOWN_TEXT = 24


def described(name: str, table: pa.Table, target_column: str | None) -> dict[str, Any]:
    """The columns of a dataset with what they hold, the target, and the notes of its reading."""
    from pipeline.datasets.profiles import profile_columns, task_of
    from pipeline.reading.suspicions import concerns
    from pipeline.reading.tables import canonical, profile
    from pipeline.reading.typed import notes_of, told_of

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
                "told": told_of(table.schema.field(one.name)),
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
        "notes": [note.to_document() for note in notes_of(table) if concerns(note, about.target)],
    }


def _first(table: pa.Table, name: str) -> list[Any]:
    return list(table.column(name).slice(0, SHOWN_EXAMPLES).to_pylist())


def show_described(found: Document) -> None:
    """Show what `described` gives, its notes on standard error."""
    from pipeline.reading.notes import Note

    if on_terminal():
        listed = "" if found["classes"] is None else f", {len(found['classes'])} classes: {classes(found['classes'])}"
        task = f" ({found['task']})" if found["task"] else ""
        about = f"{found['rows']:,} rows, {found['columns']} columns, target {found['target']}{task}{listed}"
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
    told = f" ({one['told']})" if one["told"] else ""
    return f"{one['type']}{told}" if one["shape"] is None else f"{one['type']} {' x '.join(map(str, one['shape']))}"


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


def classes(names: Any) -> str:
    """The first classes of a target, and how many there are."""
    if names is None:
        return ""
    more = f", … ({len(names)})" if len(names) > SHOWN_CLASSES else ""
    return ", ".join(names[:SHOWN_CLASSES]) + more
