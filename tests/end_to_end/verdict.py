"""Whether every promise was kept, from the evidence alone: a pure function of what was read.

Nothing of the worker's code is used here. What evidence is made of: `tests.end_to_end.evidence`.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from tests.end_to_end.evidence import Document, Evidence, Seen

TERMINAL = frozenset({"REGISTERED", "REJECTED", "FAILED", "TIMED_OUT", "CANCELLED"})
CRASHED = frozenset({"TRAINER_CRASHED", "WORKER_LOST", "INTERNAL_ERROR"})
REQUEST_ID_CHARACTERS = range(1, 121)
NOT_CONTENT = frozenset({"requested_at", "correlation_id"})


class Wrong(StrEnum):
    """What can be wrong; each is counted by itself."""

    LOST = "lost requests"
    INVENTED = "invented outcomes"
    OUTCOME = "unexpected outcomes"
    DOUBLE_EVENT = "double events"
    MISSING_EVENT = "missing events"
    EVENT = "event ≠ document"
    DOUBLE_VERSION = "double versions"
    GAP = "gaps in versions"
    ORDER = "orders broken"
    ARTIFACT = "artifacts that are not what was announced"
    DEAD_LETTER = "dead letters ≠ poison"
    OFFSET = "committed offset regressions"
    WORKER = "workers that ended unasked"


@dataclass
class Verdict:
    """Counts for the reader; `violations` is empty if every promise was kept."""

    records: int = 0
    requests: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    dead_letters: int = 0
    models: int = 0
    trainings: int = 0
    trainings_repeated: int = 0
    repeated_events: int = 0
    found: dict[Wrong, list[str]] = field(default_factory=lambda: {wrong: [] for wrong in Wrong})

    @property
    def violations(self) -> list[str]:
        return [f"{wrong}: {what}" for wrong, cases in self.found.items() for what in cases]

    def note(self, wrong: Wrong, what: str) -> None:
        self.found[wrong].append(what)

    def __str__(self) -> str:
        kinds = ", ".join(f"{kind} {count}" for kind, count in sorted(self.outcomes.items()))
        broken = "\n".join(self.violations) or "none"
        return (
            f"requests {self.requests}, outcomes: {kinds}; models {self.models}, dead letters {self.dead_letters}, "
            f"repeated {self.trainings_repeated}; violations: {broken}"
        )


def judge(
    evidence: Evidence,
    *,
    expected: Mapping[str, Collection[str]] | None = None,
    may_repeat: bool = False,
    all_news: bool = True,
) -> Verdict:
    """Compare everything that is on the requests topic with everything that is to be seen.

    Args:
        expected: by request_id the outcomes that are right, of those requests of which that is known.
        may_repeat: events may come again with equal ids and equal bytes: the group's offsets were reset, or they are
            delivered at least once.
        all_news: no progress event was lost or late, so the last STARTED tells who trained last.
    """
    verdict = Verdict(records=len(evidence.requests))
    homes = _homes(evidence)
    outcomes = {document["request_id"]: document for document in evidence.outcomes}
    progress = _once(verdict, evidence.progress, may_repeat)
    registered = _once(verdict, evidence.registered, may_repeat)
    _check_outcomes(verdict, homes, outcomes, expected or {})
    _check_terminal_events(verdict, outcomes, progress)
    if all_news:
        _check_who_ended_it(verdict, outcomes, progress)
    _check_models(verdict, outcomes, evidence.models, registered)
    _check_versions(verdict, homes, evidence.models)
    _check_artifacts(verdict, evidence)
    _check_dead_letters(verdict, evidence, homes, outcomes, may_repeat)
    _count(verdict, homes, evidence)
    return verdict


def readable(seen: Seen) -> bool:
    """Whether there is somebody to answer to."""
    return seen.content is not None and len(seen.content["request_id"]) in REQUEST_ID_CHARACTERS


def _homes(evidence: Evidence) -> dict[str, Seen]:
    """By request_id the record that counts: what the claim names, else the first in the order of partitions."""
    by_place = {seen.place: seen for seen in evidence.requests}
    homes: dict[str, Seen] = {}
    for seen in evidence.requests:
        if readable(seen):
            homes.setdefault(_content(seen)["request_id"], seen)
    for claim in evidence.claims:
        home = claim.get("home")
        claimed = home and by_place.get((home["partition"], home["offset"]))
        if claimed and _content(claimed)["request_id"] == claim["_id"]:
            homes[claim["_id"]] = claimed
    return homes


def _once(verdict: Verdict, events: Iterable[Seen], may_repeat: bool) -> list[Document]:
    """Each event once; again it counts as double, where that is allowed only if it says something else."""
    first: dict[str, Seen] = {}
    for seen in events:
        content = _content(seen)
        before = first.get(content["event_id"])
        if before is None:
            first[content["event_id"]] = seen
        elif content.get("state", "REGISTERED") not in TERMINAL:
            continue
        elif may_repeat and before.value == seen.value:
            verdict.repeated_events += 1
        else:
            verdict.note(Wrong.DOUBLE_EVENT, f"event {content['event_id']} of {content['request_id']}")
    return [_content(seen) for seen in first.values()]


def _check_outcomes(
    verdict: Verdict,
    homes: Mapping[str, Seen],
    outcomes: Mapping[str, Document],
    expected: Mapping[str, Collection[str]],
) -> None:
    for request_id in sorted(homes.keys() - outcomes.keys()):
        verdict.note(Wrong.LOST, f"{request_id} has no outcome")
    for request_id in sorted(outcomes.keys() - homes.keys()):
        verdict.note(Wrong.INVENTED, request_id)
    for request_id in sorted(expected.keys() - homes.keys()):
        verdict.note(Wrong.LOST, f"{request_id} is not on the topic")
    for request_id, outcome in outcomes.items():
        if outcome["kind"] not in expected.get(request_id, TERMINAL):
            wanted = " or ".join(sorted(expected[request_id]))
            verdict.note(Wrong.OUTCOME, f"{request_id} is {outcome['kind']}, not {wanted}: {outcome['error']}")


def _check_terminal_events(verdict: Verdict, outcomes: Mapping[str, Document], progress: Iterable[Document]) -> None:
    terminal: dict[str, list[Document]] = defaultdict(list)
    for event in progress:
        if event["state"] in TERMINAL:
            terminal[event["request_id"]].append(event)
    for request_id, outcome in outcomes.items():
        events = terminal[request_id]
        if not events:
            verdict.note(Wrong.MISSING_EVENT, f"{request_id} has no terminal event")
        if len(events) > 1:
            verdict.note(Wrong.DOUBLE_EVENT, f"{request_id} has {len(events)} terminal events")
        for event in events:
            told = [event[name] for name in ("state", "attempt", "worker_id", "sequence")]
            if told != [outcome[name] for name in ("kind", "attempt", "worker_id", "sequence")]:
                verdict.note(Wrong.EVENT, f"event {told} is not outcome {outcome['kind']}: {request_id}")
            if (event["error"] or {}).get("message") != (outcome["error"] or {}).get("message"):
                verdict.note(Wrong.EVENT, f"the event's error is not the outcome's: {request_id}")
    for request_id in terminal.keys() - outcomes.keys():
        verdict.note(Wrong.EVENT, f"{request_id} has a terminal event and no outcome")


def _check_who_ended_it(verdict: Verdict, outcomes: Mapping[str, Document], progress: Iterable[Document]) -> None:
    """Nobody fails what another is training."""
    started: dict[str, str] = {}
    ended: set[str] = set()
    # By when it happened: what a stopped worker had yet to send is sent when it goes on.
    for event in sorted(progress, key=lambda event: event["occurred_at"]):
        if event["state"] in TERMINAL:
            ended.add(event["request_id"])
        elif event["state"] == "STARTED" and event["request_id"] not in ended:
            started[event["request_id"]] = event["worker_id"]
    for request_id, outcome in outcomes.items():
        worker_id = started.get(request_id, outcome["worker_id"])
        if outcome["kind"] in ("FAILED", "TIMED_OUT") and worker_id != outcome["worker_id"]:
            verdict.note(Wrong.OUTCOME, f"{outcome['worker_id']} ended {request_id}, which {worker_id} was training")


def _check_models(
    verdict: Verdict,
    outcomes: Mapping[str, Document],
    models: Sequence[Document],
    registered: Sequence[Document],
) -> None:
    documents = {document["request_id"]: document for document in models}
    wanted = {request_id for request_id, outcome in outcomes.items() if outcome["kind"] == "REGISTERED"}
    for request_id in sorted(wanted - documents.keys()):
        verdict.note(Wrong.LOST, f"{request_id} is REGISTERED without a document")
    for request_id in sorted(documents.keys() - wanted):
        verdict.note(Wrong.INVENTED, f"{request_id} has a document and is not REGISTERED")
    events = Counter(event["request_id"] for event in registered)
    for request_id in sorted(wanted - events.keys()):
        verdict.note(Wrong.MISSING_EVENT, f"{request_id} has no model-registered event")
    for request_id, count in events.items():
        if count > 1:
            verdict.note(Wrong.DOUBLE_EVENT, f"{request_id} has {count} model-registered events")
        if request_id not in wanted:
            verdict.note(Wrong.EVENT, f"{request_id} has a model-registered event and is not REGISTERED")
    for event in registered:
        for what in _differences(event, documents.get(event["request_id"], {})):
            verdict.note(Wrong.EVENT, f"{what} ({event['request_id']})")


def _differences(event: Document, document: Document) -> Iterator[str]:
    for name, value in event.items():
        if name == "event_id" or not document:
            continue
        stored = document.get(name)
        if name == "hyperparameters":
            value = {key: json.loads(text) for key, text in value.items()}
        if isinstance(value, datetime) and isinstance(stored, datetime):
            stored = stored.replace(tzinfo=value.tzinfo)
        if value != stored:
            yield f"{name}: {value!r} ≠ {stored!r}"


def _check_versions(verdict: Verdict, homes: Mapping[str, Seen], models: Sequence[Document]) -> None:
    by_model: dict[str, list[Document]] = defaultdict(list)
    for document in models:
        by_model[f"{document['project']}/{document['model_name']}"].append(document)
    for request_id, count in Counter(document["request_id"] for document in models).items():
        if count > 1:
            verdict.note(Wrong.DOUBLE_VERSION, f"{request_id} has {count} versions")
    for name, documents in by_model.items():
        documents.sort(key=lambda document: document["version_number"])
        numbers = [document["version_number"] for document in documents]
        for number, count in Counter(numbers).items():
            if count > 1:
                verdict.note(Wrong.DOUBLE_VERSION, f"{name} has v{number} {count} times")
        if missing := sorted(set(range(1, max(numbers) + 1)) - set(numbers)):
            verdict.note(Wrong.GAP, f"{name} lacks {', '.join(f'v{number}' for number in missing)}")
        for document in documents:
            if document["version"] != f"v{document['version_number']}":
                verdict.note(Wrong.EVENT, f"{name} {document['version']} has number {document['version_number']}")
        for what in _out_of_order(homes, documents):
            verdict.note(Wrong.ORDER, f"{name}: {what}")


def _out_of_order(homes: Mapping[str, Seen], documents: Sequence[Document]) -> Iterator[str]:
    last: dict[int, tuple[int, str]] = {}
    for document in documents:
        home = homes.get(document["request_id"])
        if home is None:
            continue
        offset, version = last.get(home.partition, (-1, ""))
        if home.offset < offset:
            yield f"{document['version']} is of offset {home.offset}, {version} of {offset} in {home.partition}"
        last[home.partition] = home.offset, document["version"]


def _check_artifacts(verdict: Verdict, evidence: Evidence) -> None:
    for document in evidence.models:
        uri, file = document["artifact_uri"], evidence.files.get(document["artifact_uri"])
        if file is None:
            verdict.note(Wrong.ARTIFACT, f"{uri} of {document['request_id']} is not there")
        elif (file.sha256, file.size_bytes) != (document["artifact_sha256"], document["artifact_bytes"]):
            verdict.note(Wrong.ARTIFACT, f"{uri} does not have its sha256 or size")


def poison(evidence: Evidence, homes: Mapping[str, Seen], outcomes: Mapping[str, Document]) -> set[tuple[int, int]]:
    """The places of the records that belong into the dead letters."""
    places = set()
    for seen in evidence.requests:
        if not readable(seen):
            places.add(seen.place)
            continue
        request_id = _content(seen)["request_id"]
        home, outcome = homes[request_id], outcomes.get(request_id)
        if seen is home:
            error = (outcome and outcome["error"]) or {}
            if outcome and (outcome["kind"] == "REJECTED" or error.get("kind") in CRASHED):
                places.add(seen.place)
        elif _meaning(seen) != _meaning(home):
            places.add(seen.place)  # a conflict
    return places


def _check_dead_letters(
    verdict: Verdict,
    evidence: Evidence,
    homes: Mapping[str, Seen],
    outcomes: Mapping[str, Document],
    may_repeat: bool,
) -> None:
    originals = {seen.place: seen for seen in evidence.requests}
    buried: dict[tuple[int, int], Seen] = {}
    for letter in evidence.dead_letters:
        place = tuple(int(letter.headers[f"__connect.errors.{part}"]) for part in ("partition", "offset"))
        assert len(place) == 2
        before = buried.get(place)
        if before is None:
            buried[place] = letter
        elif may_repeat and (before.value, before.headers) == (letter.value, letter.headers):
            verdict.repeated_events += 1
        else:
            verdict.note(Wrong.DOUBLE_EVENT, f"dead letter of {place}")
        if place not in originals or letter.value != originals[place].value:
            verdict.note(Wrong.DEAD_LETTER, f"the dead letter of {place} does not have the original bytes")
        if not letter.headers.get("__connect.errors.exception.message"):
            verdict.note(Wrong.DEAD_LETTER, f"the dead letter of {place} does not say why")
    verdict.dead_letters = len(buried)
    wanted = poison(evidence, homes, outcomes)
    for place in sorted(wanted - buried.keys()):
        verdict.note(Wrong.DEAD_LETTER, f"no dead letter of {place}")
    for place in sorted(buried.keys() - wanted):
        why = buried[place].headers.get("__connect.errors.exception.message", b"").decode()
        verdict.note(Wrong.DEAD_LETTER, f"a dead letter of {place} that is no poison: {why}")


def _count(verdict: Verdict, homes: Mapping[str, Seen], evidence: Evidence) -> None:
    verdict.requests, verdict.models = len(homes), len(evidence.models)
    verdict.outcomes.update(document["kind"] for document in evidence.outcomes)
    events = {_content(seen)["event_id"]: _content(seen) for seen in evidence.progress}.values()
    started = Counter(event["request_id"] for event in events if event["state"] == "STARTED")
    verdict.trainings = started.total()
    verdict.trainings_repeated = sum(count - 1 for count in started.values())


def _meaning(seen: Seen) -> Document:
    return {name: value for name, value in _content(seen).items() if name not in NOT_CONTENT}


def _content(seen: Seen) -> dict[str, Any]:
    assert seen.content is not None, f"bytes that cannot be read at {seen.place}: {seen.value!r}"
    return seen.content
