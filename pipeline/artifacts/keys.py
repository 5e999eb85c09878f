"""Keys as paths, for stores in which a name is a path: folders, and S3 servers that keep folders.

A request id is free text, so a key may hold `..`, empty or very long parts, or be the folder of another key.  As a
path each key is harmless and its own: parts are percent-encoded and cut to 200 characters, files end in `.zip` and
folders never do.  Keys of ordinary names stay as they are.
"""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import quote, unquote

PART = 200  # file systems and MinIO take 255 bytes
ZIP = ".zip"
ADDED_ZIP = "%.zip"  # a lone % never results from encoding
CUT = "%+"


def path_of(key: str) -> str:
    """The path of a key, relative, without empty, `.` or `..` parts; `key_of` inverts it."""
    *_, last = key.split("/")
    return f"{folder_of(key)}{'/'.join(_file(last))}"


def folder_of(prefix: str) -> str:
    """The path, empty or ending in `/`, under which all keys lie that start with the prefix, and maybe others."""
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
    """In parts of at most PART characters and the marks: all but the last end in CUT, all but the first begin so."""
    if len(encoded) <= PART:
        return [encoded]
    body, end = encoded[:-8], encoded[-8:]  # the end stays whole: it tells files from folders
    pieces = [body[at : at + PART] for at in range(0, len(body), PART)]
    return [f"{CUT if at else ''}{piece}{CUT}" for at, piece in enumerate(pieces)] + [f"{CUT}{end}"]


def _joined(parts: list[str]) -> Iterator[str]:
    whole = ""
    for part in parts:
        whole += part.removeprefix(CUT).removesuffix(CUT)
        if not part.endswith(CUT):
            yield whole
            whole = ""
