"""Searches on a Dask cluster of two processes: the same candidates, scores and best as in the trainer itself."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from dask import config as dask_config
from distributed import Client, LocalCluster

from consumer.cli import doctor
from consumer.trainers.lanes import Lanes
from consumer.trainers.protocol import Done, Spec, Work
from pipeline.algorithms import find
from pipeline.datasets import builtin
from pipeline.environment import LIBRARIES, environment
from pipeline.jobs import Search, SearchDimension
from pipeline.search import cluster as on_dask
from pipeline.search.cluster import DaskCluster
from pipeline.search.fitting import Fold, here
from pipeline.search.running import run
from pipeline.training import training
from pipeline.training.trained import SEARCH_NOTES, Trained
from tests.searches import fitted_from_now_on
from tests.training_data import Bench, request

DEPTHS = SearchDimension("max_depth", low=1, high=9, step=1)
PRUNING = SearchDimension("ccp_alpha", values=(0.0, 0.01, 0.05))
WAITS_S = 0.05
"""Long enough for two workers to have something to do at the same time."""


@pytest.fixture(scope="module")
def dask() -> Iterator[LocalCluster]:
    with _cluster() as cluster:
        yield cluster


@pytest.fixture(autouse=True)
def _as_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """Dask reads every variable that begins as the worker's setting does."""
    monkeypatch.setenv("DASK_SCHEDULER", "tcp://elsewhere:8786")


@contextmanager
def _cluster(workers: int = 2) -> Iterator[LocalCluster]:
    """It sets OMP_NUM_THREADS here too, which every training's environment tells, for as long as the process lives."""
    environment("")
    before = dict(os.environ)
    try:
        with LocalCluster(
            n_workers=workers, threads_per_worker=1, processes=True, dashboard_address=":0", host="127.0.0.1"
        ) as cluster:
            yield cluster
    finally:
        os.environ.clear()
        os.environ.update(before)


def _found(folder: Path, asked: Search, scheduler: str | None, **more: Any) -> tuple[dict[str, Any], Sequence[str]]:
    """What the model file says of the search, but for seconds, and what the training warned of."""
    folder.mkdir(exist_ok=True)
    dataset = builtin.dataset("digits")
    wanted = request(more.pop("algorithm", "decision_tree"), "digits", search=asked, **more)
    trained = training.train(wanted, dataset, folder, lambda *_: None, scheduler)
    document: dict[str, Any] = Bench(folder).load(trained).evaluation["search"]
    for one in document["candidates"]:
        assert one.pop("fit_s") > 0
    return document, trained.warnings


