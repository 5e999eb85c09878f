"""A Confluent-compatible schema registry: Apicurio 2.6, its schemas in a database file."""

import http.client
import os
from dataclasses import dataclass
from pathlib import Path

from tests.services.install import DATA, SMALL_JVM, installed, maven, tool
from tests.services.server import Server, Service, accepts, data_directory, free_ports

PURPOSE = "the schema registry"
POM = DATA / "schema-registry.pom.xml"
API = "/apis/ccompat/v7"
JVM_OPTIONS = ("-Xmx400m", *SMALL_JVM)


@dataclass(frozen=True)
class SchemaRegistry(Service):
    url: str

    @property
    def exports(self) -> dict[str, str]:
        return {"SCHEMA_REGISTRY_URL": self.url}


def start(*, detached: bool = False) -> SchemaRegistry:
    given = os.environ.get("TENSORFLEET_TEST_SCHEMA_REGISTRY")
    if given and not detached:
        return SchemaRegistry(None, given)
    java, application = tool("java", PURPOSE), install()
    directory = data_directory("registry")
    (port,) = free_ports(1)
    settings = {
        "java.io.tmpdir": directory,
        "quarkus.http.host": "127.0.0.1",
        "quarkus.http.port": port,
        "quarkus.log.level": "WARN",
        # What was acknowledged is in the file, not half a second later.
        "quarkus.datasource.jdbc.url": f"jdbc:h2:file:{directory}/data;WRITE_DELAY=0",
    }
    server = Server(
        PURPOSE,
        [
            java,
            *JVM_OPTIONS,
            *(f"-D{key}={value}" for key, value in settings.items()),
            "-jar",
            next(application.glob("*-runner.jar")),
        ],
        directory,
        lambda: accepts(port) and _answers(port),
        detached=detached,
    )
    return SchemaRegistry(server.launch(), f"http://127.0.0.1:{port}{API}")


def install() -> Path:
    def build(folder: Path) -> None:
        tool("java", PURPOSE, at_least=17)
        maven("unpack", POM, folder, PURPOSE)

    return installed("schema-registry", build, POM)


def _answers(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
    try:
        connection.request("GET", f"{API}/subjects")
        return connection.getresponse().status == http.HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
