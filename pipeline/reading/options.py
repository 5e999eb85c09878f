"""What somebody knows about a file, where its content does not tell; kept with a dataset for its next import."""

from __future__ import annotations

import codecs
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Self, TypedDict

import orjson

from pipeline.errors import RejectedError, did_you_mean

NUMBER, DATE = "number", "date"
CATEGORY, TEXT, IDENTIFIER = "category", "text", "id"
WORDS = (CATEGORY, TEXT, IDENTIFIER)
"""Types whose values stay as they are written."""
TYPES = (NUMBER, DATE, *WORDS)
MOST_BYTES = 32_768
"""All that is told, as JSON: it goes to a loader in one datagram."""


class Told(TypedDict, total=False):
    """What a program may say of ReadOptions."""

    encoding: str
    delimiter: str
    decimal: str
    header: bool
    missing: Sequence[str]
    sheet: str
    types: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class ReadOptions:
    """How a file is read.  What is empty is found from its content.

    Attributes:
        keep_texts: texts stay as they are: whoever asks knows each column's type and notation, as a model does.
        encoding: by its name in Python, such as `latin-1`.
        delimiter: one character between the values of CSV.
        decimal: the decimal mark, `.` or `,`.
        header: whether the first row holds the names of the columns.
        missing: values that count as missing in every column, as they are written in the file.
        sheet: the name of a workbook's sheet.
        types: by column one of TYPES; a date may be followed by how it is written, as in `date:d/m/y` or
            `date:%Y%m%d`.

    Raises RejectedError for what none of these can be.
    """

    keep_texts: bool = False
    encoding: str = ""
    delimiter: str = ""
    decimal: str = ""
    header: bool | None = None
    missing: tuple[str, ...] = ()
    sheet: str = ""
    types: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _check_encoding(self.encoding)
        if len(self.delimiter) > 1 or self.delimiter in ('"', "\r", "\n") or not self.delimiter.isascii():
            raise RejectedError(f"the delimiter must be one character, such as ; or a tab, not {self.delimiter!r}")
        if self.decimal not in ("", ".", ","):
            raise RejectedError(f"the decimal mark must be . or , and not {self.decimal!r}")
        for column, told in self.types.items():
            _check_type(column, told)
        if (size := len(orjson.dumps(self.to_document()))) > MOST_BYTES:
            raise RejectedError(f"what is told about the file takes {size:,} bytes; at most {MOST_BYTES:,} are taken")

    def to_document(self) -> dict[str, Any]:
        """All that somebody has told; empty if nobody has."""
        told = {one.name: getattr(self, one.name) for one in fields(self) if one.name != "keep_texts"}
        return {name: value for name, value in told.items() if value not in _NOTHING}

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Self:
        """Raises RejectedError or TypeError for a document of another kind."""
        known = [one.name for one in fields(cls)]
        for name in document:
            if name not in known:
                raise RejectedError(f"reading takes no {name!r}{did_you_mean(name, known)}")
        missing = document.get("missing", ())
        if isinstance(missing, str):
            raise RejectedError(f"missing takes a list of values, not the text {missing!r}")
        found = cls(**{**document, "missing": tuple(missing)})
        texts = (found.encoding, found.delimiter, found.decimal, found.sheet, *found.missing, *found.types)
        if not all(isinstance(text, str) for text in texts) or not isinstance(found.header, bool | None):
            raise TypeError("no options of ours")
        return found

    def but(self, told: Self) -> Self:
        """These options with those of `told` in their place; types are replaced column by column."""
        document = {**self.to_document(), **told.to_document()}
        return self.from_document({**document, "types": {**self.types, **told.types}})


_NOTHING: tuple[Any, ...] = (None, "", (), {})


def _check_encoding(name: str) -> None:
    try:
        if name:
            "a".encode(codecs.lookup(name).name)
    except (LookupError, UnicodeError):
        raise RejectedError(f"there is no encoding {name!r}; take such as utf-8, latin-1, cp1252, utf-16") from None


def _check_type(column: str, told: str) -> None:
    kind, _, written = told.partition(":")
    if kind not in TYPES or (written and kind != DATE):
        raise RejectedError(
            f"column {column!r} cannot be of type {told!r}{did_you_mean(kind, TYPES)}; types are "
            f"{', '.join(TYPES)}, and date:FORMAT"
        )
    if written:
        from pipeline.reading.dates import date_notation  # with Arrow, which few need who hand options on

        try:
            date_notation(written)
        except ValueError as wrong:
            raise RejectedError(f"column {column!r}: {wrong}") from None


NOTHING_SAID = ReadOptions()
