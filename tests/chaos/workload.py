"""What is asked of the fleet: a seeded plan of requests, repeats, poison and cancels over time, and what is right."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pipeline.jobs import TrainingRequest

REGISTERED, REJECTED, FAILED = frozenset({"REGISTERED"}), frozenset({"REJECTED"}), frozenset({"FAILED"})
TIMED_OUT, CANCELLED = frozenset({"TIMED_OUT"}), frozenset({"CANCELLED"})
FAST_MODELS = 30
DATASETS = ("iris", "wine", "breast_cancer", "people")
FOR_EVER_S = 3000.0


@dataclass(frozen=True)
class Step:
    """Something to be sent at a time: a request (with another key to reach another partition), bytes, or a cancel."""

    at_s: float
    request: TrainingRequest | None = None
    key: bytes | None = None
    raw: bytes | None = None
    cancel: str = ""


@dataclass
class Plan:
    """The steps in their order, and by request_id the outcomes that are right."""

    steps: list[Step] = field(default_factory=list)
    expected: dict[str, Collection[str]] = field(default_factory=dict)
    injected: Counter[str] = field(default_factory=Counter)
    """What was sent, by kind."""


def plan(seed: int, requests: int, seconds: float) -> Plan:
    """So many distinct requests at a steady rate; repeats, undecodable bytes and cancels come on top."""
    chosen, made = random.Random(seed), Plan()
    kinds = list(SHARES)
    weights = [SHARES[kind] for kind in kinds]
    for number in range(requests):
        kind = chosen.choices(kinds, weights)[0]
        at_s = seconds * number / requests
        made.injected[kind] += 1
        for step in _steps(kind, f"{kind}-{number}", number, at_s, chosen, made):
            made.steps.append(step)
    for number in range(max(3, requests // 100)):
        raw = chosen.choice([b"no avro", b'{"json": true}', b"", b"\xc3\x01", b"\x00\x00\x00\x00\x07xyz"])
        made.steps.append(Step(chosen.uniform(0, seconds), raw=raw, key=b"k%d" % number))
        made.injected["undecodable"] += 1
    made.steps.sort(key=lambda step: step.at_s)
    return made


SHARES: Mapping[str, float] = {
    "fast": 0.825,
    "seconds": 0.1,
    "long": 0.003,
    "rejected": 0.02,
    "crashing": 0.003,
    "raising": 0.004,
    "timeout": 0.003,
    "retry": 0.03,
    "conflict": 0.004,
    "cancel-before": 0.002,
    "cancel-while": 0.004,
    "cancel-after": 0.004,
}
"""Of the requests, by kind. A retry is sent two or three times; the id of a conflict is used again."""


def _steps(kind: str, request_id: str, number: int, at_s: float, chosen: random.Random, made: Plan) -> Iterator[Step]:
    fast = _fast(request_id, number, chosen)
    right: Collection[str] = REGISTERED
    request = fast
    match kind:
        case "seconds":
            request = _troublesome(request_id, f"seconds-{number % 8}", "sleep", chosen.uniform(1, 3))
        case "long":
            request = _troublesome(request_id, f"long-{number % 5}", "sleep", chosen.uniform(20, 40))
        case "rejected":
            right, request = REJECTED, _request(request_id, f"fast-{number % FAST_MODELS}", **chosen.choice(BAD))
        case "crashing":
            right, request = FAILED, _troublesome(request_id, "crashing", chosen.choice(("segfault", "exit")), 1)
        case "raising":
            right, request = FAILED, _troublesome(request_id, "raising", "raise", 1)
        case "timeout":
            right = TIMED_OUT
            request = _troublesome(request_id, "slow", "sleep", FOR_EVER_S, max_training_time_s=1.0)
        case "retry":
            for _ in range(chosen.choice((1, 1, 2))):
                other = b"another-partition-%d" % chosen.randrange(12) if chosen.random() < 0.5 else None
                yield Step(at_s + chosen.choice((0.0, 0.5, chosen.uniform(0, 20))), fast, other)
        case "conflict":
            other = b"another-partition-%d" % chosen.randrange(12) if chosen.random() < 0.3 else None
            second = _fast(request_id, number, chosen, seed=7)
            yield Step(at_s + chosen.uniform(0, 10), second, other)
        case "cancel-before":
            right = REGISTERED | CANCELLED
            yield Step(max(0.0, at_s - 3), cancel=request_id)
        case "cancel-while":
            right = CANCELLED
            request = _troublesome(request_id, f"hanging-{number}", "sleep", FOR_EVER_S)
            yield Step(at_s + chosen.uniform(0.2, 5), cancel=request_id)
        case "cancel-after":
            right = REGISTERED | CANCELLED
            yield Step(at_s + 5, cancel=request_id)
    made.expected[request_id] = right
    yield Step(at_s, request)


BAD: Sequence[Mapping[str, Any]] = (
    {"algorithm": "decision_treee"},
    {"hyperparameters": {"max_depths": 3}},
    {"hyperparameters": {"max_depth": 0}},
    {"dataset_name": "iriss"},
    {"target_column": "specie"},
    {"features": ("sepal length", "nose length")},
    {"dataset_name": "diabetes"},
    {"dataset_name": "../../etc/passwd"},
)


def _fast(request_id: str, number: int, chosen: random.Random, seed: int = 42) -> TrainingRequest:
    dataset = chosen.choices(DATASETS, (6, 2, 2, 1))[0]
    return _request(request_id, f"fast-{number % FAST_MODELS}", dataset_name=dataset, seed=seed)


def _troublesome(request_id: str, model_name: str, mode: str, seconds: float, **more: Any) -> TrainingRequest:
    hyperparameters = {"mode": mode, "seconds": round(seconds, 3)}
    return _request(request_id, model_name, algorithm="troublesome", hyperparameters=hyperparameters, **more)


def _request(request_id: str, model_name: str, **more: Any) -> TrainingRequest:
    wanted = {"algorithm": "decision_tree", "dataset_name": "iris", **more}
    return TrainingRequest(request_id, f"job-{model_name}", model_name=model_name, **wanted)
