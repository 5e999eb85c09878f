"""Commands read files by a loader too: what crashes or fills it ends the command with one line."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

ROOT = Path(__file__).parents[2]
TROUBLES = ROOT / "tests" / "plugins" / "loader_troubles"
CSV = b"height,tall\n1.5,no\n2.5,yes\n"

Tensorfleet = Callable[..., "subprocess.CompletedProcess[bytes]"]


@pytest.fixture
def tensorfleet(tmp_path: Path) -> Tensorfleet:
    """The command in a folder of its own, with embedded stores."""
    (tmp_path / "tensorfleet-data" / "datasets").mkdir(parents=True)
    environment = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    environment |= {"PYTHONPATH": f"{TROUBLES}{os.pathsep}{ROOT}", "MAX_TRAINING_MEMORY": "256MiB"}

    def run(*arguments: str, content: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        command = [sys.executable, "-m", "consumer.cli", *arguments]
        return subprocess.run(
            command, cwd=tmp_path, env=environment, input=content, capture_output=True, check=False, timeout=100
        )

    return run


def _bomb() -> bytes:
    file = io.BytesIO()
    texts = pa.DictionaryArray.from_arrays(pa.array([0] * 10_000, pa.int32()), pa.array(["x" * 2**20]))
    pq.write_table(pa.table({"x": texts}), file, compression="zstd")
    return file.getvalue()


@pytest.mark.parametrize(
    ("file_name", "content", "says"),
    [
        ("segfault.csv", CSV, b"dataset 'segfault': its file segfault.csv (27 bytes) crashes the reader (signal 11)\n"),
        ("bomb.parquet", _bomb(), b"takes more than 256 MiB (MAX_TRAINING_MEMORY) to be read\n"),
        ("zip.csv", b"PK\x03\x04...", b"dataset 'zip': the compressed file cannot be unpacked"),
    ],
)
def test_a_file_that_ends_its_loader_ends_an_import_with_one_line(
    tensorfleet: Tensorfleet, tmp_path: Path, file_name: str, content: bytes, says: bytes
) -> None:
    (tmp_path / file_name).write_bytes(content)
    ended = tensorfleet("datasets", "import", file_name)
    assert (ended.returncode, ended.stdout, ended.stderr.count(b"\n")) == (2, b"", 1), ended.stderr
    assert says in ended.stderr


def test_a_file_that_ends_its_loader_is_listed_beside_the_others_and_not_shown(
    tensorfleet: Tensorfleet, tmp_path: Path
) -> None:
    for name in ("segfault", "people"):
        (tmp_path / "tensorfleet-data" / "datasets" / f"{name}.csv").write_bytes(CSV)
    listed = tensorfleet("datasets", "list", "--json")
    rows = {one["name"]: one["rows"] for one in map(json.loads, listed.stdout.splitlines())}
    assert (listed.returncode, rows["segfault"], rows["people"]) == (0, None, 2)
    shown = tensorfleet("datasets", "show", "segfault")
    assert (shown.returncode, shown.stderr.count(b"\n")) == (2, 1)
    assert b"crashes the reader (signal 11)" in shown.stderr


def test_standard_input_and_pipes_are_imported(tensorfleet: Tensorfleet, tmp_path: Path) -> None:
    assert tensorfleet("datasets", "import", "-", "--name", "input", content=CSV).returncode == 0
    assert tensorfleet("datasets", "import", "/dev/stdin", "--name", "pipe", content=CSV).returncode == 0
    stored = (tmp_path / "tensorfleet-data" / "datasets").glob("*.parquet")
    assert {file.stem: pq.read_table(file).num_rows for file in stored} == {"input": 2, "pipe": 2}
