"""Runs a search: scores candidates, in this process or on a cluster, until all are done or its time is over."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

from pipeline.algorithms import Algorithm
from pipeline.errors import TrainingFailed
from pipeline.jobs import Search
from pipeline.metrics import optimised
from pipeline.search.fitting import Fit, Fitting, Fold, here
from pipeline.search.scorer import Scorer, SearchResult
from pipeline.search.strategies import batches

FOLDS = 5


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
    fitting: Fitting = here,
    clock: Callable[[], float] = time.monotonic,
) -> SearchResult:
    """Score candidates until all are done or the time budget is over; scores in the file `notes` are not repeated.

    `made_on` is one line that identifies what scores depend on beside the request; notes with another line are ignored.
    `report` gets the number scored, the number planned, and a message with the best score.  Raises TrainingFailed if no
    candidate could be scored.
    """
    scorer = Scorer(optimised(search.scoring, algorithm.task), folds, fit, fitting, notes, made_on.encode(), report)
    until = None if search.time_budget_s is None else clock() + search.time_budget_s
    in_all = 0
    cut = False
    for batch in batches(search, algorithm, seed, scorer):
        in_all = max(in_all, len(scorer.trials) + len(batch.candidates) + batch.to_come)
        with closing(scorer.score(batch.candidates, batch.rows, in_all)) as scored:
            for _ in batch.candidates:
                if until is not None and clock() >= until and scorer.best is not None:
                    cut = True
                    break
                next(scored)
        if cut:
            break
    if scorer.best is None:
        why = next((trial.error for trial in scorer.trials if trial.error), "the metric is not defined on any fold")
        raise TrainingFailed(f"none of {len(scorer.trials)} candidates could be scored: {why}")
    return SearchResult(scorer.best, tuple(scorer.trials), in_all, scorer.scoring, cut)


@contextmanager
def fitting_on(dask_scheduler: str | None) -> Iterator[Fitting]:
    """Fit candidates on the cluster of this scheduler, or in this process if there is none."""
    if dask_scheduler is None:
        yield here
        return
    from pipeline.search.cluster import DaskCluster

    with closing(DaskCluster(dask_scheduler)) as cluster:
        yield cluster
