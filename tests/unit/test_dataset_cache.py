"""The dataset cache: what it reads, what it keeps, and how workers share it."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import numpy as np
import orjson
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.datasets import Abandoned, Content, Dataset, Fetched, LoadAbandoned, builtin, reading
from pipeline.datasets import cache as module
from pipeline.datasets.cache import DatasetCache
from pipeline.datasets.directory import DirectorySource
from pipeline.datasets.sink import Sink
from pipeline.errors import RejectedError, TransientError
from pipeline.reading.notes import NOTES, Note
from pipeline.reading.tables import canonical, fingerprint
from pipeline.reading.typed import notes_of

ROWS = 1_000
ROWS_BYTES = 17_000  # of the file of a table below, at most


class CountingSource(DirectorySource):
    """Counts what it is asked; `blind` makes it a source whose revisions only reading tells."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.loads: list[str] = []
        self.revisions = 0
        self.blind = False
        self.fail: Exception | None = None
        self.fetch_fails: Exception | None = None

    def revision(self, name: str, *, at_once: bool = False) -> str | None:
        self.revisions += 1
        if self.fail is not None:
            raise self.fail
        found = super().revision(name, at_once=at_once)
        return None if self.blind else found

    def fetch(self, name: str, sink: Sink) -> Fetched:
        self.loads.append(name)
        if self.fetch_fails is not None:
            raise self.fetch_fails
        return super().fetch(name, sink)


@pytest.fixture
def source(tmp_path: Path) -> CountingSource:
    made = CountingSource(tmp_path / "source")
    for seed, name in enumerate("abcd"):
        made.add(name, _table(seed), "y")
    return made


@pytest.fixture
def clock() -> Iterator[float]:
    return iter(float(second) for second in range(1_000_000))


@pytest.fixture
def cache(tmp_path: Path, source: CountingSource, clock: Iterator[float]) -> DatasetCache:
    """Has room for three of the tables."""
    return DatasetCache(tmp_path / "cache", 3 * ROWS_BYTES, source, wall_clock=clock.__next__)


@pytest.fixture
def another(tmp_path: Path, source: CountingSource, clock: Iterator[float]) -> Callable[[], DatasetCache]:
    """Another worker's cache in the same directory, or the same worker's after a restart."""
    return lambda: DatasetCache(tmp_path / "cache", 3 * ROWS_BYTES, source, wall_clock=clock.__next__)


def _table(seed: int, rows: int = ROWS) -> pa.Table:
    return pa.table({"x": pa.array(np.random.default_rng(seed).random(rows)), "y": pa.array(range(rows))})


def _opened(dataset: Dataset) -> pa.Table:
    assert dataset.path is not None
    with pa.memory_map(str(dataset.path)) as file:
        return pa.ipc.open_file(file).read_all()


def _used(cache: DatasetCache, name: str) -> Dataset:
    dataset = cache.ensure(name)
    cache.release(dataset)
    return dataset


def _open_files() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def _stored(tmp_path: Path) -> set[str]:
    return {path.stem for path in (tmp_path / "cache" / "content").iterdir()}


def test_a_dataset_is_a_memory_mapped_file_of_its_rows_named_by_its_fingerprint(cache: DatasetCache) -> None:
    dataset = cache.ensure("a")
    assert dataset.path is not None
    assert dataset.path.stem == dataset.fingerprint == fingerprint(canonical(_table(0)))
    assert dataset.target_column == "y"
    before = pa.total_allocated_bytes()
    assert _opened(dataset).equals(_table(0))
    assert pa.total_allocated_bytes() - before < ROWS_BYTES / 2


def test_a_dataset_that_names_no_target_has_its_last_column(cache: DatasetCache, source: CountingSource) -> None:
    """So that a request which names that column, and one which names none, are the same training."""
    source.add("e", _table(5), None)
    assert cache.ensure("e").target_column == "y"


def test_a_built_in_passes_through_without_a_question_to_the_source(
    cache: DatasetCache, source: CountingSource
) -> None:
    dataset = cache.ensure("iris")
    assert dataset == Dataset("iris", builtin.BUILTINS["iris"].fingerprint, None, "species")
    cache.release(dataset)
    assert (source.revisions, source.loads) == (0, [])


