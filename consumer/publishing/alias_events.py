"""Announces changes of aliases; the maker of a change announces it at once, a worker sends what is missing.

At least once: a change is marked as announced when its event is on the topic, and an event that is sent again has the
same id. Readers order events by their sequence.
"""

from __future__ import annotations

from collections.abc import Sequence

import structlog
from confluent_kafka import Producer

from consumer.events.codec import Codec
from consumer.events.messages import Message, message
from consumer.events.outgoing import alias_changed
from consumer.events.topics import Topics
from consumer.publishing.transactions import Refusal, produce
from consumer.threads.containment import contained
from consumer.threads.neighbour import Periodic, Surroundings
from pipeline.aliases import Alias, AliasStore
from pipeline.errors import TransientError
from schemas import RecordType

log = structlog.get_logger(__name__)

EVERY_S = 10.0
FLUSH_TIMEOUT_S = 5.0


def news(codec: Codec, topics: Topics, alias: Alias) -> Sequence[Message]:
    """The events, in order, of those changes of an alias that are not marked as announced."""
    return [
        message(codec, topics, RecordType.MODEL_ALIAS_CHANGED, alias_changed(alias, change))
        for change in alias.unannounced
    ]


class AliasNews(Periodic):
    """Looks for unannounced changes every EVERY_S; several workers may find the same one."""

    def __init__(
        self,
        aliases: AliasStore,
        producer: Producer,
        codec: Codec,
        topics: Topics,
        *,
        around: Surroundings,
        every_s: float = EVERY_S,
    ) -> None:
        super().__init__("alias-news", around, every_s)
        self._aliases = aliases
        self._producer = producer
        self._codec = codec
        self._topics = topics

    def work(self) -> None:
        for alias in self._aliases.unannounced():
            self.turn.begin()
            named = {"alias": alias.alias, "model": f"{alias.project}/{alias.model_name}"}
            with contained(self._metrics, "announce", **named):
                if why := self._refused(news(self._codec, self._topics, alias)):
                    log.error("alias not announced", why=why, **named)
                    continue
                self._aliases.announced(alias)
                log.info("alias announced", **named)

    def _refused(self, messages: Sequence[Message]) -> str:
        """Send these; returns why one was refused, empty if none was.  Raises TransientError without an answer."""
        refused: list[Refusal] = []
        for one in messages:
            produce(self._producer, one, refused)
        if left := self._producer.flush(FLUSH_TIMEOUT_S):
            raise TransientError("kafka", f"{left} events are not acknowledged")
        return refused[0].error.str() if refused else ""
