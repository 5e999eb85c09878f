"""Formats stacks for logs as lists of `file:line function`, innermost first, without the machine's folders."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from types import FrameType

FRAMES = 30
"""Only so many innermost frames are kept; the outer ones are the start of the thread, the same for all."""
_ROOT = __file__.removesuffix("consumer/threads/stacks.py")
_LIBRARIES = ("/site-packages/", f"/python{sys.version_info.major}.{sys.version_info.minor}/")


def of_thread(ident: int) -> list[str]:
    """The stack of a thread of this process, by its threading.get_ident(); empty if it has ended."""
    return list(_places(sys._current_frames().get(ident)))[:FRAMES]


def of_dump(dump: str, names: Mapping[int, str]) -> dict[str, list[str]]:
    """The stacks in a dump of faulthandler, by the thread's name, or its ident in hexadecimal."""
    stacks: dict[str, list[str]] = {}
    stack: list[str] = []
    for line in dump.splitlines():
        if line.startswith(("Thread 0x", "Current thread 0x")):
            ident = int(line.partition("0x")[2].split()[0], 16)
            stack = stacks.setdefault(names.get(ident, hex(ident)), [])
        elif line.startswith('  File "') and len(stack) < FRAMES:
            path, _, rest = line.removeprefix('  File "').rpartition('", line ')
            number, _, function = rest.partition(" in ")
            stack.append(_place(path, number, function))
    return stacks


def _places(frame: FrameType | None) -> Iterator[str]:
    while frame is not None:
        yield _place(frame.f_code.co_filename, frame.f_lineno, frame.f_code.co_name)
        frame = frame.f_back


def _place(path: str, line: int | str, function: str) -> str:
    return f"{_short(path)}:{line} {function}"


def _short(path: str) -> str:
    """The path below its import folder (the project, site-packages, the standard library); else the file's name."""
    for library in _LIBRARIES:
        if library in path:
            return path.rpartition(library)[2]
    return path.removeprefix(_ROOT) if path.startswith(_ROOT) else path.rpartition("/")[2]