def test_an_unchanged_dataset_is_read_once_also_across_a_restart(
    cache: DatasetCache, another: Callable[[], DatasetCache], source: CountingSource
) -> None:
    first = _used(cache, "a")
    assert _used(cache, "a") == first
    assert _used(another(), "a") == first
    assert source.loads == ["a"]
    assert (cache.hits, cache.misses) == (1, 1)


def test_a_changed_dataset_is_seen_by_the_next_job(cache: DatasetCache, source: CountingSource) -> None:
    first = cache.ensure("a")
    source.add("a", _table(99), None)
    second = cache.ensure("a")
    assert second.fingerprint != first.fingerprint
    assert _opened(second).equals(_table(99))
    assert _opened(first).equals(_table(0))


def test_a_source_that_knows_no_revision_is_read_each_time_and_stored_once(
    cache: DatasetCache, source: CountingSource, tmp_path: Path
) -> None:
    source.blind = True
    first, second = cache.ensure("a"), cache.ensure("a")
    assert first == second
    assert source.loads == ["a", "a"]
    assert _stored(tmp_path) == {first.fingerprint}


def test_equal_content_is_stored_once_under_any_name(cache: DatasetCache, source: CountingSource) -> None:
    source.add("same", _table(0), "x")
    a, same = cache.ensure("a"), cache.ensure("same")
    assert a.path == same.path
    assert (a.target_column, same.target_column) == ("y", "x")


def test_what_was_used_least_recently_makes_room(cache: DatasetCache, tmp_path: Path) -> None:
    a, b, c = (_used(cache, name) for name in "abc")
    _used(cache, "a")
    d = _used(cache, "d")
    assert _stored(tmp_path) == {a.fingerprint, c.fingerprint, d.fingerprint}
    assert _used(cache, "b") == b


def test_what_a_job_holds_stays_and_a_new_dataset_waits_for_room(
    cache: DatasetCache, another: Callable[[], DatasetCache], tmp_path: Path
) -> None:
    held = [cache.ensure(name) for name in "abc"]
    for worker in (cache, another()):
        with pytest.raises(TransientError, match="running trainings fill all 51,000 bytes of it"):
            worker.ensure("d")
    assert all(_opened(dataset).num_rows == ROWS for dataset in held)
    cache.release(held[1])
    another().ensure("d")
    assert held[0].fingerprint in _stored(tmp_path)
    assert held[1].fingerprint not in _stored(tmp_path)


def test_a_file_is_held_until_the_last_of_its_jobs_has_released_it(cache: DatasetCache, tmp_path: Path) -> None:
    first, second, *_ = (cache.ensure(name) for name in "aabc")
    cache.release(first)
    with pytest.raises(TransientError):
        cache.ensure("d")
    cache.release(second)
    cache.ensure("d")
    assert first.fingerprint not in _stored(tmp_path)


def test_a_mapped_file_stays_readable_when_it_was_removed(cache: DatasetCache, tmp_path: Path) -> None:
    table = _opened(_used(cache, "a"))
    for name in "bcd":
        _used(cache, name)
    assert len(_stored(tmp_path)) == 3
    assert table.equals(_table(0))


def test_a_dataset_larger_than_the_cache_is_rejected_with_the_figures(
    cache: DatasetCache, source: CountingSource, tmp_path: Path
) -> None:
    source.add("large", _table(1, rows=10 * ROWS), None)
    source.add("swells", pa.table({"x": [0.5] * 10 * ROWS, "y": [1] * 10 * ROWS}), None)
    _used(cache, "a")
    with pytest.raises(RejectedError, match=r"dataset 'large': its file of 12\d,\d{3} bytes .* cache of 51,000 bytes"):
        cache.ensure("large")
    with pytest.raises(RejectedError, match=r"dataset 'swells': unpacked it has more bytes .* cache of 51,000 bytes"):
        cache.ensure("swells")
    (tmp_path / "source" / "rows.csv").write_text("a,b,c\n" + "1,2,3\n" * 5 * ROWS)
    with pytest.raises(RejectedError, match=r"dataset 'rows': it takes 12\d,\d{3} bytes, .* cache of 51,000 bytes"):
        cache.ensure("rows")
    assert len(_stored(tmp_path)) == 1
    assert list((tmp_path / "cache" / "incoming").iterdir()) == []


