"""A thread that stands still is seen: in its own process, and from the one beside it when nobody here can look."""

from __future__ import annotations

import fcntl
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from consumer.system import processes
from consumer.threads import stacks
from consumer.threads.stamps import PAUSE_S, SLOTS, Stamps
from consumer.threads.watch import AGAIN_S, Watch
from consumer.threads.watch_process import WatchProcess

ROOT = Path(__file__).parents[2]


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Seconds:
    """A watch that nobody started, and the seconds in which it looks."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.watch = Watch("worker-1", clock=self.clock)
        self.watch.look()

    def pass_by(self, seconds: int) -> None:
        for _ in range(seconds):
            self.clock.now += 1
            self.watch.look()

    def stop(self, seconds: float) -> None:
        """Nobody looks meanwhile."""
        self.clock.now += seconds


def test_a_thread_beyond_its_limit_is_stuck_and_one_that_begins_again_in_time_is_not() -> None:
    seconds = Seconds()
    worker, intake = seconds.watch.turn("worker", 30), seconds.watch.turn("intake", 60)
    worker.begin()
    intake.begin()
    seconds.pass_by(30)
    assert seconds.watch.stuck() == {}
    seconds.pass_by(1)
    assert seconds.watch.stuck() == {"worker": 31}
    worker.begin()
    intake.begin()
    seconds.pass_by(30)
    assert seconds.watch.stuck() == {}
    assert seconds.watch.busy_s() == {"interpreter": 0, "worker": 30, "intake": 30}
    assert seconds.watch.limits_s() == {"interpreter": 30, "worker": 30, "intake": 60}


def test_a_thread_that_waits_for_an_order_is_never_stuck() -> None:
    seconds = Seconds()
    turn = seconds.watch.turn("claims", 60)
    seconds.pass_by(100)
    assert seconds.watch.busy_s()["claims"] == 0
    turn.begin()
    turn.rest()
    seconds.pass_by(100)
    assert seconds.watch.busy_s()["claims"] == 0
    assert seconds.watch.stuck() == {}


def test_a_watch_that_nobody_started_tells_who_is_stuck_when_it_is_asked() -> None:
    clock = Clock()
    watch = Watch(clock=clock)
    watch.turn("claims", 60).begin()
    clock.now = 61
    assert watch.stuck() == {"claims": 61}
    watch.stop()


def test_the_same_name_again_replaces_what_was_there() -> None:
    seconds = Seconds()
    seconds.watch.turn("claims", 60).begin()
    seconds.watch.turn("claims", 10)
    seconds.pass_by(61)
    assert seconds.watch.stuck() == {}
    assert seconds.watch.limits_s()["claims"] == 10


def test_more_threads_than_there_is_room_for_are_refused() -> None:
    watch = Watch()
    for number in range(SLOTS):
        watch.turn(f"thread-{number}", 60)
    watch.turn("thread-0", 60)
    with pytest.raises(ValueError, match="no room to watch a thread called one-more"):
        watch.turn("one-more", 60)
    with pytest.raises(ValueError, match="no room"):
        Watch().turn("a name that does not fit in", 60)


def test_the_time_in_which_the_process_was_stopped_is_no_threads() -> None:
    seconds = Seconds()
    busy, waiting = seconds.watch.turn("busy", 60), seconds.watch.turn("waiting", 60)
    busy.begin()
    seconds.pass_by(50)
    seconds.stop(1_000)
    assert seconds.watch.stuck() == {}, "asked before the watch has looked again"
    waiting.begin()
    seconds.pass_by(9)
    assert seconds.watch.stuck() == {}
    seconds.stop(1_000)
    seconds.pass_by(1)
    assert seconds.watch.stuck() == {}
    seconds.pass_by(60)
    assert seconds.watch.stuck().keys() == {"busy", "waiting"}


def test_pauses_now_and_then_hide_no_thread_that_stands_still() -> None:
    """As of a library that keeps the interpreter for a few seconds, again and again."""
    seconds = Seconds()
    seconds.watch.turn("worker", 30).begin()
    for _ in range(5):
        seconds.stop(PAUSE_S + 1)
        seconds.pass_by(10)
    assert "worker" in seconds.watch.stuck()


@pytest.fixture
def standing() -> Iterator[tuple[Seconds, threading.Event]]:
    """A thread `loader` that has taken an order, and waits in the function `stand_here` for the event."""
    seconds, going_on, begun = Seconds(), threading.Event(), threading.Event()

    def stand_here() -> None:
        begun.set()
        going_on.wait()

    def load() -> None:
        turn = seconds.watch.turn("loader", 60)
        turn.begin()
        stand_here()
        turn.rest()

    thread = threading.Thread(target=load)
    thread.start()
    begun.wait()
    yield seconds, going_on
    going_on.set()
    thread.join()


def test_a_standstill_is_logged_once_with_where_the_thread_stands(standing: tuple[Seconds, threading.Event]) -> None:
    seconds, going_on = standing
    with capture_logs() as lines:
        seconds.pass_by(60)
        assert lines == []
        seconds.pass_by(30)
        (line,) = lines
        stack = line.pop("stacks")["loader"]
        assert line == {
            "event": "thread stands still", "log_level": "error", "thread": "loader", "seconds": 61.0, "limit_s": 60.0,
            "worker_id": "worker-1",
        }  # fmt: skip
        places = [place for place in stack if place.startswith("tests/unit/test_watch.py:")]
        assert [place.split()[1] for place in places] == ["stand_here", "load"]
        assert not [place for place in stack if place.startswith("/")]
        going_on.set()
        until(lambda: not seconds.watch.stuck())
        seconds.pass_by(30)
        assert lines[1:] == [
            {"event": "thread goes on again", "log_level": "warning", "thread": "loader", "worker_id": "worker-1"}
        ]


def test_the_second_standstill_of_a_thread_is_logged_too() -> None:
    seconds = Seconds()
    turn = seconds.watch.turn("worker", 30)
    with capture_logs() as lines:
        for _ in range(2):
            turn.begin()
            seconds.pass_by(40)
    assert [line["event"] for line in lines] == ["thread stands still", "thread goes on again", "thread stands still"]


def test_stacks_name_no_folder_of_the_machine() -> None:
    dump = f"""Thread 0x00000000000000ff (most recent call first):
  File "/usr/lib/python{sys.version_info.major}.{sys.version_info.minor}/threading.py", line 331 in wait
  File "/opt/venv/lib/python3.11/site-packages/pymongo/pool.py", line 12 in _read
  File "{ROOT}/consumer/jobs/claims.py", line 7 in <lambda>

