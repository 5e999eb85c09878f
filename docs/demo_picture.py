"""Draws the demo: runs it in a terminal of its own, and writes what its first four acts left there as demo.svg."""

from __future__ import annotations

import fcntl
import os
import re
import struct
import subprocess
import sys
import termios
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from tempfile import TemporaryDirectory

import pyte
from rich.console import Console
from rich.style import Style
from rich.text import Text

COLUMNS, LINES = 110, 120
PICTURE = Path(__file__).with_name("demo.svg")
DIM, GREY = b"\x1b[2m", b"\x1b[90m"
"""pyte does not know dim text."""
NAMES = {"brown": "yellow"}
"""What pyte calls colours, where rich has another name."""
FONT = re.compile(r"@font-face \{.*?\}\s*", re.DOTALL)
"""rich names a font of another site; a reader's own does as well."""


def main() -> None:
    screen = pyte.Screen(COLUMNS, LINES)
    stream = pyte.ByteStream(screen)
    with TemporaryDirectory() as folder:
        written = b"".join(_written_by([str(Path(sys.executable).with_name("tensorfleet")), "demo"], folder))
    stream.feed(written.replace(DIM, GREY))
    rows = [_row(screen, number) for number in range(LINES)]
    end = next(number for number, row in enumerate(rows) if row.plain.startswith("5  ")) - 1
    with Path(os.devnull).open("w") as nowhere:
        console = Console(record=True, width=COLUMNS, file=nowhere, force_terminal=True)
        for row in rows[:end]:
            console.print(row, no_wrap=True)
    PICTURE.write_text(FONT.sub("", console.export_svg(title="make demo")))


def _written_by(command: list[str], folder: str) -> Iterator[bytes]:
    ours, theirs = os.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, COLUMNS, 0, 0))
    environment = {**os.environ, "TERM": "xterm-256color", "COLORTERM": "truecolor"}
    with subprocess.Popen(command, cwd=folder, env=environment, stdin=theirs, stdout=theirs, stderr=theirs) as process:
        os.close(theirs)
        while True:
            try:
                yield os.read(ours, 65_536)
            except OSError:  # the other end is closed
                break
    os.close(ours)
    if process.returncode:
        raise SystemExit(f"the demo ended with exit code {process.returncode}")


def _row(screen: pyte.Screen, number: int) -> Text:
    text = Text()
    cells = [screen.buffer[number][column] for column in range(COLUMNS)]
    for style, same in groupby(cells, lambda cell: Style(color=_color(cell.fg), bold=cell.bold)):
        text.append("".join(cell.data for cell in same), style)
    text.rstrip()
    return text


def _color(name: str) -> str | None:
    if name == "default":
        return None
    if re.fullmatch(r"[0-9a-f]{6}", name):
        return f"#{name}"
    return NAMES.get(name, name.replace("bright", "bright_", 1) if name.startswith("bright") else name)


if __name__ == "__main__":
    main()
