"""The report of a model: one self-contained HTML page, or a model card in Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from pipeline.features.preparation import owners
from pipeline.jobs import RegisteredModel, SplitSummary, TrainingRequest
from pipeline.model_files.model_file import LoadedModel, ModelContent
from pipeline.reports import snippets
from pipeline.reports.charts import Chart, charts
from pipeline.reports.pages import (
    code,
    document,
    figure,
    markdown,
    markdown_code,
    number,
    ordered,
    plain,
    side_by_side,
    table,
    tiles,
    warning,
)
from pipeline.reports.version_comparison import apart, differences

File = LoadedModel | ModelContent
"""A model file that was read, or one that will be written."""
Rows = list[tuple[str, ...]]

_USE = "How to use it"
_CLASSES = ("class", "precision", "recall", "F1", "rows")
_CANDIDATES = ("candidate", "score", "deviation", "hyperparameters")
_IMPORTANCE = ("column", "loss", "deviation")


def page(registered: RegisteredModel, loaded: LoadedModel, production: RegisteredModel | None = None) -> str:
    """One self-contained HTML page: it loads no script, font or picture from elsewhere.

    If another version is in `production`, the page compares this one with it.
    """
    return _page(_About.registered(registered, loaded), loaded, _Rival.of(registered, production))


def card(registered: RegisteredModel, loaded: LoadedModel, production: RegisteredModel | None = None) -> str:
    """A model card in Markdown."""
    return _card(_About.registered(registered, loaded), loaded, _Rival.of(registered, production))


def pages(request: TrainingRequest, content: ModelContent) -> dict[str, str]:
    """Page and card for the model file itself, by file name; equal content gives equal pages, without a version."""
    about = _About.training(request, content)
    return {"report.html": _page(about, content, None), "model_card.md": _card(about, content, None)}


def pictures(loaded: File) -> Sequence[Chart]:
    """All charts for which the file has figures."""
    return charts(loaded.evaluation, importance(loaded))


@dataclass(frozen=True, slots=True)
class _About:
    """What a report says of a model beyond the measurements in its file."""

    title: str
    algorithm: str
    dataset_name: str
    target_column: str
    classes: Sequence[str]
    metrics: Mapping[str, float]
    hyperparameters: Mapping[str, Any]
    warnings: Sequence[str]
    origin: Rows
    programs: Mapping[str, str]

    @classmethod
    def registered(cls, registered: RegisteredModel, loaded: LoadedModel) -> Self:
        model = registered.model
        return cls(
            title=f"{model.project}/{model.model_name} {registered.version}",
            algorithm=model.algorithm,
            dataset_name=model.dataset_name,
            target_column=model.target_column,
            classes=model.classes,
            metrics=model.metrics,
            hyperparameters=model.hyperparameters,
            warnings=model.warnings,
            origin=[
                ("name", model.name),
                ("request", registered.request_id),
                ("user", model.user),
                ("trained", f"{model.created_at:%Y-%m-%d %H:%M} UTC in {model.training_time:.1f} s"),
                ("dataset fingerprint", model.dataset_fingerprint),
                *([("split", str(model.split_summary))] if model.split_summary else []),
                ("seed", str(model.seed)),
                ("file sha256", model.artifact_sha256),
                *_made_with(model.environment, model.tags),
            ],
            programs=snippets.of_version(registered, loaded),
        )

    @classmethod
    def training(cls, request: TrainingRequest, content: ModelContent) -> Self:
        """Leaves out what is unknown before the file is written, and what differs between runs."""
        manifest = content.manifest
        return cls(
            title=request.model_key,
            algorithm=manifest["algorithm"],
            dataset_name=manifest["dataset"]["name"],
            target_column=content.target_column,
            classes=content.classes,
            metrics=content.evaluation["metrics"],
            hyperparameters=manifest["hyperparameters"],
            warnings=manifest["warnings"],
            origin=[
                ("request", request.request_id),
                ("user", request.user),
                ("requested", f"{request.requested_at:%Y-%m-%d %H:%M} UTC"),
                ("dataset fingerprint", manifest["dataset"]["fingerprint"]),
                ("split", str(SplitSummary.from_document(manifest["split"]))),
                ("seed", str(request.seed)),
                *_made_with(manifest["environment"], request.tags),
            ],
            programs=snippets.of_file(content),
        )


@dataclass(frozen=True, slots=True)
class _Rival:
    """A comparison of this version with the one in production."""

    title: str
    heads: tuple[str, ...]
    rows: Rows
    marks: Mapping[tuple[int, int], str]
    says: str

    @classmethod
    def of(cls, here: RegisteredModel, there: RegisteredModel | None) -> Self | None:
        if there is None or there.version_number == here.version_number:
            return None
        found = differences(here, there)
        reasons = apart([here, there])
        judged = ["" if one.better is None or reasons else "better" if one.better else "worse" for one in found]
        return cls(
            title=f"Against production ({there.version})",
            heads=("metric", here.version, there.version, "difference"),
            rows=[
                (one.metric, number(one.here), number(one.there), f"{one.by:+.3g} {word}" if one.by else "0")
                for one, word in zip(found, judged, strict=True)
            ],
            marks={(row, 3): word for row, word in enumerate(judged) if word},
            says=f"These figures are not comparable: {'; '.join(reasons)}."
            if reasons
            else "Both were tested on the same rows of the same dataset.",
        )


def _page(about: _About, loaded: File, rival: _Rival | None) -> str:
    against = ""
    if rival is not None:
        against = table(rival.title, rival.heads, rival.rows, says=rival.says, marks=rival.marks, wide=True)
        against = against or warning(rival.title, ["No metric was measured of both.", rival.says])
    sections = [
        tiles(about.metrics),
        warning("Warnings", about.warnings),
        *(figure(place, chart) for place, chart in enumerate(pictures(loaded))),
        against,
        table("Candidates", _CANDIDATES, _candidates(loaded.evaluation), wide=True),
        code(_USE, about.programs),
        side_by_side(
            [
                table("By class", _CLASSES, _by_class(loaded.evaluation)),
                table("All metrics", ("metric", "value"), [(name, number(of)) for name, of in ordered(about.metrics)]),
                table("Columns", ("column", "type", "role"), [(c.name, c.type, c.role) for c in loaded.columns]),
                table("Hyperparameters", ("name", "value"), sorted(about.hyperparameters.items())),
                table("Where it comes from", ("what", "value"), about.origin),
            ]
        ),
    ]
    subtitle = f"{about.algorithm} on {about.dataset_name}, predicts {about.target_column}"
    return document(about.title, subtitle, sections)


def _card(about: _About, loaded: File, rival: _Rival | None) -> str:
    lines = [
        f"# {about.title}",
        "",
        f"`{about.algorithm}` on dataset `{about.dataset_name}`; predicts `{plain(about.target_column)}`"
        + (f", one of {', '.join(f'`{plain(name)}`' for name in about.classes[:20])}." if about.classes else "."),
        "",
        *markdown_code(_USE, about.programs),
        *markdown("How good it is", ("metric", "value"), [(n, number(v)) for n, v in ordered(about.metrics)]),
        *(() if rival is None else markdown(rival.title, rival.heads, rival.rows, says=rival.says)),
        *markdown("By class", _CLASSES, _by_class(loaded.evaluation)),
        *markdown("Importance of columns when shuffled", _IMPORTANCE, _importance(loaded.evaluation)),
        *markdown("Columns", ("column", "type", "role"), [(c.name, c.type, str(c.role)) for c in loaded.columns]),
        *markdown("Hyperparameters", ("name", "value"), sorted(about.hyperparameters.items())),
        *markdown("Where it comes from", ("what", "value"), about.origin),
    ]
    if about.warnings:
        lines += ["## Warnings", "", *(f"- {plain(one)}" for one in about.warnings), ""]
    return "\n".join(lines)


def importance(loaded: File) -> list[tuple[str, float]]:
    """The model's own importance of each input column, as shares; empty if it gives none.

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
    names = owners(loaded.pipeline, loaded.columns)
    if len(names) != len(weights):
        return []
    totals: dict[str, float] = {}
    for name, weight in zip(names, np.asarray(weights) / np.sum(weights), strict=True):
        totals[name] = totals.get(name, 0.0) + float(weight)
    return list(totals.items())