Current thread 0x0000000000000100 (most recent call first):
  File "/home/somebody/plugin, line 3 in.py", line 3 in load
"""
    assert stacks.of_dump(dump, {255: "claims"}) == {
        "claims": ["threading.py:331 wait", "pymongo/pool.py:12 _read", "consumer/jobs/claims.py:7 <lambda>"],
        "0x100": ["plugin, line 3 in.py:3 load"],
    }


def test_a_thread_that_has_ended_has_no_stack() -> None:
    thread = threading.Thread(target=int)
    thread.start()
    thread.join()
    assert stacks.of_thread(thread.ident or 0) == []


class Worker:
    """`standstill.py` in a process of its own."""

    def __init__(self, how: str, log: Path, stderr: int | None = None) -> None:
        self._log = log
        with log.open("wb") as stream:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tests.unit.standstill", how],
                cwd=ROOT,
                env={**os.environ, "MONGODB_URI": "mongodb://:secret@nowhere"},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stream if stderr is None else stderr,
            )
        assert self.process.stdout is not None
        self.port = int(self.process.stdout.readline())
        until(lambda: self.watchers)
        (self.watcher,) = self.watchers

    @property
    def watchers(self) -> list[int]:
        return [child for child in processes.children(self.process.pid) if b"watch_process" in command(child)]

    def next_step(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(b".")
        self.process.stdin.flush()

    def ask(self, path: str, method: str = "GET") -> tuple[int, str]:
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", method=method)
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    def live(self) -> dict[str, Any]:
        return dict(json.loads(self.ask("/livez")[1]))

    def held_s(self) -> float:
        found = re.search(r'busy_seconds{thread="interpreter"} (\S+)', self.ask("/metrics")[1])
        return float(found[1]) if found else -1

    def lines(self, event: str) -> list[dict[str, Any]]:
        return [line for line in map(json.loads, self._log.read_text().splitlines()) if line["event"] == event]

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        self.process.stdout.close()
        if b"watch_process" in command(self.watcher):  # where a test has failed
            with suppress(ProcessLookupError):
                os.kill(self.watcher, signal.SIGKILL)


def command(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def until(condition: Callable[[], object], within_s: float = 60) -> None:
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Worker]]:
    started: list[Worker] = []

    def start(how: str, stderr: int | None = None) -> Worker:
        started.append(Worker(how, tmp_path / "log", stderr))
        return started[-1]

    yield start
    for worker in started:
        worker.kill()


def test_a_thread_that_holds_the_interpreter_is_seen_from_beside(start: Callable[..., Worker]) -> None:
    worker = start("walks_a_range")
    assert worker.ask("/livez") == (200, '{"status":"alive"}')
    worker.next_step()
    until(lambda: worker.lines("interpreter stands still"))
    status, body = worker.ask("/livez")
    assert status == 503
    assert json.loads(body)["status"] == "stuck"
    assert 1 < json.loads(body)["threads"]["interpreter"] < 60
    status, body = worker.ask("/health")
    assert status == 503
    assert json.loads(body).items() >= {"status": "unhealthy", "service": "ml-worker"}.items()
    assert worker.ask("/metrics")[0] == 200
    assert worker.held_s() > 1
    assert 'ml_worker_thread_limit_seconds{thread="loader"} 60.0\n' in worker.ask("/metrics")[1]
    assert worker.ask("/train")[0] == 404
    assert worker.ask("/livez", "DELETE")[0] == 404
    (line,) = worker.lines("interpreter stands still")
    assert list(line)[:4] == ["timestamp", "level", "logger", "event"]
    assert (line["level"], line["worker_id"]) == ("error", "worker-1")
    assert re.fullmatch(r"[\d-]{10}T[\d:]{8}\.\d{6}Z", line["timestamp"])
    assert re.fullmatch(r"tests/unit/standstill\.py:\d+ walks_a_range", line["stacks"]["loader"][0])
    assert "http" in line["stacks"]


def test_when_the_interpreter_goes_on_the_worker_answers_again(start: Callable[..., Worker]) -> None:
    worker = start("reads_and_lets_nobody_in")
    worker.next_step()
    until(lambda: worker.lines("interpreter stands still"))
    assert worker.live()["threads"].keys() >= {"interpreter"}
    worker.next_step()
    until(lambda: worker.live()["status"] == "alive")
    until(lambda: worker.lines("interpreter goes on again"))
    assert "models_trained_total" in worker.ask("/metrics")[1], "the worker's own answer"
    assert worker.live() == {"status": "alive"}


def test_a_worker_that_ends_normally_leaves_no_watcher_and_closes_its_port(start: Callable[..., Worker]) -> None:
    worker = start("reads_and_lets_nobody_in")
    for _ in range(3):
        worker.next_step()
    assert worker.process.wait(60) == 0
    until(lambda: not command(worker.watcher))
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", worker.port), timeout=5)


@pytest.mark.parametrize("held", [False, True])
def test_a_worker_that_is_killed_takes_the_watcher_with_it(start: Callable[..., Worker], held: bool) -> None:
    worker = start("walks_a_range")
    if held:
        worker.next_step()
        until(lambda: worker.lines("interpreter stands still"))
    worker.process.kill()
    worker.process.wait()
    until(lambda: not command(worker.watcher), within_s=5)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", worker.port), timeout=5)


@pytest.mark.parametrize("watcher_too", [False, True])
def test_a_worker_that_was_stopped_and_continued_raises_no_alarm(
    start: Callable[..., Worker], watcher_too: bool
) -> None:
    """Alone (SIGSTOP, a debugger), or with its watcher, which goes on first (a frozen container, a machine asleep)."""
    worker = start("reads_and_lets_nobody_in")
    stopped = [*([worker.watcher] if watcher_too else []), worker.process.pid]
    for pid in stopped:
        os.kill(pid, signal.SIGSTOP)
    time.sleep(PAUSE_S + 2)  # the case itself: the process is stopped for so long
    for pid in stopped:
        os.kill(pid, signal.SIGCONT)
    assert worker.live() == {"status": "alive"}
    looked = time.monotonic() + 3
    while time.monotonic() < looked:
        assert worker.live() == {"status": "alive"}
        assert worker.held_s() == 0
    assert worker.lines("interpreter stands still") == []
    assert worker.lines("thread stands still") == []


def test_the_port_is_answered_while_its_own_thread_stands_still(start: Callable[..., Worker]) -> None:
    worker = start("answers_when_told")
    asked = threading.Thread(target=worker.ask, args=("/health",))
    asked.start()
    until(lambda: worker.lines("thread stands still"))
    (line,) = worker.lines("thread stands still")
    assert line["thread"] == "http"
    assert any(place.endswith(" answers_when_told") for place in line["stacks"]["http"])
    assert worker.live()["threads"].keys() == {"http"}
    worker.next_step()
    asked.join()
    until(lambda: worker.live() == {"status": "alive"})
    assert worker.lines("interpreter stands still") == []


def test_a_client_that_sends_byte_by_byte_holds_up_the_others_no_longer_than_it_may(
    start: Callable[..., Worker],
) -> None:
    worker = start("walks_a_range")
    worker.next_step()
    until(lambda: worker.lines("interpreter stands still"))
    answered = threading.Event()

    def drip(client: socket.socket) -> None:
        with suppress(ConnectionError):
            while not answered.wait(0.2):
                client.sendall(b".")

    with socket.create_connection(("127.0.0.1", worker.port)) as client:
        slow = threading.Thread(target=drip, args=(client,))
        slow.start()
        try:
            assert worker.live()["status"] == "stuck"
        finally:
            answered.set()
            slow.join()


def test_logs_that_nobody_takes_do_not_hold_up_the_answers(start: Callable[..., Worker]) -> None:
    reading, writing = os.pipe()
    os.write(writing, b"." * fcntl.fcntl(writing, fcntl.F_GETPIPE_SZ))
    worker = start("walks_a_range", writing)
    os.close(writing)
    worker.next_step()
    until(lambda: processes.cpu_s(worker.process.pid) > PAUSE_S + 1)
    assert worker.live()["status"] == "stuck"
    os.close(reading)


def test_a_watcher_that_gets_no_thread_to_log_with_answers_all_the_same() -> None:
    stamps = Stamps()
    stamps.begin(-1.0)  # the interpreter counts as held from the first look on
    theirs, ours = os.pipe()
    begin = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listening:
        watcher = WatchProcess(os.getpid(), "worker-1", stamps, theirs, listening)

        def run() -> None:
            begin.wait()
            watcher.run()

        running = threading.Thread(target=run, daemon=True)
        running.start()
        usual = threading.stack_size(2**50)  # more than there is: starting a thread fails
        begin.set()
        try:
            with pytest.raises(urllib.error.HTTPError, match="503"):
                urllib.request.urlopen(f"http://127.0.0.1:{listening.getsockname()[1]}/livez", timeout=10)
        finally:
            threading.stack_size(usual)
            os.close(ours)
            running.join(10)
            os.close(theirs)


def test_the_watcher_knows_no_credential(start: Callable[..., Worker]) -> None:
    worker = start("walks_a_range")
    assert b"secret" in Path(f"/proc/{worker.process.pid}/environ").read_bytes()
    assert b"secret" not in Path(f"/proc/{worker.watcher}/environ").read_bytes()


def test_a_watcher_that_was_killed_is_started_again_but_not_in_a_hurry() -> None:
    def watchers() -> list[int]:
        return [child for child in processes.children(os.getpid()) if b"threads.watch_process" in command(child)]

    clock = Clock()
    watch = Watch(clock=clock)
    with socket.create_server(("127.0.0.1", 0)) as listening, capture_logs() as lines:
        watch.start(listening)
        try:
            until(watchers)
            (first,) = watchers()
            os.kill(first, signal.SIGKILL)
            until(lambda: not watchers())
            clock.now += AGAIN_S - 1
            time.sleep(1.5)  # a look at least
            assert not watchers()
            clock.now += 1
            until(watchers)
            assert watchers() != [first]
        finally:
            watch.stop()
    assert not watchers()
    assert [line["event"] for line in lines] == ["the watcher has ended, and is started again"]
