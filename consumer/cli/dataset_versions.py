"""`tensorfleet datasets restore`, `prune` and `export`: work on a dataset's older versions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from consumer.cli import context
from consumer.cli.output import Document, Json, Stop, TableColumn, column, minute, note, show_rows, write, write_json
from consumer.cli.values import WRONG_USE

if TYPE_CHECKING:
    import pyarrow as pa

    from pipeline.datasets import DatasetVersion

Number = Annotated[
    str, typer.Option("--version", metavar="N", help="The number of a version, as `datasets show` lists them.")
]
SHOWN_DIGITS = 12


def restore(name: str, version: Number, as_json: Json = False) -> None:
    """Make an older version current again; none is lost, and the next import gets the next number."""
    restored = context.stores().datasets.restore(name, _number(version))
    if as_json:
        write_json({"name": name, **document(restored)})
    else:
        note(f"{name} is v{restored.number} now")


def prune(
    name: str,
    keep: Annotated[int, typer.Option(min=1, help="Keep this many of the newest versions, and the current one.")],
    as_json: Json = False,
) -> None:
    """Remove old versions; models that were trained on them cannot be reproduced any more."""
    gone = context.stores().datasets.prune(name, keep)
    show_versions([document(one) for one in gone], as_json=as_json)
    note(f"{name}: {len(gone)} versions removed")


def export(
    name: str,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="Where to write it; .parquet, .csv or .jsonl decides the format.  [default: NAME.parquet]",
        ),
    ] = None,
    version: Annotated[str | None, typer.Option(metavar="N", help="An older version.  [default: the current]")] = None,
    as_json: Json = False,
) -> None:
    """Write a dataset, or an older version of it, to a file."""
    from pipeline.datasets.builtin import BUILTINS, BuiltinSource
    from pipeline.datasets.names import version_name

    wanted = name if version is None else version_name(name, _number(version))
    source = BuiltinSource() if name in BUILTINS else context.stores().datasets
    table = source.load(wanted).table
    file = output or Path(f"{wanted}.parquet")
    content = _content(table, file)
    incoming = file.with_name(f".{file.name}.incoming")
    try:
        incoming.write_bytes(content)
        incoming.replace(file)
    except OSError as error:
        raise Stop(f"{file} cannot be written: {error.strerror}", WRONG_USE) from error
    if as_json:
        write_json({"name": wanted, "path": str(file), "rows": table.num_rows, "columns": table.num_columns})
    else:
        write(str(file))


def document(version: DatasetVersion) -> dict[str, Any]:
    return {
        "version": f"v{version.number}",
        "current": version.current,
        "rows": version.rows,
        "columns": version.columns,
        "target": version.target_column,
        "imported_at": version.imported_at,
        "user": version.origin.user,
        "file": version.origin.file,
        "fingerprint": version.fingerprint,
        "options": version.options.to_document(),
    }


def as_written(told: Mapping[str, Any]) -> str:
    """What was told about a file, as `datasets import` takes it."""
    parts = [f"--type {name}={kind}" for name, kind in told.get("types", {}).items()]
    parts += [f"--missing {value}" for value in told.get("missing", ())]
    parts += [f"--{name} {told[name]!r}" for name in ("decimal", "delimiter", "encoding", "sheet") if name in told]
    if "header" in told:
        parts.append("--header" if told["header"] else "--no-header")
    return " ".join(parts)


def show_versions(documents: Sequence[Document], *, as_json: bool) -> None:
    look = (
        column("VERSION", "version", style="bold", whole=True),
        TableColumn("", lambda one: "current" if one["current"] else "", style="green", whole=True),
        column("ROWS", "rows", right=True),
        column("COLUMNS", "columns", right=True, extra=True),
        TableColumn("IMPORTED", lambda one: minute(one["imported_at"]), style="dim", whole=True),
        column("BY", "user", style="dim", extra=True),
        column("FILE", "file", style="dim", extra=True),
        TableColumn("READ WITH", lambda one: as_written(one["options"]), style="dim", extra=True),
        TableColumn("FINGERPRINT", lambda one: (one["fingerprint"] or "")[:SHOWN_DIGITS], style="dim", extra=True),
    )
    show_rows(documents, look, as_json=as_json, none="No version.")


def _number(text: str) -> int:
    if not text.removeprefix("v").isdigit():
        raise Stop(f"--version takes a number such as 2, not {text!r}", WRONG_USE)
    return int(text.removeprefix("v"))


def _content(table: pa.Table, file: Path) -> bytes:
    import pyarrow as pa

    from pipeline.reading.writers import csv_of, json_lines_of, parquet_of

    writers = {".parquet": parquet_of, ".csv": csv_of, ".jsonl": json_lines_of}
    if file.suffix not in writers:
        raise Stop(f"{file}: the ending of the file's name must be one of {', '.join(writers)}", WRONG_USE)
    try:
        return writers[file.suffix](table)
    except pa.ArrowInvalid as error:
        raise Stop(f"{file}: such a file cannot hold these columns ({error}); take .parquet", WRONG_USE) from error
