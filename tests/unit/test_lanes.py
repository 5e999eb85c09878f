"""Lanes with real trainer processes: what they report, and how they are ended."""

from __future__ import annotations

import os
import select
import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from consumer.system.child_output import Output
from consumer.trainers import lanes as lanes_module
from consumer.trainers.lanes import Lanes
from consumer.trainers.protocol import (
    RESULT,
    RESULT_LIMIT_BYTES,
    Done,
    End,
    Killed,
    LaneEvent,
    Logged,
    Reported,
    Returned,
    Spec,
    Taken,
)
from pipeline.datasets.builtin import BuiltinSource
from pipeline.jobs import HyperparameterValue, TrainingRequest
from tests.disks import fill, small_disk

PLUGINS = Path(__file__).parent.parent / "plugins"
MEMORY_BYTES = 2**30


class Bench:
    """Two lanes, and what has happened in them so far."""

    def __init__(self, lanes: Lanes, spool: Path) -> None:
        self.spool = spool
        self.lanes = lanes
        self.events: list[LaneEvent] = []
        self.fed: list[str] = []

    def clear(self) -> None:
        """Leave idle lanes to the next test."""
        self.lanes.take_back()
        for job_id in self.fed:
            self.lanes.kill(job_id, End.CANCELLED, "the test is over")
        deadline = time.monotonic() + 60
        while self.lanes.busy or self.lanes.room() < 4:
            assert time.monotonic() < deadline
            self.lanes.poll()
            time.sleep(0.01)

    def feed(
        self, job_id: str, *, limit_s: float = 60, memory: int = MEMORY_BYTES, **given: HyperparameterValue
    ) -> None:
        self.fed.append(job_id)
        request = TrainingRequest(job_id, "job", "troublesome", "iris", model_name="m", hyperparameters=given)
        payload = {
            "id": job_id,
            "request": request,
            "dataset": {"name": "iris", "fingerprint": "f", "path": None, "target_column": "species"},
            "spool": str(self.spool / job_id),
            "max_memory_bytes": memory,
        }
        self.lanes.feed(Spec(job_id, orjson.dumps(payload), limit_s, memory))

    def until(self, seen: Callable[[LaneEvent], bool], within_s: float = 60) -> LaneEvent:
        """The first event that fits, of those so far or to come."""
        deadline = time.monotonic() + within_s
        looked = 0
        while time.monotonic() < deadline:
            for event in self.events[looked:]:
                if seen(event):
                    return event
            looked = len(self.events)
            select.select(list(self.lanes.descriptors()), [], [], 0.05)
            self.events.extend(self.lanes.poll())
        raise AssertionError(f"did not happen within {within_s} s; what did: {self.events}")

    def ended(self, job_id: str, within_s: float = 60) -> LaneEvent:
        return self.until(lambda e: isinstance(e, (Done, Killed)) and e.job_id == job_id, within_s)

    def trains(self, job_id: str, *, mode: str = "none", path: str = "") -> None:
        """Feed a job, again if it comes back because its trainer was replaced, and see that it is trained."""
        event: LaneEvent = Returned(job_id)
        while isinstance(event, Returned):
            self.events = [e for e in self.events if e.job_id != job_id]
            self.feed(job_id, mode=mode, path=path)
            event = self.until(lambda e: isinstance(e, (Done, Killed, Returned)) and e.job_id == job_id)
        assert isinstance(event, Done)
        assert event.how == "trained"

    def number_in(self, path: Path) -> int:
        """What the trouble writes into this file, which fit has begun with a line."""
        deadline = time.monotonic() + 60
        while not (path.exists() and path.read_text().isdigit()):
            assert time.monotonic() < deadline
            self.events.extend(self.lanes.poll())
            time.sleep(0.02)
        return int(path.read_text())

    def taken(self, job_id: str) -> None:
        self.until(lambda e: isinstance(e, Taken) and e.job_id == job_id)


@pytest.fixture(scope="module")
def lanes() -> Iterator[Lanes]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join((str(PLUGINS), os.environ.get("PYTHONPATH", ""))))
        lanes = Lanes(2)
        lanes.start()
    yield lanes
    lanes.stop()


