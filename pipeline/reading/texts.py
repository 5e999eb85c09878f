"""Decides from all values of a column of texts whether they are numbers, dates, truths or words."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline.errors import RejectedError
from pipeline.reading.dates import IN_UTC, ISO, NOTATIONS, OFFSET, AmbiguousDatesError, DateNotation, date_notation
from pipeline.reading.notes import Note
from pipeline.reading.numbers import LEADING_ZERO, NumberNotation, are_whole, has_leading_zero
from pipeline.reading.options import DATE, NUMBER, WORDS
from pipeline.reading.tables import TEXT, in_one

NA_WORDS = [  # what pandas reads as missing; in columns of words only where it is not quoted
    *("", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN"),
    *("<NA>", "N/A", "NA", "NULL", "NaN", "n/a", "nan", "null", "\\N"),
]
MARKS = frozenset(
    {
        *("", "-", "--", "---", ".", "..", "...", "?", "??", "n.a.", "n.a", "n/a", "na", "nan", "-nan", "nil", "none"),
        *("null", "(null)", "(none)", "<na>", "\\n", "\\\\n", "#n/a", "#na", "#null!", "#div/0!", "#value!", "#ref!"),
        *(
            "#num!",
            "#name?",
            "#n/a n/a",
            "1.#ind",
            "-1.#ind",
            "1.#qnan",
            "-1.#qnan",
            "missing",
            "unknown",
            "nd",
            "n.d.",
        ),
        *(
            "not available",
            "no data",
            "nodata",
            "undefined",
            "void",
            "empty",
            "blank",
            "tba",
            "tbd",
            "*",
            "\u2013",
            "\u2014",
        ),
    }
)
"""Values, in lower case, that stand for a missing one in a column of numbers or dates.  Among words they are words."""
MOST_MISFITS = 0.05
"""The largest share of values that are neither numbers (or dates) nor MARKS in a column that is read as such."""
FEW_ROWS = 10
"""In fewer rows it says little that most values are numbers."""
SAMPLES = 500
LONGEST = 64
"""Characters of the longest number or date."""
BLANKS = "".join(map(chr, (*range(9, 14), *range(28, 33), 0x85, 0xA0, 0x1680, *range(0x2000, 0x200B)))) + (
    "\u2028\u2029\u202f\u205f\u3000"
)
"""What Unicode calls white space."""
FIRST_OF_BLANKS, LAST_OF_BLANKS = (
    np.isin(np.arange(256), [blank.encode()[place] for blank in BLANKS]) for place in (0, -1)
)
"""By byte, whether it begins or ends a blank in UTF-8."""
DIGIT = re.compile("[0-9]")
INFINITE = re.compile("[+-]?inf(inity)?", re.IGNORECASE)
"""It says nothing about how the numbers beside it are written."""
SHOWN = 40
TRUTHS = {"true": True, "false": False}


@dataclass(frozen=True, slots=True)
class Read:
    """A column as it was read.

    Attributes:
        values: int64, float64, bool, timestamp[us], large_string, or null if there is no value at all.
        notation: how its values are written, if they are numbers or dates in another than the plain notation.
        told: what the column was said to be, if its type does not show it: a category, text, or identifiers.
        is_known: it was read before, and its notes are known.
    """

    values: Any
    notes: tuple[Note, ...] = ()
    notation: NumberNotation | DateNotation | None = None
    told: str = ""
    is_known: bool = False


class _Distinct:
    """The different values of a column of trimmed texts, with their counts."""

    def __init__(self, name: str, whole: Any) -> None:
        self.name = name
        self.whole = whole
        encoded = whole.dictionary_encode()
        self.texts, self.places = encoded.dictionary, encoded.indices
        self.counts = np.bincount(np.asarray(self.places.drop_null()), minlength=len(self.texts))
        self.is_mark = np.asarray(are_marks(self.texts))

    @property
    def rows(self) -> int:
        """How many values are no marks."""
        return int(self.counts[~self.is_mark].sum())

    def spread(self, values: Any) -> Any:
        """One value for each distinct text as one for each row."""
        return values.take(self.places)

    def count(self, of: Any) -> int:
        return int(self.counts[of].sum())

    def first(self, of: Any) -> tuple[int, str]:
        """The first row with one of these values, counted from 1, and the value."""
        places = np.asarray(pc.fill_null(self.places, -1))
        row = int(np.argmax(np.isin(places, np.flatnonzero(of))))
        return row + 1, self.whole[row].as_py()[:SHOWN]


def has_decimal_comma(column: Read) -> bool:
    return isinstance(column.notation, NumberNotation) and column.notation.decimal == ","


def has_decimal_point(column: Read) -> bool:
    """Whether texts are numbers with a decimal point, whatever the rest of the file has."""
    return bool(pa.types.is_floating(column.values.type)) and (column.notation is None or not has_decimal_comma(column))


def words(column: Any) -> Read:
    """A column of texts as words, whatever they look like."""
    return Read(_words(_trimmed(column)))


def read(name: str, column: Any, decimal: str = ".", *, certain: bool = False) -> Read:
    """Read a column of texts; `decimal` is the mark that the rest of the file uses, for values such as 1,234.

    `certain`: somebody said so.
    """
    whole = _trimmed(column)
    samples = _samples(whole)
    if not samples:
        found = _Distinct(name, whole)
        if not found.rows:
            return Read(pa.nulls(len(whole)), (Note(name, "has no value"),))
        samples = _samples(found.texts)
    if {text.lower() for text in samples} <= set(TRUTHS):
        found = _Distinct(name, whole)
        truths = pa.array([TRUTHS.get(text.lower()) for text in found.texts.to_pylist()], pa.bool_())
        if truths.null_count == found.is_mark.sum():
            return Read(found.spread(truths), _marked(found, "true and false"))
    if 2 * sum(1 for text in samples if DIGIT.search(text)) <= len(samples):
        return Read(_words(whole))
    decided = _numbers(name, whole, samples, decimal, certain=certain) or _dates(name, whole, samples)
    return decided or Read(_words(whole), _almost(name, whole, samples, decimal, certain=certain))


def _almost(name: str, whole: Any, samples: list[str], decimal: str, *, certain: bool) -> tuple[Note, ...]:
    """A note about words of which more than half are numbers or dates."""
    number = NumberNotation.of(samples, decimal, certain=certain)
    try:
        date = None if number else DateNotation.of(samples)
    except AmbiguousDatesError as error:
        date = NOTATIONS[error.args[0]]
    other = NumberNotation.of(samples) if certain else None
    if not (number or date or other):
        return ()
    found = _Distinct(name, whole)
    if other and other.decimal != decimal:
        text = f"is read as words: its numbers do not have the decimal mark {decimal!r}, which was told"
        return (Note(name, text, *found.first(~found.is_mark)),)
    if found.rows < FEW_ROWS:
        return ()
    is_one: Any
    if number:
        kind, is_one = NUMBER, pc.match_substring_regex(found.texts, number.pattern)
    elif date:
        kind, is_one = DATE, date.read(found.texts).is_valid()
    else:
        return ()
    misfits = ~np.asarray(is_one) & ~found.is_mark
    fitting = found.rows - found.count(misfits)
    if 2 * fitting <= found.rows or fitting == found.rows:
        return ()
    text = (
        f"is read as words: {fitting:,} of {found.rows:,} values are {kind}s, more than {MOST_MISFITS:.0%} are not; "
        f"--type {name}={kind} makes these missing"
    )
    return (Note(name, text, *found.first(misfits)),)


def read_as(name: str, column: Any, told: str, decimal: str = ".", *, certain: bool = False) -> Read:
    """Read a column of texts as what somebody said it is (see `options.TYPES`); misfits are missing, and named.

    Raises RejectedError if no value is such, or if day and month of dates cannot be told apart.
    """
    kind, _, written = told.partition(":")
    whole = _trimmed(column)
    if kind in WORDS:
        return Read(_words(whole), told=kind)
    texts = _Distinct(name, whole).texts
    if kind == NUMBER:
        samples = list(islice((text for text in texts.to_pylist() if NumberNotation.of([text]) is not None), SAMPLES))
        found = _numbers(name, whole, samples, decimal, told=True, certain=certain)
        example = "1,234.5" if decimal != "," else "1.234,5"
    else:
        notations = [date_notation(written)] if written else NOTATIONS.values()
        are_dates = np.logical_or.reduce([np.asarray(notation.read(texts).is_valid()) for notation in notations])
        samples = texts.filter(pa.array(are_dates))[:SAMPLES].to_pylist()
        found = _dates(name, whole, samples, written or kind)
        example = date_notation(written).example if written else ISO.example
    if found is None:
        first = next((text for text in texts.to_pylist() if text), "")[:SHOWN]
        raise RejectedError(f"column {name!r} has no value that is a {kind} such as {example}; the first is {first!r}")
    return found


def _trimmed(column: Any) -> Any:
    """An array of the texts without blanks around them."""
    if pa.types.is_dictionary(column.type):
        column = in_one(column)
        return _trimmed(column.dictionary).take(column.indices)
    whole = in_one(column.cast(TEXT))
    return pc.utf8_trim_whitespace(whole) if _may_have_blanks_around(whole) else whole


def may_hold(texts: Any, values: Sequence[str]) -> bool:
    """Whether a text begins with the same byte as one of these values, which is fast to see."""
    begins = np.isin(np.arange(256), [value.encode()[0] for value in values])
    return bool(begins.take(_bytes_of(texts, 0)).any())


def _may_have_blanks_around(texts: Any) -> bool:
    """Whether a text begins or ends with a byte that belongs to a blank."""
    begins, ends = FIRST_OF_BLANKS.take(_bytes_of(texts, 0)), LAST_OF_BLANKS.take(_bytes_of(texts, -1))
    return bool(begins.any() or ends.any())


def _bytes_of(texts: Any, place: Literal[0, -1]) -> NDArray[np.uint8]:
    """The first or the last byte of each text that has any."""
    _, offsets, characters = texts.buffers()
    if characters is None:
        return np.empty(0, np.uint8)
    bounds = np.frombuffer(offsets, np.int64, len(texts) + 1, texts.offset * 8)
    has_some = bounds[:-1] < bounds[1:]
    at = bounds[:-1] if place == 0 else bounds[1:] - 1
    return np.frombuffer(characters, np.uint8).take(at if has_some.all() else at[has_some])


def _words(whole: Any) -> Any:
    """One word for each row; missing where it is blank."""
    lengths: Any = pc.binary_length(whole)
    if pc.min(lengths).as_py() != 0:
        return whole
    return pc.if_else(lengths.cast(pa.bool_()), whole, pa.scalar(None, TEXT))


def are_marks(texts: Any) -> Any:
    """Whether each text is one of MARKS, in upper or lower case."""
    return pc.is_in(pc.utf8_lower(texts), pa.array(sorted(MARKS), TEXT))


def _samples(whole: Any) -> list[str]:
    """Values from all over the column that are no marks and not infinite; of long ones the beginning."""
    some = whole.take(pa.array(np.arange(0, len(whole), max(1, len(whole) // SAMPLES)))).drop_null()
    texts = (text.as_py()[: LONGEST + 1] for text in some.filter(pc.invert(are_marks(some))))
    return [text for text in texts if not INFINITE.fullmatch(text)]


def _numbers(
    name: str, whole: Any, samples: list[str], decimal: str, *, told: bool = False, certain: bool = False
) -> Read | None:
    """The numbers; None if they are none.  `told`: they are numbers, how many misfits there may be."""
    notation = NumberNotation.of(samples, decimal, certain=certain)
    if notation is None:
        return None
    found = _Distinct(name, whole)
    matched = np.asarray(pc.match_substring_regex(found.texts, notation.pattern)) & ~found.is_mark
    misfits = ~matched & ~found.is_mark
    if not matched.any():
        return None
    if not told and found.count(misfits) > MOST_MISFITS * found.rows:
        return None
    plain = notation.plain(found.texts.filter(pa.array(matched)))
    if not told and has_leading_zero(plain):
        codes = np.asarray(pc.fill_null(pc.match_substring_regex(found.texts, LEADING_ZERO), False))
        note = Note(found.name, "holds codes that begin with 0, and is read as words", *found.first(codes))
        return Read(_words(whole), (note,))
    numbers: Any
    if are_whole(plain):
        try:
            numbers = _cast_signed(plain)
        except pa.ArrowInvalid:
            numbers = plain.cast(pa.float64())
            if not told:
                return Read(_words(whole), (Note(found.name, "holds integers beyond 64 bits, which are words"),))
    else:
        numbers = plain.cast(pa.float64())
    places = np.where(matched, np.cumsum(matched) - 1, -1)
    values = numbers.take(pa.array(places, mask=~matched))
    notes = []
    if str(notation):
        notes.append(Note(found.name, f"is read as numbers with {notation}", *found.first(matched)))
    if not notation.is_certain:
        mark = "comma" if notation.decimal == "," else "point"
        with_mark = np.asarray(pc.match_substring_regex(found.texts, "[.,]")) & matched
        text = f"could have the other decimal mark; decimal {mark} is taken (--decimal)"
        notes.append(Note(found.name, text, *found.first(with_mark)))
    notes += [*_marked(found, "numbers"), *_misfits(found, misfits, NUMBER)]
    return Read(found.spread(values), tuple(notes), None if notation.is_plain else notation)


def _cast_signed(plain: Any) -> Any:
    """Arrow casts no plus sign to an integer."""
    return pc.replace_substring_regex(plain, r"^\+", "").cast(pa.int64())


def _dates(name: str, whole: Any, samples: list[str], told: str = "") -> Read | None:
    """The dates; None if they are none.  `told`: they are dates, written so, or in a notation that is to be found."""
    try:
        notation = DateNotation.of(samples) if told in ("", DATE) else date_notation(told)
        if notation is None:
            return None
        found = _Distinct(name, whole)
    except AmbiguousDatesError as error:
        found = _Distinct(name, whole)
        fits = {one: found.count(np.asarray(NOTATIONS[one].read(found.texts).is_valid())) for one in error.args}
        first, second = fits
        if fits[first] == fits[second] and told:
            raise RejectedError(
                f"column {name!r} could be dates {first} or {second}, which no value decides; say date:{first} or "
                f"date:{second}"
            ) from None
        if fits[first] == fits[second]:
            text = f"could be dates {first} or {second}, which no value decides, and is read as words"
            return Read(_words(whole), (Note(name, text, *found.first(~found.is_mark)),))
        notation = NOTATIONS[max(fits, key=lambda one: fits[one])]
    moments = notation.read(found.texts)
    misfits = np.asarray(moments.is_null()) & ~found.is_mark
    if moments.null_count == len(moments) or (not told and found.count(misfits) > MOST_MISFITS * found.rows):
        return None
    notes = [] if notation.is_plain else [Note(found.name, f"is read as dates {notation.name}")]
    notes += [*_zoned(found), *_marked(found, "dates"), *_misfits(found, misfits, DATE)]
    return Read(found.spread(moments), tuple(notes), None if notation.is_plain else notation)


def _zoned(found: _Distinct) -> tuple[Note, ...]:
    zones = np.asarray(pc.match_substring_regex(found.texts, OFFSET))
    return (Note(found.name, IN_UTC, *found.first(zones)),) if zones.any() else ()


def _marked(found: _Distinct, what: str) -> tuple[Note, ...]:
    """Names the marks among values, blanks not counted; none if all are missing anywhere, as NA is."""
    marks = found.is_mark & (np.asarray(pc.binary_length(found.texts)) > 0)
    if not found.count(found.is_mark & ~np.asarray(pc.is_in(found.texts, pa.array(NA_WORDS, TEXT)))):
        return ()
    row, example = found.first(marks)
    return (
        Note(found.name, f"holds {what}, and {found.count(marks):,} times a mark that counts as missing", row, example),
    )


def _misfits(found: _Distinct, misfits: Any, what: str) -> tuple[Note, ...]:
    if not (count := found.count(misfits)):
        return ()
    text = f"{found.rows - count:,} of {found.rows:,} values are {what}s; the rest count as missing"
    return (Note(found.name, text, *found.first(misfits)),)
