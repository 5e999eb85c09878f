"""Configures logs: one JSON object per line in production, readable text on a terminal.

Call `configure` once, in the composition root; then use `structlog.get_logger(__name__)` everywhere.
`with bound(request_id=…, correlation_id=…):` puts a job's ids into every line of its thread, those of libraries too.
"""

from __future__ import annotations

import json
import logging
import sys
import threading
from types import TracebackType
from typing import Any, Literal, TextIO

import orjson
import structlog
from structlog.contextvars import bound_contextvars, merge_contextvars
from structlog.typing import EventDict, Processor

bound = bound_contextvars

# These log at DEBUG the content of messages and documents, and at INFO every request to /metrics.
_QUIET = {"pymongo": logging.WARNING, "aiohttp.access": logging.WARNING, "asyncio": logging.WARNING}


def configure(
    level: str = "INFO", fmt: Literal["auto", "json", "console"] = "auto", stream: TextIO | None = None
) -> None:
    """Send log records of structlog and the standard library from `level` up to `stream` (default standard error).

    `auto` is `console` if `stream` is a terminal, else `json`.  May be called again; the last call counts.
    """
    stream = stream if stream is not None else sys.stderr
    readable = fmt == "console" or (fmt == "auto" and stream.isatty())
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*_shared(), structlog.stdlib.ExtraAdder()],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *_rendering(readable, stream)],
        )
    )
    root = logging.getLogger()
    for old in root.handlers[:]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(level)
    for name, least in _QUIET.items():
        logging.getLogger(name).setLevel(max(least, root.level))
    logging.captureWarnings(True)
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *_shared(),
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )


def _shared() -> list[Processor]:
    return [
        merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="timestamp"),
        structlog.stdlib.PositionalArgumentsFormatter(),
    ]


def _rendering(readable: bool, stream: TextIO) -> list[Processor]:
    if readable:
        plain = structlog.dev.plain_traceback  # the pretty one shows local variables, secrets among them
        return [structlog.dev.ConsoleRenderer(colors=stream.isatty(), exception_formatter=plain)]
    return [structlog.processors.format_exc_info, _ordered, structlog.processors.JSONRenderer(serializer=_json)]


def _ordered(_: object, __: str, event: EventDict) -> EventDict:
    """Put time, level and message first, as they are looked for first."""
    first = {name: event.pop(name) for name in ("timestamp", "level", "logger", "event") if name in event}
    return {**first, **event}


def _json(event: EventDict, **_: Any) -> str:
    try:
        return orjson.dumps(event, default=str, option=orjson.OPT_NON_STR_KEYS | orjson.OPT_SERIALIZE_NUMPY).decode()
    except TypeError:  # integers beyond 64 bits, text that is no Unicode
        return json.dumps(event, default=str)


def log_uncaught() -> None:
    """Log exceptions that end the process or a thread."""

    def uncaught(kind: type[BaseException], error: BaseException | None, trace: TracebackType | None) -> None:
        if error is not None and issubclass(kind, Exception):
            structlog.get_logger("consumer").critical("uncaught exception", exc_info=(kind, error, trace))
        else:
            sys.__excepthook__(kind, error or kind(), trace)

    sys.excepthook = uncaught
    threading.excepthook = lambda ended: uncaught(ended.exc_type, ended.exc_value, ended.exc_traceback)
