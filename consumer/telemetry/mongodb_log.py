"""Logs the commands that MongoDB gets, without their values."""

from __future__ import annotations

import logging
from typing import Any

import structlog
from pymongo.monitoring import CommandFailedEvent, CommandListener, CommandStartedEvent, CommandSucceededEvent


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
