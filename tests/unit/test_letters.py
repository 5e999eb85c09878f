"""Dead letters that anybody may have written, read and shown; the rest is in tests/end_to_end/test_dead_letters.py."""

from __future__ import annotations

from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest

from consumer.cli.dlq import _first
from consumer.cli.letters import Letter, _letter, planned
from consumer.cli.output import one_line, show_fields
from consumer.events.codec import MAX_MESSAGE_BYTES, Codec
from consumer.events.messages import Message
from consumer.events.requests import to_avro
from consumer.events.topics import Topics
from pipeline.jobs import Evaluation, TrainingRequest
from schemas import RecordType
from tests.contract.dict_ledger import DictLedger
from tests.fuzz.targets.letters import Delivered


def letter(at_ms: int = 0, headers: list[tuple[str, bytes | None]] | None = None) -> Letter:
    return _letter(Delivered(Message("dlq", None, b"no avro", headers or []), at_ms, 7), Codec())


@pytest.mark.parametrize("at_ms", [-1, -(2**63), 2**63 - 1, 253402300800000])
def test_a_letter_of_a_time_that_no_calendar_has_is_listed_all_the_same(at_ms: int) -> None:
    assert letter(at_ms).at == datetime(1970, 1, 1, tzinfo=UTC)


def test_headers_that_are_no_text_are_shown_as_far_as_they_are_and_the_first_of_each_name_counts() -> None:
    told = letter(headers=[("a", None), ("a", b"\xffx"), ("a", b"y"), ("__connect.errors.offset", b"\xff")])
    assert told.texts == {"a": "\ufffdx", "__connect.errors.offset": "\ufffd"}
    assert told.origin == "?:?:\ufffd"


@pytest.mark.parametrize("since", [None, "9999999d", "9" * 400 + "d"], ids=["none", "long", "longer"])
def test_letters_since_longer_than_there_are_calendars_are_all_of_them(since: str | None) -> None:
    assert _first(since) == datetime.min.replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[2J\x1b]0;title\x07", "\ufffd[2J\ufffd]0;title\ufffd"),
        ("a\nb\tc\r\nd", "a b c  d"),
        ("\u202egnp.exe", "\ufffdgnp.exe"),
        ("Zoë, 東京, 🙂", "Zoë, 東京, 🙂"),
    ],
    ids=["escape", "lines", "bidi", "text"],
)
def test_what_anybody_has_written_tells_the_terminal_nothing(
    text: str, shown: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert one_line(text) == shown
    show_fields({}, {text: text, "headers": {text: text}}, as_json=False)
    assert capsys.readouterr().out == f"{shown}: {shown}\nheaders.{shown}: {shown}\n"


def test_a_letter_with_a_value_beyond_what_the_schema_allows_is_not_sent_again_and_says_why() -> None:
    """Avro's bytes have room for an int of more than 32 bits, which fastavro reads and does not write."""
    codec = Codec()
    plain = TrainingRequest("r-1", "job", "svm", "iris", evaluation=Evaluation(cv=5), search=None)
    value = codec.encode(RecordType.TRAINING_REQUEST, to_avro(plain))
    small, large = b"\x02\x0a", b"\x02\x80\x80\x80\x80\x20"  # of a union: branch 1, then 5, and 2**32
    assert value.count(small) == 1
    found = _letter(Delivered(Message("dlq", None, value.replace(small, large), []), 0, 7), codec)
    assert found.record is not None
    assert found.record["evaluation"]["cv"] == 2**32
    client: Any = SimpleNamespace(codec=codec, topics=Topics(""))
    (replay,) = planned([found], [found], DictLedger(lambda: datetime(2026, 1, 31, tzinfo=UTC)), client)
    assert replay.sent is None
    assert replay.why == "a value in it is beyond what the schema allows: correct it and submit it again"


@pytest.mark.parametrize("room", [0, len("replay_of") + len("r-1") + 3])
def test_a_letter_that_would_be_too_large_with_its_new_names_is_not_sent_again_and_says_why(room: int) -> None:
    """It gains a tag, which may just fit, and a longer request_id."""
    codec = Codec()

    def value_of(characters: int) -> bytes:
        request = TrainingRequest("r-1", "j", "svm", "iris", tags={"t": "x" * characters})
        return codec.encode(RecordType.TRAINING_REQUEST, to_avro(request))

    almost = MAX_MESSAGE_BYTES - 300
    value = value_of(almost + MAX_MESSAGE_BYTES - len(value_of(almost)) - room)
    assert len(value) == MAX_MESSAGE_BYTES - room
    found = _letter(Delivered(Message("dlq", None, value, []), 0, 7), codec)
    client: Any = SimpleNamespace(codec=codec, topics=Topics(""))
    (replay,) = planned([found], [found], DictLedger(lambda: datetime(2026, 1, 31, tzinfo=UTC)), client)
    assert replay.sent is None
    assert replay.why == "with a new request_id it has more than 1,048,576 bytes: submit a smaller one"
