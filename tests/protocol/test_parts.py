"""The real parts, two workers of them, whatever happens in whatever order: the laws of the model hold for them too.

Hypothesis draws the order of all pieces of work, and crashes, stops, rebalances, late writes, transactions in doubt and
cancels between and within them. In the end whoever lives goes on, and every request must come to its end.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import patch

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from structlog.testing import capture_logs

from consumer.jobs.lease import LEASE_S
from consumer.partitions.records import Partition
from consumer.worker.worker import IDLE_TICK_S, POLLS_WITHIN_S, TICK_S
from pipeline.jobs import OutcomeKind, TrainingRequest
from pipeline.ledger import Cancel
from tests.protocol.broker import Consumer, Producer
from tests.protocol.fleet import TOPIC, Fleet, Process
from tests.training_data import request

FIRST, SECOND, OTHER = (
    request(request_id=name, model_name=model) for name, model in (("a", "m"), ("b", "m"), ("c", "n"))
)
LOG = {0: [FIRST, SECOND], 1: [FIRST, OTHER]}
"""Two of one model in line; in another partition the first again, and one of another model."""
ROUNDS = 200

FATES = ("refused", "applied", "late", "killed before", "killed after")
ENDINGS = ("lost", "done", "late", "killed before", "killed after")

workers = st.sampled_from(["w0", "w1"])
partitions = st.sampled_from(sorted(LOG))


@contextmanager
def fleet_of(log: dict[int, list[TrainingRequest]]) -> Iterator[Fleet]:
    """With a clock of its own in every part, and no pauses."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        stack.enter_context(patch("consumer.publishing.transactions.Producer", Producer))
        stack.enter_context(patch("consumer.publishing.transactions.Consumer", Consumer))
        stack.enter_context(capture_logs())
        stack.enter_context(patch("consumer.threads.retrying.LONGEST_WAIT_S", 0.0))
        clock = SimpleNamespace(monotonic=lambda: 0.0)
        for module in ("worker.worker", "jobs.claims", "jobs.lease"):
            stack.enter_context(patch(f"consumer.{module}.time", clock))
        made = Fleet(folder, log)
        clock.monotonic = made.clock
        yield made
        made.registry.disconnect()


def finish(fleet: Fleet) -> None:
    """Whoever died comes back, whoever stands still goes on, and nothing more goes wrong."""
    fleet.late = None
    fleet.broker.endings.clear()
    for name, process in fleet.processes.items():
        if process is None:
            fleet.start(name)
        else:
            process.stopped = False
            process.fates.clear()
    for _ in range(ROUNDS):
        for process in fleet.living():
            for partition in fleet.owners:
                fleet.assign(partition, process)
            for work in (process.poll, process.claim, process.prepare, process.store, process.announce):
                fleet.do(process, work)
            fleet.do(process, process.train, True)
            fleet.do(process, process.turn, 100)
        for name, process in fleet.processes.items():
            if process is None:
                fleet.start(name)
        fleet.pass_time(2.0)
        if fleet.broker.accounted():
            return
    raise AssertionError(f"stuck: {dict(fleet.entries())}, committed: {fleet.broker.committed}")


def begin(fleet: Fleet) -> tuple[Process, Process]:
    """Both are members; w0 has all partitions."""
    first, second = fleet.living()
    for process in (first, second):
        process.poll()
    for partition in fleet.owners:
        fleet.assign(partition, first)
    return first, second


def work(fleet: Fleet, process: Process, until: Callable[[], object] = lambda: False) -> None:
    """For a while; what it trains goes well."""
    for _ in range(10):
        for piece in (process.poll, process.claim, process.prepare, process.store, process.announce):
            fleet.do(process, piece)
        fleet.do(process, process.turn, 10)
        if until() or fleet.processes[process.name] is not process:
            return
        process.train(well=True)


def check_end(fleet: Fleet) -> None:
    assert all(entry.outcome for entry in fleet.entries().values())
    assert set(fleet.said().values()) == {1}
    check_versions(fleet)


@pytest.mark.parametrize("fate", FATES)
@pytest.mark.parametrize("write", ["claim", "insert_outcomes", "register"])
def test_a_write_that_goes_wrong_changes_nothing_in_the_end(write: str, fate: str) -> None:
    with fleet_of(LOG) as fleet:
        first, _ = begin(fleet)
        first.fates[write] = fate
        work(fleet, first)
        late, fleet.late = fleet.late, None
        if late is not None:
            late()
        finish(fleet)
        check_end(fleet)


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_transaction_whose_end_is_not_answered_took_place_once(ending: str) -> None:
    with fleet_of(LOG) as fleet:
        first, _ = begin(fleet)
        fleet.broker.endings["w0"] = ending
        work(fleet, first)
        finish(fleet)
        check_end(fleet)


