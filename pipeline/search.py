"""Searches for the best hyperparameters, inside the training part: the test part is never looked at.

Every candidate is scored on the same folds, whose preparation is fitted once for all of them.  What has been scored
is noted in a file as it comes, so that the next attempt of a killed training does not fit it again.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray
from scipy.stats import loguniform, randint, uniform  # type: ignore[import-untyped]
from sklearn.model_selection import ParameterGrid, ParameterSampler

from pipeline.algorithms import Algorithm
from pipeline.algorithms.hyperparameters import Integer, shown
from pipeline.errors import RejectedError, TrainingFailed
from pipeline.evaluation import LOWER_IS_BETTER, METRICS
from pipeline.jobs import HyperparameterValue, Search, SearchDimension

Values = Mapping[str, HyperparameterValue]

STRATEGIES = ("grid", "random", "halving", "optuna")
FOLDS = 5
SAMPLES = 20
"""Candidates where there is no max_candidates, but in a grid, and in a halving search without ranges: those try all."""
MOST_CANDIDATES = 10_000
HALVING_FACTOR = 3
LEAST_ROWS = 20
"""Rows a fold that the first round of a halving search fits on, at least."""
SKLEARN_NAMES = {
    "f1_weighted": "f1",
    "precision_weighted": "precision",
    "recall_weighted": "recall",
    "roc_auc_ovr": "roc_auc",
    "neg_brier_score": "brier",
    "neg_log_loss": "log_loss",
    "neg_mean_absolute_error": "mae",
    "neg_root_mean_squared_error": "rmse",
}
"""Other names of the same metrics, as scikit-learn's scorers have them."""


@dataclass(frozen=True, slots=True)
class Trial:
    """A candidate that was scored.

    Attributes:
        rows: training rows of each fold that it was fitted on.
        scores: one a fold, in the metric's own unit; empty if it could not be fitted, and then `error` says why.
        fit_s: seconds for all folds.
    """

    number: int
    hyperparameters: Values
    rows: int
    scores: Sequence[float]
    fit_s: float
    error: str = ""

    @property
    def mean(self) -> float | None:
        return float(np.mean(self.scores)) if self.scores else None

    def to_document(self) -> dict[str, Any]:
        return {
            "number": self.number,
            "hyperparameters": dict(self.hyperparameters),
            "rows": self.rows,
            "scores": list(self.scores),
            "mean": self.mean,
            "std": float(np.std(self.scores)) if self.scores else None,
            "fit_s": self.fit_s,
            "error": self.error,
        }


@dataclass(frozen=True, slots=True)
class Found:
    """What a search has come to.  `planned` is how many were to be scored; `cut` that the time budget ended it."""

    best: Trial
    trials: Sequence[Trial]
    planned: int
    scoring: str
    cut: bool

    def to_document(self) -> dict[str, Any]:
        return {
            "scoring": self.scoring,
            "lower_is_better": self.scoring in LOWER_IS_BETTER,
            "planned": self.planned,
            "cut": self.cut,
            "best": self.best.number,
            "candidates": [trial.to_document() for trial in self.trials],
        }


@dataclass(frozen=True, slots=True)
class Fold:
    """One fold, prepared: its rows to fit on are shuffled, so that the first of them are a sample."""

    fit_on: Any
    target: NDArray[Any]
    score: Callable[[Any], float | None]
    """Scores a fitted estimator on the fold's other rows; None where the metric is not defined there."""


Fit = Callable[[Values, Any, NDArray[Any]], Any]
"""Fits a new estimator with these hyperparameters on prepared rows and their target."""


def check(search: Search, algorithm: Algorithm, given: Values) -> list[str]:
    """What is wrong with a search, and what would be right."""
    wrong = []
    if search.strategy not in STRATEGIES:
        wrong.append(f"search.strategy takes one of {', '.join(STRATEGIES)}, not {shown(search.strategy)}")
    elif search.strategy == "optuna" and find_spec("optuna") is None:
        wrong.append("search.strategy optuna needs a worker with the extra optuna; random searches without it")
    if not search.space:
        wrong.append("search.space names no hyperparameter")
    if len(search.space) > len(algorithm.hyperparameters):
        return [*wrong, f"search.space takes at most the {len(algorithm.hyperparameters)} that {algorithm.name} has"]
    names = Counter(dimension.name for dimension in search.space)
    wrong += [f"search.space names {name} more than once" for name, times in names.items() if times > 1]
    wrong += [f"{name} is both searched and given in hyperparameters" for name in names if name in given]
    for dimension in search.space:
        wrong += _dimension(dimension, search.strategy, algorithm)
    if search.scoring is not None and scoring(search, algorithm) not in METRICS[algorithm.task]:
        wrong.append(f"search.scoring takes one of {', '.join(METRICS[algorithm.task])}, not {shown(search.scoring)}")
    if search.cv is not None and not 2 <= search.cv <= 20:
        wrong.append(f"search.cv takes 2 to 20 folds, not {search.cv}")
    if search.max_candidates is not None and not 1 <= search.max_candidates <= MOST_CANDIDATES:
        wrong.append(f"search.max_candidates takes 1 to {MOST_CANDIDATES:,}, not {search.max_candidates:,}")
    if search.time_budget_s is not None and not search.time_budget_s > 0:
        wrong.append(f"search.time_budget_s takes seconds above 0, not {search.time_budget_s}")
    if not wrong and planned(search, algorithm) > MOST_CANDIDATES:
        wrong.append(
            f"there would be {planned(search, algorithm):,} candidates, above {MOST_CANDIDATES:,}; "
            "set search.max_candidates, or search at random"
        )
    return wrong