@pytest.mark.parametrize("name", ["../a", "a/b", "", "a\0b", "x" * 129])
def test_a_name_that_is_none_is_rejected(cache: DatasetCache, name: str) -> None:
    with pytest.raises(RejectedError, match="a name has 1 to 128"):
        cache.ensure(name)


def test_a_dataset_that_does_not_exist_is_rejected_and_leaves_nothing(cache: DatasetCache, tmp_path: Path) -> None:
    with pytest.raises(RejectedError, match="there is no dataset 'nothing'"):
        cache.ensure("nothing")
    assert not (tmp_path / "cache").exists()


def test_a_dataset_that_was_removed_from_its_source_is_rejected_although_it_is_cached(
    cache: DatasetCache, tmp_path: Path
) -> None:
    _used(cache, "a")
    (tmp_path / "source" / "a.parquet").unlink()
    with pytest.raises(RejectedError):
        cache.ensure("a")


def test_a_source_that_does_not_answer_is_waited_for(cache: DatasetCache, source: CountingSource) -> None:
    _used(cache, "a")
    source.fail = TransientError("mongodb", "no answer")
    with pytest.raises(TransientError, match="mongodb"):
        cache.ensure("a")
    source.fail = None
    _used(cache, "a")
    assert source.loads == ["a"]


