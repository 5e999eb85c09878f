"""Every failpoint, with every way to go down there: `python -m tests.chaos.crash_points` prints the table.

In each play one worker is armed with one failpoint and has all partitions; a second, unarmed one stands by. When the
point has been reached the second takes over, and everything ends; who was only stopped wakes then, and goes on.
"""

from __future__ import annotations

import argparse
import re
import signal
import sys
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import typer

from consumer.failpoints import POINTS, VARIABLE
from pipeline.jobs import Search, SearchDimension, TrainingRequest
from tests.chaos.places import Place, Servers, place
from tests.end_to_end.fleet import Fleet, WorkerProcess
from tests.end_to_end.verdict import Verdict

ACTIONS = ("kill", "stop", "raise")
DELIVERIES = ("exactly-once", "at-least-once")
LOSES_AN_ANSWER = frozenset(
    {
        "after_claim", "after_take_over", "after_release", "after_checkpoint", "after_artifact", "after_closing",
        "after_outcome", "after_document", "in_transaction", "before_commit", "after_commit", "after_cancel",
    }
)  # fmt: skip
"""Points at which `raise` is what the worker must wait out; elsewhere it is a bug, and ends the worker."""
SIDE_BY_SIDE = 3


@dataclass(frozen=True)
class Play:
    point: str
    action: str
    delivery: str


@dataclass(frozen=True)
class Result:
    play: Play
    verdict: Verdict | None
    problem: str
    took_s: float

    @property
    def passed(self) -> bool:
        return not self.problem

    def __str__(self) -> str:
        play = self.play
        return f"{play.point} {play.action} {play.delivery}: {self.problem or 'passed'} ({self.verdict})"


def plays(actions: Collection[str] = ACTIONS, deliveries: Collection[str] = DELIVERIES) -> list[Play]:
    return [
        Play(point, action, delivery)
        for delivery in deliveries
        for action in actions
        for point in POINTS
        if action != "raise" or point in LOSES_AN_ANSWER
    ]


def run(servers: Servers, wanted: Sequence[Play], told: Callable[[Result], None] = lambda _: None) -> list[Result]:
    """All of these, some side by side, in the given order."""
    with ThreadPoolExecutor(SIDE_BY_SIDE) as threads:
        results = []
        for result in threads.map(lambda one: _try(servers, one), wanted):
            told(result)
            results.append(result)
    return results


def _try(servers: Servers, play: Play) -> Result:
    begun = time.monotonic()
    verdict, problem = None, ""
    try:
        with place(servers, partitions=2 if play.point == "after_revoke" else 1) as here:
            _perform(here, play)
            verdict = here.judge(at_least_once=play.delivery == "at-least-once")
        problem = "; ".join(verdict.violations)
    except Exception as error:  # noqa: BLE001 - a cell of the table; the others are tried all the same
        problem = f"{type(error).__name__}: {error}"
    return Result(play, verdict, problem, time.monotonic() - begun)


def _perform(here: Place, play: Play) -> None:
    fleet = here.fleet
    action = "stop(3)" if (play.point, play.action) == ("in_trainer", "stop") else play.action
    rule = {VARIABLE: f"{play.point}={action}::1", "DELIVERY": play.delivery}
    armed = _STAGES.get(play.point, _alone)(fleet, rule, play.delivery)
    fleet.until(lambda: _reached(armed, play.point), why=lambda: f"{play.point} was not reached")
    if play.action == "kill" and play.point != "in_trainer":
        armed.process.wait(10)
    fleet.await_lag(0, within_s=120)
    armed.process.send_signal(signal.SIGCONT)
    for worker in fleet.workers:
        if worker.process.poll() is None:
            assert worker.drain() == 0, f"{worker.worker_id} did not drain"


def stand_by(fleet: Fleet, start: Callable[[], WorkerProcess]) -> WorkerProcess:
    """Start another worker once the first has all there is; a take-over takes one that has been there for a lease."""
    fleet.await_log(["partitions assigned"])
    another = start()
    fleet.await_log(["worker started", f'"{another.worker_id}"'])
    return another


def _alone(fleet: Fleet, rule: dict[str, str], delivery: str) -> WorkerProcess:
    """The armed worker has everything."""
    armed = fleet.start("first", **rule)
    stand_by(fleet, lambda: fleet.start("second", DELIVERY=delivery))
    fleet.submit(*_work(fleet))
    _spoil(fleet)
    return armed


def _keeps(fleet: Fleet, rule: dict[str, str], delivery: str) -> WorkerProcess:
    """There is something to keep of a training that takes longer than the time between two checkpoints."""
    search = Search("grid", (SearchDimension("seconds", (1.5, 1.6, 1.7)),), cv=2)
    fleet.submit(request("searched", "m5", "troublesome", {"mode": "sleep"}, search=search))
    return _alone(fleet, rule, delivery)


