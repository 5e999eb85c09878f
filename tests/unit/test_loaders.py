"""Loaders: whatever a dataset does to what reads it ends with its figures, and ends nothing else."""

from __future__ import annotations

import errno
import io
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from typing import Any

import bson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from consumer.loaders.loaders import LoaderError, Loaders
from consumer.loaders.turns import Turns
from consumer.system.processes import children, keep_to
from pipeline.datasets import Content, Fetched, LoadAbandoned, reading
from pipeline.errors import RejectedError
from tests.disks import small_disk

ROOT = Path(__file__).parents[2]
TROUBLES = ROOT / "tests" / "plugins" / "loader_troubles"
CSV = b"height,tall\n1.5,no\n2.5,yes\n"
MEMORY = 256 * 2**20

Put = Callable[..., Fetched]
Start = Callable[..., Loaders]


@pytest.fixture(autouse=True)
def troubles(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PYTHONPATH", f"{TROUBLES}{os.pathsep}{ROOT}")
    monkeypatch.setenv("LOADER_TROUBLES_MARKER", str(tmp_path / "marker"))


@pytest.fixture
def start() -> Iterator[Start]:
    started = []

    def make(count: int = 2, max_time_s: float = 60.0, max_memory_bytes: int = MEMORY) -> Loaders:
        started.append(Loaders(count, max_time_s, max_memory_bytes))
        return started[-1]

    yield make
    for loaders in started:
        loaders.stop()


@pytest.fixture
def put(tmp_path: Path) -> Put:
    def make(name: str, content: bytes = CSV, file_name: str | None = "rows.csv") -> Fetched:
        path = tmp_path / f"{name}.fetched"
        path.write_bytes(content)
        return Fetched(name, path, file_name, None, "")

    return make


def _load(loaders: Loaders, fetched: Fetched, **more: Any) -> Content:
    return loaders.load(fetched, fetched.path.with_suffix(".arrow"), None, **more)


def _descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


def _sleepers() -> set[int]:
    found = set()
    for process in Path("/proc").iterdir():
        if process.name.isdecimal():
            with suppress(OSError):
                if (process / "cmdline").read_bytes() == b"/bin/sleep\x001000\x00" and _lives(int(process.name)):
                    found.add(int(process.name))
    return found


def _await(condition: Callable[[], bool], within_s: float = 30.0) -> None:
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_loader_reads_what_reading_here_reads(start: Start, put: Put, tmp_path: Path) -> None:
    fetched = put("people")
    content = _load(start(), fetched)
    assert content == reading.read(fetched, tmp_path / "here.arrow", None)
    assert (tmp_path / "people.arrow").read_bytes() == (tmp_path / "here.arrow").read_bytes()


def test_a_loader_does_without_pandas() -> None:
    first_array = "import pyarrow as pa; pa.array(['a']); print('pandas' in sys.modules)"
    code = f"import sys; from consumer.loaders.child import forgo_pandas; forgo_pandas(); {first_array}"
    assert subprocess.check_output([sys.executable, "-c", code]) == b"False\n"


def test_a_loader_lives_on_from_load_to_load(start: Start, put: Put) -> None:
    loaders, before = start(), set(children(os.getpid()))
    _load(loaders, put("people"))
    first = set(children(os.getpid())) - before
    with pytest.raises(RejectedError, match="dataset 'bad': the file is empty"):
        _load(loaders, put("bad", b""))
    _load(loaders, put("people"))
    assert set(children(os.getpid())) - before == first
    assert len(first) == 1


def test_a_loader_has_no_credentials_and_comes_after_all_else(
    start: Start, put: Put, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MONGODB_URL", "mongodb://ada:secret@here")
    before = set(children(os.getpid()))
    _load(start(), put("people"))
    (pid,) = set(children(os.getpid())) - before
    assert b"secret" not in Path(f"/proc/{pid}/environ").read_bytes()
    assert os.getpriority(os.PRIO_PROCESS, pid) == os.getpriority(os.PRIO_PROCESS, 0) + 10
    assert os.getsid(pid) == pid


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("segfault", r"dataset 'segfault': its file rows.csv \(27 bytes\) crashes the reader \(signal 11\)"),
        ("hang", r"its file rows.csv \(27 bytes\) takes more than 3 s \(DATASET_LOAD_TIME\) to be read"),
        ("grow", r"its file rows.csv \(27 bytes\) takes more than 256 MiB \(MAX_TRAINING_MEMORY\) to be read"),
        ("gulp", r"its file rows.csv \(27 bytes\) takes more than 256 MiB \(MAX_TRAINING_MEMORY\) to be read"),
        ("swell", r"its file rows.csv \(27 bytes\) takes more than 256 MiB \(MAX_TRAINING_MEMORY\) to be read"),
        ("killed", r"its file rows.csv \(27 bytes\) had its reader killed by the machine twice"),
        ("compute_for_ever", r"its file rows.csv \(27 bytes\) takes more than 3 s \(DATASET_LOAD_TIME\) to be read"),
        ("orphan_and_hang", r"takes more than 3 s \(DATASET_LOAD_TIME\)"),
    ],
)
def test_a_file_that_ends_its_loader_is_rejected_with_the_figure_and_the_next_one_is_read(
    start: Start, put: Put, name: str, says: str
) -> None:
    sleepers, before = _sleepers(), set(children(os.getpid()))
    loaders = start(max_time_s=3.0)
    with pytest.raises(RejectedError, match=says):
        _load(loaders, put(name))
    assert set(children(os.getpid())) == before
    assert _sleepers() <= sleepers
    assert _load(loaders, put("people")).rows == 2


