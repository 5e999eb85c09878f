"""Searches for the best hyperparameters, inside the training part: the test part is never looked at.

Every candidate is scored on the same folds, whose preparation is fitted once for all of them.  What has been scored
is noted in a file as it comes, so that the next attempt of a killed training does not fit it again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

from pipeline.algorithms import Algorithm
from pipeline.errors import TrainingFailed
from pipeline.jobs import Search
from pipeline.search.checks import check
from pipeline.search.fitting import Fit, Fitting, Fold, here
from pipeline.search.scorer import Scorer, SearchResult, Trial, scoring
from pipeline.search.strategies import batches, planned

__all__ = ["FOLDS", "Fit", "Fold", "SearchResult", "Trial", "check", "fitting_on", "planned", "run", "scoring"]

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
    """Score candidates until there are no more, or the time budget is over; what is in `notes` counts as scored.

    `made_on` is one line that says on what scores depend beside the request: notes made on something else do not count.

    `report` is told how many of how many candidates are scored, and the best so far.  Raises TrainingFailed if none
    could be fitted.
    """
    scorer = Scorer(scoring(search, algorithm), folds, fit, fitting, notes, made_on.encode(), report)
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
    """Where candidates are fitted: on the cluster of this scheduler, or here."""
    if dask_scheduler is None:
        yield here
        return
    from pipeline.search.cluster import DaskCluster

    with closing(DaskCluster(dask_scheduler)) as cluster:
        yield cluster
