"""Reads dead letters, and decides what a replay sends for each.

A second replay trains nothing twice.  A letter whose bytes decode becomes the request `{request_id}.r{n}`, with the
lowest n that is not claimed, or is claimed with the same content: the same letter always gets the same id, and workers
train an id once.  Bytes that do not decode are sent as they are, with a header that names their first dead letter; of
all letters with the same header only the newest is sent again.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from consumer.cli import context
from consumer.client import Client
from consumer.events.codec import MAX_MESSAGE_BYTES, Codec
from consumer.events.errors import UndecodableError
from consumer.events.messages import Message, message
from consumer.events.requests import MAX_REQUEST_ID_CHARACTERS, content_sha256, moment
from consumer.events.topics import Topics
from consumer.kafka.topic_reader import Reader
from consumer.publishing.dead_letters import PREFIX
from consumer.settings import Settings
from pipeline.ledger import Entry, Ledger
from schemas import RecordType

REPLAY_OF = "replay_of"
"""The tag of a replayed request, with the request_id of the original one."""
FIRST_LETTER = "tensorfleet.replay_of"
"""The header of replayed bytes that do not decode: the place of their first dead letter."""
CANDIDATES = 10
TOO_LARGE = f"with a new request_id it has more than {MAX_MESSAGE_BYTES:,} bytes: submit a smaller one"


@dataclass(frozen=True, slots=True)
class Letter:
    """One dead letter.  `record` is decoded from its bytes, None if that fails; `request_id` may be known even then."""

    partition: int
    offset: int
    at: datetime
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes | None]]
    record: Mapping[str, Any] | None
    request_id: str | None
    texts: Mapping[str, str] = field(default_factory=dict)
    """The headers as text, the first of each name."""

    @property
    def place(self) -> str:
        return f"{self.partition}:{self.offset}"

    @property
    def reason(self) -> str:
        return self.texts.get(f"{PREFIX}exception.class.name", "")

    @property
    def why(self) -> str:
        return self.texts.get(f"{PREFIX}exception.message", "")

    @property
    def origin(self) -> str:
        """`topic:partition:offset` of its original record."""
        return ":".join(self.texts.get(PREFIX + name, "?") for name in ("topic", "partition", "offset"))

    @property
    def first_letter(self) -> str:
        return self.texts.get(FIRST_LETTER, self.place)

    def to_document(self) -> dict[str, Any]:
        return {
            "place": self.place,
            "at": self.at,
            "reason": self.reason,
            "request_id": self.request_id,
            "message": self.why,
            "origin": self.origin,
            "key": None if self.key is None else self.key.decode("utf-8", "replace"),
            "bytes": len(self.value or b""),
            "decodes": self.record is not None,
        }


@dataclass(frozen=True, slots=True)
class Replay:
    """The decision on a letter: `sent` is the message to send, or None, and then `why` says the reason."""

    letter: Letter
    request_id: str | None
    sent: Message | None = None
    why: str = ""


def read_letters(client: Client, settings: Settings) -> Iterator[Letter]:
    """All dead letters so far; raises TransientError and MissingTopicsError."""
    client.prepare()
    with Reader(settings, client.topics.dead_letters, context.TIMEOUT_S) as reader:
        reader.start(range(reader.partitions))
        for delivered in reader:
            if delivered is not None:
                yield _letter(delivered, client.codec)
            elif reader.at_end:
                return


def planned(chosen: Sequence[Letter], everything: Iterable[Letter], ledger: Ledger, client: Client) -> Iterator[Replay]:
    """What to do for each chosen letter, the oldest first; `everything` has all letters of the topic."""
    newest = {letter.first_letter: letter.place for letter in everything if letter.record is None}
    taken: dict[str, str] = {}
    for letter in chosen:
        if letter.record is None:
            yield _as_they_are(letter, client.topics, newest[letter.first_letter])
        else:
            yield _renamed(letter, letter.record, ledger, client, taken)


def _letter(delivered: Any, codec: Codec) -> Letter:
    record: Mapping[str, Any] | None = None
    try:
        record = written = codec.decode(delivered.value(), RecordType.TRAINING_REQUEST)
    except UndecodableError as error:
        written = dict(error.written or {})
    request_id = written.get("request_id")
    headers = delivered.headers() or []
    texts: dict[str, str] = {}
    for name, value in headers:
        if value is not None:
            texts.setdefault(name, value.decode("utf-8", "replace") if isinstance(value, bytes) else value)
    return Letter(
        partition=delivered.partition(),
        offset=delivered.offset(),
        at=moment(delivered.timestamp()[1]),
        key=delivered.key(),
        value=delivered.value(),
        headers=headers,
        record=record,
        request_id=request_id if isinstance(request_id, str) else None,
        texts=texts,
    )


def _as_they_are(letter: Letter, topics: Topics, newest: str) -> Replay:
    if letter.request_id is not None:
        why = "its bytes do not fit the schema, and its request_id has its outcome: correct it and submit it again"
        return Replay(letter, letter.request_id, why=why)
    if letter.place != newest:
        return Replay(letter, None, why=f"it was replayed, and is a dead letter again at {newest}")
    kept = [one for one in letter.headers if not one[0].startswith(PREFIX) and one[0] != FIRST_LETTER]
    headers = [*kept, (FIRST_LETTER, letter.first_letter.encode())]
    return Replay(letter, None, Message(topics.training_requests, letter.key, letter.value, headers))


def _renamed(
    letter: Letter, record: Mapping[str, Any], ledger: Ledger, client: Client, taken: dict[str, str]
) -> Replay:
    first_id, number = _origin(record)
    request = _request(letter, record, first_id)
    try:
        read = client.codec.decode(_sent(request, letter, client).value, RecordType.TRAINING_REQUEST)
    except (TypeError, ValueError, OverflowError):  # Avro can decode values that it does not encode
        return Replay(
            letter, None, why="a value in it is beyond what the schema allows: correct it and submit it again"
        )
    except UndecodableError:
        return Replay(letter, None, why=TOO_LARGE)
    while True:
        names = [f"{first_id}.r{n}" for n in range(number, number + CANDIDATES)]
        if len(names[0]) > MAX_REQUEST_ID_CHARACTERS:
            return Replay(letter, None, why=f"its request_id has no room for {names[0][len(first_id) :]}")
        entries = ledger.read(names)
        for name in names:
            sha256 = content_sha256({**read, "request_id": name})
            if taken.get(name) == sha256:
                return Replay(letter, name, why="another dead letter holds the same, and is replayed now")
            if name in taken:
                continue
            entry = entries[name]
            if entry.claim is None and entry.outcome is None:
                sent = _sent({**request, "request_id": name}, letter, client)
                if len(sent.value or b"") > MAX_MESSAGE_BYTES:
                    return Replay(letter, None, why=TOO_LARGE)
                taken[name] = sha256
                return Replay(letter, name, sent)
            if entry.claim is not None and entry.claim.request_sha256 == sha256:
                return Replay(letter, name, why=f"it was replayed before, and {_state(entry)}")
        number += CANDIDATES


def _origin(record: Mapping[str, Any]) -> tuple[str, int]:
    """The request_id of the original request, and the lowest number for the next replay."""
    request_id, first_id = record["request_id"], record["tags"].get(REPLAY_OF)
    if first_id is not None and request_id.startswith(f"{first_id}.r"):
        number = request_id.removeprefix(f"{first_id}.r")
        if number.isascii() and number.isdigit():
            return first_id, int(number) + 1
    return request_id, 1


def _request(letter: Letter, record: Mapping[str, Any], first_id: str) -> Mapping[str, Any]:
    """The request that is sent again, still without its new request_id."""
    return {
        **record,
        "correlation_id": record["correlation_id"] or letter.texts.get("correlation_id") or record["request_id"],
        "tags": {**record["tags"], REPLAY_OF: first_id},
        "requested_at": None,
    }


def _sent(request: Mapping[str, Any], letter: Letter, client: Client) -> Message:
    return message(client.codec, client.topics, RecordType.TRAINING_REQUEST, request, letter.texts.get("traceparent"))


def _state(entry: Entry) -> str:
    if entry.outcome is None:
        return "has not ended yet"
    return f"ended {entry.outcome.kind}"
