"""Provides the client of a fleet for asyncio: as `Client`, without blocking the loop.

async with AsyncClient() as fleet:
    request_id = await fleet.submit(algorithm="random_forest", dataset_name="iris", model_name="flowers")
    async for event in fleet.watch(request_id):
        print(event["state"])
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable, Collection, Sequence
from contextlib import suppress
from datetime import datetime
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, ParamSpec, Self, TypeVar, Unpack

from consumer.client import TERMINAL, Client, Event, Finished
from consumer.new_requests import RequestFields
from consumer.settings import Settings
from pipeline.jobs import TrainingRequest

if TYPE_CHECKING:
    import pandas as pd

    from pipeline.datasets import DatasetVersion
    from pipeline.reading.options import Told

Asked = ParamSpec("Asked")
Answer = TypeVar("Answer")


class AsyncClient:
    """`Client` for asyncio, with the same arguments, methods and errors.  Belongs to one event loop.

    Each call uses a thread of its own while it waits, and each watch a thread and a Kafka consumer: follow many
    requests with one watch.  A watch that is left, or whose task is cancelled, ends with its next answer from Kafka.
    A `submit` whose task is cancelled may have been sent: give it a request_id of your own to send it again safely.
    """

    def __init__(
        self, settings: Settings | None = None, *, timeout_s: float = 10.0, project: str | None = None, **named: Any
    ) -> None:
        self._client = Client(settings, timeout_s=timeout_s, project=project, **named)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """See Client.close."""
        await _in_thread(self._client.close)

    async def submit(self, **request: Unpack[RequestFields]) -> str:
        """See Client.submit."""
        return await _in_thread(self._client.submit, **request)

    async def submit_all(self, requests: Sequence[TrainingRequest | RequestFields]) -> list[str]:
        """See Client.submit_all."""
        return await _in_thread(self._client.submit_all, requests)

    async def cancel(self, request_id: str, reason: str = "", user: str = "") -> None:
        """See Client.cancel."""
        await _in_thread(self._client.cancel, request_id, reason, user)

    async def latest(self, request_ids: Collection[str]) -> dict[str, Event]:
        """See Client.latest."""
        return await _in_thread(self._client.latest, request_ids)

    async def wait(self, request_id: str, *, since: datetime | None = None, timeout_s: float | None = None) -> Finished:
        """See Client.wait."""
        return (await self.wait_all([request_id], since=since, timeout_s=timeout_s))[request_id]

    async def wait_all(
        self, request_ids: Collection[str], *, since: datetime | None = None, timeout_s: float | None = None
    ) -> dict[str, Finished]:
        """See Client.wait_all."""
        events = self.watch(*request_ids, since=since, timeout_s=timeout_s)
        ends = [event async for event in events if event["state"] in TERMINAL] if request_ids else []
        return await _in_thread(self._client.finished, ends)

    async def import_dataset(
        self,
        name: str,
        rows: pd.DataFrame | Path | str,
        target_column: str | None = None,
        *,
        user: str = "",
        forget: bool = False,
        **told: Unpack[Told],
    ) -> DatasetVersion:
        """See Client.import_dataset."""
        importing = partial(self._client.import_dataset, name, rows, target_column, user=user, forget=forget, **told)
        return await _in_thread(importing)

    async def watch(
        self, request_id: str, *more: str, since: datetime | None = None, timeout_s: float | None = None
    ) -> AsyncGenerator[Event, None]:
        """See Client.watch."""
        loop = asyncio.get_running_loop()
        heard: asyncio.Queue[Event | BaseException | None] = asyncio.Queue()
        left = threading.Event()

        def tell(what: Event | BaseException | None) -> None:
            with suppress(RuntimeError):  # the loop has ended: nobody waits for this
                loop.call_soon_threadsafe(heard.put_nowait, what)

        def follow() -> None:
            try:
                for event in self._client.watched((request_id, *more), since, timeout_s):
                    if left.is_set():
                        return
                    if event is not None:
                        tell(event)
                tell(None)
            except BaseException as error:  # noqa: BLE001 - it is raised where the events are awaited
                tell(error)

        threading.Thread(target=follow, name=f"watch-{request_id}", daemon=True).start()
        try:
            while (what := await heard.get()) is not None:
                if isinstance(what, BaseException):
                    raise what
                yield what
        finally:
            left.set()


async def _in_thread(call: Callable[Asked, Answer], *args: Asked.args, **kwargs: Asked.kwargs) -> Answer:
    """Run the call in a thread of its own: calls that wait for Kafka would use up asyncio's small pool."""
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[Answer] = loop.create_future()

    def settle(result: Answer | None, error: BaseException | None) -> None:
        if answer.cancelled():
            return
        if error is not None:
            answer.set_exception(error)
        else:
            answer.set_result(result)  # type: ignore[arg-type]  # None only where Answer has it

    def run() -> None:
        result, failed = None, None
        try:
            result = call(*args, **kwargs)
        except BaseException as error:  # noqa: BLE001 - it is raised where the answer is awaited
            failed = error
        with suppress(RuntimeError):  # the loop has ended: nobody waits for this
            loop.call_soon_threadsafe(settle, result, failed)

    threading.Thread(target=run, name=getattr(call, "__name__", "call"), daemon=True).start()
    return await answer
