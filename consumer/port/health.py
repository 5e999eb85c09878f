"""Probes every service every INTERVAL_S, so that /health need not."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import structlog
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from consumer.threads.neighbour import Periodic, Surroundings
from pipeline.artifacts import ArtifactStore
from pipeline.errors import TransientError
from pipeline.ledger import Ledger

log = structlog.get_logger(__name__)

INTERVAL_S = 5.0
KAFKA_TIMEOUT_S = 3.0


class Prober(Periodic):
    """`connected[name]` is whether the last probe of that service succeeded."""

    def __init__(self, probes: Mapping[str, Callable[[], object]], around: Surroundings) -> None:
        super().__init__("prober", around, INTERVAL_S)
        self._probes = probes
        self.connected = dict.fromkeys(probes, False)

    def open(self) -> None:
        self.step()

    def work(self) -> None:
        for name, probe in self._probes.items():
            self.turn.begin()
            self.connected[name] = _answers(probe)


def service_probes(admin: AdminClient, ledger: Ledger, artifacts: ArtifactStore) -> dict[str, Callable[[], object]]:
    """A cheap call to each service, by its name."""

    def kafka() -> object:
        try:
            return admin.list_topics(timeout=KAFKA_TIMEOUT_S)
        except KafkaException as error:
            raise TransientError("kafka", str(error)) from error

    return {
        "kafka": kafka,
        "mongodb": lambda: ledger.read(("",)),
        "artifacts": lambda: artifacts.list("~health/"),
    }


def _answers(probe: Callable[[], object]) -> bool:
    try:
        probe()
    except TransientError as error:
        log.debug("no answer", why=str(error))
        return False
    return True
