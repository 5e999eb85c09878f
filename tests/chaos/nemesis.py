"""The nemesis: a seeded schedule of faults, each inflicted on something that is well, and healed after a while."""

from __future__ import annotations

import errno
import random
import signal
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from consumer.app import EXIT_SUPERSEDED
from tests.chaos.world import EXTRA, SMALL_DISK_WORKER, WORKERS, World, signal_process
from tests.services.proxy import WELL, Network

WORKERS_AT_ONCE = 2
"""Of the three that there are always."""
PUT_OFF_S = 25.0
"""A fault that nothing can be found for within this time is left out."""

Heal = Callable[[], bool]
"""Try to put an end to a fault: True when there is one."""


@dataclass(frozen=True)
class Kind:
    """One kind of fault.

    Attributes:
        share: how often, out of about 200.
        lasts_s: between these.
        targets: what it may happen to, and what is busy meanwhile.
        inflict: does it and returns how to heal it, or None if it cannot be done now.
    """

    name: str
    share: int
    lasts_s: tuple[float, float]
    targets: Sequence[str]
    inflict: Callable[[Nemesis, str], Heal | None]


@dataclass
class _Inflicted:
    kind: Kind
    target: str
    until: float
    heal: Heal


@dataclass
class Nemesis:
    """Of the thread that runs the chaos; only servers are started by others, since that takes long."""

    world: World
    chosen: random.Random
    threads: ThreadPoolExecutor
    due: list[tuple[float, Kind]] = field(default_factory=list)
    going_on: list[_Inflicted] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)

    def plan(self, faults: int, seconds: float, longest_s: float) -> None:
        """All kinds, by their shares and each at least once, spread over this time from now on."""
        kinds = [kind for kind in KINDS if kind.lasts_s[0] <= longest_s]
        kinds = [kind for kind in kinds if self._possible(kind)]
        total = sum(kind.share for kind in kinds)
        picked = [kind for kind in kinds for _ in range(max(1, round(kind.share * faults / total)))]
        self.chosen.shuffle(picked)
        now = time.monotonic()
        gap_s = seconds / len(picked)
        self.due = [(now + gap_s * (n + self.chosen.random()), kind) for n, kind in enumerate(picked)]

    def turn(self) -> None:
        """Heal what has lasted long enough, and inflict what is due."""
        now = time.monotonic()
        for one in tuple(self.going_on):
            if now >= one.until and one.heal():
                self.going_on.remove(one)
                self.world.journal.note(one.kind.name, one.target, healed=True)
        for at, kind in [(at, kind) for at, kind in self.due if at <= now]:
            tried = self._try(kind, now)
            if tried or now > at + PUT_OFF_S:
                self.due.remove((at, kind))
            if not tried and now > at + PUT_OFF_S:
                self.left_out.append(kind.name)

    @property
    def done(self) -> bool:
        return not self.due and not self.going_on

    def relent(self) -> None:
        """No more faults, and an end to those that go on."""
        self.left_out.extend(kind.name for _, kind in self.due)
        self.due.clear()
        for one in self.going_on:
            one.until = 0.0

    def _possible(self, kind: Kind) -> bool:
        missing = {CLOCK: not self.world.clocks, DISK: not self.world.disk}.get(kind.name, False)
        if missing:
            self.left_out.append(f"{kind.name} (not possible on this machine)")
        return not missing

    def _try(self, kind: Kind, now: float) -> bool:
        busy = {one.target for one in self.going_on}
        if len(busy & set(WORKERS)) >= WORKERS_AT_ONCE and set(kind.targets) <= set(WORKERS):
            return False
        free = [target for target in kind.targets if target not in busy]
        self.chosen.shuffle(free)
        for target in free:
            # Noted first: what follows from it must not come before it.
            at = len(self.world.journal.entries)
            self.world.journal.note(kind.name, target)
            heal = kind.inflict(self, target)
            if heal is not None:
                self.going_on.append(_Inflicted(kind, target, now + self.chosen.uniform(*kind.lasts_s), heal))
                return True
            del self.world.journal.entries[at]
        return False

    # Workers ------------------------------------------------------------------------------------------------------

    def kill_worker(self, target: str) -> Heal | None:
        if not self.world.ready(target):
            return None
        self.world.kill(target)
        return lambda: self._start(target)

    def stop_worker(self, target: str) -> Heal | None:
        if not self.world.ready(target):
            return None
        pid = self.world.running[target].process.pid
        signal_process(pid, signal.SIGSTOP)
        return lambda: signal_process(pid, signal.SIGCONT) or True

    def replace_worker(self, target: str) -> Heal | None:
        """Somebody believes it dead and starts another of its name; then it goes on."""
        if not self.world.ready(target):
            return None
        old = self.world.running[target]
        signal_process(old.process.pid, signal.SIGSTOP)
        self.world.start(target)

        def go_on() -> bool:
            if not self.world.ready(target):
                return False
            self.world.expect_end(old, EXIT_SUPERSEDED)
            signal_process(old.process.pid, signal.SIGCONT)
            return True

        return go_on

    def drain_worker(self, target: str) -> Heal | None:
        if not self.world.ready(target):
            return None
        process = self.world.running[target].process
        self.world.drain(target)
        return lambda: process.poll() is not None and self._start(target)

    def scale_up(self, target: str) -> Heal | None:
        self.world.start(target)

        def scale_down() -> bool:
            if not self.world.ready(target):
                return False
            self.world.journal.note("fleet: scale down", target)
            self.world.drain(target)
            return True

        return scale_down

    def kill_trainer(self, target: str) -> Heal | None:
        trainer = self._trainer(target)
        return None if trainer is None or not signal_process(trainer, signal.SIGKILL) else lambda: True

    def stop_trainer(self, target: str) -> Heal | None:
        trainer = self._trainer(target)
        if trainer is None or not signal_process(trainer, signal.SIGSTOP):
            return None
        return lambda: signal_process(trainer, signal.SIGCONT) or True

    def set_clock(self, target: str) -> Heal | None:
        clock = self.world.clocks[target.removeprefix("clock of ")]
        clock.set(self.chosen.choice((300, 7_200, 86_400, -300, -7_200, -86_400)))

        def set_right() -> bool:
            clock.set(0)
            return True

        return set_right

    def fill_disk(self, target: str) -> Heal | None:
        disk = self.world.seen_disk()
        if disk is None or not self.world.ready(target):
            return None
        filler = disk / "filler"
        try:
            with filler.open("wb") as file:
                while True:
                    file.write(bytes(64 * 1024))
                    file.flush()
        except OSError as error:
            if error.errno != errno.ENOSPC:
                return None

        def empty() -> bool:
            with suppress(OSError):
                filler.unlink()
            return True

        return empty

    def _start(self, worker_id: str) -> bool:
        if worker_id not in self.world.running:
            self.world.start(worker_id)
        return True

    def _trainer(self, target: str) -> int | None:
        trainers = self.world.trainers(target.removeprefix("trainer of "))
        return self.chosen.choice(trainers) if trainers else None

    # Services -----------------------------------------------------------------------------------------------------

    def kill_service(self, target: str) -> Heal:
        service = self.chosen.choice(self.world.servers[target])
        service.kill()
        starting: list[Future[Any]] = []

        def revive() -> bool:
            if not starting:
                starting.append(self.threads.submit(service.revive))
            if not starting[0].done():
                return False
            failed = starting[0].exception()
            if failed is not None:
                raise RuntimeError(f"{target} does not come back after its kill -9: {failed}") from failed
            return True

        return revive

    def stop_service(self, target: str) -> Heal:
        service = self.chosen.choice(self.world.servers[target])
        service.pause()

        def resume() -> bool:
            service.resume()
            return True

        return resume

    def disturb(self, target: str, network: Network) -> Heal:
        def become(state: Network) -> None:
            for proxy in self.world.proxies[target]:
                proxy.become(state)

        def calm() -> bool:
            become(WELL)
            return True

        become(network)
        return calm


