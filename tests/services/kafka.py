"""Apache Kafka 4.2 (KRaft), one node or a cluster: transactions, both kinds of groups. Topics must be created."""

import os
import uuid
from base64 import urlsafe_b64encode
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from tests.services.install import DATA, SMALL_JVM, installed, maven, run, tool
from tests.services.proxy import Proxy
from tests.services.server import Server, Service, accepts, data_directory, free_ports

PURPOSE = "Apache Kafka"
POM = DATA / "kafka.pom.xml"
JVM_OPTIONS = (*SMALL_JVM, "-Dorg.apache.logging.log4j.level=WARN")
HEAP, HEAP_IN_A_CLUSTER = "-Xmx512m", "-Xmx256m"
AUTHORIZER = {
    "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
    "allow.everyone.if.no.acl.found": "true",
}
"""Tests take rights away by ACLs; what has none may be done by everyone. Nodes of a cluster would need rights first."""


@dataclass(frozen=True)
class Kafka(Service):
    bootstrap_servers: str
    proxied_port: int = 0
    """The port to reach this node on without its proxy, for the proxy."""
    proxy_port: int = 0
    """The port to which the node sends everybody who came by `proxied_port`."""

    @property
    def exports(self) -> dict[str, str]:
        return {"KAFKA_BOOTSTRAP_SERVERS": self.bootstrap_servers}

    def delete_topics(self, prefix: str) -> None:
        """All topics whose names begin so; raises KafkaException if one stays."""
        admin = AdminClient({"bootstrap.servers": self.bootstrap_servers, "log_level": 0})
        topics = [topic for topic in admin.list_topics(timeout=10).topics if topic.startswith(prefix)]
        for deletion in admin.delete_topics(topics).values() if topics else ():
            deletion.result(timeout=60)

    def proxy(self) -> Proxy:
        """A network of its own to this node: who has its address as bootstrap servers comes through it at all times."""
        self._ours()
        return Proxy(self.proxy_port, self.proxied_port)


@dataclass(frozen=True)
class KafkaCluster(Kafka):
    """Each node keeps a copy of everything; acknowledged is what a majority has. Kill, pause or restart one `nodes`."""

    nodes: tuple[Kafka, ...] = ()

    def leader(self, topic: str, partition: int = 0) -> Kafka:
        """The node that a partition is written to and read from."""
        return self.nodes[self._leaders(topic)[partition] - 1]

    def group_coordinator(self, group: str) -> Kafka:
        """The node that keeps a group's members and offsets."""
        return self._coordinator("__consumer_offsets", group)

    def transaction_coordinator(self, transactional_id: str) -> Kafka:
        """The node that keeps a producer's transactions."""
        return self._coordinator("__transaction_state", transactional_id)

    def revive(self) -> None:
        """All at once: a node alone answers nothing."""
        with ThreadPoolExecutor(len(self.nodes)) as pool:
            list(pool.map(Kafka.revive, self.nodes))

    def close(self) -> None:
        for node in self.nodes:
            node.close()

    def _coordinator(self, topic: str, key: str) -> Kafka:
        return self.leader(topic, abs(_java_hash(key)) % len(self._leaders(topic)))

    def _leaders(self, topic: str) -> dict[int, int]:
        """Node ids, which count from 1, by partition."""
        admin = AdminClient({"bootstrap.servers": self.bootstrap_servers, "log_level": 0})
        partitions = admin.list_topics(topic, timeout=10).topics[topic].partitions
        return {number: partition.leader for number, partition in partitions.items()}


def start(*, detached: bool = False) -> Kafka:
    given = os.environ.get("TENSORFLEET_TEST_KAFKA")
    if given and not detached:
        return Kafka(None, given)
    (node,) = _start_all(1, HEAP, detached=detached)
    return node


def start_cluster(nodes: int = 3) -> KafkaCluster:
    started = _start_all(nodes, HEAP_IN_A_CLUSTER)
    return KafkaCluster(None, ",".join(node.bootstrap_servers for node in started), nodes=started)


def install() -> Path:
    def build(folder: Path) -> None:
        tool("java", PURPOSE, at_least=17)
        maven("copy-dependencies", POM, folder, PURPOSE)

    return installed("kafka", build, POM)