@pytest.mark.parametrize("strategy", ["grid", "random", "halving", "optuna"])
def test_a_search_comes_to_the_same_on_a_cluster_as_in_the_trainer(
    dask: LocalCluster, tmp_path: Path, strategy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = Search(strategy, (DEPTHS, PRUNING), cv=3, max_candidates=12)
    local = _found(tmp_path / "here", asked, None)
    monkeypatch.setattr(on_dask, "here", None)  # nothing is fitted in the trainer
    assert _found(tmp_path / "there", asked, dask.scheduler_address) == local


def test_numbers_are_the_same_to_the_last_bit_and_warnings_come_along(dask: LocalCluster, tmp_path: Path) -> None:
    asked = Search(
        "grid", (SearchDimension("C", values=(0.1, 1.0)), SearchDimension("max_iter", values=(3, 200))), cv=2
    )
    one_thread = {"algorithm": "logistic_regression", "hyperparameters": {"tol": 1e-3}}
    local, said = _found(tmp_path / "here", asked, None, **one_thread)
    remote, said_there = _found(tmp_path / "there", asked, dask.scheduler_address, **one_thread)
    assert [one["scores"] for one in remote["candidates"]] == [one["scores"] for one in local["candidates"]]
    assert any("failed to converge" in message for message in said)
    assert said_there == said


def test_what_cannot_be_fitted_loses_there_too_and_is_told_alike(dask: LocalCluster, tmp_path: Path) -> None:
    asked = Search("grid", (SearchDimension("n_neighbors", values=(3, 5_000)),), cv=2)
    local = _found(tmp_path / "here", asked, None, algorithm="k_nearest_neighbors")
    assert _found(tmp_path / "there", asked, dask.scheduler_address, algorithm="k_nearest_neighbors") == local
    assert "n_neighbors" in local[0]["candidates"][1]["error"]


def test_what_is_noted_is_not_fitted_again_on_a_cluster(
    dask: LocalCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = Search("grid", (DEPTHS,), cv=2)
    whole = _found(tmp_path, asked, dask.scheduler_address)
    notes = tmp_path / SEARCH_NOTES
    lines = notes.read_bytes().splitlines(keepends=True)
    notes.write_bytes(b"".join(lines[:6]))
    fitted = fitted_from_now_on(monkeypatch)
    assert _found(tmp_path, asked, dask.scheduler_address) == whole
    assert fitted == [6, 7, 8, 9]


def _outcomes(fitting: DaskCluster, fit: Any, candidates: int = 12, folds: int = 2) -> list[list[float | None]]:
    """The scores of candidates whose score is their number."""
    prepared = [Fold([[0.0]], [0], float) for _ in range(folds)]  # type: ignore[arg-type]
    asked = [{"max_depth": number} for number in range(candidates)]
    return [list(outcome.scores) for outcome in fitting(prepared, fit, asked, 1)]


def _fits(folder: Path | None, victim: int | None, again: bool, candidate: Any, *_: Any) -> int:
    """Fits to its own number; on a Dask worker the victim kills its process, the first time or whenever."""
    time.sleep(WAITS_S)
    if candidate["max_depth"] == victim and folder is not None and os.getpid() != int((folder / "trainer").read_text()):
        (folder / f"killed {time.time_ns()}").touch()
        if again or len(list(folder.glob("killed*"))) == 1:
            os.kill(os.getpid(), signal.SIGKILL)
    return int(candidate["max_depth"])


def test_when_the_scheduler_goes_away_the_search_goes_on_in_the_trainer_and_says_so() -> None:
    folds = [Fold([[0.0]], [0], float)]  # type: ignore[arg-type]
    with _cluster() as cluster:
        fitting = DaskCluster(cluster.scheduler_address, patience_s=1)
        outcomes = fitting(folds, partial(_fits, None, None, False), [{"max_depth": number} for number in range(30)], 1)
        first = [next(outcomes) for _ in range(3)]
    with pytest.warns(UserWarning, match=r"^the Dask cluster failed \(.*\); the search went on in the"):
        rest = list(outcomes)
    fitting.close()
    assert [outcome.scores for outcome in (*first, *rest)] == [[float(number)] for number in range(30)]


def test_a_scheduler_that_never_answers_costs_its_patience_and_is_told_of(tmp_path: Path) -> None:
    fitting = DaskCluster("tcp://127.0.0.1:9", patience_s=0.5)
    begun = time.monotonic()
    with pytest.warns(UserWarning, match=r"^the Dask cluster failed \(((?!127).)*\); the search went on"):
        outcomes = _outcomes(fitting, partial(_fits, None, None, False), 2)
    assert outcomes == [[0.0, 0.0], [1.0, 1.0]]
    assert time.monotonic() - begun < 15


def test_a_cluster_without_workers_is_not_waited_for_for_ever() -> None:
    with _cluster(0) as cluster:
        fitting = DaskCluster(cluster.scheduler_address, patience_s=0.5)
        with pytest.warns(UserWarning, match=r"failed \(Only 0/1 workers arrived"):
            assert len(_outcomes(fitting, partial(_fits, None, None, False), 2)) == 2


def test_workers_with_other_libraries_are_not_used(dask: LocalCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(on_dask, "versions", lambda: {"scikit-learn": "0.1"})
    fitting = DaskCluster(dask.scheduler_address)
    with pytest.warns(UserWarning, match=r"Dask worker at an address has scikit-learn .*, not 0\.1"):
        outcomes = _outcomes(fitting, partial(_fits, None, None, False), 2)
    fitting.close()
    assert outcomes == [[0.0, 0.0], [1.0, 1.0]]


def test_the_time_budget_ends_a_search_on_a_cluster_and_calls_off_the_rest(dask: LocalCluster, tmp_path: Path) -> None:
    folds = [Fold([[0.0]], [0], float)]  # type: ignore[arg-type]
    fitting = DaskCluster(dask.scheduler_address)
    values = tuple(range(1, 401))
    found = run(
        Search("grid", (SearchDimension("max_depth", values=values),), time_budget_s=1.5),
        find("decision_tree"),
        0,
        folds,
        partial(_fits, None, None, False),
        notes=tmp_path / "notes",
        made_on="data",
        report=lambda *_: None,
        fitting=fitting,
    )
    fitting.close()
    assert found.cut
    assert [trial.number for trial in found.trials] == list(range(1, len(found.trials) + 1))
    assert 1 < len(found.trials) < found.planned == 400
    with Client(dask.scheduler_address, set_as_default=False) as client:
        deadline = time.monotonic() + 60
        while any(client.processing().values()) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not any(client.processing().values())


def test_a_dask_worker_that_is_killed_in_the_middle_costs_time_alone(tmp_path: Path) -> None:
    (tmp_path / "trainer").write_text(str(os.getpid()))
    with _cluster() as cluster, closing(DaskCluster(cluster.scheduler_address)) as fitting:
        scores = _outcomes(fitting, partial(_fits, tmp_path, 5, False))
    assert len(list(tmp_path.glob("killed*"))) >= 2, "it was killed, and that was fitted again"
    assert scores == [[float(number)] * 2 for number in range(12)]
    assert not fitting.given_up


def test_the_last_dask_worker_takes_the_folds_along_and_its_successor_gets_them_again(tmp_path: Path) -> None:
    (tmp_path / "trainer").write_text(str(os.getpid()))
    with _cluster(1) as cluster, closing(DaskCluster(cluster.scheduler_address)) as fitting:
        scores = _outcomes(fitting, partial(_fits, tmp_path, 3, False), 6)
    assert len(list(tmp_path.glob("killed*"))) >= 2
    assert scores == [[float(number)] * 2 for number in range(6)]
    assert not fitting.given_up


def test_what_takes_dask_workers_down_is_fitted_in_the_trainer(tmp_path: Path) -> None:
    (tmp_path / "trainer").write_text(str(os.getpid()))
    with (
        dask_config.set({"distributed.scheduler.allowed-failures": 0}),
        _cluster() as cluster,
        closing(DaskCluster(cluster.scheduler_address)) as fitting,
    ):
        scores = _outcomes(fitting, partial(_fits, tmp_path, 3, True), 6, folds=1)
    assert len(list(tmp_path.glob("killed*"))) == 1
    assert scores == [[float(number)] for number in range(6)]
    assert not fitting.given_up


def test_a_trainer_is_told_of_the_scheduler_and_uses_it(dask: LocalCluster, tmp_path: Path) -> None:
    asked = request("decision_tree", "iris", search=Search("grid", (DEPTHS,), cv=2))
    limit_bytes = 4 * 2**30
    work = Work(asked, builtin.dataset("iris"), tmp_path, limit_bytes, dask.scheduler_address)
    scheduler = dask.scheduler
    assert scheduler is not None
    lanes = Lanes(1)
    lanes.start()
    ended = None
    met: set[str] = set()
    try:
        lanes.feed(Spec("r1", work.to_datagram(), 60, limit_bytes))
        deadline = time.monotonic() + 60
        while ended is None and time.monotonic() < deadline:
            met |= set(scheduler.clients)
            ended = next((event for event in lanes.poll() if isinstance(event, Done)), None)
            time.sleep(0.01)
    finally:
        lanes.stop()
    assert ended is not None
    assert ended.how == "trained", ended.message
    assert any(name.startswith("Client-tensorfleet-") for name in met)
    found = Bench(tmp_path).load(Trained.from_json(ended.result))
    assert not any("Dask" in warning for warning in found.manifest["warnings"])


def test_the_doctor_looks_at_the_cluster(dask: LocalCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    (finding,) = doctor._dask(dask.scheduler_address)
    assert (finding.ok, finding.found) == (True, f"2 worker(s) with 2 threads at {dask.scheduler_address}")
    monkeypatch.setattr(on_dask, "environment", lambda: dict.fromkeys(("tensorfleet-worker", *LIBRARIES), "0"))
    (finding,) = doctor._dask(dask.scheduler_address)
    assert (finding.ok, finding.warning) == (False, True)
    assert "2 of 2 workers have other libraries, such as tcp://127.0.0.1:" in finding.found


def test_the_trainer_itself_fits_only_what_is_asked_for() -> None:
    fitted: list[int] = []
    folds = [Fold([[0.0]], [0], float)]  # type: ignore[arg-type]

    def fit(candidate: Mapping[str, Any], *_: object) -> int:
        fitted.append(candidate["n"])
        return 0

    outcomes = here(folds, fit, [{"n": 1}, {"n": 2}], 1)
    next(outcomes)
    assert fitted == [1]
