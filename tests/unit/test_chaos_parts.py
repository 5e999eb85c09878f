"""What chaos is made of does what its names say: the proxy, the clock, the plan, the account of recoveries."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.chaos import clock
from tests.chaos.journal import Entry, recovery
from tests.chaos.workload import plan
from tests.end_to_end.evidence import Seen
from tests.services.proxy import WELL, Network, Proxy
from tests.services.server import free_ports


@pytest.fixture
def echo() -> Iterator[int]:
    """A server that sends back what it gets."""
    server = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with suppress(OSError):
            while True:
                connection, _ = server.accept()
                threading.Thread(target=answer, args=(connection,), daemon=True).start()

    def answer(connection: socket.socket) -> None:
        with suppress(OSError), connection:
            while data := connection.recv(1000):
                connection.sendall(data)

    threading.Thread(target=serve, daemon=True).start()
    yield server.getsockname()[1]
    server.close()


@pytest.fixture
def proxy(echo: int) -> Iterator[Proxy]:
    proxy = Proxy(free_ports(1)[0], echo)
    yield proxy
    proxy.close()


def ask(connection: socket.socket, what: bytes = b"hello") -> bytes:
    connection.sendall(what)
    return connection.recv(1000)


def is_reset(connection: socket.socket) -> bool:
    """A first write may still go through."""
    try:
        return not ask(connection) and not ask(connection)
    except ConnectionError:
        return True


def connect(proxy: Proxy) -> socket.socket:
    return socket.create_connection(("127.0.0.1", proxy.port), timeout=5)


def test_a_proxy_passes_on_what_is_said(proxy: Proxy) -> None:
    with connect(proxy) as connection:
        assert ask(connection) == b"hello"


def test_a_proxy_resets_the_connections_that_there_are_and_those_that_come(proxy: Proxy) -> None:
    with connect(proxy) as connection:
        assert ask(connection) == b"hello"
        proxy.become(Network(refuses=True))
        assert is_reset(connection)
    with suppress(ConnectionResetError), connect(proxy) as connection:  # which may be reset while it still connects
        assert is_reset(connection)
    proxy.become(WELL)
    with connect(proxy) as connection:
        assert ask(connection) == b"hello"


def test_a_silent_proxy_keeps_connections_and_answers_once_it_is_well(proxy: Proxy) -> None:
    with connect(proxy) as connection:
        assert ask(connection) == b"hello"
        proxy.become(Network(silent=True))
        connection.settimeout(0.3)
        with pytest.raises(TimeoutError):
            ask(connection)
        proxy.become(WELL)
        connection.settimeout(5)
        assert connection.recv(1000) == b"hello"


def test_a_proxy_cuts_an_answer_after_the_request_was_done(proxy: Proxy) -> None:
    with connect(proxy) as connection:
        assert ask(connection) == b"hello"
        proxy.become(Network(cut_after=2))
        assert ask(connection) == b"he"
        assert is_reset(connection)


def test_a_slow_proxy_takes_its_time(proxy: Proxy) -> None:
    proxy.become(Network(latency_s=0.2))
    with connect(proxy) as connection:
        begun = time.monotonic()
        assert ask(connection) == b"hello"
        assert time.monotonic() - begun >= 0.4


def test_the_wall_clock_of_one_process_is_set_while_it_runs(tmp_path: Path) -> None:
    library = clock.build(tmp_path)
    if library is None:
        pytest.skip("there is no C compiler")
    moved = clock.Clock(tmp_path, "w", library)
    code = (
        "import sys, time, threading\n"
        "while sys.stdin.readline():\n"
        "    begun = time.monotonic()\n"
        "    threading.Event().wait(0.1)\n"
        "    print(time.time(), time.monotonic() - begun, flush=True)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **moved.environment},
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for ahead_s in (0, 7_200, -86_400):
            moved.set(ahead_s)
            process.stdin.write("go\n")
            process.stdin.flush()
            now, waited_s = (float(word) for word in process.stdout.readline().split())
            assert abs(now - time.time() - ahead_s) < 5
            assert waited_s < 5


def test_the_same_seed_plans_the_same() -> None:
    first, second, other = (plan(seed, 300, 60.0) for seed in (1, 1, 2))
    assert first == second
    assert first != other


def test_a_plan_has_everything_that_is_to_be_borne() -> None:
    made = plan(3, 5000, 500.0)
    assert len(made.expected) == 5000
    assert all(count > 0 for count in made.injected.values())
    assert len(made.injected) == 13
    assert [step.at_s for step in made.steps] == sorted(step.at_s for step in made.steps)


def progress(state: str, at_ms: int, worker: str, request_id: str = "r") -> Seen:
    content: dict[str, Any] = {"request_id": request_id, "state": state, "worker_id": worker}
    return Seen(0, at_ms, at_ms, b"", {}, content)


def test_recovery_is_from_the_kill_to_the_next_start() -> None:
    events = [
        progress("STARTED", 1_000, "w0"),
        progress("STARTED", 9_000, "w1"),
        progress("REGISTERED", 9_500, "w1"),
        progress("ACCEPTED", 1_500, "w0", "waiting"),
        progress("STARTED", 6_000, "w1", "waiting"),
        progress("STARTED", 1_000, "w0", "done"),
        progress("REGISTERED", 3_000, "w0", "done"),
        progress("STARTED", 1_000, "w1", "elsewhere"),
        progress("STARTED", 9_000, "w1", "elsewhere"),
    ]
    found = recovery([Entry(4_000, "worker: kill -9", "w0")], events)
    assert (found.running_s, found.waiting_s, found.lost_s) == ([5.0], [2.0], [3.0])
    assert (found.kills, found.repeated, found.repeated_s) == (1, 2, 3.0 + 8.0)


@pytest.mark.parametrize(("from_ms", "undisturbed"), [(2_000, []), (5_000, []), (9_500, [5.0]), (-9_000, [5.0])])
def test_recovery_is_undisturbed_where_what_it_needs_was_well(from_ms: int, undisturbed: list[float]) -> None:
    entries = [
        Entry(from_ms, "mongodb: stopped", "mongodb"),
        Entry(from_ms + 100, "mongodb: stopped", "mongodb", healed=True),
        Entry(4_000, "worker: kill -9", "w0"),
    ]
    found = recovery(entries, [progress("STARTED", 1_000, "w0"), progress("STARTED", 9_000, "w1")])
    assert (found.running_s, found.undisturbed_s) == ([5.0], undisturbed)


def test_a_training_that_was_killed_with_its_worker_is_not_killed_again_with_the_next_life() -> None:
    kills = [Entry(at_ms, "worker: kill -9", "w0") for at_ms in (4_000, 6_000)]
    found = recovery(kills, [progress("STARTED", 1_000, "w0"), progress("STARTED", 9_000, "w1")])
    assert (found.running_s, found.lost_s) == ([5.0], [3.0])


def test_nothing_is_repeated_where_nothing_was_killed() -> None:
    found = recovery([], [progress("STARTED", 1, "w0"), progress("REGISTERED", 2, "w0")])
    assert (found.repeated, found.repeated_s, found.running_s) == (0, 0.0, [])
