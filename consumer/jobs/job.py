"""A request on its way through the worker."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from consumer.jobs.claims import Asked
from consumer.jobs.places import RUNNING, Place
from consumer.partitions.records import Record
from consumer.system import disk
from pipeline.algorithms import framework_of
from pipeline.datasets import Dataset
from pipeline.jobs import Failure, TrainingRequest
from pipeline.ledger import Claim
from pipeline.training.trained import KEPT

SUSPECTS = "~suspects"
"""Whose turn it is when a suspect's is: no project has such a name."""


@dataclass(slots=True, eq=False)
class Job:
    """Owned by the worker's thread; `Jobs` alone changes its place and what it holds there.

    Attributes:
        record: the request's home, None once its partition is not ours any more: then nothing is announced.
        place: where it is; `moves` counts how often it has moved.
        claim: as last seen in the ledger; None while the ledger is to be asked.
        events: how many progress events this worker has made of it.
        dataset: held for it in the cache while it runs.
        spool: the folder that the trainer writes to.
        checkpoint: a folder that an earlier attempt has left, for the next one to go on from.
        reuse_key: what makes its training the same as another, once its dataset is known.
        cancelled: who wants it stopped, and why; empty as long as nobody does.
        failure: an error of ours about it, with which it ends as soon as no trainer has it.
        abandoned: set as soon as nobody waits any more for what is being prepared for it.
        suspect: workers have died under it, again and again: it is trained while no other suspect is, so that only
            the one that kills them is blamed for the next.
    """

    asked: Asked
    record: Record | None
    place: Place = Place.PARKED
    moves: int = 0
    claim: Claim | None = None
    events: int = 0
    dataset: Dataset | None = None
    spool: Path | None = None
    checkpoint: Path | None = None
    reuse_key: str = ""
    cancelled: str = ""
    failure: Failure | None = None
    abandoned: threading.Event | None = None
    suspect: bool = False
    stage: str = ""
    stage_at: float = 0.0
    taken_at: float = 0.0
    finished_at: float = 0.0
    look_at: float = 0.0
    line: tuple[Any, ...] = ()

    @property
    def request(self) -> TrainingRequest:
        return self.asked.request

    @property
    def request_id(self) -> str:
        return self.asked.request.request_id

    @property
    def project(self) -> str:
        """With whom it takes turns: others of its project, or the other suspects."""
        return SUSPECTS if self.suspect else self.request.project

    @property
    def running(self) -> bool:
        """From its turn to the end of its training."""
        return self.place in RUNNING

    @property
    def orphaned(self) -> bool:
        """A worker that had it in hand has died."""
        return self.claim is not None and self.claim.worker_losses > 0

    @property
    def attempt(self) -> int:
        return 1 if self.claim is None else 1 + self.claim.trainer_crashes + self.claim.worker_losses

    @property
    def keeps_checkpoints(self) -> bool:
        """Whether its training is one of many steps that the next attempt need not repeat."""
        return self.request.search is not None or bool(framework_of(self.request.algorithm))

    @property
    def ids(self) -> dict[str, str]:
        """What every log line of the job carries."""
        return {"request_id": self.request_id, "correlation_id": self.request.correlation_id}

    def next_event(self) -> int:
        """The sequence of the progress event that is made now."""
        self.events += 1
        return self.events

    def keep_checkpoint(self) -> None:
        """Of what its training has written keep what the next attempt can go on from, if the disk has room for that."""
        if self.spool is None:
            return
        kept = [path for name in KEPT if (path := self.spool / name).exists()]
        if kept:
            self.checkpoint = disk.moved(kept, self.spool.with_name(f"{self.spool.name}.checkpoint"))
        disk.remove(self.spool)
        self.spool = None

    def remove_files(self) -> None:
        """What its trainings have left on disk; none of them goes on."""
        disk.remove(self.spool)
        disk.remove(self.checkpoint)
        self.spool = self.checkpoint = None
