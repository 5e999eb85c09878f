"""Finds how a CSV file is written: its delimiter, its header, and what stands before it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from pipeline.errors import RejectedError
from pipeline.reading.notes import Note
from pipeline.reading.numbers import NumberNotation
from pipeline.reading.options import ReadOptions
from pipeline.reading.tables import check_column_count, named

BLOCK_BYTES = 8 * 1024 * 1024
"""CSV is read in blocks of this size; a row must fit into one, so longer rows make it larger."""
DELIMITERS = (",", ";", "\t", "|")
NO_HEADER = "the first line is numbers, so there is no header; columns are named column_1, column_2, …"
LOOKED_AT = 50
"""Rows that are looked at to find the delimiter."""
LONGEST_LOOK = 1024 * 1024
SCANNED_BYTES = 4 * 1024 * 1024
QUOTED = re.compile(r'"(?:[^"]|"")*"')
BLANK_CELL = re.compile(r'"(?:[^"]|"")*"|\S+', re.ASCII)
"""A cell where blanks separate them."""
UNQUOTED_BY_R = re.compile(f"{NumberNotation().pattern}|^(?:NA|NaN|TRUE|FALSE)$")
"""What R's write.table writes without quotation marks, which it puts around words."""
OTHER_DELIMITERS = re.compile(r"[:^~!&]| (?= )")
SEP = re.compile(r'\ufeff?"?sep=([^\w\s"]|\t)"?', re.IGNORECASE)
"""Excel's own line, which tells it the delimiter."""


@dataclass(frozen=True, slots=True)
class Dialect:
    """How a CSV file is to be parsed.

    Attributes:
        skipped: lines before the header, or before the rows if there is no header (`names`).
        quoted: whether no block may end at a line end between quotation marks, which is slower to see to.
        block: the size of blocks in bytes.
    """

    delimiter: str
    skipped: int
    names: list[str] | None
    quoted: bool = False
    block: int = BLOCK_BYTES


def dialect_of(path: Path, options: ReadOptions, into: Path) -> tuple[Path, Dialect, list[Note]]:
    """The file to read, how it is written, and what was decided.

    A file that Arrow would not read as it is meant is rewritten to the file `into`.
    """
    lines, notes = _first_lines(path), list[Note]()
    skipped, delimiter = 0, options.delimiter.strip(" ")
    while skipped < len(lines) and not lines[skipped].strip():
        skipped += 1
    if skipped < len(lines) and (found := SEP.fullmatch(lines[skipped].strip("\r\n"))):
        delimiter, skipped = delimiter or found[1], skipped + 1
    first = skipped
    while skipped + 1 < len(lines) and _is_comment(lines[skipped], lines[skipped + 1], delimiter):
        skipped += 1
    if skipped > first:
        notes.append(Note("", f"{skipped - first:,} lines before the header that begin with # are left out"))
    rest = lines[skipped:]
    if not rest:
        raise RejectedError("the file is empty")
    if "\0" in rest[0]:
        raise RejectedError("the header of the CSV file holds zero bytes, as UTF-16 does; save it as UTF-8")
    if options.delimiter == " " or (not delimiter and _is_separated_by_blanks(rest)):
        notes.append(Note("", "values are separated by blanks"))
        begin = "\t" * _has_row_names(rest)
        path, delimiter = _rewritten(path, into, lambda line: f"{_tabbed(line)}\n", skipped, begin), "\t"
        rest = [begin + _tabbed(rest[0]), *map(_tabbed, rest[1:])]
    _check_delimiter(options.delimiter.strip(" "), rest[0])
    delimiter = delimiter or _delimiter(rest)
    tight = partial(_blank_before_quotes(delimiter).sub, lambda found: found[1] or "")
    if any(tight(line) != line for line in rest) or _has_blank_before_quotes(path, delimiter):
        path = _rewritten(path, into, tight)
    cells = _split(rest[0], delimiter)
    check_column_count(_cells(rest[0], delimiter))
    has_header = not are_values(cells, rest[1:2]) if options.header is None else options.header
    names = None if has_header else [named("", place) for place in range(_cells(rest[0], delimiter))]
    if not has_header and options.header is None:
        notes.append(Note("", NO_HEADER))
    if has_header and options.header is None and (fraction := next(filter(_is_fraction, cells), None)):
        notes.append(Note("", f"a column is named {fraction}: if the file has no header, say --no-header"))
    if len(cells) == 1 and options.delimiter == "" and (mark := OTHER_DELIMITERS.search(rest[0])):
        notes.append(Note("", f"there is one column; if {mark[0]!r} stands between several, say --delimiter"))
    return path, Dialect(delimiter, skipped, names), notes


def _first_lines(path: Path) -> list[str]:
    """At most LOOKED_AT, and fewer if they are long."""
    lines, size = [], 0
    for line in islice(_lines(path), LOOKED_AT):
        lines.append(line)
        size += len(line)
        if size > LONGEST_LOOK and len(lines) > 1:
            break
    return lines


