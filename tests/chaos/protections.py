"""Each protection taken away, where it is needed: `python -m tests.chaos.protections` prints what the checker finds.

Every scene is played twice: as it is, which has to end well, and by workers that lack the protection, which must not.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

import typer

from consumer.failpoints import VARIABLE
from consumer.jobs.lease import LEASE_S
from tests.chaos.crash_points import request, stand_by, stopped
from tests.chaos.places import Place, Servers, place
from tests.end_to_end.fleet import WORKER, WorkerProcess

STUCK_AFTER_S = 40
"""What has not ended by then without its protection will not."""


@dataclass(frozen=True)
class Scene:
    """What happens, and in whose absence it goes wrong."""

    protection: str
    what: str
    found: str
    """In a violation, when the protection is absent."""
    perform: Callable[[Place, Start], None]
    partitions: int = 1


Start = Callable[..., WorkerProcess]


@dataclass(frozen=True)
class Result:
    scene: Scene
    protected: Sequence[str]
    unprotected: Sequence[str]
    """The violations with and without it."""

    @property
    def proven(self) -> bool:
        return not self.protected and any(self.scene.found in violation for violation in self.unprotected)

    def __str__(self) -> str:
        return f"{self.scene.protection}: with it {self.protected or 'nothing'}; without it {self.unprotected}"


def run(servers: Servers, scenes: Sequence[Scene], side_by_side: int = 3) -> list[Result]:
    with ThreadPoolExecutor(side_by_side) as threads:
        plays = [
            (scene, threads.submit(_play, servers, scene, True), threads.submit(_play, servers, scene, False))
            for scene in scenes
        ]
        return [Result(scene, protected.result(), unprotected.result()) for scene, protected, unprotected in plays]


def _play(servers: Servers, scene: Scene, protected: bool) -> Sequence[str]:
    command = WORKER if protected else ("tests.chaos.without", scene.protection, "worker")
    with place(servers, scene.partitions) as here:

        def start(worker_id: str, rule: str = "") -> WorkerProcess:
            return here.fleet.start(worker_id, command, **{VARIABLE: rule})

        scene.perform(here, start)
        if protected:
            here.fleet.await_lag()
        else:
            with suppress(AssertionError):  # what is stuck is judged as it is
                here.fleet.await_lag(within_s=STUCK_AFTER_S)
        here.fleet.end()
        verdict = here.judge()
    repeated = [f"{verdict.trainings_repeated} trainings were repeated"] * bool(verdict.trainings_repeated)
    return [*verdict.violations, *(repeated if scene.protection == "lease_by_the_stores_clock" else ())]


def _two_finish(here: Place, start: Start) -> None:
    """One is stopped with the result in its hands; another trains too, and finishes first."""
    fleet = here.fleet
    first, _ = _first_and_second(here, start, "after_artifact=stop::1")
    fleet.submit(request("r", "m", "decision_tree", {}))
    fleet.until(lambda: stopped(first))
    fleet.await_lag(0)
    first.process.send_signal(signal.SIGCONT)
    fleet.until(lambda: any("model registered" in line for line in first.lines()))


def _one_fails_late(here: Place, start: Start) -> None:
    """One is stopped while it trains what will fail; another has it when that becomes known."""
    fleet = here.fleet
    first, second = _first_and_second(here, start, "while_training=stop::1")
    failing = {"mode": "first_fails", "seconds": 10.0, "path": str(fleet.folder / "flag")}
    fleet.submit(request("r", "m", "troublesome", failing))
    fleet.until(lambda: stopped(first))
    fleet.until(lambda: any("training started" in line for line in second.lines()))
    first.process.send_signal(signal.SIGCONT)


def _loses_and_regains(here: Place, start: Start) -> None:
    """One loses its partition with an announcement in its hands, and gets it back when another has announced."""
    fleet = here.fleet
    first, second = _first_and_second(here, start, "after_document=stop::1")
    fleet.submit(request("r", "m", "decision_tree", {}))
    fleet.until(lambda: stopped(first))
    fleet.await_lag(0)
    assert second.drain() == 0
    first.process.send_signal(signal.SIGCONT)
    fleet.submit(request("after", "m", "decision_tree", {}))


def _first_and_second(here: Place, start: Start, rule: str) -> tuple[WorkerProcess, WorkerProcess]:
    """The first is armed and has all partitions; the second stands by."""
    first = start("first", rule)
    return first, stand_by(here.fleet, lambda: start("second"))


def _another_joins(here: Place, start: Start) -> None:
    """A long training's partition moves to a worker that just came."""
    fleet = here.fleet
    start("first")
    fleet.await_log(["partitions assigned"])
    for number in range(2):
        wanted = request(
            f"r{number}", f"m{number}", "troublesome", {"mode": "until", "path": str(fleet.folder / "end")}
        )
        fleet.put(b"", fleet.encode(wanted).value, partition=number)
    fleet.flush()
    for number in range(2):
        fleet.await_log(["training started", f'"r{number}"'])
    second = start("second")
    fleet.until(lambda: second.partitions())
    with suppress(AssertionError):
        fleet.until(lambda: any("training started" in line for line in second.lines()), LEASE_S + 5)
    (fleet.folder / "end.go").touch()


