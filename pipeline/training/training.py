"""Trains one model in a trainer: load, prepare, fit, evaluate, write the model file."""

from __future__ import annotations

import time
import warnings as python_warnings
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Any, TypeVar
from uuid import uuid4

import numpy as np
import orjson
import sklearn
from cachetools import LRUCache
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.pipeline import Pipeline

from pipeline import algorithms, evaluation
from pipeline.algorithms import Algorithm
from pipeline.datasets import Dataset
from pipeline.deep.classifier import DeepClassifier
from pipeline.deep.epoch_state import EpochWatch
from pipeline.environment import environment
from pipeline.errors import RejectedError, TrainingFailed, said_by
from pipeline.features.examples import Examples, examples
from pipeline.features.frames import read_frame
from pipeline.features.leakage import giveaway
from pipeline.features.preparation import (
    Steps,
    apply_steps,
    check_range,
    fit_pipeline,
    fit_steps,
    preparation,
    remember_names,
    take,
)
from pipeline.features.splitting import Split, folds, split, summary
from pipeline.jobs import HyperparameterValue, Search, SplitSummary, TrainingRequest, event_id, fields_of
from pipeline.metrics import optimised
from pipeline.model_files import model_file
from pipeline.reports import diagnostics
from pipeline.search import running
from pipeline.search.fitting import Fold, fit_algorithm, only_the_users, score_on
from pipeline.search.scorer import SearchResult
from pipeline.training.trained import EPOCH_STATE, MOST_WARNINGS, SEARCH_NOTES, Trained

T = TypeVar("T")

SUSPICIOUS_SCORE = 0.99
SLICES = 20
"""A large forest is fitted in this many slices, to report progress."""
WORTH_SLICING = 200_000
"""Rows times trees from which a forest is sliced; that many take about half a second."""
SEARCH_SHARE = 0.95
"""The share of the progress that the search takes in a training with a search."""

_EXAMPLES: LRUCache[Hashable, Examples] = LRUCache(32 * 1024 * 1024, getsizeof=lambda data: data.size_bytes)
"""One cache per trainer process: successive requests often use the same small dataset."""
_SPLITS: LRUCache[Hashable, Split] = LRUCache(4 * 1024 * 1024, getsizeof=lambda parts: parts.size_bytes)
"""The same for how it was split: requests that leave the seed out have the same one."""


class Stage(StrEnum):
    """The stages of a training; the names are states in progress events."""

    LOADING = "LOADING"
    TRAINING = "TRAINING"
    EVALUATING = "EVALUATING"


Report = Callable[[Stage, float | None, str], None]
"""Called with the stage, the share done (0 to 1, None if unknown), and a message."""


