"""What was used last is kept, within a bound of bytes."""

from __future__ import annotations

import pytest

from pipeline.lru import Recent


def no_making() -> str:
    raise AssertionError


def test_a_kept_value_is_made_once() -> None:
    recent: Recent[str] = Recent(10, len)
    assert recent.get("a", lambda: "1234") == "1234"
    assert recent.get("a", no_making) == "1234"


def test_the_least_recently_used_is_given_up_first() -> None:
    recent: Recent[str] = Recent(10, len)
    for key in ("a", "b", "a", "c"):
        recent.get(key, lambda: "1234")
    assert recent.get("a", no_making)
    with pytest.raises(AssertionError):
        recent.get("b", no_making)


def test_a_value_beyond_the_limit_is_given_but_not_kept() -> None:
    recent: Recent[str] = Recent(3, len)
    assert recent.get("a", lambda: "1234") == "1234"
    assert recent.get("a", lambda: "5678") == "5678"
