"""Dead letters that anybody may have written, read and shown; the rest is in tests/end_to_end/test_dead_letters.py."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from consumer.cli.dlq import _first
from consumer.cli.letters import Letter, _letter
from consumer.cli.output import one_line, show_fields
from consumer.events.codec import Codec
from consumer.events.messages import Message
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
