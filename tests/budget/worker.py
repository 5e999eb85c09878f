"""The worker as `consumer.app` builds it, with all its steps taken by one thread.

Not real are Kafka, the forkserver, and time, which goes on by TICK_S after each turn of the worker. In a tick every
neighbour does all that it was told to, and each trainer trains one job, in this process. Heartbeat, control topics,
HTTP port and the watch over the trainers' memory do nothing here: their work does not grow with the jobs.
"""

from __future__ import annotations

import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import orjson

from consumer import app
from consumer.events.codec import Codec
from consumer.events.messages import message
from consumer.events.requests import to_avro
from consumer.events.topics import Topics
from consumer.partitions.intake import POLL_S
from consumer.publishing import transactions
from consumer.settings import Settings
from consumer.trainers import child
from consumer.trainers.lanes import Lanes
from consumer.trainers.protocol import JOB_LIMIT_BYTES
from pipeline.jobs import TrainingRequest
from schemas import RecordType
from tests.budget.kafka import Admin, Broker, Consumer, Producer

TICK_S = 1 / 128
"""About what a decision tree on iris takes. Sums of it are exact, so a wait takes as many ticks whenever it begins."""
IDLE_S = 2.0
"""Before each use, so that what is done once a second is done once."""
TURNS = 50
"""More of them than one job takes; a further job takes less than one more."""


class Clock:
    """Stands in for the module `time`."""

    def __init__(self) -> None:
        self._ticks = 0

    def monotonic(self) -> float:
        return self._ticks * TICK_S

    perf_counter = monotonic

    def go_on(self, by_s: float = TICK_S) -> None:
        self._ticks += round(by_s / TICK_S)


class Trainer:
    """A trainer's end of a lane."""

    def __init__(self, inbox: int, outbox: int) -> None:
        self._inbox = socket.socket(fileno=os.dup(inbox))
        self._reporter = child.Reporter(socket.socket(fileno=os.dup(outbox)))
        self._leftovers: Any = SimpleNamespace(are_many=lambda: False)  # threads of clients of MongoDB are no leftovers

    def step(self) -> None:
        """Train the next job, if there is one."""
        try:
            job = self._inbox.recv(JOB_LIMIT_BYTES, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return
        child._train(orjson.loads(job), self._reporter, self._leftovers)


class Servers:
    """Stands in for the forkservers: a trainer that is asked for is there."""

    def __init__(self) -> None:
        self.trainers: list[Trainer] = []

    def start(self, framework: str) -> None:
        pass

    def ready(self, framework: str) -> bool:
        return True

    def tell(self, framework: str, command: Mapping[str, object], inbox: int, outbox: int, output: int) -> None:
        self.trainers.append(Trainer(inbox, outbox))

    def heard(self) -> Sequence[Any]:
        return ()

    def end_late(self) -> None:
        pass


class SteppedWorker:
    """Made within `substitutes`."""

    def __init__(self, settings: Settings, broker: Broker, clock: Clock) -> None:
        child.warm_up("")
        self._broker = broker
        self._clock = clock
        self._codec, self._topics = Codec(), Topics()
        self._servers = Servers()
        lanes = Lanes(settings.worker_concurrency, clock=clock.monotonic)
        lanes._servers = self._servers  # type: ignore[assignment]
        lanes.start()
        self._parts = app._build(settings, lanes, threading.Event())
        self._near = self._parts.neighbours
        self._near.intake.open()
        self._near.committer.open()

    def train(
        self,
        requests: Sequence[TrainingRequest],
        counted: Callable[[str], AbstractContextManager[object]] = nullcontext,
    ) -> None:
        """Take requests from their topic to their committed offsets; what a part does is done in `counted(part)`."""
        records = [(RecordType.TRAINING_REQUEST, to_avro(request)) for request in requests]
        self._broker.send([message(self._codec, self._topics, *record) for record in records])
        self._clock.go_on(IDLE_S)
        poll_at = self._clock.monotonic()
        for _ in range(TURNS + len(requests)):
            with counted("worker"):
                self._parts.worker._turn()
                if self._clock.monotonic() >= poll_at:
                    self._near.intake.step()
                    poll_at += POLL_S
                for neighbour in (self._near.claims, self._near.readiness, self._near.registrar, self._near.committer):
                    while neighbour.step():
                        pass
            with counted("trainer"):
                for trainer in self._servers.trainers:
                    trainer.step()
            if self._broker.settled:
                break
            self._clock.go_on()
        else:
            raise RuntimeError("the worker does not get on with its jobs")
        with counted("worker"):
            self._parts.worker._turn()

    def registered(self, requests: Sequence[TrainingRequest]) -> int:
        """How many of them have a model."""
        return len(self._parts.stores.registry.find([request.request_id for request in requests]))


@contextmanager
def substitutes(broker: Broker, clock: Clock) -> Iterator[None]:
    """Let our code have this broker and this clock."""
    clients: dict[str, Any] = {"Producer": lambda _: Producer(broker), "Consumer": lambda _: Consumer(broker)}
    with ExitStack() as stack:
        stack.enter_context(patch.multiple(app, AdminClient=lambda _: Admin(), **clients))
        stack.enter_context(patch.multiple(transactions, **clients))
        for name, module in list(sys.modules.items()):
            if name.startswith(("consumer.", "pipeline.")) and vars(module).get("time") is time:
                stack.enter_context(patch.object(module, "time", clock))
        yield
