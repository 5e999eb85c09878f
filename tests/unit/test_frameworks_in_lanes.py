"""Lanes that change between scikit-learn and a framework of deep learning, with real trainers."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from consumer.trainers.lanes import Lanes
from consumer.trainers.protocol import Done, End, Killed, LaneEvent, Returned, Spec, Taken, Work
from pipeline.algorithms import framework_of
from pipeline.datasets.builtin import dataset
from pipeline.jobs import HyperparameterValue, TrainingRequest

LONG = 10_000
"""Epochs."""
MEMORY_BYTES = 2 * 2**30


class Bench:
    def __init__(self, lanes: Lanes, spool: Path) -> None:
        self.lanes = lanes
        self.spool = spool
        self.events: list[LaneEvent] = []
        self.fed: dict[str, Spec] = {}

    def feed(self, job_id: str, algorithm: str, limit_s: float = 60, **given: HyperparameterValue) -> None:
        request = TrainingRequest(job_id, "job", algorithm, "digits", model_name="m", hyperparameters=given)
        work = Work(request, dataset("digits"), self.spool / job_id, MEMORY_BYTES)
        self.fed[job_id] = Spec(job_id, work.to_datagram(), limit_s, MEMORY_BYTES, framework_of(algorithm))
        self.lanes.feed(self.fed[job_id])

    def turn(self) -> None:
        happened = self.lanes.poll()
        self.events.extend(happened)
        for event in happened:
            if isinstance(event, Returned):
                self.lanes.feed(self.fed[event.job_id])
        time.sleep(0.01)

    def taken(self, job_id: str) -> None:
        deadline = time.monotonic() + 180
        while Taken(job_id) not in self.events:
            assert time.monotonic() < deadline, self.events
            self.turn()

    def ended(self, job_id: str) -> Done | Killed:
        deadline = time.monotonic() + 180
        while True:
            for event in self.events:
                if isinstance(event, (Done, Killed)) and event.job_id == job_id:
                    return event
            assert time.monotonic() < deadline, self.events
            self.turn()


@pytest.fixture
def lanes(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lanes]:
    count, gpus = request.param
    lanes = Lanes(count, gpus=gpus)
    lanes.start()
    yield lanes
    lanes.stop()


@pytest.fixture
def bench(lanes: Lanes, tmp_path: Path) -> Bench:
    return Bench(lanes, tmp_path)


@pytest.mark.parametrize("lanes", [(1, ())], indirect=True)
def test_one_lane_trains_with_one_framework_after_the_other(bench: Bench) -> None:
    bench.feed("tree", "decision_tree")
    bench.feed("torch", "torch_logistic", epochs=1)
    for job_id in ("tree", "torch"):
        event = bench.ended(job_id)
        assert isinstance(event, Done)
        assert event.how == "trained", event
    bench.feed("again", "decision_tree")
    assert bench.ended("again").how == "trained"  # type: ignore[union-attr]
    assert bench.lanes.room() == 2


@pytest.mark.parametrize("lanes", [(1, ())], indirect=True)
def test_a_deep_training_is_cancelled_and_ended_at_its_time_limit_like_any(bench: Bench) -> None:
    bench.feed("long", "torch_mlp", epochs=LONG)
    bench.taken("long")
    bench.feed("waits", "decision_tree")
    assert bench.lanes.take_back("waits") == ["waits"]
    assert bench.lanes.kill("long", End.CANCELLED, "cancelled")
    assert bench.ended("long") == Killed("long", End.CANCELLED, "cancelled")
    bench.feed("slow", "torch_mlp", limit_s=1, epochs=LONG)
    event = bench.ended("slow")
    assert isinstance(event, Killed)
    assert event.end is End.TIMED_OUT


@pytest.mark.parametrize("lanes", [(2, ("7",))], indirect=True)
def test_a_gpu_belongs_to_one_lane_at_a_time(bench: Bench) -> None:
    bench.feed("one", "torch_mlp", epochs=LONG)
    bench.taken("one")
    bench.feed("two", "torch_logistic", epochs=1)
    bench.feed("tree", "decision_tree")
    assert bench.ended("tree").how == "trained"  # type: ignore[union-attr]
    bench.lanes.kill("one", End.CANCELLED, "cancelled")
    assert bench.ended("two").how == "trained"  # type: ignore[union-attr]
    assert [lane.gpu for lane in bench.lanes._lanes.values() if lane.framework == "torch"] == ["7"]


@pytest.mark.parametrize("lanes", [(1, ("7",))], indirect=True)
def test_an_idle_lane_gives_its_gpu_to_another_framework(bench: Bench) -> None:
    bench.feed("torch", "torch_logistic", epochs=1)
    assert bench.ended("torch").how == "trained"  # type: ignore[union-attr]
    bench.feed("keras", "keras_dnn", epochs=1)
    assert bench.ended("keras").how == "trained"  # type: ignore[union-attr]
    assert [(lane.framework, lane.gpu) for lane in bench.lanes._lanes.values() if lane.open] == [("keras", "7")]


@pytest.mark.parametrize("lanes", [(1, ())], indirect=True)
def test_a_framework_that_is_being_imported_keeps_no_lane_from_training(bench: Bench) -> None:
    bench.feed("first", "decision_tree")
    assert bench.ended("first").how == "trained"  # type: ignore[union-attr]
    bench.feed("torch", "torch_logistic", epochs=1)
    importing = bench.lanes._servers._running["torch"].process
    importing.send_signal(signal.SIGSTOP)
    assert bench.lanes.room() == 2
    bench.feed("tree", "decision_tree")
    assert bench.ended("tree").how == "trained"  # type: ignore[union-attr]
    importing.send_signal(signal.SIGCONT)
    assert bench.ended("torch").how == "trained"  # type: ignore[union-attr]


@pytest.mark.parametrize("lanes", [(2, ())], indirect=True)
def test_a_busy_lane_changes_to_a_framework_once_it_is_imported(bench: Bench) -> None:
    """The other one trains for long, and this one has always something to do."""
    bench.feed("long", "gradient_boosting", n_estimators=100_000)
    bench.taken("long")
    bench.feed("torch", "torch_logistic", epochs=1)
    deadline = time.monotonic() + 180
    for number in itertools.count():
        if any(isinstance(event, Done) and event.job_id == "torch" for event in bench.events):
            break
        assert time.monotonic() < deadline
        if bench.lanes.room():
            bench.feed(f"tree-{number}", "decision_tree")
        bench.turn()


@pytest.mark.parametrize("lanes", [(2, ())], indirect=True)
def test_an_import_that_hangs_ends_and_costs_its_job_alone(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.feed("tree", "decision_tree")
    assert bench.ended("tree").how == "trained"  # type: ignore[union-attr]
    bench.feed("torch", "torch_logistic", epochs=1)
    bench.lanes._servers._running["torch"].process.send_signal(signal.SIGSTOP)
    bench.feed("keras", "keras_dnn", epochs=1)
    bench.turn()
    assert set(bench.lanes._servers._running) == {"", "torch"}
    monkeypatch.setattr("consumer.trainers.servers.IMPORT_LIMIT_S", 0.0)
    event = bench.ended("torch")
    monkeypatch.undo()
    assert isinstance(event, Killed)
    assert (event.end, event.message.partition(" (")[0]) == (End.CRASHED, "the trainer was not started")
    assert bench.ended("keras").how == "trained"  # type: ignore[union-attr]


@pytest.mark.parametrize("lanes", [(2, ("7",))], indirect=True)
def test_jobs_that_wait_for_a_gpu_take_no_room_from_others(bench: Bench) -> None:
    bench.feed("long", "torch_mlp", epochs=LONG)
    bench.taken("long")
    for number in range(5):
        bench.feed(f"waits-{number}", "torch_logistic")
    assert bench.lanes.room() > 0
    bench.feed("tree", "decision_tree")
    assert bench.ended("tree").how == "trained"  # type: ignore[union-attr]


@pytest.mark.parametrize("name", ["torch_mlp", "keras_dnn"])
def test_a_framework_that_is_out_of_memory_ends_as_out_of_memory(tmp_path: Path, name: str) -> None:
    lanes = Lanes(1)
    lanes.start()
    bench = Bench(lanes, tmp_path)
    try:
        bench.feed("huge", name, hidden_layer_sizes=[10_000] * 12)
        event = bench.ended("huge")
    finally:
        lanes.stop()
    if isinstance(event, Killed):  # the watch over resident memory was first
        assert event.end is End.OUT_OF_MEMORY
    else:
        assert event.kind == "OUT_OF_MEMORY", event


def test_a_framework_that_cannot_be_imported_costs_its_jobs_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "torch.py").write_text("raise ImportError('libcudart is broken')")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join((str(tmp_path), os.environ.get("PYTHONPATH", ""))))
    bench = Bench(Lanes(2), tmp_path)
    bench.lanes.start()
    try:
        bench.feed("torch", "torch_logistic")
        event = bench.ended("torch")
        assert isinstance(event, Killed)
        assert event.end is End.CRASHED
        assert event.message == "the trainer was not started (exit code 1 of the forkserver of torch)"
        bench.feed("tree", "decision_tree")
        assert bench.ended("tree").how == "trained"  # type: ignore[union-attr]
        assert bench.lanes.room() == 4
    finally:
        bench.lanes.stop()


@pytest.mark.parametrize("framework", ["", "keras"])
def test_a_forkserver_has_imported_its_framework_and_no_other(framework: str) -> None:
    """torch where TensorFlow is crashes; where neither is needed each costs hundreds of MiB."""
    code = f"import sys; from consumer.trainers import child; child.warm_up({framework!r}); print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    imported = set(run.stdout.split())
    assert imported & {"torch", "tensorflow", "keras", "dask", "optuna"} == (
        {"tensorflow", "keras"} if framework else set()
    )
