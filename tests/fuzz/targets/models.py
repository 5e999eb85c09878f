"""Model files of somebody who may store them: archives and what is in them spoiled, under the sha256 they then have."""

from __future__ import annotations

import copy
import hashlib
import io
import json
import os
import pickle
import struct
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from random import Random
from typing import Any
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

import numpy as np
import orjson
import pandas as pd
from sklearn.base import BaseEstimator
from sklearn.datasets import load_iris
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import KBinsDiscretizer, StandardScaler
from sklearn.svm import SVC
from sklearn.tree import DecisionTreeClassifier

from pipeline.errors import CorruptArtifactError, RejectedError
from pipeline.features.columns import Column, Role
from pipeline.model_files import model_file
from pipeline.model_files.zip_files import archive
from tests.fuzz import values
from tests.fuzz.mutation import mutated, noise

REFUSALS = (CorruptArtifactError, RejectedError)
GOLDEN = Path(__file__).parents[2] / "golden" / "models" / "format-1.zip"
ROWS = pd.DataFrame(np.linspace(0.1, 7.0, 20).reshape(5, 4), columns=["a", "b", "c", "d"])
BOMB_BYTES = 64 * 2**20


class ExecutedError(Exception):
    """A file had something done that no model file may."""


def run(random: Random) -> None:
    data = _data(random)
    sha256 = hashlib.sha256(data).hexdigest()
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        path = Path(folder) / "model.zip"
        path.write_bytes(data)
        if random.random() < 0.02:
            sha256 = random.choice(("", "0" * 64, sha256[:-1], "é"))
        with _watched():
            model = model_file.load(path, sha256)
        model.unpack(Path(folder) / "unpacked" / "model")
        assert {one.name for one in Path(folder).iterdir()} == {"model.zip", "unpacked"}, "unpacked outside"
        _predict(model)


def _predict(model: model_file.LoadedModel) -> None:
    """What Python raises where attributes do not go together is the error of whoever made the file; a crash is ours."""
    try:
        model.predict(ROWS if [column.name for column in model.columns] == list(ROWS.columns) else model.example)
    except Exception as error:
        raise RejectedError(f"does not predict: {error}") from error


def _data(random: Random) -> bytes:
    roll = random.random()
    if roll < 0.03:
        return noise(random)
    base = random.choice(bases())
    if roll < 0.3:
        return mutated(random, base)
    members = _members(base)
    if roll < 0.4:
        return _odd_archive(random, members)
    if roll < 0.55:
        name = random.choice([name for name in members if name.endswith(".json")])
        members[name] = _json(random, members[name])
    elif roll < 0.6:
        members["model.skops"] = random.choice(
            (pickle.dumps(_Trap()), b"", noise(random), mutated(random, members["model.skops"]))
        )
    else:
        members["model.skops"] = _skops(random, members["model.skops"])
    return archive(members)


class _Trap:
    def __reduce__(self) -> Any:
        return (os.mkdir, ("executed",))


def _members(data: bytes) -> dict[str, bytes]:
    with ZipFile(io.BytesIO(data)) as source:
        return {name: source.read(name) for name in source.namelist()}


def _skops(random: Random, data: bytes) -> bytes:
    """The state's tree changed in a node or two, or a member spoiled."""
    members = _members(data)
    arrays = [name for name in members if name != "schema.json"]
    roll = random.random()
    if arrays and roll < 0.3:
        name = random.choice(arrays)
        members[name] = _array(random, members[name])
    elif roll < 0.35:
        return _odd_archive(random, members)
    elif roll < 0.38:
        depth = random.choice((100, 1_000, 100_000))
        members["schema.json"] = b'{"a":' * depth + b"1" + b"}" * depth
    else:
        members["schema.json"] = _json(random, members["schema.json"])
    return archive(members)