@pytest.mark.parametrize("name", ["killed_once", "terminated_once"])
def test_a_loader_that_was_ended_from_outside_tries_again_alone(start: Start, put: Put, name: str) -> None:
    assert _load(start(), put(name)).rows == 2


def test_a_loader_that_ends_by_itself_is_no_fault_of_the_file(start: Start, put: Put) -> None:
    loaders, before = start(), set(children(os.getpid()))
    with pytest.raises(LoaderError, match=r"the loader of dataset 'leave' ended by itself \(exit code 3\)"):
        _load(loaders, put("leave"))
    assert set(children(os.getpid())) == before
    assert _load(loaders, put("people")).rows == 2


def test_a_busy_machine_makes_no_file_a_slow_one(start: Start, put: Put) -> None:
    loaders, before = start(max_time_s=1.5), set(children(os.getpid()))
    _load(loaders, put("people"))
    (pid,) = set(children(os.getpid())) - before
    keep_to(pid, {min(os.sched_getaffinity(0))})
    with ExitStack() as busy:
        for _ in range(3):  # each in a session of its own, as some kernels share a CPU out by sessions
            code = "from consumer.system import processes; processes.die_with_parent()\nwhile True: pass"
            others = busy.enter_context(subprocess.Popen([sys.executable, "-c", code], start_new_session=True))
            busy.callback(others.kill)
            keep_to(others.pid, {min(os.sched_getaffinity(0))})
        began = time.monotonic()
        assert _load(loaders, put("compute")).rows == 2
    assert time.monotonic() - began > 1.5, "it was not slowed down"


def _has_ended(pid: int) -> bool:
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def test_a_loader_that_was_killed_while_nobody_needed_it_is_replaced(
    start: Start, put: Put, caplog: pytest.LogCaptureFixture
) -> None:
    loaders, before = start(), set(children(os.getpid()))
    for number in (signal.SIGKILL, signal.SIGSEGV):
        _load(loaders, put("people"))
        (pid,) = set(children(os.getpid())) - before
        os.kill(pid, number)
        _await(partial(_has_ended, pid))
    assert _load(loaders, put("people")).rows == 2
    assert caplog.text == ""


def test_what_a_reader_leaves_running_ends_with_its_loader(start: Start, put: Put) -> None:
    sleepers = _sleepers()
    loaders = start()
    assert _load(loaders, put("orphan")).rows == 2
    assert _sleepers() <= sleepers


def test_what_a_library_writes_stops_nobody(start: Start, put: Put, caplog: pytest.LogCaptureFixture) -> None:
    assert _load(start(), put("chatter")).rows == 2
    assert 0 < caplog.text.count("a line") < 10_000
    assert "what else it writes is not logged" in caplog.text


