"""What reading, importing and predicting a million rows costs beside bare pyarrow and a bare pipeline.

Each is done in a process of its own, in turns with its baseline, and with one thread, as loaders have.  A *load* turns
a file into the Arrow file that trainers map; an *import* stores it as a dataset.  The baselines read the same file and
write the same format.
"""

from __future__ import annotations

import multiprocessing
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as csv
import pyarrow.parquet as pq

from consumer.loaders.child import forgo_pandas

TARGETS = {"load": 1.5, "import": 1.5}
COLUMNS = 20
WORDS = ("red", "green", "blue", "a longer word", "x")


@dataclass(frozen=True, slots=True)
class Step:
    """Medians over the turns, of CPU seconds and of the most MiB; `ratio` is that of neighbours' ratios."""

    name: str
    target: float
    bare_s: float
    ours_s: float
    ratio: float
    bare_mib: float
    ours_mib: float


@dataclass(frozen=True, slots=True)
class ReadingCosts:
    rows: int
    columns: int
    turns: int
    steps: Sequence[Step]


def measure(folder: Path, rows: int, turns: int) -> ReadingCosts:
    table = _table(rows)
    csv.write_csv(table, folder / "rows.csv")
    pq.write_table(table, folder / "rows.parquet")
    steps = [
        _step(action, folder / f"rows.{suffix}", turns)
        for suffix in ("csv", "parquet")
        for action in ("load", "import")
    ]
    return ReadingCosts(rows, COLUMNS, turns, steps)


def _step(action: str, file: Path, turns: int) -> Step:
    pairs = [(_alone(f"bare {action}", file), _alone(action, file)) for _ in range(turns)]
    bare, ours = zip(*pairs, strict=True)
    return Step(
        f"{action} {file.suffix.removeprefix('.')}",
        TARGETS[action],
        statistics.median(one[0] for one in bare),
        statistics.median(one[0] for one in ours),
        statistics.median(second[0] / first[0] for first, second in pairs),
        statistics.median(one[1] for one in bare),
        statistics.median(one[1] for one in ours),
    )


def _alone(action: str, file: Path) -> tuple[float, float]:
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
        return process.submit(_measured, action, file).result()


def _measured(action: str, file: Path) -> tuple[float, float]:
    """CPU seconds, and the most MiB beyond those before; libraries are loaded before, as in a loader."""
    for library in ("pipeline.datasets.reading", "pipeline.datasets.directory"):
        import_module(library)
    forgo_pandas()
    pa.set_cpu_count(1)
    pa.set_io_thread_count(1)
    Path("/proc/self/clear_refs").write_text("5")  # the kernel's high-water mark begins anew
    before, begun = _most_mib(), time.process_time()
    ACTIONS[action](file)
    return time.process_time() - begun, _most_mib() - before


def _most_mib() -> float:
    (line,) = (one for one in Path("/proc/self/status").read_text().splitlines() if one.startswith("VmHWM:"))
    return int(line.split()[1]) / 1024


def _bare(file: Path) -> pa.Table:
    return csv.read_csv(file) if file.suffix == ".csv" else pq.read_table(file)


def _bare_load(file: Path) -> None:
    table = _bare(file)
    with pa.ipc.new_file(str(file.with_suffix(".arrow")), table.schema) as writer:
        writer.write_table(table)


def _bare_import(file: Path) -> None:
    pq.write_table(_bare(file), file.with_suffix(".stored"), compression="zstd")


def _load(file: Path) -> None:
    from pipeline.datasets import Fetched, reading

    reading.read(Fetched("rows", file, file.name, None, ""), file.with_suffix(".arrow"), None)


def _import(file: Path) -> None:
    from pipeline.datasets import Fetched, reading
    from pipeline.datasets.directory import DirectorySource

    loaded = reading.loaded(Fetched("rows", file, file.name, None, ""), reading.read, None)
    pa.default_memory_pool().release_unused()  # as a loader does
    source = DirectorySource(file.with_suffix(""))
    source.add(f"rows-{time.time_ns()}", loaded.table, None, fingerprint=loaded.fingerprint)


ACTIONS: Mapping[str, Callable[[Path], None]] = {
    "bare load": _bare_load,
    "load": _load,
    "bare import": _bare_import,
    "import": _import,
}


def _table(rows: int) -> pa.Table:
    """Numbers, words, dates and texts, as in a table of customers."""
    draw = np.random.default_rng(1)
    columns: dict[str, Any] = {f"amount{n}": draw.normal(size=rows).round(4) for n in range(8)}
    columns |= {f"count{n}": draw.integers(0, 10_000, rows) for n in range(5)}
    columns |= {f"kind{n}": np.array(WORDS)[draw.integers(0, len(WORDS), rows)] for n in range(4)}
    columns["day"] = (np.datetime64("2020-01-01") + draw.integers(0, 1_000, rows)).astype("datetime64[s]")
    columns["name"] = np.array([f"customer {n}" for n in range(50_000)])[draw.integers(0, 50_000, rows)]
    columns["left"] = draw.integers(0, 2, rows)
    return pa.table(columns)
