"""Model files: checked before they are read, complete, and unable to execute anything."""

from __future__ import annotations

import copy
import hashlib
import io
import os
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

import numpy as np
import orjson
import pandas as pd
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import coo_matrix, csc_matrix, csr_array, csr_matrix, save_npz  # type: ignore[import-untyped]
from sklearn.compose import TransformedTargetRegressor
from sklearn.datasets import load_iris
from sklearn.ensemble import BaggingRegressor, HistGradientBoostingClassifier
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LinearRegression
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor, NearestNeighbors
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder
from sklearn.svm import SVC, SVR, NuSVC
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor
from sklearn.tree._tree import Tree

from pipeline.algorithms import catalogue
from pipeline.datasets.builtin import load_frame
from pipeline.errors import CorruptArtifactError, RejectedError
from pipeline.model_files import checks, model_file, skops_import, skops_writer, zip_files
from pipeline.model_files.model_file import LoadedModel, load
from pipeline.model_files.skops_import import skops
from pipeline.training.trained import Trained
from tests.frameworks import within
from tests.training_data import Bench, mixed_rows, natural, request, wide_rows

GOLDEN = Path(__file__).parents[1] / "golden/models"


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench(tmp_path_factory.mktemp("spool"))


@pytest.fixture(scope="module")
def iris(bench: Bench) -> Trained:
    return bench.train(request())


@pytest.fixture(scope="module")
def mixed(bench: Bench) -> LoadedModel:
    return bench.load(bench.train(request("logistic_regression"), mixed_rows()))


@pytest.fixture
def rewritten(iris: Trained, tmp_path: Path) -> Callable[..., LoadedModel]:
    """Loads the iris model with some members replaced, under the sha256 that it then has."""

    def rewrite(without: str = "", **members: bytes) -> LoadedModel:
        with ZipFile(iris.model_file) as source:
            content = {name: source.read(name) for name in source.namelist() if name != without}
        data = zip_files.archive(content | {name.replace("_", "."): data for name, data in members.items()})
        path = tmp_path / "rewritten.zip"
        path.write_bytes(data)
        return load(path, hashlib.sha256(data).hexdigest())

    return rewrite


