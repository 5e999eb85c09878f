"""Shows versions side by side on one self-contained HTML page."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pipeline.jobs import RegisteredModel
from pipeline.model_files.model_file import LoadedModel
from pipeline.reports.pages import document, figure, in_order, number, row_of, table, warning
from pipeline.reports.report import pictures
from pipeline.reports.version_comparison import apart, lower_is_better

Marks = dict[tuple[int, int], str]
ABSENT = ""


def page(found: Sequence[RegisteredModel], loaded: Sequence[LoadedModel], names: Sequence[str]) -> str:
    """A page of metrics with the best marked, differences in hyperparameters, data and environment, and charts in rows.

    `loaded` are the versions' files and `names` their titles, in the same order.  If they were not tested on the same
    rows, the page says so and marks no best.
    """
    reasons = apart(found)
    models = [one.model for one in found]
    metrics = [one.metrics for one in models]
    shown = in_order({name for one in metrics for name in one})
    rows = [(name, *(_of(one, name, number) for one in metrics)) for name in shown]
    sections = [
        warning("The metrics tell little about which is better", reasons),
        table("Metrics", ("metric", *names), rows, marks={} if reasons else _best(shown, metrics), wide=True),
        _differing("Hyperparameters", names, [one.hyperparameters for one in models]),
        _differing("Data", names, [_data(*pair) for pair in zip(found, loaded, strict=True)], all_of_them=True),
        _differing("Environment", names, [one.environment for one in models]),
        *_pictures(loaded, names),
    ]
    of = {f"{one.project}/{one.model_name}" for one in models}
    title = f"{of.pop()} {' and '.join(names)}" if len(of) == 1 else " and ".join(names)
    return document(title, f"{len(names)} versions side by side", sections)


def _best(shown: Sequence[str], metrics: Sequence[Mapping[str, float]]) -> Marks:
    """Marks the best value of each row, also several equal ones, unless all values are equal."""
    marks: Marks = {}
    for row, name in enumerate(shown):
        lower = lower_is_better(name)
        values = [one[name] for one in metrics if name in one]
        if lower is None or len(set(values)) < 2:
            continue
        best = min(values) if lower else max(values)
        marks |= {(row, column): "best" for column, one in enumerate(metrics, 1) if one.get(name) == best}
    return marks


def _differing(
    title: str, names: Sequence[str], parts: Sequence[Mapping[str, Any]], *, all_of_them: bool = False
) -> str:
    """A table of the keys that differ; with `all_of_them` also of the others, and those that differ are marked."""
    keys = list(dict.fromkeys(key for one in parts for key in one))
    unlike = [key for key in keys if any(one.get(key, _NOTHING) != parts[0].get(key, _NOTHING) for one in parts)]
    shown = keys if all_of_them else sorted(unlike)
    rows = [(key, *(_of(one, key, str) for one in parts)) for key in shown]
    marks: Marks = {(row, 0): "differs" for row, key in enumerate(shown) if key in unlike}
    equal = len(keys) - len(unlike)
    says = "" if all_of_them else f"{equal:,} are the same." if equal else ""
    if not rows:
        return warning(title, [f"All {len(keys):,} are the same."], calm=True) if keys else ""
    return table(title, ("", *names), rows, marks=marks, says=says, wide=True)


def _data(one: RegisteredModel, loaded: LoadedModel) -> dict[str, Any]:
    model = one.model
    return {
        "algorithm": model.algorithm,
        "dataset": model.dataset_name,
        "fingerprint": model.dataset_fingerprint[:12],
        "test rows": f"{model.split[:12]} ({loaded.evaluation['test_rows']:,})",
        "predicts": model.target_column,
        "columns": len(model.features),
        "seed": model.seed,
        "test size": model.evaluation.test_size,
        "trained": f"{model.created_at:%Y-%m-%d %H:%M} UTC",
        "took": f"{model.training_time:.1f} s",
        "file": f"{model.artifact_bytes:,} bytes",
    }


def _pictures(loaded: Sequence[LoadedModel], names: Sequence[str]) -> list[str]:
    """One row of figures for each title, in order of first appearance."""
    drawn = [{chart.title: chart for chart in pictures(one)} for one in loaded]
    titles = dict.fromkeys(title for one in drawn for title in one)
    return [
        row_of(
            title,
            [
                figure(place * len(names) + column, one[title], name)
                for column, (one, name) in enumerate(zip(drawn, names, strict=True))
                if title in one
            ],
        )
        for place, title in enumerate(titles)
    ]


_NOTHING = object()


def _of(values: Mapping[str, Any], name: str, shown: Callable[[Any], str]) -> str:
    return shown(values[name]) if name in values else ABSENT
