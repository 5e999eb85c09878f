"""The command line without any server: what it understands, how it answers, and what it shows of embedded stores."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
import time
from dataclasses import replace
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any
from zipfile import ZIP_DEFLATED, ZIP_STORED, ZipFile

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from pydantic import SecretStr

from consumer import embedded
from consumer.cli import main, output, predicting, submit
from consumer.cli.output import Stop, _fitted, column, duration, shown, size
from consumer.cli.reproducing import dataset_of, request_of
from consumer.cli.values import hyperparameter, tried
from consumer.events.requests import to_avro
from consumer.kafka.topic_reader import murmur2, partition_of
from consumer.new_requests import new_request_id, time_of, training_request
from consumer.settings import Settings, SettingsError
from consumer.stores import Stores, open_stores
from pipeline.artifacts import NewArtifact
from pipeline.datasets.cache import DatasetCache
from pipeline.errors import RejectedError
from pipeline.jobs import Evaluation, Failure, Outcome, OutcomeKind, Search, SearchDimension, SplitSummary
from pipeline.ledger import Home, NewClaim
from pipeline.lifecycle import promotion
from pipeline.lifecycle.references import model_reference
from pipeline.model_files import model_file
from pipeline.reading.tables import canonical, fingerprint
from tests.command import Answer, Run
from tests.models import model
from tests.rows import table_from
from tests.training_data import Bench, mixed_rows, request

ROOT = Path(__file__).parents[2]
AT = datetime(2026, 1, 31, 14, 15, 0, tzinfo=UTC)
ROWS = "petal width,petal length,sepal width,sepal length,colour\n0.2,1.4,3.5,5.1,red\n2.3,5.2,3.0,6.7,blue\n"
UNREACHABLE = "127.0.0.1:1"


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """`tensorfleet` in a folder of its own, with these settings and nothing else of the environment."""
    monkeypatch.chdir(tmp_path)
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)

    def tensorfleet(*arguments: str, stdin: str | None = None, **settings: str) -> Answer:
        with monkeypatch.context() as patch:
            for name, value in settings.items():
                patch.setenv(name, value)
            if stdin is not None:
                patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin.encode())))
            code = main(arguments)
        out, error = capsys.readouterr()
        return Answer(code, out, error)

    return tensorfleet


@pytest.fixture
def stores(run: Run, tmp_path: Path) -> Stores:
    """The embedded stores that `run` finds."""
    opened = open_stores(Settings(data_dir=tmp_path / "tensorfleet-data"))
    opened.prepare()
    return opened


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of a decision tree on iris."""
    return Bench(tmp_path_factory.mktemp("spool")).train(request()).model_file


def claim(stores: Stores, *request_ids: str, model_name: str = "flowers") -> None:
    owner = stores.ledger.boot("w")
    about = {"project": "default", "model_name": model_name, "algorithm": "svm", "dataset_name": "iris", "user": "ann"}
    for offset, request_id in enumerate(request_ids):
        stores.ledger.claim(owner, [NewClaim(request_id, "00" * 32, Home("training-requests", 0, offset), about)])


def test_a_command_ends_at_once_with_its_output_and_its_exit_code(tmp_path: Path) -> None:
    """The usual end would wait for the threads of MongoDB's driver, by a function that it has registered."""
    code = (
        "import atexit, sys; atexit.register(print, 'a usual end'); from consumer.cli import program;"
        "print('before', end=''); sys.argv[1:] = ['models', 'show', 'flowers']; program()"
    )
    environment = {name: value for name, value in os.environ.items() if name.lower() not in Settings.model_fields}
    ended = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert (ended.returncode, ended.stdout) == (2, "before")
    assert "MONGODB_URL is not set" in ended.stderr


def test_help_lists_the_commands_and_nothing_unfinished(run: Run) -> None:
    answer = run("--help")
    assert answer.code == 0
    for command in ("worker", "submit", "watch", "cancel", "requests", "models", "datasets", "algorithms", "doctor"):
        assert command in answer.out
    models = run("models", "--help").out
    assert "predict" in models
    assert "archive" in models
    assert "delete" not in models


def test_the_version_says_of_which_build_and_python_it_is(run: Run) -> None:
    answer = run("--version")
    assert answer.code == 0
    assert re.fullmatch(r"tensorfleet \d+\.\d+\.\d+ \(\w[\w ]*\), Python 3\.\d+\.\d+\n", answer.out)


def test_help_loads_no_client_of_any_service_and_no_machine_learning() -> None:
    heavy = {"confluent_kafka", "pymongo", "pydantic", "sklearn", "pandas", "pyarrow", "numpy", "fastavro"}
    code = f"import sys, consumer.cli; print(*({heavy} & sys.modules.keys()))"
    ended = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (ended.stdout, ended.stderr) == ("\n", "")


def test_it_runs_as_a_module_and_gives_its_exit_code_to_the_shell(tmp_path: Path) -> None:
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)}
    ended = subprocess.run(
        [sys.executable, "-m", "consumer.cli", "submit", "--algorithm", "svm", "--dataset", "iris"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 2
    assert ended.stdout == ""
    assert len(ended.stderr.splitlines()) == 1
    assert "KAFKA_BOOTSTRAP_SERVERS" in ended.stderr
    assert "`tensorfleet dev`" in ended.stderr


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["submit", "--bogus"], "No such option: --bogus; see `tensorfleet submit --help`"),
        (["bogus"], "No such command 'bogus'; see `tensorfleet --help`"),
        (["watch"], "see `tensorfleet watch --help`"),
        (["submit", "-a", "svm"], "--dataset must be given"),
        (["submit", "-a", "svm", "-d", "iris", "-p", "C"], "-p takes name=value, not 'C'"),
        (["submit", "-a", "svm", "-d", "iris", "--max-time", "soon"], "--max-time takes seconds"),
        (["submit", "-a", "svm", "-d", "iris", "--max-memory", "much"], "--max-memory takes such as 512MiB"),
        (["submit", "--file", "missing.json"], "missing.json cannot be read: No such file"),
        (["models", "show", "a/b/c"], "a model is NAME, NAME@v3, NAME@alias or PROJECT/NAME@v3"),
        (["models", "list"], "MONGODB_URL is not set"),
        (["algorithms", "show", "random_forrest"], "did you mean random_forest or random_forest_regressor?"),
        (["schemas", "check"], "SCHEMA_REGISTRY_URL is not set"),
        (["dlq", "replay"], "say which"),
        (["worker"], "set KAFKA_BOOTSTRAP_SERVERS"),
    ],
)
def test_wrong_use_is_one_line_on_standard_error_and_exit_code_2(run: Run, arguments: list[str], told: str) -> None:
    answer = run(*arguments)
    assert (answer.code, answer.out) == (2, "")
    (line,) = answer.error.splitlines()
    assert told in line


def test_wrong_settings_are_named_in_one_line(run: Run) -> None:
    answer = run("worker", KAFKA_BOOTSTRAP_SERVERS="kafka", PORT="http", MONGODB_URL="mongodb://here")
    assert answer.code == 2
    (line,) = answer.error.splitlines()
    assert "KAFKA_BOOTSTRAP_SERVERS takes" in line
    assert "PORT takes" in line


def test_a_worker_with_kafka_needs_mongodb_too(run: Run) -> None:
    answer = run("worker", KAFKA_BOOTSTRAP_SERVERS=UNREACHABLE)
    assert answer.code == 2
    assert "MONGODB_URL is not set" in answer.error


