"""Holds what the steps of the worker's thread share: its jobs, its partitions, and its neighbours."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from consumer.jobs.checkpoints import Checkpoints
from consumer.jobs.claims import Claims
from consumer.jobs.jobs import Jobs
from consumer.jobs.readiness import Readiness
from consumer.jobs.registrar import Registrar
from consumer.jobs.spools import Spools
from consumer.partitions.assignment import Assignment
from consumer.partitions.intake import Intake
from consumer.publishing.committer import Committer
from consumer.telemetry.metrics import Metrics
from consumer.threads.retrying import Breakers
from consumer.trainers.lanes import Lanes
from consumer.worker.feeding import Limits
from consumer.worker.job_events import JobEvents
from pipeline.ledger import Owner


@dataclass(frozen=True, slots=True, kw_only=True)
class Neighbours:
    """Threads and processes that own one client each; they take orders, and answer in the worker's inbox."""

    intake: Intake
    claims: Claims
    readiness: Readiness
    lanes: Lanes
    registrar: Registrar
    committer: Committer
    checkpoints: Checkpoints


@dataclass(frozen=True, slots=True, kw_only=True)
class Shared:
    """Used by the worker's thread alone, which owns `jobs` and `assignment`."""

    me: Owner
    jobs: Jobs
    assignment: Assignment
    neighbours: Neighbours
    job_events: JobEvents
    breakers: Breakers
    metrics: Metrics
    limits: Limits
    spools: Spools
    clock: Callable[[], datetime]
