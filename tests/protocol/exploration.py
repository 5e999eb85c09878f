"""Every state within the bounds, breadth first, so that the way to a broken law is a shortest one."""

from __future__ import annotations

from array import array
from dataclasses import dataclass

import numpy as np

from tests.protocol.laws import Laws
from tests.protocol.steps import PROGRESS, Protocol
from tests.protocol.world import Bounds, State, start

STUCK = "no way from here leads to an end"


@dataclass(frozen=True)
class Explored:
    """`broken`: the law that some way breaks, and `trace`: that way, a step a line. Else every state was looked at."""

    states: int
    steps: int
    broken: str | None = None
    trace: tuple[str, ...] = ()

    def __str__(self) -> str:
        if self.broken is None:
            return f"{self.states:,} states, {self.steps:,} steps: all laws hold"
        return "\n".join((*(f"{at:3} {step}" for at, step in enumerate(self.trace, 1)), f"  ! {self.broken}"))


def explore(bounds: Bounds) -> Explored:
    """Looks at all states unless a law is broken; that from each an end can be reached is judged when all are known."""
    protocol, laws = Protocol(bounds), Laws(bounds.scenario)
    states = [start(bounds)]
    known = {states[0]: 0}
    parents = array("L", [0])
    sources, targets = array("L"), array("L")
    steps = 0
    for at, state in enumerate(states):
        for step in protocol.steps(state):
            steps += 1
            to = known.setdefault(step.state, len(states))
            if to == len(states):
                states.append(step.state)
                parents.append(at)
            if why := laws.broken(state, step.state):
                trace = (*_trace(protocol, states, parents, at), step.label)
                return Explored(len(states), steps, why, trace)
            if step.kind == PROGRESS and to != at:
                sources.append(at)
                targets.append(to)
    stuck = _first_stuck([laws.ended(state) for state in states], sources, targets)
    if stuck is not None:
        return Explored(len(states), steps, STUCK, _trace(protocol, states, parents, stuck))
    return Explored(len(states), steps)


def _first_stuck(ended: list[bool], sources: array[int], targets: array[int]) -> int | None:
    """The first state from which no progress leads to an end, whatever is chosen on the way."""
    well, before = np.array(ended), -1
    from_, to = np.array(sources, dtype=np.int64), np.array(targets, dtype=np.int64)
    while before != (before := int(well.sum())):
        well[from_[well[to]]] = True
    return None if well.all() else int(np.argmin(well))


def _trace(protocol: Protocol, states: list[State], parents: array[int], at: int) -> tuple[str, ...]:
    labels: list[str] = []
    while at:
        parent = parents[at]
        labels.append(next(step.label for step in protocol.steps(states[parent]) if step.state == states[at]))
        at = parent
    return tuple(reversed(labels))
