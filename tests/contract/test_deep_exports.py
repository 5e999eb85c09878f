"""Exports of networks: what is read again answers as the model does."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.algorithms import catalogue
from pipeline.errors import RejectedError
from pipeline.exports import Exported, export
from pipeline.model_files import model_file
from pipeline.training.trained import Trained
from tests.frameworks import within
from tests.training_data import Bench, natural, request

DEEP = [name for name, entry in catalogue().items() if entry.framework]


def exported(trained: Trained, format_name: str, path: Path) -> Exported:
    return export(model_file.load(trained.model_file, trained.sha256), format_name, path)


@pytest.mark.parametrize("name", DEEP)
def test_a_networks_weights_are_read_again_from_safetensors(tmp_path: Path, name: str) -> None:
    entry = catalogue()[name]
    trained = Bench(tmp_path).train(request(name), natural(entry))
    found = within(entry.framework, exported, trained, "safetensors", tmp_path / "model.safetensors")
    assert found.rows_compared > 0
    assert found.difference == 0
    other = "keras" if entry.framework == "torch" else "onnx"
    with pytest.raises(RejectedError, match="is not keras" if other == "keras" else "formats are keras"):
        within(entry.framework, exported, trained, other, tmp_path / "other")


@pytest.mark.parametrize("name", [name for name in DEEP if catalogue()[name].framework == "keras"])
def test_keras_reads_its_networks_again(tmp_path: Path, name: str) -> None:
    trained = Bench(tmp_path).train(request(name), natural(catalogue()[name]))
    assert within("keras", exported, trained, "keras", tmp_path / "model.keras").difference < 1e-5


def test_a_tree_is_no_network(tmp_path: Path) -> None:
    trained = Bench(tmp_path).train(request())
    with pytest.raises(RejectedError, match="decision_tree is not a deep model"):
        exported(trained, "safetensors", tmp_path / "model.safetensors")
