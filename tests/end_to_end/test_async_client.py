"""The client for asyncio, on a real Kafka; the test plays the worker."""

from __future__ import annotations

import asyncio
import threading

import pytest

from consumer.events.outgoing import ProgressState
from consumer.settings import Settings
from pipeline.errors import RejectedError
from pipeline.jobs import OutcomeKind
from tensorfleet import AsyncClient
from tests.command import Run
from tests.end_to_end.test_client import Worker, client, run, settings, worker

__all__ = ["client", "run", "settings", "worker"]


def test_waits_for_several_requests_run_side_by_side(run: Run, settings: Settings, worker: Worker) -> None:
    async def follow() -> list[str]:
        async with AsyncClient(settings) as fleet:
            asked = [
                await fleet.submit(algorithm="svm", dataset_name="iris", model_name="flowers", request_id=f"r-{number}")
                for number in range(3)
            ]
            waits = [asyncio.create_task(fleet.wait(request_id, timeout_s=60)) for request_id in asked]
            await asyncio.to_thread(worker.registered, "r-0")
            for request_id in asked[1:]:
                await asyncio.to_thread(worker.failed, request_id)
            ended = await asyncio.gather(*waits)
            assert ended[0].registered is not None
            assert ended[0].registered["version"] == "v3"
            return [one.state for one in ended]

    assert asyncio.run(follow()) == [OutcomeKind.REGISTERED, OutcomeKind.FAILED, OutcomeKind.FAILED]


def test_a_watch_that_is_left_ends_its_thread(run: Run, settings: Settings, worker: Worker) -> None:
    worker.progress("r-1", ProgressState.TRAINING, 0)

    async def leave() -> str:
        async with AsyncClient(settings) as fleet:
            events = fleet.watch("r-1")
            first = await anext(events)
            await events.aclose()
            while any(thread.name == "watch-r-1" for thread in threading.enumerate()):
                await asyncio.sleep(0.05)
            return str(first["state"])

    assert asyncio.run(asyncio.wait_for(leave(), 30)) == "TRAINING"


def test_errors_are_raised_where_they_are_awaited(run: Run, settings: Settings, worker: Worker) -> None:
    worker.progress("r-1", ProgressState.TRAINING, 0)

    async def fail() -> None:
        async with AsyncClient(settings) as fleet:
            with pytest.raises(RejectedError, match="request_id"):
                await fleet.submit(algorithm="svm", dataset_name="iris", request_id="x" * 1_000)
            with pytest.raises(TimeoutError, match="r-1: no outcome within 1 s"):
                await fleet.wait("r-1", timeout_s=1)

    asyncio.run(fail())


def test_a_cancelled_wait_leaves_the_others_alone(run: Run, settings: Settings, worker: Worker) -> None:
    async def follow() -> str:
        async with AsyncClient(settings) as fleet:
            given_up = asyncio.create_task(fleet.wait("r-1"))
            kept = asyncio.create_task(fleet.wait("r-2", timeout_s=60))
            await asyncio.sleep(0)
            given_up.cancel()
            with pytest.raises(asyncio.CancelledError):
                await given_up
            await asyncio.to_thread(worker.failed, "r-2")
            return str((await kept).state)

    assert asyncio.run(follow()) == "FAILED"
