"""Sends the logs and errors of Kafka clients (librdkafka) to the logs, without most of the repeats."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from typing import Any


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
    if error.fatal():
        level = logging.ERROR
    elif error.name() in ("_TRANSPORT", "_ALL_BROKERS_DOWN", "_RESOLVE"):
        level = logging.DEBUG
    else:
        level = logging.WARNING
    logging.getLogger("kafka").log(level, "kafka client", extra={"error": error.str(), "code": error.name()})
