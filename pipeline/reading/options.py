"""What a caller knows about a file, where its content does not tell."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ReadOptions:
    """How a file is read.

    Attributes:
        keep_texts: texts stay as they are: whoever asks knows each column's type and notation, as a model does.
    """

    keep_texts: bool = False


NOTHING_SAID = ReadOptions()