def run(
    search: Search,
    algorithm: Algorithm,
    seed: int,
    folds: Sequence[Fold],
    fit: Fit,
    *,
    notes: Path,
    made_on: str,
    report: Callable[[int, int, str], None],
    clock: Callable[[], float] = time.monotonic,
) -> Found:
    """Score candidates until there are no more, or the time budget is over; what is in `notes` counts as scored.

    `made_on` is one line that says on what scores depend beside the request: notes made on something else do not count.

    `report` is told how many of how many candidates are scored, and the best so far.  Raises TrainingFailed if none
    could be fitted.
    """
    scorer = _Scorer(scoring(search, algorithm), folds, fit, notes, made_on.encode(), report)
    until = None if search.time_budget_s is None else clock() + search.time_budget_s
    in_all = 0
    cut = False
    for batch in _batches(search, algorithm, seed, scorer):
        in_all = max(in_all, len(scorer.trials) + len(batch.candidates) + batch.to_come)
        for candidate in batch.candidates:
            if until is not None and clock() >= until and scorer.best is not None:
                cut = True
                break
            scorer.score(candidate, batch.rows, in_all)
        if cut:
            break
    if scorer.best is None:
        why = next((trial.error for trial in scorer.trials if trial.error), "the metric is not defined on any fold")
        raise TrainingFailed(f"none of {len(scorer.trials)} candidates could be scored: {why}")
    return Found(scorer.best, tuple(scorer.trials), in_all, scorer.scoring, cut)


def planned(search: Search, algorithm: Algorithm) -> int:
    """How many candidates there are to be, in the first round where there are several."""
    size = _size(search, algorithm)
    all_of_them = size if search.strategy in ("grid", "halving") else 0
    wanted = search.max_candidates or all_of_them or SAMPLES
    return min(wanted, size) if size and search.strategy != "optuna" else wanted


@dataclass(frozen=True, slots=True)
class _Batch:
    candidates: Sequence[Values]
    rows: int | None = None
    """Rows of each fold to fit on; None for all."""
    to_come: int = 0