@pytest.fixture
def bench(lanes: Lanes, tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(lanes, tmp_path)
    yield bench
    bench.clear()


def test_a_training_reports_its_stages_and_leaves_a_result(bench: Bench) -> None:
    bench.feed("a", mode="warn")
    event = bench.ended("a")
    assert isinstance(event, Done)
    assert event.how == "trained"
    assert [*event.stages] == ["LOADING", "TRAINING", "EVALUATING"]
    assert all(0 < seconds < 60 for seconds in event.stages.values())
    result = orjson.loads(event.result)
    assert Path(result["model_file"]).stat().st_size == result["size_bytes"]
    assert BuiltinSource().list()


def test_of_reports_of_progress_only_the_last_is_told_if_nothing_has_followed_it() -> None:
    feed, reading_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    outbox, trainer = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    outbox.setblocking(False)
    lane = lanes_module._Lane(0, "", "", feed, reading_end, outbox, Output(), running=Spec("a", b"", 60.0, 2**40))

    def told(*messages: dict[str, Any]) -> list[LaneEvent]:
        for message in messages:
            trainer.send(orjson.dumps(message))
        events: list[LaneEvent] = []
        Lanes(1)._listen(lane, events)
        return events

    def at(stage: str, fraction: float | None = None) -> dict[str, Any]:
        usage = {"cpu_s": 0.1, "rss_bytes": 1}
        return {"progress": "a", "stage": stage, "fraction": fraction, "message": "", **usage}

    warning = {"log": "a", "level": "warning", "message": "hot"}
    events = told({"taken": "a"}, at("LOADING"), at("TRAINING"), warning, at("EVALUATING", 0.1), at("EVALUATING", 0.5))
    assert events == [
        Taken("a"),
        Reported("a", "TRAINING", None, "", 0.1, 1),
        Logged("a", "warning", "hot"),
        Reported("a", "EVALUATING", 0.5, "", 0.1, 1),
    ]
    assert told(at("EVALUATING", 0.9), {"trained": "a", "last": False}) == [Done("a", "trained")]
    lane.close()
    trainer.close()


def test_a_result_that_no_datagram_holds_is_a_file(bench: Bench) -> None:
    path = "/" * RESULT_LIMIT_BYTES + "dev/null"  # a path like any other, and long
    bench.feed("wide", mode="none", path=path)
    event = bench.ended("wide")
    assert isinstance(event, Done)
    assert (event.how, event.result) == ("trained", b"")
    result = orjson.loads((bench.spool / "wide" / RESULT).read_bytes())
    assert result["hyperparameters"]["path"] == path


def test_an_exception_is_reported_and_the_trainer_goes_on(bench: Bench) -> None:
    bench.feed("bad", mode="raise")
    event = bench.ended("bad")
    assert isinstance(event, Done)
    assert (event.how, event.kind) == ("failed", "TRAINING_ERROR")
    assert "the data is cursed" in event.message
    bench.feed("good")
    assert bench.ended("good").how == "trained"  # type: ignore[union-attr]


def test_a_fit_that_hangs_in_c_is_ended_at_its_time_limit(bench: Bench) -> None:
    bench.feed("hang", limit_s=1, mode="hang", seconds=60)
    bench.taken("hang")
    event = bench.ended("hang")
    assert isinstance(event, Killed)
    assert event.end is End.TIMED_OUT
    assert "time limit of 1 s" in event.message


@pytest.mark.parametrize("mode", ["swell", "swell_outside"])
def test_a_training_that_swells_is_ended_at_its_memory_limit(bench: Bench, mode: str) -> None:
    bench.feed("swell", memory=600 * 2**20, mode=mode)
    event = bench.ended("swell")
    assert "memory limit" in event.message or "its limit of 600 MiB" in event.message  # type: ignore[union-attr]
    if isinstance(event, Killed):
        assert event.end is End.OUT_OF_MEMORY
    else:
        assert event.kind == "OUT_OF_MEMORY"  # type: ignore[union-attr]
    bench.feed("after")
    assert bench.ended("after").how == "trained"  # type: ignore[union-attr]


@pytest.mark.parametrize(("mode", "how"), [("segfault", "signal 11"), ("exit", "exit code 3")])
def test_a_trainer_that_dies_is_told_and_replaced(bench: Bench, mode: str, how: str) -> None:
    bench.feed("dies", mode=mode)
    event = bench.ended("dies")
    assert isinstance(event, Killed)
    assert event.end is End.CRASHED
    assert how in event.message
    bench.feed("x")
    bench.feed("y")
    assert {bench.ended("x").how, bench.ended("y").how} == {"trained"}  # type: ignore[union-attr]


def test_a_kill_takes_the_whole_group(bench: Bench, tmp_path: Path) -> None:
    path = tmp_path / "pid"
    bench.feed("parent", mode="grandchild", path=str(path), seconds=60)
    grandchild = bench.number_in(path)
    assert bench.lanes.kill("parent", End.CANCELLED, "cancelled")
    assert isinstance(bench.ended("parent"), Killed)
    _await_gone(grandchild)


def test_a_daemon_that_left_the_group_is_killed_with_its_training(bench: Bench, tmp_path: Path) -> None:
    path = tmp_path / "pid"
    bench.feed("parent", mode="daemon", path=str(path), seconds=60)
    daemon = bench.number_in(path)
    assert os.getsid(daemon) != daemon
    assert bench.lanes.kill("parent", End.CANCELLED, "cancelled")
    assert isinstance(bench.ended("parent"), Killed)
    _await_gone(daemon)


def test_what_a_training_leaves_running_ends_with_it_and_the_next_one_is_trained(bench: Bench, tmp_path: Path) -> None:
    path = tmp_path / "pid"
    bench.trains("leaves", mode="leave_running", path=str(path))
    _await_gone(int(path.read_text()))
    bench.trains("next")


def test_files_that_trainings_leave_open_are_closed_and_those_they_forget_are_in_the_spool(
    bench: Bench, tmp_path: Path
) -> None:
    for number in range(3):
        path = tmp_path / f"told-{number}"
        bench.trains(f"leak-{number}", mode="leak", path=str(path))
        folder, leaked = path.read_text().split("\n")
        assert Path(folder) == bench.spool / f"leak-{number}"
        assert leaked == "100", "the trainer was not replaced"


def test_a_training_that_writes_without_end_is_slowed_down_and_its_first_lines_are_logged(bench: Bench) -> None:
    bench.feed("chatter", limit_s=3, mode="chatter", seconds=60)
    bench.taken("chatter")
    begun = time.thread_time()
    event = bench.ended("chatter")
    assert isinstance(event, Killed)
    assert event.end is End.TIMED_OUT
    assert time.thread_time() - begun < 1, "reading it keeps us busy"
    said = [e.message for e in bench.events if isinstance(e, Logged) and e.job_id == "chatter"]
    assert said[0] in ("y" * 999, "z" * 999)
    assert "what else it writes is not logged" in said[-1]
    assert sum(map(len, said)) < 70_000


@pytest.mark.parametrize("mode", ["close_all", "babble"])
def test_a_training_that_spoils_what_the_trainer_speaks_through_has_crashed_at_once(bench: Bench, mode: str) -> None:
    bench.feed("spoils", mode=mode, seconds=60)
    bench.taken("spoils")
    event = bench.ended("spoils")
    assert isinstance(event, Killed)
    assert event.end is End.CRASHED
    bench.trains("after")


def test_the_memory_of_what_a_training_starts_is_its_own(bench: Bench) -> None:
    bench.feed("swell", memory=800 * 2**20, mode="swell_in_a_grandchild")
    event = bench.ended("swell")
    assert isinstance(event, Killed)
    assert event.end is End.OUT_OF_MEMORY
    assert "its limit of 800 MiB" in event.message


@pytest.mark.parametrize("mode", ["none", "fill_disk"])
def test_a_training_that_finds_the_disk_full_says_so(bench: Bench, tmp_path: Path, mode: str) -> None:
    """Whether it writes itself, or only its model is too large."""
    with small_disk(tmp_path / "disk", 2**23):
        bench.spool = tmp_path / "disk"
        if mode == "none":
            fill(tmp_path / "disk" / "ballast")
        bench.feed("full", mode=mode)
        event = bench.ended("full")
    assert isinstance(event, Done)
    assert (event.how, event.kind) == ("full", "")
    assert "No space left on device" in event.message


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="there is one CPU")
def test_a_training_in_more_threads_than_it_may_gets_no_more_cpus_and_the_next_one_all(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lanes_module, "CPU_SLACK", 0.05)  # on a busy machine it may get no more than that
    bench.feed("spin", mode="spin", seconds=6)
    said = bench.until(lambda e: isinstance(e, Logged) and "more threads than it may" in e.message)
    assert said.job_id == "spin"
    (pid,) = [lane.pid for lane in bench.lanes._lanes.values() if lane.running]
    assert pid is not None
    for thread in Path(f"/proc/{pid}/task").iterdir():
        assert len(os.sched_getaffinity(int(thread.name))) == 1
    assert bench.ended("spin").how == "trained"  # type: ignore[union-attr]
    _await_gone(pid)


