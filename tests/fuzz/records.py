"""The values of Kafka records: by our schemas in both framings, whole, spoiled, or something else."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cache
from random import Random
from typing import Any

import orjson

from consumer.events.codec import Codec
from consumer.events.errors import UnknownSchemaIdError
from consumer.events.framing import SchemaId, fingerprint_of, header
from consumer.events.schema_registry import SchemaRegistry
from pipeline.algorithms import catalogue
from schemas import RecordType, released, schema
from tests.fuzz import values
from tests.fuzz.avro import Plausible, Writer
from tests.fuzz.mutation import mutated, noise


class LocalRegistry(SchemaRegistry):
    """A registry in this process: it has our schemas and no other."""

    def __init__(self) -> None:
        super().__init__("http://127.0.0.1:9")
        self.known: dict[int, dict[str, Any]] = {}

    def publish(self, subject: str, schema: Mapping[str, Any]) -> int:
        self.known[len(self.known) + 1] = dict(schema)
        return len(self.known)

    def schema_by_id(self, number: int) -> dict[str, Any]:
        try:
            return self.known[number]
        except KeyError:
            raise UnknownSchemaIdError(f"the schema registry knows no schema id {number}") from None


@cache
def codec() -> Codec:
    """Decodes both framings."""
    codec = Codec(LocalRegistry())
    codec.prepare()
    return codec


def value(random: Random, record: RecordType) -> bytes | None:
    """The value of a record that somebody has sent for one of this kind."""
    roll = random.random()
    if roll < 0.005:
        return None
    if roll < 0.04:
        return noise(random)
    if roll < 0.06:
        return orjson.dumps({"request_id": "r", "algorithm": "svm"})
    data = framing(random, record) + body(random, record)
    return data if roll < 0.75 else mutated(random, data)


def framing(random: Random, record: RecordType) -> bytes:
    if random.random() < 0.1:
        return random.choice(
            (b"", b"\0", b"\xc3\x01", header(SchemaId(random.choice((0, 3, 2**32 - 1)))), noise(random, 10))
        )
    if random.random() < 0.5:
        return header(SchemaId(list(RecordType).index(record) + 1))
    return header(fingerprint_of(random.choice(released(record))))


def body(
    random: Random, record: RecordType, request_id: str | None = None, plausible: Plausible | None = None
) -> bytes:
    """An Avro body by our schema: as people send it, a field or two at its worst, or all."""
    plausible = dict(PLAUSIBLE if plausible is None else plausible)
    if request_id is not None:
        plausible["request_id"] = lambda _: request_id
    worst = random.choice((0.0, 0.0, 0.05, 0.05, 0.15, 1.0))
    return Writer(random, plausible, worst).write(schema(record))


def headers(random: Random) -> Sequence[tuple[str, bytes | str | None]]:
    found: list[tuple[str, bytes | str | None]] = []
    for _ in range(random.choice((0, 0, 1, 3))):
        name = random.choice(("traceparent", "correlation_id", "ce_id", "", "__connect.errors.topic", "x" * 10_000))
        found.append((name, random.choice(_HEADER_VALUES)))
    return found


_HEADER_VALUES = (
    *(None, "", b"", b"\xff\xfe", b"c-1", "c-1", b"x" * 257, b"a\nb", b"\0" * 300_000),
    *(b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", b"ff-" + b"0" * 60),
)


def _hyperparameters(random: Random) -> dict[str, Any]:
    names = list(catalogue()[random.choice(["random_forest", "svm"])].hyperparameters)
    return {random.choice(names): random.choice((1, 10, 0.5, None, "auto", "gini", True, [1, 2])) for _ in range(2)}


def _json(random: Random) -> str | None:
    roll = random.random()
    if roll < 0.8:
        return None
    if roll < 0.85:
        return values.text(random)
    if roll < 0.9:
        return _dumped(values.deep(random))
    if roll < 0.93:
        return '{"C": ' + random.choice(("1e999", "NaN", "-0", "1" * 5_000, '"\\ud800"', "[" * 5_000)) + "}"
    return _dumped({random.choice(("C", "max_depth", "", "ä")): values.nested(random) for _ in range(3)})


def _dumped(value: Any) -> str:
    return json.dumps(value, default=str)


def _search(random: Random) -> dict[str, Any] | None:
    if random.random() < 0.7:
        return None
    space = [
        {"name": name, "values": None, "low": None, "high": None, "step": None, "log": None, **what}
        for name, what in random.sample(_DIMENSIONS, random.randint(0, 3))
    ]
    return {
        "strategy": random.choice(("grid", "random", "halving", "optuna", "")),
        "space": space,
        "cv": random.choice((None, 3, 1, 21)),
        "scoring": random.choice((None, "accuracy", "r2", "f1")),
        "max_candidates": random.choice((None, 5, 10_001, 0, -1)),
        "time_budget_s": random.choice((None, 60.0, 0.0, -1.0, float("inf"), float("nan"))),
    }


_DIMENSIONS: Sequence[tuple[str, Mapping[str, Any]]] = (
    ("max_depth", {"values": [None, 3, 5]}),
    ("max_depth", {"low": 1.0, "high": 10.0, "step": 1.0}),
    ("n_estimators", {"low": 10.0, "high": 100.0}),
    ("n_estimators", {"low": 1.0, "high": 1e308, "step": 5e-324}),
    ("C", {"low": 0.01, "high": 100.0, "log": True}),
    ("C", {"low": 5e-324, "high": 1.7e308, "log": True}),
    ("min_samples_split", {"low": -1.0, "high": 1.0, "step": 1e-9}),
    ("criterion", {"values": ["gini", "entropy"]}),
    ("max_features", {"low": 0.1, "high": 1.0}),
)
PLAUSIBLE: Plausible = {
    "request_id": lambda random: f"r-{random.randrange(10**9)}",
    "command": lambda _: "CANCEL",
    "job_name": lambda random: random.choice(("churn", "spam_filter", "job.1")),
    "project": lambda random: random.choice(("default", "risk")),
    "user": lambda random: random.choice(("", "ann", "bob@example.org")),
    "algorithm": lambda random: random.choice((*catalogue(), "random_forest", "svm", "decision_tree")),
    "dataset_name": lambda random: random.choice(("iris", "wine", "people", "digits.v2")),
    "features": lambda random: random.choice((None, None, ["a"], ["a", "b"])),
    "hyperparameters": lambda random: _hyperparameters(random) if random.random() < 0.3 else {},
    "hyperparameters_json": _json,
    "search": _search,
    "strategy": lambda random: random.choice(("grid", "random", "halving")),
    "test_size": lambda _: 0.2,
    "stratify": lambda _: True,
    "seed": lambda random: random.randrange(2**32),
    "reuse": lambda random: random.random() < 0.3,
    "tags": lambda random: random.choice(({}, {"team": "a"}, {"a.b-c": "ü"})),
    "requested_at": lambda random: random.choice((None, 1_770_000_000_000)),
}
