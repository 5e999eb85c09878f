"""Datasets that stay in S3: imported by the command, trained on by a worker, changed by somebody else."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pymongo.database import Database

from tests.end_to_end.fleet import Fleet
from tests.end_to_end.test_fleet import request
from tests.end_to_end.troubles import outcome
from tests.end_to_end.verdict import Verdict
from tests.services.s3 import S3


@pytest.fixture
def put(s3: S3, s3_bucket: str) -> Iterator[Callable[[str, int], str]]:
    """Store so many rows under a key; returns the url.  The bucket is not that of the artifacts."""
    bucket = f"{s3_bucket}-rows"
    s3.client().make_bucket(bucket)

    def store(key: str, rows: int) -> str:
        file = io.BytesIO()
        pq.write_table(pa.table({"legs": [n % 3 for n in range(rows)], "is": ["ab"[n % 2] for n in range(rows)]}), file)
        size = file.tell()
        file.seek(0)
        s3.client().put_object(bucket, key, file, size)
        return f"s3://{bucket}/"

    yield store
    s3.remove_bucket(bucket)


def test_a_training_reads_what_is_in_s3_when_it_begins(
    fleet: Fleet,
    verdict: Callable[..., Verdict],
    mongo_database: Database[dict[str, Any]],
    put: Callable[[str, int], str],
) -> None:
    fleet.create_topics()
    fleet.start("w")
    url = put("1.parquet", 100)
    imported = fleet.command("datasets", "import", url, "--name", "animals", "--target", "is", "--json")
    assert imported.code == 0, imported
    (version,) = imported.objects[0]["versions"]
    assert (version["version"], version["rows"], version["file"]) == ("v1", 100, url)

    def trained(request_id: str, dataset: str = "animals") -> str:
        fleet.submit(request(request_id, request_id, "decision_tree", dataset))
        fleet.await_lag(0, within_s=60)
        ended = outcome(mongo_database, request_id) or {}
        assert ended["kind"] == "REGISTERED", ended
        model = mongo_database["model_registry"].find_one({"request_id": request_id}) or {}
        return str(model["dataset_fingerprint"])

    first = trained("first")
    assert first == version["fingerprint"]
    assert trained("same", "animals.v1") == first
    put("1.parquet", 120)
    changed = trained("changed")
    put("2.parquet", 100)
    added = trained("added", "animals.v1")
    assert len({first, changed, added}) == 3
    assert fleet.command("datasets", "import", url, "--name", "animals", "--target", "is").code == 0
    (animals,) = [one for one in fleet.command("datasets", "list", "--json").objects if one["name"] == "animals"]
    assert (animals["rows"], animals["source"], animals["version"]) == (220, "s3", "v1")
    found = verdict()
    assert found.violations == [], str(found)
