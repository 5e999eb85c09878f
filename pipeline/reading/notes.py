"""What reading a dataset has decided, and what looks suspicious: said wherever the dataset is shown or trained on.

The keys under which it stays with the rows, in Parquet and Arrow files, are here too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

NOTES, MISSING = b"tensorfleet.notes", b"tensorfleet.missing"
"""Keys of the metadata of a table: what was decided, and the values that somebody said are missing."""
NOTATION, TOLD = b"tensorfleet.notation", b"tensorfleet.type"
"""Keys of the metadata of a column: how its values were written, and what somebody said it is."""


@dataclass(frozen=True, slots=True)
class Note:
    """One remark.

    Attributes:
        column: the column's name; empty if it is about the file.
        text: what was decided or is suspicious, and what to do; without the column's name.
        row: the first row it is about, counted from 1 without the header; 0 if it is about all.
        example: that row's value.
    """

    column: str
    text: str
    row: int = 0
    example: str = ""

    def to_document(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Self:
        note = cls(**document)
        kinds = (note.column, str), (note.text, str), (note.row, int), (note.example, str)
        if not all(isinstance(value, kind) for value, kind in kinds):
            raise TypeError("no note of ours")
        return note

    def __str__(self) -> str:
        about = f"column {self.column!r}: " if self.column else ""
        where = f" (row {self.row:,}: {self.example!r})" if self.row else ""
        return f"{about}{self.text}{where}"