def _by_class(evaluation: Mapping[str, Any]) -> Rows:
    return [
        (name, *(number(of[key]) for key in ("precision", "recall", "f1")), f"{of['support']:,}")
        for name, of in evaluation.get("per_class", {}).items()
    ]


def _candidates(evaluation: Mapping[str, Any]) -> Rows:
    search = evaluation.get("search")
    if search is None:
        return []
    sign = 1 if search["lower_is_better"] else -1
    scored = [one for one in search["candidates"] if one["mean"] is not None]
    scored.sort(key=lambda one: (-one["rows"], sign * one["mean"]))
    return [
        (
            str(one["number"]),
            number(one["mean"]),
            number(one["std"]),
            ", ".join(f"{name}={value}" for name, value in one["hyperparameters"].items()),
        )
        for one in scored
    ]


def _importance(evaluation: Mapping[str, Any]) -> Rows:
    """The largest loss first."""
    columns = sorted(evaluation.get("importance", {}).get("columns", ()), key=lambda one: -one["mean"])
    return [(one["column"], number(one["mean"]), number(one["std"])) for one in columns]


def _made_with(environment: Mapping[str, str], tags: Mapping[str, str]) -> Rows:
    return [*environment.items(), *((f"tag {name}", tags[name]) for name in sorted(tags))]