def _takes_over(fleet: Fleet, rule: dict[str, str], delivery: str) -> WorkerProcess:
    """The armed worker comes after one that was killed."""
    before = fleet.start("before", DELIVERY=delivery)
    armed = stand_by(fleet, lambda: fleet.start("first", **rule))
    fleet.submit(*_work(fleet))
    _spoil(fleet)
    fleet.await_log(["training started", '"long"'])
    before.kill()
    stand_by(fleet, lambda: fleet.start("second", DELIVERY=delivery))
    return armed


def _gives_up(fleet: Fleet, rule: dict[str, str], delivery: str) -> WorkerProcess:
    """Another worker joins, and gets a partition of the armed one's."""
    armed = fleet.start("first", **rule)
    fleet.await_log(["partitions assigned"])
    fleet.submit(*_work(fleet))
    _spoil(fleet)
    fleet.await_log(["training started", '"long"'])
    fleet.start("second", DELIVERY=delivery)
    return armed


def _drains(fleet: Fleet, rule: dict[str, str], delivery: str) -> WorkerProcess:
    """The armed worker is asked to end while it has work and work waits."""
    armed = _alone(fleet, rule, delivery)
    fleet.await_log(["training started", '"long"'])
    armed.process.send_signal(signal.SIGTERM)
    return armed


_STAGES: dict[str, Callable[[Fleet, dict[str, str], str], WorkerProcess]] = {
    "after_checkpoint": _keeps,
    "after_take_over": _takes_over,
    "after_revoke": _gives_up,
    "after_release": _drains,
    "while_draining": _drains,
}


def _work(fleet: Fleet) -> Iterator[TrainingRequest]:
    """Good, failing, rejected, cancelled and long requests, and a producer's retry."""
    for number in range(6):
        yield request(f"good-{number}", f"m{number % 3}", "decision_tree", {"max_depth": 3})
    yield request("forest", "m1", "random_forest", {"n_estimators": 30})
    yield request("good-0", "m0", "decision_tree", {"max_depth": 3})
    yield request("fails", "m1", "troublesome", {"mode": "raise"})
    yield request("rejected", "m2", "random_forrest", {})
    yield request("long", "m3", "troublesome", {"mode": "sleep", "seconds": 2.0})
    yield request("cancelled", "m4", "troublesome", {"mode": "hang", "seconds": 600.0})
    fleet.cancel("cancelled")


def _spoil(fleet: Fleet) -> None:
    """A conflict, and bytes that are nothing."""
    conflict = request("good-0", "m0", "decision_tree", {"max_depth": 4})
    fleet.submit(conflict)
    fleet.put(b"k", b"no avro")
    fleet.flush()


def request(
    request_id: str, model_name: str, algorithm: str, hyperparameters: dict[str, Any], **more: Any
) -> TrainingRequest:
    return TrainingRequest(
        request_id,
        f"job-{model_name}",
        algorithm,
        "iris",
        model_name=model_name,
        hyperparameters=hyperparameters,
        requested_at=datetime.now(UTC),
        **more,
    )


def _reached(worker: WorkerProcess, point: str) -> bool:
    return any(re.search(rf"failpoint.*\b{point}\b", line) for line in worker.lines())


def stopped(worker: WorkerProcess) -> bool:
    """Whether it has been sent SIGSTOP, and not SIGCONT yet."""
    with Path(f"/proc/{worker.process.pid}/stat").open() as stat:
        return stat.read().rpartition(")")[2].split()[0] == "T"


def table(results: Sequence[Result]) -> str:
    """As Markdown: a row a point, a column a way to go down and delivery."""
    columns = sorted({(r.play.delivery, r.play.action) for r in results}, key=lambda c: (DELIVERIES.index(c[0]), c[1]))
    cells = {(r.play.point, r.play.delivery, r.play.action): r for r in results}
    lines = ["| failpoint | " + " | ".join(f"{action}, {delivery}" for delivery, action in columns) + " |"]
    lines.append("|---" * (len(columns) + 1) + "|")
    for point in POINTS:
        row = [cells.get((point, *column)) for column in columns]
        marks = ["" if one is None else "passed" if one.passed else "**violated**" for one in row]
        if any(row):
            lines.append(f"| `{point}` | " + " | ".join(marks) + " |")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.crash_points", description=__doc__)
    parser.add_argument("--point", action="append", choices=tuple(POINTS), help="only these")
    parser.add_argument("--action", action="append", choices=ACTIONS)
    parser.add_argument("--delivery", action="append", choices=DELIVERIES)
    chosen = parser.parse_args()
    wanted = [
        one
        for one in plays(chosen.action or ACTIONS, chosen.delivery or DELIVERIES)
        if not chosen.point or one.point in chosen.point
    ]
    with Servers.started() as servers:
        results = run(servers, wanted, lambda result: typer.echo(result, err=True))
    typer.echo(table(results))
    failed = [result for result in results if not result.passed]
    typer.echo(f"\n{len(results) - len(failed)} of {len(results)} passed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
