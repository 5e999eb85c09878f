"""`tensorfleet demo`, as a person who has just installed it runs it: no server, one folder, and nothing left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from pipeline.algorithms import catalogue
from pipeline.jobs import OutcomeKind, RegisteredModel
from pipeline.ledger import RequestRow
from pipeline.ledger.sqlite import SqliteLedger
from pipeline.registry.sqlite import SqliteRegistry

pytestmark = pytest.mark.chaos

ROOT = Path(__file__).parents[2]
MODELS = ("churn-demo", "digits", "iris", "wine")
WITHIN_S = 240.0
GONE_WITHIN_S = 30.0
OTHERS = {"KAFKA_BOOTSTRAP_SERVERS": "nowhere.invalid:9092", "MONGODB_URL": "mongodb://nowhere.invalid"}
"""The demo leaves such settings alone."""


@contextmanager
def demo(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """The running command; whatever of it still runs at the end is killed."""
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    process = subprocess.Popen(
        [sys.executable, "-m", "consumer.cli", "demo"],
        cwd=folder,
        env={**os.environ, **OTHERS, "PYTHONPATH": path},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("demo")


@pytest.fixture(scope="module")
def told(folder: Path) -> str:
    """What the first run in the folder has said."""
    with demo(folder) as process:
        said, _ = process.communicate(timeout=WITHIN_S)
        assert process.returncode == 0, said
    return said


@pytest.fixture(scope="module")
def models(folder: Path, told: str) -> list[RegisteredModel]:
    return list(SqliteRegistry(folder / "tensorfleet-data" / "registry.sqlite").list(limit=1_000))


@pytest.fixture(scope="module")
def requests(folder: Path, told: str) -> list[RequestRow]:
    return list(SqliteLedger(folder / "tensorfleet-data" / "ledger.sqlite").requests(limit=1_000))


def test_every_act_is_played(told: str) -> None:
    for act in (
        "1  Train",
        "2  Reject",
        "3  Cancel",
        "4  kill -9",
        "5  The registry",
        "6  Score",
        "What to look at next",
    ):
        assert act in told
    assert "did you mean n_estimators?" in told
    assert "as attempt 2" in told
    assert "plan=1" in told


def test_every_algorithm_has_a_version_of_every_model(models: list[RegisteredModel]) -> None:
    trained = {(one.model.model_name, one.model.algorithm) for one in models}
    learning_classes = {name for name, one in catalogue().items() if one.task == "classification"}
    of_scikit_learn = {
        name for name in learning_classes if getattr(catalogue()[name].estimator, "module", "").startswith("sklearn.")
    }
    assert trained == {(model, algorithm) for model in MODELS for algorithm in of_scikit_learn}


def test_versions_have_no_gap(models: list[RegisteredModel]) -> None:
    versions = defaultdict(list)
    for one in models:
        versions[one.model.model_name].append(one.version_number)
    for numbers in versions.values():
        assert sorted(numbers) == [*range(1, len(numbers) + 1)]


def test_every_request_has_one_outcome_and_every_model_one_request(
    models: list[RegisteredModel], requests: list[RequestRow]
) -> None:
    outcomes = {row.request_id: row.outcome for row in requests}
    kinds = Counter(outcome.kind for outcome in outcomes.values() if outcome)
    assert kinds == {OutcomeKind.REGISTERED: len(models), OutcomeKind.REJECTED: 1, OutcomeKind.CANCELLED: 1}
    assert len(outcomes) == len(models) + 2
    assert {one.request_id for one in models} == {i for i, one in outcomes.items() if one and one.model}


def test_one_model_was_trained_by_a_second_worker(requests: list[RequestRow]) -> None:
    attempts = Counter(row.outcome.attempt for row in requests if row.outcome)
    assert attempts[2] == 1
    assert set(attempts) == {1, 2}


def test_model_files_are_what_the_registry_says(models: list[RegisteredModel]) -> None:
    for one in models:
        content = Path(unquote(urlsplit(one.model.artifact_uri).path)).read_bytes()
        assert sha256(content).hexdigest() == one.model.artifact_sha256


def test_it_writes_in_its_folder_alone_and_says_that_it_has_ended(folder: Path, told: str) -> None:
    assert [entry.name for entry in folder.iterdir()] == ["tensorfleet-data"]
    left = {entry.name for entry in (folder / "tensorfleet-data").iterdir()}
    assert {"artifacts", "datasets", "ledger.sqlite", "registry.sqlite", "rows.csv", "worker.log"} <= left
    assert "dev.json" not in left


# A second run in the same folder, which ends early --------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_no_process_outlives_the_demo(folder: Path, told: str, number: signal.Signals) -> None:
    with demo(folder) as process:
        _await(lambda: len(_descendants(process.pid)) >= 3, WITHIN_S)
        below = _descendants(process.pid)
        assert process.poll() is None
        process.send_signal(number)
        said, _ = process.communicate(timeout=GONE_WITHIN_S)
        assert process.returncode == (-signal.SIGKILL if number == signal.SIGKILL else 130), said
        _await(lambda: not any(map(_runs, below)), GONE_WITHIN_S)
    assert "models stay, and versions go on" in said
    if number != signal.SIGKILL:
        assert "Stopped" in said
        assert not (folder / "tensorfleet-data" / "dev.json").exists()


def _await(condition: Callable[[], bool], within_s: float) -> None:
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, "it did not come to that in time"
        time.sleep(0.1)


def _descendants(pid: int) -> list[int]:
    """Processes below this one: the worker, its forkserver, its trainers."""
    found = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            children = [int(child) for child in task.read_text().split()]
        except OSError:  # it has just ended
            continue
        for child in children:
            found += [child, *_descendants(child)]
    return found


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
