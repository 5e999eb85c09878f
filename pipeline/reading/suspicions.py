"""Finds what looks like a mistake in a column's values: ids among numbers, words that differ in case or blanks only."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline.reading.notes import Note
from pipeline.reading.tables import TEXT, ends_of

LIKE_AN_ID = "differs in every row: if it is an id, leave it out (--type NAME=id at import, or features)"
FEW_ROWS = 30
"""In so few rows integers may differ by chance."""
FIRST_DATE, LAST_DATE = 19_000_101, 21_001_231
ID_ENDINGS = ("id", "nr", "key", "code", "number")
NO_IDS = ("paid", "bid", "covid")
STAND_INS = (-9, -99, -999, -9_999, -99_999)
"""Negative numbers that often stand for a missing one."""
TOTALS = ("total", "totals", "grand total", "sum", "subtotal", "summe", "gesamt", "somme", "totale", "suma")
YEARS = (1500, 2200)
"""Rising integers in this range are years, not ids."""
PART_ROWS, PARTS = 10_000, 10
"""Of a longer column of words so many rows are looked at in so many places, since all would take too long."""
MOST_WORDS = 1_000
"""A column with more different words in those rows does not hold categories."""
SHOWN_WORDS = 3
SHOWN = 40


def suspicions(name: str, column: Any) -> Sequence[Note]:
    """What looks suspicious about a column that has its type."""
    if (pa.types.is_integer(column.type) or pa.types.is_floating(column.type)) and (note := _stand_in(name, column)):
        return (note,)
    if pa.types.is_integer(column.type) and _are_like_dates(column):
        first = column[0].as_py()
        return (Note(name, f"looks like dates such as {first}; --type {name}=date:%Y%m%d reads them so"),)
    if pa.types.is_integer(column.type) and _is_like_an_id(name, column):
        return (Note(name, LIKE_AN_ID),)
    return (*_variants(name, column), *_total(name, column)) if column.type == TEXT else ()


def concerns(note: Note, target: str) -> bool:
    """Whether a note says anything to those who predict `target`, which may differ in every row."""
    return note.column != target or note.text != LIKE_AN_ID


def _stand_in(name: str, column: Any) -> Note | None:
    """A note about a number such as -999 that comes several times, and is the only negative one."""
    low, _ = ends_of(column)
    if low not in STAND_INS:
        return None
    is_low: Any = pc.equal(column, low)
    count, next_low = pc.sum(is_low).as_py(), pc.min(column.filter(pc.invert(is_low))).as_py()
    if count < 2 or next_low is None or next_low < 0:
        return None
    text = (
        f"holds {low:g} in {count:,} rows, and no other negative number: where it stands for a missing value, say "
        f"--missing {low:g}"
    )
    return Note(name, text, pc.index(is_low, True).as_py() + 1, f"{low:g}")


def _total(name: str, column: Any) -> Sequence[Note]:
    """A note about a last row that calls itself a total."""
    last = column[len(column) - 1].as_py() if len(column) else None
    if last is None or last.strip().rstrip(":").lower() not in TOTALS:
        return ()
    return (Note(name, "the last row calls itself a total: leave it out if it sums the others", len(column), last),)


def _are_like_dates(column: Any) -> bool:
    """Whether all integers are dates of the years from 1900 to 2100, written as 20240131."""
    if not len(column) or column.null_count:
        return False
    if not FIRST_DATE <= column[0].as_py() <= LAST_DATE:  # ends here for most columns
        return False
    numbers = column.to_numpy()
    if not ((numbers >= FIRST_DATE) & (numbers <= LAST_DATE)).all():
        return False
    days, months = numbers % 100, numbers // 100 % 100
    return bool(((days >= 1) & (days <= 31) & (months >= 1) & (months <= 12)).all())


def _is_like_an_id(name: str, column: Any) -> bool:
    """Whether no integer comes twice, and they rise or fall, have no gaps, or are called an id."""
    if len(column) <= FEW_ROWS or column.null_count:
        return False
    numbers = column.to_numpy()
    if not _all_differ(numbers[:PART_ROWS]):  # ends here for most columns
        return False
    low, high = numbers.min(), numbers.max()
    if _is_called_an_id(name):
        return _all_differ(numbers)
    if YEARS[0] <= low and high <= YEARS[1]:
        return False
    if (numbers[1:] > numbers[:-1]).all() or (numbers[1:] < numbers[:-1]).all():
        return True
    return int(high) - int(low) == len(numbers) - 1 and _all_differ(numbers)


def _all_differ(numbers: NDArray[Any]) -> bool:
    ordered = np.sort(numbers)
    return bool((ordered[1:] != ordered[:-1]).all())


def _is_called_an_id(name: str) -> bool:
    name = name.strip().lower()
    return name.endswith(ID_ENDINGS) and not name.endswith(NO_IDS)


def _variants(name: str, column: Any) -> Sequence[Note]:
    """A note about words that are the same but for case and blanks."""
    words = pc.unique(_parts(column)).drop_null()
    if len(words) > MOST_WORDS:
        return ()
    plain = pc.replace_substring_regex(pc.utf8_lower(words), "[\\s\u00a0\u202f]+", "")
    if pc.count_distinct(plain).as_py() == len(words):
        return ()
    same = defaultdict(list)
    for word, key in zip(words.to_pylist(), plain.to_pylist(), strict=True):
        same[key].append(word)
    found = [group for group in same.values() if len(group) > 1]
    shown = "; ".join(" and ".join(repr(word[:SHOWN]) for word in group[:SHOWN_WORDS]) for group in found[:SHOWN_WORDS])
    more = f" and {len(found) - SHOWN_WORDS:,} more" if len(found) > SHOWN_WORDS else ""
    row: Any = pc.index(column, pa.scalar(found[0][1], TEXT))
    text = f"holds words that differ in case or blanks only, and count as different: {shown}{more}"
    return (Note(name, text, row.as_py() + 1, found[0][1][:SHOWN]),)


def _parts(column: Any) -> Any:
    starts = range(0, len(column), max(PART_ROWS, len(column) // PARTS))
    parts = [column.slice(start, PART_ROWS) for start in starts]
    return pa.chunked_array([chunk for part in parts for chunk in getattr(part, "chunks", (part,))], TEXT)
