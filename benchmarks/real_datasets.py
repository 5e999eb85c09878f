"""Reads and trains on files that Python packages ship, and compares with what a person does in pandas.

`python -m benchmarks.real_datasets [PART OF A NAME …] [--packages FOLDER]`; docs/benchmarks.md says how to get them.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tarfile
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
from rich.console import Console
from rich.table import Table
from sklearn.compose import make_column_selector, make_column_transformer
from sklearn.impute import SimpleImputer
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from benchmarks.real_files import CASES, R_FILES, Case
from pipeline.algorithms import find
from pipeline.datasets import Dataset
from pipeline.errors import RejectedError
from pipeline.jobs import TrainingRequest
from pipeline.reading.files import read_table
from pipeline.reading.tables import canonical, fingerprint
from pipeline.reading.typed import notes_of
from pipeline.training import training

SEEDS = (1, 2, 3)
LEAST_LOSS = 0.02
"""How much lower our mean score must be to count as worse, if two standard deviations of the plain one are less."""
MANY_ROWS = 10_000
"""Datasets with more rows are trained with one tree in place of a forest, which would take minutes."""
ALGORITHMS = {
    "classification": ("random_forest", "logistic_regression"),
    "regression": ("random_forest_regressor", "ridge"),
}
FOR_MANY_ROWS = {"classification": ("decision_tree",), "regression": ("decision_tree_regressor",)}


@dataclass(frozen=True, slots=True)
class Score:
    """Means over the seeds of accuracy or R², and the standard deviation of the plain one."""

    algorithm: str
    ours: float
    plain: float
    spread: float

    @property
    def is_worse(self) -> bool:
        return self.ours < self.plain - max(LEAST_LOSS, 2 * self.spread)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What was found out about a file.

    Attributes:
        differing: the columns whose type is not the person's, as `name: ours, not theirs`.
        notes: what reading said.
        refused: why it could not be read or trained on, empty if it could.
    """

    case: Case
    rows: int = 0
    columns: int = 0
    differing: Sequence[str] = ()
    notes: Sequence[str] = ()
    scores: Sequence[Score] = ()
    refused: str = ""


def measure(case: Case, path: Path, folder: Path) -> Outcome:
    """Read the file, train on it and score both ways, with the same rows tested for each seed."""
    frame = by_hand(case, path)
    try:
        table = canonical(read_table(path, path.name))
        differing = _differing(table, frame)
        notes = [str(note) for note in notes_of(table)]
        scores = [
            _score(case, algorithm, table, frame, folder)
            for algorithm in (FOR_MANY_ROWS if len(frame) > MANY_ROWS else ALGORITHMS)[case.task]
        ]
    except RejectedError as error:
        return Outcome(case, *frame.shape, refused=str(error))
    return Outcome(case, table.num_rows, table.num_columns, differing, notes, scores)


def by_hand(case: Case, path: Path) -> pd.DataFrame:
    """The file as a person reads it."""
    how = dict(case.how)
    day_first = how.pop("dayfirst", False)
    frame = pd.read_json(path, convert_dates=False) if path.suffix == ".json" else pd.read_csv(path, **how)
    if "header" in how:
        frame = frame.set_axis([f"column_{number}" for number in range(1, frame.shape[1] + 1)], axis=1)
    for name in case.dates:
        frame[name] = pd.to_datetime(frame[name], format="mixed", dayfirst=day_first, utc=True, errors="coerce")
    return frame.rename(columns=str.strip)


def _differing(table: pa.Table, frame: pd.DataFrame) -> list[str]:
    ours = {
        field.name: _kind(field.type.to_pandas_dtype()) for field in table.schema if not pa.types.is_null(field.type)
    }
    theirs = {name: _kind(frame[name].dtype) for name in frame.columns if frame[name].notna().any()}
    return [
        f"{name}: {ours.get(name, 'left out')}, not {theirs.get(name, 'a column')}"
        for name in dict.fromkeys([*ours, *theirs])
        if ours.get(name) != theirs.get(name)
    ]


def _kind(dtype: Any) -> str:
    kind = pd.api.types.pandas_dtype(dtype).kind
    return {"i": "numbers", "u": "numbers", "f": "numbers", "b": "truths", "M": "dates"}.get(kind, "words")


def _score(case: Case, algorithm: str, table: pa.Table, frame: pd.DataFrame, folder: Path) -> Score:
    ours = [_ours(case, algorithm, table, folder, seed) for seed in SEEDS]
    plain = [_plain(case, algorithm, frame, seed) for seed in SEEDS]
    return Score(algorithm, statistics.mean(ours), statistics.mean(plain), statistics.stdev(plain))


def _ours(case: Case, algorithm: str, table: pa.Table, folder: Path, seed: int) -> float:
    path = folder / "rows.arrow"
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    request = TrainingRequest("real", "real", algorithm, case.name, "real", seed=seed)
    trained = training.train(
        request, Dataset(case.name, fingerprint(table), path, case.target), folder, lambda *_: None
    )
    trained.model_file.unlink()
    return trained.metrics["test_accuracy" if case.task == "classification" else "test_r2"]


