"""`tensorfleet models predict`: scores the rows of a file, and writes a file, lines for a pipe, or a table."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any

import typer

from consumer.cli import context
from consumer.cli.file_options import Delimiter, Encoding, Header, Sheet, told
from consumer.cli.output import (
    Document,
    Json,
    Project,
    Stop,
    TableColumn,
    column,
    console,
    note,
    on_terminal,
    show_rows,
    shown,
    write,
    write_json,
)
from consumer.cli.values import WRONG_USE, folder_of

if TYPE_CHECKING:
    import pyarrow as pa

    from pipeline.model_files.model_file import LoadedModel, Predictions

ENDINGS = (".csv", ".parquet", ".jsonl", ".ndjson")
MOST_SHOWN = 100
"""Rows in a table on a terminal."""
REASONS = 3
"""Contributions of a row in a table, the largest."""
EXACT = 2**53
"""Beyond it not every whole number is a float."""
NAMED = 20


def predict(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="NAME (the newest version), NAME@v3, NAME@alias or PROJECT/NAME@v3.")
    ],
    file: Annotated[
        str, typer.Argument(metavar="[FILE]", help="CSV, JSON lines, Parquet, Feather or Excel; - is standard input.")
    ] = "-",
    ids: Annotated[
        list[str] | None,
        typer.Option("--id", metavar="COLUMN", help="Carry this column of the file along, unchanged; repeat it."),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="FILE", help="Write a file: .csv, .parquet, .jsonl or .ndjson decides how."
        ),
    ] = None,
    explain: Annotated[
        bool, typer.Option("--explain", help="Say what each column adds to each prediction (trees and linear models).")
    ] = False,
    delimiter: Delimiter = None,
    header: Header = None,
    encoding: Encoding = None,
    sheet: Sheet = None,
    project: Project = None,
    as_json: Json = False,
) -> None:
    """Score raw rows. Columns match by name, in any order.

    Gives the columns of --id, prediction, and for classifiers probability_CLASS; in a pipe separated by tabs.

    With --explain, baseline and contribution_COLUMN add up to the prediction of a regressor.

    For a classifier they add up to the predicted class's probability (trees) or log-odds (logistic regression).
    """
    if output is not None:
        _check_output(output, file)
    from pipeline.model_files.contributions import check_explainable
    from pipeline.model_files.model_file import fetch

    stores, registered = context.registered(model, project)
    loaded = fetch(stores.artifacts, registered)
    if explain:
        check_explainable(loaded.pipeline[-1], registered.model.algorithm)
    ids = list(dict.fromkeys(ids or ()))
    as_table = output is None and not as_json and on_terminal()
    with _bar(shown=as_table or output is not None) as tell:
        options = told(delimiter=delimiter, header=header, encoding=encoding, sheet=sheet, keep_texts=True)
        table = context.loaded(Path(file).name, file, options).table
        scored = _Scored(loaded, table, ids, explain, tell)
        if output is not None:
            _save(scored, output)
        elif as_table:
            documents = scored.first(MOST_SHOWN)
        else:
            _send(scored, as_json=as_json)
    for warning in (*_about_the_file(table), *scored.warnings()):
        note(warning)
    if output is not None and as_json:
        write_json({"path": str(output), "rows": scored.rows, "version": registered.version})
    elif output is not None:
        write(str(output))
    elif as_table:
        rows = [{"row": number, **one} for number, one in enumerate(documents, 1)]
        show_rows(rows, list(_look(documents[0], ids)), as_json=False)
        if scored.rows > len(documents):
            note(f"these are the first {len(documents)} of {scored.rows:,} rows; --output FILE writes all")


class _Scored:
    """The rows of a table with their predictions, part by part."""

    def __init__(
        self, loaded: LoadedModel, table: pa.Table, ids: Sequence[str], explain: bool, tell: Callable[[int, int], None]
    ) -> None:
        self.rows = table.num_rows
        self._loaded, self._table, self._explain, self._tell = loaded, table, explain, tell
        self._ids = _ids(table, ids)
        self._extra: list[str] = []
        self._unseen: Counter[str] = Counter()

    def flat(self) -> Iterator[pa.Table]:
        """A column for each probability and contribution, for CSV and Parquet."""
        return (_joined(ids, _flat(predictions)) for ids, predictions in self._parts())

    def nested(self) -> Iterator[pa.Table]:
        """One column for all probabilities, one for all contributions, for JSON."""
        return (_joined(ids, _nested(predictions)) for ids, predictions in self._parts())

    def first(self, count: int) -> list[dict[str, Any]]:
        """The first rows as `nested` has them; all are scored, so that nothing about the others goes unsaid."""
        documents: list[dict[str, Any]] = []
        for part in self.nested():
            documents += part.slice(0, count - len(documents)).to_pylist()
        return documents

    def warnings(self) -> Iterator[str]:
        """What was noticed so far."""
        if self._extra:
            more = f" and {len(self._extra) - NAMED:,} more" if len(self._extra) > NAMED else ""
            yield f"not used: {', '.join(self._extra[:NAMED])}{more}"
        for name, rows in self._unseen.items():
            yield f"{name}: {rows:,} rows hold a category that training had not seen"

    def _parts(self) -> Iterator[tuple[pa.Table, Predictions]]:
        done = 0
        self._tell(done, self.rows)
        for predictions in self._loaded.predict_in_parts(self._table, explain=self._explain):
            self._extra = [name for name in predictions.extra_columns if name not in self._ids.column_names]
            self._unseen.update(predictions.unseen)
            count = len(predictions.labels)
            yield self._ids.slice(done, count), predictions
            done += count
            self._tell(done, self.rows)


def _about_the_file(table: pa.Table) -> list[str]:
    """What reading has decided about the whole file; the columns are read by the model."""
    from pipeline.reading.typed import notes_of

    return [str(one) for one in notes_of(table) if not one.column]


def _check_output(output: Path, file: str) -> None:
    if output.suffix not in ENDINGS:
        raise Stop(f"--output takes a file that ends in {', '.join(ENDINGS)}, not {output.name!r}", WRONG_USE)
    folder_of(output)
    if file != "-" and output.exists() and Path(file).exists() and output.samefile(file):
        raise Stop(f"--output {output} is the file of the rows; name another", WRONG_USE)


def _ids(table: pa.Table, names: Sequence[str]) -> pa.Table:
    """These columns.  Raises RejectedError if one is not there, or would not come out as it was written."""
    import pyarrow as pa
    import pyarrow.compute as pc

    from pipeline.errors import RejectedError, did_you_mean
    from pipeline.reading.tables import is_tensor

    for name in names:
        if name not in table.column_names:
            hint = did_you_mean(name, table.column_names) or "."
            raise RejectedError(f"--id {name}: the rows have no such column{hint} They have {_listed(table)}")
        values: Any = table.column(name)
        if is_tensor(values.type):
            raise RejectedError(f"--id {name}: an id is one value, and this column holds lists")
        if pa.types.is_floating(values.type) and (pc.max(pc.abs(values)).as_py() or 0) > EXACT:
            raise RejectedError(
                f"--id {name}: it holds numbers of more than 15 digits, of which some would be lost; write it as text"
            )
    return table.select(names)


def _listed(table: pa.Table) -> str:
    names = table.column_names
    return ", ".join(names[:NAMED]) + (f" and {len(names) - NAMED:,} more" if len(names) > NAMED else "")


def _joined(ids: pa.Table, named: dict[str, Any]) -> pa.Table:
    import pyarrow as pa

    from pipeline.errors import RejectedError

    if taken := [name for name in ids.column_names if name in named]:
        raise RejectedError(f"--id {taken[0]}: predictions have a column of that name; rename the file's")
    columns: dict[str, Any] = {name: ids.column(name) for name in ids.column_names}
    return pa.table({**columns, **named})


def _flat(predictions: Predictions) -> dict[str, Any]:
    named: dict[str, Any] = {"prediction": predictions.labels}
    named |= {f"probability_{name}": values for name, values in _probabilities(predictions).items()}
    if (why := predictions.contributions) is not None:
        named["baseline"] = why.baseline
        named |= {f"contribution_{name}": values for name, values in zip(why.columns, why.values.T, strict=True)}
    return named


def _nested(predictions: Predictions) -> dict[str, Any]:
    named: dict[str, Any] = {"prediction": predictions.labels}
    if probabilities := _probabilities(predictions):
        named["probabilities"] = _struct(probabilities)
    if (why := predictions.contributions) is not None:
        named["baseline"] = why.baseline
        named["contributions"] = _struct(dict(zip(why.columns, why.values.T, strict=True)))
    return named


def _probabilities(predictions: Predictions) -> dict[str, Any]:
    """By class; empty if the model has none."""
    if predictions.probabilities is None:
        return {}
    return dict(zip(map(shown, predictions.classes), predictions.probabilities.T, strict=True))


def _struct(named: dict[str, Any]) -> Any:
    import pyarrow as pa

    return pa.StructArray.from_arrays([pa.array(one) for one in named.values()], [*named])


def _save(scored: _Scored, output: Path) -> None:
    """Write the file beside its place, then move it there."""
    with TemporaryDirectory(dir=folder_of(output), prefix=".tensorfleet-") as folder:
        made = Path(folder, output.name)
        try:
            with made.open("wb") as file:
                _write(scored, file, output.suffix)
            made.replace(output)
        except OSError as error:
            raise Stop(f"{output} cannot be written: {error.strerror}", WRONG_USE) from error


def _send(scored: _Scored, *, as_json: bool) -> None:
    sys.stdout.flush()
    _write(scored, sys.stdout.buffer, ".jsonl" if as_json else ".tsv")
    sys.stdout.buffer.flush()


def _write(scored: _Scored, file: Any, ending: str) -> None:
    from pipeline.reading.writers import write_csv, write_json_lines, write_parquet

    if ending == ".parquet":
        write_parquet(scored.flat(), file)
    elif ending in (".csv", ".tsv"):
        write_csv(scored.flat(), file, "," if ending == ".csv" else "\t")
    else:
        write_json_lines(scored.nested(), file)


def _look(document: Document, ids: Sequence[str]) -> Iterable[TableColumn]:
    """The columns of a table for documents like this one."""
    yield from (column(name, name, style="dim", whole=True) for name in ids or ["row"])
    yield TableColumn("prediction", lambda one: _figure(one["prediction"]), style="bold", whole=True)
    for name in document.get("probabilities", ()):
        yield _probability(name)
    if "contributions" in document:
        yield TableColumn("baseline", lambda one: _figure(one["baseline"]), right=True, style="dim", whole=True)
        yield TableColumn("largest contributions", _largest, fold=True)


def _probability(name: str) -> TableColumn:
    return TableColumn(f"P({name})", lambda one: f"{one['probabilities'][name]:.4f}", right=True, extra=True)


def _largest(document: Document) -> str:
    found = sorted(document["contributions"].items(), key=lambda one: -abs(one[1]))
    return ", ".join(f"{name} {value:+.3g}" for name, value in found[:REASONS])


def _figure(value: object) -> str:
    """A value for people; of a large number all digits before the point."""
    if isinstance(value, float) and 1000 <= abs(value) < 1e15:
        return f"{value:,.2f}"
    return shown(value)


@contextmanager
def _bar(*, shown: bool) -> Iterator[Callable[[int, int], None]]:
    """A bar on a terminal's standard error; what it gives is called with the rows that are done, and all."""
    if not shown or not sys.stderr.isatty():
        yield lambda done, rows: None
        return
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn

    look = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(24), TimeRemainingColumn(compact=True))
    with Progress(*look, console=console(stderr=True), transient=True) as progress:
        task = progress.add_task("reading", total=None)
        yield lambda done, rows: progress.update(
            task, description=f"{done:,} of {rows:,} rows", completed=done, total=rows
        )
