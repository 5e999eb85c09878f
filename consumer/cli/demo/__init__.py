"""`tensorfleet demo`: a play in six acts, in which everything is real but the servers."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections import Counter
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from consumer.cli import context
from consumer.cli.demo.customers import CUSTOMERS, ROWS
from consumer.cli.demo.screen import DemoJob, Screen
from consumer.cli.output import Stop, duration, shown

if TYPE_CHECKING:
    from consumer.cli.demo.stage import DemoStage
    from consumer.settings import Settings
    from pipeline.jobs import RegisteredModel

MODELS = ("iris", "wine", "digits", CUSTOMERS)
LANES = 4
"""Trainers at most: enough to watch, on a machine of any size."""
SLOW = {"max_features": None, "max_depth": 8, "criterion": "entropy"}
"""A forest that takes some 15 ms a tree on digits, and stays small."""
MOST_TREES = 10_000
MIDDLE = 0.05
INTERRUPTED = 130


def demo() -> None:
    """Train, reject, cancel, kill and score on this machine, with no server at all.

    It takes about a minute. What it makes stays in DATA_DIR (tensorfleet-data), where a second run goes on with the
    next versions. Settings that name servers are left alone.
    """
    from consumer import embedded
    from consumer.cli.demo.stage import DemoStage

    signal.signal(signal.SIGTERM, signal.default_int_handler)
    screen, settings = Screen(), _own(context.any_settings())
    screen.title("TensorFleet", "broker, registry and worker on this machine; no server is needed")
    try:
        with embedded.broker(settings) as settings, DemoStage(settings).opened() as stage:
            _introduce(stage, screen)
            _train(stage, screen)
            _reject(stage, screen)
            _cancel(stage, screen)
            _kill(stage, screen)
            _show_registry(stage, screen)
            _score(stage, screen)
    except KeyboardInterrupt:
        screen.say(f"Stopped; what was trained so far lies in {named(settings.data_dir)}.")
        raise typer.Exit(INTERRUPTED) from None
    except OSError as error:
        raise Stop(f"{error.filename or settings.data_dir} cannot be used: {error.strerror or error}", 2) from error
    _say_what_next(settings, screen)


def _own(settings: Settings) -> Settings:
    """The user's settings, but for what the play relies on."""
    lanes = min(settings.worker_concurrency, LANES)
    own = {"port": 0, "topic_prefix": "", "drain_timeout": 0.0, "log_format": "console", "log_level": "INFO"}
    return settings.model_copy(update={**own, "worker_concurrency": lanes})


def _introduce(stage: DemoStage, screen: Screen) -> None:
    settings, earlier = stage.settings, stage.stores.registry.count()
    stays = f"; its {earlier} models stay, and versions go on" if earlier else ""
    screen.fact("broker", f"{settings.kafka_bootstrap_servers}, in this process")
    screen.fact("stores", f"{named(settings.data_dir)}/, SQLite and a directory{stays}")
    screen.fact("worker", f"process {stage.worker.pid}, {settings.worker_concurrency} trainers, log {named(stage.log)}")


def _train(stage: DemoStage, screen: Screen) -> None:
    algorithms = _algorithms()
    screen.act(1, "Train", f"{len(algorithms)} algorithms on {len(MODELS)} datasets")
    began = datetime.now(UTC)
    jobs = [stage.submit(model, algorithm) for algorithm in algorithms for model in MODELS]
    with screen.matrix(jobs) as show:
        stage.watch(jobs, show)
    _require(jobs, "REGISTERED")
    took = duration((datetime.now(UTC) - began).total_seconds())
    screen.good(f"{len(jobs)} models in {took}, the worker's start included; versions in order")


def _reject(stage: DemoStage, screen: Screen) -> None:
    screen.act(2, "Reject", "a request with a typo: random_forest, n_estimatorz=300")
    job = stage.submit("iris", "random_forest", n_estimatorz=300)
    stage.watch([job])
    _require([job], "REJECTED")
    screen.say(f"REJECTED: {job.message}", "yellow")
    if (letters := stage.dead_letters(job)) != 1:
        raise Stop(f"there are {letters} dead letters of the rejected request; there should be one", 1)
    screen.good(f"not tried again; its bytes and the reason are on {stage.topics.dead_letters}")


def _cancel(stage: DemoStage, screen: Screen) -> None:
    screen.act(3, "Cancel", "a forest of 2,000 trees, in the middle of its fit")
    job = _in_the_middle(stage, screen, 2_000)
    reached, asked = job.fraction or 0.0, datetime.now(UTC)
    stage.client.cancel(job.request_id, reason="to show how it works", user="demo")
    stage.watch([job])
    _require([job], "CANCELLED")
    screen.say(f"CANCELLED: {job.message}", "magenta")
    took = duration(max(0.0, (job.changed_at - asked).total_seconds()))
    screen.good(f"stopped at {reached:.0%}, {took} after it was asked for; no version was used up")


