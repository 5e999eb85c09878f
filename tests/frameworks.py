"""Deep learning in tests: each framework has a process of its own, since two in one crash, and is imported once."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from typing import Any, TypeVar

T = TypeVar("T")


def within(framework: str, task: Callable[..., T], *arguments: Any) -> T:
    """What the task returns or raises, in the framework's process; without a framework, here."""
    if not framework:
        return task(*arguments)
    return _process(framework).submit(task, *arguments).result()


@cache
def _process(framework: str) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(1, multiprocessing.get_context("spawn"))