def _network(name: str, shares: tuple[int, int, int], lasts_s: tuple[float, float], **network: Any) -> list[Kind]:
    def inflict(nemesis: Nemesis, target: str) -> Heal:
        return nemesis.disturb(target, Network(**network))

    return [
        Kind(f"{service}: {name}", share, lasts_s, (service,), inflict)
        for service, share in zip(("kafka", "mongodb", "s3"), shares, strict=True)
    ]


TRAINERS = [f"trainer of {worker}" for worker in (*WORKERS, EXTRA)]
CLOCK, DISK = "worker: clock set", "worker: disk full"

KINDS: Sequence[Kind] = (
    Kind("trainer: kill -9", 44, (0, 0), TRAINERS, Nemesis.kill_trainer),
    Kind("trainer: stopped", 20, (1, 4), TRAINERS, Nemesis.stop_trainer),
    Kind("worker: kill -9", 34, (0.5, 10), WORKERS, Nemesis.kill_worker),
    Kind("worker: stopped", 10, (1, 4), WORKERS, Nemesis.stop_worker),
    Kind("worker: stopped beyond lease and session", 5, (13, 16), WORKERS, Nemesis.stop_worker),
    Kind("worker: replaced while stopped", 2, (3, 5), WORKERS, Nemesis.replace_worker),
    Kind("worker: SIGTERM, then started", 6, (0, 1), WORKERS, Nemesis.drain_worker),
    Kind(CLOCK, 6, (4, 15), [f"clock of {worker}" for worker in WORKERS], Nemesis.set_clock),
    Kind(DISK, 5, (3, 8), (SMALL_DISK_WORKER,), Nemesis.fill_disk),
    Kind("fleet: scale up", 4, (4, 25), (EXTRA,), Nemesis.scale_up),
    Kind("kafka: kill -9", 4, (0, 2), ("kafka",), Nemesis.kill_service),
    Kind("kafka: stopped", 5, (2, 8), ("kafka",), Nemesis.stop_service),
    Kind("mongodb: kill -9", 4, (0, 2), ("mongodb",), Nemesis.kill_service),
    Kind("mongodb: stopped", 5, (1, 5), ("mongodb",), Nemesis.stop_service),
    Kind("mongodb: stopped beyond a lease", 2, (12, 15), ("mongodb",), Nemesis.stop_service),
    Kind("s3: kill -9", 3, (0, 2), ("s3",), Nemesis.kill_service),
    Kind("s3: stopped", 3, (2, 6), ("s3",), Nemesis.stop_service),
    *_network("slow network", (4, 4, 2), (2, 6), latency_s=0.15, bytes_per_s=200_000),
    *_network("connections reset", (4, 6, 3), (0.5, 4), refuses=True),
    *_network("connections silent", (3, 3, 2), (2, 6), silent=True),
    *_network("answers cut", (4, 8, 4), (0.5, 3), cut_after=0),
)
