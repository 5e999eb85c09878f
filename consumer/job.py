"""A request on its way through the worker."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum, auto
from pathlib import Path
from typing import Any

from consumer import disk
from consumer.claims import Asked
from consumer.intake import Record
from pipeline.algorithms import framework_of
from pipeline.datasets import Dataset
from pipeline.jobs import TrainingRequest
from pipeline.ledger import Claim
from pipeline.trained import KEPT


class State(Enum):
    """Where a job is; each has one place that moves it on."""

    PARKED = auto()
    """Another worker has it: looked at again now and then."""
    WAITING = auto()
    """Ours, in its model's line."""
    PREPARING = auto()
    """Its turn has come: its dataset is made ready."""
    READY = auto()
    """Waits for room in a lane."""
    FED = auto()
    """Given to a lane; no trainer has taken it yet."""
    TRAINING = auto()
    """In a trainer's hands."""
    STORING = auto()
    """Its result, or its negative outcome, is being made durable."""
    STORED = auto()
    """Durable; to be announced."""


SUSPECTS = "~suspects"
"""Whose turn it is when a suspect's is: no project has such a name."""
RUNNING = frozenset({State.PREPARING, State.READY, State.FED, State.TRAINING})


@dataclass(slots=True, eq=False)
class Job:
    """Owned by the worker's thread.

    Attributes:
        record: the request's home, None once its partition is not ours any more: then nothing is announced.
        claim: as last seen in the ledger; None while another worker has it.
        sequence: of the last progress event of this attempt.
        spool: the folder that the trainer writes to.
        checkpoint: a folder that an earlier attempt has left, for the next one to go on from.
        recipe: what makes its training the same as another, once its dataset is known.
        cancelled: who wants it stopped, and why; empty as long as nobody does.
        suspect: workers have died under it, again and again: it is trained while no other suspect is, so that only
            the one that kills them is blamed for the next.
    """

    request: TrainingRequest
    asked: Asked
    record: Record | None
    state: State
    claim: Claim | None = None
    sequence: int = 0
    dataset: Dataset | None = None
    spool: Path | None = None
    checkpoint: Path | None = None
    recipe: str = ""
    cancelled: str = ""
    suspect: bool = False
    stage: str = ""
    stage_at: float = 0.0
    taken_at: float = 0.0
    finished_at: float = 0.0
    look_at: float = 0.0
    line: tuple[Any, ...] = field(default=())

    def __post_init__(self) -> None:
        if self.record is not None:
            self.stand_in_line(self.record)

    def stand_in_line(self, record: Record) -> None:
        """Belong to this assignment of the record's partition."""
        self.record = record
        self.line = (record.partition, record.epoch, self.request.model_key)

    @property
    def request_id(self) -> str:
        return self.request.request_id

    @property
    def project(self) -> str:
        """With whom it takes turns: others of its project, or the other suspects."""
        return SUSPECTS if self.suspect else self.request.project

    @property
    def running(self) -> bool:
        """From its turn to the end of its training."""
        return self.state in RUNNING

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

    def keep_checkpoint(self) -> None:
        """Of what its training has written keep what the next attempt can go on from, if the disk has room for that."""
        if self.spool is None:
            return
        kept = [path for name in KEPT if (path := self.spool / name).exists()]
        if kept:
            self.checkpoint = disk.moved(kept, self.spool.with_name(f"{self.spool.name}.checkpoint"))
        disk.remove(self.spool)

    def remove_files(self) -> None:
        """What its trainings have left on disk; none of them goes on."""
        disk.remove(self.spool)
        disk.remove(self.checkpoint)
        self.spool = self.checkpoint = None

    @property
    def ids(self) -> dict[str, str]:
        """What every log line of the job carries."""
        return {"request_id": self.request_id, "correlation_id": self.request.correlation_id}
