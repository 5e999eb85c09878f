"""An error about one request, raised at any step of its way: it ends FAILED, the others are registered."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from unittest.mock import patch

import pytest

from consumer.jobs.jobs import IllegalMoveError, Jobs
from consumer.jobs.readiness import Readiness
from consumer.jobs.registrar import Registrar
from consumer.threads.containment import UncontainedError
from consumer.worker.job_endings import JobEndings
from consumer.worker.rulings import Rulings
from consumer.worker.trainings import Trainings
from pipeline.jobs import ErrorKind, OutcomeKind
from tests.protocol.fleet import Fleet
from tests.protocol.test_parts import FIRST, SECOND, begin, check_end, finish, fleet_of, work
from tests.training_data import request

GUILTY = "c"
OTHER = request(request_id=GUILTY, model_name="n", reuse=True)
"""Something slow has to be prepared for it."""
LOG = {0: [FIRST, SECOND], 1: [FIRST, OTHER]}
STEPS: list[tuple[type, str]] = [
    (Rulings, "_place"),
    (Rulings, "_adopt"),
    (Trainings, "_prepare"),
    (Trainings, "_go_on_prepared"),
    (Trainings, "_feed"),
    (Trainings, "_taken"),
    (Trainings, "_done"),
    (Readiness, "_prepared"),
    (Readiness, "reuse_key"),
    (Registrar, "_upload"),
]


def about(value: Any, request_id: str) -> bool:
    """Whether a step's argument is about this request."""
    if isinstance(value, list | tuple):
        return any(about(one, request_id) for one in value)
    for name in ("job", "request", "asked", "outcome"):
        if hasattr(value, name) and about(getattr(value, name), request_id):
            return True
    return getattr(value, "request_id", None) == request_id


def stumbling(step: Callable[..., Any], times: float) -> Callable[..., Any]:
    """Raises the first times that it is about the guilty one."""
    raised = 0

    def stumble(*arguments: Any, **more: Any) -> Any:
        nonlocal raised
        if raised < times and any(about(one, GUILTY) for one in arguments):
            raised += 1
            raise LookupError("a secret of ours")
        return step(*arguments, **more)

    return stumble


@pytest.mark.parametrize("times", [1, float("inf")])
@pytest.mark.parametrize(("owner", "step"), STEPS, ids=lambda value: getattr(value, "__name__", value))
def test_a_step_that_raises_for_a_request_ends_that_one(owner: type, step: str, times: float) -> None:
    with fleet_of(LOG) as fleet, patch.object(owner, step, stumbling(getattr(owner, step), times)):
        first, _ = begin(fleet)
        work(fleet, first, until=lambda: fleet.entries()[GUILTY].outcome)
        finish(fleet)
        check_end(fleet)
        ended = {request_id: entry.outcome for request_id, entry in fleet.entries().items()}
        guilty = ended.pop(GUILTY)
        assert guilty is not None
        assert guilty.kind is OutcomeKind.FAILED
        assert guilty.error is not None
        assert guilty.error.kind == ErrorKind.INTERNAL_ERROR
        assert guilty.dead_lettered
        assert "secret" not in guilty.error.message
        assert {outcome.kind for outcome in ended.values() if outcome} == {OutcomeKind.REGISTERED}


def test_an_outcome_that_stands_is_not_undone_by_an_error_after_it() -> None:
    with fleet_of(LOG) as fleet, patch.object(JobEndings, "_stored", stumbling(JobEndings._stored, 1)):
        first, _ = begin(fleet)
        work(fleet, first, until=lambda: all(entry.outcome for entry in fleet.entries().values()))
        assert {entry.outcome.kind for entry in fleet.entries().values() if entry.outcome} == {OutcomeKind.REGISTERED}


def test_an_illegal_move_ends_the_request_and_not_the_worker() -> None:
    move = Jobs.move

    def stumble(self: Jobs, job: Any, place: Any, **more: Any) -> None:
        if job.request_id == GUILTY and place.name == "FED":
            raise IllegalMoveError(job, place)
        move(self, job, place, **more)

    with fleet_of(LOG) as fleet, patch.object(Jobs, "move", stumble):
        first, _ = begin(fleet)
        work(fleet, first)
        finish(fleet)
        check_end(fleet)
        outcome = fleet.entries()[GUILTY].outcome
        assert outcome is not None
        assert outcome.error is not None
        assert outcome.error.kind == ErrorKind.INTERNAL_ERROR


def test_what_cannot_be_contained_ends_a_worker_at_most_twice() -> None:
    """The worker that ends writes down who was to blame; the second time it is not tried again."""
    losses = 0

    def not_contained(fleet: Fleet) -> None:
        nonlocal losses
        first, _ = begin(fleet)
        with pytest.raises(UncontainedError) as raised:
            work(fleet, first)
        assert raised.value.request_ids == {GUILTY}
        fleet.ledger.blame(first.me, raised.value.request_ids, 500)  # as app does; of 1,000 that the fleet allows
        fleet.ledger.leave(first.me)
        fleet.kill(first)
        losses += 1

    end = JobEndings.end

    def stumble(self: JobEndings, job: Any, *how: Any) -> None:
        if job.request_id == GUILTY and how[1].kind == ErrorKind.INTERNAL_ERROR:
            raise LookupError("not even that")
        end(self, job, *how)

    with fleet_of({0: [OTHER]}) as fleet, patch.object(JobEndings, "end", stumble):
        with patch.object(Trainings, "_feed", stumbling(Trainings._feed, float("inf"))):
            for _ in range(2):
                not_contained(fleet)
                fleet.start("w0")
                fleet.expel()
            finish(fleet)
        outcome = fleet.entries()[GUILTY].outcome
        assert outcome is not None
        assert outcome.error is not None
        assert outcome.error.kind == ErrorKind.WORKER_LOST
        assert losses == 2
