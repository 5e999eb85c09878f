"""Search strategies: choose the next candidates to score, given the scores so far."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline.algorithms import Algorithm
from pipeline.jobs import Search
from pipeline.search.space import Values, candidates_of, grid_size, optuna_distribution, values_of

if TYPE_CHECKING:
    from pipeline.search.scorer import Scorer

STRATEGIES = ("grid", "random", "halving", "optuna")
SAMPLES = 20
"""The default for max_candidates; grids, and halving searches without ranges, try all."""
HALVING_FACTOR = 3
LEAST_ROWS = 20
"""The least rows per fold in the first round of a halving search."""


@dataclass(frozen=True, slots=True)
class Batch:
    candidates: Sequence[Values]
    rows: int | None = None
    """The rows of each fold to fit on; None for all."""
    to_come: int = 0


def planned(search: Search, algorithm: Algorithm) -> int:
    """The number of candidates; in a halving search, that of its first round."""
    size = grid_size(search, algorithm)
    all_of_them = size if search.strategy in ("grid", "halving") else 0
    wanted = search.max_candidates or all_of_them or SAMPLES
    return min(wanted, size) if size and search.strategy != "optuna" else wanted


def batches(search: Search, algorithm: Algorithm, seed: int, scorer: Scorer) -> Iterator[Batch]:
    if search.strategy == "optuna":
        yield from _optuna(search, algorithm, seed, scorer)
    elif search.strategy == "halving":
        yield from _halving(search, algorithm, seed, scorer)
    else:
        yield Batch(candidates_of(search, algorithm, planned(search, algorithm), seed))


def _halving(search: Search, algorithm: Algorithm, seed: int, scorer: Scorer) -> Iterator[Batch]:
    """Each round keeps the best third and triples the rows; the last round uses all rows."""
    left: Sequence[Values] = candidates_of(search, algorithm, planned(search, algorithm), seed)
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
        yield Batch(left, rows, sum(sizes[place + 1 :]))
        ranked = sorted(
            (trial for trial in scorer.trials[begun:] if trial.scores),
            key=lambda trial: -(scorer.gain(trial) or 0.0),
        )
        left = [trial.hyperparameters for trial in ranked[: sizes[place + 1] if place + 1 < rounds else 0]]
        if not left:
            return


def _optuna(search: Search, algorithm: Algorithm, seed: int, scorer: Scorer) -> Iterator[Batch]:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=seed % 2**32))
    wanted = planned(search, algorithm)
    space = {one.name: optuna_distribution(one, algorithm) for one in search.space}
    for place in range(wanted):
        trial = study.ask(space)
        drawn = trial.params
        candidate = {
            one.name: values[drawn[one.name]] if (values := values_of(one, algorithm)) else drawn[one.name]
            for one in search.space
        }
        yield Batch([candidate], None, wanted - place - 1)
        gain = scorer.gain(scorer.trials[-1])
        study.tell(trial, gain, state=None if gain is not None else optuna.trial.TrialState.FAIL)
