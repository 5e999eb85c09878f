"""The client and the commands that speak to Kafka, on a real one; the test plays the worker."""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import takewhile
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import orjson
import pytest
from confluent_kafka import KafkaError, KafkaException, Producer

from consumer import embedded
from consumer.cli import following, main
from consumer.client import Client
from consumer.events.errors import UNREADABLE, MissingTopicsError, UndecodableError
from consumer.events.messages import Message, message
from consumer.events.outgoing import ProgressState, progress_event, registered_event, terminal_progress
from consumer.events.requests import Received, read_request, to_avro
from consumer.events.topics import Topics
from consumer.kafka import config as kafka_config
from consumer.kafka.topic_reader import Reader, partition_of
from consumer.partitions.records import Partition, Record
from consumer.publishing.dead_letters import dead_letter
from consumer.settings import Settings
from consumer.stores import open_stores
from pipeline.errors import RejectedError, TransientError
from pipeline.jobs import Evaluation, Failure, Model, Outcome, OutcomeKind, RegisteredModel, TrainingRequest
from pipeline.ledger import Home, NewClaim
from schemas import RecordType
from tests.command import Answer, Run
from tests.services.kafka import Kafka

AT = datetime(2026, 1, 31, 14, 15, 0, 123_000, tzinfo=UTC)


@pytest.fixture
def settings(kafka: Kafka, topic_prefix: str, tmp_path: Path) -> Settings:
    return Settings(
        kafka_bootstrap_servers=kafka.bootstrap_servers, topic_prefix=topic_prefix, data_dir=tmp_path / "data"
    )


