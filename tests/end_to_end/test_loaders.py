"""Datasets that crash, stall or swell what reads them, beside good requests on a real fleet."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from gridfs import GridFSBucket
from pymongo.database import Database

from pipeline.datasets.mongodb import MongoSource
from tests.end_to_end.fleet import Fleet
from tests.end_to_end.test_fleet import request
from tests.end_to_end.troubles import outcome
from tests.end_to_end.verdict import Verdict

TROUBLES = Path(__file__).parents[1] / "plugins" / "loader_troubles"
GOOD = 100


def _store(database: Database[dict[str, Any]], name: str, content: bytes, file_name: str) -> None:
    file_id = GridFSBucket(database).upload_from_stream(file_name, content)
    database["datasets"].insert_one({"name": name, "file_id": file_id})


def _bomb() -> bytes:
    file = io.BytesIO()
    texts = pa.DictionaryArray.from_arrays(pa.array([0] * 4_000, pa.int32()), pa.array(["x" * 2**20]))
    pq.write_table(pa.table({"x": texts}), file, compression="zstd")
    return file.getvalue()


@pytest.mark.timeout(240)
def test_datasets_that_end_their_loader_end_their_own_request_and_no_other(
    fleet: Fleet,
    verdict: Callable[..., Verdict],
    mongo_database: Database[dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    says = {
        "segfault": "dataset 'segfault': its file rows.csv (12 bytes) crashes the reader (signal 11)",
        "hang": "dataset 'hang': its file rows.csv (12 bytes) takes more than 5 s (DATASET_LOAD_TIME) to be read",
        "grow": "dataset 'grow': its file rows.csv (12 bytes) takes more than 600 MiB (MAX_TRAINING_MEMORY) to be read",
        "killed": "dataset 'killed': its file rows.csv (12 bytes) had its reader killed by the machine twice",
        "bomb": "takes more than 600 MiB (MAX_TRAINING_MEMORY) to be read",
        "empty": "dataset 'empty': the file is empty",
    }
    for name in says:
        content = {"bomb": _bomb(), "empty": b""}.get(name, b"a,b\n1,2\n3,4\n")
        _store(mongo_database, name, content, "rows.parquet" if name == "bomb" else "rows.csv")
    people = pa.table({"x": list(range(100)), "y": ["a", "b"] * 50})
    MongoSource(mongo_database).add("people", people, "y")
    mongo_database["animals"].insert_many([{"legs": n % 3, "is": "ab"[n % 2]} for n in range(100)])
    fleet.create_topics()
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(TROUBLES), os.environ.get("PYTHONPATH", "")]))
    worker = fleet.start("w", MAX_TRAINING_MEMORY="600MiB", DATASET_LOAD_TIME="5")
    good = [
        request(f"good-{n}", f"good-{n}", "decision_tree", ("people", "animals", "iris")[n % 3]) for n in range(GOOD)
    ]
    fleet.submit(*(request(name, name, "decision_tree", name) for name in says), *good)
    fleet.await_lag(0, within_s=200)
    found = verdict()
    assert found.violations == [], str(found)
    for name, message in says.items():
        ended = outcome(mongo_database, name) or {}
        assert (ended["kind"], ended["error"]["kind"]) == ("REJECTED", "INVALID_REQUEST"), name
        assert message in ended["error"]["message"]
    assert {(outcome(mongo_database, one.request_id) or {})["kind"] for one in good} == {"REGISTERED"}
    assert worker.process.poll() is None
    assert worker.drain() == 0