def test_a_full_disk_is_waited_for_and_what_is_not_needed_makes_room(
    cache: DatasetCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held, unused = cache.ensure("a"), _used(cache, "b")

    def full(*_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "posix_fallocate", full)
        with pytest.raises(TransientError, match="dataset cache: No space left on device"):
            cache.ensure("c")
    assert _stored(tmp_path) == {held.fingerprint}
    assert list((tmp_path / "cache" / "incoming").iterdir()) == []
    assert unused != cache.ensure("c")


def test_what_somebody_removed_by_hand_is_read_again(cache: DatasetCache, source: CountingSource) -> None:
    first = cache.ensure("a")
    assert first.path is not None
    first.path.unlink()
    second = cache.ensure("a")
    assert _opened(second).equals(_table(0))
    assert source.loads == ["a", "a"]
    for dataset in (first, second):
        cache.release(dataset)
    for name in "bcd":
        _used(cache, name)
    assert not first.path.exists()


@pytest.mark.parametrize("left", [b"", b'{"revision"', b"[]", b'{"other": 1}'])
def test_a_memory_that_cannot_be_read_is_no_memory(
    cache: DatasetCache, source: CountingSource, tmp_path: Path, left: bytes
) -> None:
    first = _used(cache, "a")
    (tmp_path / "cache" / "names" / "a.json").write_bytes(left)
    assert _used(cache, "a") == first
    assert _used(cache, "a") == first
    assert source.loads == ["a", "a"]


def test_open_files_and_disk_stay_flat_with_ever_new_content(
    cache: DatasetCache, source: CountingSource, tmp_path: Path
) -> None:
    for seed in range(20):
        source.add("a", _table(seed), None)
        _used(cache, "a")
        if seed == 3:
            files = _open_files()
    assert _open_files() == files
    assert len(_stored(tmp_path)) <= 3
    assert list((tmp_path / "cache" / "incoming").iterdir()) == []


def test_threads_that_want_the_same_dataset_read_it_once(cache: DatasetCache, source: CountingSource) -> None:
    threads = [threading.Thread(target=cache.ensure, args=("a",)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert source.loads == ["a"]
    assert (cache.hits, cache.misses) == (7, 1)


class Reading:
    """Reads as `reading.read` does, once it may; counts, and can be made to refuse or to hang."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.begun = threading.Semaphore(0)
        self.go = threading.Event()
        self.go.set()
        self.refuse = False

    def __call__(
        self, fetched: Fetched, into: Path, max_bytes: int | None, abandoned: Abandoned | None = None
    ) -> Content:
        self.names.append(fetched.name)
        self.begun.release()
        while not self.go.wait(0.01):
            if abandoned is not None and abandoned.is_set():
                raise LoadAbandoned
        if self.refuse:
            raise RejectedError(f"dataset {fetched.name!r}: it takes more than 300 s to be read")
        return reading.read(fetched, into, max_bytes)


@pytest.fixture
def read() -> Reading:
    return Reading()


@pytest.fixture
def watched(tmp_path: Path, source: CountingSource, clock: Iterator[float], read: Reading) -> DatasetCache:
    return DatasetCache(tmp_path / "cache", 3 * ROWS_BYTES, source, read, clock=clock.__next__)


def test_what_is_in_the_cache_is_not_read_whoever_knows_its_revision(
    watched: DatasetCache, source: CountingSource, read: Reading
) -> None:
    first = _used(watched, "a")
    assert _used(watched, "a") == first
    source.blind = True
    for _ in range(2):
        assert _used(watched, "a") == first
    assert read.names == ["a"]
    source.add("a", _table(99), None)
    assert _used(watched, "a") != first
    assert read.names == ["a", "a"]


def test_what_an_older_release_has_read_is_read_again(
    watched: DatasetCache, read: Reading, monkeypatch: pytest.MonkeyPatch
) -> None:
    _used(watched, "a")
    monkeypatch.setattr(reading, "VERSION", reading.VERSION + 1)
    for _ in range(2):
        _used(watched, "a")
    assert read.names == ["a", "a"]


def test_that_another_release_reads_the_same_bytes_otherwise_is_logged(
    watched: DatasetCache, read: Reading, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    _used(watched, "a")
    remembered = tmp_path / "cache" / "names" / "a.json"
    known = orjson.loads(remembered.read_bytes())
    for before, logged in ((known["fingerprint"], 0), ("0" * 64, 1)):
        remembered.write_bytes(orjson.dumps({**known, "fingerprint": before, "reading": reading.VERSION - 1}))
        _used(watched, "a")
        said = [one for one in caplog.records if "is read otherwise" in one.message]
        assert [(one.dataset, one.before) for one in said] == [("a", before)] * logged  # type: ignore[attr-defined]
    assert read.names == ["a", "a", "a"]


def _rows(dataset: Dataset) -> pa.Table:
    with pa.memory_map(str(dataset.path)) as source, pa.ipc.open_file(source) as reader:
        return reader.read_all()


def test_equal_rows_that_were_read_with_other_notes_keep_their_own(cache: DatasetCache, source: CountingSource) -> None:
    notes = [Note("x", "is read as numbers"), Note("x", "is read as dates")]
    for name, note in zip("pq", notes, strict=True):
        about = {NOTES: orjson.dumps([note.to_document()])}
        source.add(name, _table(1).replace_schema_metadata(about), None)
    found = [cache.ensure(name) for name in "pq"]
    assert found[0].fingerprint == found[1].fingerprint
    assert [list(notes_of(_rows(one))) for one in found] == [[note] for note in notes]
    for one in found:
        cache.release(one)


def test_those_who_wait_for_a_reading_that_is_refused_share_its_refusal(watched: DatasetCache, read: Reading) -> None:
    read.refuse = True
    read.go.clear()
    with ThreadPoolExecutor(4) as threads:
        waiting = [threads.submit(watched.ensure, "a") for _ in range(4)]
        read.begun.acquire()
        read.go.set()
        for one in waiting:
            with pytest.raises(RejectedError, match="dataset 'a': it takes more than 300 s"):
                one.result(10)
    with pytest.raises(RejectedError, match="300 s"):
        watched.ensure("a")
    assert read.names == ["a"]


def test_a_refusal_holds_for_these_bytes_and_for_five_minutes(
    watched: DatasetCache, source: CountingSource, read: Reading, clock: Iterator[float]
) -> None:
    read.refuse = True
    for _ in range(2):
        with pytest.raises(RejectedError):
            watched.ensure("a")
    assert read.names == ["a"]
    for _ in range(300):
        next(clock)
    with pytest.raises(RejectedError):
        watched.ensure("a")
    assert read.names == ["a", "a"]
    read.refuse = False
    source.add("a", _table(99), None)
    assert _opened(_used(watched, "a")).equals(_table(99))


def test_a_refusal_does_not_age_by_the_wall_clock(tmp_path: Path, source: CountingSource, read: Reading) -> None:
    read.refuse = True
    days = iter((0.0, 1e9, -1e9))
    cache = DatasetCache(tmp_path / "cache", 3 * ROWS_BYTES, source, read, clock=lambda: 0.0, wall_clock=days.__next__)
    for _ in range(3):
        with pytest.raises(RejectedError):
            cache.ensure("a")
    assert read.names == ["a"]


def test_a_refusal_that_was_renewed_is_remembered_longer_than_older_ones(
    watched: DatasetCache, read: Reading, clock: Iterator[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOST_REMEMBERED", 2)
    read.refuse = True

    def refused(*names: str) -> None:
        for name in names:
            with pytest.raises(RejectedError):
                watched.ensure(name)

    refused("a", "b")
    for _ in range(300):
        next(clock)
    refused("a", "c", "a")
    assert read.names == ["a", "b", "a", "c"]


def test_who_waits_for_anothers_reading_can_be_called_off_and_so_can_the_reader(
    watched: DatasetCache, read: Reading, tmp_path: Path
) -> None:
    read.go.clear()
    first, second = threading.Event(), threading.Event()
    with ThreadPoolExecutor(2) as threads:
        reader = threads.submit(watched.ensure, "a", first)
        read.begun.acquire()
        waiting = threads.submit(watched.ensure, "a", second)
        second.set()
        with pytest.raises(LoadAbandoned):
            waiting.result(5)
        assert not reader.done()
        first.set()
        with pytest.raises(LoadAbandoned):
            reader.result(5)
    assert list((tmp_path / "cache" / "incoming").iterdir()) == []
    read.go.set()
    assert _opened(_used(watched, "a")).equals(_table(0))


def test_those_who_wait_for_what_only_its_content_tells_share_the_next_fetch(
    watched: DatasetCache, source: CountingSource, read: Reading
) -> None:
    source.blind = True
    read.go.clear()
    with ThreadPoolExecutor(4) as threads:
        first = threads.submit(watched.ensure, "a")
        read.begun.acquire()
        others = [threads.submit(watched.ensure, "a") for _ in range(3)]
        while sum(frame.f_code.co_name == "_taken" for frame in sys._current_frames().values()) < 3:
            assert not first.done()
        source.add("a", _table(99), None)
        read.go.set()
        assert _opened(first.result(10)).equals(_table(0))
        assert all(_opened(one.result(10)).equals(_table(99)) for one in others)
    assert source.loads == ["a", "a"]


def test_a_reading_that_was_called_off_is_done_by_the_next_who_waits(watched: DatasetCache, read: Reading) -> None:
    read.go.clear()
    first = threading.Event()
    with ThreadPoolExecutor(2) as threads:
        reader = threads.submit(watched.ensure, "a", first)
        read.begun.acquire()
        waiting = threads.submit(watched.ensure, "a")
        first.set()
        read.begun.acquire()
        read.go.set()
        assert _opened(waiting.result(5)).equals(_table(0))
        assert isinstance(reader.exception(5), LoadAbandoned)
    assert read.names == ["a", "a"]


def test_what_is_fetched_makes_unused_datasets_go_and_waits_for_no_used_one(
    watched: DatasetCache, source: CountingSource, read: Reading, tmp_path: Path
) -> None:
    unused, held = _used(watched, "a"), watched.ensure("b")
    read.go.clear()
    (tmp_path / "source" / "rows.csv").write_text("a\n" + "1.000000000000000000000\n" * 1_500)
    with ThreadPoolExecutor(1) as threads:
        loading = threads.submit(watched.ensure, "rows")
        for _ in range(3):
            read.begun.acquire()
        (fetched,) = (tmp_path / "cache" / "incoming").glob("*.fetched")
        assert fetched.stat().st_size > 34_000
        assert _stored(tmp_path) == {held.fingerprint}, unused
        read.go.set()
        assert loading.result(10).path is not None
    assert list((tmp_path / "cache" / "incoming").iterdir()) == []


WRITER = """
import os, sys, time
from pathlib import Path
from pipeline.datasets import cache as module
from pipeline.datasets.directory import DirectorySource

root = Path(sys.argv[1])
cache = module.DatasetCache(root / "cache", int(sys.argv[2]), DirectorySource(root / "source"), wall_clock=lambda: 0.0)
if sys.argv[3] == "while writing":
    os.fsync = lambda _: (print("there", flush=True), time.sleep(60))
dataset = cache.ensure("a")
print("there", flush=True)
time.sleep(60)
"""


@pytest.fixture
def worker(tmp_path: Path, source: CountingSource) -> Iterator[Callable[[str], subprocess.Popen[str]]]:
    """Another worker process, once it is where the test wants it."""
    started: list[subprocess.Popen[str]] = []

    def start(where: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", WRITER, str(tmp_path), str(3 * ROWS_BYTES), where]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        started.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "there\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_what_a_killed_writer_left_behind_is_removed_by_the_next_one(
    cache: DatasetCache, worker: Callable[[str], subprocess.Popen[str]], tmp_path: Path
) -> None:
    process = worker("while writing")
    incoming = tmp_path / "cache" / "incoming"
    (left,) = incoming.iterdir()
    _used(cache, "b")
    assert list(incoming.iterdir()) == [left], "its writer lives"
    process.kill()
    process.wait()
    _used(cache, "c")
    assert list(incoming.iterdir()) == []
    assert _opened(_used(cache, "a")).equals(_table(0))


def test_a_stopped_writer_keeps_nobody_from_reading_the_same_dataset(
    cache: DatasetCache, worker: Callable[[str], subprocess.Popen[str]]
) -> None:
    process = worker("while writing")
    process.send_signal(signal.SIGSTOP)
    assert _opened(_used(cache, "a")).equals(_table(0))


def test_what_another_worker_holds_stays_until_it_dies(
    cache: DatasetCache, worker: Callable[[str], subprocess.Popen[str]], tmp_path: Path
) -> None:
    process = worker("while training")
    held = _stored(tmp_path)
    for name in "bcdbcd":
        _used(cache, name)
        assert held <= _stored(tmp_path)
    process.kill()
    process.wait()
    for name in "bcd":
        _used(cache, name)
    assert not held & _stored(tmp_path)


def test_processes_that_want_the_same_new_dataset_at_once_store_one_file(
    tmp_path: Path, source: CountingSource
) -> None:
    ready = f"""
import sys
from pathlib import Path
import pyarrow as pa
from pipeline.datasets.cache import DatasetCache
from pipeline.datasets.directory import DirectorySource

root = Path({str(tmp_path)!r})
cache = DatasetCache(root / "cache", {3 * ROWS_BYTES}, DirectorySource(root / "source"))
print("there", flush=True)
sys.stdin.readline()
dataset = cache.ensure("a")
with pa.memory_map(str(dataset.path)) as file:
    print(dataset.fingerprint, pa.ipc.open_file(file).read_all().num_rows, flush=True)
"""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    processes = [subprocess.Popen([sys.executable, "-c", ready], **pipes) for _ in range(3)]  # type: ignore[call-overload]
    for process in processes:
        assert process.stdout.readline() == "there\n"
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    said = {process.communicate()[0] for process in processes}
    assert said == {f"{fingerprint(canonical(_table(0)))} {ROWS}\n"}
    assert len(_stored(tmp_path)) == 1
    assert list((tmp_path / "cache" / "incoming").iterdir()) == []


VALUES = st.one_of(
    st.lists(st.none() | st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=20),
    st.lists(st.none() | st.floats(), min_size=1, max_size=20),
    st.lists(st.none() | st.booleans(), min_size=1, max_size=20),
    st.lists(st.none() | st.text(st.characters(exclude_categories=["Cs"])), min_size=1, max_size=20),
    st.lists(st.none() | st.datetimes(), min_size=1, max_size=20),
    st.lists(st.lists(st.floats(allow_nan=False), min_size=2, max_size=2), min_size=1, max_size=20),
)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(values=VALUES, cuts=st.lists(st.integers(0, 20), max_size=3))
def test_the_fingerprint_is_of_the_content_and_not_of_its_chunks(values: list[object], cuts: list[int]) -> None:
    table = canonical(pa.table({"x": values}))
    ends = sorted({0, len(values), *(cut for cut in cuts if cut < len(values))})
    parts = [table.slice(start, end - start) for start, end in pairwise(ends)]
    assert fingerprint(pa.concat_tables(parts)) == fingerprint(table)
    assert fingerprint(canonical(canonical(pa.concat_tables(parts)))) == fingerprint(table)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"x": [1, 2]}, {"x": [2, 1]}),
        ({"x": [1, 2]}, {"y": [1, 2]}),
        ({"x": [1, 2]}, {"x": [1.0, 2.0]}),
        ({"x": [1, 0]}, {"x": [1, None]}),
        ({"x": [None, 1]}, {"x": [1, None]}),
        ({"x": ["ab", "c"]}, {"x": ["a", "bc"]}),
        ({"x": ["", "c"]}, {"x": [None, "c"]}),
        ({"x": [1], "y": [2]}, {"y": [2], "x": [1]}),
        ({"x": [True, False]}, {"x": [1, 0]}),
        ({"x": [[1.0, 2.0], [3.0, 4.0]]}, {"x": [[1.0, 2.0, 3.0, 4.0]]}),
        ({"x": [None, None]}, {"x": [None, None, None]}),
    ],
)
def test_other_content_has_another_fingerprint(one: dict[str, list[object]], other: dict[str, list[object]]) -> None:
    assert fingerprint(canonical(pa.table(one))) != fingerprint(canonical(pa.table(other)))


def test_the_fingerprint_of_a_dataset_stays_the_same_from_release_to_release() -> None:
    table = pa.table(
        {
            "n": [1, None],
            "x": [0.5, float("nan")],
            "b": [True, None],
            "s": ["é", None],
            "t": [[1.0], [2.0]],
            "z": [None] * 2,
        }
    )
    assert fingerprint(canonical(table)) == "57c2f2de4552dba01492b6df53b51ebe0e0ada58b9c7139f093b7cb18a47b047"


def test_what_is_at_hand_needs_no_fetch_and_the_rest_is_none(cache: DatasetCache, source: CountingSource) -> None:
    assert cache.at_hand("a") is None
    ensured = _used(cache, "a")
    assert cache.at_hand("a") == ensured
    cache.release(ensured)
    source.add("a", _table(7), "y")
    assert cache.at_hand("a") is None
    source.blind = True
    assert cache.at_hand("b") is None
    assert source.loads == ["a"]
    with pytest.raises(RejectedError, match="there is no dataset"):
        cache.at_hand("nowhere")


def test_so_many_are_fetched_at_a_time_and_who_is_abandoned_waits_no_longer(
    tmp_path: Path, source: CountingSource
) -> None:
    reading_now, go, abandoned = threading.Semaphore(0), threading.Event(), threading.Event()

    def read(fetched: Fetched, into: Path, max_bytes: int | None, abandoned: Abandoned | None = None) -> Content:
        reading_now.release()
        assert go.wait(30)
        return reading.read(fetched, into, max_bytes, abandoned)

    cache = DatasetCache(tmp_path / "cache", 9 * ROWS_BYTES, source, read, fetches=2)
    with ThreadPoolExecutor(4) as threads:
        first = [threads.submit(cache.ensure, name) for name in "ab"]
        for _ in first:
            assert reading_now.acquire(timeout=30)
        third = threads.submit(cache.ensure, "c", abandoned)
        abandoned.set()
        with pytest.raises(LoadAbandoned):
            third.result(30)
        assert sorted(source.loads) == ["a", "b"]
        go.set()
        assert {one.result(30).name for one in first} == {"a", "b"}
    _used(cache, "c")


def test_one_fetch_serves_all_who_came_before_it_however_late_their_turn_is(
    cache: DatasetCache, source: CountingSource
) -> None:
    source.blind = True
    came = cache.begun
    for _ in range(5):
        cache.release(cache.ensure("a", came=came))
    assert source.loads == ["a"]
    _used(cache, "a")
    assert source.loads == ["a", "a"]


def test_a_rejection_serves_all_who_came_before_it_too(cache: DatasetCache, source: CountingSource) -> None:
    source.blind, came = True, cache.begun
    source.fetch_fails = RejectedError("too slow")
    for _ in range(5):
        with pytest.raises(RejectedError, match="too slow"):
            cache.ensure("a", came=came)
    assert source.loads == ["a"]
