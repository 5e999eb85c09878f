"""What a process does not import: the libraries of trainings, unless it trains, or uses a model or its rows."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from consumer import embedded
from consumer.client import Client
from consumer.settings import Settings
from consumer.system.processes import children
from pipeline.jobs import OutcomeKind

OF_TRAININGS = {"joblib", "keras", "matplotlib", "optuna", "pandas", "scipy", "sklearn", "skops", "tensorflow", "torch"}
DECIDES_ON_REQUESTS = """
from dataclasses import replace
from pathlib import Path
from consumer import app
from pipeline.algorithms import catalogue
from pipeline.datasets.cache import DatasetCache
from pipeline.jobs import Search, SearchDimension, TrainingRequest
from pipeline.training.reuse_key import reuse_key
from pipeline.validation import check

iris = DatasetCache(Path("cache"), 10**6, None).at_hand("iris")
for name, algorithm in catalogue().items():
    plain = TrainingRequest("r", "j", name, "iris", model_name="m", hyperparameters=algorithm.resolve({}, 1))
    space = [SearchDimension(one.name, values=(one.default,)) for one in algorithm.hyperparameters.values()]
    for request in (plain, replace(plain, hyperparameters={}, search=Search("random", space, scoring=None))):
        check(request)
        reuse_key(request, iris, {})
"""
SENDS_AND_FOLLOWS = """
from tensorfleet import Client
with Client() as fleet:
    fleet.wait(fleet.submit(algorithm="naive_bayes", dataset_name="iris", model_name="sent"))
"""
COMMANDS = (
    "--help",
    "submit --help",
    "submit -a svm -d iris -m flowers --watch",
    "requests",
    "watch r-1",
    "models list",
    "models show flowers@v1",
    "models leaderboard iris",
    "models promote flowers@v1 --alias staging",
    "algorithms list",
    "algorithms show random_forest",
    "datasets list",
    "dlq list",
)


@dataclass(frozen=True)
class Fleet:
    """An embedded fleet that has trained on a built-in dataset, and on one of a store."""

    folder: Path
    worker: int


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    folder = tmp_path_factory.mktemp("fleet")
    table = folder / "table.csv"
    table.write_text("a,b,c\n" + "".join(f"{n},{n % 3},{'no' if n % 2 else 'yes'}\n" for n in range(40)))
    with embedded.broker(Settings(data_dir=folder / "tensorfleet-data")) as settings, Client(settings) as client:
        client.import_dataset("table", table)
        worker = embedded.WorkerProcess(settings)
        try:
            for number, dataset in enumerate(("iris", "table"), 1):
                client.submit(
                    request_id=f"r-{number}", algorithm="random_forest", dataset_name=dataset, model_name="flowers"
                )
            for end in client.wait_all(["r-1", "r-2"], timeout_s=120).values():
                assert end.state == OutcomeKind.REGISTERED, end.error
            yield Fleet(folder, worker.pid)
        finally:
            worker.kill()


def imports(program: str, folder: Path) -> set[str]:
    """The top-level packages that a program has imported when it has run in this folder, with no setting named."""
    program += "\nimport sys; print(*{name.partition('.')[0] for name in sys.modules})"
    environment = {name: value for name, value in os.environ.items() if name.lower() not in Settings.model_fields}
    done = subprocess.run([sys.executable, "-c", program], cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.splitlines()[-1].split())


def test_whatever_a_worker_is_asked_for_its_answer_needs_no_library_of_trainings(tmp_path: Path) -> None:
    assert not imports(DECIDES_ON_REQUESTS, tmp_path) & OF_TRAININGS


def test_a_worker_that_has_trained_models_has_no_library_of_trainings_loaded(fleet: Fleet) -> None:
    """By the compiled modules that the kernel has mapped into its process; its forkserver has them."""
    forkserver, *_ = [pid for pid in children(fleet.worker) if "forkserver" in Path(f"/proc/{pid}/cmdline").read_text()]
    assert {"sklearn", "pandas", "scipy"} <= mapped(forkserver)
    assert not mapped(fleet.worker) & OF_TRAININGS


def mapped(pid: int) -> set[str]:
    return set(re.findall(r"/site-packages/(\w+)/", Path(f"/proc/{pid}/maps").read_text()))


def test_a_client_imports_no_library_of_trainings(fleet: Fleet) -> None:
    assert not imports(SENDS_AND_FOLLOWS, fleet.folder) & OF_TRAININGS


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_that_needs_no_rows_and_no_model_imports_no_library_of_trainings(command: str, fleet: Fleet) -> None:
    program = f"from consumer.cli import main; assert main({command.split()!r}) == 0"
    assert not imports(program, fleet.folder) & OF_TRAININGS


@pytest.mark.parametrize("command", ["submit -a svm -d iris", "models list", "requests", "algorithms list"])
def test_a_command_imports_no_client_of_a_service_that_it_does_not_call(command: str, fleet: Fleet) -> None:
    found = imports(f"from consumer.cli import main; assert main({command.split()!r}) == 0", fleet.folder)
    its_own = {"confluent_kafka"} if command.startswith("submit") else set()
    assert found & {"aiohttp", "confluent_kafka", "minio", "pymongo", "pyarrow", "structlog"} == its_own


def test_a_command_that_reads_rows_imports_what_it_needs(fleet: Fleet) -> None:
    """Else the tests above would pass whatever was imported."""
    program = "from consumer.cli import main; assert main(['submit', '-a', 'svm', '-d', 'iris', '--dry-run']) == 0"
    assert {"pandas", "sklearn"} <= imports(program, fleet.folder)
