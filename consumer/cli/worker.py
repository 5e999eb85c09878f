"""`tensorfleet worker`: runs a worker."""

from __future__ import annotations

from consumer.cli import context


def worker() -> None:
    """Run a worker, until SIGTERM or Ctrl-C has drained it.

    Its settings come from the environment and from `.env`; docs/settings.md lists them.
    """
    settings = context.worker_settings()

    from consumer.launch import run_worker

    run_worker(settings)
