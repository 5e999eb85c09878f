"""`tensorfleet datasets import`: stores a file of rows as a dataset, and shows how it was read."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from consumer.cli import context
from consumer.cli.dataset_versions import as_written, document
from consumer.cli.describing import described, show_described
from consumer.cli.file_options import (
    READING,
    Decimal,
    Delimiter,
    Encoding,
    Header,
    Missing,
    Sheet,
    Types,
    told,
)
from consumer.cli.output import Json, Stop, note, write_json
from consumer.cli.values import WRONG_USE, user_name


def import_dataset(
    file: Annotated[
        str,
        typer.Argument(
            help="CSV, JSON lines, Parquet, Feather or Excel, also in gzip, bzip2, xz or zip; `-` is standard input. "
            "s3://BUCKET/KEY.parquet, or s3://BUCKET/PREFIX/ for all *.parquet below it, is not copied: "
            "every training reads what is there then."
        ),
    ],
    name: Annotated[str | None, typer.Option(help="[default: the file's name]")] = None,
    target: Annotated[
        str | None, typer.Option(help="The column to predict.  [default: as before, else the last one]")
    ] = None,
    types: Types = None,
    missing: Missing = None,
    decimal: Decimal = None,
    delimiter: Delimiter = None,
    header: Header = None,
    encoding: Encoding = None,
    sheet: Sheet = None,
    forget: Annotated[
        bool,
        typer.Option(
            "--forget",
            help="Leave out what earlier imports of this name were told, the target too.",
            rich_help_panel=READING,
        ),
    ] = False,
    as_json: Json = False,
) -> None:
    """Store a dataset under a name, and show the types it was read with; what the name had stays as a version.

    What is told about reading, and the target, are kept and hold for the next import of the name too.
    """
    from pipeline.datasets import Origin
    from pipeline.datasets.names import check_free
    from pipeline.datasets.s3 import SCHEME
    from pipeline.datasets.versions import target_of, told_before
    from pipeline.reading.options import NOTHING_SAID
    from pipeline.reading.tables import about, check_target

    if name is None and file == "-":
        raise Stop("--name must be given for standard input", WRONG_USE)
    if "://" in file and not file.startswith(SCHEME):
        raise Stop(f"{file} is not fetched; download it, and import the file", WRONG_USE)
    name = name or Path(re.sub(r"\.(gz|bz2|xz)$", "", file)).stem
    check_free(name)
    said = told(
        types=types,
        missing=missing,
        decimal=decimal,
        delimiter=delimiter,
        header=header,
        encoding=encoding,
        sheet=sheet,
    )
    source = context.stores().datasets
    before, its_target = (NOTHING_SAID, None) if forget else told_before(source, name)
    options = before.but(said)
    if options != said:
        note(f"read as the import before it, with {as_written(before.to_document())}; --forget leaves that out")
    if file.startswith(SCHEME):
        target = target or its_target
        added, table = source.point(name, file, target, Origin(user_name(), file), options)
    else:
        loaded = context.loaded(name, file, options)
        table = loaded.table
        target = target_of(target, its_target, table)
        with about(name):
            check_target(table, target)
        origin = Origin(user_name(), "" if file == "-" else Path(file).name)
        added = source.add(name, table, target, origin, options, loaded.fingerprint)
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