def test_other_bytes_than_recorded_are_refused_before_anything_is_read(iris: Trained, tmp_path: Path) -> None:
    path = tmp_path / "model.zip"
    path.write_bytes(b"no zip archive at all")
    with pytest.raises(CorruptArtifactError, match=f"has the sha256 .*, but {iris.sha256} was recorded for it"):
        load(path, iris.sha256)
    data = bytearray(iris.model_file.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(CorruptArtifactError):
        load(path, iris.sha256)


def test_a_file_that_is_not_there_is_not_called_corrupt(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        load(tmp_path / "nothing.zip", "0" * 64)


def test_what_is_no_model_file_is_refused(rewritten: Callable[..., LoadedModel], tmp_path: Path) -> None:
    path = tmp_path / "text.zip"
    path.write_bytes(b"text")
    with pytest.raises(CorruptArtifactError, match="is not a model file: File is not a zip file"):
        load(path, hashlib.sha256(b"text").hexdigest())
    with pytest.raises(CorruptArtifactError, match="no item named"):
        rewritten(without="model.skops")
    with pytest.raises(CorruptArtifactError, match="its format is None"):
        rewritten(manifest_json=b"{}")


def test_a_newer_format_asks_for_an_upgrade(rewritten: Callable[..., LoadedModel]) -> None:
    with pytest.raises(CorruptArtifactError, match="has the format 3; this version reads formats up to 2: upgrade"):
        rewritten(manifest_json=orjson.dumps({"format": 3}))


def test_a_file_that_brings_a_function_along_is_refused_and_runs_nothing(
    rewritten: Callable[..., LoadedModel], tmp_path: Path
) -> None:
    trap = make_pipeline(FunctionTransformer(os.mkdir), DecisionTreeClassifier())
    with pytest.raises(CorruptArtifactError, match="mkdir"):
        rewritten(model_skops=skops.io.dumps(trap))


@pytest.mark.parametrize("part", ["left_child", "feature"])
def test_a_tree_that_leads_outside_of_itself_is_refused(rewritten: Callable[..., LoadedModel], part: str) -> None:
    tree = DecisionTreeClassifier().fit([[0.0], [1.0]], [0, 1])
    state = tree.tree_.__getstate__()
    state["nodes"][part][0] = 10**6
    tree.tree_.__setstate__(state)
    with pytest.raises(CorruptArtifactError, match="a decision tree with invalid indices"):
        rewritten(model_skops=skops.io.dumps(make_pipeline(tree)))


def test_all_of_scikit_learn_is_imported_when_a_file_is_read_and_no_framework_is() -> None:
    program = f"""
import sys
from pipeline.model_files import model_file
from pathlib import Path
print("sklearn.cross_decomposition" in sys.modules)
model_file.load(Path({str(GOLDEN / "format-2.zip")!r}))
print("sklearn.cross_decomposition" in sys.modules, {{"torch", "dask", "tensorflow"}} & sys.modules.keys())
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[:2] == ["False", "True set()"]


def test_the_trusted_types_are_all_needed_by_some_algorithm(bench: Bench) -> None:
    used = set()
    asked = [request(name) for name in catalogue()]
    asked += [request("neural_network", hyperparameters={"solver": "sgd", "max_iter": 5})]
    asked += [request("logistic_regression", hyperparameters={"solver": "liblinear"})]
    data = [natural(catalogue()[one.algorithm]) for one in asked] + [wide_rows(catalogue()["svm"])]
    for one, rows in zip([*asked, request("svm")], data, strict=True):
        trained = bench.train(one, rows)
        with ZipFile(trained.model_file) as members:
            used |= set(skops.io.get_untrusted_types(data=members.read("model.skops")))
    assert used == set(model_file.trusted_types())


@pytest.mark.parametrize(("part", "value"), [("left", 10**6), ("feature_idx", 99), ("left", 0), ("is_categorical", 1)])
def test_a_boosted_tree_that_leads_outside_of_itself_is_refused(
    rewritten: Callable[..., LoadedModel], part: str, value: int
) -> None:
    X, y = load_iris(return_X_y=True)
    model = HistGradientBoostingClassifier(max_iter=2).fit(X, y)
    model._predictors[1][0].nodes[part][0] = value
    with pytest.raises(CorruptArtifactError, match="a decision tree with invalid indices"):
        rewritten(model_skops=skops.io.dumps(make_pipeline(model)))


def test_a_missing_column_is_listed(mixed: LoadedModel) -> None:
    with pytest.raises(RejectedError, match="the rows lack 2 of the model's columns: city, paid"):
        mixed.predict(mixed_rows().drop(columns=["paid", "city"]))


def test_columns_match_by_name_in_any_order(mixed: LoadedModel) -> None:
    frame = mixed_rows().drop(columns="label")
    shuffled = frame[frame.columns[::-1]]
    assert mixed.predict(shuffled).labels == mixed.predict(frame).labels


def test_extra_columns_and_unseen_categories_are_counted(mixed: LoadedModel) -> None:
    frame = mixed_rows().assign(more=1)
    frame.loc[:2, "city"] = "Rom"
    predictions = mixed.predict(frame)
    assert predictions.extra_columns == ("label", "more")
    assert predictions.unseen == {"city": 3}


def test_a_value_that_cannot_be_read_names_its_column(mixed: LoadedModel) -> None:
    with pytest.raises(RejectedError, match="column 'size' takes numeric values"):
        mixed.predict(mixed_rows().assign(size="large"))


def test_probabilities_are_of_the_classes_in_order(mixed: LoadedModel) -> None:
    predictions = mixed.predict(mixed_rows())
    assert predictions.classes == ["class 0", "class 1"]
    assert predictions.probabilities is not None
    assert predictions.probabilities.shape == (120, 2)
    best = predictions.probabilities.argmax(axis=1)
    assert [predictions.classes[place] for place in best] == predictions.labels


def test_a_model_without_probabilities_gives_none(bench: Bench) -> None:
    model = bench.load(bench.train(request("svm")))
    assert model.predict(model.example).probabilities is None


def test_no_rows_are_no_predictions(mixed: LoadedModel) -> None:
    assert mixed.predict(mixed_rows().iloc[:0]).labels == []
    with pytest.raises(RejectedError, match="the rows lack 6"):
        mixed.predict([])


def test_example_rows_score_as_they_lie_in_the_file(mixed: LoadedModel) -> None:
    assert len(mixed.example) == 5
    assert mixed.predict(mixed.example).labels == mixed.predict(mixed_rows().head(5)).labels


def test_dates_and_numbers_may_come_as_text(mixed: LoadedModel) -> None:
    frame = mixed_rows().drop(columns="label")
    seen = [None if pd.isna(at) else at.isoformat() for at in frame["seen"]]
    texts = frame.assign(seen=pd.Series(seen, index=frame.index))
    texts["count"] = texts["count"].astype(str)
    assert mixed.predict(texts).labels == mixed.predict(frame).labels


def test_an_unpacked_model_is_a_directory_for_mlflow(mixed: LoadedModel, tmp_path: Path) -> None:
    """Tried with MLflow 3.17: mlflow.pyfunc.load_model predicts the same."""
    mixed.unpack(tmp_path / "model")
    described = yaml.safe_load((tmp_path / "model" / "MLmodel").read_text())
    flavor = described["flavors"]["sklearn"]
    assert flavor["serialization_format"] == "skops"
    pipeline = skops.io.load(tmp_path / "model" / flavor["pickled_model"], trusted=flavor["skops_trusted_types"])
    frame = mixed_rows().drop(columns="label")
    paid = frame["paid"].astype(object).where(frame["paid"].notna(), None)
    plain = frame.assign(size=frame["size"].replace(np.inf, np.nan), paid=paid)
    assert pipeline.predict(plain).tolist() == mixed.predict(frame).labels
    inputs = orjson.loads(described["signature"]["inputs"])
    names = ["size", "count", "city", "paid", "seen", "note"]
    assert inputs == [{"type": "any", "name": name, "required": True} for name in names]
    requirements = (tmp_path / "model" / "requirements.txt").read_text()
    assert "scikit-learn==" in requirements
    assert "tensorfleet-worker" in requirements
    assert yaml.safe_load((tmp_path / "model" / "python_env.yaml").read_text())["dependencies"]


def test_a_model_of_numbers_needs_nothing_of_ours_and_knows_its_columns(iris: Trained, tmp_path: Path) -> None:
    load(iris.model_file, iris.sha256.upper()).unpack(tmp_path)
    assert "tensorfleet" not in (tmp_path / "requirements.txt").read_text()
    trusted = [name for name in model_file.TRUSTED_TYPES if not name.startswith("pipeline")]
    pipeline = skops.io.load(tmp_path / "model.skops", trusted=trusted)
    frame = load_frame("iris").drop(columns="species")
    assert list(pipeline.feature_names_in_) == list(frame.columns)
    assert set(pipeline.predict(frame)) == {"setosa", "versicolor", "virginica"}
    with pytest.raises(ValueError, match="feature names should match"):
        pipeline.predict(frame[frame.columns[::-1]])


def test_signature_manifest_and_evaluation_say_what_the_model_is(mixed: LoadedModel, tmp_path: Path) -> None:
    mixed.unpack(tmp_path)
    signature = orjson.loads((tmp_path / "signature.json").read_bytes())
    assert signature["outputs"] == [{"name": "label", "type": "string"}]
    assert mixed.manifest["format"] == model_file.FORMAT
    assert mixed.manifest["classes"] == ["class 0", "class 1"]
    assert mixed.manifest["algorithm"] == "logistic_regression"
    assert mixed.evaluation["metrics"]["accuracy"] > 0.5
    assert len(mixed.evaluation["test_predictions"]["predicted"]) == mixed.evaluation["test_rows"] == 24


def test_our_skops_archive_holds_what_skops_itself_would_write() -> None:
    frame = load_frame("iris")
    model = make_pipeline(DecisionTreeClassifier(random_state=0)).fit(frame.iloc[:, :4], frame["species"])
    ours, theirs = (
        skops.io.loads(data, trusted=list(model_file.TRUSTED_TYPES))
        for data in (skops_writer.dumps(model), skops.io.dumps(model))
    )
    assert (ours.predict_proba(frame.iloc[:, :4]) == theirs.predict_proba(frame.iloc[:, :4])).all()
    assert ours.get_params()["decisiontreeclassifier"].get_params() == model[-1].get_params()
    assert skops_writer.dumps(model) == skops_writer.dumps(model)


@pytest.mark.parametrize("name", sorted(name for name, one in catalogue().items() if not one.framework))
def test_every_algorithm_has_the_bytes_that_skops_own_walk_gives(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    trained = bench.train(request(name), mixed_rows() if name == "random_forest" else natural(catalogue()[name]))
    pipeline: Any = bench.load(trained).pipeline
    pipeline.note = {1: [None, True, 1, 1.5, -0.0, float("nan"), "ä"], "a": (np.int64(3), np.asfortranarray(np.eye(3)))}
    ours = skops_writer.dumps(pipeline)
    monkeypatch.setattr(skops_writer, "get_state", skops_import.get_state)
    assert skops_writer.dumps(pipeline) == ours


@given(st.dictionaries(st.text(st.characters(exclude_categories=["Cs"]), min_size=1), st.binary()))
def test_an_archive_has_the_bytes_of_zipfile(members: dict[str, bytes]) -> None:
    members = {name: data for name, data in members.items() if ZipInfo(name).filename == name}
    with pytest.MonkeyPatch.context() as patch:
        ours = zip_files.archive(members)
        patch.setattr(zip_files, "SMALL_BYTES", -1)
        assert zip_files.archive(members) == ours


def test_time_does_not_change_the_bytes_of_an_archive(monkeypatch: pytest.MonkeyPatch) -> None:
    first = zip_files.archive({"a": b"1"})
    monkeypatch.setattr(time, "time", lambda: 2_000_000_000.0)
    assert zip_files.archive({"a": b"1"}) == first


def zipped(write: Callable[[ZipFile], object]) -> bytes:
    buffer = io.BytesIO()
    with ZipFile(buffer, "w") as target:
        write(target)
    return buffer.getvalue()


def overlapping(target: ZipFile) -> None:
    """Nine entries of ten bytes in an archive that holds ten bytes once."""
    for number in range(9):
        target.writestr(str(number), b"x" * 2_000 if number == 0 else b"")
    first, *others = target.infolist()
    for entry in others:
        entry.header_offset, entry.file_size, entry.compress_size, entry.CRC = (
            first.header_offset, first.file_size, first.compress_size, first.CRC,
        )  # fmt: skip


def doubled(target: ZipFile) -> None:
    for content in (b"1", b"2"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # zipfile's own
            target.writestr("manifest.json", content)


NO_ARCHIVES_OF_OURS = {
    "is named '../../evil'": lambda target: target.writestr("../../evil", b"x"),
    "is named '/etc/evil'": lambda target: target.writestr("/etc/evil", b"x"),
    "is named '.ssh'": lambda target: target.writestr(".ssh", b"x"),
    "manifest.json is compressed": lambda target: target.writestr("manifest.json", b" " * 10**7, ZIP_DEFLATED),
    "two of its entries have one name": doubled,
    "its entries overlap": overlapping,
}


@pytest.mark.parametrize("wrong", NO_ARCHIVES_OF_OURS)
def test_an_archive_that_we_would_not_have_written_is_refused_and_nothing_of_it_unpacked(
    wrong: str, mixed: LoadedModel, rewritten: Callable[..., LoadedModel], tmp_path: Path
) -> None:
    data = zipped(NO_ARCHIVES_OF_OURS[wrong])
    with pytest.raises(CorruptArtifactError, match=wrong):
        replace(mixed, data=data).unpack(tmp_path / "deep" / "model")
    assert not (tmp_path / "deep").exists()
    with pytest.raises(CorruptArtifactError, match=f"is not a model file: .*{wrong}"):
        rewritten(model_skops=data)


@pytest.mark.parametrize(
    "change",
    [
        lambda state: state.update(__loader__="Nothing"),
        lambda state: state.update(content=1),
        lambda state: state.pop("content"),
        lambda state: state.update(__class__="Pipeline" * 1_000),
        lambda state: state.update(protocol="x", content=[[]]),
    ],
)
def test_a_state_that_skops_has_not_written_is_no_model_file(
    change: Callable[[Any], object], mixed: LoadedModel, rewritten: Callable[..., LoadedModel]
) -> None:
    members = zip_files.unpacked(zip_files.unpacked(mixed.data)["model.skops"])
    state = orjson.loads(members["schema.json"])
    change(state)
    with pytest.raises(CorruptArtifactError, match="is not a model file"):
        rewritten(model_skops=zip_files.archive({**members, "schema.json": orjson.dumps(state)}))


@pytest.mark.parametrize("schema", [b'{"a":' * 100_000 + b"1" + b"}" * 100_000, b"[]", b"", b"\x80\x04."])
def test_a_state_that_is_no_json_object_or_endlessly_deep_is_no_model_file(
    schema: bytes, rewritten: Callable[..., LoadedModel]
) -> None:
    with pytest.raises(CorruptArtifactError, match="is not a model file"):
        rewritten(model_skops=zip_files.archive({"schema.json": schema}))


def _claiming(shape: tuple[int, ...], kind: str) -> bytes:
    """An array file of so many values that has none of them."""
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": kind, "fortran_order": False, "shape": shape})
    return file.getvalue()


def test_an_array_that_claims_more_bytes_than_it_has_is_refused_before_room_is_made(
    mixed: LoadedModel, rewritten: Callable[..., LoadedModel]
) -> None:
    members = zip_files.unpacked(zip_files.unpacked(mixed.data)["model.skops"])
    array = next(name for name in members if name.endswith(".npy"))
    for kind, shape in (("<f8", (2**58,)), ("<f8", (2**24, 2**40)), ("<f8", (-1, -(2**60))), ("|V0", (10**12,))):
        with pytest.raises(
            CorruptArtifactError, match=r"holds an array whose header claims [0-9,]{10,} bytes; there are 128 at most"
        ):
            rewritten(model_skops=zip_files.archive({**members, array: _claiming(shape, kind)}))


@pytest.mark.parametrize("outputs", ["0", "2", str(2**62)])
def test_a_tree_that_claims_other_outputs_than_it_has_is_refused_before_room_is_made(
    outputs: str, rewritten: Callable[..., LoadedModel]
) -> None:
    tree = DecisionTreeClassifier().fit([[0.0], [1.0]], [0, 1])
    members = zip_files.unpacked(skops_writer.dumps(make_pipeline(tree)))
    state = orjson.loads(members["schema.json"])
    (args,) = _args(state)
    args[2] = {**args[2], "content": outputs, "__id__": -1}
    with pytest.raises(CorruptArtifactError, match=r"holds a decision tree that claims [0-9,]+ outputs; there are 1"):
        rewritten(model_skops=zip_files.archive({**members, "schema.json": orjson.dumps(state)}))


def _args(node: Any) -> list[Any]:
    """What trees are built with, of all in a state."""
    if not isinstance(node, dict | list):
        return []
    inner = node.values() if isinstance(node, dict) else node
    own = [node["__reduce__"]["args"]["content"]] if isinstance(node, dict) and "__reduce__" in node else []
    return own + [args for each in inner for args in _args(each)]


def test_a_lack_of_memory_while_a_model_file_is_read_is_not_blamed_on_it(
    rewritten: Callable[..., LoadedModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object, **__: object) -> Any:
        raise MemoryError

    monkeypatch.setattr(np, "load", fails)
    with pytest.raises(MemoryError):
        rewritten()


def test_a_model_file_that_holds_no_pipeline_is_refused(rewritten: Callable[..., LoadedModel]) -> None:
    with pytest.raises(CorruptArtifactError, match="holds no pipeline"):
        rewritten(model_skops=skops_writer.dumps({"a": np.zeros(2)}))


@pytest.mark.parametrize(
    "wrapped",
    [
        lambda tree: TransformedTargetRegressor(tree).fit([[0.0], [1.0]], [0.0, 1.0]),
        lambda tree: BaggingRegressor(tree, n_estimators=1).fit([[0.0], [1.0]], [0.0, 1.0]),
    ],
    ids=["regressor_", "estimators_"],
)
def test_a_tree_that_leads_outside_of_itself_is_found_within_another_estimator(
    rewritten: Callable[..., LoadedModel], wrapped: Callable[[Any], Any]
) -> None:
    model = wrapped(DecisionTreeRegressor(random_state=1))
    (tree,) = (one.tree_ for one in checks.parts_of(model) if hasattr(one, "tree_"))
    state = tree.__getstate__()
    state["nodes"]["left_child"][0] = 10**6
    tree.__setstate__(state)
    with pytest.raises(CorruptArtifactError, match="a decision tree with invalid indices"):
        rewritten(model_skops=skops_writer.dumps(make_pipeline(model)))


def out_of(pipeline: Any, kind: type) -> Any:
    """The fitted part of this type."""
    parts = [part for part in checks.parts_of(pipeline) if isinstance(part, kind)]
    return next(part for part in parts if hasattr(part, "categories_") or hasattr(part, "vocabulary_"))


@pytest.mark.parametrize("place", [-2, 10**6, 2**40])
def test_a_word_with_a_column_that_there_is_not_is_refused(
    mixed: LoadedModel, rewritten: Callable[..., LoadedModel], place: int
) -> None:
    """SciPy would write there."""
    model = copy.deepcopy(mixed.pipeline)
    words = out_of(model, TfidfVectorizer).vocabulary_
    words[next(iter(words))] = place
    with pytest.raises(CorruptArtifactError, match="invalid vocabulary indices"):
        rewritten(model_skops=skops_writer.dumps(model))


@pytest.mark.parametrize(
    "change",
    [
        lambda encoder: encoder._n_features_outs.__setitem__(0, -5),
        lambda encoder: encoder.categories_.__setitem__(0, encoder.categories_[0][:1]),
        lambda encoder: setattr(encoder, "_default_to_infrequent_mappings", [np.array([0, 10**6])]),
        lambda encoder: setattr(encoder, "_drop_idx_after_grouping", np.array([7])),
    ],
    ids=["widths", "categories", "mappings", "drop"],
)
def test_a_category_with_a_column_that_there_is_not_is_refused(
    mixed: LoadedModel, rewritten: Callable[..., LoadedModel], change: Callable[[Any], object]
) -> None:
    model = copy.deepcopy(mixed.pipeline)
    change(out_of(model, OneHotEncoder))
    with pytest.raises(CorruptArtifactError, match=r"invalid category indices|is not a model file"):
        rewritten(model_skops=skops_writer.dumps(model))


def sparse_neighbors() -> KNeighborsClassifier:
    rows = csr_matrix([[0.0, 1.0], [1.0, 0.0], [0.0, 3.0]])
    return KNeighborsClassifier(1, algorithm="brute").fit(rows, [0, 1, 0])


def test_a_sparse_matrix_is_read_as_it_was_written(rewritten: Callable[..., LoadedModel]) -> None:
    data = skops_writer.dumps(make_pipeline(sparse_neighbors()))
    assert skops_writer.dumps(make_pipeline(sparse_neighbors())) == data
    assert rewritten(model_skops=data).pipeline.predict(csr_matrix([[0.1, 1.0], [1.0, 0.2]])).tolist() == [0, 1]


@pytest.mark.parametrize(
    ("part", "values", "wrong"),
    [
        ("indices", [10**6, 0, 1], "indices must be < 2"),
        ("indices", [-1, 0, 1], "indices must be >= 0"),
        ("indices", [1], "indices and data should have the same size"),
        ("indptr", [0, 9, 2, 3], "indptr must be a non-decreasing sequence"),
        ("indptr", [0, 9, 9, 0], "with invalid indices"),
        ("indptr", [0, 1, 2, -1], "with invalid indices"),
        ("indptr", [0, 2**31 - 1, -2, 3], "with invalid indices"),
        ("indptr", [0, 1, 2, 9], "Last value of index pointer"),
        ("indptr", [0, 1, 3], "index pointer size 3 should be 4"),
    ],
)
def test_a_sparse_matrix_with_places_outside_of_itself_is_refused(
    rewritten: Callable[..., LoadedModel], part: str, values: list[int], wrong: str
) -> None:
    model = sparse_neighbors()
    setattr(model._fit_X, part, np.array(values, dtype=np.int32))
    with pytest.raises(CorruptArtifactError, match=wrong):
        rewritten(model_skops=skops_writer.dumps(make_pipeline(model)))


@pytest.mark.parametrize("made", [csc_matrix, coo_matrix, csr_array])
def test_a_sparse_matrix_of_another_kind_than_ours_is_refused(
    rewritten: Callable[..., LoadedModel], made: Callable[[Any], Any]
) -> None:
    buffer = io.BytesIO()
    save_npz(buffer, made([[0.0, 1.0], [1.0, 0.0], [0.0, 3.0]]))
    with pytest.raises(CorruptArtifactError, match="a sparse matrix with invalid indices"):
        rewritten(model_skops=with_matrix(zip_files.uncompressed(buffer.getvalue())))


def with_matrix(data: bytes) -> bytes:
    """Neighbours whose sparse matrix is this archive."""
    members = zip_files.unpacked(skops_writer.dumps(make_pipeline(sparse_neighbors())))
    (name,) = (name for name in members if name.endswith(".npz"))
    return zip_files.archive({**members, name: data})


def test_a_sparse_matrix_that_is_compressed_or_claims_more_bytes_than_it_has_is_refused(
    rewritten: Callable[..., LoadedModel],
) -> None:
    buffer = io.BytesIO()
    save_npz(buffer, csr_matrix((10**6, 2)))
    with pytest.raises(CorruptArtifactError, match=r"is not a model file: its entry .* is compressed"):
        rewritten(model_skops=with_matrix(buffer.getvalue()))
    arrays = zip_files.unpacked(zip_files.uncompressed(buffer.getvalue()))
    claiming = zip_files.archive({**arrays, "indptr.npy": _claiming((2**40,), "<i8")})
    with pytest.raises(
        CorruptArtifactError, match=r"holds an array whose header claims [0-9,]{10,} bytes; there are 128 at most"
    ):
        rewritten(model_skops=with_matrix(claiming))


def test_a_pickle_in_a_sparse_matrix_is_refused(rewritten: Callable[..., LoadedModel]) -> None:
    file = io.BytesIO()
    np.save(file, np.array([os.mkdir], dtype=object))
    arrays = {f"{name}.npy": file.getvalue() for name in ("format", "shape", "data", "indices", "indptr")}
    with pytest.raises(CorruptArtifactError, match="Object arrays cannot be loaded when allow_pickle=False"):
        rewritten(model_skops=with_matrix(zip_files.archive(arrays)))


def test_a_sparse_matrix_where_no_estimator_of_ours_has_one_is_refused(rewritten: Callable[..., LoadedModel]) -> None:
    """So few bytes as it takes, it could make each prediction as wide as it says."""
    model = LinearRegression().fit([[0.0], [1.0]], [0.0, 1.0])
    model.coef_ = csr_matrix((1, 2**40))
    with pytest.raises(CorruptArtifactError, match="a sparse matrix with invalid indices"):
        rewritten(model_skops=skops_writer.dumps(make_pipeline(model)))


def test_an_array_that_hides_some_of_its_values_is_refused(rewritten: Callable[..., LoadedModel]) -> None:
    """Of a masked one no check sees all, and C code does."""
    model = sparse_neighbors()
    model._y = np.ma.masked_array([10**6, 1, 0], mask=[True, False, False])
    with pytest.raises(CorruptArtifactError, match="an array of an unknown kind"):
        rewritten(model_skops=skops_writer.dumps(make_pipeline(model)))


@pytest.mark.parametrize("rows", [np.eye(3), csr_matrix(np.eye(3))], ids=["dense", "sparse"])
@pytest.mark.parametrize("made", [KNeighborsClassifier, KNeighborsRegressor, NearestNeighbors])
def test_neighbours_with_features_that_there_are_not_are_refused(
    rewritten: Callable[..., LoadedModel], made: Callable[..., Any], rows: Any
) -> None:
    model = made(n_neighbors=1, algorithm="brute").fit(rows, [0, 1, 1])
    model.n_features_in_ = 10**6
    with pytest.raises(CorruptArtifactError, match="neighbours with another number of features"):
        rewritten(model_skops=skops_writer.dumps(make_pipeline(model)))


@pytest.mark.parametrize("rows", [np.eye(3), csr_matrix(np.eye(3))], ids=["dense", "sparse"])
@pytest.mark.parametrize("counts", [[10**6, 1], [-1, 4]])
def test_counts_of_support_vectors_that_there_are_not_are_refused(
    rewritten: Callable[..., LoadedModel], rows: Any, counts: list[int]
) -> None:
    model = SVC().fit(rows, [0, 1, 1])
    model._n_support = np.array(counts, dtype=np.int32)
    with pytest.raises(CorruptArtifactError, match="invalid support vector indices"):
        rewritten(model_skops=skops_writer.dumps(make_pipeline(model)))


@pytest.mark.parametrize("rows", [np.eye(3), csr_matrix(np.eye(3))], ids=["dense", "sparse"])
@pytest.mark.parametrize("made", [SVC, SVR, NuSVC])
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("_n_support", np.zeros(5_000, dtype=np.int32)),
        ("_dual_coef_", np.ones((1, 1))),
        ("_dual_coef_", csr_matrix((1, 3))),
        ("_intercept_", np.ones(0)),
        ("support_", np.zeros(1, dtype=np.int32)),
        ("_probA", np.ones(2)),
        ("_effective_probability", True),
        ("n_features_in_", 10**6),
        ("kernel", "precomputed"),
    ],
)
def test_support_vectors_that_there_are_not_are_refused(
    rewritten: Callable[..., LoadedModel], made: Callable[[], Any], rows: Any, name: str, value: Any
) -> None:
    """LIBSVM would read beyond."""
    model = made().fit(rows, [0, 1, 1])
    setattr(model, name, value)
    with pytest.raises(CorruptArtifactError, match="invalid support vector indices"):
        rewritten(model_skops=skops_writer.dumps(make_pipeline(model)))


def test_a_tree_of_other_features_than_its_model_is_refused(rewritten: Callable[..., LoadedModel]) -> None:
    """It would look for features beyond the rows that the model takes."""
    model = DecisionTreeClassifier().fit([[0.0], [1.0]], [0, 1])
    model.tree_ = DecisionTreeClassifier().fit([[0.0] * 9, [0.0] * 8 + [1.0]], [0, 1]).tree_
    with pytest.raises(CorruptArtifactError, match="a decision tree with invalid indices"):
        rewritten(model_skops=skops_writer.dumps(make_pipeline(model)))


def test_a_tree_without_nodes_is_refused(rewritten: Callable[..., LoadedModel]) -> None:
    model = DecisionTreeClassifier().fit([[0.0], [1.0]], [0, 1])
    model.tree_ = Tree(1, np.array([2]), 1)
    state = {**model.tree_.__getstate__(), "nodes": model.tree_.__getstate__()["nodes"][:0]}
    model.tree_.__setstate__(state)
    with pytest.raises(CorruptArtifactError, match=r"is not a model file|with invalid indices"):
        rewritten(model_skops=skops_writer.dumps(make_pipeline(model)))


@pytest.mark.parametrize("label", [-1, 2, 10**6])
def test_neighbours_with_labels_that_there_are_not_are_refused(
    rewritten: Callable[..., LoadedModel], label: int
) -> None:
    model = KNeighborsClassifier(1, algorithm="brute").fit([[0.0], [1.0]], [0, 1])
    model._y[0] = label
    with pytest.raises(CorruptArtifactError, match="invalid indices of neighbours' labels"):
        rewritten(model_skops=skops_writer.dumps(make_pipeline(model)))


@pytest.mark.parametrize("golden", sorted(GOLDEN.glob("format-*.zip")), ids=lambda path: path.stem)
def test_a_file_of_every_released_format_still_scores_as_it_did(golden: Path) -> None:
    """These files are never written anew: what a release has stored stays readable for ever."""
    expected = orjson.loads(golden.with_suffix(".json").read_bytes())
    model = model_file.load(golden, expected["sha256"])
    predictions = model.predict(expected["rows"])
    assert list(predictions.labels) == expected["labels"]
    assert predictions.probabilities is not None
    assert predictions.probabilities.tolist() == expected["probabilities"]


@pytest.mark.parametrize("golden", sorted(GOLDEN.glob("deep-*.zip")), ids=lambda path: path.stem)
def test_a_deep_network_of_every_released_format_still_scores_as_it_did(golden: Path) -> None:
    expected = orjson.loads(golden.with_suffix(".json").read_bytes())
    _, framework, _ = golden.stem.split("-", 2)
    labels, probabilities = within(framework, _predicted, golden, expected["sha256"], expected["rows"])
    assert labels == expected["labels"]
    assert np.allclose(probabilities, expected["probabilities"], rtol=0, atol=1e-6)  # CPUs differ


def _predicted(path: Path, sha256: str, rows: list[dict[str, Any]]) -> tuple[list[Any], Any]:
    predictions = load(path, sha256).predict(rows)
    return list(predictions.labels), predictions.probabilities


@pytest.mark.parametrize("kind", ["", "deep-torch-", "deep-keras-"])
def test_there_is_a_golden_file_of_the_present_format(kind: str) -> None:
    assert (GOLDEN / f"{kind}format-{model_file.FORMAT}.zip").exists()


def test_types_of_former_formats_are_trusted_in_files_of_theirs_only(rewritten: Callable[..., LoadedModel]) -> None:
    """A file of the present format names them as `tensorfleet.model_types` does."""
    with ZipFile(GOLDEN / "format-1.zip") as former:
        members = {name.replace(".", "_"): former.read(name) for name in former.namelist()}
    assert rewritten(**members).manifest["format"] == 1
    manifest = {**orjson.loads(members["manifest_json"]), "format": model_file.FORMAT}
    with pytest.raises(CorruptArtifactError, match=r"pipeline\.dates\.DateFeatures"):
        rewritten(**{**members, "manifest_json": orjson.dumps(manifest)})
