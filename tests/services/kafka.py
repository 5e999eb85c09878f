"""Apache Kafka 4.3: one KRaft node with transactions, classic and KIP-848 groups. Topics must be created."""

import os
import uuid
from base64 import urlsafe_b64encode
from dataclasses import dataclass
from pathlib import Path

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from tests.services.install import DATA, SMALL_JVM, installed, maven, run, tool
from tests.services.server import Server, Service, accepts, data_directory, free_ports

PURPOSE = "Apache Kafka"
POM = DATA / "kafka.pom.xml"
JVM_OPTIONS = ("-Xmx512m", *SMALL_JVM, "-Dorg.apache.logging.log4j.level=WARN")


@dataclass(frozen=True)
class Kafka(Service):
    bootstrap_servers: str

    @property
    def exports(self) -> dict[str, str]:
        return {"KAFKA_BOOTSTRAP_SERVERS": self.bootstrap_servers}


def start(*, detached: bool = False) -> Kafka:
    given = os.environ.get("TENSORFLEET_TEST_KAFKA")
    if given and not detached:
        return Kafka(None, given)
    java, libraries = tool("java", PURPOSE), install()
    directory = data_directory("kafka")
    port, controller_port = free_ports(2)
    properties = directory / "server.properties"
    properties.write_text(
        "".join(f"{key}={value}\n" for key, value in _settings(directory, port, controller_port).items())
    )
    jvm = [java, *JVM_OPTIONS, f"-Djava.io.tmpdir={directory}", "-cp", f"{libraries}/*"]
    cluster_id = urlsafe_b64encode(uuid.uuid4().bytes).rstrip(b"=").decode().replace("-", "x")
    run([*jvm, "kafka.tools.StorageTool", "format", "-t", cluster_id, "-c", str(properties)], directory, PURPOSE)
    bootstrap_servers = f"127.0.0.1:{port}"
    server = Server(
        PURPOSE,
        [*jvm, "kafka.Kafka", properties],
        directory,
        lambda: accepts(port) and _answers(bootstrap_servers),
        detached=detached,
    )
    return Kafka(server.launch(), bootstrap_servers)


def install() -> Path:
    def build(folder: Path) -> None:
        tool("java", PURPOSE, at_least=17)
        maven("copy-dependencies", POM, folder, PURPOSE)

    return installed("kafka", build, POM)


def _settings(directory: Path, port: int, controller_port: int) -> dict[str, object]:
    return {
        "process.roles": "broker,controller",
        "node.id": 1,
        "controller.quorum.voters": f"1@127.0.0.1:{controller_port}",
        "controller.listener.names": "CONTROLLER",
        "listeners": f"PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}",
        "advertised.listeners": f"PLAINTEXT://127.0.0.1:{port}",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "log.dirs": directory / "data",
        # As in a well-kept production cluster: a missing topic is an error.
        "auto.create.topics.enable": "false",
        # One node, so one replica of everything; few partitions start faster.
        "default.replication.factor": 1,
        "offsets.topic.replication.factor": 1,
        "offsets.topic.num.partitions": 4,
        "transaction.state.log.replication.factor": 1,
        "transaction.state.log.min.isr": 1,
        "transaction.state.log.num.partitions": 4,
        "share.coordinator.state.topic.replication.factor": 1,
        "share.coordinator.state.topic.min.isr": 1,
        # Members that die are missed after 6 s, as with a classic session of 6 s; tests may ask for less.
        "group.initial.rebalance.delay.ms": 0,
        "group.min.session.timeout.ms": 1_000,
        "group.consumer.session.timeout.ms": 6_000,
        "group.consumer.min.session.timeout.ms": 1_000,
        "group.consumer.heartbeat.interval.ms": 1_000,
        "group.consumer.min.heartbeat.interval.ms": 500,
        # Transactions past their time-out are looked for each second (default 10).
        "transaction.abort.timed.out.transaction.cleanup.interval.ms": 1_000,
        # A killed broker may register again when the controller has missed it: after 2 s, not 9.
        "broker.heartbeat.interval.ms": 500,
        "broker.session.timeout.ms": 2_000,
        # message.max.bytes stays at its default; a topic may raise its own max.message.bytes up to here.
        "replica.fetch.max.bytes": 26_214_400,
    }


def _answers(bootstrap_servers: str) -> bool:
    # Metadata lists a broker only when it is registered, caught up and unfenced.
    try:
        admin = AdminClient({"bootstrap.servers": bootstrap_servers, "log_level": 0})
        return bool(admin.list_topics(timeout=2).brokers)
    except KafkaException:
        return False
