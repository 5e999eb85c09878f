"""A process with a port and a watch, one of whose threads stands still when it is told to.

`python -m tests.unit.standstill HOW` prints the port. Each byte on standard input takes it one step further: the thread
stands still, goes on (where HOW can), and the process ends.
"""

from __future__ import annotations

import ctypes
import os
import sys
import threading

import bson

from consumer.port import http
from consumer.system.processes import die_with_parent
from consumer.telemetry.logs import configure
from consumer.telemetry.metrics import Metrics
from consumer.threads.watch import Watch

HELD_LIMIT_S = 1.0
HTTP_LIMIT_S = 5.0
told_to_answer = threading.Event()


def main(how: str) -> None:
    die_with_parent()
    configure("INFO", "json")
    http.STANDSTILL_S = HTTP_LIMIT_S
    watch = Watch("worker-1", held_limit_s=HELD_LIMIT_S)
    health = answers_when_told if how == answers_when_told.__name__ else answers
    server = http.HttpServer(0, health, watch.stuck, Metrics(), watch, host="127.0.0.1")
    sys.stdout.write(f"{server.start()}\n")
    sys.stdout.flush()
    watch.start(server.listening)
    loader = threading.Thread(target=load, args=(watch, how), daemon=True)
    loader.start()
    loader.join()
    next_step()
    watch.stop()
    server.stop()


def load(watch: Watch, how: str) -> None:
    turn = watch.turn("loader", 60.0)
    turn.begin()
    next_step()
    if how == answers_when_told.__name__:
        told_to_answer.set()
    else:
        {"walks_a_range": walks_a_range, "reads_and_lets_nobody_in": reads_and_lets_nobody_in}[how]()
    turn.rest()


def next_step() -> None:
    os.read(0, 1)


def walks_a_range() -> None:
    """As whoever checks a NumberLong of MongoDB: in C, number by number, for ever."""
    bson.Int64(5) in range(-(2**63), 2**63)  # noqa: B015


def reads_and_lets_nobody_in() -> None:
    ctypes.PyDLL(None).read(0, ctypes.create_string_buffer(1), 1)


def answers_when_told() -> http.Health:
    told_to_answer.wait()
    return answers()


def answers() -> http.Health:
    return http.Health(True, True, True, 0, 0, 0)


if __name__ == "__main__":
    main(sys.argv[1])
