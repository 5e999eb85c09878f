"""`tensorfleet dev`: keeps the embedded fleet running."""

from __future__ import annotations

import signal
import socket
import time
from typing import TYPE_CHECKING

from consumer.cli import context
from consumer.cli.demo import named
from consumer.cli.output import Stop, note

if TYPE_CHECKING:
    from consumer.embedded import WorkerProcess
    from consumer.settings import Settings

WRONG_USE = 2
QUICK_S = 15.0
"""A worker that ends before this has failed to start."""
QUICK_DEATHS = 3
DRAIN_MORE_S = 30.0
"""Added to DRAIN_TIMEOUT, which the worker enforces itself."""


def dev() -> None:
    """Keep a broker and a worker running on this machine, with no server at all, until Ctrl-C.

    Other commands find them by themselves when they run in the same folder (or have the same DATA_DIR). What is
    trained stays in DATA_DIR; requests that wait when this ends are lost with the broker.
    """
    from consumer import embedded
    from consumer.stores import open_stores

    signal.signal(signal.SIGTERM, signal.default_int_handler)
    settings = context.any_settings()
    if settings.kafka_bootstrap_servers:
        others = "other commands would go there and not to this fleet; unset it, or use `tensorfleet worker`"
        raise Stop(f"KAFKA_BOOTSTRAP_SERVERS is set to {settings.kafka_bootstrap_servers}: {others}", WRONG_USE)
    try:
        with embedded.broker(settings) as settings:
            _check_port(settings.port)
            stores = open_stores(settings)
            stores.prepare()
            if lost := embedded.settle_past(stores):
                note(
                    f"{lost} requests were still waiting when the last run ended, and are FAILED now; submit them again"
                )
            _say_how_to_use(settings)
            _keep_running(settings)
    except KeyboardInterrupt:
        note("ended")
    except OSError as error:
        raise Stop(f"{error.filename or settings.data_dir} cannot be used: {error.strerror or error}", 2) from error


def _check_port(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", port))
        except OSError as error:
            raise Stop(f"port {port}: {error.strerror}; PORT names another, 0 takes a free one", WRONG_USE) from error


def _say_how_to_use(settings: Settings) -> None:
    note(f"TensorFleet runs here: broker {settings.kafka_bootstrap_servers}, all else in {named(settings.data_dir)}/")
    note("From another terminal, in this folder:")
    note("  tensorfleet submit -a random_forest -d iris --watch")
    note("  tensorfleet requests; tensorfleet models list; tensorfleet datasets list")
    if settings.port:
        note(f"  curl localhost:{settings.port}/health")
    note("Ctrl-C finishes what runs and ends it; once more ends it at once. The worker's log:")


def _keep_running(settings: Settings) -> None:
    from consumer.embedded import WorkerProcess

    worker, quick = WorkerProcess(settings), 0
    began = time.monotonic()
    try:
        while True:
            code = worker.wait(within_s=3600)
            if code is None:
                continue
            quick = quick + 1 if time.monotonic() - began < QUICK_S else 0
            if quick == QUICK_DEATHS:
                raise Stop(f"the worker ended {quick} times as soon as it was started; its log above says why", 1)
            note(f"the worker ended with exit code {code}; starting another")
            worker, began = WorkerProcess(settings), time.monotonic()
    except KeyboardInterrupt:
        _drain(worker, settings.drain_timeout + DRAIN_MORE_S)
    finally:
        worker.kill()


def _drain(worker: WorkerProcess, within_s: float) -> None:
    try:
        worker.drain(within_s)
    except KeyboardInterrupt:
        note("ended at once")