def test_the_stack_of_a_crash_is_in_the_log(start: Start, put: Put, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(RejectedError):
        _load(start(), put("segfault"))
    assert "Fatal Python error: Segmentation fault" in caplog.text
    assert {record.__dict__.get("dataset") for record in caplog.records} == {"segfault"}


def test_a_load_that_nobody_waits_for_any_more_ends_within_a_second(start: Start, put: Put) -> None:
    loaders, abandoned, before = start(count=1), threading.Event(), set(children(os.getpid()))
    _load(loaders, put("people"))
    waiting = threading.Event()
    with ThreadPoolExecutor(2) as threads:
        loads = [threads.submit(_load, loaders, put("hang"), abandoned=abandoned)]
        loads.append(threads.submit(_load, loaders, put("waits"), abandoned=waiting))
        _await(lambda: loads[0].running() and loads[1].running())
        waiting.set()
        with pytest.raises(LoadAbandoned):
            loads[1].result(1.0)
        abandoned.set()
        with pytest.raises(LoadAbandoned):
            loads[0].result(1.0)
    assert set(children(os.getpid())) == before


def test_hanging_loads_hold_no_good_one_back(start: Start, put: Put) -> None:
    loaders, abandoned = start(count=4), threading.Event()
    hanging = [put("hang") for _ in range(3)]
    good = [put(f"good{n}") for n in range(20)]
    with ThreadPoolExecutor(16) as threads:
        bad_loads = [threads.submit(_load, loaders, one, abandoned=abandoned) for one in hanging]
        loads = [threads.submit(_load, loaders, one) for one in good]
        assert [load.result(30.0).rows for load in loads] == [2] * 20
        assert not any(load.done() for load in bad_loads)
        abandoned.set()


def test_descriptors_and_processes_stay_flat_however_loads_end(start: Start, put: Put) -> None:
    loaders = start(count=1, max_time_s=2.0)
    _load(loaders, put("people"))
    descriptors, before = _descriptors(), len(children(os.getpid()))
    for name in ("segfault", "hang", "killed", "orphan", "people") * 2:
        with suppress(RejectedError):
            _load(loaders, put(name))
    assert (_descriptors(), len(children(os.getpid()))) == (descriptors, before)


def test_stopping_ends_the_loads_that_run_and_those_that_wait(start: Start, put: Put) -> None:
    descriptors, before = _descriptors(), set(children(os.getpid()))
    loaders = start(count=1)
    with ThreadPoolExecutor(3) as threads:
        loads = [threads.submit(_load, loaders, put("hang")) for _ in range(3)]
        _await(lambda: set(children(os.getpid())) != before)
        loaders.stop()
        for load in loads:
            with pytest.raises(LoadAbandoned):
                load.result(5.0)
    with pytest.raises(LoadAbandoned):
        _load(loaders, put("people"))
    assert (_descriptors(), set(children(os.getpid()))) == (descriptors, before)


PARENT = """
import sys, threading
from pathlib import Path
from consumer.loaders.loaders import Loaders
from consumer.system.processes import children
from pipeline.datasets import Fetched

loaders = Loaders(2, 600, 2**28)
path = Path(sys.argv[1])
def load(name): loaders.load(Fetched(name, path, "x.csv", None, ""), path.with_name(name), None)
load("idle")
hanging = threading.Thread(target=load, args=("hang",), daemon=True)
idle = threading.Thread(target=load, args=("slow",), daemon=True)
hanging.start(); idle.start(); idle.join()
import os
print(*children(os.getpid()), flush=True)
hanging.join()
"""


def test_no_loader_outlives_a_parent_that_is_killed(put: Put) -> None:
    path = put("people").path
    with subprocess.Popen([sys.executable, "-c", PARENT, str(path)], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pids = [int(pid) for pid in parent.stdout.readline().split()]
        assert len(pids) == 2
        assert all(map(_lives, pids))
        parent.send_signal(signal.SIGKILL)
    _await(lambda: not any(map(_lives, pids)))


def test_a_full_disk_is_the_disks_trouble_and_not_the_datasets(start: Start, put: Put, tmp_path: Path) -> None:
    fetched = put("rows", b"a,b\n" + b"1,2\n" * 200_000)
    with small_disk(tmp_path / "disk", 2**20), pytest.raises(OSError, match="No space left") as full:
        start().load(fetched, tmp_path / "disk" / "rows.arrow", None)
    assert full.value.errno == errno.ENOSPC


def test_turns_are_taken_in_order_and_one_alone_waits_for_all_others() -> None:
    turns, order, go = Turns(2), list[str](), threading.Event()

    def take(name: str, places: int) -> None:
        with turns.take(places, lambda: None):
            order.append(name)
            go.wait(10)

    threads = []
    for name, places in (("first", 1), ("second", 1), ("alone", 2), ("last", 1)):
        threads.append(threading.Thread(target=take, args=(name, places)))
        threads[-1].start()
        _await(lambda: len(order) == min(2, len(threads)) and len(turns._queue) == len(threads) - len(order))
    go.set()
    for thread in threads:
        thread.join()
    assert order[2:] == ["alone", "last"]


# Bombs


def _parquet(table: pa.Table, **more: Any) -> bytes:
    file = io.BytesIO()
    pq.write_table(table, file, **more)
    return file.getvalue()


def _texts_of_ten_gigabytes() -> bytes:
    texts = pa.DictionaryArray.from_arrays(pa.array([0] * 10_000, pa.int32()), pa.array(["x" * 2**20]))
    return _parquet(pa.table({"x": texts}), compression="zstd")


def _numbers_of_a_gigabyte() -> bytes:
    file = io.BytesIO()
    schema = pa.schema({f"x{n}": pa.int64() for n in range(100)})
    rows = pa.nulls(1_000_000, pa.int64()).fill_null(7)
    with pq.ParquetWriter(file, schema, compression="zstd") as writer:
        writer.write_table(pa.table([rows] * 100, schema=schema))
    return file.getvalue()


def _deep(depth: int) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for _ in range(depth):
        found = {"x": found}
    return found


BOMBS = {
    "texts.parquet": (_texts_of_ten_gigabytes, "takes more than 256 MiB|has more bytes than the dataset cache"),
    "numbers.parquet": (_numbers_of_a_gigabyte, "takes more than 256 MiB|has more bytes than the dataset cache"),
    "deep.jsonl": (
        lambda: b'{"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        "line 1 is not valid JSON: depth limit exceeded",
    ),
    "deep.json": (lambda: b"[" * 100_000 + b"]" * 100_000, "the file is not valid JSON: depth limit exceeded"),
    "long.jsonl": (lambda: b'{"x":[' + b"0," * 100_000_000 + b"0]}", "takes more than 256 MiB|crashes the reader"),
    "wide.csv": (
        lambda: b",".join(b"c%d" % n for n in range(100_000)) + b"\n" + b"1," * 99_999 + b"1\n",
        "it has at least 100,000 columns; at most 20,000 are allowed",
    ),
    "wide.jsonl": (
        lambda: b"\n".join(b'{"c%d": 1}' % n for n in range(100_000)),
        "at most 20,000 are allowed|takes more than 256 MiB",
    ),
    "wide.parquet": (
        lambda: _parquet(pa.table({f"c{n}": [1] for n in range(20_001)})),
        "it has at least 20,001 columns; at most 20,000 are allowed",
    ),
    "none.parquet": (lambda: _parquet(pa.table({"a": [1, 2]}).select([])), "it has no columns"),
    "short.parquet": (lambda: _parquet(pa.table({"a": [1] * 1_000}))[:-100], "the Parquet file cannot be read"),
}


@pytest.mark.parametrize("file_name", BOMBS)
def test_a_bomb_ends_with_its_figures_and_the_next_file_is_read(start: Start, put: Put, file_name: str) -> None:
    make, says = BOMBS[file_name]
    loaders = start(max_time_s=30.0)
    fetched = put("bomb", make(), file_name)
    with pytest.raises(RejectedError, match=f"^dataset 'bomb': .*({says})") as rejected:
        loaders.load(fetched, fetched.path.with_suffix(".arrow"), 2**30)
    assert str(fetched.path.parent) not in str(rejected.value)
    assert _load(loaders, put("people")).rows == 2


def test_twenty_thousand_columns_are_read(start: Start, put: Put) -> None:
    content = b",".join(b"c%d" % n for n in range(20_000)) + b"\n" + b"1," * 19_999 + b"1\n"
    assert _load(start(max_memory_bytes=2**30), put("wide", content)).columns == 20_000


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (bson.encode({"x": 1}) + bson.encode({"x": 2})[:-3], "document 2 cannot be read"),
        (bson.encode({"x": 1}) + b"\xff\xff\xff\x7f\x10x\x00", "document 2 cannot be read"),
        (b"\x05\x00\x00\x00\x00" * 3 + b"\x04\x00\x00\x00\x00", "document 4 cannot be read"),
        (bson.encode(_deep(99)), "column 'x' holds values of type dict"),
        (
            bson.encode({"x": "abc"}).replace(b"abc", b"\xff\xfe\xfd"),
            "column 'x' holds text, or has a name, that is not UTF-8",
        ),
        (b"", "it has no rows"),
    ],
)
def test_documents_that_are_none_are_rejected_by_their_number(
    start: Start, put: Put, content: bytes, says: str
) -> None:
    with pytest.raises(RejectedError, match=f"^dataset 'rows': .*{says}"):
        _load(start(), put("rows", content, None))


