"""A proof of a checker is skipped only while all that it is about is as it was when it passed."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests import proofs
from tests.proofs import Proofs


@dataclass
class Item:
    """What is used of a pytest item; `markers` are those that were added."""

    path: Path
    nodeid: str = "tests/test_x.py::test_x[1]"
    user_properties: list[tuple[str, object]] = field(default_factory=list)
    markers: list[Any] = field(default_factory=list)

    def get_closest_marker(self, name: str) -> SimpleNamespace:
        return SimpleNamespace(args=("checker.py",))

    def add_marker(self, marker: Any) -> None:
        self.markers.append(marker)


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(proofs, "ROOT", tmp_path)
    monkeypatch.setattr(proofs, "NOTED", tmp_path / "proofs.json")
    (tmp_path / "proofs.json").write_text("{}")
    (tmp_path / "test_x.py").write_text("the test")
    (tmp_path / "checker.py").write_text("the checker")
    return tmp_path


def _plugin(prove: bool) -> Any:
    """Untyped, as it is given stand-ins for what pytest hands out."""
    return Proofs(prove)


def skipped(root: Path, prove: bool = False) -> bool:
    item, plugin = Item(root / "test_x.py"), _plugin(prove)
    plugin.pytest_collection_modifyitems([item])
    return bool(item.markers)


def run(root: Path, outcome: str, prove: bool = True) -> None:
    item, plugin = Item(root / "test_x.py"), _plugin(prove)
    plugin.pytest_collection_modifyitems([item])
    for when in ("setup", "call", "teardown"):
        ended = "passed" if when == "setup" else outcome
        report = SimpleNamespace(
            nodeid=item.nodeid,
            when=when,
            passed=ended == "passed",
            failed=ended == "failed",
            user_properties=item.user_properties,
        )
        plugin.pytest_runtest_logreport(report)
    plugin.pytest_sessionfinish(SimpleNamespace(config=SimpleNamespace()))


@pytest.mark.parametrize("changed", ["checker.py", "test_x.py"])
def test_what_has_passed_is_skipped_until_something_that_it_proves_changes(root: Path, changed: str) -> None:
    assert not skipped(root)
    run(root, "passed")
    assert skipped(root)
    assert not skipped(root, prove=True)
    (root / changed).write_text("another")
    assert not skipped(root)


def test_what_fails_though_nothing_has_changed_is_proven_no_more(root: Path) -> None:
    run(root, "passed")
    run(root, "failed")
    assert not skipped(root)


@pytest.mark.parametrize(("outcome", "prove"), [("failed", True), ("skipped", True), ("passed", False)])
def test_nothing_is_noted_of_what_has_not_passed_or_was_not_asked_for(root: Path, outcome: str, prove: bool) -> None:
    run(root, outcome, prove)
    assert json.loads((root / "proofs.json").read_text()) == {}