@pytest.mark.parametrize("arguments", [["topics", "create"], ["submit", "-a", "svm", "-d", "iris"], ["dlq", "list"]])
def test_a_kafka_that_does_not_answer_is_exit_code_3_and_named(
    run: Run, arguments: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("consumer.cli.context.TIMEOUT_S", 1.0)
    answer = run(*arguments, KAFKA_BOOTSTRAP_SERVERS=UNREACHABLE)
    assert (answer.code, answer.out) == (3, "")
    (line,) = answer.error.splitlines()
    assert f"no broker answers at {UNREACHABLE}" in line
    assert "tensorfleet doctor" in line


def test_a_hyperparameter_is_json_where_it_can_be_and_text_where_not() -> None:
    given = ["n=200", "d=null", "f=0.5", "b=true", "l=[64, 32]", 's="7"', "solver=lbfgs", "x=NaN", "e=", "q=a=b"]
    assert dict(map(hyperparameter, given)) == {
        "n": 200,
        "d": None,
        "f": 0.5,
        "b": True,
        "l": [64, 32],
        "s": "7",
        "solver": "lbfgs",
        "x": "NaN",
        "e": "",
        "q": "a=b",
    }


def test_requests_come_as_one_object_as_a_list_or_one_a_line() -> None:
    one, two = '{"algorithm": "svm"}', '{"algorithm": "knn"}'
    svm, knn = {"algorithm": "svm"}, {"algorithm": "knn"}
    assert submit._parsed(one.encode(), "here") == {"here": svm}
    in_a_list = {"here, request 1": svm, "here, request 2": knn}
    assert submit._parsed(f"[{one}, {two}]".encode(), "here") == in_a_list
    assert submit._parsed(f"{one}\n\n{two}\n".encode(), "here") == {"here, line 1": svm, "here, line 3": knn}
    with pytest.raises(Stop, match="here, line 2 is not valid JSON"):
        submit._parsed(f"{one}\n{{\n".encode(), "here")
    with pytest.raises(Stop, match="holds no request"):
        submit._parsed(b"\n", "here")


def test_options_hold_for_every_request_of_a_file(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "requests.jsonl"
    file.write_text('{"algorithm": "svm", "dataset_name": "a", "tags": {"x": "1"}}\n{"algorithm": "svm"}\n')
    given = {"dataset_name": "b", "tags": {"y": "2"}}
    assert list(submit._requests(given, str(file)).values()) == [
        {"algorithm": "svm", "dataset_name": "b", "tags": {"x": "1", "y": "2"}},
        {"algorithm": "svm", "dataset_name": "b", "tags": {"y": "2"}},
    ]


def test_a_wrong_request_in_a_file_is_told_before_anything_is_sent(run: Run) -> None:
    lines = '{"algorithm": "svm", "dataset_name": "iris"}\n{"algorithm": "svm", "dataset": "iris"}\n'
    answer = run("submit", "--file", "-", stdin=lines, KAFKA_BOOTSTRAP_SERVERS=UNREACHABLE)
    assert (answer.code, answer.out) == (2, "")
    assert "a request has no 'dataset'; did you mean dataset_name?" in answer.error


RIGHT = {"algorithm": "svm", "dataset_name": "iris"}


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({**RIGHT, "dataset": "x"}, "a request has no 'dataset'; did you mean dataset_name?"),
        ({"algorithm": "svm"}, "a request needs dataset_name"),
        ({**RIGHT, "seed": "x"}, "seed takes a whole number, not the text 'x'"),
        ({**RIGHT, "reuse": 1}, "reuse takes true or false, not 1"),
        ({**RIGHT, "tags": ["a"]}, "tags takes an object of names and values, not ['a']"),
        ({**RIGHT, "tags": {"a": 1}}, "tags takes text, not 1"),
        ({**RIGHT, "features": [1]}, "features takes text, not 1"),
        ({**RIGHT, "evaluation": {"cv": "5"}}, "evaluation.cv takes a whole number, not the text '5'"),
        ({**RIGHT, "search": {"cv": True}}, "search.cv takes a whole number, not True"),
        ({**RIGHT, "search": {"space": [3]}}, "search.space takes an object for each hyperparameter, not 3"),
        ({**RIGHT, "hyperparameters": {"C": {}}}, "hyperparameter C: must be null, a boolean"),
        ({**RIGHT, "request_id": "x" * 121}, "request_id must have 1 to 120 characters, this one has 121"),
        ({**RIGHT, "seed": 2**80}, "a request cannot be written: Python int too large"),
        ({**RIGHT, "project": "theirs"}, "but here.jsonl, line 3 names theirs"),
        (7, "here.jsonl, line 3 is not a JSON object"),
    ],
)
def test_the_line_of_a_wrong_request_is_named(run: Run, tmp_path: Path, wrong: Any, told: str) -> None:
    (tmp_path / "here.jsonl").write_text(f"{json.dumps(RIGHT)}\n\n{json.dumps(wrong)}\n")
    asked = ("submit", "--file", "here.jsonl", "--tag", "b=2")
    answer = run(*asked, KAFKA_BOOTSTRAP_SERVERS=UNREACHABLE, TENSORFLEET_PROJECT="ours")
    assert (answer.code, answer.out) == (2, "")
    assert told in answer.error
    assert "here.jsonl, line 3" in answer.error


def test_a_wrong_request_in_a_list_is_named_by_its_number_also_in_a_dry_run(run: Run) -> None:
    requests = json.dumps([{**RIGHT, "algorithm": "decision_tree"}, {**RIGHT, "algorithm": "svn"}])
    answer = run("submit", "--file", "-", "--dry-run", stdin=requests)
    assert answer.code == 2
    assert answer.error.startswith("tensorfleet: standard input, request 2: ")
    assert "svm" in answer.error


def test_a_request_has_a_name_an_id_and_a_time_of_its_own() -> None:
    asked = training_request({"algorithm": "svm", "dataset_name": "iris", "evaluation": {"cv": 5}})
    assert (asked.job_name, asked.model_name, asked.project) == ("iris-svm", "iris-svm", "default")
    assert asked.evaluation == Evaluation(cv=5)
    made = time_of(asked.request_id)
    assert made is not None
    assert abs((made - asked.requested_at).total_seconds()) < 1
    assert asked.request_id != training_request({"algorithm": "svm", "dataset_name": "iris"}).request_id


def test_what_a_request_cannot_say_is_rejected() -> None:
    with pytest.raises(RejectedError, match="needs dataset_name"):
        training_request({"algorithm": "svm"})
    with pytest.raises(RejectedError, match=r"evaluation has no 'tset_size'; did you mean test_size\?"):
        training_request({"algorithm": "svm", "dataset_name": "iris", "evaluation": {"tset_size": 0.3}})
    with pytest.raises(RejectedError, match=r"evaluation.time_gap takes a whole number, not the text '7d'"):
        training_request({"algorithm": "svm", "dataset_name": "iris", "evaluation": {"time_gap": "7d"}})


def test_numbers_and_arrays_of_numpy_are_those_of_python() -> None:
    asked = training_request(
        {
            "algorithm": "svm",
            "dataset_name": "iris",
            "seed": np.int64(7),
            "hyperparameters": {"degree": np.int32(2), "class_weight": None, "C": np.float32(0.5)},
            "search": {"space": {"C": np.logspace(0, 1, 2), "kernel": ("rbf", "poly")}, "cv": np.int8(3)},
        }
    )
    assert to_avro(asked)["seed"] == 7
    assert asked.hyperparameters == {"degree": 2, "class_weight": None, "C": 0.5}
    assert asked.search is not None
    assert [list(one.values or ()) for one in asked.search.space] == [[1.0, 10.0], ["rbf", "poly"]]


def test_the_name_of_one_feature_is_no_list_of_its_letters() -> None:
    with pytest.raises(RejectedError, match="features takes a list of names of columns, not the text 'age'"):
        training_request({"algorithm": "svm", "dataset_name": "iris", "features": "age"})


def test_request_ids_rise_and_only_ours_tell_their_time() -> None:
    ids = [new_request_id() for _ in range(100)]
    assert len(set(ids)) == 100
    assert sorted(one[:13] for one in ids) == [one[:13] for one in ids]
    for other in ("churn-42", "6f0f4f0c-6d39-5d4c-9b80-2f5ad1f0c9a1", ids[0].upper(), f"{ids[0]}.r1"):
        assert time_of(other) is None