def _array(random: Random, data: bytes) -> bytes:
    """Other numbers under the same header, or another header; of a sparse matrix, of one of its arrays."""
    if data.startswith(b"PK"):
        arrays = _members(data)
        name = random.choice(list(arrays))
        arrays[name] = _array(random, arrays[name])
        return _odd_archive(random, arrays) if random.random() < 0.1 else archive(arrays)
    roll = random.random()
    if roll < 0.3:
        return mutated(random, data)
    if roll < 0.4:
        header = random.choice(_HEADERS).ljust(117) + b"\n"
        return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + data[128:]
    begin = data.find(b"\n") + 1
    changed = bytearray(data)
    for _ in range(random.choice((1, 3, 20))):
        place = begin + 8 * random.randrange(max(1, (len(data) - begin) // 8))
        changed[place : place + 8] = random.choice(_EIGHT)
    return bytes(changed)


_HEADERS = (
    b"{'descr': '|O', 'fortran_order': False, 'shape': (1,)}",
    b"{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000,)}",
    b"{'descr': '<f8', 'fortran_order': False, 'shape': (-1,)}",
    b"{'descr': '|V0', 'fortran_order': False, 'shape': (1000000000000,)}",
    b"{'descr': '<f8', 'fortran_order': __import__('os'), 'shape': ()}",
    b"[" * 110,
)
_EIGHT = (
    *(struct.pack("<d", number) for number in (0.0, -1.0, 1e308, float("nan"), float("inf"))),
    *(struct.pack("<q", number) for number in (0, 1, -1, -2, 5, 2**31, 2**62, -(2**63))),
)


def _json(random: Random, data: bytes) -> bytes:
    if random.random() < 0.2:
        return mutated(random, data)
    try:
        document = orjson.loads(data)
    except ValueError:
        return data
    places = [*_places(document)] or [([None], 0)]
    for _ in range(random.choice((1, 1, 2, 5))):
        holder, key = random.choice(places)
        if isinstance(holder, dict) and random.random() < 0.1:
            holder.pop(key, None)
        elif isinstance(holder, dict) or key < len(holder):
            holder[key] = _node(random, places, key)
    return json.dumps(document, default=str).encode()


def _places(node: Any) -> Iterator[tuple[Any, Any]]:
    """Each place in the document that something can be put to."""
    if isinstance(node, dict | list):
        for key, value in node.items() if isinstance(node, dict) else enumerate(node):
            yield node, key
            yield from _places(value)


def _node(random: Random, places: list[tuple[Any, Any]], key: Any) -> Any:
    if key in ("__class__", "__module__", "__loader__") and random.random() < 0.8:
        return random.choice(_NAMES[key])
    roll = random.random()
    if roll < 0.3:
        holder, other = random.choice(places)  # from elsewhere in the same document
        try:
            return copy.deepcopy(holder[other])
        except (LookupError, RecursionError):
            return None
    if roll < 0.6:
        number = random.choice((0, 1, -1, 3, 10**6, 2**31, 2**62, -(2**62)))
        return random.choice((number, str(number)))
    if roll < 0.7:
        return random.choice(("../../evil", "/etc/passwd", "schema.json", "numpy", "json"))
    if roll < 0.72:
        return values.deep(random)
    return values.nested(random)


_NAMES = {
    "__class__": (
        *("system", "eval", "Popen", "partial", "Pipeline", "Tree", "ndarray", "dict", "RandomState", "seed", ""),
    ),
    "__module__": (
        *("os", "builtins", "subprocess", "functools", "numpy.random", "antigravity", "this", "a" * 500, "sklearn"),
    ),
    "__loader__": (
        *("ObjectNode", "FunctionNode", "PartialNode", "TypeNode", "ReduceNode", "MethodNode", "OperatorFuncNode"),
        *("NdArrayNode", "JsonNode", "CachedNode", "TreeNode", "SparseMatrixNode", "DTypeNode", "SliceNode", "Nothing"),
        *("RandomGeneratorNode", "RandomStateNode", "DictNode", "ListNode", "TupleNode", "BytesNode", "LossNode"),
    ),
}  # fmt: skip


def _odd_archive(random: Random, members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with ZipFile(buffer, "w") as target:
        random.choice(_ODD)(random, target, members)
    data = buffer.getvalue()
    return mutated(random, data, 1) if random.random() < 0.2 else data


def _with_others(random: Random, target: ZipFile, members: dict[str, bytes]) -> None:
    for name, content in members.items():
        target.writestr(name, content)
    for name in random.sample(("../evil", "/tmp/evil", "a/../../evil", "..", ".", "a\\b", "é", "x" * 60_000, "d/"), 3):
        target.writestr(name, b"x")


def _doubled(random: Random, target: ZipFile, members: dict[str, bytes]) -> None:
    for name, content in [*members.items(), (random.choice(list(members)), noise(random))]:
        target.writestr(name, content)


def _bomb(random: Random, target: ZipFile, members: dict[str, bytes]) -> None:
    name = random.choice(list(members))
    for other, content in members.items():
        if other != name:
            target.writestr(other, content)
    filler = random.choice((b" ", b"[", b"0"))
    target.writestr(name, filler * BOMB_BYTES, ZIP_DEFLATED, 1)


def _linked(random: Random, target: ZipFile, members: dict[str, bytes]) -> None:
    link = random.choice(list(members))
    for name, content in members.items():
        info = ZipInfo(name)
        if name == link:
            info.external_attr = 0o120777 << 16
        target.writestr(info, b"/etc/passwd" if name == link else content)


def _encrypted(random: Random, target: ZipFile, members: dict[str, bytes]) -> None:
    for name, content in members.items():
        info = ZipInfo(name)
        info.flag_bits |= random.choice((1, 0x20, 0x40, 8))
        info.compress_type = random.choice((0, 8, 12, 14))
        target.writestr(info, content)
        info.flag_bits |= random.choice((1, 0x20, 0x40, 8))
        info.compress_type = random.choice((0, 8, 9, 97))


def _overlapping(random: Random, target: ZipFile, members: dict[str, bytes]) -> None:
    for name, content in members.items():
        target.writestr(name, content)
    infos = target.infolist()
    one, other = random.choice(infos), random.choice(infos)
    one.header_offset = other.header_offset
    if random.random() < 0.5:
        one.file_size = one.compress_size = random.choice((0, 1, 2**31, 2**40))
    if random.random() < 0.5:
        one.CRC = 0


_ODD: tuple[Callable[[Random, ZipFile, dict[str, bytes]], None], ...] = (
    *(_with_others, _doubled, _linked, _encrypted, _overlapping) * 8,
    _bomb,
)


@cache
def bases() -> list[bytes]:
    """A small model file of each kind of estimator, of those that keep sparse rows, and one of all kinds of columns."""
    dense = [_base(StandardScaler(), estimator) for estimator in _estimators()]
    sparse = [_base(KBinsDiscretizer(3), one) for one in (KNeighborsClassifier(3, algorithm="brute"), SVC())]
    return [*dense, *sparse, GOLDEN.read_bytes()]


def _estimators() -> list[BaseEstimator]:
    return [
        DecisionTreeClassifier(max_depth=3, random_state=0),
        RandomForestClassifier(n_estimators=2, max_depth=2, random_state=0),
        HistGradientBoostingClassifier(max_iter=2, max_depth=2, random_state=0),
        LogisticRegression(),
        KNeighborsClassifier(3, algorithm="brute"),
        SVC(),
        MLPClassifier((3,), max_iter=2, random_state=0),
    ]


def _base(preparation: BaseEstimator, estimator: BaseEstimator) -> bytes:
    import warnings

    features, target = load_iris(return_X_y=True)
    frame = pd.DataFrame(features, columns=ROWS.columns).iloc[::3]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pipeline = make_pipeline(preparation, estimator).fit(frame, target[::3])
    content = model_file.ModelContent(
        pipeline=pipeline, columns=[Column(name, Role.NUMERIC, "double") for name in ROWS.columns],
        target_column="y", target_type="long", classes=["0", "1", "2"], example=[], evaluation={}, manifest={},
        model_id="m", created=datetime(2026, 1, 31, tzinfo=UTC),
    )  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        return model_file.write(content, Path(folder) / "model.zip").path.read_bytes()


_watching = False
FORBIDDEN = (
    "os.system",
    "os.exec",
    "os.posix_spawn",
    "os.fork",
    "os.mkdir",
    "os.remove",
    "subprocess.Popen",
    "socket.connect",
)
KNOWN = (
    "sklearn",
    "numpy",
    "scipy",
    "skops",
    "pipeline",
    "pandas",
    "builtins",
    "collections",
    "functools",
    "_",
    "encodings",
)


@contextmanager
def _watched() -> Iterator[None]:
    """Nothing is started, connected to, removed, or imported from elsewhere."""
    global _watching
    _hooked()
    _watching = True
    try:
        yield
    finally:
        _watching = False


@cache
def _hooked() -> None:
    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if not _watching:
            return
        if event in FORBIDDEN:
            raise ExecutedError(f"{event}{arguments!r:.100}")
        if event == "import" and arguments[0] in ("os", "subprocess", "antigravity", "this"):
            raise ExecutedError(f"imports {arguments[0]}")

    sys.addaudithook(hook)