def train(
    request: TrainingRequest, dataset: Dataset, spool: Path, report: Report, dask_scheduler: str | None = None
) -> Trained:
    """Train `request` on `dataset` and write the model file into the directory `spool`, under a unique name.

    Raises RejectedError if request or data are wrong, TrainingFailed if the estimator raised, and MemoryError.  With
    `dask_scheduler` a search runs on that cluster, with the same result.  Equal request, data and environment give the
    same file, bit for bit, whatever `report` does.
    """
    started = time.perf_counter()
    algorithm = algorithms.find(request.algorithm)
    algorithm.resolve(request.hyperparameters, request.seed, alone=request.search is not None)

    def read() -> Examples:
        report(Stage.LOADING, None, f"reading dataset {dataset.name}")
        return examples(request, read_frame(dataset), dataset.target_column, algorithm)

    key = _key(request, dataset, algorithm)
    data = _kept(_EXAMPLES, key, read)
    request = replace(request, hyperparameters=algorithm.with_shape(request.hyperparameters, data.shape))
    hyperparameters = algorithm.resolve(request.hyperparameters, request.seed, alone=request.search is not None)
    asked = (request.evaluation, request.seed)
    parts = _kept(_SPLITS, (key, *asked), lambda: split(data, *asked))
    algorithm.check_columns(hyperparameters, len(data.columns), data.not_numeric)
    job = _Job(request, dataset, algorithm, hyperparameters, data, parts, report, spool, dask_scheduler)
    with python_warnings.catch_warnings(record=True) as caught, sklearn.config_context(skip_parameter_validation=True):
        only_the_users(python_warnings.simplefilter)
        job, pipeline, metrics, details = _failing_readably(job)
    said = _distinct(
        [*data.warnings, *parts.warnings, *_suspicions(job, metrics), *job.said, *(str(w.message) for w in caught)]
    )
    content = _content(job, pipeline, details, said)
    if request.evaluation.report:
        try:
            content = _with_pages(job, content)
        except MemoryError:
            raise
        except Exception as error:  # noqa: BLE001 - the model is good whatever fails in its report
            said = [*said, f"the report could not be drawn: {said_by(error)}"]
            content = _content(job, pipeline, details, said)
    written = model_file.write(content, spool / f"{uuid4().hex}.zip")
    return Trained(
        model_file=written.path,
        sha256=written.sha256,
        size_bytes=written.size_bytes,
        artifact_format=model_file.ARTIFACT_FORMAT,
        model_type=algorithm.task,
        hyperparameters=job.hyperparameters,
        metrics=metrics,
        dataset_fingerprint=dataset.fingerprint,
        features=[column.name for column in data.columns],
        target_column=data.target_column,
        classes=_texts(data.classes),
        training_time=time.perf_counter() - started,
        signature=[column.to_document() for column in data.columns],
        environment=environment(algorithm.framework),
        warnings=said,
        split=parts.fingerprint(data.target_column),
        reproducible=_reproducible(job),
        split_summary=job.split_summary,
    )


def _key(request: TrainingRequest, dataset: Dataset, algorithm: Algorithm) -> Hashable:
    """What the examples depend on."""
    asked = (request.target_column, request.features, request.evaluation.group_column, request.evaluation.time_column)
    return dataset.fingerprint, dataset.path, dataset.target_column, algorithm.task, *asked


def _kept(cache: LRUCache[Hashable, T], key: Hashable, make: Callable[[], T]) -> T:
    """The value with this key from the cache; a new one is kept if it has room."""
    if (known := cache.get(key)) is not None:
        return known
    made = make()
    if cache.getsizeof(made) <= cache.maxsize:
        cache[key] = made
    return made


@dataclass(frozen=True, slots=True)
class _Job:
    request: TrainingRequest
    dataset: Dataset
    algorithm: Algorithm
    hyperparameters: Mapping[str, HyperparameterValue]
    data: Examples
    parts: Split
    report: Report
    spool: Path
    dask_scheduler: str | None = None
    said: tuple[str, ...] = ()

    @property
    def split_summary(self) -> SplitSummary:
        return summary(self.data, self.request.evaluation, self.parts)

    @property
    def made_on(self) -> str:
        """The dataset's fingerprint and the environment, one line: with the request, what the steps depend on."""
        on = [self.dataset.fingerprint, environment(self.algorithm.framework)]
        return orjson.dumps(on, option=orjson.OPT_SORT_KEYS).decode()


def _failing_readably(job: _Job) -> tuple[_Job, Pipeline, dict[str, float], dict[str, Any]]:
    try:
        return _fit_and_evaluate(job)
    except (RejectedError, TrainingFailed, MemoryError):
        raise
    except Exception as error:
        raise TrainingFailed(f"{job.algorithm.name} could not be trained: {said_by(error)}") from error


