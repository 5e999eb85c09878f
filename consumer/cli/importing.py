"""`tensorfleet datasets import`: stores a file of rows as a dataset, and shows how it was read."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from consumer.cli import context
from consumer.cli.dataset_versions import as_written, document
from consumer.cli.describing import described, show_described
from consumer.cli.output import Json, Stop, note, write_json
from consumer.cli.values import WRONG_USE, column_type, user_name

READING = "Reading, where the file does not tell"


def import_dataset(
    file: Annotated[
        str,
        typer.Argument(
            help="CSV, JSON lines, Parquet, Feather or Excel, also in gzip or zip; `-` is standard input. "
            "s3://BUCKET/KEY.parquet, or s3://BUCKET/PREFIX/ for all *.parquet below it, is not copied: "
            "every training reads what is there then."
        ),
    ],
    name: Annotated[str | None, typer.Option(help="[default: the file's name]")] = None,
    target: Annotated[str | None, typer.Option(help="The column to predict.  [default: the last one]")] = None,
    types: Annotated[
        list[str] | None,
        typer.Option(
            "--type",
            metavar="COLUMN=TYPE",
            help="number, category, text, date, date:FORMAT (d/m/y or %Y%m%d) or id; repeat it.",
            rich_help_panel=READING,
        ),
    ] = None,
    missing: Annotated[
        list[str] | None,
        typer.Option(metavar="VALUE", help="Counts as missing, such as -999; repeat it.", rich_help_panel=READING),
    ] = None,
    decimal: Annotated[
        str | None, typer.Option(metavar="MARK", help="The decimal mark, . or ,", rich_help_panel=READING)
    ] = None,
    delimiter: Annotated[
        str | None,
        typer.Option(metavar="CHARACTER", help="Between the values of CSV; tab for a tab.", rich_help_panel=READING),
    ] = None,
    header: Annotated[
        bool | None,
        typer.Option("--header/--no-header", help="Whether the first row holds names.", rich_help_panel=READING),
    ] = None,
    encoding: Annotated[
        str | None, typer.Option(metavar="NAME", help="Such as latin-1 or cp1250.", rich_help_panel=READING)
    ] = None,
    sheet: Annotated[
        str | None, typer.Option(metavar="NAME", help="The sheet of a workbook.", rich_help_panel=READING)
    ] = None,
    forget: Annotated[
        bool,
        typer.Option(
            "--forget", help="Leave out what earlier imports of this name were told.", rich_help_panel=READING
        ),
    ] = False,
    as_json: Json = False,
) -> None:
    """Store a dataset under a name, and show the types it was read with; what the name had stays as a version.

    What is told about reading is kept, and holds for the next import of the name too.
    """
    from pipeline.datasets import Origin
    from pipeline.datasets.names import check_free
    from pipeline.datasets.s3 import SCHEME
    from pipeline.datasets.versions import told_before
    from pipeline.reading.options import NOTHING_SAID, ReadOptions
    from pipeline.reading.tables import about, check_target

    if name is None and file == "-":
        raise Stop("--name must be given for standard input", WRONG_USE)
    name = name or Path(file.removesuffix(".gz")).stem
    check_free(name)
    told = ReadOptions(
        encoding=encoding or "",
        delimiter={"tab": "\t", "\\t": "\t", "space": " "}.get(delimiter or "", delimiter or ""),
        decimal=decimal or "",
        header=header,
        missing=tuple(missing or ()),
        sheet=sheet or "",
        types=dict(map(column_type, types or ())),
    )
    source = context.stores().datasets
    before = NOTHING_SAID if forget else told_before(source, name)
    options = before.but(told)
    if options != told:
        note(f"read as the import before it, with {as_written(before.to_document())}; --forget leaves that out")
    if file.startswith(SCHEME):
        added, table = source.point(name, file, target, Origin(user_name(), file), options)
    else:
        table = context.table_of(name, file, options)
        with about(name):
            check_target(table, target)
        added = source.add(name, table, target, Origin(user_name(), "" if file == "-" else Path(file).name), options)
    found = described(name, table, target)
    if as_json:
        write_json({**found, "versions": [document(one) for one in source.versions(name)]})
    else:
        show_described(found)
        if target is None:
            note(f"the target is {found['target']}, the last column that can be one; --target names another")
    version, is_pointer = f"{name} v{added.version.number}", added.version.s3_url is not None
    if added.is_new:
        pointer = f": a pointer to {file}, which every training reads as it is then"
        note(f"stored as {version}{pointer if is_pointer else ''}")
    elif is_pointer:
        note(f"no new version: {version}, the current one, points to {file} already")
    else:
        note(f"no new version: this is the content of {version}, the current one")
