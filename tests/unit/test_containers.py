"""What can be said about image and deployments without a container engine."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from consumer.port.http import Health, HttpServer
from consumer.settings import Settings, duration_s, load_settings
from consumer.telemetry.metrics import Metrics
from consumer.threads.watch import Watch

ROOT = Path(__file__).parents[2]
COMPOSE = yaml.safe_load((ROOT / "docker-compose.kafka.yml").read_text())
KUBERNETES = list(yaml.safe_load_all((ROOT / "deploy/kubernetes/worker.yaml").read_text()))
DOCKERFILE = (ROOT / "Dockerfile").read_text()
NAMES = {name.upper() for name in Settings.model_fields}


def resource(kind: str) -> Any:
    return next(document for document in KUBERNETES if document["kind"] == kind)


def defaults(environment: dict[str, Any]) -> dict[str, str]:
    """The environment as compose makes it where nothing is set: `${NAME:-default}` is the default."""
    return {name: re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", str(value)) for name, value in environment.items()}


def dockerfile_environment() -> set[str]:
    final = DOCKERFILE.rpartition("\nFROM ")[2]
    block = re.search(r"^ENV (.*?[^\\])$", final, re.DOTALL | re.MULTILINE)
    assert block is not None
    return set(re.findall(r"(\w+)=", block[1]))


def test_the_dockerfile_has_no_lint() -> None:
    hadolint = shutil.which("hadolint", path=str(Path(sys.executable).parent)) or shutil.which("hadolint")
    if hadolint is None:
        pytest.skip("hadolint is not installed")
    done = subprocess.run([hadolint, str(ROOT / "Dockerfile")], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_the_image_runs_as_nobody_in_particular_and_takes_sigterm() -> None:
    final = DOCKERFILE.rpartition("\nFROM ")[2].splitlines()
    assert "USER 10001" in final
    assert "STOPSIGNAL SIGTERM" in final
    assert 'ENTRYPOINT ["tini", "--", "tensorfleet"]' in final


def test_the_images_health_check_is_python_that_asks_livez() -> None:
    match = re.search(r'CMD \["python", "-c", "(.*)"\]', DOCKERFILE)
    assert match is not None
    script = match[1].replace('\\"', '"')
    stuck = [{}, {"worker": 31.0}]
    health = Health(True, True, True, 0, 0, 0)
    server = HttpServer(0, lambda: health, lambda: stuck.pop(0), Metrics(), Watch(), host="127.0.0.1")
    environ = {**os.environ, "PORT": str(server.start())}
    try:
        asked = [subprocess.run([sys.executable, "-c", script], env=environ, capture_output=True) for _ in (1, 2)]
    finally:
        server.stop()
    assert [done.returncode for done in asked] == [0, 1]


def test_what_the_image_is_built_from_is_not_ignored() -> None:
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = {
        source
        for line in re.findall(r"^COPY (?!--from)(.*)$", DOCKERFILE, re.MULTILINE)
        for source in line.split()[:-1]
    }
    assert copied == allowed


def test_every_variable_of_image_and_deployments_is_a_setting() -> None:
    assert dockerfile_environment() - {"PATH", "PYTHONUNBUFFERED"} <= NAMES
    assert set(COMPOSE["services"]["worker"]["environment"]) <= NAMES
    assert set(resource("ConfigMap")["data"]) | set(resource("Secret")["stringData"]) <= NAMES
    container = resource("Deployment")["spec"]["template"]["spec"]["containers"][0]
    assert {variable["name"] for variable in container["env"]} <= NAMES


def test_the_settings_of_both_deployments_are_right() -> None:
    load_settings(defaults(COMPOSE["services"]["worker"]["environment"]), env_file=None)
    load_settings({**resource("ConfigMap")["data"], **resource("Secret")["stringData"]}, env_file=None)


def test_workers_can_be_scaled() -> None:
    worker = COMPOSE["services"]["worker"]
    assert "container_name" not in worker
    assert "hostname" not in worker
    assert all(re.fullmatch(r"127\.0\.0\.1:\d+-\d+:8000", port) for port in worker["ports"])


def test_a_worker_is_given_the_time_to_drain() -> None:
    compose = load_settings(defaults(COMPOSE["services"]["worker"]["environment"]), env_file=None)
    grace = defaults({"grace": COMPOSE["services"]["worker"]["stop_grace_period"]})["grace"]
    assert float(str(duration_s(grace))) > compose.drain_timeout
    kubernetes = load_settings({**resource("ConfigMap")["data"], **resource("Secret")["stringData"]}, env_file=None)
    assert (
        resource("Deployment")["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] > kubernetes.drain_timeout
    )


def test_a_worker_starts_after_its_topics_and_services() -> None:
    services = COMPOSE["services"]
    waits = {name: how["condition"] for name, how in services["worker"]["depends_on"].items()}
    assert waits.pop("topics") == "service_completed_successfully"
    assert set(waits) == set(services) - {"worker", "topics"}
    assert set(waits.values()) == {"service_healthy"}
    assert all("healthcheck" in services[name] for name in waits)
    assert "tensorfleet topics create && tensorfleet schemas register" in services["topics"]["entrypoint"]


def test_nothing_but_this_machine_reaches_the_published_ports() -> None:
    published = [port for service in COMPOSE["services"].values() for port in service.get("ports", [])]
    assert published
    assert all(port.startswith("127.0.0.1:") for port in published)


def test_images_are_pinned_to_a_version() -> None:
    images = [service["image"] for service in COMPOSE["services"].values() if "build" not in service]
    images += re.findall(r"^FROM (\S+)", DOCKERFILE, re.MULTILINE)
    assert all(":" in image and not image.endswith(":latest") for image in images)


def test_every_volume_is_declared() -> None:
    mounted = {
        volume.split(":")[0] for service in COMPOSE["services"].values() for volume in service.get("volumes", [])
    }
    assert mounted == set(COMPOSE["volumes"])


def test_kubernetes_restarts_a_worker_only_when_its_loops_stand_still() -> None:
    container = resource("Deployment")["spec"]["template"]["spec"]["containers"][0]
    assert container["livenessProbe"]["httpGet"]["path"] == "/livez"
    assert container["startupProbe"]["httpGet"]["path"] == "/livez"
    assert container["readinessProbe"]["httpGet"]["path"] == "/health"
