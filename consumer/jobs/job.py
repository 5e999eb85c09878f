"""Defines Job, a request that this worker has in hand."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from consumer.jobs.claims import Asked
from consumer.jobs.event_numbers import EventNumbers
from consumer.jobs.places import RUNNING, Place
from consumer.partitions.records import Record
from consumer.system import disk
from pipeline.algorithms import framework_of
from pipeline.datasets import Dataset
from pipeline.jobs import Failure, TrainingRequest
from pipeline.ledger import Claim
from pipeline.training.trained import KEPT

SUSPECTS = "~suspects"
"""The project under which all suspects take their turns; no real project has this name."""


@dataclass(slots=True, eq=False)
class Job:
    """Owned by the worker's thread; `Jobs` alone changes its place and what it holds there.

    Attributes:
        record: the request's home; None once its partition is lost: then this worker does not announce it.
        place: where it is; `moves` counts how often it has moved.
        claim: as last read from the ledger; None while the ledger is to be asked.
        numbers: of the progress events that this worker publishes about it.
        told: the last state that was published.
        dataset: held in the cache for this job while it runs.
        spool: the folder that the trainer writes to.
        checkpoint: a folder from an earlier attempt, from which the next one goes on.
        reuse_key: equal for trainings with equal results; empty until its dataset is known.
        cancelled: who cancelled it, and why; empty if nobody has.
        failure: an internal error, with which the job ends as soon as no trainer has it.
        abandoned: set once nobody waits for its preparation any more; None unless it is being prepared.
        suspect: workers have died under it repeatedly. Suspects are trained one at a time, so that only the one
            that kills workers is blamed for the next death.
    """

    asked: Asked
    record: Record | None
    place: Place = Place.PARKED
    moves: int = 0
    claim: Claim | None = None
    numbers: EventNumbers = field(default_factory=EventNumbers)
    told: str = ""
    dataset: Dataset | None = None
    spool: Path | None = None
    checkpoint: Path | None = None
    reuse_key: str = ""
    cancelled: str = ""
    failure: Failure | None = None
    abandoned: threading.Event | None = None
    suspect: bool = False
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
        """The project whose turns it uses: its own, or that of all suspects."""
        return SUSPECTS if self.suspect else self.request.project

    @property
    def running(self) -> bool:
        """Whether its turn has come and its training has not ended."""
        return self.place in RUNNING

    @property
    def orphaned(self) -> bool:
        """Whether a worker that had it in hand has died."""
        return self.claim is not None and self.claim.worker_losses > 0

    @property
    def attempt(self) -> int:
        return 1 if self.claim is None else 1 + self.claim.trainer_crashes + self.claim.worker_losses

    @property
    def keeps_checkpoints(self) -> bool:
        """Whether the next attempt can go on where its training stopped: for searches and deep learning."""
        return self.request.search is not None or bool(framework_of(self.request.algorithm))

    @property
    def ids(self) -> dict[str, str]:
        """The ids that every log line of the job carries."""
        return {"request_id": self.request_id, "correlation_id": self.request.correlation_id}

    def keep_checkpoint(self) -> None:
        """Move the checkpoint files out of the spool folder, if the disk has room, and delete the folder."""
        if self.spool is None:
            return
        kept = [path for name in KEPT if (path := self.spool / name).exists()]
        if kept:
            self.checkpoint = disk.moved(kept, self.spool.with_name(f"{self.spool.name}.checkpoint"))
        disk.remove(self.spool)
        self.spool = None

    def remove_files(self) -> None:
        """Delete the spool folder and the checkpoint."""
        disk.remove(self.spool)
        disk.remove(self.checkpoint)
        self.spool = self.checkpoint = None
