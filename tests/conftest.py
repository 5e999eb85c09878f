"""Fixtures for all tests; those over real servers are in services, proofs of checkers in proofs.

Coverage is measured where it costs little: not in the processes of whole fleets, nor where libraries compute most of
the time, which take twice as long under it.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Generator

import pytest
from hypothesis import HealthCheck, settings

from tests.launcher import ONE_THREAD, PROCESSES_TOO

pytest_plugins = ["tests.proofs", "tests.services.fixtures"]

MEASURED = (
    "unit/",
    "contract/",
    "protocol/",
    *(f"end_to_end/test_{name}.py" for name in ("client", "async_client", "demo")),
)
LONG = (
    "tests/contract/test_brokers.py",
    "tests/contract/test_algorithms.py",
    "tests/end_to_end/test_limits.py",
    "tests/end_to_end/test_handover.py",
    "tests/chaos/",
    "tests/unit/test_frameworks_in_lanes.py",
    "tests/fuzz/",
    "tests/unit/test_loaders.py",
    "tests/unit/test_search_on_dask.py",
    "tests/unit/test_watch.py",
    "tests/services/",
    "tests/unit/test_report.py",
    "tests/unit/test_isolation.py",
    "tests/unit/test_lanes.py",
    "tests/unit/test_diagnostics.py",
    "tests/unit/test_cli.py",
    "tests/unit/test_model_file.py",
)
"""Files that take more than twenty seconds; run first, so that none of them is the last one running."""
NOT_MEASURED = (
    *("keras_cnn", "torch_cnn", "torch_lstm", "torch_transformer"),
    *("contract/test_algorithms", "contract/test_extreme_numbers", "contract/test_ledger_against_a_dict"),
    *("protocol/test_model.py", "unit/test_diagnostics", "unit/test_frameworks_in_lanes"),
)

os.environ.update(ONE_THREAD)
"""Before a library reads it: threads that wait for each other on cores that other tests use took half of all time."""

settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")


def pytest_configure() -> None:
    """A run in the background ignores Ctrl-C, and so would all commands that it starts."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        name = item.nodeid.removeprefix("tests/")
        if not name.startswith(MEASURED) or any(part in name for part in NOT_MEASURED):
            item.add_marker("no_cover")
    items.sort(key=lambda item: not item.nodeid.startswith(LONG))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    inherited = os.environ.pop(PROCESSES_TOO, None) if item.get_closest_marker("no_cover") else None
    try:
        return (yield)
    finally:
        if inherited is not None:
            os.environ[PROCESSES_TOO] = inherited