def _fit_and_evaluate(job: _Job) -> tuple[_Job, Pipeline, dict[str, float], dict[str, Any]]:
    data, parts = job.data, job.parts
    rows = take(data.rows, parts.train)
    steps = preparation(data.columns, rows, needs_dense=job.algorithm.needs_dense, algorithm=job.algorithm.name)
    found = None
    if job.request.search is not None:
        found = _search(job, job.request.search, steps)
        job = _with_the_best(job, found)
    done = 0.0 if found is None else SEARCH_SHARE
    job.report(Stage.TRAINING, done, f"fitting {job.algorithm.name} on {len(parts.train):,} rows")
    n_classes = _n_classes(data, parts.train)
    pipeline = Pipeline([*steps, ("model", job.algorithm.build(job.hyperparameters, n_classes))])
    unfitted = clone(pipeline) if job.request.evaluation.cv or job.request.evaluation.report else None
    prepared = fit_steps(steps, rows, data.target[parts.train])
    check_range([step for _, step in steps], prepared, data.columns)
    _fit(job, pipeline[-1], prepared, data.target[parts.train])
    job.report(Stage.EVALUATING, 0.0, f"testing on {len(parts.test):,} rows")
    metrics, details = _evaluate(job, pipeline, prepared)
    remember_names(pipeline, data.columns)
    if unfitted is not None and job.request.evaluation.cv:
        metrics.update(_in_folds(job, unfitted))
    if found is not None:
        metrics["search_score"] = found.best.mean or 0.0
        metrics["search_candidates"] = float(len(found.trials))
        details["search"] = found.to_document()
    curve = evaluation.loss_curve(pipeline[-1])
    if curve is not None:
        details["loss_curve"] = curve
    if unfitted is not None and job.request.evaluation.report:
        details |= _studies(job, pipeline, unfitted)
    return job, pipeline, metrics, {"metrics": metrics, **details}


def _reproducible(job: _Job) -> bool:
    """Whether the training is repeatable; on GPUs it is not, since they add in any order."""
    return not job.said and environment(job.algorithm.framework)["device"] == "cpu"


def _n_classes(data: Examples, places: NDArray[np.intp]) -> int:
    return len(np.unique(data.codes[places])) if len(data.classes) else 0


def _search(job: _Job, asked: Search, steps: Steps) -> SearchResult:
    data, algorithm, seed = job.data, job.algorithm, job.request.seed
    evaluated = replace(job.request.evaluation, cv=asked.cv or running.FOLDS)
    by_time = evaluated.time_column is not None
    prepared = []
    for place, (fit, score) in enumerate(folds(data, evaluated, job.parts.train, seed)):
        rows = fit if by_time else np.random.default_rng([seed % 2**32, place]).permutation(fit)
        prepared.append(_prepared_fold(job, steps, rows, score, optimised(asked.scoring, algorithm.task)))
        job.report(Stage.TRAINING, 0.0, f"preparing fold {place + 1} of {evaluated.cv}")

    def report(done: int, of: int, message: str) -> None:
        job.report(Stage.TRAINING, SEARCH_SHARE * done / of, message)

    fit_one = partial(fit_algorithm, algorithm.name, job.request.hyperparameters, seed)
    with running.fitting_on(None if algorithm.framework else job.dask_scheduler) as fitting:
        return running.run(
            asked,
            algorithm,
            seed,
            prepared,
            fit_one,
            notes=job.spool / SEARCH_NOTES,
            made_on=job.made_on,
            report=report,
            fitting=fitting,
        )


def _prepared_fold(job: _Job, steps: Steps, fit: NDArray[np.intp], score: NDArray[np.intp], metric: str) -> Fold:
    data = job.data
    rows, scored = take(data.rows, fit), take(data.rows, score)
    fresh = [(name, clone(step)) for name, step in steps]
    rows, scored = fit_steps(fresh, rows, data.target[fit]), apply_steps(fresh, scored)
    for prepared in (rows, scored):
        check_range([step for _, step in fresh], prepared, data.columns)
    return Fold(rows, data.target[fit], partial(score_on, scored, evaluation.actual(data, score), data.classes, metric))


