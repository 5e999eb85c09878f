"""Options that say how a file of rows is written, where it does not tell; and what they come to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from consumer.cli.values import column_type

if TYPE_CHECKING:
    from pipeline.reading.options import ReadOptions

READING = "Reading, where the file does not tell"

Types = Annotated[
    list[str] | None,
    typer.Option(
        "--type",
        metavar="COLUMN=TYPE",
        help="number, category, text, date, date:FORMAT (d/m/y or %Y%m%d) or id; repeat it.",
        rich_help_panel=READING,
    ),
]
Missing = Annotated[
    list[str] | None,
    typer.Option(metavar="VALUE", help="Counts as missing, such as -999; repeat it.", rich_help_panel=READING),
]
Decimal = Annotated[str | None, typer.Option(metavar="MARK", help="The decimal mark, . or ,", rich_help_panel=READING)]
Delimiter = Annotated[
    str | None,
    typer.Option(metavar="CHARACTER", help="Between the values of CSV; tab for a tab.", rich_help_panel=READING),
]
Header = Annotated[
    bool | None,
    typer.Option("--header/--no-header", help="Whether the first row holds names.", rich_help_panel=READING),
]
Encoding = Annotated[
    str | None, typer.Option(metavar="NAME", help="Such as latin-1 or cp1250.", rich_help_panel=READING)
]
Sheet = Annotated[str | None, typer.Option(metavar="NAME", help="The sheet of a workbook.", rich_help_panel=READING)]

NAMED_DELIMITERS = {"tab": "\t", "\\t": "\t", "space": " "}


def told(
    *,
    types: Sequence[str] | None = None,
    missing: Sequence[str] | None = None,
    decimal: str | None = None,
    delimiter: str | None = None,
    header: bool | None = None,
    encoding: str | None = None,
    sheet: str | None = None,
    keep_texts: bool = False,
) -> ReadOptions:
    """The options as reading takes them.  Raises RejectedError for what none can be."""
    from pipeline.reading.options import ReadOptions

    return ReadOptions(
        keep_texts=keep_texts,
        encoding=encoding or "",
        delimiter=NAMED_DELIMITERS.get(delimiter or "", delimiter or ""),
        decimal=decimal or "",
        header=header,
        missing=tuple(missing or ()),
        sheet=sheet or "",
        types=dict(map(column_type, types or ())),
    )