@pytest.fixture
def run(settings: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """`tensorfleet`, whose topics are there."""
    monkeypatch.chdir(tmp_path)
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", settings.kafka_bootstrap_servers)
    monkeypatch.setenv("TOPIC_PREFIX", settings.topic_prefix)
    monkeypatch.setenv("DATA_DIR", str(settings.data_dir))

    def tensorfleet(*arguments: str) -> Answer:
        code = main(arguments)
        out, error = capsys.readouterr()
        return Answer(code, out, error)

    embedded.announce(settings.data_dir, embedded.Dev(settings.kafka_bootstrap_servers, os.getpid()))
    assert tensorfleet("topics", "create").code == 0
    return tensorfleet


@pytest.fixture
def client(run: Run, settings: Settings) -> Iterator[Client]:
    with Client(settings) as client:
        yield client


@pytest.fixture
def worker(settings: Settings, client: Client) -> Worker:
    return Worker(client, Producer(kafka_config.producer_config(settings)))


class Worker:
    """Says what a worker would say."""

    def __init__(self, client: Client, producer: Producer) -> None:
        self._client = client
        self._producer = producer

    def progress(self, request_id: str, state: ProgressState, sequence: int, **more: Any) -> dict[str, Any]:
        asked = TrainingRequest(request_id, "job", "svm", "iris", model_name="flowers", correlation_id=request_id)
        event = progress_event(
            asked, state, attempt=1, sequence=sequence, worker_id="w", occurred_at=datetime.now(UTC), **more
        )
        self.say(RecordType.TRAINING_PROGRESS, event)
        return event

    def failed(self, request_id: str) -> dict[str, Any]:
        event = terminal_progress(_outcome(request_id, OutcomeKind.FAILED, error=Failure("TRAINING_ERROR", "NaN in y")))
        self.say(RecordType.TRAINING_PROGRESS, event)
        return event

    def registered(self, request_id: str, **more: Any) -> dict[str, Any]:
        outcome = _outcome(request_id, OutcomeKind.REGISTERED, model=replace(_MODEL, **more))
        model = RegisteredModel.of(outcome, 3)
        self.say(RecordType.MODEL_REGISTERED, registered_event(model))
        event = terminal_progress(outcome, model)
        self.say(RecordType.TRAINING_PROGRESS, event)
        return event

    def say(self, record: RecordType, event: dict[str, Any]) -> None:
        self.send(message(self._client.codec, self._client.topics, record, event))

    def send(self, one: Message, at: datetime | None = None) -> None:
        timestamp = 0 if at is None else round(at.timestamp() * 1000)
        self._producer.produce(one.topic, key=one.key, value=one.value, headers=list(one.headers), timestamp=timestamp)
        assert self._producer.flush(10) == 0


def _outcome(request_id: str, kind: OutcomeKind, **more: Any) -> Outcome:
    return Outcome(
        request_id=request_id,
        kind=kind,
        at=datetime.now(UTC),
        correlation_id=request_id,
        project="default",
        model_name="flowers",
        worker_id="w",
        **more,
    )


def _cancelled(request_id: str) -> Outcome:
    return _outcome(request_id, OutcomeKind.CANCELLED, error=Failure("CANCELLED", "cancelled by ann"))


_MODEL = Model(
    model_id="m-1",
    name="job_svm_iris_20260131T141500Z",
    project="default",
    user="ann",
    model_name="flowers",
    algorithm="svm",
    model_type="classification",
    hyperparameters={"C": 1.0},
    metrics={"accuracy": 0.9},
    dataset_name="iris",
    dataset_fingerprint="ab" * 32,
    features=["sepal length"],
    target_column="species",
    classes=["setosa", "virginica"],
    artifact_uri="gridfs://fs/1",
    artifact_format="tensorfleet-model/2",
    artifact_sha256="cd" * 32,
    artifact_bytes=20_000,
    file_id="1",
    training_time=1.25,
    created_at=AT,
    tags={},
    seed=42,
    signature=[],
    environment={},
    warnings=[],
)


def request_message(client: Client, request: TrainingRequest) -> Message:
    return message(client.codec, client.topics, RecordType.TRAINING_REQUEST, to_avro(request))


def records(settings: Settings, topic: str) -> list[Any]:
    """All that is on a topic."""
    found = []
    with Reader(settings, topic, 10) as reader:
        reader.start(range(reader.partitions))
        for delivered in reader:
            if delivered is not None:
                found.append(delivered)
            elif reader.at_end:
                break
    return found


def test_topics_are_created_once_and_told_how_they_differ(run: Run, topic_prefix: str) -> None:
    again = run("topics", "create", "--partitions", "5", "--json").objects
    assert len(again) == 6
    assert not any(one["created"] for one in again)
    assert {one["topic"].removeprefix(topic_prefix): one["partitions"] for one in again} == {
        "training-requests": 12,
        "training-control": 3,
        "training-progress": 12,
        "model-registered": 6,
        "model-aliases": 3,
        "training-requests.dlq": 3,
    }
    assert all([one["name"] for one in topic["differences"]] == ["partitions"] for topic in again)


def test_topics_take_records_as_soon_as_they_are_created(
    run: Run, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Brokers tell of a topic before that, and long before it where they have many partitions to make."""
    many = settings.model_copy(update={"topic_prefix": f"{settings.topic_prefix}many."})
    monkeypatch.setenv("TOPIC_PREFIX", many.topic_prefix)
    assert run("topics", "create", "--partitions", "100").code == 0
    (*_, newest) = Topics(many.topic_prefix).all()
    with Reader(many, newest.name, 5.0) as reader:
        reader.start([reader.partitions - 1])


def test_a_missing_topic_is_wrong_use_and_says_how_to_create_it(
    run: Run, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOPIC_PREFIX", f"{settings.topic_prefix}no.")
    for arguments in (["submit", "-a", "svm", "-d", "iris"], ["watch", "r1"], ["cancel", "r1"], ["dlq", "list"]):
        answer = run(*arguments)
        assert (answer.code, answer.out) == (2, "")
        assert "`tensorfleet topics create`" in answer.error
    with (
        Client(settings.model_copy(update={"topic_prefix": "no."})) as client,
        pytest.raises(MissingTopicsError, match=r"no\.training-requests"),
    ):
        client.submit(algorithm="svm", dataset_name="iris")


def test_what_is_submitted_is_read_back_as_it_was_meant(run: Run, settings: Settings, client: Client) -> None:
    options = "-a svm -d iris -m flowers --project botany --target species --feature a --feature b -p C=2 -p kernel=rbf"
    more = "--test-size 0.3 --cv 5 --seed 7 --max-time 10m --max-memory 1GiB --tag team=x --report --request-id r-1"
    assert run("submit", *options.split(), *more.split()).out == "r-1\n"
    (record,) = records(settings, client.topics.training_requests)
    assert record.key() == b"botany/flowers"
    assert record.partition() == partition_of(b"botany/flowers", 12)
    headers = dict(record.headers())
    assert (headers["ce_id"], headers["ce_type"]) == (b"r-1", b"io.tensorfleet.v1.TrainingRequest")
    received = read_request(client.codec, record.value(), headers=record.headers(), timestamp_ms=0)
    assert isinstance(received, Received)
    asked = received.request
    assert (asked.request_id, asked.algorithm, asked.dataset_name, asked.target_column) == (
        "r-1",
        "svm",
        "iris",
        "species",
    )
    assert (asked.features, asked.hyperparameters) == (("a", "b"), {"C": 2, "kernel": "rbf"})
    assert asked.evaluation == Evaluation(test_size=0.3, cv=5, report=True)
    assert asked.seed == 7
    assert (asked.max_training_time_s, asked.max_memory_bytes, asked.tags) == (600, 2**30, {"team": "x"})


def test_the_same_model_goes_to_one_partition_and_stays_in_order(client: Client, settings: Settings) -> None:
    ids = [client.submit(algorithm="svm", dataset_name="iris", model_name="flowers") for _ in range(5)]
    sent = records(settings, client.topics.training_requests)
    assert len({one.partition() for one in sent}) == 1
    assert [client.codec.decode(one.value(), RecordType.TRAINING_REQUEST)["request_id"] for one in sent] == ids


def test_what_no_worker_could_answer_is_refused_before_it_is_sent(client: Client, settings: Settings) -> None:
    with pytest.raises(RejectedError, match="1 to 120 characters"):
        client.submit(algorithm="svm", dataset_name="iris", request_id="x" * 121)
    with pytest.raises(RejectedError, match="cannot be written"):
        client.submit(algorithm="svm", dataset_name="iris", seed="seven")  # type: ignore[arg-type]
    assert records(settings, client.topics.training_requests) == []


def test_a_cancel_reaches_the_control_topic(run: Run, settings: Settings, client: Client) -> None:
    answer = run("cancel", "r-1", "--reason", "too slow", "--wait", "0.5")
    assert (answer.code, answer.error) == (0, "")
    assert "asked to stop r-1, which no worker has accepted yet" in answer.out
    (record,) = records(settings, client.topics.training_control)
    command = client.codec.decode(record.value(), RecordType.TRAINING_CONTROL)
    assert record.key() == b"r-1"
    assert (command["command"], command["request_id"], command["reason"]) == ("CANCEL", "r-1", "too slow")


def test_a_cancel_says_what_it_stopped_and_why_it_stopped_nothing(
    run: Run, settings: Settings, client: Client, worker: Worker
) -> None:
    worker.failed("over")
    worker.progress("runs", ProgressState.TRAINING, 1)
    worker.say(RecordType.TRAINING_PROGRESS, terminal_progress(_cancelled("stopped")))
    answer = run("cancel", "over")
    assert answer.code == 1
    assert re.match(r"tensorfleet: over was not stopped: it had ended as FAILED at 20\d\d-.* UTC\n$", answer.error)
    answer = run("cancel", "stopped", "runs", "--wait", "0.5")
    assert (answer.code, answer.error) == (0, "")
    assert "stopped had been cancelled at 20" in answer.out
    assert "asked to stop runs, which was TRAINING; `tensorfleet watch runs` tells how it ends" in answer.out
    answer = run("cancel", "over", "--json")
    assert answer.code == 1
    said = orjson.loads(answer.out)
    assert (said["request_id"], said["asked"], said["state"]) == ("over", "CANCEL", "FAILED")


def test_a_watch_sees_what_was_and_what_comes_each_once_to_the_end(client: Client, worker: Worker) -> None:
    accepted = worker.progress("r-1", ProgressState.ACCEPTED, 0)
    worker.say(RecordType.TRAINING_PROGRESS, accepted)
    worker.progress("another", ProgressState.TRAINING, 3)

    def later() -> None:
        time.sleep(1)
        worker.progress("r-1", ProgressState.TRAINING, 1, fraction=0.5)
        worker.failed("r-1")
        worker.progress("r-1", ProgressState.TRAINING, 2)

    thread = threading.Thread(target=later)
    thread.start()
    seen = list(client.watch("r-1", timeout_s=30))
    thread.join()
    assert [event["state"] for event in seen] == ["ACCEPTED", "TRAINING", "FAILED"]
    assert seen[1]["fraction"] == 0.5
    assert seen[2]["error"] == {"kind": "TRAINING_ERROR", "message": "NaN in y"}


def test_several_requests_are_watched_at_once(client: Client, worker: Worker) -> None:
    for request_id in ("r-1", "r-2", "r-3"):
        worker.failed(request_id)
    assert {event["request_id"] for event in client.watch("r-1", "r-2", "r-3", timeout_s=30)} == {"r-1", "r-2", "r-3"}


def test_a_reader_begins_at_a_time_and_rather_reads_too_much_than_too_little(
    settings: Settings, client: Client, worker: Worker
) -> None:
    now = datetime.now(UTC)
    for hours in (2, 1, 0):
        worker.send(Message(client.topics.training_control, b"r-1", b"x", []), at=now - timedelta(hours=hours))

    def read(since: datetime | None) -> int:
        with Reader(settings, client.topics.training_control, 10) as reader:
            reader.start([partition_of(b"r-1", 3)], since)
            return sum(one is not None for one in takewhile(lambda one: one is not None or not reader.at_end, reader))

    assert [read(since) for since in (now, now - timedelta(minutes=90), None)] == [1, 2, 3]
    assert read(now + timedelta(hours=1)) == 3


def test_a_watch_without_an_end_ends_in_time(client: Client, worker: Worker) -> None:
    worker.progress("r-1", ProgressState.TRAINING, 0)
    with pytest.raises(TimeoutError, match="r-1: no outcome within 2 s"):
        list(client.watch("r-1", timeout_s=2))


def test_waiting_for_a_model_gives_both_events(client: Client, worker: Worker) -> None:
    worker.registered("r-1")
    finished = client.wait("r-1", timeout_s=30)
    assert finished.state is OutcomeKind.REGISTERED
    assert finished.registered is not None
    assert (finished.registered["version"], finished.registered["request_id"]) == ("v3", "r-1")


def test_the_ends_of_several_requests_are_waited_for_together(client: Client, worker: Worker) -> None:
    worker.failed("r-2")
    worker.registered("r-1")
    ended = client.wait_all(["r-1", "r-2"], timeout_s=30)
    assert (ended["r-1"].version, ended["r-1"].error, ended["r-1"].metrics) == ("v3", "", {"accuracy": 0.9})
    assert (ended["r-2"].version, ended["r-2"].error, ended["r-2"].metrics) == (None, "NaN in y", {})
    assert client.wait_all([]) == {}


def test_an_event_that_cannot_be_read_ends_the_wait(client: Client, worker: Worker) -> None:
    """Else who has another schema registry than the workers, or an older client, would wait for ever."""
    worker.send(Message(client.topics.training_progress, b"r-1", b"\0\0\0\0\7of a registry", []))
    with pytest.raises(UndecodableError, match="SCHEMA_REGISTRY_URL must be that of the workers"):
        client.wait("r-1", timeout_s=30)


def test_each_thread_is_told_of_its_own_requests_only(client: Client) -> None:
    """They share one producer, whose queue is seldom empty."""
    with ThreadPoolExecutor(8) as threads:
        sent = [threads.submit(client.submit, algorithm="svm", dataset_name="iris") for _ in range(200)]
    assert len({one.result() for one in sent}) == 200


def test_a_producer_that_can_send_nothing_any_more_is_replaced(client: Client) -> None:
    lost: Any = Mock(wraps=client._producer)
    lost.produce.side_effect = KafkaException(KafkaError(KafkaError._FATAL, "out of order", True))
    client._producer = lost
    with pytest.raises(TransientError, match="with the same request_id it may be sent again"):
        client.submit(algorithm="svm", dataset_name="iris", request_id="r-1")
    assert client.submit(algorithm="svm", dataset_name="iris", request_id="r-1") == "r-1"


def test_watch_exits_with_the_outcome(run: Run, worker: Worker) -> None:
    worker.progress("r-1", ProgressState.TRAINING, 1, fraction=0.25, step=1, steps=4)
    worker.registered("r-1")
    worker.failed("r-2")
    good = run("watch", "r-1")
    assert good.code == 0
    assert "TRAINING     25% 1/4" in good.out.splitlines()[0]
    assert good.out.splitlines()[-1] == "flowers@v3 m-1 accuracy 0.9"
    bad = run("watch", "r-2")
    assert bad.code == 1
    assert bad.error == "tensorfleet: request r-2 ended FAILED (TRAINING_ERROR): NaN in y\n"
    objects = run("watch", "r-1", "--json").objects
    assert [one["type"] for one in objects] == ["TrainingProgress", "TrainingProgress", "ModelRegistered"]
    assert [one.get("state") for one in objects] == ["TRAINING", "REGISTERED", None]
    late = run("watch", "r-3", "--timeout", "1")
    assert (late.code, "no outcome within 1 s" in late.error) == (3, True)


def test_the_warnings_of_a_model_are_said_to_whoever_follows_its_training(
    run: Run, client: Client, worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = ("59 of 322 rows have no target and are left out", "column 'today' alone gives the target away " * 3)
    worker.registered("r-1", warnings=said)
    assert list(client.wait("r-1", timeout_s=30).warnings) == list(said)
    assert run("watch", "r-1").out.splitlines()[-3:] == [
        "flowers@v3 m-1 accuracy 0.9",
        *(f"flowers@v3 warning: {one}" for one in said),
    ]
    monkeypatch.setattr(following, "on_terminal", lambda: True)
    lines = run("watch", "r-1").out.splitlines()
    first = lines.index("  accuracy 0.9") + 1
    assert lines[first].rstrip() == f"  ! {said[0]}"
    assert "".join(f"{line[4:].strip()} " for line in lines[first + 1 : -1]).strip() == said[1].strip()
    assert [line[:4] for line in lines[first:]] == ["  ! ", "  ! ", "    ", "  te"]


def test_who_uses_a_request_id_again_is_told_and_follows_the_first(run: Run, client: Client, worker: Worker) -> None:
    worker.registered("r-1")
    again = run("submit", "-a", "svm", "-d", "iris", "--request-id", "r-1", "--watch")
    assert again.code == 0
    assert again.error.startswith("request r-1 was sent before and is REGISTERED: a request_id is trained once")
    assert again.out.splitlines()[-1] == "flowers@v3 m-1 accuracy 0.9"
    assert client.latest(["r-1", "r-2"]).keys() == {"r-1"}


@pytest.fixture
def letters(run: Run, client: Client, worker: Worker, settings: Settings) -> Letters:
    return Letters(client, worker, settings)


class Letters:
    """Dead letters as a worker leaves them, and the ledger that knows of their requests."""

    def __init__(self, client: Client, worker: Worker, settings: Settings) -> None:
        stores = open_stores(settings)
        stores.prepare()
        self.ledger = stores.ledger
        self._client = client
        self._worker = worker
        self._me = self.ledger.boot("w")

    def rejected(self, request_id: str, reason: str = "INVALID_REQUEST", **more: Any) -> None:
        """A request that was claimed and REJECTED."""
        request = TrainingRequest(request_id, "job", "svm", "nothere", model_name="flowers", **more)
        sent = request_message(self._client, request)
        self.put(sent.key, sent.value, list(sent.headers), reason)
        self.claim(sent.value)

    def unreadable(self, value: bytes, headers: list[tuple[str, bytes | None]] | None = None) -> None:
        self.put(b"key", value, headers or [], UNREADABLE)

    def claim(self, value: bytes | None) -> None:
        received = read_request(self._client.codec, value, headers=[], timestamp_ms=0)
        request_id = received.request.request_id
        claimed = self.ledger.claim(self._me, [NewClaim(request_id, received.sha256, Home("t", 0, 0), {})])
        assert claimed == {request_id}
        self.ledger.insert_outcomes(
            [_outcome(request_id, OutcomeKind.REJECTED, error=Failure("INVALID_REQUEST", "no"))]
        )

    def put(self, key: bytes | None, value: bytes | None, headers: list[tuple[str, bytes | None]], reason: str) -> None:
        record = Record(Partition("training-requests", 4), 1, 17, key, value, headers, 0)
        self._worker.send(dead_letter(self._client.topics.dead_letters, record, reason, "there is no dataset nothere"))


def test_dead_letters_are_listed_and_shown(run: Run, letters: Letters) -> None:
    letters.rejected("r-1", tags={"a": "b"})
    letters.unreadable(b"{}")
    listed = {one["reason"]: one for one in run("dlq", "list", "--json").objects}
    assert listed.keys() == {"INVALID_REQUEST", "UNREADABLE"}
    first = listed["INVALID_REQUEST"]
    assert (first["request_id"], first["message"]) == ("r-1", "there is no dataset nothere")
    assert (first["origin"], first["key"], first["decodes"]) == ("training-requests:4:17", "default/flowers", True)
    assert (listed["UNREADABLE"]["request_id"], listed["UNREADABLE"]["decodes"]) == (None, False)
    assert [one["reason"] for one in run("dlq", "list", "--json", "--reason", "UNREADABLE").objects] == ["UNREADABLE"]
    unknown = run("dlq", "list", "--reason", "UNREADABEL")
    assert (unknown.code, "no dead letter has the reason UNREADABEL; there are INVALID" in unknown.error) == (2, True)
    for which in ("r-1", first["place"]):
        (shown,) = run("dlq", "show", which, "--json").objects
        assert shown["record"]["tags"] == {"a": "b"}
        assert shown["headers"]["__connect.errors.exception.class.name"] == "INVALID_REQUEST"
    assert run("dlq", "show", "r-9").code == 2


def test_a_replay_is_a_new_request_that_remembers_the_old_one(
    run: Run, letters: Letters, settings: Settings, client: Client
) -> None:
    letters.rejected("r-1", correlation_id="c-1", tags={"a": "b"})
    assert run("dlq", "replay", "r-1", "--dry-run").code == 0
    assert records(settings, client.topics.training_requests) == []
    (told,) = run("dlq", "replay", "r-1", "--json").objects
    assert (told["sent"], told["replayed_as"]) == (True, "r-1.r1")
    (record,) = records(settings, client.topics.training_requests)
    asked = client.codec.decode(record.value(), RecordType.TRAINING_REQUEST)
    assert (asked["request_id"], asked["correlation_id"]) == ("r-1.r1", "c-1")
    assert asked["tags"] == {"a": "b", "replay_of": "r-1"}
    assert record.key() == b"default/flowers"
    assert not any(name.startswith("__connect") for name, _ in record.headers())


def test_a_dead_letter_always_becomes_the_same_request(
    run: Run, letters: Letters, settings: Settings, client: Client
) -> None:
    letters.rejected("r-1")
    for _ in range(2):  # no worker has seen the first one yet: its id makes the second one a duplicate
        assert run("dlq", "replay", "--all", "--json").objects[0]["replayed_as"] == "r-1.r1"
    first, second = records(settings, client.topics.training_requests)
    assert first.value() == second.value()
    letters.claim(first.value())
    (told,) = run("dlq", "replay", "--all", "--json").objects
    assert not told["sent"]
    assert told["why"] == "it was replayed before, and ended REJECTED"
    assert len(records(settings, client.topics.training_requests)) == 2


def test_a_replay_that_is_a_dead_letter_again_gets_the_next_number(run: Run, letters: Letters) -> None:
    letters.rejected("r-1")
    letters.rejected("r-1.r1", tags={"replay_of": "r-1"})
    told = {one["request_id"]: one for one in run("dlq", "replay", "--all", "--json").objects}
    assert not told["r-1"]["sent"]
    assert (told["r-1.r1"]["sent"], told["r-1.r1"]["replayed_as"]) == (True, "r-1.r2")


def test_two_requests_with_one_id_are_replayed_as_two(run: Run, letters: Letters, client: Client) -> None:
    letters.rejected("r-1")
    other = request_message(client, TrainingRequest("r-1", "job", "svm", "iris", model_name="flowers", seed=7))
    letters.put(other.key, other.value, list(other.headers), "CONFLICT")
    told = run("dlq", "replay", "--all", "--json").objects
    assert sorted(one["replayed_as"] for one in told) == ["r-1.r1", "r-1.r2"]
    assert all(one["sent"] for one in told)


def test_bytes_that_do_not_decode_are_sent_as_they_are_and_never_multiply(
    run: Run, letters: Letters, settings: Settings, client: Client
) -> None:
    letters.unreadable(b"\x00\x01", [("origin", b"x")])
    assert run("dlq", "replay", "--reason", "UNREADABLE").code == 0
    (record,) = records(settings, client.topics.training_requests)
    assert (record.key(), record.value()) == (b"key", b"\x00\x01")
    assert dict(record.headers())["origin"] == b"x"
    letters.unreadable(record.value(), record.headers())  # it does not decode any better, and is one again
    told = run("dlq", "replay", "--all", "--json").objects
    assert sorted(one["sent"] for one in told) == [False, True]
    assert len(records(settings, client.topics.training_requests)) == 2


def test_the_doctor_finds_all_topics(run: Run, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MONGODB_URL", "mongodb://127.0.0.1:1/")
    answer = run("doctor", "--json")
    found = {one["about"]: one for one in answer.objects}
    assert answer.code == 3
    assert found["topics"]["found"] == "all 6 are there"
    assert not found["mongodb"]["ok"]
