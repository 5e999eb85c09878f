"""Defines the points in the code at which tests let a worker die, stop, wait or fail.

    TENSORFLEET_FAILPOINTS="after_document=kill:0.02,after_outcome=delay(2)::1,seed=7"

A rule is `POINT=ACTION[:PROBABILITY[:COUNT]]`: each time the point is reached, the action is taken with that
probability (default 1), at most COUNT times in this process (default: no limit). The actions:

- `kill`: SIGKILL to this process, as `kill -9` and the kernel's out-of-memory killer do;
- `stop(S)`: SIGSTOP, like a frozen machine, and SIGCONT after S seconds; `stop` alone sends no SIGCONT;
- `delay(S)`: the thread sleeps for S seconds;
- `raise`: the error of a service that does not answer at this point; a RuntimeError if the point has no service.

An unset failpoint costs one check of an empty dictionary. tests/chaos tries each protection at each point.
"""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

import structlog

from pipeline.errors import TransientError

log = structlog.get_logger(__name__)

T = TypeVar("T")

VARIABLE = "TENSORFLEET_FAILPOINTS"

POINTS = {
    "after_poll": "records were read from the topic, and nothing was done with them",
    "after_claim": "a batch was claimed in the ledger; `raise` loses the answer",
    "after_take_over": "a request was taken over from a worker that died; `raise` loses the answer",
    "after_release": "claims were given up; `raise` loses the answer",
    "while_training": "a trainer has told how far it is",
    "in_trainer": "a trainer has taken a job: it is the trainer that dies, stops or fails",
    "after_checkpoint": "a checkpoint was stored; `raise` loses the answer",
    "after_artifact": "a group's model files were stored; `raise` loses the answer",
    "after_closing": "negative outcomes were written into their claims; `raise` loses the answer",
    "after_outcome": "outcomes were inserted into the ledger; `raise` loses the answer",
    "after_document": "registry documents were inserted; `raise` loses the answer",
    "while_dead_lettering": "a group with a dead letter is about to be announced",
    "in_transaction": "events were handed to the broker, and no offset yet",
    "before_commit": "events and offsets are with the broker; `raise` leaves the end in doubt, and it was an abort",
    "after_commit": "they are committed, and it is not noted yet; `raise` leaves the end in doubt, and it was a commit",
    "after_revoke": "partitions were taken away, and nothing was let go yet",
    "after_cancel": "a cancel was written into the ledger, and its offset not committed yet; `raise` loses the answer",
    "while_draining": "the worker has begun to drain",
}

_RULE = re.compile(
    r"(?P<point>\w+)=(?P<action>kill|stop|delay|raise)(?:\((?P<seconds>[\d.]+)\))?"
    r"(?::(?P<probability>[\d.]*))?(?::(?P<count>\d+))?"
)


@dataclass(slots=True)
class Rule:
    """The action at one point. `count` is how many times it may still be taken; None is no limit."""

    action: str
    seconds: float
    probability: float
    count: int | None


@dataclass(slots=True)
class _Armed:
    rules: dict[str, Rule] = field(default_factory=dict)
    chance: random.Random = field(default_factory=random.Random)
    lock: threading.Lock = field(default_factory=threading.Lock)


_armed = _Armed()


def arm(text: str) -> None:
    """Replace all rules by these; the empty text disarms.

    Raises ValueError for an unknown point or action.
    """
    rules, chance = {}, random.Random()
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, _, value = part.partition("=")
        if name == "seed" and value.isdecimal():
            chance = random.Random(int(value))
            continue
        found = _RULE.fullmatch(part)
        if found is None or name not in POINTS:
            raise ValueError(
                f"{VARIABLE}: {part!r} is not a rule; it takes POINT=kill|stop(S)|delay(S)|raise[:PROBABILITY[:COUNT]] "
                f"with a point of {', '.join(POINTS)}"
            )
        rules[name] = Rule(
            found["action"],
            float(found["seconds"] or 0.0),
            float(found["probability"] or 1.0),
            None if found["count"] is None else int(found["count"]),
        )
    _armed.rules, _armed.chance = rules, chance


def reach(point: str, error: Callable[[], Exception] = lambda: RuntimeError("a failpoint has failed")) -> None:
    """Take this point's action, if it has a rule; `error` makes the exception for `raise`."""
    if _armed.rules:
        _act(point, error)


def after(point: str, service: str, result: T) -> T:
    """As `reach`, after a service has answered with `result`; `raise` loses the answer."""
    if _armed.rules:
        _act(point, lambda: TransientError(service, f"no answer (failpoint {point})"))
    return result


def _act(point: str, error: Callable[[], Exception]) -> None:
    rule = _armed.rules.get(point)
    if rule is None or not _due(rule):
        return
    log.warning("failpoint", point=point, action=rule.action)
    match rule.action:
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "stop":
            if rule.seconds:
                wake = f"sleep {rule.seconds}; kill -CONT {os.getpid()}"
                subprocess.Popen(["/bin/sh", "-c", wake], start_new_session=True)
            # To this thread: a signal to the process could let this thread go on for a while before it stops.
            signal.pthread_kill(threading.get_ident(), signal.SIGSTOP)
        case "delay":
            time.sleep(rule.seconds)
        case "raise":
            raise error()


def _due(rule: Rule) -> bool:
    with _armed.lock:
        if rule.count == 0 or _armed.chance.random() >= rule.probability:
            return False
        if rule.count is not None:
            rule.count -= 1
        return True