def _kill(stage: DemoStage, screen: Screen) -> None:
    screen.act(4, "kill -9", "the worker dies in the middle of a training, another takes over")
    job, killed = _in_the_middle(stage, screen, 200), stage.worker
    killed.kill()
    at = datetime.now(UTC)
    successor = stage.start_worker()
    screen.say(f"✗ kill -9 {killed.pid} at {job.fraction or 0.0:.0%}; process {successor.pid} starts", "red")
    job.told = f"{successor.pid} waits for the session of {killed.pid} to end"
    with screen.follow(job) as show:
        stage.watch([job], show, lambda: job.attempt > 1)
        waited, job.told = duration((job.changed_at - at).total_seconds()), ""
        stage.watch([job], show)
    _require([job], "REGISTERED")
    screen.good(f"process {successor.pid} took it over {waited} later, as attempt {job.attempt}")
    versions = [one.version for one in stage.registered() if one.request_id == job.request_id]
    announced = {one["event_id"] for one in stage.announced() if one["request_id"] == job.request_id}
    if (job.attempt, len(versions), len(announced)) != (2, 1, 1):
        raise Stop(
            f"attempt {job.attempt}, versions {versions}, {len(announced)} events: not the second, one and one", 1
        )
    screen.good(f"one version in the registry, digits {versions[0]}; one event on {stage.topics.model_registered}")


def _show_registry(stage: DemoStage, screen: Screen) -> None:
    screen.act(5, "The registry", "what this run has added to it")
    registered = sorted(stage.registered(), key=lambda one: (one.model.model_name, one.version_number))
    headings = ("MODEL", "ALGORITHM", "ACCURACY", "F1", "ROC AUC", "TOOK")
    screen.table(headings, [_row(one) for one in registered], right=headings[2:])
    jobs, outcomes = stage.jobs.values(), stage.outcomes()
    counts = Counter(job.state for job in jobs)
    events = sum(len(job.terminal_events) for job in jobs)
    if not len(jobs) == len(outcomes) == events or len(registered) != counts["REGISTERED"]:
        raise Stop(f"{len(jobs)} requests have {len(outcomes)} outcomes and {events} terminal events", 1)
    words = ", ".join(f"{count} {state.lower()}" for state, count in counts.items())
    screen.good(f"{len(jobs)} requests: {words}; one outcome and one terminal event each")


def _score(stage: DemoStage, screen: Screen) -> None:
    best = max((one for one in stage.registered() if one.model.model_name == CUSTOMERS), key=_accuracy)
    screen.act(6, "Score raw rows", f"by {CUSTOMERS} {best.version}, a {best.model.algorithm} with its own preparation")
    stage.rows.write_text(ROWS)
    predictions = stage.predict(best)
    names, *rows = (line.split(",") for line in ROWS.splitlines())
    scores = [""] * len(rows)
    if predictions.probabilities is not None:
        scores = [f"{row[-1]:.2f}" for row in predictions.probabilities]
    headings = [*names, best.model.target_column, f"P({predictions.classes[-1]})"]
    cells = [
        [*(cell or "·" for cell in row), shown(label), score]
        for row, label, score in zip(rows, predictions.labels, scores, strict=True)
    ]
    screen.table([heading.upper() for heading in headings], cells, right=[headings[-1].upper()])
    screen.good(f"gaps are imputed; a word that training had not seen is counted ({shown(predictions.unseen)})")


def _in_the_middle(stage: DemoStage, screen: Screen, trees: int) -> DemoJob:
    """A forest in the middle of its training; a larger one if this machine was too quick to be interrupted."""
    for factor in (1, 5, 25):
        job = stage.submit("digits", "random_forest", n_estimators=min(trees * factor, MOST_TREES), **SLOW)
        with screen.follow(job) as show:
            stage.watch([job], show, partial(_halfway, job))
        if not job.ended:
            return job
    raise Stop(f"a forest of {MOST_TREES:,} trees ended {job.state} before it could be interrupted", 1)


def _halfway(job: DemoJob) -> bool:
    return job.state == "TRAINING" and (job.fraction or 0.0) >= MIDDLE


def _require(jobs: list[DemoJob], state: str) -> None:
    for job in jobs:
        if job.state != state:
            raise Stop(f"{job.algorithm} on {job.model_name} ended {job.state}, not {state}: {job.message}", 1)


def _algorithms() -> list[str]:
    """Scikit-learn's classifiers; a deep one would take the demo's minute for itself."""
    from pipeline.algorithms import catalogue

    return [
        name
        for name, algorithm in catalogue().items()
        if algorithm.task == "classification" and getattr(algorithm.estimator, "module", "").startswith("sklearn.")
    ]


def _accuracy(one: RegisteredModel) -> float:
    return one.model.metrics.get("accuracy", 0.0)


def _row(one: RegisteredModel) -> list[str]:
    model = one.model
    metrics = (model.metrics.get(name) for name in ("accuracy", "f1", "roc_auc"))
    scores = ["" if metric is None else f"{metric:.3f}" for metric in metrics]
    return [f"{model.model_name} {one.version}", model.algorithm, *scores, duration(model.training_time)]


def named(path: Path) -> str:
    """A path as a person in this folder would write it."""
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)


def _say_what_next(settings: Settings, screen: Screen) -> None:
    folder, program = named(settings.data_dir), _program()
    screen.say("")
    screen.title("What to look at next", f"{folder}/, and")
    screen.fact("models", f"{program} models show demo/digits")
    screen.fact("scores", f"{program} models predict demo/{CUSTOMERS} {folder}/rows.csv")
    screen.fact("requests", f"{program} requests")
    screen.fact("more", f"{program} dev, and `{program} submit -a svm -d wine --watch` in another terminal")


def _program() -> str:
    """How to call this command again: `make demo` leaves it in a virtual environment that is not active."""
    called = Path(sys.argv[0])
    if called.name != "tensorfleet" or shutil.which("tensorfleet"):
        return "tensorfleet"
    return os.path.relpath(called)
