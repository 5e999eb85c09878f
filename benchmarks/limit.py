"""The limit: bare processes that call the pipeline's own training on the same jobs and keep each model file once.

What the worker does beside that (Kafka, ledger, registry, artifact store, progress) is what the ratio shows.
"""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path
from typing import Any, Self

from benchmarks.processes import cpu_s
from benchmarks.workloads import Workload
from pipeline.datasets import builtin

START_WITHIN_S = 120.0


@dataclass(frozen=True, slots=True)
class Order:
    """Jobs to be done by all processes together. `synced`: each file is flushed to disk before it gets its name."""

    workload: Workload
    series: str
    jobs: int
    synced: bool


@dataclass(frozen=True, slots=True)
class Done:
    """A job that one process has finished, in seconds of the monotonic clock."""

    begun: float
    ended: float


class BareProcesses(AbstractContextManager["BareProcesses"]):
    """They live as long as trainers do, and are as warm. The files stay until `folder` is removed: deleting them
    between rounds makes ext4 slow, and the shares too high."""

    def __init__(self, folder: Path, count: int) -> None:
        context = multiprocessing.get_context("spawn")
        self._next = context.Value("l", 0)
        self._processes = []
        self._ends: list[Connection[Any, Any]] = []
        for number in range(count):
            ours, theirs = context.Pipe()
            own = folder / f"bare-{os.urandom(4).hex()}-{number}"
            process = context.Process(target=_serve, args=(theirs, self._next, own), daemon=True)
            process.start()
            theirs.close()
            self._processes.append(process)
            self._ends.append(ours)
        for end in self._ends:
            if not end.poll(START_WITHIN_S):
                raise TimeoutError("a bare process did not start")
            end.recv()

    def run(self, order: Order, processes: int | None = None) -> Sequence[Done]:
        """Do these jobs, in all or only so many processes, and tell of each, in the order in which they ended."""
        self._next.value = 0
        for end in self._ends[:processes]:
            end.send(order)
        done = [one for end in self._ends[:processes] for one in end.recv()]
        return sorted(done, key=lambda one: one.ended)

    def cpu_s(self) -> float:
        return sum(cpu_s(process.pid or 0) for process in self._processes)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for end in self._ends:
            end.close()
        for process in self._processes:
            process.join()


def _serve(orders: Connection[Any, Any], counter: Synchronized[int], folder: Path) -> None:
    from pipeline.training import training

    kept, spool = folder / "kept", folder / "spool"
    for path in (kept, spool):
        path.mkdir(parents=True)
    orders.send("ready")
    while True:
        try:
            order: Order = orders.recv()
        except EOFError:
            return
        done = []
        while (number := _take(counter)) < order.jobs:
            begun = time.monotonic()
            request = order.workload.request(order.series, number)
            trained = training.train(request, builtin.dataset(request.dataset_name), spool, lambda *_: None)
            _keep(trained.model_file, kept / f"{request.request_id}.zip", synced=order.synced)
            done.append(Done(begun, time.monotonic()))
        orders.send(done)


def _take(counter: Synchronized[int]) -> int:
    with counter.get_lock():
        number = counter.value
        counter.value += 1
    return number


def _keep(file: Path, target: Path, *, synced: bool) -> None:
    if synced:
        with file.open("rb") as written:
            os.fsync(written.fileno())
    file.replace(target)