def test_a_request_found_in_a_workers_name_goes_with_its_partition() -> None:
    """Its claim was applied and not answered; it is not adopted yet when the partition goes to another."""
    with fleet_of({0: [OTHER]}) as fleet:
        first, second = begin(fleet)
        first.fates["claim"] = "applied"
        first.poll()
        first.turn(10)
        first.claim()
        first.turn(10)
        (partition,) = fleet.owners
        fleet.revoke(partition)
        first.poll()
        first.turn(10)
        fleet.assign(partition, second)
        finish(fleet)
        assert fleet.owners[partition] is second
        check_end(fleet)


def test_what_a_worker_claims_before_its_first_beat_is_not_taken_over() -> None:
    with fleet_of({0: [OTHER]}) as fleet:
        fleet.pass_time(LEASE_S + 1)
        fleet.start("w0")
        first, second = begin(fleet)
        work(fleet, first, until=lambda: first.lanes.running)
        (partition,) = fleet.owners
        fleet.revoke(partition)
        work(fleet, first, until=lambda: first.lanes.running)
        fleet.assign(partition, second)
        work(fleet, second)
        assert first.lanes.running
        assert not fleet.entries()["c"].outcome


def test_a_worker_that_was_stopped_past_its_lease_fails_nothing_that_another_trains() -> None:
    with fleet_of({0: [OTHER]}) as fleet:
        first, second = begin(fleet)
        work(fleet, first, until=lambda: first.lanes.running)
        first.lanes.go_on(well=False)
        first.stopped = True
        fleet.pass_time(LEASE_S + 1)
        fleet.expel()
        for partition in fleet.owners:
            fleet.assign(partition, second)
        work(fleet, second, until=lambda: second.lanes.running)
        assert second.lanes.running
        first.stopped = False
        work(fleet, first)
        finish(fleet)
        check_end(fleet)
        assert {entry.outcome.kind for entry in fleet.entries().values() if entry.outcome} == {OutcomeKind.REGISTERED}


def test_a_worker_that_has_left_its_group_to_drain_finishes_what_runs_however_long_it_takes() -> None:
    """It polls no more: a poll loop that does not go round is no standstill then."""
    with fleet_of({0: [OTHER]}) as fleet:
        first, _ = begin(fleet)
        work(fleet, first, until=lambda: first.lanes.running)
        first.readiness._is_alone = lambda: False
        first.worker.drain()
        first.turn(10)
        first.prepare()
        polled_at = first.intake.turned_at
        fleet.pass_time(POLLS_WITHIN_S + 1)
        first.worker._turn()
        assert first.intake.turned_at == polled_at
        first.lanes.go_on(well=True)
        for _ in range(2):
            first.worker._turn()
            first.store()
        outcome = fleet.entries()[OTHER.request_id].outcome
        assert outcome is not None
        assert outcome.kind is OutcomeKind.REGISTERED


def test_a_request_whose_partition_comes_back_is_looked_at_as_it_is_delivered_now() -> None:
    """Its training here ends badly while another has it; what was delivered before the partition went is void."""
    with fleet_of({0: [OTHER]}) as fleet:
        first, second = begin(fleet)
        work(fleet, first, until=lambda: first.lanes.running)
        first.stopped = True
        fleet.pass_time(LEASE_S + 1)
        fleet.expel()
        (partition,) = fleet.owners
        fleet.assign(partition, second)
        work(fleet, second, until=lambda: second.lanes.running)
        fleet.revoke(partition)
        second.poll()
        second.turn(10)
        first.stopped = False
        first.poll()
        fleet.assign(partition, first)
        for _ in range(3):
            for piece in (first.poll, first.claim):
                fleet.do(first, piece)
            fleet.do(first, first.turn, 10)
        first.lanes.go_on(well=False)
        work(fleet, first)
        finish(fleet)
        assert fleet.owners[partition] is first
        check_end(fleet)


