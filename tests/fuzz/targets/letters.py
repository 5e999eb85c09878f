"""Dead letters to list and to replay, with headers that anybody may have written."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from random import Random
from types import SimpleNamespace
from typing import Any

import orjson

from consumer.cli import dlq, letters, output
from consumer.events.messages import Message
from consumer.events.topics import Topics
from consumer.publishing.dead_letters import PREFIX
from pipeline.jobs import Outcome, OutcomeKind
from pipeline.ledger import Home, NewClaim, Owner
from schemas import RecordType
from tests.contract.dict_ledger import DictLedger
from tests.fuzz import records, values
from tests.fuzz.mutation import noise

MOST = 4
NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)
CLIENT: Any = SimpleNamespace(codec=records.codec(), topics=Topics(""))
"""What a replay needs of the client."""


@dataclass(frozen=True)
class Delivered:
    """A record as the Kafka client gives it."""

    sent: Message
    at_ms: int
    place: int

    def partition(self) -> int:
        return 0

    def offset(self) -> int:
        return self.place

    def timestamp(self) -> tuple[int, int]:
        return 1, self.at_ms

    def key(self) -> bytes | None:
        return self.sent.key

    def value(self) -> bytes | None:
        return self.sent.value

    def headers(self) -> Any:
        return self.sent.headers or None


def run(random: Random) -> None:
    found = [letters._letter(_delivered(random, n), records.codec()) for n in range(random.randint(1, MOST))]
    found.sort(key=lambda one: one.at)
    for one in found:
        _shown(one)
    dlq._within(found, "default")
    for replay in letters.planned(found, found, _ledger(random, found), CLIENT):
        orjson.dumps(dlq._document(replay, dry_run=True))
        assert replay.sent is not None or replay.why, "nothing is sent, and nobody is told why"
        if replay.sent is not None and replay.letter.record is not None:
            records.codec().decode(replay.sent.value, RecordType.TRAINING_REQUEST)


def _shown(letter: letters.Letter) -> None:
    orjson.dumps({**letter.to_document(), "record": letter.record, "headers": dict(letter.texts)}, default=str)
    for column in (output.column("WHY", "message"), output.column("REQUEST", "request_id")):
        text = output.one_line(column.text(letter.to_document()))
        assert text.isprintable(), f"a terminal would be told {text[:100]!r}"


def _delivered(random: Random, place: int) -> Delivered:
    value = records.value(random, RecordType.TRAINING_REQUEST)
    if random.random() < 0.3:
        value = records.codec()._headers[RecordType.TRAINING_REQUEST] + records.body(
            random, RecordType.TRAINING_REQUEST, random.choice(("r", "r.r1", "r.r" + "9" * 5_000, "x" * 120, "x" * 118))
        )
    sent = Message("training-requests.dlq", noise(random), value, _headers(random))
    return Delivered(sent, random.choice((0, -1, 1_770_000_000_000, 253402300800000, 2**63 - 1, -(2**63))), place)


def _headers(random: Random) -> list[tuple[str, bytes | None]]:
    names = [PREFIX + name for name in ("topic", "partition", "offset", "exception.class.name", "exception.message")]
    names += [letters.FIRST_LETTER, "traceparent", "correlation_id", "", "é", values.text(random)[:300]]
    return [(name, _header(random)) for name in random.sample(names, random.randint(0, len(names)))]


def _header(random: Random) -> bytes | None:
    roll = random.random()
    if roll < 0.1:
        return None
    if roll < 0.3:
        return random.choice((b"\xff\xfe", b"", b"-1", b"0:0", b"0:1", b"9" * 5_000, b"\0", b"\x1b[2J"))
    return values.text(random).encode()


def _ledger(random: Random, found: list[letters.Letter]) -> DictLedger:
    """In which some of the names are taken."""
    ledger = DictLedger(lambda: NOON)
    me = ledger.boot("w")
    for one in found:
        if one.request_id is not None and random.random() < 0.5:
            taken = [f"{one.request_id}.r{number}" for number in range(1, random.choice((1, 2, 4)))]
            ledger.claim(me, [NewClaim(name, "0" * 64, Home("t", 0, 0), {}) for name in taken])
            ledger.insert_outcomes([_outcome(name, me) for name in taken[:1]])
    return ledger


def _outcome(request_id: str, me: Owner) -> Outcome:
    return Outcome(request_id, OutcomeKind.REGISTERED, NOON, request_id, "default", "m", me.worker_id)
