"""The kinds of case: what each tries, how many of a run are its, and by which errors its cases may end."""

from __future__ import annotations

from collections.abc import Mapping

from consumer.events.errors import UndecodableError
from pipeline.errors import RejectedError
from tests.fuzz.case import Kind
from tests.fuzz.targets import control, files, hyperparameters, letters, models, port, registries, requests, rows

KINDS: Mapping[str, Kind] = {
    kind.name: kind
    for kind in (
        Kind("requests", 400, requests.run, (RejectedError,)),
        Kind("control", 150, control.run, (UndecodableError,)),
        Kind("hyperparameters", 200, hyperparameters.run, (RejectedError,)),
        Kind("rows", 100, rows.run, (RejectedError,)),
        Kind("files", 60, files.run, (RejectedError,), contained=True),
        Kind("models", 20, models.run, models.REFUSALS),
        Kind("letters", 40, letters.run, (), records=letters.MOST),
        Kind("schemas", 60, registries.run_schemas, registries.SCHEMA_REFUSALS),
        Kind("answers", 20, registries.run_answers, registries.ANSWER_REFUSALS),
        Kind("port", 10, port.run, ()),
    )
}


def shared(cases: int) -> dict[str, int]:
    """How many of so many cases each kind gets; at least one."""
    whole = sum(kind.share for kind in KINDS.values())
    return {name: max(1, cases * kind.share // whole) for name, kind in KINDS.items()}
