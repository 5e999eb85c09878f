"""Draws SVG charts of a model's quality from the test results in its file; nothing is trained or scored."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from warnings import catch_warnings, simplefilter

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score, roc_curve

from pipeline.evaluation import calibration, calibration_error

MOST_CURVES = 8
"""The most classes that get their own curve; those with the most test rows are chosen."""
MOST_LABELLED = 12
"""Up to this many classes the confusion matrix shows labels and counts."""
MOST_IMPORTANT = 20
LONGEST_COLUMN = 22
INK, SOFT, MAIN, SECOND = "#22303c", "#8a97a3", "#2364aa", "#d1495b"
COLOURS = ("#2364aa", "#d1495b", "#2e933c", "#edae49", "#7b4b94", "#00798c", "#6b4226", "#8a97a3")
STYLE: Any = {
    "svg.hashsalt": "tensorfleet",
    "svg.fonttype": "none",
    "font.family": ["DejaVu Sans"],
    "text.parse_math": False,
    "font.size": 10,
    "legend.fontsize": 9,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": SOFT,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.prop_cycle": f"cycler('color', {list(COLOURS)})",
}


@dataclass(frozen=True, slots=True)
class Chart:
    """A picture with a title and a caption."""

    title: str
    says: str
    svg: str


def charts(evaluation: Mapping[str, Any], importance: Sequence[tuple[str, float]]) -> Sequence[Chart]:
    """All pictures for which the evaluation has figures; `importance` is by input column.

    Equal figures give equal bytes.
    """
    with rc_context(STYLE), catch_warnings():
        simplefilter("ignore")  # warnings such as of letters that the font lacks
        return list(_charts(evaluation, importance))


def _charts(evaluation: Mapping[str, Any], importance: Sequence[tuple[str, float]]) -> Iterator[Chart]:
    tested = evaluation["test_predictions"]
    if "confusion_matrix" in evaluation:
        yield _confusion(np.asarray(evaluation["confusion_matrix"]), evaluation["classes"])
        if tested["scores"] is not None:
            yield from _curves(tested, evaluation["classes"])
            if tested["scores_are"] == "probabilities":
                yield _calibration(tested)
    else:
        yield _fitted(np.asarray(tested["actual"], float), np.asarray(tested["predicted"], float))
        yield _residuals(np.asarray(tested["actual"], float), np.asarray(tested["predicted"], float))
    if importance:
        yield _importance(importance)
    if evaluation.get("importance", {}).get("columns"):
        yield _shuffled(evaluation["importance"])
    if "learning_curve" in evaluation:
        yield _learning(evaluation["learning_curve"])
    if evaluation.get("loss_curve", {}).get("epoch"):
        yield _loss(evaluation["loss_curve"])
    if "search" in evaluation:
        yield _search(evaluation["search"])


def _confusion(counts: NDArray[Any], classes: Sequence[str]) -> Chart:
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)

    def draw(axes: Axes) -> None:
        axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
        places = range(len(classes))
        few = len(classes) <= MOST_LABELLED
        names = [_short(name) if few else "" for name in classes]
        axes.set_xticks(places, names, rotation=40, ha="right", rotation_mode="anchor")
        axes.set_yticks(places, names)
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        axes.set(xlabel="predicted", ylabel="true")
        for row in places if few else ():
            for column in places:
                colour = "white" if shares[row, column] > 0.5 else INK
                axes.text(column, row, f"{counts[row, column]:,}", ha="center", va="center", color=colour)

    right = int(np.trace(counts))
    return _chart("Confusion matrix", f"{right:,} of {int(counts.sum()):,} test rows are on the diagonal.", draw)


def _curves(tested: Mapping[str, Any], classes: Sequence[str]) -> Iterator[Chart]:
    actual, scores, seen = (np.asarray(tested[name]) for name in ("actual", "scores", "seen"))
    drawn = [place for place, code in enumerate(seen) if 0 < (actual == code).sum() < len(actual)]
    drawn = sorted(drawn, key=lambda place: -int((actual == seen[place]).sum()))[:MOST_CURVES]
    if len(seen) == 2:
        drawn = [place for place in drawn if place == 1]
    if not drawn or not np.isfinite(scores).all():
        return

    def roc(axes: Axes) -> None:
        axes.plot([0, 1], [0, 1], color=SOFT, linestyle=":")
        for place in drawn:
            truth = actual == seen[place]
            wrong, right, _ = roc_curve(truth, scores[:, place])
            area = roc_auc_score(truth, scores[:, place])
            axes.plot(wrong, right, label=f"{_short(classes[seen[place]])} ({area:.3f})")
        axes.set(xlabel="false positive rate", ylabel="true positive rate", xlim=(-0.01, 1), ylim=(0, 1.02))
        axes.legend(frameon=False, loc="lower right")

    def precision(axes: Axes) -> None:
        for place in drawn:
            truth = actual == seen[place]
            precise, recalled, _ = precision_recall_curve(truth, scores[:, place])
            mean = average_precision_score(truth, scores[:, place])
            axes.plot(recalled, precise, label=f"{_short(classes[seen[place]])} ({mean:.3f})")
        axes.set(xlabel="recall", ylabel="precision", xlim=(0, 1.01), ylim=(0, 1.02))
        axes.legend(frameon=False, loc="lower left")

    yield _chart("ROC curves", "Each class against the rest, with the area under its curve.", roc)
    yield _chart("Precision and recall", "Each class against the rest, with its average precision.", precision)


def _calibration(tested: Mapping[str, Any]) -> Chart:
    about = (np.asarray(tested["actual"]), np.asarray(tested["scores"], float), np.asarray(tested["seen"]))
    said, true, rows = calibration(*about)
    gap = calibration_error(*about)

    def draw(axes: Axes) -> None:
        axes.plot([0, 1], [0, 1], color=SOFT, linestyle=":")
        axes.plot(said, true, color=MAIN)
        axes.scatter(said, true, s=20 + 180 * rows / rows.max(), color=MAIN, alpha=0.8)
        axes.set(xlabel="probability of the predicted class", ylabel="share that was right")
        axes.set(xlim=(0, 1.03), ylim=(0, 1.03))

    return _chart("Calibration", f"How sure it is, and how often it is right; on average {gap:.3f} apart.", draw)


def _fitted(actual: NDArray[Any], predicted: NDArray[Any]) -> Chart:
    def draw(axes: Axes) -> None:
        ends = [min(actual.min(), predicted.min()), max(actual.max(), predicted.max())]
        axes.plot(ends, ends, color=SOFT, linestyle=":")
        axes.scatter(actual, predicted, s=14, color=MAIN, alpha=0.5, linewidths=0)
        axes.set(xlabel="true", ylabel="predicted")

    return _chart("Predicted and true", "Each point is a test row; on the line it is right.", draw)


def _residuals(actual: NDArray[Any], predicted: NDArray[Any]) -> Chart:
    apart = predicted - actual

    def draw(axes: Axes) -> None:
        axes.axhline(0, color=SOFT, linestyle=":")
        axes.scatter(predicted, apart, s=14, color=SECOND, alpha=0.5, linewidths=0)
        axes.set(xlabel="predicted", ylabel="predicted - true")

    return _chart("Residuals", f"On average {apart.mean():+.4g}; a shape in the cloud is something not learned.", draw)


def _importance(importance: Sequence[tuple[str, float]]) -> Chart:
    weighing = [one for one in importance if one[1] > 0]
    most = sorted(weighing, key=lambda one: -one[1])[:MOST_IMPORTANT][::-1]

    def draw(axes: Axes) -> None:
        axes.barh(range(len(most)), [value for _, value in most], color=MAIN)
        axes.set_yticks(range(len(most)), [_short(name, LONGEST_COLUMN) for name, _ in most])
        axes.set(xlabel="share")

    shown = "" if len(most) == len(importance) else f" The {len(most)} largest of {len(importance):,}."
    says = f"As the model itself weighs them, summed by input column.{shown}"
    return _chart("Importance of columns", says, draw, rows=len(most))


def _shuffled(found: Mapping[str, Any]) -> Chart:
    columns = found["columns"]
    most = sorted(columns, key=lambda one: -one["mean"])[:MOST_IMPORTANT][::-1]

    def draw(axes: Axes) -> None:
        means, deviations = ([one[name] for one in most] for name in ("mean", "std"))
        axes.barh(range(len(most)), means, xerr=deviations, color=MAIN, error_kw={"ecolor": INK, "elinewidth": 0.8})
        axes.set_yticks(range(len(most)), [_short(one["column"], LONGEST_COLUMN) for one in most])
        axes.axvline(0, color=SOFT, linewidth=0.8)
        axes.set(xlabel=f"loss of {found['metric']}")

    shown = "" if len(columns) <= MOST_IMPORTANT else f" The {MOST_IMPORTANT} largest of {len(columns):,}."
    says = (
        f"How much worse {found['metric']} ({found['score']:.4g}) gets on {found['rows']:,} test rows when a column is "
        f"shuffled, {found['repeats']} times each.{shown}"
    )
    return _chart("Importance when shuffled", says, draw, rows=len(most))


def _learning(curve: Mapping[str, Any]) -> Chart:
    rows = [point["rows"] for point in curve["points"]]

    def draw(axes: Axes) -> None:
        for name, colour, label in (("train", SECOND, "rows fitted on"), ("validation", MAIN, "other rows")):
            scores = np.array([point[name] for point in curve["points"]])
            means, deviations = scores.mean(axis=1), scores.std(axis=1)
            axes.fill_between(rows, means - deviations, means + deviations, color=colour, alpha=0.15, linewidth=0)
            axes.plot(rows, means, color=colour, marker="o", markersize=4, label=label)
        axes.set(xlabel="rows fitted on", ylabel=curve["metric"])
        axes.legend(frameon=False, loc="best")

    folds = "one part held back" if curve["folds"] == 1 else f"{curve['folds']} folds"
    says = f"Inside the training part, {folds}: a blue line that still rises asks for more rows."
    return _chart("Learning curve", says, draw)


def _loss(curve: Mapping[str, Any]) -> Chart:
    epochs, score = curve["epoch"], curve.get("validation_score")

    def draw(axes: Axes) -> None:
        axes.plot(epochs, curve["loss"], color=MAIN, label="training rows")
        if curve.get("validation_loss") is not None:
            axes.plot(epochs, curve["validation_loss"], color=SECOND, label="rows held back")
        axes.set(xlabel="epoch", ylabel="loss")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        if score is not None:
            right = axes.twinx()
            right.spines["right"].set_visible(True)
            right.set_ylabel("score of rows held back")
            axes.plot([], [], color=SECOND, label="score of rows held back")
            right.plot(epochs, score, color=SECOND)
        axes.legend(frameon=False, loc="center right")

    return _chart("Loss by epoch", f"{len(epochs):,} epochs; the last loss is {curve['loss'][-1]:.4g}.", draw)


def _search(search: Mapping[str, Any]) -> Chart:
    tried = [one for one in search["candidates"] if one["mean"] is not None]
    numbers = [one["number"] for one in tried]
    means = np.array([one["mean"] for one in tried])
    best = np.minimum.accumulate(means) if search["lower_is_better"] else np.maximum.accumulate(means)
    chosen = next(one for one in tried if one["number"] == search["best"])

    def draw(axes: Axes) -> None:
        axes.errorbar(numbers, means, [one["std"] for one in tried], fmt="o", ms=4, color=SOFT, elinewidth=0.8)
        axes.step(numbers, best, where="post", color=MAIN)
        axes.plot([chosen["number"]], [chosen["mean"]], "o", ms=7, color=SECOND)
        axes.set(xlabel="candidate", ylabel=search["scoring"])
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))

    says = (
        f"{len(tried):,} of {search['planned']:,} candidates, each over the folds; the line is the best so far, "
        f"the red point is candidate {chosen['number']}, which was taken."
    )
    return _chart("Search", says, draw)


def _chart(title: str, says: str, draw: Callable[[Axes], None], *, rows: int = 0) -> Chart:
    """Draw one chart; `rows` is the number of text lines below each other, which may need more height."""
    figure = Figure(figsize=(4.4, max(3.6, 0.9 + 0.2 * rows)), layout="constrained")
    draw(figure.subplots())
    drawn = io.StringIO()
    figure.savefig(drawn, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    svg = drawn.getvalue()
    svg = svg[svg.index("<svg") :]
    return Chart(title, says, re.sub(r' (width|height)="[\d.]+pt"', "", svg, count=2))


def _short(name: object, longest: int = 16) -> str:
    text = str(name)
    return text if len(text) <= longest else f"{text[: longest - 1]}…"
