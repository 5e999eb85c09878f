"""A search goes on where a worker that died has left it."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import gridfs
import pytest
from pymongo.database import Database

from pipeline.jobs import Search, SearchDimension
from tests.end_to_end.fleet import Fleet
from tests.end_to_end.test_fleet import request
from tests.end_to_end.troubles import progress
from tests.end_to_end.verdict import Verdict

CANDIDATES, FOLDS = 48, 5


def notes(database: Database[dict[str, Any]]) -> list[int]:
    """How many candidates each stored checkpoint holds."""
    files = gridfs.GridFS(database)
    counts = []
    for name in files.list():
        if name.startswith("~checkpoints/"):
            with ZipFile(io.BytesIO(files.get_last_version(name).read())) as archive:
                counts.append(
                    archive.read("search.jsonl").count(b"\n") - 1
                )  # the first line says what they were made on
    return counts


@pytest.mark.timeout(240)
def test_a_search_whose_worker_is_killed_fits_no_finished_candidate_again_on_another_machine(
    fleet: Fleet, verdict: Callable[..., Verdict], mongo_database: Database[dict[str, Any]], tmp_path: Path
) -> None:
    fleet.create_topics(partitions=2)
    first = fleet.start("w0")
    fits = tmp_path / "fits"
    seconds = SearchDimension("seconds", tuple(0.05 + n / 10_000 for n in range(CANDIDATES)))
    fixed = {"mode": "sleep", "path": str(fits)}
    search = Search("grid", (seconds,), cv=FOLDS)
    fleet.submit(request("r", "r", "troublesome", "iris", hyperparameters=fixed, search=search))

    def fitted() -> Counter[str]:
        return Counter(fits.read_text().split()) if fits.exists() else Counter()

    def told_by() -> set[str]:
        told = [event for event in progress(fleet, "r") if f" of {CANDIDATES}; best accuracy" in event["message"]]
        return {event["worker_id"] for event in told}

    checkpoints = {"filename": {"$regex": "^~checkpoints/"}}
    fleet.until(lambda: mongo_database["fs.files"].count_documents(checkpoints) and told_by() == {"w0"}, 60)
    fleet.lose_machine(first)
    before = fitted().total()
    kept = max(notes(mongo_database))
    fleet.start("w1")
    fleet.submit(request("calm", "calm", "troublesome", "iris", hyperparameters={"mode": "sleep"}, search=search))
    fleet.await_lag(0, within_s=120)
    found = verdict()
    assert (found.violations, found.models) == ([], 2), str(found)
    assert kept > 0
    assert fitted().total() - before == (CANDIDATES - kept) * FOLDS + 1
    killed, calm = (mongo_database["model_registry"].find_one({"request_id": name}) or {} for name in ("r", "calm"))
    assert killed["metrics"] == calm["metrics"]
    assert killed["hyperparameters"]["seconds"] == calm["hyperparameters"]["seconds"]
    assert killed["metrics"]["search_candidates"] == CANDIDATES
    assert told_by() == {"w0", "w1"}
    fleet.until(lambda: not mongo_database["fs.files"].count_documents(checkpoints), 60)