@dataclass(slots=True)
class _Scorer:
    scoring: str
    folds: Sequence[Fold]
    fit: Fit
    notes: Path
    made_on: bytes
    report: Callable[[int, int, str], None]
    trials: list[Trial] = field(default_factory=list)
    best: Trial | None = None
    _known: dict[bytes, dict[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Notes of other data or another environment are none, and neither is a line that was cut off."""
        first, *lines = self.notes.read_bytes().split(b"\n")[:-1] if self.notes.exists() else [b""]
        if first != self.made_on:
            self.notes.write_bytes(self.made_on + b"\n")
            return
        self.notes.write_bytes(b"".join(line + b"\n" for line in (first, *lines)))
        for note in map(orjson.loads, lines):
            self._known[_key(note["hyperparameters"], note["rows"])] = note

    def score(self, candidate: Values, rows: int | None, planned: int) -> None:
        """Fit and score it on every fold, unless that is known, and note what came out."""
        number = len(self.trials) + 1
        used = max(len(fold.target) for fold in self.folds) if rows is None else rows
        known = self._known.get(_key(candidate, used))
        if known is not None:
            trial = Trial(number, candidate, used, known["scores"], known["fit_s"], known["error"])
        else:
            trial = self._fitted(number, candidate, used)
            note = trial.to_document()
            with self.notes.open("ab") as notes:
                notes.write(orjson.dumps(note) + b"\n")
            self._known[_key(candidate, used)] = note
        self.trials.append(trial)
        if self.gain(trial) is not None and (self.best is None or self._better(trial, self.best)):
            self.best = trial
        so_far = "none yet" if self.best is None else f"{self.best.mean:.4g}"
        self.report(number, planned, f"candidate {number:,} of {planned:,}; best {self.scoring} {so_far}")

    def gain(self, trial: Trial) -> float | None:
        """The mean over the folds, so that more is better; None if it could not be scored."""
        if trial.mean is None:
            return None
        return -trial.mean if self.scoring in LOWER_IS_BETTER else trial.mean

    def _better(self, trial: Trial, best: Trial) -> bool:
        """More rows count first: a halving search's last round decides."""
        new, old = self.gain(trial), self.gain(best)
        assert new is not None
        assert old is not None
        return trial.rows > best.rows or (trial.rows == best.rows and new > old)

    def _fitted(self, number: int, candidate: Values, rows: int) -> Trial:
        begun = time.perf_counter()
        scores = []
        try:
            for fold in self.folds:
                estimator = self.fit(candidate, fold.fit_on[:rows], fold.target[:rows])
                scores.append(fold.score(estimator))
        except MemoryError:
            raise
        except Exception as error:  # noqa: BLE001 - a candidate that cannot be fitted loses, whatever a library raises
            return Trial(number, candidate, rows, (), time.perf_counter() - begun, f"{type(error).__name__}: {error}")
        fit_s = time.perf_counter() - begun
        defined = [score for score in scores if score is not None and np.isfinite(score)]
        if len(defined) < len(scores):
            return Trial(number, candidate, rows, (), fit_s, f"{self.scoring} is not defined on every fold")
        return Trial(number, candidate, rows, defined, fit_s)


def _batches(search: Search, algorithm: Algorithm, seed: int, scorer: _Scorer) -> Iterator[_Batch]:
    if search.strategy == "optuna":
        yield from _optuna(search, algorithm, seed, scorer)
    elif search.strategy == "halving":
        yield from _halving(search, algorithm, seed, scorer)
    else:
        yield _Batch(_candidates(search, algorithm, seed))


def _candidates(search: Search, algorithm: Algorithm, seed: int) -> list[dict[str, Any]]:
    """Every one of a grid, or a sample where there are more than asked for, or a range has no steps."""
    size, wanted = _size(search, algorithm), planned(search, algorithm)
    if size and wanted >= size:
        return list(ParameterGrid({one.name: _values(one, algorithm) for one in search.space}))
    space = {one.name: _values(one, algorithm) or _distribution(one, algorithm) for one in search.space}
    drawn = list(ParameterSampler(space, wanted, random_state=seed % 2**32))
    return list({_key(candidate, 0): candidate for candidate in map(_plain, drawn)}.values())


def _halving(search: Search, algorithm: Algorithm, seed: int, scorer: _Scorer) -> Iterator[_Batch]:
    """Each round keeps the best third for three times the rows; the last one is fitted on all of them."""
    left: Sequence[Values] = _candidates(search, algorithm, seed)
    all_rows = max(len(fold.target) for fold in scorer.folds)
    rounds = 1
    while len(left) > HALVING_FACTOR**rounds and all_rows // HALVING_FACTOR**rounds >= LEAST_ROWS:
        rounds += 1
    sizes = [len(left)]
    for _ in range(1, rounds):
        sizes.append(-(-sizes[-1] // HALVING_FACTOR))
    for place in range(rounds):
        rows = all_rows // HALVING_FACTOR ** (rounds - 1 - place)
        begun = len(scorer.trials)
        yield _Batch(left, rows, sum(sizes[place + 1 :]))
        ranked = sorted(
            (trial for trial in scorer.trials[begun:] if trial.scores),
            key=lambda trial: -(scorer.gain(trial) or 0.0),
        )
        left = [trial.hyperparameters for trial in ranked[: sizes[place + 1] if place + 1 < rounds else 0]]
        if not left:
            return


def _optuna(search: Search, algorithm: Algorithm, seed: int, scorer: _Scorer) -> Iterator[_Batch]:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=seed % 2**32))
    wanted = planned(search, algorithm)
    space = {one.name: _optuna_distribution(one, algorithm) for one in search.space}
    for place in range(wanted):
        trial = study.ask(space)
        candidate = {
            one.name: values[trial.params[one.name]] if (values := _values(one, algorithm)) else trial.params[one.name]
            for one in search.space
        }
        yield _Batch([candidate], None, wanted - place - 1)
        gain = scorer.gain(scorer.trials[-1])
        study.tell(trial, gain, state=None if gain is not None else optuna.trial.TrialState.FAIL)


def _optuna_distribution(dimension: SearchDimension, algorithm: Algorithm) -> Any:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    values = _values(dimension, algorithm)
    if values:
        return CategoricalDistribution(range(len(values)))
    low, high = _ends(dimension, algorithm)
    kind = IntDistribution if isinstance(low, int) else FloatDistribution
    return kind(low, high, log=bool(dimension.log))


def scoring(search: Search, algorithm: Algorithm) -> str:
    """The metric that decides, by our own name for it."""
    default = "accuracy" if algorithm.task == "classification" else "r2"
    return SKLEARN_NAMES.get(search.scoring or default, search.scoring or default)


def _dimension(dimension: SearchDimension, strategy: str, algorithm: Algorithm) -> list[str]:
    name = dimension.name
    if name not in algorithm.hyperparameters:
        try:
            algorithm.resolve({name: None}, 0)  # says what there is instead
        except RejectedError as rejected:
            return [f"search.space: {rejected}"]
        return [f"search.space: {name} cannot be searched"]
    wrong = list(_range_problems(dimension, strategy))
    if not wrong:
        try:
            values = _values(dimension, algorithm)
            if not values:
                _ends(dimension, algorithm)
        except ValueError as error:
            wrong = [str(error)]
    return [f"search.space: {name} {one}" for one in wrong]


def _range_problems(dimension: SearchDimension, strategy: str) -> Iterator[str]:
    low, high, step = dimension.low, dimension.high, dimension.step
    if dimension.values is not None:
        if not dimension.values:
            yield "has no values"
        if (low, high, step) != (None, None, None):
            yield "has both values and a range; give one of them"
        return
    if low is None or high is None or not (math.isfinite(low) and math.isfinite(high)):
        yield "needs values, or low and high"
        return
    if not low <= high:
        yield f"goes from {low:g} to {high:g}; low is to be the lesser"
    if step is not None and not (step > 0 and math.isfinite(step)):
        yield f"has the step {step:g}, which is to be above 0"
    elif step is not None and low <= high and (high - low) / step >= MOST_CANDIDATES:
        yield f"has more than {MOST_CANDIDATES:,} steps"
    if dimension.log and step is not None:
        yield "has both step and log; give one of them"
    if dimension.log and not low > 0:
        yield "is drawn on a logarithmic scale, which needs a low above 0"
    if strategy == "grid" and step is None and low != high:
        yield "needs values or a step in a grid"


def _ends(dimension: SearchDimension, algorithm: Algorithm) -> tuple[Any, Any]:
    """Low and high, read as one kind, so that 1 to 10 are counts, and 0.1 to 1 shares.

    Raises ValueError where no kind takes both.
    """
    parameter = algorithm.hyperparameters[dimension.name]
    low, high = float(dimension.low or 0), float(dimension.high or 0)
    whole = low.is_integer() and high.is_integer()
    kinds = sorted(parameter.kinds, key=lambda kind: isinstance(kind, Integer) != whole)
    for kind in kinds:
        try:
            return kind.read(low), kind.read(high)
        except ValueError:
            continue
    raise ValueError(f"takes {parameter.accepts}, which a range from {low:g} to {high:g} is not")


def _values(dimension: SearchDimension, algorithm: Algorithm) -> list[Any]:
    """What is tried, one by one; empty for a range without steps.  Raises ValueError for what cannot be tried."""
    parameter = algorithm.hyperparameters[dimension.name]
    if dimension.values is not None:
        return _distinct([parameter.read(value) for value in dimension.values])
    low, high = _ends(dimension, algorithm)
    if low == high:
        return [low]
    if dimension.step is None:
        return []
    count = math.floor((high - low) / dimension.step * (1 + 1e-12)) + 1
    values = [min(low + place * dimension.step, high) for place in range(count)]
    if isinstance(low, int):
        if not float(dimension.step).is_integer():
            raise ValueError(f"counts in whole numbers, which the step {dimension.step:g} is not")
        values = [int(value) for value in values]
    return _distinct(values)


def _distinct(values: list[Any]) -> list[Any]:
    return list({orjson.dumps(value): value for value in values}.values())


def _distribution(dimension: SearchDimension, algorithm: Algorithm) -> Any:
    low, high = _ends(dimension, algorithm)
    if isinstance(low, int) and not dimension.log:
        return randint(low, high + 1)
    if dimension.log:
        drawn = loguniform(low, high)
        return _Whole(drawn) if isinstance(low, int) else drawn
    return uniform(low, high - low)


@dataclass(frozen=True, slots=True)
class _Whole:
    """Rounds what another distribution draws."""

    drawn: Any

    def rvs(self, random_state: Any = None) -> int:
        return round(float(self.drawn.rvs(random_state=random_state)))


def _size(search: Search, algorithm: Algorithm) -> int:
    """How many candidates a grid has; 0 where a range has no steps."""
    size = 1
    for dimension in search.space:
        size *= len(_values(dimension, algorithm))
    return size


def _plain(candidate: Mapping[str, Any]) -> dict[str, Any]:
    """Without numpy's numbers."""
    return {name: value.item() if isinstance(value, np.generic) else value for name, value in candidate.items()}


def _key(candidate: Mapping[str, Any], rows: int) -> bytes:
    return orjson.dumps([candidate, rows], option=orjson.OPT_SORT_KEYS)
