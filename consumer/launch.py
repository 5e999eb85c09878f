"""Launches a worker in this process: first its forkserver, since that imports for longest, then all else."""

from __future__ import annotations

import os

from consumer import failpoints
from consumer.settings import Settings
from consumer.system.machine import gpus
from consumer.telemetry import logs
from consumer.trainers.lanes import Lanes


def run_worker(settings: Settings) -> None:
    """Run a worker until SIGTERM or SIGINT has drained it, and end the process.

    Raises MissingTopicsError, and any error that ended a part.
    """
    logs.configure(settings.log_level, settings.log_format)
    logs.log_uncaught()
    failpoints.arm(os.environ.get(failpoints.VARIABLE, ""))
    lanes = Lanes(settings.worker_concurrency, settings.cpus_per_training, gpus())
    lanes.start()
    from consumer import app  # half a second of imports, in which the forkserver gets on with its own

    app.run(settings, lanes)