@pytest.mark.parametrize("kind", ["parquet", "documents", "jsonl", "csv"])
def test_a_damaged_file_is_read_or_rejected_in_words(start: Start, put: Put, kind: str) -> None:
    rows = [{"a": n, "b": n / 3, "c": f"text {n}", "d": n % 2 == 0} for n in range(50)]
    whole = {
        "parquet": lambda: _parquet(pa.Table.from_pylist(rows)),
        "documents": lambda: b"".join(map(bson.encode, rows)),
        "jsonl": lambda: b"\n".join(json.dumps(row).encode() for row in rows),
        "csv": lambda: b"a,b\n" + b"".join(b"%d,x\n" % n for n in range(50)),
    }[kind]()
    loaders, chance, said = start(max_time_s=20.0), random.Random(7), ""
    for _ in range(60):
        damaged = bytearray(whole)
        for _ in range(chance.randint(1, 4)):
            damaged[chance.randrange(len(damaged))] = chance.randrange(256)
        if chance.random() < 0.2:
            del damaged[chance.randrange(len(damaged)) :]
        try:
            _load(loaders, put("damaged", bytes(damaged), None if kind == "documents" else f"x.{kind}"))
        except RejectedError as error:
            said += f"{error}\n"
    assert said.count("\n") > 5
    assert "Error" not in said
    assert "/tmp" not in said
