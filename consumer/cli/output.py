"""Shows results: tables on a terminal, plain lines in a pipe, one JSON object per line with --json."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console

Json = Annotated[bool, typer.Option("--json", help="One JSON object a line.")]
Project = Annotated[
    str | None,
    typer.Option(
        "--project",
        metavar="NAME",
        help="Show and change this project only.  [default: TENSORFLEET_PROJECT, else all; for one model, default]",
    ),
]
Document = Mapping[str, Any]

GAP = 3
FOLDED_WIDTH = 28
CUT_WIDTH, WELL_CUT_WIDTH = 8, 16
STYLES = {
    "REGISTERED": "green",
    "REJECTED": "yellow",
    "FAILED": "red",
    "TIMED_OUT": "red",
    "CANCELLED": "magenta",
}


class Stop(Exception):  # noqa: N818 - the end of a command, with its exit code
    """Ends the command with one line on standard error: what happened, with what, and what to do."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.message = message
        self.code = code


@dataclass(frozen=True, slots=True)
class TableColumn:
    """One column of a table: its heading, its text for a document, and how it looks on a terminal.

    If the terminal is too narrow, `fold` columns wrap, `extra` ones are left out, `whole` ones keep their width, and
    the others are cut.  A column without any text is left out.
    """

    heading: str
    text: Callable[[Document], str]
    right: bool = False
    style: Callable[[Document], str] | str = ""
    fold: bool = False
    whole: bool = False
    extra: bool = False


def column(heading: str, name: str, **look: Any) -> TableColumn:
    """A column that shows a field unchanged."""
    return TableColumn(heading, lambda document: shown(document.get(name)), **look)


def show_rows(
    documents: Iterable[Document], columns: Sequence[TableColumn], *, as_json: bool, none: str = "There is none."
) -> None:
    """Show a list of documents; on a terminal an empty one shows `none`, on standard error."""
    if as_json:
        for document in documents:
            write_json(document)
    elif not on_terminal():
        for document in documents:
            write("\t".join(one_line(each.text(document)) for each in columns))
    else:
        _table(list(documents), columns, none)


def show_fields(
    document: Document, lines: Mapping[str, str | Mapping[str, str]], *, as_json: bool, title: str = ""
) -> None:
    """Show one document; `lines` is what people see of it, with each mapping as a small table."""
    if as_json:
        write_json(document)
    elif not on_terminal():
        for name, value in lines.items():
            for part, text in {"": value}.items() if isinstance(value, str) else value.items():
                write(one_line(f"{name}{'.' if part else ''}{part}: {text}"))
    else:
        from rich.text import Text

        if title:
            console().print(Text(title, "bold"))
        console().print(_grid(lines))


def numbered(texts: Sequence[str]) -> Mapping[str, str]:
    """Texts for `show_fields`, each on a line of its own."""
    return {str(number): text for number, text in enumerate(texts, 1)}


def write_json(document: Document) -> None:
    import orjson

    options = orjson.OPT_UTC_Z | orjson.OPT_NON_STR_KEYS | orjson.OPT_SERIALIZE_NUMPY
    write(orjson.dumps(document, default=str, option=options).decode())


def write(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def note(line: str) -> None:
    """Write a note on standard error, beside the result."""
    sys.stderr.write(f"{one_line(line)}\n")


def complain(message: str) -> None:
    """Write one line on standard error that says what went wrong."""
    if sys.stderr.isatty():
        console(stderr=True).print("✗ ", message_text(message), sep="", style="red", highlight=False, soft_wrap=True)
    else:
        note(f"tensorfleet: {message}")


def message_text(message: str) -> Any:
    from rich.text import Text

    return Text(one_line(message))


def console(*, stderr: bool = False) -> Console:
    from rich.console import Console

    return Console(stderr=stderr, highlight=False)


def on_terminal() -> bool:
    return sys.stdout.isatty()


def one_line(text: str) -> str:
    """The text without control and direction characters, as anybody may have written it."""
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() else " " if one.isspace() else "\N{REPLACEMENT CHARACTER}" for one in text)


