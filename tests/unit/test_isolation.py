"""Two projects on one fleet: a command that keeps to one neither shows nor changes anything of the other."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import typer

from consumer import embedded
from consumer.cli import app, main
from consumer.client import Client
from consumer.events.messages import message
from consumer.events.outgoing import ProgressState, progress_event, terminal_progress
from consumer.events.requests import to_avro
from consumer.kafka.topic_reader import Reader
from consumer.partitions.records import Partition, Record
from consumer.publishing.dead_letters import dead_letter
from consumer.settings import Settings
from consumer.stores import Stores, open_stores
from pipeline.artifacts import NewArtifact
from pipeline.errors import NotFoundError, RejectedError
from pipeline.jobs import Failure, Outcome, OutcomeKind, TrainingRequest
from pipeline.ledger import Home, NewClaim
from pipeline.lifecycle.promotion import promote
from schemas import RecordType
from tests.command import Answer, Run
from tests.contract.stores import registered
from tests.training_data import Bench, request

MINE, THEIRS = "mine", "theirs"
WORD = {MINE: "open", THEIRS: "hush"}
"""What every name and text of the project begins with."""
ROWS = "sepal length,sepal width,petal length,petal width\n5.1,3.5,1.4,0.2\n"

FLEET_WIDE = {
    *("demo", "dev", "worker", "doctor", "topics create", "schemas register", "schemas check"),
    *("algorithms list", "algorithms show", "datasets list", "datasets show", "datasets import"),
    *("datasets export", "datasets restore", "datasets prune"),
}
"""Commands about what all projects share."""

SHOWING: dict[str, tuple[str, ...]] = {
    "models list": (),
    "models list --archived": (),
    "models aliases": (),
    "models aliases --history": (),
    "models show": ("open-model@v1",),
    "models compare": ("open-model@v1", "open-model@v2"),
    "models leaderboard": ("iris",),
    "models download": ("open-model@v1", "folder"),
    "models export": ("open-model@v1", "--format", "onnx"),
    "models report": ("open-model@v1", "page.html"),
    "models predict": ("open-model@production", "rows.csv"),
    "requests": (),
    "dlq list": (),
    "dlq show": ("open-letter",),
    "dlq replay": ("--all", "--dry-run"),
    "artifacts gc": ("--older-than", "1ms", "--dry-run"),
    "watch": ("open-request",),
}
CHANGING: dict[str, tuple[str, ...]] = {
    "models promote": ("open-model@v2", "--force"),
    "models rollback": ("open-model",),
    "models unalias": ("open-model",),
    "models archive": ("open-model@v2",),
    "dlq replay": ("--all",),
    "artifacts gc": ("--older-than", "1ms"),
    "cancel": ("open-request",),
    "submit": ("-a", "svm", "-d", "iris"),
}
REFUSED: dict[str, tuple[str, ...]] = {
    **{f"models {name}": ("theirs/hush-model@v1",) for name in ("show", "download", "report", "reproduce", "archive")},
    "models export": ("theirs/hush-model@v1", "--format", "onnx"),
    "models predict": ("theirs/hush-model@production", "rows.csv"),
    "models compare": ("open-model@v1", "theirs/hush-model@v1"),
    "models promote": ("theirs/hush-model@v2", "--force"),
    "models rollback": ("theirs/hush-model",),
    "models unalias": ("theirs/hush-model",),
    "models list": ("theirs/hush-model",),
    "models aliases": ("theirs/hush-model",),
    "requests": ("--model", "theirs/hush-model"),
    "watch": ("hush-request",),
    "cancel": ("hush-request",),
    "dlq show": ("hush-letter",),
    "dlq replay": ("hush-letter",),
    "submit": ("--file", "theirs.json"),
}


@pytest.fixture(scope="module")
def model_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Bench(tmp_path_factory.mktemp("spool")).train(request()).model_file


@pytest.fixture
def settings(tmp_path: Path) -> Iterator[Settings]:
    with embedded.broker(Settings(data_dir=tmp_path / "tensorfleet-data")) as settings:
        yield settings


@pytest.fixture
def stores(settings: Settings, model_file: Path) -> Stores:
    """Two projects, each with the same: two versions, an alias, a request that failed, what it left, a dead letter."""
    stores = open_stores(settings)
    stores.prepare()
    with Client(settings) as client:
        for project, word in WORD.items():
            _fill(stores, client, project, word, model_file)
    time.sleep(0.01)  # what gc is to take is older than a millisecond
    return stores


def _fill(stores: Stores, client: Client, project: str, word: str, model_file: Path) -> None:
    content = model_file.read_bytes()
    digest, about = sha256(content).hexdigest(), {"project": project, "user": f"{word}-user"}
    for number in (1, 2):
        name = f"{word}-{number}"
        key = f"{project}/{word}-model/{name}/{digest}.zip"
        uri = stores.artifacts.put([NewArtifact(key, model_file, digest, len(content))])[key].uri
        outcome = registered(
            name, f"{word}-model", project, user=f"{word}-user", artifact_uri=uri, artifact_sha256=digest,
            tags={"team": f"{word}-team"}, split="ab" * 32, created_at=datetime.now(UTC),
        )  # fmt: skip
        stores.ledger.insert_outcomes([replace(outcome, at=datetime.now(UTC))])
        stores.registry.register([outcome])
        promote(stores.registry, stores.aliases, stores.registry.get(project, f"{word}-model", number), force=True)
    asked = TrainingRequest(
        f"{word}-request", f"{word}-job", "svm", "iris", project=project, user=about["user"],
        model_name=f"{word}-other", correlation_id=f"{word}-c",
    )  # fmt: skip
    summary = {**about, "model_name": asked.model_name, "algorithm": "svm", "dataset_name": "iris"}
    me = stores.ledger.boot("w")
    stores.ledger.claim(me, [NewClaim(asked.request_id, "sha", Home("training-requests", 0, 0), summary)])
    failed = Outcome(
        asked.request_id, OutcomeKind.FAILED, datetime.now(UTC), f"{word}-c", project, asked.model_name, "w",
        error=Failure("TRAINING_ERROR", f"{word} secret"),
    )  # fmt: skip
    stores.ledger.insert_outcomes([failed])
    for key in (
        f"{project}/{word}-model/{asked.request_id}/{digest}.zip",
        f"~checkpoints/{asked.request_id}/000000009-{'0' * 64}",
    ):
        stores.artifacts.put([NewArtifact(key, model_file, digest, len(content))])
    accepted = progress_event(
        asked, ProgressState.ACCEPTED, attempt=1, sequence=1, worker_id="w", occurred_at=datetime.now(UTC)
    )
    for event in (accepted, terminal_progress(failed)):
        client.send([message(client.codec, client.topics, RecordType.TRAINING_PROGRESS, event)])
    letter = replace(asked, request_id=f"{word}-letter", tags={"secret": f"{word} tag"})
    sent = message(client.codec, client.topics, RecordType.TRAINING_REQUEST, to_avro(letter))
    record = Record(Partition("training-requests", 0), 1, 17, sent.key, sent.value, list(sent.headers), 0)
    client.send([dead_letter(client.topics.dead_letters, record, "INVALID_REQUEST", f"{word} reason")])


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, stores: Stores) -> Run:
    monkeypatch.chdir(tmp_path)
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
    Path("rows.csv").write_text(ROWS)
    Path("theirs.json").write_text('{"algorithm": "svm", "dataset_name": "iris", "project": "theirs"}')

    def tensorfleet(*arguments: str, **environment: str) -> Answer:
        with monkeypatch.context() as patch:
            for name, value in environment.items():
                patch.setenv(name, value)
            code = main(arguments)
        out, error = capsys.readouterr()
        return Answer(code, out, error)

    return tensorfleet


@pytest.fixture(params=["option", "setting"])
def scoped(request: pytest.FixtureRequest, run: Run) -> Run:
    """`tensorfleet`, keeping to my project in either way."""

    def tensorfleet(command: str, *arguments: str) -> Answer:
        if request.param == "option" and not command.startswith("submit"):
            return run(*command.split(), *arguments, "--project", MINE)
        return run(*command.split(), *arguments, TENSORFLEET_PROJECT=MINE)

    return tensorfleet


def _theirs(stores: Stores, settings: Settings) -> list[Any]:
    """All that there is of the other project, what was sent in its name included."""
    sent = []
    with Client(settings) as client:
        for topic, record in (
            (client.topics.training_requests, RecordType.TRAINING_REQUEST),
            (client.topics.training_control, RecordType.TRAINING_CONTROL),
            (client.topics.model_aliases, RecordType.MODEL_ALIAS_CHANGED),
        ):
            with Reader(settings, topic, 10) as reader:
                reader.start(range(reader.partitions))
                for delivered in reader:
                    if delivered is None and reader.at_end:
                        break
                    if delivered is not None:
                        sent.append(client.codec.decode(delivered.value(), record))
    return [
        stores.registry.list(project=THEIRS, archived=True),
        stores.aliases.list(project=THEIRS),
        stores.ledger.requests(project=THEIRS),
        stores.ledger.read(["hush-request", "hush-letter", "hush-letter.r1"]),
        [one for one in stores.artifacts.listing() if "hush" in one.key],
        [one for one in sent if "hush" in str(one) or one.get("project") == THEIRS],
    ]


def _commands(group: Any = None, path: str = "") -> Iterator[str]:
    group = group or typer.main.get_command(app)
    for name, command in group.commands.items():
        here = f"{path} {name}".strip()
        yield from _commands(command, here) if hasattr(command, "commands") else [here]


def test_every_command_keeps_to_a_project_or_is_about_what_all_share() -> None:
    covered = {" ".join(word for word in name.split() if not word.startswith("-")) for name in (*SHOWING, *CHANGING)}
    covered |= REFUSED.keys()
    assert covered.isdisjoint(FLEET_WIDE)
    assert set(_commands()) == covered | FLEET_WIDE
    documented = (Path(__file__).parents[2] / "docs/operations.md").read_text()
    table = documented.partition("## Projects\n")[2].partition("\n## ")[0]
    for command in covered | FLEET_WIDE:
        assert f"`{command}`" in table, command


def test_without_a_project_both_are_shown(run: Run) -> None:
    """What the other tests rely on: there is something to be hidden."""
    for command in ("models list", "models aliases", "requests", "dlq list", "artifacts gc --older-than 1ms --dry-run"):
        answer = run(*command.split())
        assert "open" in answer.out, command
        assert "hush" in answer.out, command


def test_no_command_shows_anything_of_another_project(scoped: Run) -> None:
    for command, arguments in SHOWING.items():
        answer = scoped(command, *arguments)
        assert answer.code == (1 if command == "watch" else 0), (command, answer.error)
        assert WORD[THEIRS] not in answer.out + answer.error, command
        assert THEIRS not in answer.out + answer.error, command
        if not command.startswith(("models predict", "models compare", "models download", "models report")):
            assert WORD[MINE] in answer.out + answer.error, command


def test_no_command_changes_anything_of_another_project(scoped: Run, stores: Stores, settings: Settings) -> None:
    before = _theirs(stores, settings)
    for command, arguments in CHANGING.items():
        answer = scoped(command, *arguments)
        assert answer.code == (1 if command == "cancel" else 0), (command, answer.error)  # what is cancelled had ended
        assert WORD[THEIRS] not in answer.out + answer.error, command
    assert _theirs(stores, settings) == before
    assert stores.registry.get(MINE, "open-model", 2).archived_at is not None
    assert [one for one in stores.artifacts.list() if "open-request" in one] == []


def test_naming_something_of_another_project_is_refused(scoped: Run, stores: Stores, settings: Settings) -> None:
    before = _theirs(stores, settings)
    for command, arguments in REFUSED.items():
        answer = scoped(command, *arguments)
        assert answer.code == 2, (command, answer)
        assert answer.out == "", command
        assert not {"secret", "hush-user", "hush-other", "hush-team"} & set(answer.error.split()), command
    assert _theirs(stores, settings) == before


def test_a_project_that_is_named_comes_before_the_setting(run: Run) -> None:
    listed = run("models", "list", "--project", THEIRS, "--json", TENSORFLEET_PROJECT=MINE).objects
    assert {one["project"] for one in listed} == {THEIRS}
    assert run("models", "list", "--project", "a b").code == 2
    sent = run("submit", "-a", "svm", "-d", "iris", "--json", TENSORFLEET_PROJECT=MINE).objects
    assert [one["project"] for one in sent] == [MINE]


def test_a_client_that_keeps_to_a_project_refuses_another(settings: Settings, stores: Stores) -> None:
    with Client(settings, project=MINE) as client:
        with pytest.raises(RejectedError, match="limited to project mine, but the request names project theirs"):
            client.submit(algorithm="svm", dataset_name="iris", project=THEIRS)
        for call in (lambda: list(client.watch("hush-request")), lambda: client.cancel("hush-request")):
            with pytest.raises(NotFoundError, match="project mine has no request hush-request"):
                call()
        with pytest.raises(NotFoundError, match="project mine has no request unheard-of"):
            client.cancel("unheard-of")
        assert [event["state"] for event in client.watch("open-request")] == ["ACCEPTED", "FAILED"]
        client.cancel("open-request")
