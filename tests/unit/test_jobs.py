"""The owner of all jobs: no order of moves lets a job be in two places, or two things disagree about where it is."""

from __future__ import annotations

import tempfile
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from consumer.jobs.claims import Asked
from consumer.jobs.job import Job
from consumer.jobs.jobs import IllegalMoveError, Jobs
from consumer.jobs.places import ENDS, MOVES, RUNNING, Place, table
from consumer.partitions.records import Partition, Record
from pipeline.datasets import Dataset
from pipeline.ledger import Claim, Owner
from pipeline.training.trained import EPOCH_STATE
from tests.training_data import request

ROOT = Path(__file__).parents[2]
LIMITS = {"a": 1}
FREE = Place.PARKED, Place.WAITING, Place.PREPARING, Place.READY
"""Where a job has to be given up when its partition goes."""

WAY = Place.PREPARING, Place.READY, Place.FED, Place.TRAINING
"""Where a job comes by that is trained."""

places = st.sampled_from(Place)
numbers = st.integers(0, 5)


def asked(number: int) -> Asked:
    """Six requests, of two projects with two models each, in two partitions."""
    wanted = request(request_id=f"r{number}", project="ab"[number % 2], model_name="mn"[number // 2 % 2])
    record = Record(Partition("t", number // 4), 1, number, b"k", b"", (), 0)
    return Asked(record, wanted, "", None)


class JobsAgainstTheirTable(RuleBasedStateMachine):
    """Every move is tried from everywhere; a dict of places says what must come of it."""

    def __init__(self) -> None:
        super().__init__()
        self.held: Counter[str] = Counter()
        """Datasets by fingerprint, as a cache would count them."""
        self.jobs = Jobs(LIMITS.get, self._put_down)
        self.model: dict[str, Place] = {}
        self.known: dict[str, Job] = {}
        self._folder = tempfile.TemporaryDirectory()
        self._folders = 0

    def _put_down(self, dataset: Dataset) -> None:
        self.held[dataset.fingerprint] -= 1

    def teardown(self) -> None:
        self._folder.cleanup()

    @rule(number=numbers)
    def add(self, number: int) -> None:
        one = asked(number)
        request_id = one.request.request_id
        if request_id in self.model:
            with pytest.raises(ValueError, match="in hand"):
                self.jobs.add(one)
            return
        self.known[request_id] = self.jobs.add(one)
        self.model[request_id] = Place.PARKED

    @rule(number=numbers, place=places)
    def move_anywhere(self, number: int, place: Place) -> None:
        job = self.known.get(f"r{number}")
        if job is None:
            return
        before = self.model.get(job.request_id)
        if before is None or place not in MOVES[before]:
            with pytest.raises(IllegalMoveError):
                self.jobs.move(job, place)

    @rule(number=numbers, which=st.integers(0, 4), hands_spool_over=st.booleans())
    def move_on(self, number: int, which: int, hands_spool_over: bool) -> None:
        """As the worker does: only `take` makes a waiting job one that is prepared, and none waits without a record."""
        job = self.known.get(f"r{number}")
        if job is None or job.request_id not in self.model:
            return
        here = self.model[job.request_id]
        further = [
            place
            for place in Place
            if place in MOVES[here]
            and (here, place) != (Place.WAITING, Place.PREPARING)
            and (job.record is not None or place not in (Place.WAITING, Place.PARKED))
        ]
        place = further[which % len(further)]
        self.jobs.move(job, place, hands_spool_over=hands_spool_over and place is Place.STORING)
        if place in ENDS:
            del self.model[job.request_id]
        else:
            self.model[job.request_id] = place

    @rule(number=numbers)
    def wait(self, number: int) -> None:
        job = self.known.get(f"r{number}")
        if job is not None and self.model.get(job.request_id) is Place.PARKED:
            self.jobs.move(job, Place.WAITING)
            self.model[job.request_id] = Place.WAITING

    @rule(as_far_as=st.sampled_from(WAY))
    def take(self, as_far_as: Place) -> None:
        """As far as it goes well: a dataset is held for it from PREPARING on, and its trainer writes files."""
        job = self.jobs.take()
        if job is None:
            return
        assert self.model[job.request_id] is Place.WAITING
        job.dataset = Dataset("d", job.request_id, None, "y")
        self.held[job.request_id] += 1
        for place in WAY[1 : WAY.index(as_far_as) + 1]:
            self.jobs.move(job, place)
        if job.place is Place.TRAINING:
            self._folders += 1
            job.spool = Path(self._folder.name) / str(self._folders)
            job.spool.mkdir()
            (job.spool / EPOCH_STATE).touch()
        self.model[job.request_id] = as_far_as

    @rule(number=numbers)
    def lose_the_partition(self, number: int) -> None:
        job = self.known.get(f"r{number}")
        if job is None or job.request_id not in self.model:
            return
        if job.place in FREE:
            with pytest.raises(IllegalMoveError):
                self.jobs.detach(job)
        else:
            self.jobs.detach(job)

    @precondition(lambda self: any(job.record is None for job in self.jobs))
    @rule(epoch=st.integers(2, 3))
    def regain_the_partition(self, epoch: int) -> None:
        job = next(job for job in self.jobs if job.record is None)
        record = job.asked.record
        again = Record(record.partition, epoch, record.offset, b"k", b"", (), 0)
        self.jobs.attach(job, replace(job.asked, record=again))
        assert job.record is again

    @rule()
    def ends_for_all(self) -> None:
        """Whatever stands in a line, the heads of the lines are free to go on once those before them are over."""
        for job in self.jobs:
            if job.place in (Place.FED, Place.TRAINING, Place.PREPARING, Place.READY):
                self.jobs.move(job, Place.RELEASED)
                del self.model[job.request_id]

    @invariant()
    def everybody_agrees_where_a_job_is(self) -> None:
        assert {job.request_id: job.place for job in self.jobs} == self.model
        assert len(self.jobs) == len(self.model)
        assert set(self.jobs.ids()) == set(self.model)
        for place in set(Place) - ENDS:
            there = [job.request_id for job in self.jobs.at(place)]
            assert sorted(there) == sorted(i for i, where in self.model.items() if where is place)
            assert self.jobs.count(place) == len(there)
        assert all(self.known[request_id].place in ENDS for request_id in self.known.keys() - self.model.keys())

    @invariant()
    def only_what_runs_holds_a_dataset_and_each_holds_its_own(self) -> None:
        holding = Counter(job.dataset.fingerprint for job in self.jobs if job.dataset is not None)
        assert all(job.place in RUNNING for job in self.jobs if job.dataset is not None)
        assert +self.held == holding
        assert all(count >= 0 for count in self.held.values())

    @invariant()
    def what_is_over_or_waits_has_no_files(self) -> None:
        for job in self.known.values():
            if job.place in (Place.PARKED, Place.WAITING, *ENDS):
                assert job.spool is None
                assert job.checkpoint is None
        named = {path for job in self.known.values() for path in (job.spool, job.checkpoint) if path is not None}
        assert {*Path(self._folder.name).iterdir()} == {path for path in named if path.exists()}

    @invariant()
    def one_of_a_model_in_a_partition_runs_and_one_of_a_project_with_a_limit(self) -> None:
        running = [job for job in self.jobs.at(*RUNNING) if job.record is not None]
        assert max(Counter(job.line for job in running).values(), default=0) <= 1
        assert sum(job.project == "a" for job in self.jobs.at(*RUNNING)) <= 1

    @invariant()
    def somebody_waits_in_vain_only_behind_another(self) -> None:
        """Else there is somebody to be taken."""
        for job in self.jobs.at(Place.WAITING):
            others = [one for one in self.jobs if one is not job and one.record is not None and one.line == job.line]
            limited = job.project == "a" and any(one.project == "a" for one in self.jobs.at(*RUNNING))
            if not others and not limited:
                assert self.jobs._dispatch


TestJobs = JobsAgainstTheirTable.TestCase
TestJobs.settings = settings(max_examples=100, stateful_step_count=50, deadline=None)


def test_the_architecture_page_shows_the_table_of_moves() -> None:
    page = (ROOT / "docs/architecture.md").read_text()
    shown = page.split("<!-- moves -->")[1].split("<!-- /moves -->")[0].strip()
    assert shown == "\n".join(table()), "renew it with: python -m consumer.jobs.places"


def test_every_place_is_reached_and_left_for_an_end() -> None:
    reached, ahead = {Place.PARKED}, [Place.PARKED]
    while ahead:
        for place in MOVES[ahead.pop()] - reached:
            reached.add(place)
            ahead.append(place)
    assert reached == set(Place)
    assert all(further & (ENDS | {Place.STORING}) for place, further in MOVES.items() if place not in ENDS)


def test_what_is_being_prepared_is_abandoned_as_soon_as_its_job_goes_elsewhere() -> None:
    jobs = Jobs(lambda _: None, lambda _: None)
    job = jobs.add(asked(0))
    job.claim = Claim("r0", None, None, Owner("w", 1))
    jobs.move(job, Place.WAITING)
    assert jobs.take() is job
    abandoned = job.abandoned
    assert abandoned is not None
    assert not abandoned.is_set()
    jobs.move(job, Place.STORING)
    assert abandoned.is_set()


def test_a_refused_move_changes_nothing() -> None:
    jobs = Jobs(lambda _: None, lambda _: None)
    job = jobs.add(asked(0))
    with pytest.raises(IllegalMoveError, match="request r0 cannot go from PARKED to FED"):
        jobs.move(job, Place.FED)
    assert (job.place, job.moves, jobs.at(Place.PARKED)) == (Place.PARKED, 0, [job])
