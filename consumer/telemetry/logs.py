"""Configures logs: one JSON object per line in production, readable text on a terminal.

Call `configure` once, in the composition root; then use `structlog.get_logger(__name__)` everywhere.
`with bound(request_id=…, correlation_id=…):` puts a job's ids into every line of its thread, those of libraries too.
"""

from __future__ import annotations

import json
import logging
import math
import sys
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Literal, TextIO

import orjson
import structlog
from pymongo.monitoring import CommandFailedEvent, CommandListener, CommandStartedEvent, CommandSucceededEvent
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


class MongoCommandLog(CommandListener):
    """Logs at DEBUG every MongoDB command with its collection and its duration, without its values.

    Give it to a MongoClient: `event_listeners=[MongoCommandLog()]`.
    """

    def __init__(self) -> None:
        self._log = structlog.get_logger("mongodb")
        self._level = logging.getLogger("mongodb")
        self._collections: dict[int, str] = {}

    def started(self, event: CommandStartedEvent) -> None:
        if self._level.isEnabledFor(logging.DEBUG):
            named = event.command.get("collection") or event.command.get(event.command_name)
            self._collections[event.request_id] = named if isinstance(named, str) else ""

    def succeeded(self, event: CommandSucceededEvent) -> None:
        self._ended(event)

    def failed(self, event: CommandFailedEvent) -> None:
        # Only the code: the error's text may quote the values of a duplicate key.
        self._ended(event, code=event.failure.get("code"))

    def _ended(self, event: CommandSucceededEvent | CommandFailedEvent, **more: Any) -> None:
        collection = self._collections.pop(event.request_id, None)
        if collection is not None:
            self._log.debug(
                "mongodb command",
                command=event.command_name,
                database=event.database_name,
                collection=collection,
                duration_ms=event.duration_micros / 1000,
                **more,
            )


def kafka_callbacks() -> dict[str, Any]:
    """The part of a client's configuration that sends librdkafka's logs and errors to these logs."""
    logger = logging.getLogger("librdkafka")
    if not logger.filters:
        logger.addFilter(Repeats())
    return {"logger": logger, "error_cb": _kafka_error}


class Repeats(logging.Filter):
    """Passes a client's lines of one kind once per `pause_s`: without a broker librdkafka writes twenty a second.

    The next line that passes has the number of suppressed ones in `repeated`.
    """

    def __init__(self, pause_s: float = 30.0, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._pause_s = pause_s
        self._clock = clock
        self._passed: dict[str, tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        kind = record.getMessage().partition("]")[0]  # "FAIL [worker#consumer-1"
        now = self._clock()
        at, repeated = self._passed.get(kind, (-math.inf, 0))
        if now - at < self._pause_s:
            self._passed[kind] = (at, repeated + 1)
            return False
        self._passed[kind] = (now, 0)
        if repeated:
            record.repeated = repeated
        return True


def _kafka_error(error: Any) -> None:
    """Log librdkafka's errors: fatal ones as errors; lost connections, which it repairs and logs itself, at DEBUG."""
    log = structlog.get_logger("kafka")
    if error.fatal():
        write = log.error
    elif error.name() in ("_TRANSPORT", "_ALL_BROKERS_DOWN", "_RESOLVE"):
        write = log.debug
    else:
        write = log.warning
    write("kafka client", error=error.str(), code=error.name())