def _lines(path: Path) -> Iterator[str]:
    with path.open("rb") as file:
        while line := file.readline(LONGEST_LOOK):
            yield line.decode(errors="replace").rstrip("\r\n")


def _is_comment(line: str, following: str, delimiter: str) -> bool:
    """Whether a line is a comment, and not a header such as `#id,name`."""
    if not line.startswith("#"):
        return False
    marks = (delimiter,) if delimiter else DELIMITERS
    return not any(line.count(mark) and line.count(mark) == following.count(mark) for mark in marks)


def _delimiter(lines: Sequence[str]) -> str:
    """The one that cuts most of the first lines into as many cells as the first, or occurs most in the first."""

    def score(mark: str) -> tuple[int, int]:
        cells = [_cells(line, mark) for line in lines]
        return (cells.count(cells[0]) if cells[0] > 1 else 0), cells[0]

    return max(DELIMITERS, key=score)


def _split(line: str, delimiter: str) -> list[str]:
    """The cells of a line, without quotation marks around them."""
    hidden = QUOTED.sub(lambda quoted: quoted[0][1:-1].replace(delimiter, "\0"), line)
    return [cell.replace("\0", delimiter).strip() for cell in hidden.split(delimiter)]


def _cells(line: str, delimiter: str) -> int:
    return QUOTED.sub("", line).count(delimiter) + 1


def _is_separated_by_blanks(lines: Sequence[str]) -> bool:
    """Whether blanks, or blanks and tabs, cut all lines into as many cells, and no delimiter does."""
    if any(mark in QUOTED.sub("", lines[0]) for mark in DELIMITERS if mark != "\t"):
        return False
    if "\t" in lines[0] and len({_cells(line, "\t") for line in lines if line.strip()}) == 1:
        return False
    counts = {len(BLANK_CELL.findall(line)) for line in lines[1:] if line.strip()}
    if len(counts) != 1 or any(line.count('"') % 2 for line in lines):
        return False
    return max(counts) > 1 and (len(BLANK_CELL.findall(lines[0])) in counts or _has_row_names(lines))


def _has_row_names(lines: Sequence[str]) -> bool:
    """Whether rows begin with a name that has no header, as R writes them; words are quoted then."""
    names = len(BLANK_CELL.findall(lines[0]))
    rows = [BLANK_CELL.findall(line) for line in lines[1:] if line.strip()]
    return bool(rows) and all(
        len(row) == names + 1 and all(cell[0] == '"' or UNQUOTED_BY_R.search(cell) for cell in row[1:]) for row in rows
    )


def _tabbed(line: str) -> str:
    is_plain = line.isascii() and '"' not in line  # and is cut much faster
    return "\t".join(line.split() if is_plain else BLANK_CELL.findall(line))


def _blank_before_quotes(delimiter: str) -> re.Pattern[str]:
    """Blanks that Arrow would take, with the quotation marks, for a part of the value; or a whole quoted value."""
    return re.compile(rf'({QUOTED.pattern})|(?<={re.escape(delimiter)}) +(?=")')


def _has_blank_before_quotes(path: Path, delimiter: str) -> bool:
    """Whether one is in the first SCANNED_BYTES; those who write one write many."""
    with path.open("rb") as file:
        content = file.read(SCANNED_BYTES)
    return any(delimiter.encode() + blanks in content for blanks in (b' "', b'  "'))


def _check_delimiter(told: str, header: str) -> None:
    """Raises RejectedError if the header does not have the delimiter that was told, but another one."""
    if told and told not in header and (others := [mark for mark in DELIMITERS if mark in header]):
        raise RejectedError(
            f"the header has no {told!r}, which was told to be the delimiter, but {others[0]!r}; say --delimiter, or "
            "--forget to leave out what an earlier import was told"
        )


def _rewritten(path: Path, into: Path, change: Callable[[str], str], skipped: int = 0, begin: str = "") -> Path:
    """The file with each line changed, and `begin` before the line after the skipped ones."""
    as_it_is: Any = {"encoding": "utf-8", "errors": "surrogateescape", "newline": "\n"}
    with path.open(**as_it_is) as source, into.open("w", **as_it_is) as file:
        file.writelines((begin if place == skipped else "") + change(line) for place, line in enumerate(source))
    return into


def are_values(cells: list[str], following: Sequence[str]) -> bool:
    """Whether all cells are numbers, and not names: of columns that are counted, or beside a column of row names.

    Row names have no name; `following` is the line in which they begin.
    """
    are_different = len(set(cells)) == len(cells)
    if cells and not cells[0] and are_different and following and not following[0].startswith(DELIMITERS):
        return False
    if not all(cell == "" or NumberNotation.of([cell]) for cell in cells):
        return False
    counts = ([str(number) for number in range(start, start + len(cells))] for start in (0, 1))
    return any(cells) and cells not in counts


def _is_fraction(cell: str) -> bool:
    return re.fullmatch(r"[+-]?\d+\.\d+", cell) is not None
