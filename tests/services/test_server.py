"""A server process is started, probed, stopped, killed and paused, and never outlives its owner."""

import http.client
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.services.server import Server, UnavailableError, accepts, data_directory, free_ports

# Starts a server in a thread that ends, says where, and waits.
OWNER = """
import sys, threading
from tests.services.test_server import web_server
from tests.services.server import data_directory
server = web_server(data_directory("web"))
thread = threading.Thread(target=server.launch)
thread.start()
thread.join()
print(server.pid, server.directory, flush=True)
sys.stdin.read()
"""


def web_server(directory: Path, *, detached: bool = False) -> Server:
    """A stand-in that starts in no time and lists its folder."""
    (port,) = free_ports(1)
    command = [sys.executable, "-u", "-m", "http.server", str(port), "--bind", "127.0.0.1"]
    return Server("a web server", command, directory, lambda: accepts(port), detached=detached)


@pytest.fixture(params=[False, True], ids=["owned", "detached"])
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    server = web_server(data_directory("web"), detached=request.param).launch()
    yield server
    server.close()


def test_a_started_server_answers(server: Server) -> None:
    """`launch` returns when the probe says so."""
    assert server.running
    assert _status(server) == 200


def test_a_stopped_server_is_gone_and_comes_back_on_its_port_and_data(server: Server) -> None:
    """Stopped by an operator or killed, it has the same address and directory."""
    (server.directory / "kept").touch()
    for end in (server.stop, server.kill):
        first = server.pid
        end()
        assert not server.running
        assert not _exists(first)
        server.restart()
        assert _status(server, "/kept") == 200


def test_a_paused_server_accepts_connections_and_answers_when_resumed(server: Server) -> None:
    """SIGSTOP and SIGCONT."""
    server.pause()
    with pytest.raises(TimeoutError):
        _status(server)
    server.resume()
    assert _status(server) == 200


@pytest.mark.parametrize("end", [Server.kill, Server.stop, Server.pause])
def test_a_server_is_revived_from_whatever_was_done_to_it(server: Server, end: Callable[[Server], None]) -> None:
    """What keeps one test's chaos from the next."""
    end(server)
    server.revive()
    assert _status(server) == 200


def test_a_closed_server_leaves_no_data(server: Server) -> None:
    """And a paused one can be closed too."""
    server.pause()
    server.close()
    assert not server.running
    assert not server.directory.exists()


@pytest.mark.parametrize("detached", [False, True])
def test_a_server_that_ends_at_once_is_unavailable_and_its_last_line_says_why(detached: bool) -> None:
    """And leaves nothing behind."""
    directory = data_directory("failing")
    command = [sys.executable, "-c", "raise SystemExit('no space left')"]
    with pytest.raises(UnavailableError, match="a failing server ended at once with code 1: no space left"):
        Server("a failing server", command, directory, lambda: False, detached=detached).launch()
    assert not directory.exists()


def test_a_server_that_never_answers_is_unavailable_and_gone() -> None:
    """After its time, not for ever."""
    server = Server("a deaf server", ["sleep", "60"], data_directory("deaf"), lambda: False, ready_within_s=0.1)
    with pytest.raises(UnavailableError, match="a deaf server did not answer within 0 s: it wrote nothing"):
        server.launch()
    assert not server.running


def test_a_program_that_is_not_there_is_unavailable() -> None:
    """Told in one line, not by a traceback."""
    with pytest.raises(UnavailableError, match="a missing server could not be started"):
        Server("a missing server", ["/no/such/program"], data_directory("missing"), lambda: True).launch()


def test_a_server_dies_with_its_owner() -> None:
    """kill -9 of the process that started it takes the server and its data; the end of the thread that did does not."""
    owner = subprocess.Popen([sys.executable, "-c", OWNER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with owner:
        assert owner.stdout is not None
        pid, directory = owner.stdout.readline().split()
        assert _exists(int(pid))
        owner.send_signal(signal.SIGKILL)
        owner.wait()
    _eventually(lambda: not _exists(int(pid)), "the server ends")
    _eventually(lambda: not Path(directory).exists(), "its directory goes")


def test_a_server_dies_with_its_supervisor(tmp_path: Path) -> None:
    """Even that one can be killed."""
    server = web_server(tmp_path).launch()
    supervisor = int(Path(f"/proc/{server.pid}/stat").read_text().rpartition(")")[2].split()[1])
    os.kill(supervisor, signal.SIGKILL)
    _eventually(lambda: not _exists(server.pid), "the server ends")
    assert not server.running


def test_a_port_is_given_once() -> None:
    """Also while nobody listens on it yet."""
    assert len(set(free_ports(50) + free_ports(50))) == 100


def _status(server: Server, path: str = "/") -> int:
    port = int(server.command[server.command.index("http.server") + 1])
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=0.5)
    try:
        connection.request("GET", path)
        return connection.getresponse().status
    finally:
        connection.close()


def _exists(pid: int) -> bool:
    """Whether this process runs; one that is dead and not yet reaped does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def _eventually(condition: Callable[[], bool], what: str, within_s: float = 60.0) -> None:
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, f"{what}: not within {within_s} s"
        time.sleep(0.01)
