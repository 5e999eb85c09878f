"""Reads a sheet of a workbook: Excel's .xlsx, .xlsm, .xlsb and .xls, or OpenDocument's .ods."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import time, timedelta
from itertools import chain, islice
from pathlib import Path
from typing import Any
from zipfile import BadZipFile, ZipFile, is_zipfile

from python_calamine import (
    CalamineError,
    CalamineSheet,
    CalamineWorkbook,
    PasswordError,
    SheetTypeEnum,
    SheetVisibleEnum,
    load_workbook,
)

from pipeline.errors import RejectedError, did_you_mean, said_by
from pipeline.reading.dialects import NO_HEADER, are_values
from pipeline.reading.notes import Note
from pipeline.reading.options import ReadOptions
from pipeline.reading.tables import LARGEST_WHOLE, check_column_count, check_doubled, named

OLD_EXCEL = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
PARTS = ("xl/workbook.xml", "xl/workbook.bin", "content.xml")
"""A zip archive with one of these is a workbook."""
LOOKED_AT = 50
"""Rows that are looked at to find the one with the names."""


def is_workbook(path: Path) -> bool:
    with path.open("rb") as file:
        if file.read(len(OLD_EXCEL)) == OLD_EXCEL:
            return True
    if not is_zipfile(path):
        return False
    try:
        with ZipFile(path) as archive:
            return not set(PARTS).isdisjoint(archive.namelist())
    except BadZipFile:
        return False


def read_sheet(path: Path, options: ReadOptions) -> tuple[Iterator[Mapping[str, Any]], list[Note]]:
    """The rows of a sheet, the first that is not empty unless one is named, as `rows.table_of` takes them.

    Raises RejectedError if there is no such sheet, or the file cannot be read.
    """
    with _readable():
        book = load_workbook(path)
        sheet = _sheet(book, options.sheet)
        rows = sheet.iter_rows()
        first = list(islice(rows, LOOKED_AT))
    notes = [] if options.sheet or len(book.sheet_names) == 1 else [_note(sheet, book.sheet_names)]
    blank = next((place for place, row in enumerate(first) if any(cell != "" for cell in row)), 0)
    start = blank if options.header is False else _start(first)
    if start > blank:
        notes.append(Note("", f"{start:,} rows before the names of the columns are left out"))
    cells = _cells(first[start]) if start < len(first) else []
    if options.header is None and are_values(cells, []):
        notes.append(Note("", NO_HEADER))
    if options.header is False or (options.header is None and are_values(cells, [])):
        names = [named("", place) for place in range(sheet.width)]
    else:
        names, start = _names(cells), start + 1
    check_column_count(len(names))
    return _rows(chain(first[start:], rows), names), notes


def _sheet(book: CalamineWorkbook, name: str) -> CalamineSheet:
    if name:
        if name not in book.sheet_names:
            raise RejectedError(
                f"the workbook has no sheet {name!r}{did_you_mean(name, book.sheet_names)}; its sheets are "
                f"{', '.join(book.sheet_names)} (--sheet; --forget leaves out what an earlier import was told)"
            )
        return book.get_sheet_by_name(name)
    for one in book.sheets_metadata:
        if one.typ == SheetTypeEnum.WorkSheet and one.visible == SheetVisibleEnum.Visible:
            sheet = book.get_sheet_by_name(one.name)
            if sheet.height:
                return sheet
    raise RejectedError("the workbook has no visible sheet with values")


def _note(sheet: CalamineSheet, names: Sequence[str]) -> Note:
    others = ", ".join(name for name in names if name != sheet.name)
    return Note("", f"sheet {sheet.name!r} of {len(names):,} is read; --sheet names another: {others}")


def _start(rows: Sequence[Sequence[Any]]) -> int:
    """The place of the first row with at least half as many values as the fullest: titles stand before it."""
    counts = [sum(cell != "" for cell in row) for row in rows]
    most = max(counts, default=0)
    return next((place for place, count in enumerate(counts) if 2 * count >= most and count), 0)


def _cells(row: Sequence[Any]) -> list[str]:
    return [str(_value(cell) if cell != "" else "").strip() for cell in row]


def _names(cells: Sequence[str]) -> list[str]:
    names = [named(name, place) if place else name for place, name in enumerate(cells)]
    check_doubled(names)
    return names


def _rows(rows: Iterator[Sequence[Any]], names: Sequence[str]) -> Iterator[Mapping[str, Any]]:
    """Each row that is not blank; the first has all names, so that columns without any value are known too."""
    known: Mapping[str, Any] = dict.fromkeys(names)
    with _readable():
        for row in rows:
            found = {name: _value(cell) for name, cell in zip(names, row, strict=False) if cell != ""}
            if found:
                yield {**known, **found}
                known = {}


def _value(cell: Any) -> Any:
    """A cell as a value of a table; Excel keeps integers as floats."""
    if isinstance(cell, float) and cell.is_integer() and abs(cell) <= LARGEST_WHOLE:
        return int(cell)
    if isinstance(cell, time):
        return cell.isoformat()
    return cell.total_seconds() if isinstance(cell, timedelta) else cell


@contextmanager
def _readable() -> Iterator[None]:
    """Turns the library's errors about the file, panics among them, into RejectedError."""
    try:
        yield
    except PasswordError as error:
        raise RejectedError("the workbook has a password; save it without one") from error
    except CalamineError as error:
        raise RejectedError(f"the workbook cannot be read: {said_by(error)}") from error
    except BaseException as error:
        if type(error).__name__ != "PanicException":
            raise
        raise RejectedError(f"the workbook cannot be read: {error}") from error
