"""A full disk is a service that does not answer."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from consumer.jobs.lease import Steady
from consumer.jobs.readiness import Prepared, Readiness
from consumer.settings import Settings
from consumer.stores import open_cache, open_stores
from consumer.system import disk
from consumer.threads.neighbour import Surroundings
from consumer.threads.retrying import Breakers
from pipeline.datasets import reading
from pipeline.errors import TransientError
from pipeline.ledger import Owner
from pipeline.registry.quotas import Quotas
from tests.disks import fill, small_disk
from tests.jobs import preparing


def test_half_of_a_disk_is_always_enough_and_a_full_one_never(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 2**23):
        folder = tmp_path / "disk"
        disk.check_room(folder, 2**40)
        (folder / "file").write_bytes(bytes(5 * 2**20))
        assert disk.size_bytes(folder) == 5 * 2**20
        fill(folder / "ballast")
        with pytest.raises(TransientError, match="has no room for a training that needs 0 bytes"):
            disk.check_room(folder, 0)


def test_a_job_that_lacked_space_is_prepared_when_there_is_some(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path / "data", dataset_cache_dir=tmp_path / "cache")
    stores, breakers = open_stores(settings), Breakers(threshold=2, pause_s=0.1)
    delivered: list[Any] = []
    with small_disk(tmp_path / "spool", 2**23):
        readiness = Readiness(
            Owner("w", 1),
            stores.ledger,
            open_cache(settings, stores.datasets, reading.read),
            lambda _: None,
            quotas=Quotas.of({}),
            registry=stores.registry,
            machine={},
            training_memory_bytes=2**30,
            spool=tmp_path / "spool",
            is_alone=lambda: True,
            steady=Steady(),
            around=Surroundings(delivered.append, breakers),
        )
        fill(tmp_path / "spool" / "ballast")
        readiness.start()
        readiness.prepare(preparing("r", "iris"), 0)
        _await(lambda: breakers.is_open(disk.SERVICE))
        assert delivered == []
        (tmp_path / "spool" / "ballast").unlink()
        _await(lambda: bool(delivered))
        assert not breakers.is_open(disk.SERVICE)
        readiness.give_up()
    (prepared,) = delivered
    assert isinstance(prepared, Prepared)
    assert prepared.dataset is not None


def _await(condition: Callable[[], bool], within_s: float = 60.0) -> None:
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)