def test_a_training_that_ignores_sigterm_ends_at_its_time_limit(bench: Bench) -> None:
    bench.feed("deaf", limit_s=0.5, mode="deaf", seconds=60)
    bench.taken("deaf")
    assert bench.ended("deaf").end is End.TIMED_OUT  # type: ignore[union-attr]


def test_what_waits_behind_a_dead_training_comes_back_blameless(bench: Bench) -> None:
    for job_id in ("a", "b"):
        bench.feed(job_id, mode="hang", seconds=60)
        bench.taken(job_id)
    bench.feed("c")
    bench.lanes.kill("a", End.CANCELLED, "cancelled")
    bench.lanes.kill("b", End.CANCELLED, "cancelled")
    bench.until(lambda e: e in (Returned("c"), Taken("c")))
    assert not any(isinstance(e, Killed) and e.job_id == "c" for e in bench.events)


def test_an_idle_lane_takes_over_what_waits_behind_a_long_training(bench: Bench) -> None:
    bench.feed("long", mode="hang", seconds=60)
    bench.feed("short", mode="sleep", seconds=1)
    bench.feed("behind")
    bench.taken("long")
    bench.taken("short")
    assert bench.ended("behind", within_s=20).how == "trained"  # type: ignore[union-attr]


def test_what_was_not_taken_can_be_had_back(bench: Bench) -> None:
    for job_id in ("a", "b"):
        bench.feed(job_id, mode="hang", seconds=60)
        bench.taken(job_id)
    bench.feed("c")
    bench.feed("d")
    assert bench.lanes.room() == 0
    assert bench.lanes.take_back("c") == ["c"]
    assert bench.lanes.take_back() == ["d"]
    assert bench.lanes.take_back("a") == []


