"""The checker finds what it is there to find: each test breaks a world in which every promise was kept."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from tests.end_to_end.evidence import Evidence, File, Seen
from tests.end_to_end.verdict import Wrong, judge

BY = {"attempt": 1, "sequence": 1, "worker_id": "w"}
EXPECTED = {f"good-{number}": ("REGISTERED",) for number in range(3)} | {"bad": ("REJECTED",)}


def request(request_id: str, offset: int, **more: Any) -> Seen:
    content = {"request_id": request_id, "algorithm": "svm", "requested_at": offset, **more}
    return Seen(0, offset, 0, f"{request_id} {more}".encode(), {}, content)


def event(request_id: str, state: str, offset: int, error: dict[str, str] | None = None) -> Seen:
    content = {
        "event_id": f"{request_id}/{state}",
        "request_id": request_id,
        "state": state,
        "occurred_at": offset,
        **BY,
        "error": error,
    }
    return Seen(0, offset, 0, str(content).encode(), {}, content)


def announced(document: dict[str, Any], offset: int) -> Seen:
    named = ("request_id", "project", "model_name", "version", "version_number", "artifact_sha256", "artifact_bytes")
    content = {"event_id": f"{document['request_id']}/model", **{name: document[name] for name in named}}
    return Seen(0, offset, 0, str(content).encode(), {}, content)


def letter(of: Seen) -> Seen:
    headers = {"partition": b"%d" % of.partition, "offset": b"%d" % of.offset, "exception.message": b"it is wrong"}
    return Seen(0, of.offset, 0, of.value, {f"__connect.errors.{name}": value for name, value in headers.items()})


def outcome(request_id: str, kind: str, error: dict[str, str] | None = None) -> dict[str, Any]:
    return {"_id": request_id, "request_id": request_id, "kind": kind, **BY, "error": error}


def model(number: int) -> dict[str, Any]:
    return {
        "request_id": f"good-{number}",
        "project": "p",
        "model_name": "m",
        "version": f"v{number + 1}",
        "version_number": number + 1,
        "artifact_uri": f"gridfs://fs/{number}",
        "artifact_sha256": f"sha-{number}",
        "artifact_bytes": 7,
    }


def world() -> Evidence:
    """Three versions of one model, a producer's retry, a conflict, a rejected request, and bytes that are none."""
    error = {"kind": "INVALID_REQUEST", "message": "there is no svn"}
    good = [request(f"good-{number}", number) for number in range(3)]
    retry = replace(good[1], offset=10, content={**(good[1].content or {}), "requested_at": 99})
    conflict, bad = request("good-2", 11, algorithm="other"), request("bad", 12)
    junk = Seen(1, 0, 0, b"no avro")
    models = [model(number) for number in range(3)]
    return Evidence(
        requests=[*good, retry, conflict, bad, junk],
        progress=[
            *(event(f"good-{number}", state, 0) for number in range(3) for state in ("STARTED", "REGISTERED")),
            event("bad", "REJECTED", 9, error),
        ],
        registered=[announced(document, number) for number, document in enumerate(models)],
        dead_letters=[letter(conflict), letter(bad), letter(junk)],
        claims=[{"_id": "good-0", "home": {"partition": 0, "offset": 0}}],
        outcomes=[*(outcome(f"good-{number}", "REGISTERED") for number in range(3)), outcome("bad", "REJECTED", error)],
        models=models,
        files={f"gridfs://fs/{number}": File(f"sha-{number}", 7) for number in range(3)},
    )


def test_a_world_in_which_every_promise_was_kept_has_no_violation() -> None:
    verdict = judge(world(), expected=EXPECTED)
    assert verdict.violations == []
    assert (verdict.requests, verdict.models, verdict.dead_letters, verdict.trainings) == (4, 3, 3, 3)


def broken_versions(evidence: Evidence, *numbers: int) -> None:
    for document, number in zip(evidence.models, numbers, strict=True):
        document.update(version=f"v{number}", version_number=number)
    evidence.registered[:] = [announced(document, 0) for document in evidence.models]


def failed_by_another(evidence: Evidence) -> None:
    evidence.progress.insert(0, event("x", "STARTED", 0))
    evidence.progress.append(event("x", "FAILED", 9))
    evidence.outcomes.append(outcome("x", "FAILED") | {"worker_id": "another"})