def _with_the_best(job: _Job, found: SearchResult) -> _Job:
    best = {**job.request.hyperparameters, **found.best.hyperparameters}
    said: tuple[str, ...] = ()
    if found.cut:
        said = (
            f"the time budget of the search was over after {len(found.trials):,} of {found.planned:,} candidates: "
            "another run may come to another model (reproducible=false)",
        )
    return replace(job, hyperparameters=job.algorithm.resolve(best, job.request.seed), said=said)


def _fit(job: _Job, model: Any, prepared: Any, target: Any) -> None:
    """Fit the model; a large forest grows in slices, which gives the same trees as one fit with this seed."""
    if isinstance(model, DeepClassifier):
        _fit_by_epochs(job, model, prepared, target)
        return
    trees: Any = job.hyperparameters["n_estimators"] if job.algorithm.sliced else 0
    if (
        job.request.search is not None
        or trees <= SLICES
        or trees * len(target) < WORTH_SLICING
        or job.hyperparameters.get("oob_score")
    ):
        model.fit(prepared, target)
        return
    python_warnings.filterwarnings("ignore", "class_weight presets")  # slices warn of other labels; ours are equal
    model.set_params(warm_start=True)
    for done in (trees * part // SLICES for part in range(1, SLICES + 1)):
        model.set_params(n_estimators=done).fit(prepared, target)
        job.report(Stage.TRAINING, done / trees, f"{done:,} of {trees:,} trees")
    model.set_params(warm_start=False)


def _fit_by_epochs(job: _Job, model: DeepClassifier, prepared: Any, target: Any) -> None:
    done = 0.0 if job.request.search is None else SEARCH_SHARE

    def told(epoch: int, of: int, message: str) -> None:
        job.report(Stage.TRAINING, done + (1 - done) * epoch / of, message)

    made_on = f"{job.made_on} {job.hyperparameters}"
    model.fit(prepared, target, watch=EpochWatch(told, job.spool / EPOCH_STATE, made_on))


def _evaluate(job: _Job, pipeline: Pipeline, prepared: Any) -> tuple[dict[str, float], dict[str, Any]]:
    data, parts, model = job.data, job.parts, pipeline[-1]
    test = apply_steps(pipeline.steps[:-1], take(data.rows, parts.test))
    check_range([step for _, step in pipeline.steps[:-1]], test, data.columns)
    if job.algorithm.task == "regression":
        actual, predicted = data.target[parts.test], model.predict(test)
        metrics = evaluation.regression(actual, predicted)
        metrics["baseline_rmse"] = evaluation.baseline_rmse(data.target[parts.train], actual)
        known = evaluation.regression(data.target[parts.train], model.predict(prepared))
        pairs = {"train_r2": known.get("r2"), "test_r2": metrics.get("r2")}
        return metrics | evaluation.defined(pairs), evaluation.regression_details(actual, predicted, parts.test)
    train_codes, test_codes = data.codes[parts.train], data.codes[parts.test]
    scored = evaluation.ask(model, test, data.classes)
    metrics = evaluation.classification(test_codes, scored, len(data.classes))
    metrics["baseline_accuracy"] = evaluation.baseline_accuracy(train_codes, test_codes)
    metrics["train_accuracy"] = float((model.predict(prepared) == data.target[parts.train]).mean())
    metrics["test_accuracy"] = metrics["accuracy"]
    return metrics, evaluation.classification_details(test_codes, scored, _texts(data.classes), parts.test)


def _in_folds(job: _Job, unfitted: Pipeline) -> dict[str, float]:
    """Metrics of cross-validation: preparation and model are refitted on each fold of the training part only."""
    data, asked, told = job.data, job.request.evaluation, _told(job, 0)
    results = []
    for fit, score in folds(data, asked, job.parts.train, job.request.seed):
        pipeline = fit_pipeline(clone(unfitted), take(data.rows, fit), data.target[fit])
        results.append(evaluation.scores(data, pipeline, take(data.rows, score), score))
        told(len(results) / (asked.cv or 1), f"fold {len(results)} of {asked.cv}")
    return evaluation.over_folds(results)


def _studies(job: _Job, pipeline: Pipeline, unfitted: Pipeline) -> dict[str, Any]:
    data, parts, asked, seed = job.data, job.parts, job.request.evaluation, job.request.seed
    first = int(bool(asked.cv))
    found = {
        "importance": diagnostics.importance(pipeline, data, parts.test, seed, _told(job, first)),
        "learning_curve": diagnostics.learning_curve(unfitted, data, asked, parts.train, seed, _told(job, first + 1)),
    }
    return {name: study for name, study in found.items() if study is not None}


def _told(job: _Job, part: int) -> Callable[[float, str], None]:
    """A callback that reports the progress of one part of the evaluation as a share of all requested parts."""
    asked = job.request.evaluation
    parts = bool(asked.cv) + 2 * bool(asked.report)

    def told(done: float, message: str) -> None:
        job.report(Stage.EVALUATING, (part + done) / parts, message)

    return told


def _with_pages(job: _Job, content: model_file.ModelContent) -> model_file.ModelContent:
    from pipeline.reports import report  # imported late: only trainings with a report draw

    job.report(Stage.EVALUATING, 1.0, "drawing the report")
    return replace(content, pages=report.pages(job.request, content))


def _suspicions(job: _Job, metrics: Mapping[str, float]) -> list[str]:
    name = "r2" if job.algorithm.task == "regression" else "accuracy"
    score = metrics.get(f"test_{name}", 0.0)
    if score <= SUSPICIOUS_SCORE:
        return _useless(metrics)
    column = giveaway(job.data, job.parts.train)
    why = "no single column gives the target away; do several together, or are rows repeated?"
    if column is not None:
        why = f"column {column!r} alone gives the target away; is it known when predicting?"
    return [f"a test {name} of {score:.3f} is suspicious: {why}"]


def _useless(metrics: Mapping[str, float]) -> list[str]:
    """A warning if the model is no better than one that ignores every column."""
    accuracy, most_frequent = metrics.get("test_accuracy"), metrics.get("baseline_accuracy")
    if accuracy is not None and most_frequent is not None and accuracy <= most_frequent:
        return [f"a test accuracy of {accuracy:.3f} is no better than always giving the most frequent class"]
    r2 = metrics.get("test_r2")
    return [f"a test r2 of {r2:.3f} is no better than always giving the mean"] if r2 is not None and r2 <= 0 else []


def _content(job: _Job, pipeline: Pipeline, details: Mapping[str, Any], said: Sequence[str]) -> model_file.ModelContent:
    request, dataset, data = job.request, job.dataset, job.data
    return model_file.ModelContent(
        pipeline=pipeline,
        columns=data.columns,
        target_column=data.target_column,
        target_type={"i": "long", "b": "boolean", "f": "double"}.get(data.target.dtype.kind, "string"),
        classes=_texts(data.classes),
        example=data.sample,
        evaluation=details,
        manifest={
            "algorithm": job.algorithm.name,
            "task": job.algorithm.task,
            "hyperparameters": job.hyperparameters,
            "seed": request.seed,
            "dataset": {"name": dataset.name, "fingerprint": dataset.fingerprint},
            "split": fields_of(job.split_summary),
            "request_id": request.request_id,
            "reproducible": _reproducible(job),
            "dropped_columns": data.dropped,
            **({"tensors": data.tensors} if data.tensors else {}),
            "environment": environment(job.algorithm.framework),
            "warnings": said,
        },
        model_id=event_id(request.request_id, "model"),
        created=request.requested_at,
    )


def _texts(labels: Any) -> list[str]:
    return [str(label) for label in labels.tolist()]


def _distinct(messages: Sequence[str]) -> list[str]:
    return list(dict.fromkeys(messages))[:MOST_WARNINGS]
