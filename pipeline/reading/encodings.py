"""Finds the encoding of a text file, and rewrites it in UTF-8 where it has another."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from pathlib import Path

from pipeline.errors import RejectedError

BOMS = (  # the longer first: UTF-32's begins as UTF-16's
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
WESTERN = "cp1252"
"""What Windows programs of Western Europe write; it reads nearly every byte."""
LETTER = re.compile(rb"[\xc2-\xdf][\x80-\xbf]|[\xe0-\xef][\x80-\xbf]{2}|[\xf0-\xf4][\x80-\xbf]{3}")
"""A character beyond ASCII in UTF-8; in other encodings such bytes hardly ever follow one another."""
BEYOND_ASCII = re.compile(rb"[\x80-\xff]")
PART_BYTES = 1024 * 1024


def encoding_of(path: Path) -> str:
    """By its first bytes, else `utf-8` if all of it is, else WESTERN, which is a guess.

    Raises RejectedError, naming the line, if most of it is UTF-8 and some is not, or if it is no text.
    """
    with path.open("rb") as file:
        beginning = file.read(4)
    for bom, name in BOMS:
        if beginning.startswith(bom):
            return name
    if _is_utf8(path):
        return "utf-8"
    letters = others = 0
    wrong = ""
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if b"\0" in line:
                raise RejectedError("the file is no text, and no Parquet or Feather file either")
            rest = LETTER.sub(b"", line)
            letters += (len(line) - len(rest)) // 2
            strange = BEYOND_ASCII.findall(rest)
            others += len(strange)
            if strange and not wrong:
                wrong = f"line {number:,} is not UTF-8 (byte 0x{strange[0].hex()})"
    if letters > others:
        raise RejectedError(f"{wrong}, as the rest of the file is; correct it")
    return WESTERN


def in_utf8(path: Path, encoding: str, into: Path) -> Path:
    """The text in UTF-8, without a mark at its start, in the file `into`.

    Raises RejectedError, naming the line, if a byte is none of this encoding.
    """
    is_utf8 = codecs.lookup(encoding).name == "utf-8"
    decoder, lines = codecs.getincrementaldecoder("utf-8-sig" if is_utf8 else encoding)(), 1
    with into.open("w", encoding="utf-8", newline="") as file:
        for part, is_last in _parts(path):
            try:
                text = decoder.decode(part, is_last)
            except UnicodeDecodeError as error:
                line = lines + error.object[: error.start].count(b"\n")
                byte = f"0x{error.object[error.start]:02x}"
                raise RejectedError(
                    f"line {line:,} is not {encoding} (byte {byte}); say --encoding, or save it as UTF-8"
                ) from error
            lines += text.count("\n")
            file.write(text)
    return into


def is_utf8_beyond_ascii(path: Path) -> bool:
    """Whether the text is UTF-8, and would be another one in other encodings."""
    return _is_utf8(path) and not all(part.isascii() for part, _ in _parts(path))


def _is_utf8(path: Path) -> bool:
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        for part, is_last in _parts(path):
            is_between_characters = not decoder.getstate()[0]
            if not (is_between_characters and part.isascii()):  # which is seen much faster
                decoder.decode(part, is_last)
    except UnicodeDecodeError:
        return False
    return True


def _parts(path: Path) -> Iterator[tuple[bytes, bool]]:
    with path.open("rb") as file:
        part = file.read(PART_BYTES)
        while part:
            following = file.read(PART_BYTES)
            yield part, not following
            part = following
