"""What nobody should send or store, made by the generators of tests/fuzz: always the same."""

from __future__ import annotations

import gzip
import io
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from random import Random
from typing import Any

import bson
from gridfs import GridFSBucket
from pymongo.database import Database

from consumer.events.framing import fingerprint_of, header
from schemas import RecordType, schema
from tests.fuzz import records
from tests.fuzz.avro import Plausible
from tests.fuzz.mutation import mutated
from tests.fuzz.targets import files, rows

QUICK: Plausible = {
    **records.PLAUSIBLE,
    "algorithm": lambda random: random.choice(("decision_tree", "naive_bayes", "no_such_algorithm")),
    "dataset_name": lambda random: random.choice(("iris", "no_such_dataset")),
    "hyperparameters": lambda random: random.choice(({}, {}, {"max_depth": 3}, {"max_depth": "x"})),
    "search": lambda _: None,
}
"""What is accepted is trained: in milliseconds."""


DEEPEST = 90
"""Of nested documents, within the hundred that a server takes."""


@dataclass(frozen=True)
class Sent:
    """A record of the requests topic."""

    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes | None]]


def hostile_records(count: int, seed: int = 1) -> Iterator[Sent]:
    """Every field at its worst, mutated, truncated, bombed, and bytes that are nothing."""
    for number in range(count):
        random = Random(f"{seed}/hostile/{number}")
        headers = [
            (name, value.encode() if isinstance(value, str) else value) for name, value in records.headers(random)
        ]
        yield Sent(random.choice(_KEYS), _value(random), headers)


_KEYS = (None, b"", b"default/churn", b"risk/churn", b"\xff\xfe", b"/" * 1_000, b"a" * 100_000, b"\0")


def _value(random: Random) -> bytes | None:
    if random.random() < 0.15:
        return records.value(random, RecordType.TRAINING_REQUEST)
    framed = header(fingerprint_of(schema(RecordType.TRAINING_REQUEST)))
    data = framed + records.body(random, RecordType.TRAINING_REQUEST, plausible=QUICK)
    return mutated(random, data) if random.random() < 0.4 else data


def store_datasets(database: Database[dict[str, Any]]) -> list[str]:
    """Collections of every BSON type, broken files of every kind, and documents that describe nothing; their names."""
    names = []
    for number, documents in enumerate(_collections()):
        names.append(f"types-{number}")
        database[names[-1]].insert_many(documents)
    bucket = GridFSBucket(database)
    for name, content in _files().items():
        file_id = bucket.upload_from_stream(name, content)
        database["datasets"].insert_one({"name": name, "file_id": file_id, "target_column": None})
        names.append(name)
    good = bucket.upload_from_stream("good.csv", b"x,y\n" + b"1,a\n2,b\n" * 20)
    for name, more in _documents(good).items():
        database["datasets"].insert_one({"name": name, **more})
        names.append(name)
    return names


def _collections() -> Iterator[list[dict[str, Any]]]:
    """The values of one kind in a column, beside a target that can be learned."""
    for place, cell in enumerate(rows._CELLS):
        random = Random(f"collections/{place}")
        documents = [{"x": cell(random), "z": number % 7, "y": "ab"[number % 2]} for number in range(60)]
        try:
            for document in documents:
                bson.encode(document)
        except (OverflowError, bson.errors.InvalidDocument, ValueError):
            continue  # what Python has and BSON has not
        if max(_depth(document["x"]) for document in documents) <= DEEPEST:
            yield documents
    deep: Any = 1
    for _ in range(DEEPEST):
        deep = [deep]
    yield [{"x": deep, "y": "ab"[number % 2]} for number in range(60)]


def _depth(value: Any) -> int:
    level, depth = [value], 0
    while level := [one for each in level if isinstance(each, dict | list) for one in _parts(each)]:
        depth += 1
    return depth


def _parts(value: Any) -> list[Any]:
    return [*value.values()] if isinstance(value, dict) else value


def _files() -> Mapping[str, bytes]:
    csv = b"x,y\n" + b"1,a\n2,b\n" * 20
    parquet = files.parquet_files()
    made: dict[str, bytes] = {
        "empty.csv": b"",
        "blank.csv": b"\n \n",
        "header.csv": b"x,y\n",
        "ragged.csv": csv + b"1,2,3,4\n",
        "unclosed.csv": b'x,y\n1,"a\n' + b"2,b\n" * 20,
        "nul.csv": csv.replace(b"a", b"\0"),
        "latin1.csv": csv.replace(b"a", b"\xe4"),
        "utf16.csv": csv.decode().encode("utf-16"),
        "twice.csv": csv.replace(b"x,y", b"x,x"),
        "wide.csv": b",".join(b"c%d" % n for n in range(3_000)) + b"\n" + b",".join([b"1"] * 3_000),
        "cell.csv": b"x,y\n" + b"1" * 2_000_000 + b",a\n",
        "packed.csv": gzip.compress(csv),
        "sheet.xlsx": _zip(csv),
        "picture.csv": b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 10,
        "deep.json": b'{"x": ' + b"[" * 2_000 + b"]" * 2_000 + b"}",
        "cut.jsonl": b'{"x": 1, "y": "a"}\n{"x": 2, "y"',
        "infinite.jsonl": b'{"x": 1e999, "y": "a"}\n{"x": NaN, "y": "b"}',
        "scalars.json": b'[1, 2, "x", null]',
        "surrogate.jsonl": b'{"x": "\\ud800", "y": "a"}',
        "huge.jsonl": b'{"x": ' + b"9" * 5_000 + b', "y": "a"}\n{"x": 2, "y": "b"}',
        "nobody.jsonl": b"{}\n{}\n",
        "magic.parquet": b"PAR1",
        "footer.parquet": parquet[0][:-8] + b"\xff\xff\xff\x7fPAR1",
        "cut.parquet": parquet[0][: len(parquet[0]) // 2],
    }
    for number in range(6):
        random = Random(f"files/{number}")
        made[f"spoiled-{number}.parquet"] = mutated(random, random.choice(parquet))
    return made


def _zip(content: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as target:
        target.writestr("xl/workbook.xml", content)
    return buffer.getvalue()


def _documents(good: bson.ObjectId) -> Mapping[str, dict[str, Any]]:
    return {
        "doc-no-file": {"file_id": bson.ObjectId()},
        "doc-text-id": {"file_id": "no id at all"},
        "doc-number-id": {"file_id": 17},
        "doc-nested-id": {"file_id": {"$ref": "fs.files"}},
        "doc-number-target": {"file_id": good, "target_column": 5},
        "doc-list-target": {"file_id": good, "target_column": ["y"]},
        "doc-no-such-target": {"file_id": good, "target_column": "nothing"},
        "doc-empty": {},
    }


ODD_NAMES = (".", "..", "a" * 128, "system.indexes", "fs.chunks", "types-0.v1", "-", "datasets")
"""Names that a request may give, of which none is a dataset."""