def _one_model_in_two_places(here: Place, start: Start) -> None:
    """Two workers register versions of one model by turns, whose requests came with keys of their own."""
    fleet = here.fleet
    for name in ("first", "second"):
        start(name)
    for worker in fleet.workers:
        fleet.until(partial(_has_one_partition, worker))
    for number in range(6):
        wanted = request(f"r{number}", "m", "decision_tree", {})
        fleet.put(b"", fleet.encode(wanted).value, partition=number % 2)
        fleet.flush()
        fleet.await_log(["model registered", f'"r{number}"'])


def _has_one_partition(worker: WorkerProcess) -> bool:
    return len(worker.partitions()) == 1


def _an_answer_is_lost(here: Place, start: Start) -> None:
    """The claim was made, but the worker was not told."""
    start("first", "after_claim=raise::1")
    here.fleet.submit(request("r", "m", "decision_tree", {}))
    here.fleet.await_log(["failpoint"])


def _dies_before_the_commit(here: Place, start: Start) -> None:
    """Events are with the broker, offsets are not."""
    fleet = here.fleet
    first, _ = _first_and_second(here, start, "before_commit=kill::1")
    fleet.submit(request("r", "m", "decision_tree", {}))
    fleet.until(lambda: first.process.poll() is not None)


SCENES = (
    Scene("unique_outcome", "two workers finish one request", "is not outcome", _two_finish),
    Scene("compare_and_set_on_the_owner", "who was stopped fails what another trains", "was training", _one_fails_late),
    Scene("lease_by_the_stores_clock", "a worker's clock is an hour slow", "repeated", _another_joins, partitions=2),
    Scene("assignment_epoch", "a partition is lost and regained", "double events", _loses_and_regains),
    Scene("unique_version", "one model in two partitions", "double versions", _one_model_in_two_places, partitions=2),
    Scene("read_back", "the answer to a claim is lost", "lost", _an_answer_is_lost),
    Scene("transaction", "a kill between events and offsets", "double events", _dies_before_the_commit),
)


def table(results: Sequence[Result]) -> Iterator[str]:
    """As Markdown."""
    yield "| protection taken away | scene | with it | without it |"
    yield "|---|---|---|---|"
    for result in results:
        found = next((v for v in result.unprotected if result.scene.found in v), "**nothing**")
        yield (
            f"| {result.scene.protection.replace('_', ' ')} | {result.scene.what} | "
            f"{'; '.join(result.protected) or 'no violation'} | {found} |"
        )


def main() -> int:
    names: list[Any] = sys.argv[1:]
    scenes = [scene for scene in SCENES if not names or scene.protection in names]
    with Servers.started() as servers:
        results = run(servers, scenes)
    for line in table(results):
        typer.echo(line)
    for result in results:
        typer.echo(result, err=True)
    return 0 if all(result.proven for result in results) else 1


if __name__ == "__main__":
    sys.exit(main())
