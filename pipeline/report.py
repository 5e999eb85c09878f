"""What people read of a model: one HTML page that needs nothing else, or a model card in Markdown."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import Any

import numpy as np
from sklearn.compose import ColumnTransformer

from pipeline.charts import Chart, charts
from pipeline.jobs import RegisteredModel
from pipeline.model_file import LoadedModel

FIRST = (
    *("accuracy", "balanced_accuracy", "f1", "f1_macro", "precision", "recall", "roc_auc", "log_loss"),
    *("brier", "calibration_error"),
    *("r2", "rmse", "mae"),
)
MOST_ROWS = 50


def page(registered: RegisteredModel, loaded: LoadedModel) -> str:
    """One self-contained HTML page: no script, no font and no picture comes from elsewhere."""
    model = registered.model
    drawn = charts(loaded.evaluation, importance(loaded))
    sections = [
        _tiles(model.metrics),
        _warnings(model.warnings),
        "".join(_figure(place, chart) for place, chart in enumerate(drawn)),
        _table("By class", ("class", "precision", "recall", "F1", "rows"), _by_class(loaded.evaluation)),
        _table("All metrics", ("metric", "value"), [(name, _number(value)) for name, value in _ordered(model.metrics)]),
        _table("Candidates", ("candidate", "score", "deviation", "hyperparameters"), _candidates(loaded.evaluation)),
        _table("Hyperparameters", ("name", "value"), sorted(model.hyperparameters.items())),
        _table("Columns", ("column", "type", "role"), [(c.name, c.type, c.role) for c in loaded.columns]),
        _table("Where it comes from", ("what", "value"), _origin(registered)),
    ]
    title = escape(f"{model.project}/{model.model_name} {registered.version}")
    subtitle = escape(f"{model.algorithm} on {model.dataset_name}, predicts {model.target_column}")
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{_CSS}</style></head>'
        f"<body><header><h1>{title}</h1><p>{subtitle}</p></header><main>{''.join(sections)}</main></body></html>\n"
    )


def card(registered: RegisteredModel, loaded: LoadedModel) -> str:
    """A model card in Markdown."""
    model = registered.model
    lines = [
        f"# {model.project}/{model.model_name} {registered.version}",
        "",
        f"`{model.algorithm}` on dataset `{model.dataset_name}`; predicts `{_text(model.target_column)}`"
        + (f", one of {', '.join(f'`{_text(name)}`' for name in model.classes[:20])}." if model.classes else "."),
        "",
        *_markdown("How good it is", ("metric", "value"), [(n, _number(v)) for n, v in _ordered(model.metrics)]),
        *_markdown("By class", ("class", "precision", "recall", "F1", "rows"), _by_class(loaded.evaluation)),
        *_markdown("Columns", ("column", "type", "role"), [(c.name, c.type, str(c.role)) for c in loaded.columns]),
        *_markdown("Hyperparameters", ("name", "value"), sorted(model.hyperparameters.items())),
        *_markdown("Where it comes from", ("what", "value"), _origin(registered)),
    ]
    if model.warnings:
        lines += ["## Warnings", "", *(f"- {_text(warning)}" for warning in model.warnings), ""]
    return "\n".join(lines)


def importance(loaded: LoadedModel) -> list[tuple[str, float]]:
    """How much the model itself makes of each input column, in shares; empty where it does not say.

    Impurity-based for trees, absolute weights of standardised columns for linear models.
    """
    model = loaded.pipeline[-1]
    model = getattr(model, "regressor_", model)
    weights = getattr(model, "feature_importances_", None)
    if weights is None and hasattr(model, "coef_"):
        coefficients: Any = model.coef_
        dense = coefficients.toarray() if hasattr(coefficients, "toarray") else np.asarray(coefficients)
        weights = np.abs(np.atleast_2d(dense)).mean(axis=0)
    if weights is None or not np.sum(weights) > 0:
        return []
    owners = _owners(loaded)
    if len(owners) != len(weights):
        return []
    totals: dict[str, float] = {}
    for name, weight in zip(owners, np.asarray(weights) / np.sum(weights), strict=True):
        totals[name] = totals.get(name, 0.0) + float(weight)
    return list(totals.items())


def _owners(loaded: LoadedModel) -> list[str]:
    """Of each prepared column, the input column that it was made of."""
    first = loaded.pipeline[0]
    if not isinstance(first, ColumnTransformer):
        return [column.name for column in loaded.columns]
    owners: list[str] = []
    for name, part, columns in first.transformers_:
        if name == "remainder":
            continue
        made = part.get_feature_names_out() if len(columns) > 1 else None
        width = first.output_indices_[name]
        if made is None:
            owners += list(columns) * (width.stop - width.start)
        else:
            owners += [max((c for c in columns if str(one).startswith(c)), key=len, default=columns[0]) for one in made]
    return owners


def _ordered(metrics: Mapping[str, float]) -> list[tuple[str, float]]:
    place = {name: number for number, name in enumerate(FIRST)}
    return sorted(metrics.items(), key=lambda one: (place.get(one[0], len(place)), one[0]))


def _by_class(evaluation: Mapping[str, Any]) -> list[tuple[str, ...]]:
    return [
        (name, *(_number(of[key]) for key in ("precision", "recall", "f1")), f"{of['support']:,}")
        for name, of in evaluation.get("per_class", {}).items()
    ]


def _candidates(evaluation: Mapping[str, Any]) -> list[tuple[str, ...]]:
    search = evaluation.get("search")
    if search is None:
        return []
    sign = 1 if search["lower_is_better"] else -1
    scored = [one for one in search["candidates"] if one["mean"] is not None]
    scored.sort(key=lambda one: (-one["rows"], sign * one["mean"]))
    return [
        (
            str(one["number"]),
            _number(one["mean"]),
            _number(one["std"]),
            ", ".join(f"{name}={value}" for name, value in one["hyperparameters"].items()),
        )
        for one in scored
    ]


def _origin(registered: RegisteredModel) -> list[tuple[str, str]]:
    model = registered.model
    return [
        ("name", model.name),
        ("request", registered.request_id),
        ("user", model.user),
        ("trained", f"{model.created_at:%Y-%m-%d %H:%M} UTC in {model.training_time:.1f} s"),
        ("dataset fingerprint", model.dataset_fingerprint),
        ("seed", str(model.seed)),
        ("file sha256", model.artifact_sha256),
        *((name, str(value)) for name, value in model.environment.items()),
        *((f"tag {name}", text) for name, text in model.tags.items()),
    ]


def _tiles(metrics: Mapping[str, float]) -> str:
    first = [(name, value) for name, value in _ordered(metrics) if name in FIRST][:6]
    tiles = "".join(f"<li><b>{_number(value)}</b>{escape(name)}</li>" for name, value in first)
    return f'<ul class="tiles">{tiles}</ul>'


def _warnings(warnings: Sequence[str]) -> str:
    if not warnings:
        return ""
    items = "".join(f"<li>{escape(warning)}</li>" for warning in warnings)
    return f"<section class=warn><h2>Warnings</h2><ul>{items}</ul></section>"


def _figure(place: int, chart: Chart) -> str:
    """Ids are made its own: several pictures in one page must not share them."""
    mark = f"c{place}" + hashlib.sha256(chart.title.encode()).hexdigest()[:4]
    svg = chart.svg.replace('id="', f'id="{mark}').replace("url(#", f"url(#{mark}").replace('href="#', f'href="#{mark}')
    return f"<figure><h2>{escape(chart.title)}</h2>{svg}<figcaption>{escape(chart.says)}</figcaption></figure>"


def _table(title: str, heads: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    if not rows:
        return ""
    cells = "".join(
        "<tr>" + "".join(f"<td>{escape(str(cell))}</td>" for cell in row) + "</tr>" for row in rows[:MOST_ROWS]
    )
    more = f"<p>{len(rows) - MOST_ROWS:,} more.</p>" if len(rows) > MOST_ROWS else ""
    head = "".join(f"<th>{escape(name)}</th>" for name in heads)
    return f"<section><h2>{escape(title)}</h2><div><table><tr>{head}</tr>{cells}</table></div>{more}</section>"


def _markdown(title: str, heads: Sequence[str], rows: Sequence[Sequence[object]]) -> Iterator[str]:
    if not rows:
        return
    yield from (f"## {title}", "", f"| {' | '.join(heads)} |", "|" + "---|" * len(heads))
    for row in rows[:MOST_ROWS]:
        yield "| " + " | ".join(_text(cell).replace("|", "\\|") for cell in row) + " |"
    yield ""


def _text(value: object) -> str:
    """One line without markup: Markdown may hold HTML."""
    return escape(str(value), quote=False).replace("\n", " ")


def _number(value: float) -> str:
    return f"{value:.4g}"


_CSS = """
:root{color-scheme:light}*{box-sizing:border-box}
body{margin:0;font:15px/1.5 system-ui,sans-serif;color:#22303c;background:#f4f6f8}
header{background:#22303c;color:#fff;padding:1.4rem max(1rem,calc(50vw - 36rem))}
h1{margin:0;font-size:1.5rem;overflow-wrap:anywhere}header p{margin:.2rem 0 0;color:#c7d0d8}
main{max-width:74rem;margin:0 auto;padding:1rem;display:grid;gap:1rem;
grid-template-columns:repeat(auto-fit,minmax(min(100%,21rem),1fr))}
.tiles{grid-column:1/-1;list-style:none;margin:0;padding:0;display:grid;gap:.7rem;
grid-template-columns:repeat(auto-fit,minmax(8rem,1fr))}
.tiles li,section,figure{background:#fff;border:1px solid #dfe5ea;border-radius:8px;padding:1rem;margin:0;min-width:0}
.tiles b{display:block;font-size:1.5rem}.warn{grid-column:1/-1;border-color:#edae49;background:#fff8ea}
h2{margin:0 0 .6rem;font-size:1.02rem}figure svg{width:100%;height:auto;display:block}
figcaption{color:#5a6874;font-size:.88rem;margin-top:.4rem}section div{overflow-x:auto}
table{border-collapse:collapse;width:100%;font-size:.88rem}
th,td{text-align:left;padding:.25rem .6rem .25rem 0;border-bottom:1px solid #edf0f3;vertical-align:top;
overflow-wrap:anywhere}td:not(:last-child),th{white-space:nowrap}th{color:#5a6874;font-weight:600}ul{margin:0;padding-left:1.2rem}
"""