@dataclass(frozen=True)
class _Node:
    node_id: int
    port: int
    controller_port: int
    proxied_port: int
    proxy_port: int

    @property
    def bootstrap_servers(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def voter(self) -> str:
        return f"{self.node_id}@127.0.0.1:{self.controller_port}"


def _start_all(count: int, heap: str, *, detached: bool = False) -> tuple[Kafka, ...]:
    """All at once, for a node answers when it has a majority; where one fails, none is left."""
    nodes = [_Node(number, *free_ports(4)) for number in range(1, count + 1)]
    cluster_id = urlsafe_b64encode(uuid.uuid4().bytes).rstrip(b"=").decode().replace("-", "x")
    starting: list[Future[Kafka]] = []
    try:
        with ThreadPoolExecutor(count) as threads:
            starting.extend(threads.submit(_start, node, nodes, cluster_id, heap, detached) for node in nodes)
        return tuple(one.result() for one in starting)
    except BaseException:
        for one in starting:
            if one.exception() is None:
                one.result().close()
        raise


def _start(node: _Node, nodes: Sequence[_Node], cluster_id: str, heap: str, detached: bool) -> Kafka:
    java, libraries = tool("java", PURPOSE), install()
    directory = data_directory("kafka")
    properties = directory / "server.properties"
    properties.write_text("".join(f"{key}={value}\n" for key, value in _settings(directory, node, nodes).items()))
    jvm = [java, heap, *JVM_OPTIONS, f"-Djava.io.tmpdir={directory}", "-cp", f"{libraries}/*"]
    run([*jvm, "kafka.tools.StorageTool", "format", "-t", cluster_id, "-c", str(properties)], directory, PURPOSE)
    server = Server(
        PURPOSE,
        [*jvm, "kafka.Kafka", properties],
        directory,
        lambda: accepts(node.port) and _answers(node),
        detached=detached,
    )
    return Kafka(server.launch(), node.bootstrap_servers, node.proxied_port, node.proxy_port)


def _settings(directory: Path, node: _Node, nodes: Sequence[_Node]) -> dict[str, object]:
    listener, proxied = f"PLAINTEXT://{node.bootstrap_servers}", "PROXIED://127.0.0.1"
    copies, majority = len(nodes), len(nodes) // 2 + 1
    return {
        "process.roles": "broker,controller",
        "node.id": node.node_id,
        "controller.quorum.voters": ",".join(one.voter for one in nodes),
        "controller.listener.names": "CONTROLLER",
        "listeners": f"{listener},{proxied}:{node.proxied_port},CONTROLLER://127.0.0.1:{node.controller_port}",
        "advertised.listeners": f"{listener},{proxied}:{node.proxy_port}",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,PROXIED:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "log.dirs": directory / "data",
        # As in a well-kept production cluster: a missing topic is an error.
        "auto.create.topics.enable": "false",
        **(AUTHORIZER if copies == 1 else {}),
        "default.replication.factor": copies,
        "min.insync.replicas": majority,
        # Few partitions start faster.
        "offsets.topic.replication.factor": copies,
        "offsets.topic.num.partitions": 4,
        "transaction.state.log.replication.factor": copies,
        "transaction.state.log.min.isr": majority,
        "transaction.state.log.num.partitions": 4,
        "share.coordinator.state.topic.replication.factor": copies,
        "share.coordinator.state.topic.min.isr": majority,
        # Members that die are missed after 6 s, as with a classic session of 6 s; tests may ask for less.
        "group.initial.rebalance.delay.ms": 0,
        "group.min.session.timeout.ms": 1_000,
        "group.consumer.session.timeout.ms": 6_000,
        "group.consumer.min.session.timeout.ms": 1_000,
        "group.consumer.heartbeat.interval.ms": 1_000,
        "group.consumer.min.heartbeat.interval.ms": 500,
        # Transactions past their time-out are looked for each second (default 10): while a broker starts, too, which
        # test_kafka_aborts_what_was_open_over_a_kill needs.
        "transaction.abort.timed.out.transaction.cleanup.interval.ms": 1_000,
        # A killed broker may register again when the controller has missed it: after 2 s, not 9. In a cluster that is
        # also when others take its place, and a busy machine must not make a living one look dead.
        "broker.heartbeat.interval.ms": 500,
        "broker.session.timeout.ms": 2_000 if copies == 1 else 5_000,
        # message.max.bytes stays at its default; a topic may raise its own max.message.bytes up to here.
        "replica.fetch.max.bytes": 26_214_400,
    }


def _java_hash(text: str) -> int:
    """String.hashCode(), by which the brokers choose coordinators."""
    value = 0
    for character in text:
        value = (31 * value + ord(character)) % 2**32
    return value - 2**32 if value >= 2**31 else value


def _answers(node: _Node) -> bool:
    # Metadata lists a broker only when it is registered, caught up and unfenced.
    try:
        admin = AdminClient({"bootstrap.servers": node.bootstrap_servers, "log_level": 0})
        return node.node_id in admin.list_topics(timeout=2).brokers
    except KafkaException:
        return False
