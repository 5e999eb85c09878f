"""Tests that prove a checker, not the product, run only when something they prove has changed.

Such a test has the marker `proof` with the files that it is about, relative to the root. `proofs.json` has a sha256 of
these for each test that passed with `--prove` (`make proof`); while it is the same, the test is skipped.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
NOTED = Path(__file__).with_name("proofs.json")
DIGEST = "proof"


class Proofs:
    """Skips what is proven; with `--prove`, runs all of it and notes what passes."""

    def __init__(self, prove: bool) -> None:
        self._prove = prove
        self._noted: dict[str, str] = json.loads(NOTED.read_text())
        self._passed: dict[str, str] = {}
        self._failed: set[str] = set()

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        for item in items:
            if (marker := item.get_closest_marker("proof")) is None:
                continue
            digest = digest_of([str(item.path.relative_to(ROOT)), *marker.args])
            item.user_properties.append((DIGEST, digest))
            if not self._prove and self._noted.get(item.nodeid) == digest:
                item.add_marker(pytest.mark.skip(reason="proven, and nothing that it proves has changed since"))

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        digest = dict(report.user_properties).get(DIGEST)
        if digest is None or (report.passed and report.when != "call"):
            return
        if report.passed:
            self._passed[report.nodeid] = str(digest)
        elif report.failed:
            self._failed.add(report.nodeid)

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if self._prove and not hasattr(session.config, "workerinput"):
            known = self._noted | self._passed
            proven = {test: digest for test, digest in known.items() if test not in self._failed}
            NOTED.write_text(json.dumps(proven, indent=2, sort_keys=True) + "\n")


def digest_of(names: list[str]) -> str:
    """Hexadecimal sha256 of the names and contents of these files."""
    digest = hashlib.sha256()
    for name in sorted(names):
        digest.update(f"{name}\0".encode() + (ROOT / name).read_bytes() + b"\0")
    return digest.hexdigest()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--prove", action="store_true", help="run and note what is proven already, too")


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(Proofs(config.getoption("--prove")))