BREAKS: list[tuple[str, Wrong, Callable[[Evidence], object]]] = [
    ("an outcome is missing", Wrong.LOST, lambda e: e.outcomes.pop(0)),
    ("a document is missing", Wrong.LOST, lambda e: e.models.pop()),
    ("a request is not on the topic", Wrong.LOST, lambda e: e.requests.pop(0)),
    ("an outcome nobody asked for", Wrong.INVENTED, lambda e: e.outcomes.append(outcome("x", "FAILED"))),
    ("an outcome that is not right", Wrong.OUTCOME, lambda e: e.outcomes[0].update(kind="FAILED")),
    ("a terminal event twice", Wrong.DOUBLE_EVENT, lambda e: e.progress.append(e.progress[1])),
    ("two terminal events", Wrong.DOUBLE_EVENT, lambda e: e.progress.append(event("good-0", "FAILED", 7))),
    ("a registered event twice", Wrong.DOUBLE_EVENT, lambda e: e.registered.append(e.registered[0])),
    ("a dead letter twice", Wrong.DOUBLE_EVENT, lambda e: e.dead_letters.append(e.dead_letters[0])),
    ("no terminal event", Wrong.MISSING_EVENT, lambda e: e.progress.pop()),
    ("no registered event", Wrong.MISSING_EVENT, lambda e: e.registered.pop()),
    ("an event unlike the document", Wrong.EVENT, lambda e: e.models[0].update(artifact_bytes=8)),
    ("an event unlike the outcome", Wrong.EVENT, lambda e: e.outcomes[0].update(attempt=2)),
    (
        "a failure of what another was training",
        Wrong.OUTCOME,
        failed_by_another,
    ),
    ("an error unlike the outcome's", Wrong.EVENT, lambda e: e.outcomes[3].update(error={"message": "no"})),
    ("one version twice", Wrong.DOUBLE_VERSION, lambda e: broken_versions(e, 1, 2, 2)),
    ("two versions of one request", Wrong.DOUBLE_VERSION, lambda e: e.models.append({**model(3), "request_id": "bad"})),
    ("a gap", Wrong.GAP, lambda e: broken_versions(e, 1, 2, 4)),
    ("a wrong order", Wrong.ORDER, lambda e: broken_versions(e, 1, 3, 2)),
    ("an artifact is missing", Wrong.ARTIFACT, lambda e: e.files.clear()),
    ("another sha256", Wrong.ARTIFACT, lambda e: e.files.update({"gridfs://fs/0": File("x", 7)})),
    ("a dead letter is missing", Wrong.DEAD_LETTER, lambda e: e.dead_letters.pop()),
    ("a dead letter of a good one", Wrong.DEAD_LETTER, lambda e: e.dead_letters.append(letter(e.requests[0]))),
    (
        "a dead letter with other bytes",
        Wrong.DEAD_LETTER,
        lambda e: e.dead_letters.append(replace(e.dead_letters.pop(), value=b"")),
    ),
]


@pytest.mark.parametrize(("wrong", "break_it"), [b[1:] for b in BREAKS], ids=[b[0] for b in BREAKS])
def test_the_checker_finds(wrong: Wrong, break_it: Callable[[Evidence], object]) -> None:
    evidence = world()
    break_it(evidence)
    if wrong is Wrong.DOUBLE_VERSION and len(evidence.models) == 4:
        evidence.models[3]["request_id"] = "good-0"
    assert judge(evidence, expected=EXPECTED).found[wrong]


def test_the_same_event_again_is_no_violation_after_a_reset_of_offsets() -> None:
    evidence = world()
    evidence.progress += [seen for seen in evidence.progress if "STARTED" not in str(seen.content)]
    evidence.registered *= 2
    evidence.dead_letters *= 2
    verdict = judge(evidence, expected=EXPECTED, may_repeat=True)
    assert verdict.violations == []
    assert verdict.repeated_events == 4 + 3 + 3


def test_an_event_that_says_something_else_the_second_time_is_a_violation_after_a_reset_of_offsets_too() -> None:
    evidence = world()
    evidence.registered.append(replace(evidence.registered[0], value=b"other bytes"))
    assert judge(evidence, may_repeat=True).found[Wrong.DOUBLE_EVENT]


def test_the_home_of_a_request_is_what_its_claim_names() -> None:
    evidence = world()
    conflict = evidence.requests[4]
    evidence.claims.append({"_id": "good-2", "home": {"partition": 0, "offset": conflict.offset}})
    evidence.dead_letters[0] = letter(evidence.requests[2])
    assert judge(evidence, expected=EXPECTED).violations == []
