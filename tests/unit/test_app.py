"""How a worker ends."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from consumer.app import _own_spool, _Parts
from consumer.worker.shared import Neighbours
from pipeline.errors import SupersededError
from pipeline.ledger import Owner


class Part:
    """Any part of a worker: notes what it is told."""

    def __init__(self, told: list[str], ends_with: Exception | None = None) -> None:
        self._told = told
        self._ends_with = ends_with
        self.ledger = self

    def run(self) -> None:
        if self._ends_with is not None:
            raise self._ends_with

    def __getattr__(self, name: str) -> Any:
        return lambda *_: self._told.append(name)


def parts(told: list[str], ends_with: Exception | None) -> _Parts:
    def made(whole: type[_Parts | Neighbours]) -> dict[str, Any]:
        return {field.name: Part(told) for field in fields(whole)}

    others = {"me": Owner("w", 1), "worker": Part(told, ends_with), "control": (Part(told), Part(told))}
    return _Parts(**made(_Parts) | others | {"neighbours": Neighbours(**made(Neighbours))})


def test_a_superseded_worker_ends_at_once() -> None:
    """Nothing that it still does may count, and taking it down may take as long as a service is away."""
    told: list[str] = []
    with pytest.raises(SupersededError):
        parts(told, SupersededError("a newer one")).run()
    assert set(told) == {"start"}


@pytest.mark.parametrize("ends_with", [None, RuntimeError("the poll loop stood still")], ids=["drained", "failed"])
def test_any_other_end_takes_everything_down(ends_with: Exception | None) -> None:
    told: list[str] = []
    with suppress(RuntimeError):
        parts(told, ends_with).run()
    assert {"leave", "stop", "join", "give_up"} <= set(told)


def test_an_earlier_life_never_finds_what_a_newer_one_has_trained(tmp_path: Path) -> None:
    """It may only have been stopped, and its numbers are the same: its next result would be another request's model."""
    earlier = _own_spool(tmp_path, Owner("w", 1))
    (earlier / "1").mkdir()
    newer = _own_spool(tmp_path, Owner("w", 2))
    assert newer.is_dir()
    assert newer != earlier
    assert not earlier.exists()