class TwoWorkers(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self._stack = ExitStack()
        self.fleet = self._stack.enter_context(fleet_of(LOG))
        self.outcomes: dict[str, object] = {}
        for process in self.fleet.living():
            self.fleet.do(process, process.poll)
        for number, process in enumerate(self.fleet.living()):
            self.fleet.assign(Partition(TOPIC, number), process)

    def _do(self, name: str, what: str, *args: object) -> None:
        process = self.fleet.processes[name]
        if process is not None and not process.stopped:
            self.fleet.do(process, getattr(process, what), *args)

    @rule(name=workers)
    def poll(self, name: str) -> None:
        self._do(name, "poll")

    @rule(name=workers, messages=st.integers(0, 3))
    def turn(self, name: str, messages: int) -> None:
        self._do(name, "turn", messages)

    @rule(name=workers, what=st.sampled_from(["claim", "claim", "store", "announce", "prepare", "beat"]))
    def piece(self, name: str, what: str) -> None:
        self._do(name, what)

    @rule(name=workers, well=st.booleans())
    def train(self, name: str, well: bool) -> None:
        self._do(name, "train", well)

    @rule(name=workers)
    def all_in_turn(self, name: str) -> None:
        """So that something comes to its end, too."""
        for what in ("poll", "claim", "prepare", "store", "announce"):
            self._do(name, what)
            self._do(name, "turn", 10)

    @rule(seconds=st.sampled_from([1.5, 1.5, LEASE_S + 1]))
    def time_passes(self, seconds: float) -> None:
        self.fleet.pass_time(seconds)

    @rule(name=workers, fate=st.sampled_from(FATES))
    def next_write_goes_wrong(self, name: str, fate: str) -> None:
        process = self.fleet.processes[name]
        if process is not None:
            process.fates[""] = fate

    @rule()
    def late_write_is_applied(self) -> None:
        late, self.fleet.late = self.fleet.late, None
        if late is not None:
            late()

    @rule(name=workers, ending=st.sampled_from(ENDINGS))
    def next_commit_goes_wrong(self, name: str, ending: str) -> None:
        self.fleet.broker.endings[name] = ending

    @rule(name=workers)
    def late_commit_arrives(self, name: str) -> None:
        transaction = self.fleet.broker.open.get(name)
        if transaction is not None and transaction.ending:
            self.fleet.broker.commit(name)

    @rule(name=workers)
    def kill(self, name: str) -> None:
        process = self.fleet.processes[name]
        if process is not None:
            self.fleet.kill(process)

    @rule(name=workers)
    def start(self, name: str) -> None:
        if self.fleet.processes[name] is None:
            self.fleet.start(name)

    @rule(name=workers)
    def stop_or_go_on(self, name: str) -> None:
        process = self.fleet.processes[name]
        if process is not None:
            process.stopped = not process.stopped

    @rule(number=partitions)
    def revoke(self, number: int) -> None:
        self.fleet.revoke(Partition(TOPIC, number))

    @rule(number=partitions, name=workers)
    def assign(self, number: int, name: str) -> None:
        process = self.fleet.processes[name]
        if process is not None and not process.stopped:
            self.fleet.assign(Partition(TOPIC, number), process)

    @rule(which=st.sampled_from([FIRST, SECOND, OTHER]))
    def cancel(self, which: TrainingRequest) -> None:
        self.fleet.ledger.cancel(which.request_id, Cancel("", "", self.fleet.now()))

    @invariant()
    def an_outcome_never_changes(self) -> None:
        for request_id, entry in self.fleet.entries().items():
            assert self.outcomes.setdefault(request_id, entry.outcome) in (None, entry.outcome)
            self.outcomes[request_id] = entry.outcome

    @invariant()
    def nothing_is_said_twice(self) -> None:
        assert set(self.fleet.said().values()) <= {0, 1}

    @invariant()
    def versions_have_no_gap_and_follow_the_topic(self) -> None:
        check_versions(self.fleet)

    def teardown(self) -> None:
        try:
            finish(self.fleet)
            check_end(self.fleet)
        finally:
            self._stack.close()


def check_versions(fleet: Fleet) -> None:
    found = fleet.registry.find(fleet.requests)
    by_model: dict[str, list[int]] = {}
    for one in found.values():
        by_model.setdefault(one.model.model_name, []).append(one.version_number)
    assert all(sorted(numbers) == list(range(1, len(numbers) + 1)) for numbers in by_model.values())


EXAMPLES = int(os.environ.get("PROTOCOL_EXAMPLES", "0"))
"""As many orders, drawn anew each time; else a few, always the same."""
TestTwoWorkers = TwoWorkers.TestCase
TestTwoWorkers.settings = settings(
    max_examples=EXAMPLES or 40,
    derandomize=not EXAMPLES,
    stateful_step_count=50,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)


def test_a_worker_pauses_long_only_while_it_has_nothing_in_hand() -> None:
    with fleet_of({0: [FIRST]}) as fleet:
        process, _ = begin(fleet)
        process.turn(10)
        assert process.worker._pause_s() == IDLE_TICK_S
        process.poll()
        process.turn(10)
        assert process.worker._pause_s() <= TICK_S
        work(fleet, process, until=fleet.broker.accounted)
        process.turn(10)
        assert process.worker._pause_s() == IDLE_TICK_S
        process.worker.drain()
        process.turn(10)
        assert process.worker._pause_s() <= TICK_S
