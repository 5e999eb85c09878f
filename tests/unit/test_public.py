"""The package `tensorfleet`: what other programs import."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import tensorfleet
from consumer import embedded
from consumer.settings import Settings
from consumer.stores import open_ready
from pipeline.lifecycle.promotion import promote
from pipeline.model_files import model_file
from pipeline.model_files.model_file import LoadedModel
from pipeline.training.trained import Trained
from tensorfleet import (
    Client,
    CorruptArtifactError,
    NotFoundError,
    RejectedError,
    SettingsError,
    TransientError,
    load_model,
    model_types,
)
from tests.models import model
from tests.training_data import Bench, request

FLOWER = {"sepal length": 5.1, "sepal width": 3.5, "petal length": 1.4, "petal width": 0.2}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return Bench(tmp_path_factory.mktemp("spool")).train(request())


@pytest.fixture
def data_dir(tmp_path: Path, trained: Trained, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Embedded stores with `flowers` v1 and v2, of which v1 is in production; nothing else is named."""
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.chdir(tmp_path)
    stores = open_ready(Settings(data_dir=tmp_path / "data"))
    for request_id in ("r-1", "r-2"):
        model(stores, trained.model_file, request_id)
    version = stores.registry.get("default", "flowers", 1)
    promote(stores.registry, stores.aliases, version)
    return tmp_path / "data"


def test_every_public_name_is_where_its_types_say() -> None:
    tree = ast.parse(Path(tensorfleet.__file__).read_text())
    typed = {
        name.name: node.module
        for block in tree.body
        if isinstance(block, ast.If)
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for name in node.names
    }
    assert typed == tensorfleet._HOMES
    assert sorted(typed) == tensorfleet.__all__
    for name, home in typed.items():
        assert home is not None
        assert getattr(tensorfleet, name) is getattr(import_module(home), name)
    with pytest.raises(AttributeError, match="no attribute 'Worker'"):
        tensorfleet.Worker  # noqa: B018


def test_the_names_in_model_files_lead_to_their_types() -> None:
    ours = {name for name in model_file.trusted_types() if name.startswith("tensorfleet.")}
    assert ours == {f"tensorfleet.model_types.{name}" for name in model_types.__all__}
    for name in model_types.__all__:
        kept = getattr(model_types, name)
        assert (kept.__module__, kept.__name__) == ("tensorfleet.model_types", name)


def test_a_program_that_predicts_imports_no_kafka_and_no_avro(trained: Trained) -> None:
    program = f"""
import json, sys
from tensorfleet import load_model
labels = load_model({str(trained.model_file)!r}).predict([{FLOWER!r}]).labels
print(json.dumps([list(labels), [name for name in ("confluent_kafka", "fastavro", "aiohttp") if name in sys.modules]]))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == [["setosa"], []]


@pytest.mark.usefixtures("data_dir")
@pytest.mark.parametrize("name", ["flowers", "flowers@v1", "flowers@production", "default/flowers@v2"])
def test_a_registered_model_is_loaded_by_its_name(name: str, data_dir: Path) -> None:
    model = load_model(name, data_dir=data_dir)
    assert _label(model) == "setosa"
    assert model.version == ("v1" if name in ("flowers@v1", "flowers@production") else "v2")


def test_a_registered_model_has_the_sha256_that_is_asked_for(data_dir: Path, trained: Trained) -> None:
    assert _label(load_model("flowers", sha256=trained.sha256, data_dir=data_dir)) == "setosa"
    with pytest.raises(CorruptArtifactError, match="flowers is registered with the sha256"):
        load_model("flowers", sha256="0" * 64, data_dir=data_dir)


def test_a_file_and_what_it_was_unpacked_to_are_loaded_by_their_path(trained: Trained, tmp_path: Path) -> None:
    folder = tmp_path / "flowers-v1"
    load_model(trained.model_file).unpack(folder)
    (folder / ".DS_Store").write_bytes(b"?")
    (folder / "registered_model_meta").write_bytes(b"of MLflow")
    for path in (trained.model_file, str(trained.model_file), folder):
        assert _label(load_model(path)) == "setosa"
    assert _label(load_model(trained.model_file, sha256=trained.sha256)) == "setosa"
    with pytest.raises(CorruptArtifactError, match="was recorded for it"):
        load_model(trained.model_file, sha256="0" * 64)
    with pytest.raises(RejectedError, match="a sha256 is that of a model file"):
        load_model(folder, sha256=trained.sha256)
    with pytest.raises(FileNotFoundError):
        load_model(tmp_path / "nothing.zip")


def test_what_is_not_there_is_said_with_what_is(data_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="flowers has no alias staging; there is production"):
        load_model("flowers@staging", data_dir=data_dir)
    with pytest.raises(RejectedError, match="a model is NAME"):
        load_model("flowers@@", data_dir=data_dir)
    (tmp_path / "churn").mkdir()
    with pytest.raises(NotFoundError, match=r"use load_model\(Path\('churn'\)\)"):
        load_model("churn", data_dir=data_dir)


@pytest.mark.usefixtures("data_dir")
def test_a_kafka_that_is_named_is_not_taken_for_that_of_the_models_that_lie_here(data_dir: Path) -> None:
    """They would be a stale copy, or those of another fleet."""
    with pytest.raises(SettingsError, match="MONGODB_URL is not set"):
        load_model("flowers", data_dir=data_dir, kafka_bootstrap_servers="kafka:9092")


def test_a_store_that_is_named_comes_before_the_fleet_that_runs_here(data_dir: Path) -> None:
    dev = embedded.Dev("127.0.0.1:9", os.getpid())
    embedded.announce(data_dir, dev)
    assert load_model("flowers", data_dir=data_dir).version == "v2"
    assert load_model("flowers", data_dir=data_dir, kafka_bootstrap_servers="127.0.0.1:9").version == "v2"
    with pytest.raises(TransientError, match="mongodb"):
        load_model("flowers", data_dir=data_dir, mongodb_url="mongodb://127.0.0.1:1/?serverSelectionTimeoutMS=200")
    with pytest.raises(SettingsError, match="dev` of this folder has no schema_registry_url"):
        Client(data_dir=data_dir, schema_registry_url="http://127.0.0.1:9")


def test_the_project_of_the_environment_is_that_of_a_client_made_from_it(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TENSORFLEET_PROJECT", "mine")
    servers = "127.0.0.1:9"
    for client in (Client(kafka_bootstrap_servers=servers), Client(kafka_bootstrap_servers=servers, project="mine")):
        with client, pytest.raises(RejectedError, match="limited to project mine, but the request names project other"):
            client.submit(algorithm="svm", dataset_name="iris", project="other")
    with Client(Settings(kafka_bootstrap_servers=servers), timeout_s=0.1) as client, pytest.raises(TransientError):
        client.submit(algorithm="svm", dataset_name="iris", project="other")


def test_a_setting_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="there is no setting mongo_url; did you mean mongodb_url"):
        load_model("flowers", mongo_url="mongodb://x")
    with pytest.raises(SettingsError, match="MONGODB_URL is not set"):
        load_model("flowers", data_dir=tmp_path / "nothing", mongodb_url="", kafka_bootstrap_servers="")


def _label(model: LoadedModel) -> str:
    [label] = model.predict([FLOWER]).labels
    return str(label)
