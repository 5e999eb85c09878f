"""`make check` finds the tests of what has changed."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.changed import ROOT, concerns
from tests.conftest import LONG

TEST = """
from pipeline.algorithms import catalogue
from consumer.settings import Settings
import consumer.jobs.lease
"""


@pytest.mark.parametrize(
    ("changed", "concerned"),
    [
        ("pipeline/algorithms/__init__.py", True),
        ("pipeline/algorithms/classifiers.py", True),
        ("consumer/jobs/lease.py", True),
        ("consumer/jobs/claims.py", True),
        ("consumer/settings.py", True),
        ("consumer/stores.py", False),
        ("pipeline/reading/rows.py", False),
        ("pipeline/algorithms/notes.md", False),
    ],
)
def test_a_test_is_about_the_rooms_that_it_imports_from(tmp_path: Path, changed: str, concerned: bool) -> None:
    test = tmp_path / "test_x.py"
    test.write_text(TEST)
    assert concerns(test, {ROOT / changed}) is concerned
    assert concerns(test, {test})


def test_the_files_that_take_long_are_there() -> None:
    assert [name for name in LONG if not (ROOT / name).exists()] == []