def test_warnings_of_libraries_reach_the_worker(bench: Bench) -> None:
    bench.feed("w", mode="warn")
    ended = bench.ended("w")
    assert isinstance(ended, Done)
    result = orjson.loads(ended.result)
    assert "the data is strange" in result["warnings"]


def test_no_trainer_outlives_its_forkserver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join((str(PLUGINS), os.environ.get("PYTHONPATH", ""))))
    bench = Bench(Lanes(2), tmp_path)
    bench.lanes.start()
    bench.feed("hang", mode="hang", seconds=60)
    bench.taken("hang")
    bench.feed("beside", mode="hang", seconds=60)
    bench.taken("beside")
    pids = [lane.pid for lane in bench.lanes._lanes.values()]
    server = bench.lanes._servers._running[""].process
    server.kill()
    server.wait()
    for pid in pids:
        assert pid is not None
        _await_gone(pid)


def test_a_forkserver_that_does_not_end_by_itself_is_killed_with_its_trainers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join((str(PLUGINS), os.environ.get("PYTHONPATH", ""))))
    monkeypatch.setattr("consumer.trainers.servers.ENDING_S", 0.2)
    bench = Bench(Lanes(1), tmp_path)
    bench.lanes.start()
    bench.trains("ready", mode="sleep")
    (lane,) = bench.lanes._lanes.values()
    assert lane.pid is not None
    bench.lanes._servers._running[""].process.send_signal(signal.SIGSTOP)
    bench.lanes.stop()
    _await_gone(lane.pid)


def _await_gone(pid: int, within_s: float = 30) -> None:
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        try:
            if Path(f"/proc/{pid}/stat").read_text().split(") ")[1][0] in "ZX":
                return
        except (FileNotFoundError, ProcessLookupError):  # before it was opened, or read
            return
        time.sleep(0.02)
    raise AssertionError(f"process {pid} is still there")