def shown(value: object) -> str:
    """A value for people: floats with 4 digits, times in UTC without a zone, lists with commas, null as empty."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, datetime):
        moment = value if value.tzinfo is None else value.astimezone(UTC)
        return moment.replace(tzinfo=None).isoformat(" ", "seconds")
    if isinstance(value, list | tuple):
        return ", ".join(map(shown, value))
    if isinstance(value, Mapping):
        return ", ".join(f"{name}={shown(one)}" for name, one in value.items())
    return str(value)


def minute(value: datetime | None) -> str:
    """A time in UTC, to the minute, for narrow columns."""
    return value.astimezone(UTC).strftime("%b %d %H:%M") if value and on_terminal() else shown(value)


def size(count: int) -> str:
    """A number of bytes, for people."""
    amount = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if amount < 1000:
            return f"{amount:.0f} {unit}" if unit == "B" or amount >= 10 else f"{amount:.1f} {unit}"
        amount /= 1000
    return f"{amount:.1f} TB"


def duration(seconds: float) -> str:
    """A number of seconds, for people."""
    if seconds < 10:
        return f"{seconds:.2f} s"
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60} h {minutes % 60:02} min" if minutes >= 60 else f"{minutes} min {rest:02} s"


def _grid(lines: Mapping[str, str | Mapping[str, str]]) -> Any:
    from rich.table import Table
    from rich.text import Text

    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    for name, value in lines.items():
        grid.add_row(one_line(name), Text(one_line(value)) if isinstance(value, str) else _grid(value))
    return grid


def _table(documents: Sequence[Document], columns: Sequence[TableColumn], none: str) -> None:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    if not documents:
        note(none)
        return
    out = console()
    texts = [[one_line(each.text(document)) for document in documents] for each in columns]
    told = [(each, cells) for each, cells in zip(columns, texts, strict=True) if any(cells)]
    widths = _fitted([(each, max(len(each.heading), *map(len, cells))) for each, cells in told], out.width)
    told = [one for one, width in zip(told, widths, strict=True) if width]
    table = Table(box=box.SIMPLE_HEAD, header_style="bold", pad_edge=False, show_edge=False)
    for (each, _), width in zip(told, filter(None, widths), strict=True):
        table.add_column(
            each.heading,
            justify="right" if each.right else "left",
            overflow="fold" if each.fold else "ellipsis",
            no_wrap=not each.fold,
            width=width,
        )
    for row, document in enumerate(documents):
        looks = [each.style(document) if callable(each.style) else each.style for each, _ in told]
        table.add_row(*(Text(cells[row], look) for (_, cells), look in zip(told, looks, strict=True)))
    out.print(table)


def _fitted(columns: Sequence[tuple[TableColumn, int]], room: int) -> list[int]:
    """Reduce the columns' widths to fit the terminal, if possible; 0 leaves a column out."""
    widths = [width for _, width in columns]

    def excess() -> int:
        return sum(width + GAP for width in widths if width) - room

    def give_way(places: list[int], least: int) -> None:
        while excess() > 0 and (wide := [place for place in places if widths[place] > least]):
            widths[max(wide, key=widths.__getitem__)] -= 1

    folding = [place for place, (each, _) in enumerate(columns) if each.fold]
    cut = [place for place, (each, _) in enumerate(columns) if not each.fold and not each.whole]
    give_way(folding, FOLDED_WIDTH)
    give_way(cut, WELL_CUT_WIDTH)
    for place in reversed([place for place, (each, _) in enumerate(columns) if each.extra]):
        if excess() > 0:
            widths[place] = 0
    give_way(cut, CUT_WIDTH)
    give_way(folding, CUT_WIDTH)
    for place in folding:
        widths[place] = min(columns[place][1], widths[place] + max(0, -excess()))
    return widths
