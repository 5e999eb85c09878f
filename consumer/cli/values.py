"""Parses options' values; a wrong one ends the command with exit code 2 and a line on what would be right."""

from __future__ import annotations

import json
import re
import sys
from getpass import getuser
from pathlib import Path
from typing import Any

from consumer.cli.output import Stop

WRONG_USE = 2


def of_model(text: str | None, project: str | None) -> tuple[str | None, str | None]:
    """The project and model to list, from an optional `NAME` or `PROJECT/NAME` and an optional project."""
    if text is None:
        return project, None
    from pipeline.lifecycle.references import model_reference

    named = model_reference(text, project)
    return (named.project if "/" in text else project), named.model_name


def hyperparameter(text: str) -> tuple[str, Any]:
    """Parse `name=value`; the value is JSON if it parses as such, else text."""
    name, value = pair(text, "-p")
    try:
        return name, json.loads(value, parse_constant=_no_constant)
    except ValueError:
        return name, value


def pair(text: str, option: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise Stop(f"{option} takes name=value, not {text!r}", WRONG_USE)
    return name, value


def column_type(text: str) -> tuple[str, str]:
    """Parse `column=type`; the column's name may hold an equals sign."""
    name, equals, kind = text.rpartition("=")
    if not equals or not name:
        raise Stop(f"--type takes COLUMN=TYPE, such as zip=category, not {text!r}", WRONG_USE)
    return name, kind


def tried(text: str) -> dict[str, Any]:
    """`name=1,2,5`, a JSON list, or a range: `name=0.1..10`, `name=1..9:2` in steps, `name=0.001..100:log`."""
    name, values = pair(text, "--try")
    span = re.fullmatch(r"([-+.\deE]+?)\.\.([-+.\deE]+?)(?::(log|[-+.\deE]+))?", values)
    try:
        if span is None:
            return {"name": name, "values": _list(values)}
        low, high, step = float(span[1]), float(span[2]), span[3]
        how = {"log": True} if step == "log" else {} if step is None else {"step": float(step)}
    except ValueError:
        raise Stop(f"--try takes name=1,2,5 or name=0.1..10 or name=1..9:2, not {text!r}", WRONG_USE) from None
    return {"name": name, "low": low, "high": high, **how}


def _list(text: str) -> list[Any]:
    if text.startswith("["):
        found = json.loads(text, parse_constant=_no_constant)
        return found if isinstance(found, list) else [found]
    return [hyperparameter(f"v={one.strip()}")[1] for one in text.split(",")]


def seconds(text: str | None, option: str) -> float | None:
    from consumer.settings import duration_s

    return None if text is None else _positive(duration_s(text), f"{option} takes seconds, or such as 10m or 2h", text)


def size_bytes(text: str | None, option: str) -> int | None:
    from consumer.settings import size_bytes

    return None if text is None else int(_positive(size_bytes(text), f"{option} takes such as 512MiB or 2GB", text))


def content_of(file: str) -> bytes:
    """The bytes of a file; `-` is standard input."""
    if file == "-":
        return sys.stdin.buffer.read()
    try:
        return Path(file).read_bytes()
    except OSError as error:
        raise Stop(f"{file} cannot be read: {error.strerror}", WRONG_USE) from error


def folder_of(target: Path) -> Path:
    """The folder for a partial file: on the target's disk, so that one rename moves it into place."""
    folder = target.absolute().parent
    if not folder.is_dir():
        raise Stop(f"there is no directory {folder}", WRONG_USE)
    return folder


def user_name() -> str:
    """The name of the user who runs this; empty if the machine does not know."""
    try:
        return getuser()
    except (KeyError, OSError):
        return ""


def _no_constant(word: str) -> Any:
    raise ValueError(word)  # NaN and Infinity are not JSON


def _positive(value: object, takes: str, text: str) -> float:
    if not isinstance(value, int | float) or value <= 0:
        raise Stop(f"{takes}, not {text!r}", WRONG_USE)
    return value
