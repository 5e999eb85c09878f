"""Converts keys to paths, for stores whose names are paths: folders, and S3 servers that store in folders.

A request id is free text, so a key may contain `..`, empty or very long parts, or be a prefix of another key.  Its path
is safe and unique: parts are percent-encoded and split after 200 characters; files end in `.zip` and folders never do.
Keys of ordinary names stay as they are.
"""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import quote, unquote

PART = 200  # file systems and MinIO allow 255 bytes
ZIP = ".zip"
ADDED_ZIP = "%.zip"  # encoding never produces a lone %
CUT = "%+"


def path_of(key: str) -> str:
    """The relative path of a key, without empty, `.` or `..` parts; `key_of` inverts it."""
    *_, last = key.split("/")
    return f"{folder_of(key)}{'/'.join(_file(last))}"


def folder_of(prefix: str) -> str:
    """The path, empty or ending in `/`, that contains all keys with this prefix; it may contain others."""
    *folders, _ = prefix.split("/")
    return "".join(f"{part}/" for name in folders for part in _folder(name))


def key_of(path: str) -> str:
    """The key that has this path."""
    return "/".join(unquote(part.removesuffix(ADDED_ZIP).rstrip("%")) for part in _joined(path.split("/")))


def _folder(name: str) -> list[str]:
    encoded = _quoted(name) or "%"
    return _cut(encoded.removesuffix(ZIP) + "%2Ezip" if encoded.endswith(ZIP) else encoded)


def _file(name: str) -> list[str]:
    encoded = _quoted(name)
    return _cut(encoded if encoded.endswith(ZIP) else encoded + ADDED_ZIP)


def _quoted(name: str) -> str:
    encoded = quote(name, safe=":=@,+")
    return "%2E" + encoded[1:] if encoded.startswith(".") else encoded


def _cut(encoded: str) -> list[str]:
    """Split into parts of at most PART characters plus marks: all but the last end in CUT, all but the first start with
    it.
    """
    if len(encoded) <= PART:
        return [encoded]
    body, end = encoded[:-8], encoded[-8:]  # the end is not split, since it tells files from folders
    pieces = [body[at : at + PART] for at in range(0, len(body), PART)]
    return [f"{CUT if at else ''}{piece}{CUT}" for at, piece in enumerate(pieces)] + [f"{CUT}{end}"]


def _joined(parts: list[str]) -> Iterator[str]:
    whole = ""
    for part in parts:
        whole += part.removeprefix(CUT).removesuffix(CUT)
        if not part.endswith(CUT):
            yield whole
            whole = ""