def test_partitions_are_those_of_kafkas_own_murmur2() -> None:
    """The values of org.apache.kafka.common.utils.UtilsTest.testMurmur2, as unsigned numbers."""
    of = {b"21": -973932308, b"foobar": -790332482, b"a-little-bit-long-string": -985981536}
    of |= {b"a-little-bit-longer-string": -1486304829, b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8": -58897971}
    assert {text: murmur2(text) - 2**32 for text in of} == of
    assert partition_of(b"foobar", 12) == (-790332482 & 0x7FFFFFFF) % 12


@pytest.mark.parametrize(
    ("text", "means"),
    [
        ("churn", ("default", "churn", None, None)),
        ("churn@v3", ("default", "churn", 3, None)),
        ("churn@production", ("default", "churn", None, "production")),
        ("p/churn@v3-beta", ("p", "churn", None, "v3-beta")),
        ("sales/churn@v12", ("sales", "churn", 12, None)),
        ("sales/churn.v2-b", ("sales", "churn.v2-b", None, None)),
    ],
)
def test_a_model_is_named_with_or_without_project_and_version(text: str, means: tuple[object, ...]) -> None:
    assert model_reference(text) == means
    assert str(model_reference(text)) == text


def test_numbers_and_times_are_short_for_people() -> None:
    assert [shown(value) for value in (None, True, 0.123456, ["a", 1], AT)] == [
        "",
        "true",
        "0.1235",
        "a, 1",
        "2026-01-31 14:15:00",
    ]
    assert [size(count) for count in (999, 1_000, 20_480, 17_000_000)] == ["999 B", "1.0 kB", "20 kB", "17 MB"]
    assert [duration(s) for s in (0.204, 17.2, 125, 7300)] == ["0.20 s", "17 s", "2 min 05 s", "2 h 01 min"]


def test_requests_are_listed_with_how_they_ended(run: Run, stores: Stores) -> None:
    claim(stores, "r1", "r2")
    claim(stores, "r3", model_name="other")
    failed = Outcome(
        request_id="r1",
        kind=OutcomeKind.FAILED,
        at=AT,
        correlation_id="r1",
        project="default",
        model_name="flowers",
        worker_id="w",
        error=Failure("TRAINING_ERROR", "y has NaN"),
    )
    stores.ledger.insert_outcomes([failed])
    found = {one["request_id"]: one for one in run("requests", "--json").objects}
    assert {name: one["state"] for name, one in found.items()} == {"r1": "FAILED", "r2": "ACCEPTED", "r3": "ACCEPTED"}
    assert found["r1"]["error"] == {"kind": "TRAINING_ERROR", "message": "y has NaN"}
    assert (found["r2"]["algorithm"], found["r2"]["worker_id"], found["r2"]["error"]) == ("svm", "w", None)
    assert [one["request_id"] for one in run("requests", "--model", "other", "--json").objects] == ["r3"]
    assert {one["request_id"] for one in run("requests", "--unfinished", "--json").objects} == {"r2", "r3"}
    assert "y has NaN" in run("requests").out


def test_models_are_listed_and_shown_by_name_and_version(run: Run, stores: Stores, artifact: Path) -> None:
    for request_id in ("r1", "r2"):
        model(stores, artifact, request_id)
    listed = run("models", "list", "--json").objects
    assert {one["version"] for one in listed} == {"v1", "v2"}
    assert listed[0]["metrics"] == {"accuracy": 0.9, "f1": 0.9}
    assert run("models", "show", "flowers", "--json").objects[0]["version"] == "v2"
    assert run("models", "show", "default/flowers@v1", "--json").objects[0]["request_id"] == "r1"
    plain = run("models", "show", "flowers@v1").out.splitlines()
    assert "metrics.accuracy: 0.9000" in plain
    assert not any(line.startswith("split") for line in plain), "documents of earlier releases do not have it"
    model(
        stores, artifact, "r3", "sales", split_summary=SplitSummary("time", 7, 2, "day", 1, "2026-01-31", "2026-02-02")
    )
    parts = "7 rows to train on, up to 2026-01-31; 2 to test on, from 2026-02-02; 1 between them left out"
    assert f"split: by time (day): {parts}" in run("models", "show", "sales").out.splitlines()
    assert run("models", "show", "sales", "--json").objects[0]["split_summary"]["train_until"] == "2026-01-31"
    assert 'hyperparameters.criterion: "gini"' in plain
    first = run("models", "list", "flowers").out.splitlines()[0].split("\t")
    assert first[0] == "default/flowers"
    assert "accuracy 0.900" in first


def test_warnings_of_a_model_are_shown_one_a_line(run: Run, stores: Stores, artifact: Path) -> None:
    model(stores, artifact, warnings=("59 of 322 rows, and more", "column 'today' alone gives the target away"))
    assert [line for line in run("models", "show", "flowers").out.splitlines() if line.startswith("warnings")] == [
        "warnings.1: 59 of 322 rows, and more",
        "warnings.2: column 'today' alone gives the target away",
    ]


def test_a_model_that_is_not_there_is_wrong_use_and_the_near_ones_are_named(
    run: Run, stores: Stores, artifact: Path
) -> None:
    model(stores, artifact)
    answer = run("models", "show", "flower")
    assert answer.code == 2
    assert "there is flowers" in answer.error
    assert "there is only v1" in run("models", "predict", "flowers@v7", stdin=ROWS).error


def test_predict_scores_raw_rows_whatever_the_order_of_their_columns(run: Run, stores: Stores, artifact: Path) -> None:
    model(stores, artifact)
    answer = run("models", "predict", "flowers", "--json", stdin=ROWS)
    assert answer.code == 0
    assert [one["prediction"] for one in answer.objects] == ["setosa", "virginica"]
    assert set(answer.objects[0]["probabilities"]) == {"setosa", "versicolor", "virginica"}
    assert answer.error == "not used: colour\n"
    leaf = dict.fromkeys(("sepal length", "sepal width", "petal length"), 1.4)
    rows = "\n".join(json.dumps({**leaf, "petal width": width}) for width in (0.2, 0.3))
    plain = run("models", "predict", "flowers", stdin=rows).out.splitlines()
    assert plain[0] == "prediction\tprobability_setosa\tprobability_versicolor\tprobability_virginica"
    assert [line.split("\t")[0] for line in plain[1:]] == ["setosa", "setosa"]
    lacking = run("models", "predict", "flowers", stdin='{"petal width": 1}')
    assert lacking.code == 2
    assert "the rows lack 3 of the model's columns" in lacking.error


def test_predict_says_what_reading_decided_about_the_file_and_can_be_told_how_it_is_written(
    run: Run, stores: Stores, artifact: Path, tmp_path: Path
) -> None:
    model(stores, artifact)
    header, *rows = ROWS.splitlines()
    noted = run("models", "predict", "flowers", "--json", stdin="\n".join([header, "# a remark", *rows]))
    assert len(noted.objects) == 2
    assert "1 lines that begin with # are left out" in noted.error
    names = ["petal width", "petal length", "sepal width", "sepal length"]
    text = "|".join(names) + "\n0.2|1.4|3.5|5.1\n"
    (tmp_path / "rows.csv").write_bytes(text.encode("utf-16-le"))
    told = ("--encoding", "utf-16-le", "--delimiter", "|")
    assert run("models", "predict", "flowers", "rows.csv", *told, "--json").objects[0]["prediction"] == "setosa"
    assert run("models", "predict", "flowers", "rows.csv", "--encoding", "latin-99").code == 2


PEOPLE = (
    'code,who,sepal length,sepal width,petal length,petal width\n007,"Ann, ""A""",5.1,3.5,1.4,0.2\n008,,6.7,3,5.2,2.3\n'
)


@pytest.mark.parametrize("ending", ["csv", "parquet", "jsonl", "ndjson"])
def test_predict_writes_a_file_with_ids_as_they_were_written(
    run: Run, stores: Stores, artifact: Path, tmp_path: Path, ending: str
) -> None:
    model(stores, artifact)
    file = tmp_path / f"out.{ending}"
    wanted = ("models", "predict", "flowers", "--id", "who", "--id", "code", "--explain", "-o", str(file))
    answer = run(*wanted, stdin=PEOPLE)
    assert (answer.code, answer.out, answer.error) == (0, f"{file}\n", "")
    if ending.endswith("n") or ending == "jsonl":
        first = json.loads(file.read_text().splitlines()[0])
        assert [*first] == ["who", "code", "prediction", "probabilities", "baseline", "contributions"]
        assert first["contributions"].keys() == {"sepal length", "sepal width", "petal length", "petal width"}
        assert [first[name] for name in ("who", "code", "prediction")] == ['Ann, "A"', "007", "setosa"]
        return
    found = pd.read_csv(file, dtype={"code": str}) if ending == "csv" else pd.read_parquet(file)
    assert [*found][:4] == ["who", "code", "prediction", "probability_setosa"]
    assert [*found][6:8] == ["baseline", "contribution_sepal length"]
    assert found["code"].tolist() == ["007", "008"]
    assert found["who"][0] == 'Ann, "A"'
    assert found["who"].isna()[1]
    total = found["baseline"] + found.filter(like="contribution_").sum(axis=1)
    assert np.allclose(total, found.filter(like="probability_").max(axis=1))


def test_predicted_numbers_have_all_their_digits(run: Run, stores: Stores, tmp_path: Path) -> None:
    x = np.linspace(0, 1, 60)
    frame = pd.DataFrame({"x": x, "price": 85_940_972.67 + 1e6 * x + np.sin(40 * x)})
    bench = Bench(tmp_path / "spool")
    bench.directory.mkdir()
    trained = bench.train(request("linear_regression"), frame)
    expected = bench.load(trained).predict(frame[["x"]]).labels
    model(stores, trained.model_file)
    rows = frame[["x"]].to_csv(index=False)
    header, *lines = run("models", "predict", "flowers", stdin=rows).out.splitlines()
    assert header == "prediction"
    assert [float(line) for line in lines] == expected
    assert run("models", "predict", "flowers", "-o", "out.csv", stdin=rows).code == 0
    assert [float(line) for line in Path("out.csv").read_text().splitlines()[1:]] == expected
    assert [one["prediction"] for one in run("models", "predict", "flowers", "--json", stdin=rows).objects] == expected


def test_what_predict_cannot_write_or_carry_along_is_said_before_anything_is_written(
    run: Run, stores: Stores, artifact: Path, tmp_path: Path
) -> None:
    model(stores, artifact)
    rows = tmp_path / "rows.csv"
    rows.write_text(PEOPLE.replace("who", "prediction"))
    leaf = dict.fromkeys(("sepal length", "sepal width", "petal length", "petal width"), 1.4)
    large = json.dumps({**leaf, "key": 2**53 + 2.0})
    for options, stdin, said in (
        (
            ["-o", "out.txt"],
            PEOPLE,
            "--output takes a file that ends in .csv, .parquet, .jsonl, .ndjson, not 'out.txt'",
        ),
        (["-o", "nowhere/out.csv"], PEOPLE, "there is no directory"),
        (["--id", "cod"], PEOPLE, "--id cod: the rows have no such column; did you mean code? They have code, who, "),
        ([str(rows), "--id", "prediction"], None, "--id prediction: predictions have a column of that name"),
        ([str(rows), "-o", str(rows)], None, f"--output {rows} is the file of the rows"),
        (["--id", "key"], large, "--id key: it holds numbers of more than 15 digits"),
        (["-o", "out.csv"], PEOPLE.replace("6.7", "tall"), "row 2 has 'tall'"),
    ):
        answer = run("models", "predict", "flowers", *options, stdin=stdin)
        assert (answer.code, answer.out) == (2, "")
        assert answer.error.count("\n") == 1
        assert said in answer.error
    assert {file.name for file in tmp_path.iterdir()} == {"tensorfleet-data", "rows.csv"}
    assert rows.read_text().startswith("code,prediction")


def test_many_rows_are_predicted_in_parts_as_if_in_one(
    run: Run, stores: Stores, artifact: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Warnings are said once, and a wrong value is named with its row in the file."""
    model(stores, artifact)
    rows = PEOPLE.splitlines()[1:] * 5
    text = "\n".join([PEOPLE.splitlines()[0] + ",colour", *(f"{row},red" for row in rows)])
    whole = run("models", "predict", "flowers", "--id", "code", stdin=text)
    monkeypatch.setattr(model_file, "MOST_AT_ONCE", 3)
    parts = run("models", "predict", "flowers", "--id", "code", stdin=text)
    assert parts == whole
    assert parts.error == "not used: who, colour\n"
    assert len(parts.out.splitlines()) == 11
    assert run("models", "predict", "flowers", "-o", "out.parquet", stdin=text).code == 0
    assert len(pd.read_parquet("out.parquet")) == 10
    wrong = "\n".join([*text.splitlines()[:9], text.splitlines()[9].replace("5.1", "tall"), *text.splitlines()[10:]])
    refused = run("models", "predict", "flowers", "-o", "out2.csv", stdin=wrong)
    assert (refused.code, "row 9 has 'tall'" in refused.error) == (2, True)
    assert not Path("out2.csv").exists()


def test_predict_shows_the_first_rows_as_a_table_on_a_terminal(
    run: Run, stores: Stores, artifact: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model(stores, artifact)
    monkeypatch.setattr(predicting, "on_terminal", lambda: True)
    monkeypatch.setattr(output, "on_terminal", lambda: True)
    monkeypatch.setattr(predicting, "MOST_SHOWN", 1)
    monkeypatch.setenv("COLUMNS", "160")
    answer = run("models", "predict", "flowers", "--id", "code", "--explain", stdin=PEOPLE)
    head, _, row = answer.out.splitlines()[:3]
    assert (
        " ".join(head.split()) == "code prediction P(setosa) P(versicolor) P(virginica) baseline largest contributions"
    )
    assert row.split()[:5] == ["007", "setosa", "1.0000", "0.0000", "0.0000"]
    assert "petal" in row
    assert "these are the first 1 of 2 rows; --output FILE writes all" in answer.error


def test_download_unpacks_or_keeps_the_file(run: Run, stores: Stores, artifact: Path, tmp_path: Path) -> None:
    model(stores, artifact)
    assert run("models", "download", "flowers").out == "flowers-v1\n"
    assert {"model.skops", "MLmodel", "manifest.json"} <= {file.name for file in (tmp_path / "flowers-v1").iterdir()}
    (kept,) = run("models", "download", "flowers@v1", "kept.zip", "--file", "--json").objects
    assert sha256((tmp_path / "kept.zip").read_bytes()).hexdigest() == kept["sha256"]
    again = run("models", "download", "flowers")
    assert (again.code, "exists already" in again.error) == (2, True)


def test_a_file_with_other_bytes_than_were_registered_is_not_handed_out(
    run: Run, stores: Stores, artifact: Path, tmp_path: Path
) -> None:
    model(stores, artifact, artifact_sha256="ab" * 32)
    for command in (["download", "flowers"], ["predict", "flowers"]):
        answer = run("models", *command, stdin=ROWS)
        assert (answer.code, answer.out) == (1, "")
        assert "sha256" in answer.error
    assert not (tmp_path / "flowers-v1").exists()


@pytest.mark.parametrize("zone", ["UTC", "America/New_York", "Asia/Tokyo"])
def test_dates_of_the_first_and_the_last_year_are_shown_as_they_are_wherever_it_runs(
    run: Run, stores: Stores, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, zone: str
) -> None:
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        file = tmp_path / "people.csv"
        file.write_text("seen,label\n0001-01-01 00:00:01,a\n9999-12-31 23:59:59.997,b\n2020-02-03 00:00:00,a\n")
        assert run("datasets", "import", str(file)).code == 0
        out = run("datasets", "show", "people").out
        assert "0001-01-01 00:00:01, 9999-12-31 23:59:59, 2020-02-03 00:00:00" in out
        assert "0001-01-01 00:00:01 … 2020-02-03 … 9999-12-31 23:59:59" in out
    finally:
        monkeypatch.undo()
        time.tzset()


def test_a_file_that_would_unpack_beyond_its_size_or_its_folder_is_refused_whole(
    run: Run, stores: Stores, tmp_path: Path
) -> None:
    for number, (name, compression) in enumerate([("../evil", ZIP_STORED), ("bomb", ZIP_DEFLATED)]):
        file = tmp_path / f"{number}.zip"
        with ZipFile(file, "w", compression) as archive:
            archive.writestr("manifest.json", "{}")
            archive.writestr(name, b" " * 10**6)
        model(stores, file, f"r{number}", f"hostile{number}", artifact_sha256=sha256(file.read_bytes()).hexdigest())
        answer = run("models", "download", f"hostile{number}")
        assert (answer.code, answer.out) == (1, "")
        assert "is not a model file" in answer.error
        assert not (tmp_path / f"hostile{number}-v1").exists()


def test_datasets_are_imported_shown_and_listed(run: Run, stores: Stores, tmp_path: Path) -> None:
    (tmp_path / "plants.csv").write_text("height,born,kind\n1.5,2020-01-02,a\n,2021-03-04,b\n2.5,2022-05-06,a\n")
    (imported,) = run("datasets", "import", "plants.csv", "--json").objects
    assert (imported["name"], imported["rows"], imported["target"]) == ("plants", 3, "kind")
    assert {one["name"]: (one["type"], one["missing"]) for one in imported["schema"]} == {
        "height": ("double", 1),
        "born": ("timestamp[us]", 0),
        "kind": ("string", 0),
    }
    other = run("datasets", "import", "-", "--name", "other", "--target", "y", "--json", stdin='{"y": 1, "x": 2}')
    assert other.objects[0]["target"] == "y"
    listed = {one["name"]: one for one in run("datasets", "list", "--json").objects}
    assert {"iris", "plants", "other"} <= listed.keys()
    assert {"name", "rows", "columns", "target", "classes"} <= listed["iris"].keys()
    assert listed["plants"]["classes"] == ["a", "b"]
    assert run("datasets", "show", "plants", "--json").objects == [imported]
    most = "setosa (50), versicolor (50), virginica (50)"
    lines = run("datasets", "show", "iris").out.splitlines()
    assert f"species\tstring\t\ttarget\tsetosa, setosa, setosa\t3\t{most}" in lines
    assert run("datasets", "import", "plants.csv", "--name", "iris").code == 2


def test_a_shown_dataset_says_what_its_columns_hold_and_what_would_be_learned(run: Run, stores: Stores) -> None:
    rows = "".join(f"{n},{n / 4},{'ab'[n % 2]},{n % 3},2020-01-{n + 1:02}\n" for n in range(20))
    run("datasets", "import", "-", "--name", "plants", "--target", "kind", stdin=f"n,x,kind,few,born\n{rows},,,,\n")
    (found,) = run("datasets", "show", "plants", "--json").objects
    assert (found["target"], found["task"], found["classes"]) == ("kind", "classification", ["a", "b"])
    by_name = {one["name"]: one for one in found["schema"]}
    held = {name: tuple(one[key] for key in ("distinct", "min", "median", "max")) for name, one in by_name.items()}
    assert held["n"] == (20, 0, 10, 19)
    assert held["x"] == (20, 0.0, 2.5, 4.75)
    assert held["kind"] == (2, None, None, None)
    assert held["born"] == (20, "2020-01-01T00:00:00", "2020-01-11T00:00:00", "2020-01-20T00:00:00")
    assert {one["missing"] for one in by_name.values()} == {1}
    assert by_name["few"]["most_frequent"] == [
        {"value": 0, "rows": 7}, {"value": 1, "rows": 7}, {"value": 2, "rows": 6},
    ]  # fmt: skip
    shown = run("datasets", "show", "plants").out
    assert "born\ttimestamp[us]\t1\t\t2020-01-01 00:00:00" in shown
    assert "2020-01-01 … 2020-01-11 … 2020-01-20" in shown
    assert {name: run("datasets", "show", name, "--json").objects[0]["task"] for name in ("iris", "diabetes")} == {
        "iris": "classification",
        "diabetes": "regression",
    }


def test_a_shown_dataset_whose_target_is_whole_numbers_with_gaps_has_classes_of_integers(
    run: Run, stores: Stores
) -> None:
    run("datasets", "import", "-", "--name", "flags", stdin="x,y\n1,0.0\n2,\n3,1.0\n4,10.0\n")
    (found,) = run("datasets", "show", "flags", "--json").objects
    assert (found["task"], found["classes"]) == ("classification", ["0", "1", "10"])
    run("datasets", "import", "-", "--name", "amounts", stdin="x,y\n1,0.0\n2,\n3,1.0\n4,1.5\n")
    (found,) = run("datasets", "show", "amounts", "--json").objects
    assert (found["task"], found["classes"]) == ("regression", None)


def test_a_dataset_keeps_its_versions_which_are_shown_restored_exported_and_pruned(
    run: Run, stores: Stores, tmp_path: Path
) -> None:
    for n, content in enumerate(("x,y\n1,a\n", "x,y\n1,a\n2,b\n", "x,y\n1,a\n"), 1):
        (tmp_path / f"file{n}.csv").write_text(content)
        imported = run("datasets", "import", f"file{n}.csv", "--name", "plants")
        assert "x\tint64" in imported.out
        said = imported.error
    assert "no new version: this is the content of plants v1, the current one" in said
    versions = run("datasets", "show", "plants", "--json").objects[0]["versions"]
    assert [(one["version"], one["current"], one["rows"], one["file"]) for one in versions] == [
        ("v1", True, 1, "file1.csv"),
        ("v2", False, 2, "file2.csv"),
    ]
    assert run("datasets", "restore", "plants", "--version", "v2").error == "plants is v2 now\n"
    listed = {one["name"]: one["version"] for one in run("datasets", "list", "--json").objects}
    assert (listed["plants"], listed["iris"]) == ("v2", None)
    assert "v1\t\t1\t2\t" in run("datasets", "show", "plants").out
    assert run("datasets", "export", "plants", "--version", "1", "-o", "old.csv").out == "old.csv\n"
    assert (tmp_path / "old.csv").read_text() == '"x","y"\n1,"a"\n'
    run("datasets", "export", "plants", "-o", "new.jsonl")
    assert (tmp_path / "new.jsonl").read_text() == '{"x":1,"y":"a"}\n{"x":2,"y":"b"}\n'
    run("datasets", "export", "plants.v2")
    assert run("datasets", "import", "plants.v2.parquet", "--name", "copy", "--json").objects[0]["rows"] == 2
    assert "takes a number" in run("datasets", "restore", "plants", "--version", "old").error
    wrong = run("datasets", "restore", "plants", "--version", "9")
    assert (wrong.code, "it has v1, v2" in wrong.error) == (2, True)
    assert [one["version"] for one in run("datasets", "prune", "plants", "--keep", "1", "--json").objects] == ["v1"]
    assert run("datasets", "show", "plants.v1").code == 2


def test_what_an_import_is_told_about_its_file_holds_for_the_next_one_too(
    run: Run, stores: Stores, tmp_path: Path
) -> None:
    def types(answer: Answer) -> dict[str, str]:
        return {one["name"]: one["type"] for one in answer.objects[0]["schema"]}

    (tmp_path / "shop.csv").write_text("day;zip;price\n1/2/2026;10115;1.500\n3/4/2026;20095;-1\n")
    told = ("--type", "day=date:d/m/y", "--type", "zip=category", "--decimal", ",", "--missing", "-1")
    first = run("datasets", "import", "shop.csv", *told, "--json")
    assert types(first) == {"day": "timestamp[us]", "zip": "string", "price": "int64"}
    (tmp_path / "shop.csv").write_text("day;zip;price\n5/6/2026;10115;2.500\n3/4/2026;20095;-1\n")
    again = run("datasets", "import", "shop.csv", "--json", "--type", "zip=id")
    assert types(again) == types(first)
    written = "--type day=date:d/m/y --type zip=category --missing -1 --decimal ','"
    assert f"read as the import before it, with {written}; --forget leaves that out" in again.error
    kept = [one["options"]["types"] for one in run("datasets", "show", "shop", "--json").objects[0]["versions"]]
    assert kept == [{"day": "date:d/m/y", "zip": kind} for kind in ("category", "id")]
    shown = run("datasets", "show", "shop").out
    assert written in shown
    assert "zip\tstring (id)\t" in shown
    forgotten = run("datasets", "import", "shop.csv", "--json", "--forget")
    assert types(forgotten) == {"day": "string", "zip": "int64", "price": "double"}
    run("datasets", "import", "shop.csv", "--target", "zip")
    assert run("datasets", "import", "shop.csv", "--json").objects[0]["target"] == "zip"
    assert run("datasets", "import", "shop.csv", "--json", "--forget").objects[0]["target"] == "price"
    assert "is not fetched; download it" in run("datasets", "import", "https://a.example/x.csv").error
    refused = {"zip": "--type takes COLUMN=TYPE", "zipp=id": "did you mean zip?", "a=b": "types are"}
    for wrong, says in refused.items():
        answer = run("datasets", "import", "shop.csv", "--type", wrong)
        assert (answer.code, says in answer.error, len(answer.error.splitlines())) == (2, True, 1)


def test_a_version_is_reproduced_on_the_rows_that_it_was_trained_on(run: Run, stores: Stores, artifact: Path) -> None:
    old = stores.datasets.add("plants", pa.table({"x": [1], "y": [2]}), None).version
    fingerprint = old.fingerprint or ""
    model(stores, artifact, dataset_name="plants", dataset_fingerprint=fingerprint)
    original = stores.registry.get("default", "flowers", None)
    assert dataset_of(original, stores.datasets) == "plants"
    stores.datasets.add("plants", pa.table({"x": [3], "y": [4]}), None)
    name = dataset_of(original, stores.datasets)
    assert (name, request_of(original, name).dataset_name) == ("plants.v1", "plants.v1")
    assert DatasetCache(Path("cache"), 10_000, stores.datasets).ensure(name).fingerprint == fingerprint
    stores.datasets.restore("plants", 1)
    assert dataset_of(original, stores.datasets) == "plants"


def test_without_stores_the_built_in_datasets_are_listed(run: Run) -> None:
    answer = run("datasets", "list", "--json")
    assert "iris" in {one["name"] for one in answer.objects}
    assert "only built-in datasets are listed" in answer.error


def test_algorithms_are_listed_and_shown(run: Run) -> None:
    listed = {one["name"]: one for one in run("algorithms", "list", "--json").objects}
    assert {"random_forest", "logistic_regression", "svm", "decision_tree", "neural_network"} <= listed.keys()
    assert listed["svm"].keys() == {"name", "description", "type", "hyperparameters"}
    assert run("algorithms", "show", "svm", "--json").objects == [listed["svm"]]
    lines = run("algorithms", "show", "random_forest").out.splitlines()
    assert "n_estimators\t100\tan integer from 1 to 10,000" in lines


def test_a_model_is_exported_as_onnx_or_it_is_said_why_not(
    run: Run, stores: Stores, artifact: Path, tmp_path: Path
) -> None:
    model(stores, artifact)
    answer = run("models", "export", "flowers@v1", "--format", "onnx", "--output", "f.onnx", "--json")
    (found,) = answer.objects
    assert (found["path"], found["version"], found["rows_compared"]) == ("f.onnx", "v1", 505)
    assert (tmp_path / "f.onnx").stat().st_size > 1_000
    assert run("models", "export", "flowers", "--format", "onnx").out == "flowers-v1.onnx\n"
    answer = run("models", "export", "flowers", "--format", "pickle")
    assert (answer.code, answer.out) == (2, "")
    assert "there is no format 'pickle'; there are keras, onnx, safetensors" in answer.error
    assert run("models", "export", "flowers", "--format", "onnx", "--output", "no/where.onnx").code == 2
    assert sorted(one.name for one in tmp_path.iterdir()) == ["f.onnx", "flowers-v1.onnx", "tensorfleet-data"]


def test_the_doctor_goes_on_past_what_is_wrong_and_says_what_to_do(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("consumer.cli.context.TIMEOUT_S", 1.0)
    embedded.announce(tmp_path / "tensorfleet-data", embedded.Dev(UNREACHABLE, os.getpid()))
    answer = run("doctor", "--json")
    assert answer.code == 3
    found = {one["about"]: one for one in answer.objects}
    assert not found["kafka"]["ok"]
    assert UNREACHABLE in found["kafka"]["found"]
    assert "KAFKA_BOOTSTRAP_SERVERS" in found["kafka"]["remedy"]
    assert all(found[about]["ok"] for about in ("settings", "ledger", "artifacts", "disk"))
    assert answer.error.count("\n") == 1


def test_the_doctor_warns_of_a_dask_cluster_that_is_away(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("consumer.cli.context.TIMEOUT_S", 0.5)
    embedded.announce(tmp_path / "tensorfleet-data", embedded.Dev(UNREACHABLE, os.getpid()))
    assert "dask" not in {one["about"] for one in run("doctor", "--json").objects}
    answer = run("doctor", "--json", SEARCH_BACKEND="dask", DASK_SCHEDULER=UNREACHABLE)
    found = {one["about"]: one for one in answer.objects}
    assert (found["dask"]["ok"], found["dask"]["warning"]) == (False, True)
    assert "DASK_SCHEDULER" in found["dask"]["remedy"]
    assert "dask" not in answer.error


def test_the_doctor_names_missing_settings(run: Run) -> None:
    answer = run("doctor")
    assert answer.code == 2
    assert answer.out.startswith("✗ settings: no `tensorfleet dev` runs in")


def test_a_running_dev_is_found_in_its_folder(tmp_path: Path) -> None:
    embedded.announce(tmp_path, embedded.Dev("127.0.0.1:9999", os.getpid()))
    found = embedded.resolve(Settings(data_dir=tmp_path, mongodb_url=SecretStr("mongodb://elsewhere")))
    assert found.kafka_bootstrap_servers == "127.0.0.1:9999"
    assert found.delivery == "at-least-once"
    assert found.mongodb_url.get_secret_value() == ""


def test_a_kafka_that_is_named_comes_before_a_running_dev(tmp_path: Path) -> None:
    embedded.announce(tmp_path, embedded.Dev("127.0.0.1:9999", os.getpid()))
    named = Settings(data_dir=tmp_path, kafka_bootstrap_servers="kafka:9092")
    assert embedded.resolve(named) is named


@pytest.mark.parametrize("note", [None, "{", "[]", '{"pid": 1}', "ended"])
def test_a_dev_that_has_ended_or_left_nothing_readable_is_none(tmp_path: Path, note: str | None) -> None:
    if note == "ended":
        ended = subprocess.Popen([sys.executable, "-c", ""])
        ended.wait()
        embedded.announce(tmp_path, embedded.Dev("127.0.0.1:9999", ended.pid))
    elif note is not None:
        (tmp_path / "dev.json").write_text(note)
    with pytest.raises(SettingsError, match=r"tensorfleet dev.*set KAFKA_BOOTSTRAP_SERVERS"):
        embedded.resolve(Settings(data_dir=tmp_path))


def test_withdrawing_takes_away_ones_own_note_only(tmp_path: Path) -> None:
    mine, others = embedded.Dev("127.0.0.1:1", os.getpid()), embedded.Dev("127.0.0.1:2", os.getpid())
    embedded.announce(tmp_path, others)
    embedded.withdraw(tmp_path, mine)
    assert embedded.find(tmp_path) == others
    embedded.withdraw(tmp_path, others)
    assert embedded.find(tmp_path) is None


def test_a_table_fits_into_a_narrow_terminal_and_keeps_what_matters() -> None:
    whole, fold, extra, cut = (column(kind, kind, **{kind: True}) for kind in ("whole", "fold", "extra", "right"))
    columns = [(whole, 36), (cut, 30), (extra, 20), (fold, 100)]
    assert _fitted(columns, 250) == [36, 30, 20, 100]
    for room in (80, 100, 130, 160, 198):
        widths = _fitted(columns, room)
        assert widths[0] == 36
        assert sum(width + 3 for width in widths if width) <= room
    assert _fitted(columns, 80)[2] == 0


@pytest.mark.parametrize(
    ("text", "dimension"),
    [
        ("max_depth=1,2,null", {"name": "max_depth", "values": [1, 2, None]}),
        ("criterion=gini,entropy", {"name": "criterion", "values": ["gini", "entropy"]}),
        ("hidden_layer_sizes=[[10],[20,5]]", {"name": "hidden_layer_sizes", "values": [[10], [20, 5]]}),
        ("C=0.1..10", {"name": "C", "low": 0.1, "high": 10.0}),
        ("C=1e-3..1e2:log", {"name": "C", "low": 0.001, "high": 100.0, "log": True}),
        ("max_depth=1..9:2", {"name": "max_depth", "low": 1.0, "high": 9.0, "step": 2.0}),
        ("degree=-1..-0.5", {"name": "degree", "low": -1.0, "high": -0.5}),
    ],
)
def test_what_is_tried_is_a_list_or_a_range(text: str, dimension: dict[str, Any]) -> None:
    assert tried(text) == dimension


def test_a_search_of_a_command_line_reads_as_a_request() -> None:
    space = [tried("max_depth=1,2"), tried("min_samples_leaf=1..9:4")]
    asked = training_request({"algorithm": "decision_tree", "dataset_name": "iris", "search": {"space": space}})
    assert asked.search == Search(
        "grid",
        (SearchDimension("max_depth", (1, 2)), SearchDimension("min_samples_leaf", low=1.0, high=9.0, step=4.0)),
    )
    short = {"strategy": "random", "space": {"C": {"low": 1, "high": 2}, "kernel": ["rbf"]}, "max_candidates": 3}
    asked = training_request({"algorithm": "svm", "dataset_name": "iris", "search": short})
    assert asked.search is not None
    assert [one.name for one in asked.search.space] == ["C", "kernel"]
    with pytest.raises(RejectedError, match=r"search has no .candidates.; did you mean max_candidates\?"):
        training_request({"algorithm": "svm", "dataset_name": "iris", "search": {"candidates": 3}})
    with pytest.raises(RejectedError, match=r"search\.space: C takes a list of values"):
        training_request({"algorithm": "svm", "dataset_name": "iris", "search": {"space": {"C": "1"}}})


def test_a_version_is_promoted_rolled_back_and_found_by_its_alias(run: Run, stores: Stores, artifact: Path) -> None:
    for number, accuracy in enumerate((0.9, 0.95, 0.8), 1):
        model(stores, artifact, f"r{number}", metrics={"accuracy": accuracy}, split="ab" * 32)
    assert run("models", "promote", "flowers@v1").out == "default/flowers@production points to v1\n"
    assert run("models", "promote", "flowers@v2").code == 0
    worse = run("models", "promote", "flowers")
    assert (worse.code, "v3 has accuracy 0.8 and v2 0.95" in worse.error) == (1, True)
    assert run("models", "show", "flowers@production", "--json").objects[0]["version"] == "v2"
    assert run("models", "promote", "flowers", "--force", "--alias", "canary").code == 0
    back = run("models", "rollback", "flowers", "--json")
    assert (back.objects[0]["version"], back.objects[0]["reason"]) == ("v1", "ROLLED_BACK")
    assert "the alias is changed; a worker will announce it" in back.error
    listed = run("models", "aliases", "flowers", "--json").objects
    assert [(one["alias"], one["version"]) for one in listed] == [("canary", "v3"), ("production", "v1")]
    assert len(run("models", "aliases", "--history", "--json").objects) == 4
    for wrong in (("rollback", "flowers@canary"), ("unalias", "flowers@canary"), ("unalias", "flowers@v3")):
        assert run("models", *wrong).code == 2
    assert run("models", "unalias", "flowers", "--alias", "canary").out.endswith("points to no version\n")
    gone = run("models", "show", "flowers@canary")
    assert (gone.code, gone.error) == (2, "tensorfleet: flowers has no alias canary; there is production\n")


def test_an_archived_version_is_hidden_and_kept_until_it_is_taken_out(run: Run, stores: Stores, artifact: Path) -> None:
    for number in (1, 2):
        model(stores, artifact, f"r{number}", split="ab" * 32)
    assert run("models", "archive", "flowers@v2").out == "default/flowers v2 is archived\n"
    assert [one["version"] for one in run("models", "list", "--json").objects] == ["v1"]
    everything = {one["version"]: one["archived_at"] for one in run("models", "list", "--archived", "--json").objects}
    assert everything["v1"] is None
    assert everything["v2"]
    assert run("models", "show", "flowers", "--json").objects[0]["version"] == "v1"
    assert run("models", "show", "flowers@v2", "--json").objects[0]["archived_at"] == everything["v2"]
    assert [one["model"] for one in run("models", "leaderboard", "iris", "--json").objects] == ["default/flowers@v1"]
    refused = run("models", "promote", "flowers@v2")
    assert (refused.code, "`tensorfleet models archive default/flowers@v2 --undo`" in refused.error) == (2, True)
    assert run("models", "promote", "flowers").code == 0
    pointed = run("models", "archive", "flowers@v1")
    assert (pointed.code, "production points to it" in pointed.error) == (2, True)
    assert run("models", "archive", "flowers@v2", "--undo").out == "default/flowers v2 is in use again\n"
    assert run("models", "show", "flowers", "--json").objects[0]["version"] == "v2"
    assert "say which version: flowers@v3" in run("models", "archive", "flowers").error


def test_what_no_version_names_is_collected(run: Run, stores: Stores, artifact: Path) -> None:
    named = model(stores, artifact)
    claim(stores, "r1", "r2")
    stores.ledger.insert_outcomes([replace(named, at=datetime.now(UTC))])
    for request_id in ("r1", "r2", "unknown"):
        stores.artifacts.put([NewArtifact(f"default/flowers/{request_id}/{'00' * 32}.zip", artifact, "00" * 32, 7)])
    assert run("artifacts", "gc").error.endswith(
        "0 artifacts, 0 B, deleted; kept: 1 named by a model, 1 younger than 1d, 1 of requests that have not ended, "
        "1 of requests that the ledger does not know (any more)\n"
    )
    for one in stores.artifacts.listing():
        os.utime(one.uri.removeprefix("file://"), (0, 0))
    (tried,) = run("artifacts", "gc", "--dry-run", "--json").objects
    assert (tried["request_id"], tried["what"], tried["deleted"]) == ("r1", "model file", False)
    assert tried["bytes"] == artifact.stat().st_size
    assert run("artifacts", "gc", "--dry-run", "--project", "other", "--json").objects == []
    done = run("artifacts", "gc")
    assert done.out.startswith("r1\tmodel file\t")
    assert done.error.startswith("1 artifacts, ")
    assert len(stores.artifacts.list()) == 3
    assert run("models", "download", "flowers").code == 0
    assert run("artifacts", "gc", "--older-than", "soon").code == 2


def test_an_alias_that_was_left_on_an_archived_version_is_told(run: Run, stores: Stores, artifact: Path) -> None:
    model(stores, artifact)
    run("models", "promote", "flowers")
    stores.registry.archive("default", "flowers", 1, AT)
    assert "default/flowers@production points to v1, which is archived" in run("models", "aliases").error
    assert run("models", "archive", "flowers@v1").code == 2
    assert run("models", "aliases").error == "", "and that was mended"


def test_versions_are_compared_where_they_differ(run: Run, stores: Stores, artifact: Path) -> None:
    model(stores, artifact, "r1", metrics={"accuracy": 0.9}, split="ab" * 32)
    model(
        stores, artifact, "r2", metrics={"accuracy": 0.8, "f1": 0.7}, split="ab" * 32, hyperparameters={"max_depth": 9}
    )
    answer = run("models", "compare", "flowers@v1", "flowers@v2", "--json")
    rows = {one["what"]: (one["v1"], one["v2"]) for one in answer.objects}
    assert rows == {
        "hyperparameters.criterion": ("gini", None),
        "hyperparameters.max_depth": (3, 9),
        "metrics.accuracy": (0.9, 0.8),
        "metrics.f1": (None, 0.7),
    }
    assert answer.error == ""
    model(stores, artifact, "r3", split="cd" * 32)
    assert "not tested on the same rows" in run("models", "compare", "flowers@v1", "flowers").error
    assert run("models", "compare", "flowers").code == 2


def trained_on(stores: Stores, folder: Path, frame: pd.DataFrame, **asked: Any) -> Path:
    """A model of a dataset that is in the store, registered as a worker would."""
    table = canonical(pa.Table.from_pandas(frame, preserve_index=False))
    stores.datasets.add("rows", table, "label")
    folder.mkdir(exist_ok=True)
    bench = Bench(folder)
    trained = bench.train(request(dataset="rows", **asked), replace(bench.dataset(table, "label"), name="rows"))
    about: dict[str, Any] = {
        "metrics": trained.metrics,
        "hyperparameters": trained.hyperparameters,
        "dataset_name": "rows",
        "dataset_fingerprint": fingerprint(table),
        "features": trained.features,
        "target_column": "label",
        "split": trained.split,
    }
    model(stores, trained.model_file, f"r{len(stores.registry.list()) + 1}", "rows", **about)
    return trained.model_file


def test_a_report_finds_importance_afterwards_as_the_training_would_have(
    run: Run, stores: Stores, tmp_path: Path
) -> None:
    frame = mixed_rows(150)
    trained_on(stores, tmp_path / "spool", frame)
    answer = run("models", "report", "rows", "card.md", "--importance")
    assert (answer.code, answer.out.strip()) == (0, "card.md")
    assert "shuffling 6 columns" in answer.error
    late = Path("card.md").read_text().partition("## Importance")[2].partition("## ")[0]
    trained_on(stores, tmp_path / "spool", frame, report=True)
    assert run("models", "report", "rows@v2", "asked.md", "--importance").error == ""
    early = Path("asked.md").read_text().partition("## Importance")[2].partition("## ")[0]
    assert late == early
    assert "| size |" in late
    run("models", "report", "rows@v1", "plain.md")
    assert "## Importance" not in Path("plain.md").read_text()


def test_a_report_of_a_dataset_that_has_changed_says_so(run: Run, stores: Stores, tmp_path: Path) -> None:
    frame = mixed_rows(150)
    trained_on(stores, tmp_path / "spool", frame)
    changed = canonical(pa.Table.from_pandas(frame.iloc[1:], preserve_index=False))
    stores.datasets.add("rows", changed, "label")
    answer = run("models", "report", "rows", "kept.md", "--importance")
    assert (answer.code, "its version of then is rows.v1" in answer.error) == (0, True)
    assert "Importance of columns when shuffled" in Path("kept.md").read_text()
    stores.datasets.prune("rows", 1)
    answer = run("models", "report", "rows", "--importance")
    assert (answer.code, answer.out) == (2, "")
    assert "dataset rows is not what it was when the model was trained" in answer.error
    assert "submit --report" in answer.error
    assert not Path("rows-v1.html").exists()
    assert run("models", "report", "rows").code == 0


def test_a_report_of_rows_that_are_split_in_another_way_now_says_so(run: Run, stores: Stores, tmp_path: Path) -> None:
    trained_on(stores, tmp_path / "spool", mixed_rows(150), seed=5)
    answer = run("models", "report", "rows", "--importance")  # registered with another seed than it was trained with
    assert (answer.code, "split in another way" in answer.error) == (2, True)


def test_a_report_shows_a_version_against_production(run: Run, stores: Stores, artifact: Path) -> None:
    model(stores, artifact, "r1", split="ab" * 32)
    model(stores, artifact, "r2", split="ab" * 32, metrics={"accuracy": 0.8})
    run("models", "report", "flowers", "before.md")
    assert "Against production" not in Path("before.md").read_text()
    promotion.promote(stores.registry, stores.aliases, stores.registry.get("default", "flowers", 1))
    for version, against in (("v2", True), ("v1", False)):
        run("models", "report", f"flowers@{version}", f"{version}.html")
        assert ("Against production (v1)" in Path(f"{version}.html").read_text()) == against
    assert "-0.1 worse" in Path("v2.html").read_text()


def test_versions_are_compared_on_a_page(run: Run, stores: Stores, artifact: Path) -> None:
    for number, accuracy in ((1, 0.9), (2, 0.8)):
        model(stores, artifact, f"r{number}", metrics={"accuracy": accuracy}, split="ab" * 32)
    answer = run("models", "compare", "flowers@v1", "flowers@v2", "--html", "page.html", "--json")
    assert (answer.code, answer.objects) == (0, [{"what": "metrics.accuracy", "v1": 0.9, "v2": 0.8}])
    page = Path("page.html").read_text()
    assert '<td class="best">0.9</td><td>0.8</td>' in page
    assert page.count("<h2>Confusion matrix</h2>") == 1
    assert run("models", "compare", "flowers@v1", "flowers@v2", "--html", "no/where.html").code == 2


def test_a_leaderboard_ranks_what_was_tested_on_the_same_rows(run: Run, stores: Stores, artifact: Path) -> None:
    for number, (accuracy, split) in enumerate(((0.9, "a"), (0.95, "a"), (0.99, "b"), (0.7, "a")), 1):
        model(stores, artifact, f"r{number}", metrics={"accuracy": accuracy, "log_loss": accuracy}, split=split)
    model(stores, artifact, "r5", dataset_name="wine")
    answer = run("models", "leaderboard", "iris", "--json")
    places = [(one["test"], one["rank"], one["model"]) for one in answer.objects]
    assert sorted(places)[:1] == sorted(places, key=lambda place: place[:2])[:1]
    by_test = [[name.rpartition("@")[2] for test, _, name in places if test == n] for n in (1, 2)]
    assert sorted(by_test) == [["v2", "v1", "v4"], ["v3"]]
    assert "2 groups" in answer.error
    lower = [
        one["model"][-2:] for one in run("models", "leaderboard", "iris", "--metric", "log_loss", "--json").objects
    ]
    assert [one for one in lower if one != "v3"] == ["v4", "v1", "v2"]
    nothing = run("models", "leaderboard", "digits")
    assert (nothing.code, nothing.out) == (0, "")


def test_models_are_listed_by_dataset_and_tag(run: Run, stores: Stores, artifact: Path) -> None:
    model(stores, artifact, "r1", tags={"team": "botany"})
    model(stores, artifact, "r2", dataset_name="wine", tags={"team": "wine", "a.b": "$c"})
    assert [one["version"] for one in run("models", "list", "--dataset", "wine", "--json").objects] == ["v2"]
    assert [one["version"] for one in run("models", "list", "--tag", "team=botany", "--json").objects] == ["v1"]
    assert run("models", "list", "--tag", "team=botany", "--tag", "a.b=$c", "--json").objects == []


def test_a_dry_run_says_how_a_request_would_be_read_and_sends_nothing(run: Run, stores: Stores) -> None:
    table = pa.Table.from_pandas(mixed_rows(60), preserve_index=False)
    stores.datasets.add("mixed", table, "label")
    asked = ("submit", "-a", "decision_tree", "-d", "mixed", "--dry-run", "--try", "max_depth=1..4:1")
    (found,) = run(*asked, "--json").objects
    assert {one["name"]: one["role"] for one in found["columns"]} == {
        "size": "numeric", "count": "numeric", "city": "categorical", "paid": "boolean", "seen": "date", "note": "text",
    }  # fmt: skip
    assert (found["target_column"], found["classes"]) == ("label", ["class 0", "class 1"])
    assert (found["train_rows"], found["test_rows"], found["candidates"]) == (48, 12, 4)
    assert "max_depth" not in found["hyperparameters"]
    assert found["hyperparameters"]["random_state"] == 42
    assert "columns.city: categorical (string)" in run(*asked).out
    assert "split: at random, stratified by class: 48 rows to train on; 12 to test on" in run(*asked).out
    assert "split: by group (city): " in run(*asked, "--group-column", "city").out
    assert "split: at random: 48 rows" in run(*asked, "--no-stratify").out
    table = pa.table({"day": range(40), "x": [0.5, 1.5] * 20, "y": [0.0, 1.0] * 20})
    stores.datasets.add("days", table, "y")
    days = run("submit", "-a", "decision_tree", "-d", "days", "--dry-run", "--time-column", "day", "--time-gap", "4")
    assert "classes: 0, 1" in days.out
    assert (
        "split: by time (day): 28 rows to train on, up to 27; 8 to test on, from 32; 4 between them left out"
        in days.out
    )
    ids = canonical(table_from(("id,x,y\n" + "".join(f"{n},{n % 2},{'abB'[n % 3]}\n" for n in range(60))).encode()))
    stores.datasets.add("ids", ids, "y")
    told = run("submit", "-a", "decision_tree", "-d", "ids", "--dry-run").out.splitlines()
    assert [line for line in told if line.startswith("warnings")] == [
        "warnings.1: column 'id': differs in every row: if it is an id, leave it out (--type NAME=id at import, or "
        "features)",
        "warnings.2: column 'y': holds words that differ in case or blanks only, and count as different: 'b' and 'B' "
        "(row 3: 'B')",
    ]
    wrong = run("submit", "-a", "decision_tree", "-d", "diabetes", "--dry-run")
    assert (wrong.code, "use decision_tree_regressor" in wrong.error) == (2, True)
    assert stores.ledger.requests() == []