def _plain(case: Case, algorithm: str, frame: pd.DataFrame, seed: int) -> float:
    frame = frame.dropna(subset=[case.target]).dropna(axis=1, how="all")
    target, rows = frame[case.target], frame.drop(columns=case.target)
    for name in case.dates:
        date: Any = rows.pop(name)
        days = (date - date.min()) / pd.Timedelta(days=1)
        parts = {"year": date.dt.year, "month": date.dt.month, "weekday": date.dt.day_of_week, "hour": date.dt.hour}
        rows = rows.assign(**{f"{name} {part}": values for part, values in {**parts, "days": days}.items()})
    stratify = target if case.task == "classification" else None
    fit, test, fit_target, test_target = train_test_split(
        rows, target, test_size=0.2, stratify=stratify, random_state=seed
    )
    is_number = make_column_selector(dtype_include="number")
    columns = make_column_transformer(
        (make_pipeline(SimpleImputer(strategy="median"), StandardScaler()), is_number),
        (OneHotEncoder(handle_unknown="ignore", max_categories=100), make_column_selector(dtype_exclude="number")),
        sparse_threshold=0,
    )
    estimator = find(algorithm).build(find(algorithm).resolve({}, seed), target.nunique())
    with warnings.catch_warnings(action="ignore"):
        return float(make_pipeline(columns, estimator).fit(fit, fit_target).score(test, test_target))


def _files(cases: Sequence[Case], folder: Path) -> Iterator[tuple[Case, Path | None]]:
    """Each case with its file; None if its package is not installed.  R's datasets are unpacked into the folder."""
    for case in cases:
        package, _, rest = case.file.partition("/")
        spec = find_spec(package)
        if spec is None or spec.origin is None:
            yield case, None
            continue
        beside = Path(spec.origin).parent
        if not case.file.startswith(R_FILES):
            yield case, beside / rest
            continue
        if not (folder / "resources").exists():
            with tarfile.open(beside.parent / R_FILES) as archive:
                archive.extractall(folder, filter="data")
        yield case, folder / case.file.removeprefix(f"{R_FILES}/")


def shown(outcomes: Sequence[Outcome]) -> Table:
    table = Table(title="real data sets: mean scores over three seeds, ours and those of plain pandas and scikit-learn")
    table.add_column("data set", overflow="fold")
    for name in ("rows", "columns", "target", "algorithm", "ours", "plain", "spread", "other types", "notes"):
        table.add_column(name, justify="left" if name in ("target", "algorithm") else "right")
    for one in outcomes:
        about = (one.case.name, f"{one.rows:,}", f"{one.columns:,}", one.case.target)
        counts = (str(len(one.differing) or ""), str(len(one.notes) or ""))
        if one.refused:
            table.add_row(*about, "refused")
        for place, score in enumerate(one.scores):
            ours = f"{score.ours:.3f}{' worse' if score.is_worse else ''}"
            figures = (score.algorithm, ours, f"{score.plain:.3f}", f"{score.spread:.3f}")
            table.add_row(*(("",) * 4 if place else about), *figures, *(() if place else counts))
    return table


def _summary(outcomes: Sequence[Outcome]) -> Iterator[str]:
    for one in outcomes:
        yield from (f"{one.case.name}: {line}" for line in ([one.refused] if one.refused else one.differing))
    refused = sum(bool(one.refused) for one in outcomes)
    worse = sum(any(score.is_worse for score in one.scores) for one in outcomes)
    differing = sum(bool(one.differing) for one in outcomes)
    yield f"{len(outcomes)} data sets: {refused} refused, {worse} with a worse score, {differing} with other types"
    gains = [(score.ours - score.plain, one.case.name) for one in outcomes for score in one.scores]
    if gains:
        mean, (loss, name) = statistics.mean(gain for gain, _ in gains), min(gains)
        yield f"{len(gains)} scores: ours less the plain one {mean:+.4f} on average, at worst {loss:+.3f} ({name})"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.real_datasets", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="only data sets whose names contain one of these")
    parser.add_argument("--packages", type=Path, default=Path("build/real_datasets"), help="where the packages are")
    asked = parser.parse_args(arguments)
    sys.path.append(str(asked.packages.resolve()))
    cases = [case for case in CASES if not asked.names or any(name in case.name for name in asked.names)]
    outcomes, missing = [], set()
    with tempfile.TemporaryDirectory(prefix="tensorfleet-bench-") as folder:
        for case, path in _files(cases, Path(folder)):
            if path is None:
                missing.add(case.file.partition("/")[0])
                continue
            sys.stderr.write(f"{case.name}\n")
            outcomes.append(measure(case, path, Path(folder)))
    console = Console(width=None if sys.stdout.isatty() else 160)
    console.print(shown(outcomes))
    for line in _summary(outcomes):
        console.print(line, markup=False, highlight=False)
    if missing:
        console.print(f"not installed: {', '.join(sorted(missing))}; docs/benchmarks.md says how to get them")
    return int(any(score.is_worse for one in outcomes for score in one.scores))


if __name__ == "__main__":
    sys.exit(main())
