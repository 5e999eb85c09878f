"""Fits candidates on a Dask cluster, with the same scores as in the trainer.

It uses `distributed` directly: joblib's backend for it waits forever for a task whose workers died.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
import warnings
from collections import deque
from collections.abc import Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from itertools import islice

import sklearn
from distributed import Client, Future, KilledWorker, get_worker

from pipeline.environment import LIBRARIES, environment
from pipeline.errors import said_by
from pipeline.search.fitting import Fit, Fitted, Fold, here, on_fold, only_the_users
from pipeline.search.space import Values

PATIENCE_S = 30.0
"""How long a scheduler may not answer, or have no worker, before it counts as gone."""
TRIES = 3
"""How many connections in a row may end before a candidate is scored.  Before the last one, the first candidate is
fitted in the trainer, in case it killed all workers.
"""
ADDRESS = re.compile(r"\b[a-z]+://\S+")
AHEAD = 256
"""Candidates on the cluster at a time: with five folds, enough work for some thousand threads."""


def connect(address: str, timeout_s: float) -> Client:
    """Raises OSError if no scheduler answers at this address."""
    for name in ("distributed", "distributed.client"):
        logging.getLogger(name).setLevel(logging.CRITICAL)  # whatever it logs, it also raises
    return Client(address, timeout=timeout_s, set_as_default=False, name="tensorfleet")


def versions() -> Mapping[str, str]:
    """The versions that must be equal on all machines of a cluster for equal scores."""
    found = environment()
    return {name: found[name] for name in ("tensorfleet-worker", *LIBRARIES)}


@dataclass(slots=True)
class DaskCluster:
    """A `Fitting` for one search, used by one thread.

    A worker's death costs only time.  If the scheduler goes away, it is waited for.  If it does not return, if it never
    answered, or if its workers cannot fit, the remaining candidates are fitted in the trainer, and a warning says so.
    A candidate that takes workers down is fitted in the trainer too, where it has its own memory limit, since nobody
    can tell whether it is to blame.
    """

    address: str
    patience_s: float = PATIENCE_S
    given_up: bool = False
    _client: Client | None = None
    _folds: list[Future[Fold]] = field(default_factory=list)

    def __call__(self, folds: Sequence[Fold], fit: Fit, candidates: Sequence[Values], rows: int) -> Generator[Fitted]:
        left = deque(candidates)
        tries = 0
        while left and not self.given_up:
            try:
                with closing(self._fitted(folds, fit, tuple(left), rows)) as outcomes:
                    for outcome in outcomes:
                        left.popleft()
                        tries = 0
                        yield outcome
            except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - a candidate's errors are returned
                connected = bool(self._folds)
                self.close()
                tries += 1
                if tries == TRIES or not connected:
                    self._give_up(error)
                elif tries == TRIES - 1:
                    yield from here(folds, fit, [left.popleft()], rows)
        yield from here(folds, fit, tuple(left), rows)

    def close(self) -> None:
        """Cancel what still runs on the cluster for us."""
        self._folds = []
        if self._client is not None:
            client, self._client = self._client, None
            client.close(timeout=2)

    def _fitted(self, folds: Sequence[Fold], fit: Fit, candidates: Sequence[Values], rows: int) -> Generator[Fitted]:
        client = self._connected(folds)
        waiting = iter(candidates)
        ahead: deque[tuple[Values, list[Future[_Scored]]]] = deque()
        while True:
            for candidate in islice(waiting, AHEAD - len(ahead)):
                scored = partial(_scored, candidate=candidate, rows=rows, fit=fit, expected=versions())
                ahead.append((candidate, client.map(scored, self._folds, pure=False)))
            if not ahead:
                return
            candidate, futures = ahead.popleft()
            try:
                outcome = _together([self._result(client, future) for future in futures])
            except (MemoryError, KilledWorker):
                outcome = next(here(folds, fit, [candidate], rows))
            yield outcome

    def _connected(self, folds: Sequence[Fold]) -> Client:
        if self._client is None:
            self._client = connect(self.address, self.patience_s)
            self._client.wait_for_workers(1, timeout=self.patience_s)
            self._folds = self._client.scatter(list(folds), broadcast=True, hash=False)
        return self._client

    def _result(self, client: Client, future: Future[_Scored]) -> _Scored:
        while True:
            try:
                return future.result(timeout=self.patience_s)
            except TimeoutError:
                assert client.scheduler is not None
                if not client.sync(client.scheduler.ncores, callback_timeout=self.patience_s):
                    raise ConnectionError("it has no worker") from None

    def _give_up(self, error: BaseException) -> None:
        self.given_up = True
        why = said_by(error)
        # The warning is stored with the model, whose users have no use for addresses; the log has them.
        told = ADDRESS.sub("an address", why)
        warnings.warn(f"the Dask cluster failed ({told}); the search went on in the trainer", stacklevel=2)
        logging.getLogger(__name__).warning(
            f"the Dask cluster at {self.address} failed ({why}); the search went on in the trainer"
        )


@dataclass(frozen=True, slots=True)
class _Scored:
    """The score of a candidate on one fold, as a Dask worker returns it."""

    score: float | None
    error: str
    fit_s: float
    warnings: tuple[str, ...]


def _scored(fold: Fold, candidate: Values, rows: int, fit: Fit, expected: Mapping[str, str]) -> _Scored:
    """Runs on a Dask worker.  Raises MemoryError, or RuntimeError if its library versions differ from ours."""
    found = versions()
    different = [f"{name} {found[name]}, not {expected[name]}" for name in expected if found[name] != expected[name]]
    if different:
        raise RuntimeError(f"the Dask worker at {get_worker().address} has {'; '.join(different)}")
    begun = time.perf_counter()
    with warnings.catch_warnings(record=True) as caught, sklearn.config_context(skip_parameter_validation=True):
        only_the_users(warnings.simplefilter)
        score, error = on_fold(fold, fit, candidate, rows)
    said = tuple(dict.fromkeys(str(one.message) for one in caught))
    return _Scored(score, error, time.perf_counter() - begun, said)


def _together(folds: Sequence[_Scored]) -> Fitted:
    """Combine the folds into one outcome, and repeat their warnings here."""
    for message in dict.fromkeys(message for one in folds for message in one.warnings):
        warnings.warn(message, stacklevel=2)
    fit_s = sum(one.fit_s for one in folds)
    error = next((one.error for one in folds if one.error), "")
    return Fitted(() if error else [one.score for one in folds], fit_s, error)
